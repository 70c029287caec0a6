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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The gate before one function.
#[derive(Debug)]
pub struct Gate {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    wait_max: Duration,
}

/// The right to run one invocation; gives it back when dropped.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    /// A gate with the bounds of the function. Waiting longer than its deadline is overload as well.
    pub fn new(function: &EdgeFunction) -> Self {
        Self {
            running: Arc::new(Semaphore::new(function.max_concurrency as usize)),
            waiting: AtomicUsize::new(0),
            waiting_max: function.max_queue as usize,
            wait_max: function.timeout(),
        }
    }

    /// Waits for a turn, or fails with [`ErrorKind::Overloaded`].
    pub async fn enter(&self, function: &EdgeFunction) -> Result<Permit, EdgeError> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(Permit { _permit: permit });
        }
        let turn = Waiting::join(self).ok_or_else(|| overloaded(function))?;
        let permit = tokio::time::timeout(self.wait_max, Arc::clone(&self.running).acquire_owned()).await;
        drop(turn);
        match permit {
            Ok(Ok(permit)) => Ok(Permit { _permit: permit }),
            Ok(Err(_closed)) => Err(EdgeError::function_not_found(function.id.as_str())),
            Err(_elapsed) => Err(overloaded(function)),
        }
    }
}

fn overloaded(function: &EdgeFunction) -> EdgeError {
    EdgeError::new(
        ErrorKind::Overloaded,
        format!(
            "function `{}` is overloaded: {} invocations run and {} wait, which is all it may; try again later",
            function.id, function.max_concurrency, function.max_queue
        ),
    )
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
        let gate = Gate::new(&function);
        let first = gate.enter(&function).await.expect("free");
        for _ in 0..3 {
            let mut second = Box::pin(gate.enter(&function));
            assert!(futures::poll!(&mut second).is_pending());
            assert_eq!(gate.enter(&function).await.expect_err("full").kind(), ErrorKind::Overloaded);
            drop(second);
        }
        let mut second = Box::pin(gate.enter(&function));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        second.await.expect("its turn");
    }
}
