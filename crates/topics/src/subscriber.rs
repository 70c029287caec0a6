//! Following the log: a subscriber reads from it at its own pace, and what waits for it in memory has a bound.
//!
//! Of what is durable only positions wait, and past their bound not even these: the subscriber then looks in the log for what it missed.
//! Of what is not durable the messages wait, and past their bound they are dropped and counted.

use std::{collections::VecDeque, pin::pin, sync::Arc};

use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{SUBSCRIBER_FILTERS_MAX, SUBSCRIBER_OWN_BYTES, SUBSCRIBER_PATIENCE, SUBSCRIBER_WAITING_BYTES_MAX, SUBSCRIBER_WAITING_MAX},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle, time::timeout};

use crate::{
    error::closed,
    log::{
        Scanned, Shared,
        held::{Held, Part},
    },
    message::Message,
    topic::{TopicFilter, TopicName},
};

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Now,
    /// With the message at this position, or the first after it that there is. A position that is yet to come is [`Start::Now`].
    At(u64),
}

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message that a filter matches.
    Message(Arc<Message>),
    /// So many messages, of whatever topic, were gone from the log before the subscriber came to them.
    Lost(u64),
}

/// A filter, and up to where it does not count.
#[derive(Clone, Debug)]
pub(crate) struct SinceFilter {
    pub(crate) filter: TopicFilter,
    since: u64,
}

impl SinceFilter {
    pub(crate) fn always(filter: TopicFilter) -> Self {
        Self { filter, since: 0 }
    }

    pub(crate) fn matches(&self, position: u64, topic: &str) -> bool {
        position > self.since && self.filter.matches_text(topic)
    }
}

/// What waits for one subscriber.
#[derive(Default)]
pub(crate) struct Waiter {
    waiting: Mutex<Waiting>,
    wakes: Notify,
    /// Told when there is room again.
    room: Notify,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    live_bytes: usize,
    /// Messages that were dropped.
    dropped: u64,
    /// Whether half of the room was taken, and not three quarters free since; and whether to wait for that was in vain.
    is_crowded: bool,
    is_stalled: bool,
    /// The last position that was offered, and the last number of a message that is not durable.
    offered: u64,
    offered_live: u64,
    /// The last position that did not come into `items`; from the subscriber's own up to there it must look in the log. 0 for none.
    missed: u64,
}

impl Waiting {
    /// Whether more waits than this part of what may.
    fn is_fuller_than(&self, part: usize) -> bool {
        self.items.len() > SUBSCRIBER_WAITING_MAX / part || self.live_bytes > SUBSCRIBER_WAITING_BYTES_MAX / part
    }
}

enum Item {
    Stored(u64),
    Live(Arc<Live>),
}

/// A message that is not durable.
pub(crate) struct Live {
    message: Arc<Message>,
    _part: Part,
}

impl Live {
    pub(crate) fn new(message: Message, waiting: &Held) -> Self {
        let part = waiting.hold(message.cost_bytes());
        Self { message: Arc::new(message), _part: part }
    }

    pub(crate) fn topic(&self) -> &TopicName {
        &self.message.topic
    }
}

impl Waiter {
    /// Says that the message at this position is there. It may say so several times in a row.
    pub(crate) fn offer_stored(&self, position: u64) {
        let mut waiting = self.waiting.lock();
        if position <= waiting.offered {
            return;
        }
        waiting.offered = position;
        if waiting.missed > 0 || waiting.items.len() >= SUBSCRIBER_WAITING_MAX {
            waiting.missed = position;
        } else {
            waiting.items.push_back(Item::Stored(position));
        }
        drop(waiting);
        self.wakes.notify_one();
    }

    /// Hands a message over that is not durable; returns whether it is worth to wait until there is room for more. It may do so several
    /// times in a row, by the same number. `is_full` is whether as much waits for all subscribers as may.
    pub(crate) fn offer_live(&self, number: u64, live: &Arc<Live>, is_full: bool) -> bool {
        let mut waiting = self.waiting.lock();
        if number <= waiting.offered_live {
            return false;
        }
        waiting.offered_live = number;
        let bytes = live.message.cost_bytes();
        let bytes_max = if is_full { SUBSCRIBER_OWN_BYTES } else { SUBSCRIBER_WAITING_BYTES_MAX };
        if waiting.items.len() >= SUBSCRIBER_WAITING_MAX || waiting.live_bytes + bytes > bytes_max {
            waiting.dropped += 1;
            return !waiting.is_stalled;
        }
        waiting.live_bytes += bytes;
        waiting.items.push_back(Item::Live(Arc::clone(live)));
        waiting.is_crowded |= waiting.is_fuller_than(2);
        let is_worth = waiting.is_crowded && !waiting.is_stalled;
        drop(waiting);
        self.wakes.notify_one();
        is_worth
    }

    /// Waits until there is room again, for a while at most: who takes nothing meanwhile is waited for no more until it does.
    pub(crate) async fn wait_for_room(&self) {
        let mut room = pin!(self.room.notified());
        // It listens before it looks.
        room.as_mut().enable();
        if self.waiting.lock().is_crowded && timeout(SUBSCRIBER_PATIENCE, room).await.is_err() {
            let mut waiting = self.waiting.lock();
            waiting.is_stalled = waiting.is_crowded;
        }
    }

    fn take(&self) -> Option<Item> {
        let mut waiting = self.waiting.lock();
        let item = waiting.items.pop_front();
        if let Some(Item::Live(live)) = &item {
            waiting.live_bytes -= live.message.cost_bytes();
        }
        if waiting.is_crowded && !waiting.is_fuller_than(4) {
            (waiting.is_crowded, waiting.is_stalled) = (false, false);
            self.room.notify_waiters();
        }
        item
    }

    pub(crate) fn wake(&self) {
        self.wakes.notify_one();
    }
}

/// Follows the messages of some filters, each once, whichever match. Dropping it ends it.
pub struct Subscription {
    shared: Arc<Shared>,
    waiter: Arc<Waiter>,
    id: u64,
    filters: Vec<SinceFilter>,
    /// The last position that was given or looked at.
    cursor: u64,
    /// What a look found, and its part of what all have found.
    ready: VecDeque<Arc<Message>>,
    part: Option<Part>,
    lost: u64,
    /// How often the log had begun anew when this began.
    beginnings: u64,
    /// A look under way.
    looking: Option<JoinHandle<Result<(Scanned, Part), EdgeError>>>,
}

impl Subscription {
    pub(crate) fn new(shared: Arc<Shared>, filters: &[TopicFilter], start: Start) -> Result<Self, EdgeError> {
        let waiter = Arc::<Waiter>::default();
        if start != Start::Now {
            // What is offered from now on comes after what it finds in the log.
            waiter.waiting.lock().missed = 1;
        }
        let id = shared.add_subscriber(&waiter)?;
        let beginnings = shared.beginnings();
        let mut subscription = Self {
            shared,
            waiter,
            id,
            filters: Vec::new(),
            cursor: 0,
            ready: VecDeque::new(),
            part: None,
            lost: 0,
            beginnings,
            looking: None,
        };
        for filter in filters {
            subscription.check_room(filter)?;
            subscription.shared.add_filter(id, filter)?;
            subscription.filters.push(SinceFilter::always(filter.clone()));
        }
        // It listens before it looks, so that it misses nothing.
        let head = subscription.shared.head();
        subscription.cursor = match start {
            Start::Now => head,
            Start::At(position) => position.saturating_sub(1).min(head),
        };
        if start != Start::Now {
            let mut waiting = subscription.waiter.waiting.lock();
            // Nothing, in a log that is empty.
            waiting.missed = waiting.offered.max(head);
        }
        Ok(subscription)
    }

    /// Follows the messages of one more filter, from now on. One that it follows already goes on as it is.
    pub fn add(&mut self, filter: &TopicFilter) -> Result<(), EdgeError> {
        if self.filters.iter().any(|own| own.filter == *filter) {
            return Ok(());
        }
        self.check_room(filter)?;
        self.shared.add_filter(self.id, filter)?;
        self.filters.push(SinceFilter { filter: filter.clone(), since: self.shared.head() });
        Ok(())
    }

    /// Follows the messages of this filter no more. What waits already may still come.
    pub fn remove(&mut self, filter: &TopicFilter) {
        self.shared.remove_filter(self.id, filter);
        self.filters.retain(|own| own.filter != *filter);
    }

    /// The next one, as soon as there is one. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Received, EdgeError> {
        loop {
            if self.shared.beginnings() != self.beginnings {
                return Err(EdgeError::new(ErrorKind::Unavailable, "the log of topics began anew; subscribe again"));
            }
            if let Some(received) = self.try_next() {
                return Ok(received);
            }
            if self.shared.is_closed() {
                return Err(closed());
            }
            if self.looking.is_none() && !self.is_behind() {
                self.waiter.wakes.notified().await;
                continue;
            }
            // A look that began goes on when this is dropped.
            let looking = self.looking.get_or_insert_with(|| {
                let (shared, filters, from) = (Arc::clone(&self.shared), self.filters.clone(), self.cursor + 1);
                tokio::task::spawn_blocking(move || shared.look(from, &filters))
            });
            let found = looking.await;
            self.looking = None;
            let failed = |error| EdgeError::new(ErrorKind::Internal, "failed to follow the log of topics").with_source(error);
            let found = found.map_err(failed)??;
            self.take(found);
        }
    }

    /// The next one, when it is in memory.
    pub fn try_next(&mut self) -> Option<Received> {
        loop {
            if self.lost > 0 {
                return Some(Received::Lost(std::mem::take(&mut self.lost)));
            }
            if let Some(message) = self.ready.pop_front() {
                if self.ready.is_empty() {
                    self.part = None;
                }
                return Some(Received::Message(message));
            }
            if self.looking.is_some() {
                return None;
            }
            match self.waiter.take() {
                Some(Item::Live(live)) => return Some(Received::Message(Arc::clone(&live.message))),
                Some(Item::Stored(position)) if position <= self.cursor => {}
                Some(Item::Stored(position)) => match self.shared.recent(position) {
                    Some(message) => {
                        self.cursor = position;
                        return Some(Received::Message(message));
                    }
                    None => self.fall_behind(position),
                },
                None if !self.is_behind() => return None,
                None => match self.shared.look_recent(self.cursor + 1, &self.filters) {
                    Some(found) => self.take(found),
                    None => return None,
                },
            }
        }
    }

    /// Messages that were not durable and were dropped, as this subscriber was too slow.
    pub fn dropped(&self) -> u64 {
        self.waiter.waiting.lock().dropped
    }

    /// Up to where there is no message that it has not given.
    pub fn position(&self) -> u64 {
        if let Some(position) = self.ready.front().and_then(|message| message.position) {
            return position - 1;
        }
        // Read before it is looked whether anything waits.
        let shown = self.shared.shown();
        let nothing_waits = self.looking.is_none() && self.waiter.waiting.lock().items.is_empty() && !self.is_behind();
        if nothing_waits { self.cursor.max(shown) } else { self.cursor }
    }

    /// Whether it must look in the log.
    fn is_behind(&self) -> bool {
        let mut waiting = self.waiter.waiting.lock();
        if waiting.missed <= self.cursor {
            waiting.missed = 0;
        }
        waiting.missed > 0
    }

    /// The message at this position is not in memory any more: it and those after it are to be looked for.
    fn fall_behind(&mut self, position: u64) {
        let mut waiting = self.waiter.waiting.lock();
        waiting.missed = waiting.offered.max(position);
        waiting.items.retain(|item| matches!(item, Item::Live(_)));
        // What lies before it was of others.
        self.cursor = self.cursor.max(position - 1);
    }

    fn take(&mut self, (scanned, part): (Scanned, Part)) {
        self.part = (!scanned.messages.is_empty()).then_some(part);
        self.cursor = self.cursor.max(scanned.next - 1);
        self.lost += scanned.lost;
        self.ready.extend(scanned.messages);
    }

    fn check_room(&self, filter: &TopicFilter) -> Result<(), EdgeError> {
        if self.filters.len() < SUBSCRIBER_FILTERS_MAX {
            return Ok(());
        }
        let message = format!("failed to subscribe to `{filter}`: one subscriber has {SUBSCRIBER_FILTERS_MAX} filters at most");
        Err(EdgeError::new(ErrorKind::TooLarge, message))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.remove_subscriber(self.id, self.filters.iter().map(|own| &own.filter));
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("filters", &self.filters).field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use jiff::Timestamp;

    use super::*;
    use crate::{log::TopicLog, topic::TopicName};

    #[tokio::test]
    async fn who_follows_an_empty_log_from_its_beginning_waits_for_the_first_message() {
        let folder = tempfile::tempdir().expect("temp folder");
        let log = TopicLog::open(folder.path(), crate::LogOptions::default()).expect("opens");
        let mut subscription = log.subscribe(&[TopicFilter::new("a").expect("valid")], Start::At(1)).expect("subscribed");
        assert!(subscription.next().now_or_never().is_none());
        assert!(subscription.looking.is_none() && !subscription.is_behind(), "there is nothing to look for");
        let message = Message::new(TopicName::new("a").expect("valid"), "x", Timestamp::now());
        log.publish(message).await.expect("published");
        assert!(matches!(subscription.next().await.expect("open"), Received::Message(message) if message.position == Some(1)));
    }
}
