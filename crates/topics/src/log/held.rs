//! Bytes of messages that are in memory for subscribers which have not taken them, over all of them.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How much is held.
#[derive(Clone, Default)]
pub(crate) struct Held(Arc<AtomicUsize>);

/// A part of it, until it is dropped.
pub(crate) struct Part {
    of: Held,
    bytes: usize,
}

impl Held {
    pub(crate) fn hold(&self, bytes: usize) -> Part {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Part { of: self.clone(), bytes }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
