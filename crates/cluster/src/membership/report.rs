//! What a node says of itself, what is said of it, and the one knob of time.

use std::{fmt, time::Duration};

use edgeward_model::{
    EdgeError, Load,
    limits::{HEARTBEAT_MAX, HEARTBEAT_MIN},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Heartbeats that may be missing before a node is OFFLINE.
const MISSING_MAX: u32 = 3;
/// How often it is looked at in the time of one heartbeat.
const LOOKS: u32 = 6;

/// A moment: on a clock that never goes back, and on the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since any fixed moment, by a clock that never goes back.
    pub elapsed: Duration,
    /// For people, and to compare clocks.
    pub wall: Timestamp,
}

/// The one knob: every bound of time follows the time between two heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    heartbeat: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat: Duration::from_millis(1_500) }
    }
}

impl Timing {
    /// A heartbeat each so often: [`HEARTBEAT_MIN`] to [`HEARTBEAT_MAX`].
    ///
    /// # Errors
    /// [`edgeward_model::ErrorKind::InvalidInput`] when it is out of bounds.
    pub fn new(heartbeat: Duration) -> Result<Self, EdgeError> {
        if (HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(&heartbeat) {
            return Ok(Self { heartbeat });
        }
        Err(EdgeError::invalid(format!("a heartbeat comes every {HEARTBEAT_MIN:?} to {HEARTBEAT_MAX:?}, not every {heartbeat:?}")))
    }

    /// Time between two heartbeats.
    pub fn heartbeat(self) -> Duration {
        self.heartbeat
    }

    /// Silence after which a node is OFFLINE: three heartbeats.
    pub fn offline_after(self) -> Duration {
        self.heartbeat * MISSING_MAX
    }

    /// Time between two looks, which is how much later OFFLINE may show.
    pub fn look_every(self) -> Duration {
        self.heartbeat / LOOKS
    }

    /// A gap between two heartbeats that is a late one.
    pub(super) fn late_after(self) -> Duration {
        self.heartbeat * 2
    }

    /// The longest step of time that was spent listening as a whole: a second by default, of which a machine may take one now and then.
    pub(super) fn listening_step_max(self) -> Duration {
        self.heartbeat * 2 / 3
    }

    /// Three falls in this time are flapping: five minutes by default.
    pub(super) fn flapping_window(self) -> Duration {
        self.heartbeat * 200
    }

    /// How long a flapping node must be better before it shows: half a minute by default.
    pub(super) fn steady_after(self) -> Duration {
        self.heartbeat * 20
    }
}

/// What a heartbeat says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When it was sent, by the node's own clock.
    pub sent_at: Timestamp,
    /// The node refuses calls, as it has too many.
    #[serde(default)]
    pub is_overloaded: bool,
    /// Functions that do not run as they should.
    #[serde(default)]
    pub failing_functions: u32,
    /// Assignments and changes of documents that the node and its hub have still to exchange.
    #[serde(default)]
    pub behind: u64,
    /// The node has not heard from its hub that both have the same.
    #[serde(default)]
    pub is_syncing: bool,
    /// What its machine has to do; none when it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Events that it dropped, as its outbox was full, since it has its data folder.
    #[serde(default)]
    pub dropped_events: u64,
}

impl Report {
    /// The report of a node that lacks nothing.
    pub fn healthy(sent_at: Timestamp) -> Self {
        Self { sent_at, is_overloaded: false, failing_functions: 0, behind: 0, is_syncing: false, load: None, dropped_events: 0 }
    }
}

/// Why a node has its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was not heard for too long.
    Silent,
    /// Its heartbeats come late.
    Late,
    /// It refuses calls, as it has too many.
    Overloaded,
    /// So many of its functions do not run as they should.
    FailingFunctions(u32),
    /// Its clock is wrong by so many milliseconds; ahead of the hub's when positive.
    Clock(i64),
    /// So many assignments and changes are still to be exchanged.
    Behind(u64),
    /// It fell so often of late that what is better is shown only once it lasts.
    Flapping(u32),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("no heartbeat"),
            Self::Late => f.write_str("late heartbeats"),
            Self::Overloaded => f.write_str("overloaded"),
            Self::FailingFunctions(1) => f.write_str("a function fails"),
            Self::FailingFunctions(count) => write!(f, "{count} functions fail"),
            Self::Clock(millis) => {
                let (seconds, side) = (millis.unsigned_abs() / 1_000, if *millis > 0 { "ahead" } else { "behind" });
                write!(f, "its clock is {seconds} s {side}")
            }
            Self::Behind(0) => f.write_str("catches up"),
            Self::Behind(count) => write!(f, "catches up, {count} to go"),
            Self::Flapping(times) => write!(f, "comes and goes, {times} times of late"),
        }
    }
}
