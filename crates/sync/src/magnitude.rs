//! The order of values that `max` and `min` compare: numbers by size, above them strings, above these all else.

use std::cmp::Ordering;

use edgeward_model::{Value, python_json};

/// A value as it is compared: total, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) enum Magnitude {
    /// A number: its nearest binary64, and for a whole number its digits, which tell apart what binary64 does not.
    Number(f64, Option<Digits>),
    /// Anything but a number, below or above its kin by kind and text.
    Other(u8, String),
}

/// A whole number in decimal, compared by size.
#[derive(Clone, Debug)]
pub(crate) struct Digits {
    negative: bool,
    digits: String,
}

impl Magnitude {
    /// The magnitude of a value in canonical JSON. What is no JSON is compared by its text, above all else.
    pub(crate) fn new(text: &str) -> Self {
        let other = |kind| Self::Other(kind, text.to_owned());
        match python_json::read(text) {
            Ok(Value::Integer(_)) => {
                let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
                Self::Number(text.parse().unwrap_or(f64::NAN), Some(Digits { negative, digits: digits.to_owned() }))
            }
            Ok(Value::Float(number)) => Self::Number(number, None),
            Ok(Value::String(_)) => other(0),
            Ok(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => other(1),
            Err(_) => other(2),
        }
    }
}

impl Ord for Magnitude {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // Rounding to binary64 keeps the order of whole numbers, so digits are only looked at where it made them equal.
            (Self::Number(left, left_digits), Self::Number(right, right_digits)) => {
                left.total_cmp(right).then_with(|| left_digits.cmp(right_digits))
            }
            (Self::Number(..), Self::Other(..)) => Ordering::Less,
            (Self::Other(..), Self::Number(..)) => Ordering::Greater,
            (Self::Other(left, left_text), Self::Other(right, right_text)) => left.cmp(right).then_with(|| left_text.cmp(right_text)),
        }
    }
}

impl Ord for Digits {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |digits: &Self| (digits.digits.len(), digits.digits.clone());
        match (self.negative, other.negative) {
            (false, false) => size(self).cmp(&size(other)),
            (true, true) => size(other).cmp(&size(self)),
            (left, right) => right.cmp(&left),
        }
    }
}

macro_rules! compared_by_order {
    ($($name:ident),*) => {
        $(impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }

        impl Eq for $name {})*
    };
}

compared_by_order!(Magnitude, Digits);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_ordered_by_size_then_by_kind() {
        let ascending = [
            "-Infinity",
            "-18446744073709551617",
            "-18446744073709551616",
            "-2",
            "-1.5",
            "-1",
            "-0.0",
            "0.0",
            "0",
            "0.5",
            "1.0",
            "1",
            "9",
            "10",
            "9007199254740992",
            "9007199254740993",
            "1e+300",
            "Infinity",
            "\"a\"",
            "\"b\"",
            "[1]",
            "true",
            "{not json",
        ];
        for (i, left) in ascending.iter().enumerate() {
            for (j, right) in ascending.iter().enumerate() {
                assert_eq!(Magnitude::new(left).cmp(&Magnitude::new(right)), i.cmp(&j), "{left} and {right}");
            }
        }
    }
}
