//! What happened on a node and its hub has not heard: kept on the node's disk, within a bound, until the hub has it.
//!
//! It is a document that never leaves the node. A key is the priority and then the id of the event, so that what goes first when there is
//! no room comes first.

use std::{sync::Arc, time::Duration};

use edgeward_cluster::{Backbone, Subject, backoff};
use edgeward_model::{
    DocumentName, EdgeError, NodeId,
    limits::{OUTBOX_BATCH_MAX, OUTBOX_ITEMS_MAX},
};
use edgeward_runtime::blocking;
use edgeward_sync::{Document, Documents, Precondition, policy::LOCAL_PREFIX};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    events::{EventKind, FleetEvent, Priority, next_id},
    services::{self, OUTBOX, OutboxBatch},
    stored,
};

/// Longest wait for the hub to take a batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What waits to be told to the hub.
#[derive(Debug)]
pub struct Outbox {
    document: Document,
    node: NodeId,
    last_micros: Mutex<i64>,
    told: Notify,
    /// Events that gave way to others, and of which the hub has not heard.
    dropped: Mutex<u64>,
}

impl Outbox {
    pub(super) fn new(documents: &Documents, node: NodeId) -> Result<Self, EdgeError> {
        let document = documents.document(DocumentName::new(format!("{LOCAL_PREFIX}outbox"))?);
        Ok(Self { document, node, last_micros: Mutex::default(), told: Notify::new(), dropped: Mutex::default() })
    }

    /// How many events wait.
    pub fn len(&self) -> Result<u64, EdgeError> {
        Ok(self.document.info()?.map_or(0, |info| info.keys))
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> Result<bool, EdgeError> {
        self.len().map(|len| len == 0)
    }

    /// How many gave way to others since the start, and the hub has not been told.
    pub fn dropped(&self) -> u64 {
        *self.dropped.lock()
    }

    /// Keeps an event. One that cannot be written is lost, and the log says so.
    pub(super) async fn tell(self: &Arc<Self>, mut event: FleetEvent) {
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
            let oldest = if surplus > 0 { draft.keys(None, surplus)? } else { Vec::new() };
            oldest.iter().try_for_each(|key| draft.remove(key))?;
            Ok(oldest.len() as u64)
        })?;
        *self.dropped.lock() += edited.result;
        Ok(())
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

    fn remove(&self, keys: Vec<String>) -> Result<(), EdgeError> {
        self.document.edit(Precondition::None, move |draft| keys.iter().try_for_each(|key| draft.remove(key))).map(drop)
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
    let dropped = outbox.dropped();
    if dropped > 0 {
        let mut event = FleetEvent::new(EventKind::EventsDropped, format!("{dropped} events gave way to others while the hub was away"));
        event.id = next_id(&mut outbox.last_micros.lock(), event.at.as_microsecond(), &outbox.node);
        events.push(event.on(&outbox.node));
    }
    if events.is_empty() && keys.is_empty() {
        return Ok(false);
    }
    backbone.request(to, services::write(&OutboxBatch { events }), TIMEOUT).await?;
    *outbox.dropped.lock() -= dropped;
    let of = Arc::clone(outbox);
    blocking(move || of.remove(keys)).await?;
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
        let outbox = Outbox::new(&Documents::new(store), node.clone()).expect("valid");
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
            outbox.remove(keys).expect("removes");
            events.iter().map(|event| event.message.clone()).collect::<Vec<_>>()
        };
        assert_eq!(message_of_next(), ["0"]);
        assert_eq!(message_of_next()[..2], ["4", "5"]);
        while message_of_next().first().is_some_and(|message| message != "3") {}
        assert!(outbox.is_empty().expect("reads"));
    }
}
