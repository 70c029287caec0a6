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
use tokio::time::{Instant, sleep, sleep_until};

use crate::ticket::{timed_out, within};

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

    /// What happens to a call that comes now.
    #[inline]
    pub(crate) fn of(&self, function: &FunctionId) -> Option<CallFault> {
        if !self.is_any.load(Ordering::Acquire) {
            return None;
        }
        let on_call = self.on_call.read().clone()?;
        Some(on_call(function)).filter(|fault| *fault != CallFault::default())
    }
}

impl CallFault {
    /// Is late and fails as it says, within the deadline of the call.
    pub(crate) async fn happen(self, function: &EdgeFunction, deadline: Instant) -> Result<(), EdgeError> {
        if !self.delay.is_zero() {
            within(deadline, sleep(self.delay)).await.ok_or_else(|| timed_out(function))?;
        }
        match self.failure {
            None => Ok(()),
            Some(ErrorKind::Timeout) => {
                sleep_until(deadline).await;
                Err(timed_out(function))
            }
            Some(kind) => {
                Err(EdgeError::new(kind, format!("function `{}` was not run: an injected fault says that it fails", function.id)))
            }
        }
    }
}
