//! Who is there, and how they are: decided from what nodes report and from silence. Time is an argument.
//!
//! Nothing here forgets a node: silence changes what is shown of it and no more.

mod report;
mod standing;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use edgeward_model::{EdgeError, EdgeNodeStatus, ErrorKind, NodeId, limits::NODES_MAX};

use self::standing::Clock;
pub use self::{
    report::{Moment, Reason, Report, Timing},
    standing::{Connectivity, Standing, Transition},
};

/// The nodes of a fleet as the hub sees them.
#[derive(Debug)]
pub struct Membership {
    timing: Timing,
    /// The last moment that was told.
    now: Option<Moment>,
    /// Time in which a heartbeat would have been heard. Silence is measured in it.
    listened: Duration,
    hears: bool,
    nodes: BTreeMap<NodeId, Standing>,
}

impl Membership {
    /// Nobody yet.
    pub fn new(timing: Timing) -> Self {
        Self { timing, now: None, listened: Duration::ZERO, hears: true, nodes: BTreeMap::new() }
    }

    /// How often to call [`look`](Self::look).
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Adds a node with the status that is known of it; one that is OFFLINE stays so until it reports. A node that is there already
    /// keeps its standing. Without `watches_silence`, as in one process, silence says nothing about it.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] past [`NODES_MAX`].
    pub fn register(&mut self, id: NodeId, status: EdgeNodeStatus, watches_silence: bool, now: Moment) -> Result<(), EdgeError> {
        let clock = self.advance(now);
        if let Some(known) = self.nodes.get_mut(&id) {
            known.watch_silence(watches_silence);
            return Ok(());
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(EdgeError::new(ErrorKind::TooLarge, format!("the node `{id}` is one too many, the most is {NODES_MAX}")));
        }
        self.nodes.insert(id, Standing::new(status, watches_silence, clock));
        Ok(())
    }

    /// Removes a node; false when there was none. Only its owner asks for this.
    pub fn deregister(&mut self, id: &NodeId) -> bool {
        self.nodes.remove(id).is_some()
    }

    /// Takes a heartbeat. One of an unknown node changes nothing.
    pub fn heartbeat(&mut self, id: &NodeId, report: &Report, now: Moment) -> Option<Transition> {
        let clock = self.advance(now);
        let standing = self.nodes.get_mut(id)?;
        standing.report(report, clock);
        standing.judge(id, clock)
    }

    /// Looks who has gone silent or has been steady. To be called every [`Timing::look_every`].
    pub fn look(&mut self, now: Moment) -> Vec<Transition> {
        let clock = self.advance(now);
        self.nodes.iter_mut().filter_map(|(id, standing)| standing.judge(id, clock)).collect()
    }

    /// Says whether the hub itself is connected. While it is not, the silence of others says nothing.
    pub fn hears(&mut self, hears: bool, now: Moment) {
        self.advance(now);
        self.hears = hears;
    }

    /// How a node is.
    pub fn node(&self, id: &NodeId) -> Option<&Standing> {
        self.nodes.get(id)
    }

    /// How every node is, by id.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &Standing)> {
        self.nodes.iter()
    }

    /// Moves the time on. Of a step that is too long, only a part was spent listening: the hub was paused itself, and heartbeats
    /// may wait to be read. A step back is none.
    fn advance(&mut self, now: Moment) -> Clock {
        let before = self.now.map_or(now.elapsed, |before| before.elapsed);
        let step = now.elapsed.saturating_sub(before);
        if self.hears {
            self.listened += step.min(self.timing.listening_step_max());
        }
        self.now = Some(Moment { elapsed: now.elapsed.max(before), ..now });
        Clock { listened: self.listened, wall: now.wall, timing: self.timing }
    }
}
