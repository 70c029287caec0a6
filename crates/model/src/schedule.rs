//! Schedules: when which function runs by itself, on which nodes, and what becomes of times at which it could not.

mod cron;
mod field;
mod when;
mod zone;

use std::{fmt, str::FromStr, time::Duration};

use jiff::{SignedDuration, Timestamp, ToSpan};
use md5::{Digest as _, Md5};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::{cron::Cron, when::When, zone::Zone};
use crate::{
    deployment::{Selector, Target},
    error::EdgeError,
    id::{FunctionId, NodeId, ScheduleId},
    limits::{
        CATCH_UP_RUNS_MAX, JITTER_SECONDS_MAX, SCHEDULE_ATTEMPTS_MAX, SCHEDULE_PAYLOAD_BYTES_MAX, TIMEOUT_SECONDS_MAX, TIMEOUT_SECONDS_MIN,
    },
    node::check_text,
};

/// What becomes of due times at which a node could not run anything. As text: `skip`, `once`, `all`, or `all=5`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// They are passed over.
    Skip,
    /// One run stands for all of them.
    #[default]
    Once,
    /// Each gets its run, one after the other, the newest ones if there are more than so many.
    All {
        /// How many at most.
        runs_max: u32,
    },
}

/// When which function runs by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Names it; the runs that are kept belong to the name.
    pub id: ScheduleId,
    /// What runs.
    pub function: FunctionId,
    /// When. Intervals are counted from `starts_at`, and from the beginning of 1970 where there is none.
    pub when: When,
    /// Whose local time a cron expression means; UTC when it is not said.
    #[serde(default)]
    pub zone: Zone,
    /// Which nodes run it, each for itself; `one`, which is any one node of the fleet, when it is not said.
    #[serde(default = "anywhere")]
    pub target: Target,
    /// What the function gets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub payload: String,
    /// What the payload is.
    #[serde(default = "default_content_type")]
    pub content_type: String,
    /// What becomes of missed due times.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// By how much a run may begin later than it is due, in seconds: each by another part of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jitter_seconds: u32,
    /// Tries of one due time that fails or is interrupted.
    #[serde(default = "one")]
    pub attempts: u32,
    /// Deadline of one try, in seconds; the function's own when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// Whether it runs at all. What is due meanwhile is not made up for.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Before this nothing is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Timestamp>,
    /// From this on nothing is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<Timestamp>,
}

fn anywhere() -> Target {
    Target::One { among: Selector::default() }
}
fn default_content_type() -> String {
    "application/json".to_owned()
}
fn one() -> u32 {
    1
}
fn yes() -> bool {
    true
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Schedule {
    /// A schedule with an empty payload and the defaults.
    pub fn new(id: ScheduleId, function: FunctionId, when: When) -> Self {
        Self {
            id,
            function,
            when,
            zone: Zone::default(),
            target: anywhere(),
            payload: String::new(),
            content_type: default_content_type(),
            catch_up: CatchUp::default(),
            jitter_seconds: 0,
            attempts: 1,
            timeout_seconds: None,
            enabled: true,
            starts_at: None,
            ends_at: None,
        }
    }

    /// Deadline of one try, if it is not the function's own.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// The first due time after a moment.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let bound = self.starts_at.and_then(|starts_at| starts_at.checked_sub(1.nanosecond()).ok());
        let after = bound.map_or(after, |bound| bound.max(after));
        let next = self.when.next_after(after, &self.zone, self.starts_at.unwrap_or(Timestamp::UNIX_EPOCH));
        next.filter(|next| self.ends_at.is_none_or(|ends_at| *next < ends_at))
    }

    /// The last due time after one moment and until another, found in some tens of steps however many there are.
    pub fn last_between(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let next = |after| self.next_after(after).filter(|next| *next <= until);
        let mut last = next(after)?;
        let mut none_after = until;
        // Between `last` and `none_after` it lies, and due times are a second apart at least.
        while none_after.duration_since(last) > SignedDuration::from_secs(1) {
            let half = SignedDuration::from_secs(none_after.duration_since(last).as_secs() / 2 + 1);
            let middle = last.checked_add(half).map_or(none_after, |middle| middle.min(none_after));
            match next(middle) {
                Some(later) => last = later,
                None if middle == none_after => break,
                None => none_after = middle,
            }
        }
        while let Some(later) = next(last) {
            last = later;
        }
        Some(last)
    }

    /// When the run of a due time begins on a node: later by a part of the jitter, which is always the same for this schedule, node and time, and
    /// before the next due time.
    pub fn begin_of(&self, due_at: Timestamp, node: &NodeId) -> Timestamp {
        let gap = self.next_after(due_at).map(|next| next.duration_since(due_at).as_millis());
        let jitter_ms = i128::from(self.jitter_seconds) * 1000;
        let most = gap.map_or(jitter_ms, |gap| gap.min(jitter_ms)).max(0);
        let hash = Md5::digest(format!("{}/{}/{}", self.id, node, due_at.as_nanosecond()));
        let part = u64::from_le_bytes(hash[..8].try_into().expect("an MD5 has 16 bytes"));
        let millis = (most * i128::from(part)) >> 64;
        let millis = i64::try_from(millis).expect("a part of at most a day");
        due_at.checked_add(SignedDuration::from_millis(millis)).unwrap_or(due_at)
    }

    /// Checks every field against its bound.
    pub fn validate(&self) -> Result<(), EdgeError> {
        let id = &self.id;
        let within = |what: &str, value: u32, low: u32, high: u32| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(EdgeError::invalid(format!("{what} of schedule `{id}` is {value}; it must be from {low} to {high}")))
        };
        within("jitter_seconds", self.jitter_seconds, 0, JITTER_SECONDS_MAX)?;
        within("attempts", self.attempts, 1, SCHEDULE_ATTEMPTS_MAX)?;
        if let CatchUp::All { runs_max } = self.catch_up {
            within("runs of catch_up", runs_max, 1, CATCH_UP_RUNS_MAX)?;
        }
        if let Some(seconds) = self.timeout_seconds
            && !(TIMEOUT_SECONDS_MIN..=TIMEOUT_SECONDS_MAX).contains(&seconds)
        {
            return Err(EdgeError::invalid(format!(
                "timeout_seconds of schedule `{id}` is {seconds}; it must be from {TIMEOUT_SECONDS_MIN} to {TIMEOUT_SECONDS_MAX}"
            )));
        }
        if self.payload.len() > SCHEDULE_PAYLOAD_BYTES_MAX {
            let bytes = self.payload.len();
            return Err(EdgeError::invalid(format!(
                "the payload of schedule `{id}` has {bytes} bytes, the most is {SCHEDULE_PAYLOAD_BYTES_MAX}"
            )));
        }
        check_text(&format!("content type of schedule `{id}`"), &self.content_type)?;
        if self.content_type == default_content_type() && !self.payload.is_empty() {
            serde_json::from_str::<serde::de::IgnoredAny>(&self.payload).map_err(|error| {
                EdgeError::invalid(format!("the payload of schedule `{id}` is no JSON; say what it is by its content type"))
                    .with_source(error)
            })?;
        }
        if let (Some(starts_at), Some(ends_at)) = (self.starts_at, self.ends_at)
            && starts_at >= ends_at
        {
            return Err(EdgeError::invalid(format!("schedule `{id}` ends at {ends_at}, before it starts at {starts_at}")));
        }
        if self.next_after(Timestamp::UNIX_EPOCH).is_none() {
            return Err(EdgeError::invalid(format!("schedule `{id}` is never due: `{}` has no time within its start and end", self.when)));
        }
        Ok(())
    }
}

impl fmt::Display for CatchUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skip => f.write_str("skip"),
            Self::Once => f.write_str("once"),
            Self::All { runs_max } => write!(f, "all={runs_max}"),
        }
    }
}

impl FromStr for CatchUp {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let runs_max = match text {
            "skip" => return Ok(Self::Skip),
            "once" => return Ok(Self::Once),
            "all" => Some(CATCH_UP_RUNS_MAX),
            other => other.strip_prefix("all=").and_then(|runs| runs.parse().ok()).filter(|runs| (1..=CATCH_UP_RUNS_MAX).contains(runs)),
        };
        runs_max.map(|runs_max| Self::All { runs_max }).ok_or_else(|| {
            let shown: String = text.chars().take(32).collect();
            let shown = shown.escape_debug();
            EdgeError::invalid(format!("`{shown}` says not how to catch up: `skip`, `once`, or `all=5` with 1 to {CATCH_UP_RUNS_MAX} runs"))
        })
    }
}

impl Serialize for CatchUp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CatchUp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
