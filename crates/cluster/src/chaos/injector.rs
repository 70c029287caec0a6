//! The faults of one node with the clock by which they end, shared by all of its seams. While there is none, a seam looks at one number.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use edgeward_model::{EdgeError, FunctionId, chaos::Fault};
use parking_lot::RwLock;
use tokio::{sync::watch, time::Instant};

use super::active::{ActiveFaults, CallFault, MessageFault, Peer};

/// A fault that is injected.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// Names it.
    pub id: String,
    /// What goes wrong.
    pub fault: Fault,
    /// How long it still lasts.
    pub left: Duration,
}

/// The faults of a node.
#[derive(Debug)]
pub struct Injector {
    /// The clock of the faults counts from here. No fault moves it.
    begun: Instant,
    is_any: AtomicBool,
    faults: RwLock<ActiveFaults>,
    changes: watch::Sender<u64>,
    random: AtomicU64,
}

impl Default for Injector {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            is_any: AtomicBool::new(false),
            faults: RwLock::default(),
            changes: watch::Sender::new(0),
            // Who hits what need not be a secret.
            random: AtomicU64::new(getrandom::u64().unwrap_or(1)),
        }
    }
}

impl Injector {
    /// Injects a fault from now on; whether it was not there. See [`ActiveFaults::inject`].
    ///
    /// # Errors
    /// When it is not valid, or there are too many.
    pub fn inject(&self, id: &str, fault: Fault) -> Result<bool, EdgeError> {
        self.change(|faults, now| faults.inject(id, fault, now))
    }

    /// Ends a fault before its time, if it is there.
    pub fn remove(&self, id: &str) -> Option<Fault> {
        self.change(|faults, _| faults.remove(id))
    }

    /// Forgets the faults whose time is over, and tells which.
    pub fn expire(&self) -> Vec<(String, Fault)> {
        if self.is_empty() {
            return Vec::new();
        }
        self.change(ActiveFaults::expire)
    }

    /// Those that are injected.
    pub fn list(&self) -> Vec<Injected> {
        let now = self.now();
        let injected = |(id, fault, ends): (&str, &Fault, Duration)| Injected {
            id: id.to_owned(),
            fault: fault.clone(),
            left: ends.saturating_sub(now),
        };
        self.faults.read().list(now).map(injected).collect()
    }

    /// How long it takes until the next one ends; none without any.
    pub fn next_end_in(&self) -> Option<Duration> {
        self.faults.read().next_end().map(|end| end.saturating_sub(self.now()))
    }

    /// Changes with each fault that comes or goes, but not when the time of one is over and nobody has looked.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Asks the faults, at the time of now.
    pub fn ask<T>(&self, ask: impl FnOnce(&ActiveFaults, Duration) -> T) -> T {
        ask(&self.faults.read(), self.now())
    }

    /// Whether there is none, which is what nearly every call and message finds.
    pub fn is_empty(&self) -> bool {
        !self.is_any.load(Ordering::Acquire)
    }

    /// What happens to a call of a function.
    pub fn on_call(&self, function: &FunctionId) -> CallFault {
        self.ask(|faults, now| faults.on_call(function, now, || self.random()))
    }

    /// What happens to a message to or from a peer.
    pub fn on_message(&self, peer: Peer<'_>) -> Option<MessageFault> {
        if self.is_empty() {
            return None;
        }
        self.ask(|faults, now| faults.on_message(peer, now, || self.random()))
    }

    /// Whether no message at all passes to or from a peer.
    pub fn is_cut_off(&self, peer: Peer<'_>) -> bool {
        !self.is_empty() && self.ask(|faults, now| faults.is_cut_off(peer, now))
    }

    fn change<T>(&self, change: impl FnOnce(&mut ActiveFaults, Duration) -> T) -> T {
        let result = {
            let mut faults = self.faults.write();
            let result = change(&mut faults, self.now());
            self.is_any.store(!faults.is_empty(), Ordering::Release);
            result
        };
        self.changes.send_modify(|changes| *changes += 1);
        result
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// `SplitMix64`, Steele 2014.
    fn random(&self) -> u64 {
        let mut mixed = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
