//! How Python waits for the asynchronous core: a thread that lets the interpreter go meanwhile, or an `await`.
//!
//! A waiting thread first spins for a moment, as the answer of a short handler comes within microseconds and to fall asleep takes as
//! long. Where that was in vain, as handlers take longer or the processors have other work, it spins less and less often. It looks for
//! signals now and then, so that Ctrl-C ends a wait.

use std::{
    cell::Cell,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use edgeward::EdgeError;
use parking_lot::Mutex;
use pyo3::{exceptions::PyRuntimeError, prelude::*};
use tokio::runtime::{Builder, Handle};

use crate::errors::{OrRaise, exception};

/// Longest time in which a thread that waits for another burns its processor.
const SPIN: Duration = Duration::from_micros(20);
/// A thread that span in vain so many times, one after the other, spins once in two to that power of its waits.
const IN_VAIN_MAX: u32 = 6;
/// Time between two looks for signals.
const SIGNALS_EVERY: Duration = Duration::from_millis(100);

/// The timers and threads of this process; a process that was forked has none of its parent's.
static TOKIO: ArcSwapOption<Handle> = ArcSwapOption::const_empty();

fn tokio() -> PyResult<Arc<Handle>> {
    static STARTING: Mutex<()> = Mutex::new(());
    if let Some(handle) = TOKIO.load_full() {
        return Ok(handle);
    }
    let _starting = STARTING.lock();
    if let Some(handle) = TOKIO.load_full() {
        return Ok(handle);
    }
    let runtime = Builder::new_multi_thread().enable_all().thread_name("edgeward-tokio").build();
    let runtime = runtime.map_err(|error| PyRuntimeError::new_err(format!("failed to start the threads of edgeward: {error}")))?;
    let handle = Arc::new(runtime.handle().clone());
    TOKIO.store(Some(Arc::clone(&handle)));
    // It ends with the process: its threads may be inside a function then.
    std::mem::forget(runtime);
    Ok(handle)
}

/// Forgets the threads of the parent in a process that was forked.
pub(crate) fn forget_threads() {
    if let Some(handle) = TOKIO.swap(None) {
        std::mem::forget(handle);
    }
}

thread_local! {
    /// How often this thread span in vain, one time after the other, and how many waits it sleeps at once for it.
    static IN_VAIN: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// Whether this thread should spin in this wait.
fn spins() -> bool {
    // On one processor nobody can do anything while somebody spins.
    static ALONE: std::sync::LazyLock<bool> =
        std::sync::LazyLock::new(|| !thread::available_parallelism().is_ok_and(|processors| processors.get() > 1));
    let (times, pause) = IN_VAIN.get();
    IN_VAIN.set((times, pause.saturating_sub(1)));
    pause == 0 && !*ALONE
}

/// Notes how spinning went.
fn span(in_vain: bool) {
    let times = if in_vain { (IN_VAIN.get().0 + 1).min(IN_VAIN_MAX) } else { 0 };
    IN_VAIN.set((times, if times == 0 { 0 } else { (1 << times) - 1 }));
}

/// A flag that one thread waits for.
pub(crate) struct Alarm {
    is_raised: AtomicBool,
    sleeper: Thread,
}

impl Alarm {
    /// An alarm for this thread.
    pub(crate) fn here() -> Self {
        Self { is_raised: AtomicBool::new(false), sleeper: thread::current() }
    }

    /// Ends the wait of now, or the next one.
    pub(crate) fn raise(&self) {
        self.is_raised.store(true, Ordering::Release);
        self.sleeper.unpark();
    }

    fn take(&self) -> bool {
        // Reading alone leaves the line of memory to who will write it.
        self.is_raised.load(Ordering::Relaxed) && self.is_raised.swap(false, Ordering::Acquire)
    }

    /// Waits, on the thread that the alarm is for, at most so long; says whether it was raised.
    pub(crate) fn wait(&self, longest: Option<Duration>) -> bool {
        if spins() {
            let begun = Instant::now();
            while begun.elapsed() < SPIN {
                for _ in 0..32 {
                    if self.take() {
                        span(false);
                        return true;
                    }
                    std::hint::spin_loop();
                }
            }
            span(true);
        }
        let until = longest.map(|longest| Instant::now() + longest);
        loop {
            if self.take() {
                return true;
            }
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => return false,
                Some(left) => thread::park_timeout(left),
            }
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.raise();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
    }
}

/// Waits for a result with the interpreter let go. A signal's exception ends the wait, and drops the work.
pub(crate) fn wait<T: Send>(py: Python<'_>, work: impl Future<Output = Result<T, EdgeError>> + Send) -> PyResult<T> {
    let tokio = tokio()?;
    let result: PyResult<_> = py.detach(|| {
        let _context = tokio.enter();
        let alarm = Arc::new(Alarm::here());
        let waker = Waker::from(Arc::clone(&alarm));
        let mut context = Context::from_waker(&waker);
        let mut work = pin!(work);
        loop {
            if let Poll::Ready(result) = work.as_mut().poll(&mut context) {
                return Ok(result);
            }
            while !alarm.wait(Some(SIGNALS_EVERY)) {
                look_for_signals()?;
            }
        }
    });
    result?.or_raise(py)
}

#[expect(clippy::redundant_closure_for_method_calls, reason = "the method is of one lifetime, and the closure of each")]
fn look_for_signals() -> PyResult<()> {
    Python::attach(|py| py.check_signals())
}

/// Does what starts tasks of this process.
pub(crate) fn starting<T>(work: impl FnOnce() -> T) -> PyResult<T> {
    let tokio = tokio()?;
    let _context = tokio.enter();
    Ok(work())
}

/// Does work that blocks, with the interpreter let go.
pub(crate) fn blocking<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, EdgeError> + Send) -> PyResult<T> {
    py.detach(work).or_raise(py)
}

/// Makes work an `asyncio` future of the loop that runs; to cancel it drops the work.
pub(crate) fn awaitable<T>(
    py: Python<'_>,
    work: impl Future<Output = Result<T, EdgeError>> + Send + 'static,
    show: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
) -> PyResult<Bound<'_, PyAny>>
where
    T: Send + 'static,
{
    let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
    let future = event_loop.call_method0("create_future")?;
    let (event_loop, waiting) = (event_loop.unbind(), future.clone().unbind());
    let task = tokio()?.spawn(async move {
        let result = work.await;
        // An interpreter that ends waits for nobody.
        let _ = Python::try_attach(|py| {
            let settled = match result {
                Ok(value) => show(py, value),
                Err(error) => Err(exception(py, &error)),
            };
            let settle = py.import("edgeward._asyncio")?.getattr("settle")?;
            let (value, error) = match settled {
                Ok(value) => (value, py.None()),
                Err(error) => (py.None(), error.into_value(py).into_any()),
            };
            // A loop that was closed meanwhile refuses this, and nobody waits there.
            event_loop.call_method1(py, "call_soon_threadsafe", (settle, waiting, value, error))
        });
    });
    future.call_method1("add_done_callback", (Cancel(task.abort_handle()),))?;
    Ok(future)
}

/// Ends the work of a future that is done, which is to cancel it when it was not.
#[pyclass(frozen)]
struct Cancel(tokio::task::AbortHandle);

#[pymethods]
impl Cancel {
    fn __call__(&self, _future: &Bound<'_, PyAny>) {
        self.0.abort();
    }
}
