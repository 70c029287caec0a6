//! The last events of a fleet, in a document of its hub, and those who follow them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use edgeward_model::{
    DocumentName, EdgeError, NodeId,
    limits::{FLEET_EVENTS_MAX, FLEET_EVENTS_WAITING_MAX},
};
use edgeward_runtime::blocking;
use edgeward_sync::{Document, Documents, Precondition};
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
    pub(crate) fn take(&self, node: &NodeId, events: Vec<FleetEvent>) {
        let mut waiting = self.waiting.lock();
        // A node tells of itself only.
        for event in events.into_iter().filter(|event| event.id.ends_with(&format!("/{node}"))) {
            self.push(&mut waiting, FleetEvent { node: Some(node.clone()), ..event });
        }
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
    format!("{last_micros:017}/{teller}")
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
        let mut late = FleetEvent::new(EventKind::FunctionReady, "late");
        late.at = jiff::Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
        late.id = next_id(&mut 0, late.at.as_microsecond(), &node);
        let forged = FleetEvent { id: late.id.replace("edge-01", "edge-02"), ..late.clone() };
        log.take(&node, vec![late.clone(), late.clone(), forged]);
        let events = log.list(None, usize::MAX).expect("reads");
        assert_eq!(events.len(), FLEET_EVENTS_MAX);
        assert_eq!(events.last().map(|event| (event.message.as_str(), event.node.as_ref())), Some(("late", Some(&node))));
        assert_eq!(events[0].message, "11");
        assert!(events.is_sorted_by(|left, right| left.id < right.id));
        let last = log.list(Some(&events[FLEET_EVENTS_MAX - 3].id), 10).expect("reads");
        assert_eq!(last.len(), 2);
        assert_eq!(log.list(None, 1).expect("reads"), events[FLEET_EVENTS_MAX - 1..]);
    }

    #[test]
    fn refusals_of_one_member_are_told_once_a_minute() {
        let log = log();
        let refuse = |id: &str| log.tell_refusal(&NodeId::new(id).expect("valid"), FleetEvent::new(EventKind::Refused, id));
        assert!(refuse("edge-01") && !refuse("edge-01") && refuse("edge-02"));
        assert_eq!(log.list(None, 10).expect("reads").len(), 2);
    }
}
