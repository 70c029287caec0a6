//! An experiment: what must hold, what goes wrong when, and when it is too bad to go on.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    chaos::{
        fault::{Fault, FaultKeys},
        hypothesis::{AbortCondition, Hypothesis},
    },
    error::EdgeError,
    id::{ExperimentName, FunctionId},
    limits::{
        DESCRIPTION_BYTES_MAX, EXPERIMENT_BYTES_MAX, EXPERIMENT_PARTS_MAX, EXPERIMENT_SECONDS_MAX, FAULTS_MAX, LOAD_CONCURRENCY_MAX,
        LOAD_PER_SECOND_MAX, SCHEDULE_PAYLOAD_BYTES_MAX,
    },
};

/// How long the steady state is looked at before the faults, in seconds, when it is not said.
const BEFORE_SECONDS_DEFAULT: u32 = 10;

/// A fault with when it begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FaultKeys", into = "FaultKeys")]
pub struct PlannedFault {
    /// When, in seconds after the time before.
    pub begins_after_seconds: u32,
    /// What.
    pub fault: Fault,
}

/// Calls that are made as long as the experiment lasts, and judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// The function.
    pub function: FunctionId,
    /// How many calls begin in a second.
    pub per_second: u32,
    /// How many are under way at most; calls beyond wait, and count from when they should have begun.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
    /// What the function gets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub payload: String,
    /// Whether its calls may run twice with no harm, also when their function does not say so: what failed on one node is then tried on another one.
    #[serde(default = "default_idempotent", skip_serializing_if = "is_true")]
    pub idempotent: bool,
}

fn default_concurrency() -> u32 {
    64
}

/// What a load calls is there to be called, and what it is asked is how the fleet does as a whole.
fn default_idempotent() -> bool {
    true
}

/// What is the default is not written: who is of an older release reads it, too.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_true(flag: &bool) -> bool {
    *flag
}

/// An experiment. In time: `before_seconds`, in which the steady state must hold or nothing is injected; then `duration_seconds`, in which
/// the faults come and go; what is left after the last one is for recovering.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Its name.
    pub name: ExperimentName,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How long the steady state is looked at before, in seconds.
    #[serde(default = "default_before")]
    pub before_seconds: u32,
    /// How long it takes after that, in seconds.
    pub duration_seconds: u32,
    /// What must hold.
    pub steady_state: Vec<Hypothesis>,
    /// What goes wrong.
    #[serde(rename = "fault")]
    pub faults: Vec<PlannedFault>,
    /// Calls that are made meanwhile.
    #[serde(default, rename = "load", skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<Load>,
    /// What ends it before its time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub abort: Vec<AbortCondition>,
}

fn default_before() -> u32 {
    BEFORE_SECONDS_DEFAULT
}

impl PlannedFault {
    /// From when to when, after the time before.
    pub fn span(&self) -> (Duration, Duration) {
        let begins = Duration::from_secs(u64::from(self.begins_after_seconds));
        (begins, begins + self.fault.duration())
    }
}

impl TryFrom<FaultKeys> for PlannedFault {
    type Error = EdgeError;

    fn try_from(mut keys: FaultKeys) -> Result<Self, EdgeError> {
        Ok(Self { begins_after_seconds: keys.begins_after_seconds.take().unwrap_or(0), fault: keys.try_into()? })
    }
}

impl From<PlannedFault> for FaultKeys {
    fn from(planned: PlannedFault) -> Self {
        let mut keys = Self::from(planned.fault);
        keys.begins_after_seconds = Some(planned.begins_after_seconds);
        keys
    }
}

impl Experiment {
    /// Reads the text of a file, which messages call `file`.
    pub fn read(file: &str, text: &str) -> Result<Self, EdgeError> {
        if text.len() > EXPERIMENT_BYTES_MAX {
            return Err(EdgeError::invalid(format!("`{file}` has {} bytes, the most is {EXPERIMENT_BYTES_MAX}", text.len())));
        }
        let experiment: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
            let line = line.map_or_else(String::new, |line| format!(", line {line}"));
            EdgeError::invalid(format!("`{file}`{line}: {}", error.message()))
        })?;
        experiment.validate().map_err(|error| EdgeError::invalid(format!("`{file}`: {error}")))?;
        Ok(experiment)
    }

    /// From when to when faults are injected, after the time before.
    pub fn faulty_span(&self) -> (Duration, Duration) {
        let spans = || self.faults.iter().map(PlannedFault::span);
        let begin = spans().map(|(begin, _)| begin).min().unwrap_or_default();
        (begin, spans().map(|(_, end)| end).max().unwrap_or_default())
    }

    /// How long the steady state is looked at before.
    pub fn before(&self) -> Duration {
        Duration::from_secs(u64::from(self.before_seconds))
    }

    /// How long it takes as a whole.
    pub fn total(&self) -> Duration {
        self.before() + Duration::from_secs(u64::from(self.duration_seconds))
    }

    /// Checks every field against its bound, and that they go together. [`super::Known::check`] checks the names.
    pub fn validate(&self) -> Result<(), EdgeError> {
        let name = &self.name;
        let refused = |why: String| Err(EdgeError::invalid(format!("experiment `{name}` {why}")));
        let within = |what: &str, value: usize, low: usize, high: usize| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(EdgeError::invalid(format!("{what} of experiment `{name}` is {value}; it must be from {low} to {high}")))
        };
        let seconds_max = usize::try_from(EXPERIMENT_SECONDS_MAX).expect("32 bits fit");
        let whole = |value: u32| usize::try_from(value).expect("32 bits fit");
        within("before_seconds", whole(self.before_seconds), 1, seconds_max)?;
        within("duration_seconds", whole(self.duration_seconds), 1, seconds_max)?;
        within("before_seconds and duration_seconds together", whole(self.before_seconds) + whole(self.duration_seconds), 2, seconds_max)?;
        within("the number of hypotheses", self.steady_state.len(), 1, EXPERIMENT_PARTS_MAX)?;
        within("the number of faults", self.faults.len(), 1, FAULTS_MAX)?;
        within("the number of loads", self.loads.len(), 0, EXPERIMENT_PARTS_MAX)?;
        within("the number of conditions to abort", self.abort.len(), 0, EXPERIMENT_PARTS_MAX)?;
        within("the length of the description", self.description.len(), 0, DESCRIPTION_BYTES_MAX)?;
        for load in &self.loads {
            within("per_second of a load", whole(load.per_second), 1, whole(LOAD_PER_SECOND_MAX))?;
            within("concurrency of a load", whole(load.concurrency), 1, whole(LOAD_CONCURRENCY_MAX))?;
            within("the length of the payload of a load", load.payload.len(), 0, SCHEDULE_PAYLOAD_BYTES_MAX)?;
        }
        for (index, planned) in self.faults.iter().enumerate() {
            planned.fault.validate()?;
            let end = planned.span().1.as_secs();
            if end >= u64::from(self.duration_seconds) {
                let (number, duration) = (index + 1, self.duration_seconds);
                let why = "with no time to see what comes after it; let it last longer";
                return refused(format!("takes {duration} seconds, and its fault {number} would end after {end}, {why}"));
            }
        }
        let steady = self.steady_state.iter().map(|hypothesis| &hypothesis.expectation);
        for expectation in steady.chain(self.abort.iter().map(|condition| &condition.expectation)) {
            if let Some(function) = expectation.function()
                && !self.loads.iter().any(|load| load.function == *function)
            {
                let called: BTreeSet<_> = self.loads.iter().map(|load| format!("`{}`", load.function)).collect();
                let called = if called.is_empty() { "none".to_owned() } else { Vec::from_iter(called).join(", ") };
                let probe = expectation.probe();
                return refused(format!(
                    "has a probe `{probe}` of function `{function}`, which no `[[load]]` of it calls; it calls {called}"
                ));
            }
        }
        Ok(())
    }
}
