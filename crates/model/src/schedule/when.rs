//! When something is due: over and over in an interval, once, or by a cron expression.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    error::EdgeError,
    limits::{INTERVAL_SECONDS_MAX, WHEN_BYTES_MAX},
    schedule::{cron::Cron, zone::Zone},
};

const EVERY: &str = "every ";
const AT: &str = "at ";

/// When something is due. As text: `every 30s`, `at 2026-12-24T18:00:00Z`, or a cron expression such as `0 3 * * MON-FRI`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// Each so many seconds, counted from an anchor.
    Every {
        /// How many, 1 to a year of them.
        seconds: u32,
    },
    /// Once.
    At(Timestamp),
    /// By local time.
    Cron(Cron),
}

impl When {
    /// The first moment after another at which it is due. Intervals are counted from `anchor`.
    pub fn next_after(&self, after: Timestamp, zone: &Zone, anchor: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every { seconds } => {
                let every = i64::from(*seconds);
                // The anchor itself counts, if it is still to come.
                let passed = after.duration_since(anchor);
                let passed = if passed.is_negative() { return Some(anchor) } else { passed.as_secs() };
                anchor.checked_add(SignedDuration::from_secs((passed / every + 1) * every)).ok()
            }
            Self::At(at) => Some(*at).filter(|at| *at > after),
            Self::Cron(cron) => cron.next_after(after, zone.rules()),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every { seconds } => {
                f.write_str(EVERY)?;
                let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
                parts.into_iter().filter(|(count, _)| *count > 0).try_for_each(|(count, unit)| write!(f, "{count}{unit}"))
            }
            Self::At(at) => write!(f, "{AT}{at}"),
            Self::Cron(cron) => cron.fmt(f),
        }
    }
}

impl FromStr for When {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        if text.len() > WHEN_BYTES_MAX {
            let bytes = text.len();
            return Err(EdgeError::invalid(format!("when a schedule is due takes at most {WHEN_BYTES_MAX} bytes, not {bytes}")));
        }
        if let Some(interval) = text.strip_prefix(EVERY) {
            let duration = interval.trim().parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
            let whole = duration.filter(|duration| duration.subsec_nanos() == 0).map(|duration| duration.as_secs());
            let seconds = whole.and_then(|whole| u32::try_from(whole).ok()).filter(|whole| (1..=INTERVAL_SECONDS_MAX).contains(whole));
            return seconds.map(|seconds| Self::Every { seconds }).ok_or_else(|| {
                let shown = interval.trim().escape_debug();
                EdgeError::invalid(format!("`every {shown}` is no interval: write whole seconds, at least one, such as `every 30s` or `every 1h30m`; the longest is {}h", INTERVAL_SECONDS_MAX / 3600))
            });
        }
        if let Some(at) = text.strip_prefix(AT) {
            return at.trim().parse().map(Self::At).map_err(|error| {
                let shown = at.trim().escape_debug();
                EdgeError::invalid(format!("`at {shown}` is no moment: write a time with its offset, such as `at 2026-12-24T18:00:00Z`"))
                    .with_source(error)
            });
        }
        if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let shown = text.escape_debug();
            let hint = "write `every 30s`, `at 2026-12-24T18:00:00Z`, or a cron expression such as `0 3 * * MON-FRI`";
            return Err(EdgeError::invalid(format!("`{shown}` says not when; {hint}")));
        }
        text.parse().map(Self::Cron)
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect(text)
    }

    #[test]
    fn a_text_comes_back_and_one_that_says_nothing_is_refused_with_the_reason() {
        for (text, shown) in [
            ("every 30s", "every 30s"),
            ("every 90 seconds", "every 1m30s"),
            ("every 1h 30m", "every 1h30m"),
            ("every 48h", "every 48h"),
            ("at 2026-12-24T18:00:00Z", "at 2026-12-24T18:00:00Z"),
            ("at 2026-12-24T18:00:00+01:00", "at 2026-12-24T17:00:00Z"),
            ("0 3 * * MON-FRI", "0 3 * * MON-FRI"),
            ("@daily", "@daily"),
        ] {
            let when: When = text.parse().expect(text);
            assert_eq!(when.to_string(), shown);
            assert_eq!(shown.parse::<When>().expect(shown), when);
            assert_eq!(serde_json::from_str::<When>(&serde_json::to_string(&when).expect("JSON")).expect("valid"), when);
        }
        for (text, why) in [
            ("every 0s", "at least one"),
            ("every 500ms", "whole seconds"),
            ("every -5s", "no interval"),
            ("every 9000h", "the longest is 8784h"),
            ("every day", "`every day` is no interval"),
            ("at noon", "a time with its offset"),
            ("at 2026-12-24T18:00:00", "a time with its offset"),
            ("hourly", "`hourly` says not when"),
            ("0 3 * *", "4 fields"),
        ] {
            let error = text.parse::<When>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn an_interval_is_counted_from_its_anchor() {
        let every: When = "every 90s".parse().expect("valid");
        let next = |after: &str, anchor: &str| every.next_after(at(after), &Zone::default(), at(anchor)).expect("due").to_string();
        assert_eq!(next("2026-01-01T00:00:00Z", "1970-01-01T00:00:00Z"), "2026-01-01T00:01:30Z");
        assert_eq!(next("2026-01-01T00:01:29.9Z", "2026-01-01T00:00:00Z"), "2026-01-01T00:01:30Z");
        assert_eq!(next("2026-01-01T00:01:30Z", "2026-01-01T00:00:00Z"), "2026-01-01T00:03:00Z");
        assert_eq!(next("2025-01-01T00:00:00Z", "2026-01-01T00:00:05Z"), "2026-01-01T00:00:05Z", "the anchor counts");
        assert_eq!(next("2026-01-01T00:00:05Z", "2026-01-01T00:00:05Z"), "2026-01-01T00:01:35Z");
    }

    #[test]
    fn a_moment_is_due_once() {
        let when: When = "at 2026-12-24T18:00:00Z".parse().expect("valid");
        let next = |after: &str| when.next_after(at(after), &Zone::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(next("2026-01-01T00:00:00Z"), Some(at("2026-12-24T18:00:00Z")));
        assert_eq!(next("2026-12-24T18:00:00Z"), None);
    }
}
