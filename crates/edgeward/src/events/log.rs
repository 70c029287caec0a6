//! The last events of a fleet, in a document of its hub, and those who follow them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use edgeward_model::{
    DocumentName, EdgeError, ErrorKind, NodeId,
    limits::{
        EVENT_AHEAD_MAX, EVENT_DATA_BYTES_MAX, EVENT_MESSAGE_BYTES_MAX, FLEET_EVENTS_MAX, FLEET_EVENTS_WAITING_MAX, OUTBOX_BATCH_MAX,
    },
};
use edgeward_runtime::blocking;
use edgeward_sync::{Document, Documents, Precondition};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};

use super::FleetEvent;
use crate::stored;

/// The document of the events: the id of each is its key.
const DOCUMENT: &str = "edgeward.hub.events";
/// Events that a slow follower may fall behind before it misses some.
const FOLLOWER_LAG_EVENTS: usize = 1024;
/// Shortest time between two writes of what was told.
const WRITE_PAUSE: Duration = Duration::from_millis(100);
/// Shortest time between two events that tell of refusals of the same member, who may ask over and over.
const REFUSED_PAUSE: Duration = Duration::from_mins(1);
/// Members whose refusals are remembered.
const REFUSED_MAX: usize = 1000;
/// Events of the future whose new ids are remembered: those of the last batches.
const MOVED_MAX: usize = 2 * OUTBOX_BATCH_MAX;
const AHEAD_MICROS: i64 = EVENT_AHEAD_MAX.as_secs().cast_signed() * 1_000_000;
/// Digits of the time in an id.
const MICROS_DIGITS: usize = 17;
/// Events that are written at once.
const WRITTEN_MAX: usize = 512;

/// The events of a fleet. Telling one costs no disk; they are written soon after, many at once.
#[derive(Debug)]
pub struct EventLog {
    document: Document,
    teller: NodeId,
    waiting: Mutex<Waiting>,
    told: Notify,
    /// Held while events are written, so that they are in order.
    writing: Mutex<()>,
    coming: broadcast::Sender<FleetEvent>,
    /// When a refusal of a member was last told.
    refused: Mutex<HashMap<NodeId, Instant>>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<FleetEvent>,
    last_micros: i64,
    dropped: u64,
    /// The ids that events of the future got in place of theirs, the oldest first, as they may come again.
    moved: VecDeque<(String, String)>,
}

impl Waiting {
    fn moved_id(&mut self, id: String, now: Timestamp, node: &NodeId) -> String {
        if let Some((_, moved)) = self.moved.iter().find(|(own, _)| *own == id) {
            return moved.clone();
        }
        if self.moved.len() == MOVED_MAX {
            self.moved.pop_front();
        }
        let moved = next_id(&mut self.last_micros, now.as_microsecond(), node);
        self.moved.push_back((id, moved.clone()));
        moved
    }
}

impl EventLog {
    /// The log in these documents, to which `teller` adds its own.
    pub(crate) fn new(documents: &Documents, teller: NodeId) -> Result<Self, EdgeError> {
        Ok(Self {
            document: documents.document(DocumentName::new(DOCUMENT)?),
            teller,
            waiting: Mutex::default(),
            told: Notify::new(),
            writing: Mutex::default(),
            coming: broadcast::Sender::new(FOLLOWER_LAG_EVENTS),
            refused: Mutex::default(),
        })
    }

    /// Tells an event of this process.
    pub(crate) fn tell(&self, mut event: FleetEvent) {
        tracing::info!(target: "fleet", kind = ?event.kind, node = event.node.as_ref().map(NodeId::as_str), "{}", event.message);
        let mut waiting = self.waiting.lock();
        event.id = next_id(&mut waiting.last_micros, event.at.as_microsecond(), &self.teller);
        self.push(&mut waiting, event);
    }

    /// Tells that something was refused to who asked as this member, unless that was told within the last minute; returns whether it did.
    pub(crate) fn tell_refusal(&self, asked_as: &NodeId, event: FleetEvent) -> bool {
        let mut refused = self.refused.lock();
        refused.retain(|_, at| at.elapsed() < REFUSED_PAUSE);
        let is_news = refused.len() < REFUSED_MAX && refused.insert(asked_as.clone(), Instant::now()).is_none();
        drop(refused);
        if is_news {
            self.tell(event);
        }
        is_news
    }

    /// Adds events that a node told, which have their ids. One that comes again is the same.
    ///
    /// An id that is none of this node's is left out, and what is too long is cut: whatever a node tells can be written. What happened in the
    /// future, by the clock of the node, is put where `now` is, or it would be the newest for as long as that is not over, and all that others
    /// tell would give way to it.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] when there is no room, and then none is taken: the node keeps them, and tells them again.
    pub(crate) fn take(&self, node: &NodeId, events: Vec<FleetEvent>, now: Timestamp) -> Result<(), EdgeError> {
        let mut waiting = self.waiting.lock();
        if waiting.events.len() + events.len() > FLEET_EVENTS_WAITING_MAX {
            return Err(EdgeError::new(ErrorKind::Overloaded, "too many events of the fleet wait to be written; they are told again"));
        }
        for mut event in events {
            let Some(micros) = micros_of(&event.id, node) else {
                tracing::debug!(%node, id = %event.id.chars().take(64).collect::<String>(), "an event has an id that is none of its node's");
                continue;
            };
            if micros > now.as_microsecond().saturating_add(AHEAD_MICROS) {
                event.id = waiting.moved_id(event.id, now, node);
            }
            event.message.truncate(event.message.floor_char_boundary(EVENT_MESSAGE_BYTES_MAX));
            event.data = event.data.filter(|data| data.to_string().len() <= EVENT_DATA_BYTES_MAX);
            self.push(&mut waiting, FleetEvent { node: Some(node.clone()), ..event });
        }
        Ok(())
    }

    fn push(&self, waiting: &mut Waiting, event: FleetEvent) {
        // Nobody who follows is no error.
        let _ = self.coming.send(event.clone());
        if waiting.events.len() >= FLEET_EVENTS_WAITING_MAX {
            waiting.dropped += 1;
            return;
        }
        waiting.events.push_back(event);
        self.told.notify_one();
    }

    /// Writes what was told. Blocks for as long as the disk takes.
    pub(crate) fn write(&self) -> Result<(), EdgeError> {
        let _writing = self.writing.lock();
        loop {
            let events: Vec<_> = self.waiting.lock().events.iter().take(WRITTEN_MAX).cloned().collect();
            if events.is_empty() {
                return Ok(());
            }
            let count = events.len();
            let rows =
                events.iter().map(|event| Ok((event.id.clone(), stored::to_value(event)?))).collect::<Result<Vec<_>, EdgeError>>()?;
            let mut kept = self.document.info()?.map_or(0, |info| usize::try_from(info.keys).unwrap_or(usize::MAX));
            self.document.edit(Precondition::None, move |draft| {
                for (id, value) in &rows {
                    kept += usize::from(draft.get(id)?.is_none());
                    draft.set(id, value)?;
                }
                let surplus = kept.saturating_sub(FLEET_EVENTS_MAX);
                if surplus > 0 {
                    draft.keys(None, surplus)?.iter().try_for_each(|oldest| draft.remove(oldest))?;
                }
                Ok(())
            })?;
            self.waiting.lock().events.drain(..count);
        }
    }

    /// Writes what is told, until it is dropped.
    pub(crate) async fn keep_written(self: Arc<Self>) {
        loop {
            self.told.notified().await;
            let log = Arc::clone(&self);
            if let Err(error) = blocking(move || log.write()).await {
                tracing::warn!(error = error.chain(), "events of the fleet could not be written");
                self.told.notify_one();
            }
            tokio::time::sleep(WRITE_PAUSE).await;
        }
    }

    /// The events that are kept after one, oldest first, at most `limit`; the last ones when `after` is none.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<FleetEvent>, EdgeError> {
        self.write()?;
        let ids = if after.is_some() {
            self.document.keys(after, limit)?
        } else {
            let mut ids = self.document.keys(None, usize::MAX)?;
            ids.split_off(ids.len().saturating_sub(limit))
        };
        let events = ids.iter().filter_map(|id| match self.document.get(id) {
            Ok(value) => value.map(|value| stored::of_value(&value, || format!("event `{id}`"))),
            Err(error) => Some(Err(error)),
        });
        events.collect()
    }

    /// The events that come from now on. A follower that is too slow misses some, and is told so.
    pub fn follow(&self) -> broadcast::Receiver<FleetEvent> {
        self.coming.subscribe()
    }

    /// Events that were dropped because too many waited to be written.
    pub fn dropped(&self) -> u64 {
        self.waiting.lock().dropped
    }
}

/// An id that is after all that this teller gave, and among those of others where its time is.
pub(crate) fn next_id(last_micros: &mut i64, micros: i64, teller: &NodeId) -> String {
    *last_micros = micros.max(*last_micros + 1);
    format!("{last_micros:0MICROS_DIGITS$}/{teller}")
}

/// The time in an id of this teller; none when it is not one.
fn micros_of(id: &str, teller: &NodeId) -> Option<i64> {
    let (micros, of) = id.split_once('/')?;
    let is_id = of == teller.as_str() && micros.len() == MICROS_DIGITS && micros.bytes().all(|byte| byte.is_ascii_digit());
    micros.parse().ok().filter(|_| is_id)
}

#[cfg(test)]
mod tests {
    use edgeward_sync::{Epoch, Role, Store};

    use super::*;
    use crate::events::EventKind;

    fn log() -> EventLog {
        let hub = NodeId::new("hub").expect("valid");
        let store = Store::in_memory_as(hub.clone(), Epoch::draw().expect("random"), Role::Hub).expect("opens");
        EventLog::new(&Documents::new(store), hub).expect("valid")
    }

    #[test]
    fn events_are_kept_in_the_order_of_their_times_and_the_oldest_give_way() {
        let log = log();
        let node = NodeId::new("edge-01").expect("valid");
        for n in 0..FLEET_EVENTS_MAX + 10 {
            log.tell(FleetEvent::new(EventKind::NodeStatus, format!("{n}")));
            if n % 1000 == 0 {
                log.write().expect("writes");
            }
        }
        let late = event_at(&node, "late", Timestamp::now() + Duration::from_secs(30));
        let forged = FleetEvent { id: late.id.replace("edge-01", "edge-02"), ..late.clone() };
        log.take(&node, vec![late.clone(), late.clone(), forged], Timestamp::now()).expect("takes");
        let events = log.list(None, usize::MAX).expect("reads");
        assert_eq!(events.len(), FLEET_EVENTS_MAX);
        assert_eq!(events.last().map(|event| (event.message.as_str(), event.node.as_ref())), Some(("late", Some(&node))));
        assert_eq!(events[0].message, "11");
        assert!(events.is_sorted_by(|left, right| left.id < right.id));
        let last = log.list(Some(&events[FLEET_EVENTS_MAX - 3].id), 10).expect("reads");
        assert_eq!(last.len(), 2);
        assert_eq!(log.list(None, 1).expect("reads"), events[FLEET_EVENTS_MAX - 1..]);
    }

    fn event_at(node: &NodeId, message: &str, at: Timestamp) -> FleetEvent {
        let event = FleetEvent::new(EventKind::FunctionReady, message);
        FleetEvent { id: next_id(&mut 0, at.as_microsecond(), node), at, ..event }
    }

    #[test]
    fn a_node_whose_clock_is_ahead_pushes_out_nobody_elses_events() {
        let (log, node, now) = (log(), NodeId::new("edge-01").expect("valid"), Timestamp::now());
        let ahead = now + Duration::from_secs(500_000_000);
        let of_future: Vec<_> = (0..3).map(|n| event_at(&node, &n.to_string(), ahead + Duration::from_micros(n))).collect();
        // The answer of the first time was lost.
        for _ in 0..2 {
            log.take(&node, of_future.clone(), now).expect("takes");
        }
        log.tell(FleetEvent::new(EventKind::NodeStatus, "after"));
        let events = log.list(None, 10).expect("reads");
        assert_eq!(events.iter().map(|event| event.message.as_str()).collect::<Vec<_>>(), ["0", "1", "2", "after"]);
        assert_eq!(events[0].at, ahead, "its own time is told");
    }

    #[test]
    fn whatever_a_node_tells_others_go_on() {
        let (log, node, now) = (log(), NodeId::new("edge-01").expect("valid"), Timestamp::now());
        let good = event_at(&node, "good", now);
        for id in ["x".repeat(2000) + "/edge-01", "~/edge-01".to_owned(), "1/edge-01".to_owned(), "/edge-01".to_owned(), String::new()] {
            log.take(&node, vec![FleetEvent { id, ..good.clone() }], now).expect("takes");
        }
        let data = Some(serde_json::json!("x".repeat(300_000)));
        log.take(&node, vec![FleetEvent { message: "ä".repeat(300_000), data, ..good.clone() }], now).expect("takes");
        let events = log.list(None, 10).expect("it is written");
        assert_eq!((events.len(), events[0].message.len(), &events[0].data), (1, EVENT_MESSAGE_BYTES_MAX, &None));

        let many = vec![good; FLEET_EVENTS_WAITING_MAX + 1];
        assert_eq!(log.take(&node, many, now).expect_err("there is no room").kind(), ErrorKind::Overloaded);
        assert_eq!((log.dropped(), log.list(None, 10).expect("reads").len()), (0, 1), "none of them is taken");
    }

    #[test]
    fn refusals_of_one_member_are_told_once_a_minute() {
        let log = log();
        let refuse = |id: &str| log.tell_refusal(&NodeId::new(id).expect("valid"), FleetEvent::new(EventKind::Refused, id));
        assert!(refuse("edge-01") && !refuse("edge-01") && refuse("edge-02"));
        assert_eq!(log.list(None, 10).expect("reads").len(), 2);
    }
}
