//! Triggers of a program that has a log of topics and a runtime, and no node around them: it makes them anew at each start.

use std::sync::Arc;

use edgeward_model::{EdgeError, Trigger, TriggerId};
use edgeward_runtime::EdgeRuntime;
use edgeward_topics::{DeadLetter, TopicLog};
use jiff::Timestamp;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    call::Caller,
    running, source_of,
    triggers::{self, Standing, TriggerView, subscription_of},
};
use crate::node::Source;

/// Has a function of a runtime called for each message of some filters, from [`start`](Self::start) on, until it is stopped or dropped. How
/// far it got lies in the log under its id, where the next one of this id goes on.
#[derive(Debug)]
pub struct ProgramTrigger {
    trigger: Arc<Trigger>,
    log: Arc<TopicLog>,
    standing: Arc<Standing>,
    stop: CancellationToken,
    running: TaskTracker,
}

impl ProgramTrigger {
    /// Starts a trigger, on this thread's tokio runtime. What is published after this returns calls the function. Of one id, one runs at a
    /// time, which is the caller's to see to.
    ///
    /// # Errors
    /// Of a trigger that is not valid, and those of the disk.
    pub async fn start(log: Arc<TopicLog>, trigger: Trigger, runtime: Arc<EdgeRuntime>) -> Result<Self, EdgeError> {
        trigger.validate()?;
        log.put_durable(&subscription_of(&trigger.id), trigger.filters.clone(), Vec::new(), Timestamp::now()).await?;
        let caller = Caller { source: source_of(&runtime.node().id).into(), runtime };
        let (trigger, standing, stop, running) = (Arc::new(trigger), Arc::default(), CancellationToken::new(), TaskTracker::new());
        running.spawn(running::deliver(Arc::clone(&trigger), Arc::clone(&log), caller, Arc::clone(&standing), stop.clone()));
        running.close();
        Ok(Self { trigger, log, standing, stop, running })
    }

    /// Its id.
    pub fn id(&self) -> &TriggerId {
        &self.trigger.id
    }

    /// How it does.
    pub async fn view(&self) -> Result<TriggerView, EdgeError> {
        triggers::view(&self.log, &self.trigger, Source::Node, &self.standing).await
    }

    /// Ends it, and waits for nothing.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    /// Ends it: waits for the calls under way, for a while; what they have not ended by then comes again.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.running.wait().await;
    }
}

impl Drop for ProgramTrigger {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Forgets how far the trigger of this id got, which runs no more; returns whether there was anything. Its dead letters stay.
pub async fn forget(log: &TopicLog, id: &TriggerId) -> Result<bool, EdgeError> {
    log.remove_durable(&subscription_of(id)).await
}

/// Messages that the function of a trigger could not handle, of one trigger or of all, by id: a page of those after this id.
pub async fn dead_letters(log: &TopicLog, trigger: Option<&TriggerId>, after: u64) -> Result<Vec<DeadLetter>, EdgeError> {
    log.dead_letters(trigger.map(subscription_of).as_deref(), after).await
}
