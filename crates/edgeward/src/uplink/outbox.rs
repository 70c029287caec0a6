//! What happened on a node and its hub has not heard: kept on the node's disk, within a bound, until the hub has it.
//!
//! It is a document that never leaves the node. A key is the priority and then the id of the event, so that what goes first when there is
//! no room comes first. One more key, which comes last, counts the events that gave way.

use std::{sync::Arc, time::Duration};

use edgeward_cluster::{Backbone, Subject, backoff};
use edgeward_model::{
    DocumentName, EdgeError, NodeId, Value,
    limits::{OUTBOX_BATCH_MAX, OUTBOX_ITEMS_MAX},
};
use edgeward_runtime::blocking;
use edgeward_sync::{Document, Documents, Precondition, policy::LOCAL_PREFIX};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    events::{EventKind, FleetEvent, Priority, next_id},
    services::{self, OUTBOX, OutboxBatch},
    stored,
};

/// Longest wait for the hub to take a batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The key of the count, after those of all events.
const DROPPED: &str = "dropped";

/// How many events gave way to others, since the document was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Dropped {
    total: u64,
    /// Of how many the hub has heard.
    told: u64,
}

impl Dropped {
    fn read(value: Option<Value>) -> Result<Self, EdgeError> {
        value.map_or(Ok(Self::default()), |value| stored::of_value(&value, || "the count of dropped events".to_owned()))
    }
}

/// What waits to be told to the hub.
#[derive(Debug)]
pub struct Outbox {
    document: Document,
    node: NodeId,
    last_micros: Mutex<i64>,
    told: Notify,
    /// The count as it is in the document.
    dropped: Mutex<Dropped>,
}

impl Outbox {
    /// Reads the disk.
    pub(super) fn open(documents: &Documents, node: NodeId) -> Result<Self, EdgeError> {
        let document = documents.document(DocumentName::new(format!("{LOCAL_PREFIX}outbox"))?);
        let dropped = Mutex::new(Dropped::read(document.get(DROPPED)?)?);
        Ok(Self { document, node, last_micros: Mutex::default(), told: Notify::new(), dropped })
    }

    /// How many events wait.
    pub fn len(&self) -> Result<u64, EdgeError> {
        let keys = self.document.info()?.map_or(0, |info| info.keys);
        Ok(keys.saturating_sub(u64::from(self.dropped() > 0)))
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> Result<bool, EdgeError> {
        self.len().map(|len| len == 0)
    }

    /// How many gave way to others, since the node has its data folder.
    pub fn dropped(&self) -> u64 {
        self.dropped.lock().total
    }

    /// Keeps an event. One that cannot be written is lost, and the log says so.
    pub(crate) async fn tell(self: &Arc<Self>, mut event: FleetEvent) {
        event.node = Some(self.node.clone());
        event.id = next_id(&mut self.last_micros.lock(), event.at.as_microsecond(), &self.node);
        let outbox = Arc::clone(self);
        if let Err(error) = blocking(move || outbox.keep(&event)).await {
            tracing::warn!(error = error.chain(), "an event could not be kept for the hub");
        }
        self.told.notify_one();
    }

    fn keep(&self, event: &FleetEvent) -> Result<(), EdgeError> {
        let surplus = (usize::try_from(self.len()?).unwrap_or(usize::MAX) + 1).saturating_sub(OUTBOX_ITEMS_MAX);
        let (key, value) = (format!("{}/{}", rank(event.priority()), event.id), stored::to_value(event)?);
        let edited = self.document.edit(Precondition::None, move |draft| {
            draft.set(&key, &value)?;
            if surplus == 0 {
                return Ok(None);
            }
            let oldest = draft.keys(None, surplus)?;
            oldest.iter().try_for_each(|key| draft.remove(key))?;
            let mut dropped = Dropped::read(draft.get(DROPPED)?)?;
            dropped.total = dropped.total.saturating_add(oldest.len() as u64);
            draft.set(DROPPED, &stored::to_value(&dropped)?)?;
            Ok(Some(dropped))
        })?;
        self.note(edited.result);
        Ok(())
    }

    /// Both numbers only grow, and of two changes the later may be noted first.
    fn note(&self, changed: Option<Dropped>) {
        let mut dropped = self.dropped.lock();
        let Dropped { total, told } = changed.unwrap_or_default();
        *dropped = Dropped { total: dropped.total.max(total), told: dropped.told.max(told) };
    }

    /// What goes to the hub next: of the highest priority the oldest, with their keys.
    fn next(&self) -> Result<(Vec<String>, Vec<FleetEvent>), EdgeError> {
        let mut keys = Vec::new();
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            let from = format!("{}/", rank(priority));
            let found = self.document.keys(Some(&from), OUTBOX_BATCH_MAX)?;
            keys.extend(found.into_iter().filter(|key| key.starts_with(&from)));
            if !keys.is_empty() {
                break;
            }
        }
        let mut events = Vec::new();
        for key in &keys {
            // One that cannot be read has nobody to tell.
            events.extend(self.document.get(key)?.and_then(|value| stored::of_value(&value, || format!("event `{key}`")).ok()));
        }
        Ok((keys, events))
    }

    /// Forgets what the hub has, which has also heard of so many that were dropped.
    fn forget(&self, keys: Vec<String>, told: u64) -> Result<(), EdgeError> {
        let edited = self.document.edit(Precondition::None, move |draft| {
            keys.iter().try_for_each(|key| draft.remove(key))?;
            let dropped = Dropped::read(draft.get(DROPPED)?)?;
            if told <= dropped.told {
                return Ok(None);
            }
            let dropped = Dropped { told, ..dropped };
            draft.set(DROPPED, &stored::to_value(&dropped)?)?;
            Ok(Some(dropped))
        })?;
        self.note(edited.result);
        Ok(())
    }
}

/// As the first letter of a key: the lowest goes first when there is no room.
fn rank(priority: Priority) -> char {
    match priority {
        Priority::Low => 'a',
        Priority::Normal => 'b',
        Priority::High => 'c',
    }
}

/// Tells the hub, for ever.
pub(super) async fn send(outbox: Arc<Outbox>, backbone: Arc<dyn Backbone>) {
    let to = Subject::to_hub(outbox.node.clone(), OUTBOX);
    let mut connection = backbone.connection();
    let mut failures = 0_u32;
    loop {
        if connection.wait_for(|connection| connection.is_up).await.is_err() {
            return;
        }
        match send_batch(&outbox, backbone.as_ref(), &to).await {
            Ok(true) => failures = 0,
            Ok(false) => {
                failures = 0;
                outbox.told.notified().await;
            }
            Err(error) => {
                tracing::debug!(error = error.chain(), "the hub could not be told what happened here");
                failures = failures.saturating_add(1);
                tokio::time::sleep(backoff::pause(failures)).await;
            }
        }
    }
}

/// Tells the hub of some events; false when there are none.
async fn send_batch(outbox: &Arc<Outbox>, backbone: &dyn Backbone, to: &Subject) -> Result<bool, EdgeError> {
    let of = Arc::clone(outbox);
    let (keys, mut events) = blocking(move || of.next()).await?;
    let Dropped { total, told } = *outbox.dropped.lock();
    if total > told {
        let count = total - told;
        let mut event = FleetEvent::new(EventKind::EventsDropped, format!("{count} events gave way to others while the hub was away"));
        event.id = next_id(&mut outbox.last_micros.lock(), event.at.as_microsecond(), &outbox.node);
        events.push(event.on(&outbox.node));
    }
    if events.is_empty() && keys.is_empty() {
        return Ok(false);
    }
    backbone.request(to, services::write(&OutboxBatch { events }), TIMEOUT).await?;
    let of = Arc::clone(outbox);
    blocking(move || of.forget(keys, total)).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use edgeward_sync::{Epoch, Store};

    use super::*;

    #[test]
    fn when_there_is_no_room_the_oldest_of_the_lowest_priority_goes_first() {
        let node = NodeId::new("edge-01").expect("valid");
        let store = Store::in_memory(node.clone(), Epoch::draw().expect("random")).expect("opens");
        let documents = Documents::new(store);
        let outbox = Outbox::open(&documents, node.clone()).expect("valid");
        let event = |kind, n: usize| {
            let mut event = FleetEvent::new(kind, n.to_string()).on(&node);
            event.id = next_id(&mut 0, i64::try_from(n).expect("small") + 1, &node);
            event
        };
        outbox.keep(&event(EventKind::FunctionFailed, 0)).expect("keeps");
        (1..4).for_each(|n| outbox.keep(&event(EventKind::MetricsSampled, n)).expect("keeps"));
        (4..OUTBOX_ITEMS_MAX + 2).for_each(|n| outbox.keep(&event(EventKind::NodeStarted, n)).expect("keeps"));
        assert_eq!((outbox.len().expect("reads"), outbox.dropped()), (OUTBOX_ITEMS_MAX as u64, 2));
        let message_of_next = || {
            let (keys, events) = outbox.next().expect("reads");
            outbox.forget(keys, 0).expect("removes");
            events.iter().map(|event| event.message.clone()).collect::<Vec<_>>()
        };
        assert_eq!(message_of_next(), ["0"]);
        assert_eq!(message_of_next()[..2], ["4", "5"]);
        while message_of_next().first().is_some_and(|message| message != "3") {}
        assert!(outbox.is_empty().expect("reads"));

        let again = || Outbox::open(&documents, node.clone()).expect("valid");
        assert_eq!((again().len().expect("reads"), again().dropped()), (0, 2), "they stay counted");
        outbox.forget(Vec::new(), 2).expect("notes");
        outbox.forget(Vec::new(), 1).expect("notes");
        assert_eq!(*again().dropped.lock(), Dropped { total: 2, told: 2 });
    }
}
