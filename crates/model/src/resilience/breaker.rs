//! When a node that fails gets no calls for a while.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{seconds, within, within_whole};
use crate::{
    error::EdgeError,
    limits::{
        BREAKER_CALLS_MAX, BREAKER_OPEN_SECONDS_MAX, BREAKER_OPEN_SECONDS_MIN, BREAKER_PROBES_MAX, BREAKER_WINDOW_SECONDS_MAX,
        BREAKER_WINDOW_SECONDS_MIN,
    },
};

/// The circuit breaker between a function's callers and one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Breaker {
    /// It opens when so many percent of the calls fail; 50 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_percent: Option<f64>,
    /// Time over which it looks, in seconds; 10 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<f64>,
    /// Calls in that time without which it does not judge; 10 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_calls: Option<u32>,
    /// Time for which it opens, in seconds, which doubles each time that it opens again at once; 5 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_seconds: Option<f64>,
    /// Longest time for which it opens, in seconds; 30 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_seconds_max: Option<f64>,
    /// Calls that it lets through after that, all of which must do well before it closes; 3 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<u32>,
}

crate::map_only!(Breaker);
crate::written_as_derived!(Breaker);

impl Breaker {
    /// The share of failures at which it opens, 0 to 1.
    pub fn failures(&self) -> f64 {
        self.failure_percent.unwrap_or(50.0) / 100.0
    }

    /// Time over which it looks.
    pub fn window(&self) -> Duration {
        seconds(self.window_seconds.unwrap_or(10.0))
    }

    /// Calls without which it does not judge.
    pub fn min_calls(&self) -> u32 {
        self.min_calls.unwrap_or(10)
    }

    /// Time for which it opens at first.
    pub fn open(&self) -> Duration {
        seconds(self.open_seconds.unwrap_or(5.0))
    }

    /// Longest time for which it opens.
    pub fn open_max(&self) -> Duration {
        seconds(self.open_seconds_max.unwrap_or(30.0))
    }

    /// Calls that must do well before it closes.
    pub fn probes(&self) -> u32 {
        self.probes.unwrap_or(3)
    }

    pub(super) fn validate(&self) -> Result<(), EdgeError> {
        let open = BREAKER_OPEN_SECONDS_MIN..=BREAKER_OPEN_SECONDS_MAX;
        within("failure_percent", self.failure_percent, 1.0..=100.0)?;
        within("window_seconds", self.window_seconds, BREAKER_WINDOW_SECONDS_MIN..=BREAKER_WINDOW_SECONDS_MAX)?;
        within_whole("min_calls", self.min_calls, 1..=BREAKER_CALLS_MAX)?;
        within("open_seconds", self.open_seconds, open.clone())?;
        within("open_seconds_max", self.open_seconds_max, open)?;
        within_whole("probes", self.probes, 1..=BREAKER_PROBES_MAX)?;
        let (first, longest) = (self.open(), self.open_max());
        if first > longest {
            return Err(EdgeError::invalid(format!("open_seconds_max is {longest:?}, which is less than open_seconds, {first:?}")));
        }
        Ok(())
    }
}
