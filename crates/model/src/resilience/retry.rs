//! When a call is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{seconds, within, within_whole};
use crate::{
    error::EdgeError,
    limits::{ATTEMPTS_DEFAULT, ATTEMPTS_MAX, BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN, TIMEOUT_SECONDS_MAX, TIMEOUT_SECONDS_MIN},
};

/// How often, when, and at whose cost a call is tried again that failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Retry {
    /// Attempts of one call, the first included; 3 when it is not said, and 1 for none but the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// How long one attempt of an idempotent call may take, in seconds; all that is left of the deadline when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_seconds: Option<f64>,
    /// Longest pause before the second attempt, in seconds, which doubles with each further one; 0.02 when it is not said. A pause is any time
    /// up to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_min_seconds: Option<f64>,
    /// Longest pause before any attempt, in seconds; 1 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_max_seconds: Option<f64>,
    /// Retries that all calls of the function together may have, in percent of the calls; 20 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_percent: Option<f64>,
}

crate::map_only!(Retry);
crate::written_as_derived!(Retry);

impl Retry {
    /// Attempts, the first included.
    pub fn attempts(&self) -> u32 {
        self.attempts.unwrap_or(ATTEMPTS_DEFAULT)
    }

    /// How long one attempt of an idempotent call may take.
    pub fn attempt(&self) -> Option<Duration> {
        self.attempt_seconds.map(seconds)
    }

    /// Longest pause before the second attempt.
    pub fn backoff_min(&self) -> Duration {
        seconds(self.backoff_min_seconds.unwrap_or(0.02))
    }

    /// Longest pause before any attempt.
    pub fn backoff_max(&self) -> Duration {
        seconds(self.backoff_max_seconds.unwrap_or(1.0))
    }

    /// Retries for each call.
    pub fn budget(&self) -> f64 {
        self.budget_percent.unwrap_or(20.0) / 100.0
    }

    pub(super) fn validate(&self) -> Result<(), EdgeError> {
        let backoff = BACKOFF_SECONDS_MIN..=BACKOFF_SECONDS_MAX;
        within_whole("attempts", self.attempts, 1..=ATTEMPTS_MAX)?;
        within("attempt_seconds", self.attempt_seconds, TIMEOUT_SECONDS_MIN..=TIMEOUT_SECONDS_MAX)?;
        within("backoff_min_seconds", self.backoff_min_seconds, backoff.clone())?;
        within("backoff_max_seconds", self.backoff_max_seconds, backoff)?;
        within("budget_percent", self.budget_percent, 0.0..=100.0)?;
        let (min, max) = (self.backoff_min(), self.backoff_max());
        if min > max {
            return Err(EdgeError::invalid(format!("backoff_max_seconds is {max:?}, which is less than backoff_min_seconds, {min:?}")));
        }
        Ok(())
    }
}
