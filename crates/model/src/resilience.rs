//! How the calls of a function find a node, and what is done when nodes fail, are slow or are full.
//!
//! Everything may be left out. The form is that of a table of `edgeward.toml`; what is not said is not written.

mod balance;
mod breaker;
mod bulkhead;
mod retry;

use std::{ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    balance::{Balance, Locality},
    breaker::Breaker,
    bulkhead::Bulkhead,
    retry::Retry,
};
use crate::{
    error::EdgeError,
    limits::{TIMEOUT_SECONDS_MAX, TIMEOUT_SECONDS_MIN},
};

/// How the calls of one function are routed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Resilience {
    /// How a node is chosen among those that are equally near.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balance: Balance,
    /// Whether near nodes come first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub locality: Locality,
    /// How long a call may take with all its attempts, in seconds; the function's own timeout when it is not said. It travels with the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<f64>,
    /// Whether a call may run twice with no harm. Only then is one retried that may have run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub idempotent: bool,
    /// When a call is tried again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry: Retry,
    /// When a node that fails gets no calls for a while.
    #[serde(default, skip_serializing_if = "is_default")]
    pub breaker: Breaker,
    /// How many calls may be under way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bulkhead: Bulkhead,
}

crate::map_only!(Resilience);
crate::written_as_derived!(Resilience);

impl Resilience {
    /// How long a call of a function with this timeout may take with all its attempts.
    pub fn deadline(&self, timeout: Duration) -> Duration {
        self.deadline_seconds.map_or(timeout, seconds)
    }

    /// Checks every field against its bound.
    pub fn validate(&self) -> Result<(), EdgeError> {
        within("deadline_seconds", self.deadline_seconds, TIMEOUT_SECONDS_MIN..=TIMEOUT_SECONDS_MAX)?;
        self.retry.validate()?;
        self.breaker.validate()?;
        self.bulkhead.validate()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Checks a number that may not be said.
fn within(what: &str, value: Option<f64>, range: RangeInclusive<f64>) -> Result<(), EdgeError> {
    match value {
        Some(value) if !range.contains(&value) => {
            Err(EdgeError::invalid(format!("{what} of the resilience is {value}; it must be from {} to {}", range.start(), range.end())))
        }
        _ => Ok(()),
    }
}

/// The same of a whole number.
fn within_whole(what: &str, value: Option<u32>, range: RangeInclusive<u32>) -> Result<(), EdgeError> {
    within(what, value.map(f64::from), f64::from(*range.start())..=f64::from(*range.end()))
}

/// A time that was checked, or one that is as long as can be.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        balance = "least_connections"
        locality = "any"
        deadline_seconds = 2.5
        idempotent = true

        [retry]
        attempts = 4
        attempt_seconds = 0.5
        backoff_min_seconds = 0.01
        backoff_max_seconds = 0.2
        budget_percent = 10

        [breaker]
        failure_percent = 25
        window_seconds = 30
        min_calls = 5
        open_seconds = 1
        open_seconds_max = 8
        probes = 2

        [bulkhead]
        calls_per_node_max = 8
        calls_max = 20
    "#;

    #[test]
    fn what_is_not_said_has_good_defaults_and_is_not_written() {
        let empty: Resilience = toml::from_str("").expect("nothing need be said");
        assert_eq!(empty, Resilience::default());
        empty.validate().expect("its defaults are valid");
        assert_eq!(serde_json::to_string(&empty).expect("JSON"), "{}");
        assert_eq!(empty.deadline(Duration::from_secs(7)), Duration::from_secs(7));
        assert_eq!((empty.balance, empty.locality, empty.idempotent), (Balance::PowerOfTwo, Locality::Nearest, false));
        assert_eq!((empty.retry.attempts(), empty.retry.budget(), empty.retry.attempt()), (3, 0.2, None));
        assert_eq!((empty.breaker.failures(), empty.breaker.min_calls(), empty.breaker.probes()), (0.5, 10, 3));
        assert_eq!((empty.bulkhead.calls_per_node_max(), empty.bulkhead.calls_max()), (384, 4096));
    }

    #[test]
    fn all_of_it_is_read_from_a_table_and_back_from_its_json() {
        let read: Resilience = toml::from_str(WHOLE).expect("valid");
        read.validate().expect("within bounds");
        assert_eq!((read.balance, read.locality, read.idempotent), (Balance::LeastConnections, Locality::Any, true));
        assert_eq!(read.deadline(Duration::from_secs(7)), Duration::from_millis(2500));
        assert_eq!((read.retry.attempts(), read.retry.attempt()), (4, Some(Duration::from_millis(500))));
        assert_eq!((read.retry.backoff_min(), read.retry.backoff_max()), (Duration::from_millis(10), Duration::from_millis(200)));
        assert_eq!((read.breaker.open(), read.breaker.open_max()), (Duration::from_secs(1), Duration::from_secs(8)));
        assert_eq!((read.breaker.window(), read.breaker.probes()), (Duration::from_secs(30), 2));
        assert_eq!((read.bulkhead.calls_per_node_max(), read.bulkhead.calls_max()), (8, 20));
        let json = serde_json::to_string(&read).expect("JSON");
        assert_eq!(serde_json::from_str::<Resilience>(&json).expect("its own JSON"), read);
    }

    #[test]
    fn a_word_that_is_not_known_is_refused() {
        for text in [
            "balanse = \"random\"",
            "balance = \"fastest\"",
            "locality = \"far\"",
            "[retry]\ntries = 2",
            "[breaker]\nopen = 1",
            "[bulkhead]\nnode = 1",
            "retry = [3]",
            "breaker = [50]",
        ] {
            assert!(toml::from_str::<Resilience>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_past_its_bound_is_refused_by_its_name() {
        for (text, name) in [
            ("deadline_seconds = 0", "deadline_seconds"),
            ("deadline_seconds = nan", "deadline_seconds"),
            ("[retry]\nattempts = 0", "attempts"),
            ("[retry]\nattempts = 11", "attempts"),
            ("[retry]\nattempt_seconds = -1", "attempt_seconds"),
            ("[retry]\nbackoff_min_seconds = 0", "backoff_min_seconds"),
            ("[retry]\nbackoff_max_seconds = inf", "backoff_max_seconds"),
            ("[retry]\nbackoff_min_seconds = 2\nbackoff_max_seconds = 1", "backoff_max_seconds"),
            ("[retry]\nbackoff_min_seconds = 2", "backoff_max_seconds"),
            ("[retry]\nbudget_percent = 101", "budget_percent"),
            ("[breaker]\nfailure_percent = 0", "failure_percent"),
            ("[breaker]\nwindow_seconds = 0", "window_seconds"),
            ("[breaker]\nmin_calls = 0", "min_calls"),
            ("[breaker]\nopen_seconds = 7200", "open_seconds"),
            ("[breaker]\nopen_seconds = 31", "open_seconds_max"),
            ("[breaker]\nprobes = 0", "probes"),
            ("[bulkhead]\ncalls_per_node_max = 0", "calls_per_node_max"),
            ("[bulkhead]\ncalls_max = 1000000", "calls_max"),
        ] {
            let read: Resilience = toml::from_str(text).expect(text);
            let error = read.validate().expect_err(text).to_string();
            assert!(error.contains(name), "{text}: {error}");
        }
    }
}
