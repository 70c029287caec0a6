//! `Topics`: messages that are published once and read by many, in a folder, and the triggers by which they call functions.

use std::{path::PathBuf, sync::Arc};

use edgeward::{
    CloudEvent, DeadLetter, EdgeError, FunctionId, LogState, Message, Redelivery, Start, TopicFilter, TopicLog, TopicName, Trigger,
    TriggerId,
    cloud_event::STRUCTURED,
    limits::TOPIC_PAGE_MAX,
    topics::{LogOptions, check_topic, expiry, program},
};
use jiff::Timestamp;
use pyo3::{
    prelude::*,
    types::{PyDict, PyList},
};

use crate::{
    errors::OrRaise,
    events::message_to_python,
    followed::FollowedTopics,
    json,
    runtime::{EdgeRuntime, payload_bytes},
    triggers::{Running, TopicTrigger},
    waiting::{awaitable, blocking, wait},
};

/// Messages that are read when nobody says how many.
const LATEST_DEFAULT: usize = 100;
const ALL: &str = "#";

/// The topics in one folder.
#[pyclass(module = "edgeward", frozen, weakref)]
pub(crate) struct Topics {
    log: Arc<TopicLog>,
    running: Arc<Running>,
    /// The folder where nobody named one; it goes with this.
    _temporary: Option<Py<PyAny>>,
}

/// A filter, or several.
#[derive(FromPyObject)]
enum Filters {
    One(String),
    Many(Vec<String>),
}

impl Topics {
    /// A message to be published.
    fn message(topic: &str, payload: bytes::Bytes, how: How) -> Result<Message, EdgeError> {
        let topic = TopicName::new(topic)?;
        check_topic(&topic)?;
        let now = Timestamp::now();
        let How { content_type, key, retain, expires_in_seconds } = how;
        let expires_at = expires_in_seconds.map(|seconds| expiry(now, seconds)).transpose()?;
        let mut message = Message { key, retain, expires_at, ..Message::new(topic, payload, now) };
        let is_event = content_type.as_deref().is_some_and(|content_type| {
            content_type.split(';').next().is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(STRUCTURED))
        });
        if is_event {
            return Ok(CloudEvent::from_json(&message.payload)?.into_message(message));
        }
        message.content_type = content_type;
        Ok(message)
    }
}

/// How a message is published.
struct How {
    content_type: Option<String>,
    key: Option<String>,
    retain: bool,
    expires_in_seconds: Option<u64>,
}

fn messages_to_python<'py>(py: Python<'py>, messages: &[Arc<Message>]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    messages.iter().try_for_each(|message| list.append(message_to_python(py, message)?))?;
    Ok(list)
}

fn letter_to_python<'py>(py: Python<'py>, letter: &DeadLetter) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("id", letter.id)?;
    dict.set_item("trigger", edgeward::topics::trigger_of(letter))?;
    dict.set_item("why", &letter.why)?;
    dict.set_item("attempts", letter.attempts)?;
    dict.set_item("at", letter.at.to_string())?;
    dict.set_item("is_to_retry", letter.is_to_retry)?;
    dict.set_item("message", message_to_python(py, &letter.message)?)?;
    Ok(dict)
}

#[pymethods]
impl Topics {
    /// The topics in a folder, which is made when it is missing, and which one process opens at a time; without one they end with the
    /// process.
    #[new]
    #[pyo3(signature = (path=None))]
    fn __new__(py: Python<'_>, path: Option<PathBuf>) -> PyResult<Self> {
        let temporary = match &path {
            Some(_) => None,
            None => Some(py.import("tempfile")?.getattr("TemporaryDirectory")?.call1(("", "edgeward-topics-"))?),
        };
        let folder = match (path, &temporary) {
            (Some(path), _) => path,
            (None, Some(temporary)) => temporary.getattr("name")?.extract()?,
            (None, None) => unreachable!("one of them is there"),
        };
        let log = blocking(py, || TopicLog::open(&folder, LogOptions::default()))?;
        Ok(Self { log: Arc::new(log), running: Arc::default(), _temporary: temporary.map(Bound::unbind) })
    }

    /// Publishes a message; returns its position when it is on the disk.
    #[pyo3(signature = (topic, payload=None, *, content_type=None, key=None, retain=false, expires_in_seconds=None))]
    #[expect(clippy::too_many_arguments, reason = "Python's arguments")]
    fn publish(
        &self,
        py: Python<'_>,
        topic: &str,
        payload: Option<&Bound<'_, PyAny>>,
        content_type: Option<String>,
        key: Option<String>,
        retain: bool,
        expires_in_seconds: Option<u64>,
    ) -> PyResult<u64> {
        let how = How { content_type, key, retain, expires_in_seconds };
        let message = Self::message(topic, payload_bytes(payload)?, how).or_raise(py)?;
        wait(py, self.log.publish(message))
    }

    /// The same, to be awaited.
    #[pyo3(signature = (topic, payload=None, *, content_type=None, key=None, retain=false, expires_in_seconds=None))]
    #[expect(clippy::too_many_arguments, reason = "Python's arguments")]
    fn publish_async<'py>(
        &self,
        py: Python<'py>,
        topic: &str,
        payload: Option<&Bound<'py, PyAny>>,
        content_type: Option<String>,
        key: Option<String>,
        retain: bool,
        expires_in_seconds: Option<u64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let how = How { content_type, key, retain, expires_in_seconds };
        let message = Self::message(topic, payload_bytes(payload)?, how).or_raise(py)?;
        let log = Arc::clone(&self.log);
        let published = async move { log.publish(message).await };
        awaitable(py, published, |py, position| Ok(position.into_pyobject(py)?.into_any().unbind()))
    }

    /// The messages of a filter as they come, for `for` and `async for`.
    #[pyo3(signature = (filter, *, from_position=None))]
    fn follow(&self, py: Python<'_>, filter: &str, from_position: Option<u64>) -> PyResult<FollowedTopics> {
        let start = from_position.map_or(Start::Now, Start::At);
        let subscription = TopicFilter::new(filter).and_then(|filter| self.log.subscribe(&[filter], start)).or_raise(py)?;
        Ok(FollowedTopics::new(Arc::clone(&self.log), subscription))
    }

    /// The newest messages of a filter, or those from a position on, in pages.
    #[pyo3(signature = (filter, *, limit=None, before=None, from_position=None))]
    fn messages<'py>(
        &self,
        py: Python<'py>,
        filter: &str,
        limit: Option<usize>,
        before: Option<u64>,
        from_position: Option<u64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let filter = TopicFilter::new(filter).or_raise(py)?;
        let limit = limit.unwrap_or(LATEST_DEFAULT);
        if !(1..=TOPIC_PAGE_MAX).contains(&limit) {
            return Err(EdgeError::invalid(format!("`limit` is {limit}; it must be from 1 to {TOPIC_PAGE_MAX}"))).or_raise(py);
        }
        let dict = PyDict::new(py);
        match (from_position, before) {
            (Some(_), Some(_)) => {
                let why = "messages are read from a position on, or before one: give `from_position` or `before`";
                return Err(EdgeError::invalid(why)).or_raise(py);
            }
            (None, before) => {
                let latest = wait(py, self.log.latest(&filter, before, limit))?;
                dict.set_item("messages", messages_to_python(py, &latest.messages)?)?;
                dict.set_item("before", latest.before)?;
            }
            (Some(from), None) => {
                let mut batch = wait(py, self.log.read(from, &filter))?;
                if let Some(position) = batch.messages.get(limit).and_then(|message| message.position) {
                    batch.next = position;
                    batch.messages.truncate(limit);
                }
                dict.set_item("messages", messages_to_python(py, &batch.messages)?)?;
                dict.set_item("before", py.None())?;
                dict.set_item("next", batch.next)?;
                dict.set_item("lost", batch.lost)?;
            }
        }
        Ok(dict)
    }

    /// The retained messages of a filter whose topics come after `after`, a page of them.
    #[pyo3(signature = (filter=ALL, *, after=None))]
    fn retained_messages<'py>(&self, py: Python<'py>, filter: &str, after: Option<&str>) -> PyResult<Bound<'py, PyList>> {
        let filter = TopicFilter::new(filter).or_raise(py)?;
        messages_to_python(py, &wait(py, self.log.retained(&filter, after.unwrap_or_default()))?)
    }

    /// The topics that have messages, a page of them.
    #[pyo3(signature = (filter=ALL, *, after=None))]
    fn topics<'py>(&self, py: Python<'py>, filter: &str, after: Option<&str>) -> PyResult<Bound<'py, PyList>> {
        let filter = TopicFilter::new(filter).or_raise(py)?;
        let list = PyList::empty(py);
        for info in wait(py, self.log.topics(&filter, after.unwrap_or_default()))? {
            let dict = PyDict::new(py);
            dict.set_item("topic", info.topic.as_str())?;
            dict.set_item("messages", info.messages)?;
            dict.set_item("last_position", info.last_position)?;
            dict.set_item("last_published_at", info.last_published_at.to_string())?;
            list.append(dict)?;
        }
        Ok(list)
    }

    /// Calls a function of a runtime for each message of a filter, or of several, from now on, until what is returned is closed.
    #[pyo3(signature = (filter, runtime, function_id, *, trigger_id=None, attempts=None, concurrency=None, retry=None))]
    #[expect(clippy::too_many_arguments, reason = "Python's arguments")]
    fn on(
        &self,
        py: Python<'_>,
        filter: Filters,
        runtime: &Bound<'_, EdgeRuntime>,
        function_id: &str,
        trigger_id: Option<&str>,
        attempts: Option<u32>,
        concurrency: Option<u32>,
        retry: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<TopicTrigger> {
        let filters = match filter {
            Filters::One(filter) => vec![filter],
            Filters::Many(filters) => filters,
        };
        let made = || {
            let filters = filters.iter().map(TopicFilter::new).collect::<Result<_, _>>()?;
            Ok(Trigger::new(TriggerId::new(trigger_id.unwrap_or(function_id))?, FunctionId::new(function_id)?, filters))
        };
        let mut trigger: Trigger = made().or_raise(py)?;
        if let Some(retry) = retry {
            trigger.retry = json::read::<Redelivery>(retry.as_any(), "retry")?;
        }
        trigger.retry.attempts = attempts.unwrap_or(trigger.retry.attempts);
        trigger.concurrency = concurrency.unwrap_or(trigger.concurrency);
        let (log, runtime) = (Arc::clone(&self.log), Arc::clone(runtime.get().inner()));
        let trigger = wait(py, Arc::clone(&self.running).start(log, trigger, runtime))?;
        Ok(TopicTrigger::new(trigger, Arc::clone(&self.running)))
    }

    /// The triggers that run, and how each does.
    fn triggers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let views = wait(py, self.running.views())?;
        json::shown(py, &views)
    }

    /// Forgets how far a trigger got that is closed; says whether there was one. Its dead letters stay.
    fn delete_trigger(&self, py: Python<'_>, trigger_id: &str) -> PyResult<bool> {
        let id = TriggerId::new(trigger_id).or_raise(py)?;
        wait(py, self.running.forget(&self.log, &id))
    }

    /// Messages that functions could not handle, of one trigger or of all, after an id, a page of them.
    #[pyo3(signature = (trigger_id=None, *, after=None))]
    fn dead_letters<'py>(&self, py: Python<'py>, trigger_id: Option<&str>, after: Option<u64>) -> PyResult<Bound<'py, PyList>> {
        let id = trigger_id.map(TriggerId::new).transpose().or_raise(py)?;
        let letters = wait(py, program::dead_letters(&self.log, id.as_ref(), after.unwrap_or_default()))?;
        let list = PyList::empty(py);
        letters.iter().try_for_each(|letter| list.append(letter_to_python(py, letter)?))?;
        Ok(list)
    }

    /// Has a message tried again by its trigger, from the first attempt on.
    fn retry_dead_letter(&self, py: Python<'_>, letter_id: u64) -> PyResult<()> {
        wait(py, self.log.retry_dead_letter(letter_id))
    }

    /// Removes a message that was given up.
    fn discard_dead_letter(&self, py: Python<'_>, letter_id: u64) -> PyResult<()> {
        wait(py, self.log.discard_dead_letter(letter_id))
    }

    fn __repr__(&self) -> String {
        let LogState { head, bytes, .. } = self.log.state();
        format!("<Topics up to position {head}, {bytes} bytes>")
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        self.running.stop_all();
    }
}
