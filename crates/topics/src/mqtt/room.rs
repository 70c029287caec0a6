//! Room for what is on its way to one client: a little is its own, and for more it needs a part of what there is for all clients together.

use std::{future::pending, sync::Arc};

use edgeward_model::limits::MQTT_SENDING_OWN_BYTES;
use futures::{FutureExt, future::BoxFuture};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The room of one client.
pub(super) struct Room {
    /// What is left for all, in bytes.
    all: Arc<Semaphore>,
    part: Option<OwnedSemaphorePermit>,
    /// The turn of this client for more.
    asking: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
}

impl Room {
    pub(super) fn new(all: Arc<Semaphore>) -> Self {
        Self { all, part: None, asking: None }
    }

    pub(super) fn bytes(&self) -> usize {
        MQTT_SENDING_OWN_BYTES + self.part_bytes()
    }

    /// Whether it has more than its own.
    pub(super) fn has_part(&self) -> bool {
        self.part_bytes() > 0
    }

    fn part_bytes(&self) -> usize {
        self.part.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Sees to it that this much has room, if that can be had now.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.bytes());
        if missing > 0 {
            let Ok(more) = Arc::clone(&self.all).try_acquire_many_owned(permits(missing)) else { return false };
            self.add(more);
        }
        true
    }

    /// The same, or else waits for its turn among those who ask: see [`asked`](Self::asked).
    pub(super) fn grow_or_ask(&mut self, bytes: usize) -> bool {
        if self.grow(bytes) {
            self.asking = None;
            return true;
        }
        let missing = permits(bytes.saturating_sub(self.bytes()));
        let all = &self.all;
        self.asking.get_or_insert_with(|| Box::pin(Arc::clone(all).acquire_many_owned(missing).map(Result::ok)));
        false
    }

    /// Returns when there is the room that was asked for. May be dropped and called again.
    pub(super) async fn asked(&mut self) {
        let Some(asking) = &mut self.asking else { return pending().await };
        let more = asking.await;
        self.asking = None;
        if let Some(more) = more {
            self.add(more);
        }
    }

    /// Asks for no more, and gives back what is not needed for this much.
    pub(super) fn give_up(&mut self, bytes: usize) {
        self.asking = None;
        self.shrink(bytes);
    }

    /// Gives back what is not needed for this much.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let needless = self.bytes().saturating_sub(bytes).min(self.part_bytes());
        drop(self.part.as_mut().and_then(|part| part.split(needless)));
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.part {
            Some(part) => part.merge(more),
            None => self.part = Some(more),
        }
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("what waits for one client has a bound")
}
