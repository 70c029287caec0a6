//! Faults that the owner of a runtime injects into calls. While there are none, a call looks at one flag.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use edgeward_model::{EdgeError, EdgeFunction, ErrorKind, FunctionId};
use parking_lot::RwLock;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::ticket::timed_out;

/// What happens to one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallFault {
    /// How long it waits before anything else.
    pub delay: Duration,
    /// How it fails, without the function. [`ErrorKind::Timeout`] means that it gets no answer until its deadline.
    pub failure: Option<ErrorKind>,
    /// How many calls of the function may run at once, where that is fewer than it may have.
    pub concurrency: Option<u32>,
    /// How many bytes of memory a guest may have, where that is less than its function has.
    pub memory_bytes: Option<usize>,
}

/// Says what happens to a call of a function.
pub type OnCall = Arc<dyn Fn(&FunctionId) -> CallFault + Send + Sync>;

/// The faults of a runtime's calls.
#[derive(Default)]
pub struct CallFaults {
    is_any: AtomicBool,
    on_call: RwLock<Option<OnCall>>,
    /// Counts how often something ended that may hold calls.
    ended: watch::Sender<u64>,
}

impl fmt::Debug for CallFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CallFaults").field(&self.is_any).finish()
    }
}

impl CallFaults {
    /// Asks this of each call from now on; with none, calls are as they are.
    pub fn set(&self, on_call: Option<OnCall>) {
        let is_any = on_call.is_some();
        *self.on_call.write() = on_call;
        self.is_any.store(is_any, Ordering::Release);
    }

    /// Has every call that waits for a fault ask anew what happens to it, once one has ended.
    pub fn let_go(&self) {
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Changes with each end of a fault.
    pub(crate) fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// Whether there are any.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Acquire)
    }

    /// What happens to a call that comes now.
    pub(crate) fn of(&self, function: &FunctionId) -> CallFault {
        let on_call = if self.is_any() { self.on_call.read().clone() } else { None };
        on_call.map(|on_call| on_call(function)).unwrap_or_default()
    }

    /// Has a call be late and fail as the faults say, as long as they last and within its deadline. What memory they leave it, where that is less than its
    /// function has.
    pub(crate) async fn befall(&self, function: &EdgeFunction, deadline: Instant) -> Result<Option<usize>, EdgeError> {
        let (begun, mut ended) = (Instant::now(), self.ended());
        loop {
            let CallFault { delay, failure, memory_bytes, .. } = self.of(&function.id);
            let until = if failure == Some(ErrorKind::Timeout) { deadline } else { deadline.min(begun + delay) };
            if until > Instant::now() {
                tokio::select! {
                    () = sleep_until(until) => {}
                    // It lives as long as this.
                    _ = ended.changed() => continue,
                }
            }
            return match failure {
                _ if until == deadline => Err(timed_out(function)),
                None => Ok(memory_bytes),
                Some(kind) => {
                    Err(EdgeError::new(kind, format!("function `{}` was not run: an injected fault says that it fails", function.id)))
                }
            };
        }
    }
}
