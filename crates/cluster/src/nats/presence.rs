//! Two processes with one node's key: whose data folder was copied shows when both are there.
//!
//! A process says that it is there after each connection, and asks the others of its node to say so too; a moment later it asks whether
//! it may stay. Of those that spoke, the one that has been up longest stays. Nothing is said while nothing changes, and a process that has
//! ended says nothing, so a node that starts again is never taken for its own copy.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use edgeward_model::{
    EdgeError, ErrorKind, NodeId,
    limits::{NODES_MAX, PROCESSES_MAX},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::subject::Name;

/// The service of the hub to which processes say that they are there, and what the hub passes on to the others of the node.
pub(super) const PRESENCE: Name = Name::new("presence");

const VERSION: u32 = 1;
/// What was said so long ago counts no more.
const MEMORY: Duration = Duration::from_mins(1);
/// Longest name of a process, in bytes.
const PROCESS_BYTES_MAX: usize = 32;

/// What a process of a node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Presence {
    version: u32,
    /// Names the process, by a number that it drew.
    pub(super) process: String,
    /// How long it is up, in milliseconds.
    up_ms: u64,
    /// Whether the others of its node are to say that they are there.
    #[serde(default)]
    pub(super) asks: bool,
}

impl Presence {
    pub(super) fn read(payload: &[u8]) -> Result<Self, EdgeError> {
        let invalid = || EdgeError::invalid("the presence of a process is not valid");
        let presence: Self = serde_json::from_slice(payload).map_err(|error| invalid().with_source(error))?;
        let is_name =
            (1..=PROCESS_BYTES_MAX).contains(&presence.process.len()) && presence.process.bytes().all(|b| b.is_ascii_alphanumeric());
        if is_name { Ok(presence) } else { Err(invalid()) }
    }

    pub(super) fn to_payload(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts and numbers are JSON").into()
    }
}

/// The process that this is.
#[derive(Clone, Debug)]
pub(super) struct Process {
    name: String,
    begun: Instant,
}

impl Process {
    pub(super) fn new() -> Result<Self, EdgeError> {
        let mut random = [0; 10];
        getrandom::fill(&mut random)
            .map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to draw a random number").with_source(error))?;
        Ok(Self { name: BASE32_NOPAD.encode(&random).to_lowercase(), begun: Instant::now() })
    }

    pub(super) fn presence(&self, asks: bool) -> Presence {
        let up_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Presence { version: VERSION, process: self.name.clone(), up_ms, asks }
    }

    pub(super) fn is(&self, presence: &Presence) -> bool {
        presence.process == self.name
    }
}

/// The processes that a hub heard of late.
#[derive(Debug, Default)]
pub(super) struct Processes(BTreeMap<NodeId, Vec<Heard>>);

#[derive(Debug)]
struct Heard {
    process: String,
    begun: Instant,
    /// When it asked the others.
    asked: Instant,
    last: Instant,
}

impl Processes {
    /// Notes that a process is there, and says whether it may stay: none that is up longer answered since it asked.
    pub(super) fn note(&mut self, node: &NodeId, presence: &Presence, now: Instant) -> bool {
        if self.0.len() >= NODES_MAX {
            self.0.retain(|_, heard| heard.iter().any(|process| now.duration_since(process.last) < MEMORY));
        }
        let heard = self.0.entry(node.clone()).or_default();
        let before = heard.iter().find(|other| other.process == presence.process).map(|own| own.asked);
        let asked = before.filter(|_| !presence.asks).unwrap_or(now);
        let begun = now.checked_sub(Duration::from_millis(presence.up_ms)).unwrap_or(now);
        heard.retain(|other| other.process != presence.process && now.duration_since(other.last) < MEMORY);
        if heard.len() >= PROCESSES_MAX {
            heard.remove(0);
        }
        let may_stay = !heard.iter().any(|other| other.last >= asked && (other.begun, &other.process) < (begun, &presence.process));
        heard.push(Heard { process: presence.process.clone(), begun, asked, last: now });
        may_stay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(process: &str, up_seconds: u64, asks: bool) -> Presence {
        Presence { version: 1, process: process.to_owned(), up_ms: up_seconds * 1000, asks }
    }

    #[test]
    fn of_two_processes_the_one_that_is_up_longer_stays() {
        let (mut processes, node, start) = (Processes::default(), NodeId::new("edge").expect("valid"), Instant::now());
        let mut hear = |process, up, asks, at| processes.note(&node, &presence(process, up, asks), start + Duration::from_secs(at));
        assert!(hear("old", 100, true, 0) && hear("old", 102, false, 2));
        assert!(hear("new", 1, true, 10), "it has asked, and nobody has answered yet");
        assert!(hear("old", 110, false, 10), "it answers");
        assert!(!hear("new", 3, false, 12));
        // Away, and back: the copy was let in meanwhile.
        assert!(hear("new", 40, true, 50) && hear("new", 42, false, 52));
        assert!(hear("old", 155, true, 55));
        assert!(!hear("new", 45, false, 55), "it answers, and hears it");
        assert!(hear("old", 157, false, 57));
    }

    #[test]
    fn a_process_that_ended_is_nobody_however_soon_the_next_one_starts() {
        let (mut processes, node, start) = (Processes::default(), NodeId::new("edge").expect("valid"), Instant::now());
        let mut hear = |process, up, asks, at| processes.note(&node, &presence(process, up, asks), start + Duration::from_millis(at));
        assert!(hear("first", 100, true, 0) && hear("first", 102, false, 2000));
        assert!(hear("second", 0, true, 2001) && hear("second", 2, false, 4001));
        // A hub that has just started knows nobody.
        assert!(Processes::default().note(&node, &presence("second", 5, false), start));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_no_presence_is_refused() {
        let (mut processes, node, start) = (Processes::default(), NodeId::new("edge").expect("valid"), Instant::now());
        for number in 0..100 {
            processes.note(&node, &presence(&format!("p{number}"), 1, true), start);
        }
        assert_eq!(processes.0[&node].len(), PROCESSES_MAX);
        for number in 0..=NODES_MAX {
            processes.note(&NodeId::new(format!("n{number}")).expect("valid"), &presence("p", 1, true), start + 2 * MEMORY);
        }
        assert_eq!(processes.0.len(), NODES_MAX + 1, "the old one is gone");
        let own = Process::new().expect("random").presence(true);
        assert_eq!(Presence::read(&own.to_payload()).expect("its own"), own);
        for bad in ["", "{}", r#"{"version":1,"process":"","up_ms":1}"#, r#"{"version":1,"process":"a b","up_ms":1}"#] {
            assert!(Presence::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
