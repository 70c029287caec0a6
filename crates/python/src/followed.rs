//! `FollowedTopics`: the messages of a filter as they come.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use edgeward::{EdgeError, Message, Received, Subscription, TopicLog};
use jiff::Timestamp;
use pyo3::{exceptions::PyStopAsyncIteration, prelude::*, types::PyDict};
use tokio_util::sync::CancellationToken;

use crate::{
    events::message_to_python,
    waiting::{awaitable, wait},
};

/// Tells the messages of one filter.
#[pyclass(module = "edgeward", frozen)]
pub(crate) struct FollowedTopics(Arc<Following>);

struct Following {
    subscription: tokio::sync::Mutex<Subscription>,
    stop: CancellationToken,
    lost: AtomicU64,
    /// It is closed when nobody has it any more.
    _log: Arc<TopicLog>,
}

impl Following {
    /// The next message; none after it was closed.
    async fn next(self: Arc<Self>) -> Result<Option<Arc<Message>>, EdgeError> {
        let next = async {
            let mut subscription = self.subscription.lock().await;
            loop {
                match subscription.next().await? {
                    Received::Message(message) if message.has_expired(Timestamp::now()) => {}
                    Received::Message(message) => return Ok(message),
                    Received::Lost(lost) => drop(self.lost.fetch_add(lost, Ordering::Relaxed)),
                }
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Ok(None),
            next = next => next.map(Some),
        }
    }
}

impl FollowedTopics {
    pub(crate) fn new(log: Arc<TopicLog>, subscription: Subscription) -> Self {
        let (subscription, stop) = (tokio::sync::Mutex::new(subscription), CancellationToken::new());
        Self(Arc::new(Following { subscription, stop, lost: AtomicU64::new(0), _log: log }))
    }
}

#[pymethods]
impl FollowedTopics {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        wait(py, Arc::clone(&self.0).next())?.map(|message| message_to_python(py, &message)).transpose()
    }

    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, Arc::clone(&self.0).next(), |py, message| match message {
            Some(message) => Ok(message_to_python(py, &message)?.into_any().unbind()),
            None => Err(PyStopAsyncIteration::new_err(())),
        })
    }

    /// Messages, of whatever topic, that were gone before they could be told.
    #[getter]
    fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Ends it, and a wait for what comes next, from any thread.
    fn close(&self) {
        self.0.stop.cancel();
    }
}
