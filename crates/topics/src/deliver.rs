//! Delivery to a consumer: every message of a durable subscription at least once, those of one key in their order.
//!
//! What is acknowledged in the log moves only when everything below is done, so that a crash repeats messages and loses none. A
//! message that fails too often becomes a dead letter, and the next one of its key follows. Who is slow is read for no further.

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{
        DELIVERY_ACKNOWLEDGE_EVERY, DELIVERY_ATTEMPTS_MAX, DELIVERY_CONCURRENCY_MAX, DELIVERY_DONE_MAX, DELIVERY_WINDOW_BYTES_MAX,
        DELIVERY_WINDOW_MAX,
    },
};
use futures::{FutureExt, StreamExt, future::Fuse, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    log::TopicLog,
    message::Message,
    subscriber::{Received, Start, Subscription},
};
use lanes::Lanes;
use progress::Progress;

mod lanes;
pub(crate) mod progress;

/// How often it is looked at up to where everything is done: what no filter matches tells nobody that it came.
const LOOK_EVERY: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(10) };

/// How a message that failed is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Attempts in all, 1 at least. An attempt that was refused as overloaded or not available does not count.
    pub attempts: u32,
    /// Pause after the first attempt, which doubles with each, up to `pause_max`; half of it at least, at random.
    pub pause_min: Duration,
    /// Longest pause.
    pub pause_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, pause_min: Duration::from_millis(100), pause_max: Duration::from_secs(30) }
    }
}

impl Retry {
    /// The pause after this many attempts, shortened by `chance` (0 to 1) to the half at most.
    fn pause(&self, attempts: u32, chance: f64) -> Duration {
        let doubled = self.pause_min.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        doubled.min(self.pause_max).mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
    }
}

/// How the messages of a durable subscription are delivered.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Name of the durable subscription.
    pub subscription: String,
    /// Messages that are handled at once, of different keys.
    pub concurrency: usize,
    /// What becomes of those that fail.
    pub retry: Retry,
}

/// What a delivery has done since it began.
#[derive(Debug, Default)]
pub struct DeliveryCounts {
    /// Messages that were handled.
    pub delivered: AtomicU64,
    /// Attempts that failed and were followed by another.
    pub retried: AtomicU64,
    /// Messages that became dead letters.
    pub dead: AtomicU64,
    /// Dead letters that gave way to newer ones.
    pub dead_dropped: AtomicU64,
    /// Messages, of whatever topic, that were gone from the log before the delivery came to them.
    pub lost: AtomicU64,
    /// Messages that were not durable, and came while too many waited already.
    pub dropped: AtomicU64,
}

/// A message on its way, and the dead letter that it was.
struct Work {
    message: Arc<Message>,
    letter: Option<u64>,
}

impl Delivery {
    /// Hands each message to `handle` until `stop` is done; then waits for what is being handled, and leaves what is between two attempts for
    /// the next time. Dropping it stops it at once, after which the messages under way come again. One delivery of a subscription runs at a time, which is the caller's to see to.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such durable subscription, [`ErrorKind::Unavailable`] when the log is closed, those of the
    /// disk.
    pub async fn run<F, H>(
        &self,
        log: &TopicLog,
        counts: &DeliveryCounts,
        handle: F,
        stop: impl Future<Output = ()>,
    ) -> Result<(), EdgeError>
    where
        F: Fn(Arc<Message>) -> H,
        H: Future<Output = Result<(), EdgeError>>,
    {
        let durable = log.durable(&self.subscription).await?.ok_or_else(|| {
            EdgeError::new(ErrorKind::NotFound, format!("durable subscription not found: `{}`", self.subscription.escape_debug()))
        })?;
        let mut subscription = log.subscribe(&durable.filters, Start::At(durable.acknowledged + 1))?;
        let slots = Semaphore::new(self.concurrency.clamp(1, DELIVERY_CONCURRENCY_MAX));
        let stopping = CancellationToken::new();
        let mut running = FuturesUnordered::new();
        let mut state = State::new(durable.acknowledged);
        let mut retries = log.retries();
        retries.mark_changed();
        let (mut stop, mut saving) = (pin!(stop.fuse()), pin!(Fuse::terminated()));
        let mut counted = 0;
        loop {
            let dropped = subscription.dropped();
            counts.dropped.fetch_add(dropped - std::mem::replace(&mut counted, dropped), Ordering::Relaxed);
            let is_stopping = stopping.is_cancelled();
            if is_stopping && running.is_empty() {
                break;
            }
            let has_room = state.has_room() && !is_stopping;
            tokio::select! {
                biased;
                () = &mut stop => stopping.cancel(),
                Some(work) = running.next() => {
                    if let Some(work) = work && let Some(next) = state.finish(&work) {
                        running.push(self.attempt(log, counts, &handle, (&slots, &stopping), next));
                    }
                }
                saved = &mut saving => state.saved(saved),
                () = sleep_until(state.save_at), if state.is_to_save(&subscription) => {
                    let position = state.begin_to_save(&subscription);
                    saving.set(self.save(log, position).fuse());
                }
                () = sleep(LOOK_EVERY) => {}
                changed = retries.changed(), if has_room => {
                    if changed.is_err() {
                        break;
                    }
                    for work in state.retried(log, &self.subscription).await? {
                        running.push(self.attempt(log, counts, &handle, (&slots, &stopping), work));
                    }
                    if !state.has_room() {
                        // There may be more of them than there was room for.
                        retries.mark_changed();
                    }
                }
                received = subscription.next(), if has_room => match received? {
                    Received::Message(message) => {
                        if let Some(work) = state.begin(Work { message, letter: None }) {
                            running.push(self.attempt(log, counts, &handle, (&slots, &stopping), work));
                        }
                    }
                    Received::Lost(lost) => {
                        counts.lost.fetch_add(lost, Ordering::Relaxed);
                        tracing::warn!(subscription = self.subscription, lost, "messages were gone before they could be delivered");
                    }
                },
            }
        }
        log.acknowledge(&self.subscription, state.floor(&subscription), Timestamp::now()).await
    }

    /// Tries to have a message handled until it is, or is a dead letter; returns none when it is left for the next time.
    async fn attempt<F, H>(
        &self,
        log: &TopicLog,
        counts: &DeliveryCounts,
        handle: &F,
        (slots, stopping): (&Semaphore, &CancellationToken),
        work: Work,
    ) -> Option<Work>
    where
        F: Fn(Arc<Message>) -> H,
        H: Future<Output = Result<(), EdgeError>>,
    {
        let attempts_max = self.retry.attempts.clamp(1, DELIVERY_ATTEMPTS_MAX);
        let (mut attempts, mut pauses) = (0, 0);
        loop {
            if work.message.has_expired(Timestamp::now()) {
                break;
            }
            let error = {
                let _slot = tokio::select! {
                    biased;
                    () = stopping.cancelled() => return None,
                    slot = slots.acquire() => slot.expect("the slots are never closed"),
                };
                // What panics before its first await panics here too.
                let handled = AssertUnwindSafe(async { handle(Arc::clone(&work.message)).await }).catch_unwind().await;
                match handled {
                    Ok(Ok(())) => {
                        counts.delivered.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    Ok(Err(error)) => error,
                    Err(_) => EdgeError::new(ErrorKind::ExecutionFailed, "the handler of the message panicked"),
                }
            };
            // Nothing is wrong with a message that nobody has time for.
            attempts += u32::from(!matches!(error.kind(), ErrorKind::Overloaded | ErrorKind::Unavailable));
            pauses += 1;
            if attempts >= attempts_max {
                self.give_up(log, counts, &work, attempts, &error).await;
                return Some(work);
            }
            counts.retried.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                () = stopping.cancelled() => return None,
                () = sleep(self.retry.pause(pauses, chance())) => {}
            }
        }
        if let Some(letter) = work.letter
            && let Err(error) = log.discard_dead_letter(letter).await
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(letter, error = %error.chain(), "a dead letter that was handled stays in the list");
        }
        Some(work)
    }

    /// Makes a message a dead letter, however long that takes: what is done must not be lost.
    async fn give_up(&self, log: &TopicLog, counts: &DeliveryCounts, work: &Work, attempts: u32, error: &EdgeError) {
        let why = error.chain();
        tracing::warn!(subscription = self.subscription, topic = %work.message.topic, attempts, error = why, "a message became a dead letter");
        let mut pauses = 0;
        loop {
            let (message, now) = (Arc::clone(&work.message), Timestamp::now());
            let kept = match work.letter {
                Some(letter) => log.put_back_dead_letter(letter, &why, attempts, now).await,
                None => log.put_dead_letter(&self.subscription, message, &why, attempts, now).await,
            };
            match kept {
                Ok(dropped) => {
                    counts.dead.fetch_add(1, Ordering::Relaxed);
                    counts.dead_dropped.fetch_add(dropped, Ordering::Relaxed);
                    return;
                }
                Err(error) => {
                    pauses += 1;
                    tracing::error!(subscription = self.subscription, error = %error.chain(), "a dead letter could not be kept");
                    sleep(Retry::default().pause(pauses, chance())).await;
                }
            }
        }
    }

    async fn save(&self, log: &TopicLog, position: u64) -> Option<u64> {
        match log.acknowledge(&self.subscription, position, Timestamp::now()).await {
            Ok(()) => Some(position),
            Err(error) => {
                tracing::error!(subscription = self.subscription, error = %error.chain(), "how far a delivery got could not be kept");
                None
            }
        }
    }
}

/// What is under way in one delivery.
struct State {
    lanes: Lanes<Work>,
    bytes: usize,
    progress: Progress,
    /// Dead letters that are tried again.
    letters: BTreeSet<u64>,
    saved: u64,
    is_saving: bool,
    save_at: Instant,
}

impl State {
    fn new(saved: u64) -> Self {
        Self {
            lanes: Lanes::default(),
            bytes: 0,
            progress: Progress::default(),
            letters: BTreeSet::new(),
            saved,
            is_saving: false,
            save_at: Instant::now(),
        }
    }

    fn has_room(&self) -> bool {
        self.lanes.len() < DELIVERY_WINDOW_MAX && self.bytes < DELIVERY_WINDOW_BYTES_MAX && self.progress.len() < DELIVERY_DONE_MAX
    }

    /// Takes a message in, and returns it when it is to be handled at once.
    fn begin(&mut self, work: Work) -> Option<Work> {
        self.bytes += work.message.cost_bytes();
        if let (None, Some(position)) = (work.letter, work.message.position) {
            self.progress.begin(position);
        }
        let key = work.message.order_key().to_owned();
        self.lanes.begin(key, work)
    }

    /// A message is done; returns the next one of its key.
    fn finish(&mut self, work: &Work) -> Option<Work> {
        self.bytes -= work.message.cost_bytes();
        match (work.letter, work.message.position) {
            (Some(letter), _) => drop(self.letters.remove(&letter)),
            (None, Some(position)) => self.progress.finish(position),
            (None, None) => {}
        }
        self.lanes.finish(work.message.order_key())
    }

    /// The dead letters that are to be tried again now.
    async fn retried(&mut self, log: &TopicLog, subscription: &str) -> Result<Vec<Work>, EdgeError> {
        let mut begun = Vec::new();
        let mut after = 0;
        while self.has_room() {
            let letters = log.dead_letters_to_retry(subscription, after).await?;
            let Some(last) = letters.last() else { break };
            after = last.id;
            let new: Vec<_> = letters.into_iter().filter(|letter| self.letters.insert(letter.id)).collect();
            begun.extend(new.into_iter().filter_map(|letter| self.begin(Work { message: letter.message, letter: Some(letter.id) })));
        }
        Ok(begun)
    }

    /// Up to where everything is done.
    fn floor(&self, subscription: &Subscription) -> u64 {
        self.progress.floor().unwrap_or_else(|| subscription.position())
    }

    fn is_to_save(&self, subscription: &Subscription) -> bool {
        !self.is_saving && self.floor(subscription) > self.saved
    }

    fn begin_to_save(&mut self, subscription: &Subscription) -> u64 {
        self.is_saving = true;
        self.save_at = Instant::now() + DELIVERY_ACKNOWLEDGE_EVERY;
        self.floor(subscription)
    }

    fn saved(&mut self, position: Option<u64>) {
        self.is_saving = false;
        self.saved = self.saved.max(position.unwrap_or(0));
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness the pauses are whole.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
