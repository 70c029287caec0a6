//! The durable log of all topics of a node: positions from 1 that grow by one and are never given twice.
//!
//! Durable, then visible, then acknowledged: one thread commits for everybody who waits. What has only memory behind it goes to whoever
//! listens, and nowhere else.

use std::{
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use edgeward_durable::{FolderLock, create_private_folder, disk_error};
use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{
        SUBSCRIBER_LEVELS_MAX, SUBSCRIBERS_MAX, SUBSCRIBERS_WAITING_BYTES_MAX, TOPIC_LOG_AGE_DEFAULT, TOPIC_LOG_BYTES_DEFAULT,
        TOPIC_LOG_MESSAGES_DEFAULT, TOPIC_WRITES_WAITING_BYTES_MAX, TOPIC_WRITES_WAITING_MAX,
    },
};
use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::{
    error::{closed, reading},
    filter_tree::FilterTree,
    message::Message,
    subscriber::{Live, Start, Subscription, Waiter},
    topic::TopicFilter,
};
use clock::Clock;
use held::Held;
use recent::Recent;
use transaction::Counts;
pub(crate) use transaction::Transaction;
use writer::{Job, Queue, Write, Writer};

mod clock;
pub mod dead_letters;
pub mod durable;
pub(crate) mod held;
pub mod listing;
pub mod origins;
pub mod read;
mod recent;
pub(crate) mod session;
pub(crate) mod store;
mod transaction;
mod writer;

pub(crate) use read::Scanned;

/// How much a log keeps. Past a bound the oldest messages go, whoever has read them or not.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Messages, at most.
    pub messages_max: u64,
    /// Bytes of messages, at most; the file is somewhat larger.
    pub bytes_max: u64,
    /// Age of a message, at most, by the log's own clock: see [`TopicLog::clock`].
    pub age_max: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { messages_max: TOPIC_LOG_MESSAGES_DEFAULT, bytes_max: TOPIC_LOG_BYTES_DEFAULT, age_max: TOPIC_LOG_AGE_DEFAULT }
    }
}

/// The log in one folder. It is closed when it is dropped: what was handed over before is still written.
pub struct TopicLog {
    pub(crate) shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
    _lock: FolderLock,
}

/// What the log, its writer and its subscribers share.
pub(crate) struct Shared {
    queue: Queue,
    clock: Clock,
    room: Arc<Semaphore>,
    room_bytes: Arc<Semaphore>,
    reader: Mutex<Connection>,
    /// Held by who lists topics.
    listing: tokio::sync::Mutex<()>,
    recent: RwLock<Recent>,
    /// The last position that is committed, the position up to which messages are gone, and the bytes in between.
    head: AtomicU64,
    /// The last position that was offered to all subscribers.
    shown: AtomicU64,
    trimmed: AtomicU64,
    bytes: AtomicU64,
    published: AtomicU64,
    subscribers: RwLock<Subscribers>,
    /// What waits for subscribers that is not durable, and what they have read of the log.
    pub(crate) waiting: Held,
    pub(crate) read: Held,
    /// Numbers messages that are not durable, so that a subscriber of several filters gets each once.
    live: AtomicU64,
    is_closed: AtomicBool,
    /// How often it began anew, with other messages at the same positions.
    beginnings: AtomicU64,
    /// Changes when a dead letter is to be tried again.
    retries: watch::Sender<u64>,
    /// Whether every write fails, as an experiment wants it.
    refuses_writes: AtomicBool,
    /// Whether the next commit fails, as on a disk that does.
    #[cfg(test)]
    fails: AtomicBool,
}

#[derive(Default)]
struct Subscribers {
    tree: FilterTree<u64, Arc<Waiter>>,
    waiters: std::collections::BTreeMap<u64, Arc<Waiter>>,
    last_id: u64,
}

/// What a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Position of the last message; 0 when there never was one.
    pub head: u64,
    /// Up to where messages are gone.
    pub trimmed: u64,
    /// Bytes of the messages that are there.
    pub bytes: u64,
    /// Messages that were published here since it was opened: neither those of other members, nor what is told at topics that begin with `$`.
    pub published: u64,
    /// Who listens.
    pub subscribers: usize,
}

/// A write that waits for its commit.
#[must_use = "the write is durable only when this says so"]
#[derive(Debug)]
pub struct Pending<T>(oneshot::Receiver<Result<T, EdgeError>>);

impl<T> Future for Pending<T> {
    type Output = Result<T, EdgeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or_else(|_| Err(closed())))
    }
}

impl TopicLog {
    /// Opens the log in this folder, which is made when it is missing. One process opens a folder at a time.
    pub fn open(folder: &Path, options: LogOptions) -> Result<Self, EdgeError> {
        create_private_folder(folder).map_err(|error| disk_error("make the log of topics", folder, error))?;
        let lock = FolderLock::take(folder, "topics.lock")?;
        let connection = store::open(folder)?;
        let counts = Counts::load(&connection).map_err(reading)?;
        let clock = Clock::load(&connection).map_err(reading)?;
        let saved_clock = clock.now();
        let shared = Arc::new(Shared {
            queue: Queue::default(),
            clock,
            room: Arc::new(Semaphore::new(TOPIC_WRITES_WAITING_MAX)),
            room_bytes: Arc::new(Semaphore::new(TOPIC_WRITES_WAITING_BYTES_MAX)),
            reader: Mutex::new(store::connect(folder)?),
            listing: tokio::sync::Mutex::default(),
            recent: RwLock::default(),
            head: AtomicU64::new(counts.next - 1),
            shown: AtomicU64::new(counts.next - 1),
            trimmed: AtomicU64::new(counts.trimmed),
            bytes: AtomicU64::new(counts.bytes()),
            published: AtomicU64::new(0),
            subscribers: RwLock::default(),
            waiting: Held::default(),
            read: Held::default(),
            live: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            beginnings: AtomicU64::new(0),
            retries: watch::Sender::new(0),
            refuses_writes: AtomicBool::new(false),
            #[cfg(test)]
            fails: AtomicBool::new(false),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            folder: folder.to_owned(),
            options,
            open: Some((connection, counts)),
            looked_at_age: None,
            saved_clock,
        };
        let thread = thread::Builder::new().name("edgeward-topics".to_owned()).spawn(move || writer.run());
        let thread = thread
            .map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to start the writer of the log of topics").with_source(error))?;
        Ok(Self { shared, thread: Some(thread), _lock: lock })
    }

    /// Has every write fail from now on, as if there were no room on the disk, or succeed again. For experiments.
    pub fn refuse_writes(&self, refuses: bool) {
        self.shared.refuses_writes.store(refuses, Ordering::Relaxed);
    }

    /// Appends a message, and returns its position when it is durable and subscribers can see it. Waits for its turn when many write.
    pub async fn publish(&self, message: Message) -> Result<u64, EdgeError> {
        self.enqueue(message).await?.await
    }

    /// Hands a message over, and returns when its place among others is certain: what the same caller hands over later comes later. It
    /// is durable when the [`Pending`] that is returned says so.
    pub async fn enqueue(&self, message: Message) -> Result<Pending<u64>, EdgeError> {
        message.check()?;
        let bytes = message.cost_bytes();
        self.shared.write(bytes, move |transaction| transaction.append(message)).await
    }

    /// Keeps a message that is not durable as the retained one of its topic, for those who come later; for those who listen now,
    /// [`publish_live`](Self::publish_live) it.
    pub async fn enqueue_retained(&self, message: Message) -> Result<Pending<()>, EdgeError> {
        message.check()?;
        let bytes = message.cost_bytes();
        self.shared.write(bytes, move |transaction| transaction.retain_only(&message)).await
    }

    /// Shows a message that is not durable to whoever listens now, and nobody else ever. When one of them is behind, it returns a little
    /// later, so that a burst is not lost on those who keep up; who does not keep up misses some.
    pub async fn publish_live(&self, message: Message) -> Result<(), EdgeError> {
        message.check()?;
        let shared = &self.shared;
        let number = shared.live.fetch_add(1, Ordering::Relaxed) + 1;
        let mut crowded = None;
        {
            // It counts for as long as it waits for anybody.
            let live = Arc::new(Live::new(message, &shared.waiting));
            let is_full = shared.waiting.bytes() > SUBSCRIBERS_WAITING_BYTES_MAX;
            shared.subscribers.read().tree.matches(live.topic(), &mut |_, waiter| {
                if waiter.offer_live(number, &live, is_full) {
                    crowded = Some(Arc::clone(waiter));
                }
            });
        }
        if let Some(waiter) = crowded {
            waiter.wait_for_room().await;
        }
        Ok(())
    }

    /// Follows the messages of these filters.
    pub fn subscribe(&self, filters: &[TopicFilter], start: Start) -> Result<Subscription, EdgeError> {
        Subscription::new(Arc::clone(&self.shared), filters, start)
    }

    /// How long the log was open in all, this time included. By it the age of messages and of sessions is counted: it does not jump, as
    /// clocks do that are set, and it stands still while the node is off. After a crash it may be some minutes behind.
    pub fn clock(&self) -> Duration {
        self.shared.clock.now()
    }

    /// What the log holds.
    pub fn state(&self) -> LogState {
        let shared = &self.shared;
        LogState {
            head: shared.head(),
            trimmed: shared.trimmed.load(Ordering::Acquire),
            bytes: shared.bytes.load(Ordering::Acquire),
            published: shared.published.load(Ordering::Relaxed),
            subscribers: shared.subscribers.read().waiters.len(),
        }
    }
}

impl Drop for TopicLog {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.take() {
            // It ends after what waits is written. Should it have panicked, that was told.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for TopicLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicLog").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Does `work` in a transaction with others, as soon as there is room. `bytes` is what it holds until then.
    pub(crate) async fn write<T, F>(self: &Arc<Self>, bytes: usize, work: F) -> Result<Pending<T>, EdgeError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, EdgeError> + Send + 'static,
    {
        let bytes = u32::try_from(bytes.min(TOPIC_WRITES_WAITING_BYTES_MAX)).expect("the bound is below 2^32");
        let place = Arc::clone(&self.room).acquire_owned().await.map_err(|_| closed())?;
        let memory = Arc::clone(&self.room_bytes).acquire_many_owned(bytes).await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(Write::new(work, reply, [place, memory]));
        if self.queue.push(job) { Ok(Pending(answer)) } else { Err(closed()) }
    }

    /// Reads what is committed, where it may block.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T, EdgeError> + Send + 'static,
    ) -> Result<T, EdgeError> {
        let shared = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || read(&shared.reader.lock())).await;
        done.map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to read from the log of topics").with_source(error))?
    }

    /// The last position that is committed.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// The last position that was offered to all subscribers.
    pub(crate) fn shown(&self) -> u64 {
        self.shown.load(Ordering::Acquire)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// The message at this position, when it is in memory.
    pub(crate) fn recent(&self, position: u64) -> Option<Arc<Message>> {
        self.recent.read().get(position).cloned()
    }

    /// Shows what was committed.
    fn show(&self, appended: &[Arc<Message>], counts: &Counts) {
        self.trimmed.store(counts.trimmed, Ordering::Release);
        self.bytes.store(counts.bytes(), Ordering::Release);
        if counts.next <= self.head() {
            self.begin_anew();
        }
        if appended.is_empty() {
            return;
        }
        let published = appended.iter().filter(|message| message.origin.is_none() && !message.topic.is_reserved()).count();
        self.published.fetch_add(published as u64, Ordering::Relaxed);
        {
            let mut recent = self.recent.write();
            for message in appended {
                recent.push(Arc::clone(message));
            }
        }
        self.head.store(counts.next - 1, Ordering::Release);
        let subscribers = self.subscribers.read();
        for message in appended {
            let position = message.position.expect("a message that was appended has a position");
            subscribers.tree.matches(&message.topic, &mut |_, waiter| waiter.offer_stored(position));
        }
        self.shown.store(counts.next - 1, Ordering::Release);
    }

    /// Ends what follows messages that are not there any more.
    fn begin_anew(&self) {
        *self.recent.write() = Recent::default();
        self.head.store(0, Ordering::Release);
        self.shown.store(0, Ordering::Release);
        self.beginnings.fetch_add(1, Ordering::Release);
        self.subscribers.read().waiters.values().for_each(|waiter| waiter.wake());
    }

    pub(crate) fn beginnings(&self) -> u64 {
        self.beginnings.load(Ordering::Acquire)
    }

    /// Tells everybody that there is no more to come.
    fn end(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.room.close();
        self.room_bytes.close();
        self.retries.send_modify(|retries| *retries += 1);
        self.subscribers.read().waiters.values().for_each(|waiter| waiter.wake());
    }

    pub(crate) fn add_subscriber(&self, waiter: &Arc<Waiter>) -> Result<u64, EdgeError> {
        let mut subscribers = self.subscribers.write();
        if subscribers.waiters.len() >= SUBSCRIBERS_MAX {
            let message = format!("failed to subscribe: the log of topics has {SUBSCRIBERS_MAX} subscribers already; try again later");
            return Err(EdgeError::new(ErrorKind::Overloaded, message));
        }
        subscribers.last_id += 1;
        let id = subscribers.last_id;
        subscribers.waiters.insert(id, Arc::clone(waiter));
        Ok(id)
    }

    pub(crate) fn add_filter(&self, id: u64, filter: &TopicFilter) -> Result<(), EdgeError> {
        let mut subscribers = self.subscribers.write();
        if subscribers.tree.levels() + filter.levels().count() > SUBSCRIBER_LEVELS_MAX {
            let message = format!(
                "failed to subscribe to `{filter}`: the filters of all subscribers have {SUBSCRIBER_LEVELS_MAX} levels already; use fewer or shorter ones"
            );
            return Err(EdgeError::new(ErrorKind::Overloaded, message));
        }
        let waiter = Arc::clone(&subscribers.waiters[&id]);
        subscribers.tree.insert(filter, id, waiter);
        Ok(())
    }

    pub(crate) fn remove_filter(&self, id: u64, filter: &TopicFilter) {
        self.subscribers.write().tree.remove(filter, &id);
    }

    pub(crate) fn remove_subscriber<'f>(&self, id: u64, filters: impl Iterator<Item = &'f TopicFilter>) {
        let mut subscribers = self.subscribers.write();
        filters.for_each(|filter| drop(subscribers.tree.remove(filter, &id)));
        subscribers.waiters.remove(&id);
    }

    #[cfg(test)]
    fn fail_when_told(&self) -> Result<(), EdgeError> {
        if self.fails.swap(false, Ordering::Relaxed) {
            Err(EdgeError::new(ErrorKind::Internal, "the disk was told to fail"))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
