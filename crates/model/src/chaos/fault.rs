//! A fault: what goes wrong, where, how often, and for how long.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    deployment::{Amount, Target},
    error::{EdgeError, ErrorKind},
    id::FunctionId,
    limits::{CLOCK_SKEW_SECONDS_MAX, CONCURRENCY_MAX, FAULT_DELAY_MS_MAX, FAULT_SECONDS_MAX, MEMORY_MB_MAX},
};

const HUB: &str = "hub";

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    /// Calls, or messages between members, are late by this time, and by up to `jitter_ms` more.
    Latency {
        /// By how much at least, in milliseconds.
        delay_ms: u32,
        /// By how much more at most, in milliseconds.
        jitter_ms: u32,
    },
    /// Calls fail with this kind of error, and the function does not run.
    Error {
        /// The kind.
        error: ErrorKind,
    },
    /// Calls get no answer until their deadline, and the function does not run.
    Timeout,
    /// Functions get no more memory than this, in MiB.
    Memory {
        /// How much.
        memory_mb: u32,
    },
    /// Functions run no more invocations at once than this.
    Concurrency {
        /// How many.
        concurrency: u32,
    },
    /// The node is as if its process had ended without saying so: it answers nothing, and what runs is cut off. Then it starts again.
    Crash,
    /// No message passes between the nodes of two sides, either way.
    Partition {
        /// The two sides.
        between: Box<[Side; 2]>,
    },
    /// Our clock is wrong by so many seconds; ahead when positive.
    ClockSkew {
        /// By how much.
        seconds: i64,
    },
    /// What the node would write to its disk is refused, as if there were no room.
    DiskFull,
}

/// One side of a partition. As text: `hub`, or nodes as a target names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// The hub.
    Hub,
    /// Nodes.
    Nodes(Target),
}

/// Something that goes wrong for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "FaultKeys", into = "FaultKeys")]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Whose calls it is about; those of every function when it is not said. Only for what happens to calls.
    pub function: Option<FunctionId>,
    /// Where. A partition is where its first side is, which is not the hub.
    pub nodes: Target,
    /// How many of these nodes at most.
    pub blast_radius: Amount,
    /// How often, of the calls or messages that it could happen to: more than 0, and 1 for each.
    pub probability: f64,
    /// For how long, in seconds.
    pub duration_seconds: u32,
}

/// A fault as it is written: flat, with the keys of its kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultKeys {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_mb: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    between: Option<[Side; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skew_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<FunctionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blast_radius: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<u32>,
    /// Only in an experiment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) begins_after_seconds: Option<u32>,
}

impl FaultKind {
    /// The words of all kinds.
    pub const WORDS: [&str; 8] = ["latency", "error", "timeout", "resource_exhaustion", "crash", "partition", "clock_skew", "disk_full"];

    /// Its word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Error { .. } => "error",
            Self::Timeout => "timeout",
            Self::Memory { .. } | Self::Concurrency { .. } => "resource_exhaustion",
            Self::Crash => "crash",
            Self::Partition { .. } => "partition",
            Self::ClockSkew { .. } => "clock_skew",
            Self::DiskFull => "disk_full",
        }
    }

    /// Whether it happens to calls, of which a function can be chosen.
    pub fn is_of_calls(&self) -> bool {
        matches!(self, Self::Latency { .. } | Self::Error { .. } | Self::Timeout | Self::Memory { .. } | Self::Concurrency { .. })
    }

    /// Whether it happens to each call or message anew, so that it has a probability.
    pub fn is_repeated(&self) -> bool {
        matches!(self, Self::Latency { .. } | Self::Error { .. } | Self::Timeout | Self::Partition { .. })
    }
}

impl Fault {
    /// A fault of every node that it could be of, always, with the blast radius of one node.
    pub fn new(mut kind: FaultKind, duration_seconds: u32) -> Self {
        let mut nodes = Target::all();
        if let FaultKind::Partition { between } = &mut kind {
            // It is injected on nodes, so they are the first side.
            if between[0] == Side::Hub {
                between.swap(0, 1);
            }
            if let Side::Nodes(first) = &between[0] {
                nodes = first.clone();
            }
        }
        Self { kind, function: None, nodes, blast_radius: Amount::Count(1), probability: 1.0, duration_seconds }
    }

    /// For how long.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.duration_seconds))
    }

    /// Checks every field against its bound, and that they go together.
    pub fn validate(&self) -> Result<(), EdgeError> {
        let word = self.kind.as_str();
        let within = |what: &str, value: i64, low: i64, high: i64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(EdgeError::invalid(format!("{what} of the fault `{word}` is {value}; it must be from {low} to {high}")))
        };
        match &self.kind {
            FaultKind::Latency { delay_ms, jitter_ms } => {
                within("delay_ms", i64::from(*delay_ms), 0, i64::from(FAULT_DELAY_MS_MAX))?;
                within("jitter_ms", i64::from(*jitter_ms), 0, i64::from(FAULT_DELAY_MS_MAX))?;
                if *delay_ms == 0 && *jitter_ms == 0 {
                    return Err(EdgeError::invalid("a fault `latency` of no time does nothing; say `delay_ms`"));
                }
            }
            FaultKind::Memory { memory_mb } => within("memory_mb", i64::from(*memory_mb), 1, i64::from(MEMORY_MB_MAX))?,
            FaultKind::Concurrency { concurrency } => within("concurrency", i64::from(*concurrency), 1, i64::from(CONCURRENCY_MAX))?,
            FaultKind::ClockSkew { seconds } => {
                within("skew_seconds", *seconds, -CLOCK_SKEW_SECONDS_MAX, CLOCK_SKEW_SECONDS_MAX)?;
                if *seconds == 0 {
                    return Err(EdgeError::invalid("a fault `clock_skew` of 0 seconds does nothing"));
                }
            }
            FaultKind::Partition { between } => {
                if between[0] == between[1] {
                    let side = &between[0];
                    return Err(EdgeError::invalid(format!("a partition is between two sides, and both are `{side}`")));
                }
            }
            FaultKind::Error { .. } | FaultKind::Timeout | FaultKind::Crash | FaultKind::DiskFull => {}
        }
        within("duration_seconds", i64::from(self.duration_seconds), 1, i64::from(FAULT_SECONDS_MAX))?;
        if !(self.probability > 0.0 && self.probability <= 1.0) {
            let probability = self.probability;
            return Err(EdgeError::invalid(format!(
                "probability of the fault `{word}` is {probability}; it must be above 0, and 1 at most"
            )));
        }
        if matches!(self.blast_radius, Amount::Count(0) | Amount::Percent(0)) {
            return Err(EdgeError::invalid(format!("blast_radius of the fault `{word}` is none; it must be a node at least")));
        }
        let misplaced = |key: &str, why: &str| Err(EdgeError::invalid(format!("a fault `{word}` takes no `{key}`: {why}")));
        if self.function.is_some() && !self.kind.is_of_calls() {
            return misplaced("function", "it happens to a node as a whole");
        }
        if self.probability < 1.0 && !self.kind.is_repeated() {
            return misplaced("probability", "it happens once and lasts");
        }
        if self.nodes.chosen().is_some() {
            return misplaced("count=` or `one", "say by `blast_radius` how many nodes it is at most");
        }
        Ok(())
    }
}

impl TryFrom<FaultKeys> for Fault {
    type Error = EdgeError;

    fn try_from(keys: FaultKeys) -> Result<Self, EdgeError> {
        let FaultKeys { kind: word, mut delay_ms, mut jitter_ms, mut error, mut memory_mb, mut concurrency, .. } = keys;
        let (mut between, mut skew_seconds) = (keys.between, keys.skew_seconds);
        let missing = |key: &str| EdgeError::invalid(format!("a fault `{word}` needs `{key}`"));
        let kind = match word.as_str() {
            "latency" => FaultKind::Latency {
                delay_ms: delay_ms.take().ok_or_else(|| missing("delay_ms"))?,
                jitter_ms: jitter_ms.take().unwrap_or(0),
            },
            "error" => FaultKind::Error { error: error.take().unwrap_or(ErrorKind::ExecutionFailed) },
            "timeout" => FaultKind::Timeout,
            "resource_exhaustion" => match (memory_mb.take(), concurrency.take()) {
                (Some(memory_mb), None) => FaultKind::Memory { memory_mb },
                (None, Some(concurrency)) => FaultKind::Concurrency { concurrency },
                _ => return Err(missing("memory_mb` or `concurrency")),
            },
            "crash" => FaultKind::Crash,
            "partition" => {
                let between = between.take().ok_or_else(|| missing("between"))?;
                FaultKind::Partition { between: Box::new(between) }
            }
            "clock_skew" => FaultKind::ClockSkew { seconds: skew_seconds.take().ok_or_else(|| missing("skew_seconds"))? },
            "disk_full" => FaultKind::DiskFull,
            other => {
                let shown: String = other.chars().take(32).collect();
                let words = Self::words();
                return Err(EdgeError::invalid(format!("there is no fault `{}`: write {words}", shown.escape_debug())));
            }
        };
        let left = [
            ("delay_ms", delay_ms.is_some()),
            ("jitter_ms", jitter_ms.is_some()),
            ("error", error.is_some()),
            ("memory_mb", memory_mb.is_some()),
            ("concurrency", concurrency.is_some()),
            ("between", between.is_some()),
            ("skew_seconds", skew_seconds.is_some()),
            ("nodes", keys.nodes.is_some() && word == "partition"),
            ("begins_after_seconds", keys.begins_after_seconds.is_some()),
        ];
        if let Some((key, _)) = left.into_iter().find(|(_, is_left)| *is_left) {
            return Err(EdgeError::invalid(format!("a fault `{word}` takes no `{key}`")));
        }
        let mut fault = Self::new(kind, keys.duration_seconds.ok_or_else(|| missing("duration_seconds"))?);
        fault.function = keys.function;
        fault.nodes = keys.nodes.unwrap_or(fault.nodes);
        fault.blast_radius = keys.blast_radius.unwrap_or(fault.blast_radius);
        fault.probability = keys.probability.unwrap_or(1.0);
        fault.validate()?;
        Ok(fault)
    }
}

impl Fault {
    fn words() -> String {
        let (last, rest) = FaultKind::WORDS.split_last().expect("there are some");
        format!("{} or {last}", rest.join(", "))
    }
}

impl From<Fault> for FaultKeys {
    fn from(fault: Fault) -> Self {
        let mut keys = Self {
            kind: fault.kind.as_str().to_owned(),
            function: fault.function,
            nodes: (fault.nodes != Target::all()).then_some(fault.nodes),
            blast_radius: Some(fault.blast_radius),
            probability: (fault.probability < 1.0).then_some(fault.probability),
            duration_seconds: Some(fault.duration_seconds),
            ..Self::default()
        };
        match fault.kind {
            FaultKind::Latency { delay_ms, jitter_ms } => {
                keys.delay_ms = Some(delay_ms);
                keys.jitter_ms = Some(jitter_ms).filter(|jitter| *jitter > 0);
            }
            FaultKind::Error { error } => keys.error = Some(error),
            FaultKind::Memory { memory_mb } => keys.memory_mb = Some(memory_mb),
            FaultKind::Concurrency { concurrency } => keys.concurrency = Some(concurrency),
            FaultKind::Partition { between } => (keys.between, keys.nodes) = (Some(*between), None),
            FaultKind::ClockSkew { seconds } => keys.skew_seconds = Some(seconds),
            FaultKind::Timeout | FaultKind::Crash | FaultKind::DiskFull => {}
        }
        keys
    }
}

impl fmt::Display for Fault {
    /// One line for people: `latency 300-400 ms of calls of resize, site=berlin, 1 node at most, 50%, 30 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        match &self.kind {
            FaultKind::Latency { delay_ms, jitter_ms: 0 } => write!(f, " {delay_ms} ms")?,
            FaultKind::Latency { delay_ms, jitter_ms } => write!(f, " {delay_ms}-{} ms", delay_ms + jitter_ms)?,
            FaultKind::Error { error } => write!(f, " {error}")?,
            FaultKind::Memory { memory_mb } => write!(f, " {memory_mb} MiB")?,
            FaultKind::Concurrency { concurrency } => write!(f, " {concurrency} at once")?,
            FaultKind::Partition { between } => write!(f, " between {} and {}", between[0], between[1])?,
            FaultKind::ClockSkew { seconds } => write!(f, " {seconds:+} s")?,
            FaultKind::Timeout | FaultKind::Crash | FaultKind::DiskFull => {}
        }
        if let Some(function) = &self.function {
            write!(f, " of {function}")?;
        }
        if !matches!(self.kind, FaultKind::Partition { .. }) {
            write!(f, ", {}", self.nodes)?;
        }
        write!(f, ", {} of the nodes at most", self.blast_radius)?;
        if self.probability < 1.0 {
            write!(f, ", {}%", self.probability * 100.0)?;
        }
        write!(f, ", {} s", self.duration_seconds)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub => f.write_str(HUB),
            Self::Nodes(nodes) => nodes.fmt(f),
        }
    }
}

impl FromStr for Side {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        if text == HUB {
            return Ok(Self::Hub);
        }
        let nodes: Target = text.parse()?;
        if nodes.chosen().is_some() {
            return Err(EdgeError::invalid("a side of a partition is `hub`, or nodes without `count=` or `one`; say `blast_radius`"));
        }
        Ok(Self::Nodes(nodes))
    }
}

impl Serialize for Side {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Side {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
