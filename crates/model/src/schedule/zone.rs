//! Time zones by their names.

use std::{fmt, str::FromStr};

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{error::EdgeError, limits::ZONE_BYTES_MAX};

/// A time zone of the IANA database, such as `Europe/Berlin`: the machine's database if it has one, and ours otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Its rules.
    pub fn rules(&self) -> &TimeZone {
        &self.0
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Zone {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let is_name = text.len() <= ZONE_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte));
        let found = if is_name { TimeZone::get(text).ok().filter(|zone| zone.iana_name().is_some()) } else { None };
        found.map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(ZONE_BYTES_MAX).collect();
            EdgeError::invalid(format!("there is no time zone `{}`; write a name such as `Europe/Berlin` or `UTC`", shown.escape_debug()))
        })
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_comes_back_from_its_name_and_nothing_else_is_one() {
        for text in ["UTC", "Europe/Berlin", "America/New_York", "Etc/GMT+5"] {
            assert_eq!(text.parse::<Zone>().expect(text).to_string(), text);
        }
        for text in ["", "Europe/Bielefeld", "EST5EDT4", "../../etc/passwd", "/etc/localtime", "Local", "Etc/Unknown", &"x".repeat(1000)] {
            let error = text.parse::<Zone>().expect_err(text).to_string();
            assert!(error.contains("there is no time zone") && error.len() < 200, "{error}");
        }
        assert_eq!(Zone::default(), "UTC".parse().expect("valid"));
    }
}
