//! A whole number of any size, exact, as Python's `int`.
//!
//! One number has one form: an `i64` where it fits, else its canonical decimal digits. Equality compares forms.

use std::{fmt, str::FromStr};

use crate::{error::EdgeError, limits::INTEGER_DIGITS_MAX};

/// A whole number of up to [`INTEGER_DIGITS_MAX`] digits. `Display` writes it in decimal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Integer(Form);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Form {
    Small(i64),
    /// Outside `i64`: `-` where negative, then digits, the first of them not 0.
    Big(Box<str>),
}

impl Integer {
    /// The number, where it fits.
    pub fn as_i64(&self) -> Option<i64> {
        match &self.0 {
            Form::Small(number) => Some(*number),
            Form::Big(_) => None,
        }
    }

    /// The number, where it fits.
    pub fn as_u64(&self) -> Option<u64> {
        match &self.0 {
            Form::Small(number) => u64::try_from(*number).ok(),
            Form::Big(digits) => digits.parse().ok(),
        }
    }
}

impl From<i64> for Integer {
    fn from(number: i64) -> Self {
        Self(Form::Small(number))
    }
}

impl From<u64> for Integer {
    fn from(number: u64) -> Self {
        Self(i64::try_from(number).map_or_else(|_| Form::Big(number.to_string().into()), Form::Small))
    }
}

impl FromStr for Integer {
    type Err = EdgeError;

    /// Reads an optional `-` and decimal digits. Leading zeros do not count, and `-0` is 0.
    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let refused = |why: String| {
            let shown: String = text.chars().take(40).collect();
            EdgeError::invalid(format!("the integer `{}` is not valid: {why}", shown.escape_debug()))
        };
        let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(refused("it must be an optional `-` and decimal digits".to_owned()));
        }
        if digits.len() > INTEGER_DIGITS_MAX {
            return Err(refused(format!("it has {} digits, the most is {INTEGER_DIGITS_MAX}", digits.len())));
        }
        Ok(Self(match text.parse() {
            Ok(number) => Form::Small(number),
            Err(_) => Form::Big(format!("{sign}{}", digits.trim_start_matches('0')).into()),
        }))
    }
}

impl fmt::Display for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Small(number) => number.fmt(f),
            Form::Big(digits) => f.write_str(digits),
        }
    }
}

impl fmt::Debug for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_has_one_form_whatever_it_was_made_of() {
        let read = |text: &str| text.parse::<Integer>().expect(text);
        assert_eq!(read("-0"), Integer::from(0_i64));
        assert_eq!(read("0009223372036854775807"), Integer::from(i64::MAX));
        assert_eq!(read("-9223372036854775808"), Integer::from(i64::MIN));
        assert_eq!(read("18446744073709551615"), Integer::from(u64::MAX));
        assert_eq!(read("00018446744073709551616").to_string(), "18446744073709551616");
        assert_eq!(read("-000123456789012345678901234567890").to_string(), "-123456789012345678901234567890");
        assert_eq!(Integer::from(7_u64), Integer::from(7_i64));
    }

    #[test]
    fn an_integer_becomes_a_machine_word_only_where_it_fits() {
        let read = |text: &str| text.parse::<Integer>().expect(text);
        assert_eq!((read("-1").as_i64(), read("-1").as_u64()), (Some(-1), None));
        assert_eq!((read("9223372036854775808").as_i64(), read("9223372036854775808").as_u64()), (None, Some(1 << 63)));
        assert_eq!((read("18446744073709551616").as_i64(), read("18446744073709551616").as_u64()), (None, None));
    }

    #[test]
    fn what_is_no_integer_is_refused_with_the_reason() {
        for bad in ["", "-", "+1", "1.0", "1e2", " 1", "٣", "--1"] {
            assert!(bad.parse::<Integer>().expect_err(bad).to_string().contains("decimal digits"), "{bad:?}");
        }
        assert!("9".repeat(INTEGER_DIGITS_MAX).parse::<Integer>().is_ok());
        let error = format!("-{}", "9".repeat(INTEGER_DIGITS_MAX + 1)).parse::<Integer>().expect_err("too long");
        assert!(error.to_string().contains("4301 digits, the most is 4300"), "{error}");
    }
}
