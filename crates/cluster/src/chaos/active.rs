//! The faults that a node injects now, as its seams ask for them. Each is gone once its time is over, whether anybody removes it or not; a process
//! that starts again has none.

use std::time::Duration;

use edgeward_model::{
    EdgeError, ErrorKind, FunctionId, NodeId, Target,
    chaos::{Fault, FaultKind, Side},
    limits::FAULTS_MAX,
};

/// What happens to a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallFault {
    /// How long it waits before anything else.
    pub delay: Duration,
    /// How it fails, without the function. [`ErrorKind::Timeout`] means that it waits for its deadline.
    pub failure: Option<ErrorKind>,
}

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageFault {
    /// It never arrives.
    Lost,
    /// It is late.
    Late(Duration),
}

/// The other end of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer<'a> {
    /// The hub.
    Hub,
    /// A node.
    Node(&'a NodeId),
}

#[derive(Clone, Debug)]
struct Active {
    id: String,
    fault: Fault,
    ends: Duration,
}

/// The faults of one node. Times are of one clock that never goes back, which no fault moves.
#[derive(Clone, Debug, Default)]
pub struct ActiveFaults(Vec<Active>);

impl ActiveFaults {
    /// Whether there is none, which is what nearly every call finds.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Injects a fault from now on; whether it was not there. One with this id that is there is left as it is, so that asking again does not make it
    /// last longer.
    pub fn inject(&mut self, id: &str, fault: Fault, now: Duration) -> Result<bool, EdgeError> {
        fault.validate()?;
        self.expire(now);
        if self.0.iter().any(|active| active.id == id) {
            return Ok(false);
        }
        if self.0.len() >= FAULTS_MAX {
            return Err(EdgeError::new(ErrorKind::Conflict, format!("{FAULTS_MAX} faults are injected already; wait until one has ended")));
        }
        let ends = now + fault.duration();
        self.0.push(Active { id: id.to_owned(), fault, ends });
        Ok(true)
    }

    /// Ends a fault before its time, if it is there.
    pub fn remove(&mut self, id: &str) -> Option<Fault> {
        let place = self.0.iter().position(|active| active.id == id)?;
        Some(self.0.remove(place).fault)
    }

    /// Ends all of them; how many there were.
    pub fn clear(&mut self) -> usize {
        std::mem::take(&mut self.0).len()
    }

    /// Forgets those whose time is over, and tells which, for the audit log.
    pub fn expire(&mut self, now: Duration) -> Vec<(String, Fault)> {
        self.0.extract_if(.., |active| active.ends <= now).map(|active| (active.id, active.fault)).collect()
    }

    /// When the next one ends.
    pub fn next_end(&self) -> Option<Duration> {
        self.0.iter().map(|active| active.ends).min()
    }

    /// Those that are injected, with when they end.
    pub fn list(&self, now: Duration) -> impl Iterator<Item = (&str, &Fault, Duration)> {
        self.0.iter().filter(move |active| active.ends > now).map(|active| (active.id.as_str(), &active.fault, active.ends))
    }

    /// What happens to a call of a function. `random` gives any number, for each fault that may hit it.
    pub fn on_call(&self, function: &FunctionId, now: Duration, mut random: impl FnMut() -> u64) -> CallFault {
        let mut happens = CallFault::default();
        for fault in self.of_calls(function, now) {
            if !hits(fault, random()) {
                continue;
            }
            match fault.kind {
                FaultKind::Latency { delay_ms, jitter_ms } => happens.delay += delay(delay_ms, jitter_ms, random()),
                FaultKind::Error { error } => happens.failure = happens.failure.or(Some(error)),
                FaultKind::Timeout => happens.failure = Some(ErrorKind::Timeout),
                _ => {}
            }
        }
        happens
    }

    /// What happens to a message to or from a peer. A partition is resolved to ids before it is injected.
    pub fn on_message(&self, peer: Peer<'_>, now: Duration, mut random: impl FnMut() -> u64) -> Option<MessageFault> {
        let mut late = Duration::ZERO;
        for (_, fault, _) in self.list(now) {
            match &fault.kind {
                FaultKind::Partition { between } if is_on(&between[1], peer) && hits(fault, random()) => return Some(MessageFault::Lost),
                FaultKind::Latency { delay_ms, jitter_ms } if fault.function.is_none() && hits(fault, random()) => {
                    late += delay(*delay_ms, *jitter_ms, random());
                }
                _ => {}
            }
        }
        (late > Duration::ZERO).then_some(MessageFault::Late(late))
    }

    /// Whether no message at all passes to or from a peer.
    pub fn is_cut_off(&self, peer: Peer<'_>, now: Duration) -> bool {
        self.list(now).any(|(_, fault, _)| match &fault.kind {
            FaultKind::Partition { between } => fault.probability >= 1.0 && is_on(&between[1], peer),
            _ => false,
        })
    }

    /// The least memory that a function is left, in MiB.
    pub fn memory_mb(&self, function: &FunctionId, now: Duration) -> Option<u32> {
        let memory = |fault: &Fault| if let FaultKind::Memory { memory_mb } = fault.kind { Some(memory_mb) } else { None };
        self.of_calls(function, now).filter_map(memory).min()
    }

    /// The least number of invocations that a function may run at once.
    pub fn concurrency(&self, function: &FunctionId, now: Duration) -> Option<u32> {
        let concurrency = |fault: &Fault| if let FaultKind::Concurrency { concurrency } = fault.kind { Some(concurrency) } else { None };
        self.of_calls(function, now).filter_map(concurrency).min()
    }

    /// By how many seconds our clock is to be wrong; ahead when positive.
    pub fn clock_skew_seconds(&self, now: Duration) -> i64 {
        let skew = |fault: &Fault| if let FaultKind::ClockSkew { seconds } = fault.kind { seconds } else { 0 };
        self.list(now).map(|(_, fault, _)| skew(fault)).sum()
    }

    /// Whether the node is to be as if its process had ended.
    pub fn is_crashed(&self, now: Duration) -> bool {
        self.list(now).any(|(_, fault, _)| fault.kind == FaultKind::Crash)
    }

    /// Whether what would be written is to be refused.
    pub fn is_disk_full(&self, now: Duration) -> bool {
        self.list(now).any(|(_, fault, _)| fault.kind == FaultKind::DiskFull)
    }

    fn of_calls(&self, function: &FunctionId, now: Duration) -> impl Iterator<Item = &Fault> {
        let faults = self.list(now).map(|(_, fault, _)| fault).filter(|fault| fault.kind.is_of_calls());
        faults.filter(move |fault| fault.function.as_ref().is_none_or(|of| of == function))
    }
}

fn hits(fault: &Fault, random: u64) -> bool {
    // 53 bits are all that a number has.
    ((random >> 11) as f64) < fault.probability * (1_u64 << 53) as f64
}

fn delay(delay_ms: u32, jitter_ms: u32, random: u64) -> Duration {
    let jitter = (u128::from(jitter_ms) * u128::from(random)) >> 64;
    Duration::from_millis(u64::from(delay_ms)) + Duration::from_millis(u64::try_from(jitter).expect("below a minute"))
}

fn is_on(side: &Side, peer: Peer<'_>) -> bool {
    match (side, peer) {
        (Side::Hub, Peer::Hub) => true,
        (Side::Nodes(Target::Nodes(nodes)), Peer::Node(id)) => nodes.contains(id),
        _ => false,
    }
}
