//! The threads that run Python callables: Python's own daemon threads, each with one call at a time.
//!
//! A handler that outlasts its deadline keeps its thread, as nothing can stop it: the caller goes on, a fresh thread takes its place, and
//! past [`THREADS_MAX`] calls are told "overloaded". The loop around a handler is Python's (`edgeward/_worker.py`), so that no frame of
//! ours lies below a handler: an interpreter that ends unwinds such a thread from within.
//!
//! A result is handed over only when its thread has let the interpreter go: who waits for it would else wait once more.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use edgeward::{EdgeError, ErrorKind, Permit};
use parking_lot::Mutex;
use pyo3::{
    prelude::*,
    types::{PyDict, PyTuple},
};
use tokio::sync::oneshot;

use crate::{errors::raised, waiting::Alarm};

/// Threads that run handlers at once, over all functions; those of handlers that never return are among them.
const THREADS_MAX: usize = 256;

type Outcome = Result<Py<PyAny>, EdgeError>;

/// The code of a function that is a Python callable.
pub(crate) struct Callable {
    pub(crate) function: String,
    pub(crate) handler: Py<PyAny>,
}

/// What a callable is called with.
pub(crate) struct Arguments {
    pub(crate) positional: Py<PyTuple>,
    pub(crate) named: Option<Py<PyDict>>,
}

/// One call on its way to a thread.
struct Call {
    callable: Arc<Callable>,
    arguments: Arguments,
    ticket: Ticket,
}

/// What is needed when a call has ended.
struct Ticket {
    function: Arc<Callable>,
    /// Goes with the handler and ends with it.
    permit: Permit,
    deadline: Instant,
    answer: oneshot::Sender<Outcome>,
}

/// Where a thread finds its next call.
struct Desk {
    call: Mutex<Option<Call>>,
    alarm: OnceLock<Alarm>,
}

impl Desk {
    fn put(&self, call: Call) {
        *self.call.lock() = Some(call);
        if let Some(alarm) = self.alarm.get() {
            alarm.raise();
        }
    }

    fn wait(&self) -> Call {
        let alarm = self.alarm.get_or_init(Alarm::here);
        loop {
            if let Some(call) = self.call.lock().take() {
                return call;
            }
            alarm.wait(None);
        }
    }
}

/// The threads of this process.
#[derive(Default)]
struct Pool {
    /// Those that wait; the last to come is the next to work, as its memory is warm.
    idle: Mutex<Vec<Arc<Desk>>>,
    threads: AtomicUsize,
}

fn pool() -> &'static ArcSwap<Pool> {
    static POOL: OnceLock<ArcSwap<Pool>> = OnceLock::new();
    POOL.get_or_init(ArcSwap::default)
}

/// Forgets the threads of the parent in a process that was forked.
pub(crate) fn forget_threads() {
    std::mem::forget(pool().swap(Arc::default()));
}

/// Calls a callable on a thread of its own.
pub(crate) async fn call(callable: Arc<Callable>, arguments: Arguments, permit: Permit, deadline: Instant) -> Outcome {
    let (answer, outcome) = oneshot::channel();
    let ticket = Ticket { function: Arc::clone(&callable), permit, deadline, answer };
    let call = Call { callable, arguments, ticket };
    let pool = pool().load_full();
    let idle = pool.idle.lock().pop();
    match idle {
        Some(desk) => desk.put(call),
        None => hire(&pool, call)?,
    }
    outcome.await.unwrap_or_else(|_gone| Err(EdgeError::new(ErrorKind::Unavailable, "the interpreter ends")))
}

/// Starts a thread for a call.
fn hire(pool: &Arc<Pool>, call: Call) -> Result<(), EdgeError> {
    let number = pool.threads.fetch_add(1, Ordering::Relaxed);
    let function = &call.callable.function;
    let overloaded = |why: String| EdgeError::new(ErrorKind::Overloaded, format!("function `{function}` is overloaded: {why}"));
    let started = if number >= THREADS_MAX {
        Err(overloaded(format!("all {THREADS_MAX} threads for handlers are at work; try again later")))
    } else {
        let desk = Arc::new(Desk { call: Mutex::default(), alarm: OnceLock::new() });
        let worker = Worker { pool: Arc::clone(pool), desk: Arc::clone(&desk), working: Mutex::default(), ended: Mutex::default() };
        let started = Python::try_attach(|py| {
            let start = py.import("edgeward._worker")?.getattr("start")?;
            start.call1((worker, number)).map(drop)
        });
        match started {
            Some(Ok(())) => Ok(desk),
            Some(Err(error)) => Err(overloaded(format!("no thread can be started: {error}"))),
            None => Err(EdgeError::new(ErrorKind::Unavailable, "the interpreter ends")),
        }
    };
    match started {
        Ok(desk) => {
            desk.put(call);
            Ok(())
        }
        Err(error) => {
            pool.threads.fetch_sub(1, Ordering::Relaxed);
            Err(error)
        }
    }
}

/// The side of a thread that its Python loop sees.
#[pyclass(frozen)]
pub(crate) struct Worker {
    pool: Arc<Pool>,
    desk: Arc<Desk>,
    working: Mutex<Option<Ticket>>,
    ended: Mutex<Option<(Ticket, Outcome)>>,
}

#[pymethods]
impl Worker {
    /// Hands over the outcome of the last call, and waits for the next.
    fn next(&self, py: Python<'_>) -> (Py<PyAny>, Py<PyTuple>, Option<Py<PyDict>>) {
        let call = py.detach(|| {
            if let Some((ticket, outcome)) = self.ended.lock().take() {
                let Ticket { permit, answer, .. } = ticket;
                drop(permit);
                // Idle first: who is told now may call again at once, and finds this thread.
                self.pool.idle.lock().push(Arc::clone(&self.desk));
                // Nobody takes it after the deadline.
                let _ = answer.send(outcome);
            }
            self.desk.wait()
        });
        let Call { callable, arguments, ticket } = call;
        *self.working.lock() = Some(ticket);
        (callable.handler.clone_ref(py), arguments.positional, arguments.named)
    }

    /// The handler returned this.
    fn done(&self, result: Py<PyAny>) {
        self.end(|_| Ok(result));
    }

    /// The handler raised this.
    fn failed(&self, py: Python<'_>, error: &Bound<'_, PyAny>) {
        self.end(|ticket| Err(raised(py, &ticket.function.function, PyErr::from_value(error.clone()))));
    }

    /// Time to the deadline of the call.
    fn seconds_left(&self) -> f64 {
        let deadline = self.working.lock().as_ref().map(|ticket| ticket.deadline);
        deadline.map_or(0.0, |deadline| deadline.saturating_duration_since(Instant::now()).as_secs_f64())
    }
}

impl Worker {
    fn end(&self, outcome: impl FnOnce(&Ticket) -> Outcome) {
        if let Some(ticket) = self.working.lock().take() {
            let outcome = outcome(&ticket);
            *self.ended.lock() = Some((ticket, outcome));
        }
    }
}
