//! A part of a set: so many of it, or so many percent.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{error::EdgeError, limits::NODES_MAX};

/// A part of a set. As text: `5`, or `10%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many of a hundred, 0 to 100.
    Percent(u8),
}

impl Amount {
    /// The whole set.
    pub const ALL: Self = Self::Percent(100);

    /// Checks that its text is one.
    pub fn validate(self) -> Result<(), EdgeError> {
        self.to_string().parse::<Self>().map(drop)
    }

    /// How many of `total` it is: at least one of a set that is not empty, and at most all.
    pub fn at_least_one_of(self, total: usize) -> usize {
        let count = match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(percent) => (total * usize::from(percent)).div_ceil(100),
        };
        count.clamp(1, total.max(1)).min(total)
    }

    /// How many of `total` it is, rounded down.
    pub fn at_most_of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX).min(total),
            Self::Percent(percent) => total * usize::from(percent) / 100,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Amount {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let refused = || {
            let shown: String = text.chars().take(32).collect();
            EdgeError::invalid(format!("`{}` is no amount; write a number such as `5`, or a share such as `10%`", shown.escape_debug()))
        };
        if let Some(percent) = text.strip_suffix('%') {
            return percent.parse().ok().filter(|percent| *percent <= 100).map(Self::Percent).ok_or_else(refused);
        }
        let count: u32 = text.parse().map_err(|_| refused())?;
        if usize::try_from(count).is_ok_and(|count| count <= NODES_MAX) { Ok(Self::Count(count)) } else { Err(refused()) }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    /// Reads its text, or a bare number.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "an amount is a number of nodes such as 5, or a text such as `5` or `10%`")]
        enum Written {
            Number(u32),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_as_it_is_asked_for() {
        let amount = |text: &str| text.parse::<Amount>().expect("valid");
        for (text, total, least, most) in [
            ("10%", 10, 1, 1),
            ("10%", 15, 2, 1),
            ("10%", 3, 1, 0),
            ("0%", 10, 1, 0),
            ("100%", 7, 7, 7),
            ("5", 3, 3, 3),
            ("0", 3, 1, 0),
            ("2", 9, 2, 2),
            ("50%", 0, 0, 0),
        ] {
            assert_eq!((amount(text).at_least_one_of(total), amount(text).at_most_of(total)), (least, most), "{text} of {total}");
        }
    }

    #[test]
    fn an_amount_comes_back_from_its_text_and_nothing_else_does() {
        for text in ["0", "5", "10000", "0%", "100%"] {
            assert_eq!(text.parse::<Amount>().expect("valid").to_string(), text);
        }
        for text in ["", "%", "101%", "-1", "1.5", "10001", "5 %", "many"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
        assert!(Amount::Percent(101).validate().is_err() && Amount::Count(10_001).validate().is_err() && Amount::ALL.validate().is_ok());
        assert_eq!(serde_json::from_str::<Amount>("3").expect("valid"), Amount::Count(3));
        assert_eq!(serde_json::from_str::<Amount>("\"3%\"").expect("valid"), Amount::Percent(3));
        let error = serde_json::from_str::<Amount>("[3]").expect_err("a list").to_string();
        assert!(error.contains("a number of nodes such as 5"), "{error}");
    }
}
