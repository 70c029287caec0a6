//! How many invocations of a function run at once, and how many may wait.
//!
//! Past both bounds the answer is "overloaded" at once: a queue that grows helps nobody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use edgeward_model::{EdgeError, EdgeFunction, ErrorKind};
use tokio::sync::Semaphore;

use crate::lease::Running;

/// The gate before one function.
#[derive(Debug)]
pub(crate) struct Gate {
    running: Semaphore,
    waiting: AtomicUsize,
    running_max: usize,
    waiting_max: usize,
    wait_max: Duration,
}

/// Who is at the gate of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// Invocations that run.
    pub running: usize,
    /// How many may.
    pub running_max: usize,
    /// Invocations that wait for their turn.
    pub waiting: usize,
}

/// The right to run one invocation; gives it back when dropped.
#[derive(Debug)]
pub struct Permit {
    turn: Turn,
    /// Held beside it, where one node at a time may run the function.
    _running: Option<Running>,
    /// Held beside it, while a fault lets fewer calls run at once.
    _squeezed: Option<Turn>,
    /// What a guest may have, while a fault leaves it less memory.
    #[cfg_attr(not(feature = "wasm"), expect(dead_code, reason = "native code has no memory of its own"))]
    memory_bytes: Option<usize>,
}

#[derive(Debug)]
struct Turn(Arc<Gate>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.running.add_permits(1);
    }
}

impl Permit {
    /// The same, under a lease.
    pub(crate) fn under(self, running: Running) -> Self {
        Self { _running: Some(running), ..self }
    }

    /// The same, with a turn at a narrower gate as well.
    pub(crate) fn beside(self, squeezed: Option<Self>) -> Self {
        Self { _squeezed: squeezed.map(|permit| permit.turn), ..self }
    }

    /// The same, with less memory.
    pub(crate) fn with_memory(self, memory_bytes: Option<usize>) -> Self {
        Self { memory_bytes, ..self }
    }

    /// What a guest may have of memory, where that is less than its function says.
    #[cfg(feature = "wasm")]
    pub(crate) fn memory_bytes(&self) -> Option<usize> {
        self.memory_bytes
    }

    fn new(gate: &Arc<Gate>) -> Self {
        Self { turn: Turn(Arc::clone(gate)), _running: None, _squeezed: None, memory_bytes: None }
    }
}

impl Gate {
    /// A gate with the bounds of the function. Waiting longer than its deadline is overload as well.
    pub(crate) fn new(function: &EdgeFunction) -> Self {
        Self {
            running: Semaphore::new(function.max_concurrency as usize),
            waiting: AtomicUsize::new(0),
            running_max: function.max_concurrency as usize,
            waiting_max: function.max_queue as usize,
            wait_max: function.timeout(),
        }
    }

    /// Who is there now.
    pub(crate) fn crowd(&self) -> Crowd {
        Crowd {
            running: self.running_max.saturating_sub(self.running.available_permits()),
            running_max: self.running_max,
            // Who just finds that there is no room counts for a moment.
            waiting: self.waiting.load(Ordering::Relaxed).min(self.waiting_max),
        }
    }

    /// A turn, when one is free and nobody waits for it.
    pub(crate) fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        self.running.try_acquire().ok()?.forget();
        Some(Permit::new(self))
    }

    /// Waits for a turn, or fails with [`ErrorKind::Overloaded`].
    pub(crate) async fn enter(self: &Arc<Self>, function: &EdgeFunction) -> Result<Permit, EdgeError> {
        let turn = Waiting::join(self).ok_or_else(|| {
            let (running, waiting) = (function.max_concurrency, function.max_queue);
            overloaded(function, &format!("{running} invocations run and {waiting} wait, which is all it may"))
        })?;
        let permit = tokio::time::timeout(self.wait_max, self.running.acquire()).await;
        drop(turn);
        let permit = permit.map_err(|_elapsed| {
            overloaded(function, &format!("an invocation waited {} s for its turn, as long as it may run", function.timeout_seconds))
        })?;
        permit.expect("the gate is never closed").forget();
        Ok(Permit::new(self))
    }
}

fn overloaded(function: &EdgeFunction, why: &str) -> EdgeError {
    EdgeError::new(ErrorKind::Overloaded, format!("function `{}` is overloaded: {why}; try again later", function.id))
}

/// A place in the queue; leaving it, also by being cancelled, frees the place.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(gate: &'a Gate) -> Option<Self> {
        let count = gate.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(&gate.waiting);
        (count < gate.waiting_max).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use edgeward_model::{Handler, HandlerName};

    use super::*;

    #[tokio::test]
    async fn past_the_queue_the_answer_is_overloaded_and_a_cancelled_wait_frees_its_place() {
        let mut function = EdgeFunction::new("f", "f", Handler::Native(HandlerName::new("h").expect("valid"))).expect("valid");
        (function.max_concurrency, function.max_queue) = (1, 1);
        let gate = Arc::new(Gate::new(&function));
        let first = gate.try_enter().expect("free");
        assert!(gate.try_enter().is_none());
        for _ in 0..3 {
            let mut second = Box::pin(gate.enter(&function));
            assert!(futures::poll!(&mut second).is_pending());
            assert_eq!(gate.enter(&function).await.expect_err("full").kind(), ErrorKind::Overloaded);
            drop(second);
        }
        let mut second = Box::pin(gate.enter(&function));
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(gate.crowd(), Crowd { running: 1, running_max: 1, waiting: 1 });
        drop(first);
        second.await.expect("its turn");
    }
}
