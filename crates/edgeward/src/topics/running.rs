//! Running triggers: a task for each, which delivers its messages. Level-triggered: after every change the whole is looked at.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use edgeward_model::{
    EdgeError, ErrorKind, Trigger, TriggerId,
    limits::{TRIGGER_RESTART_PAUSE, TRIGGER_STOP_TIMEOUT},
};
use edgeward_topics::{Delivery, Message, Retry, TopicLog};
use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::{Id, JoinError, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    call::Caller,
    triggers::{Known, Standing, Triggers, subscription_of},
};

/// A trigger that is delivered for.
struct Active {
    trigger: Arc<Trigger>,
    stop: CancellationToken,
}

/// Says that nobody is delivered for, when it is dropped.
struct Cleared<'a>(&'a watch::Sender<BTreeSet<TriggerId>>);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        self.0.send_replace(BTreeSet::new());
    }
}

/// Runs the triggers that are wanted, and takes those of the hub, until `stop` and until the last one has ended.
pub(super) async fn run(triggers: &Triggers, log: &Arc<TopicLog>, caller: Caller, stop: CancellationToken) {
    let _one = triggers.running.lock().await;
    if let Err(error) = triggers.remove_orphans(log).await {
        tracing::warn!(error = error.chain(), "what former triggers left could not be removed; it is tried again at the next start");
    }
    tokio::select! {
        () = run_wanted(triggers, log, caller, stop) => {}
        () = triggers.follow_given(log) => {}
    }
}

async fn run_wanted(triggers: &Triggers, log: &Arc<TopicLog>, caller: Caller, stop: CancellationToken) {
    let (mut wanted, mut tasks, mut active) = (triggers.wanted.subscribe(), JoinSet::new(), HashMap::<Id, Active>::new());
    // Who changes one waits for nobody when this is dropped.
    let _cleared = Cleared(&triggers.active);
    loop {
        let is_stopping = stop.is_cancelled();
        let known = if is_stopping { Arc::<Known>::default() } else { Arc::clone(&wanted.borrow_and_update()) };
        for Active { trigger, stop } in active.values() {
            if known.get(&trigger.id) != Some(trigger) {
                stop.cancel();
            }
        }
        // Who changes one sees that it is delivered for before that begins; and it begins only if nobody has changed it by then.
        let delivered = active.values().map(|active| &active.trigger).chain(known.values());
        triggers.active.send_replace(delivered.map(|trigger| trigger.id.clone()).collect());
        if !is_stopping && wanted.has_changed().is_ok_and(|has_changed| has_changed) {
            continue;
        }
        for trigger in known.values() {
            if active.values().all(|active| active.trigger.id != trigger.id) {
                let (stop, standing) = (CancellationToken::new(), triggers.standing(&trigger.id));
                let task = deliver(Arc::clone(trigger), Arc::clone(log), caller.clone(), standing, stop.clone());
                active.insert(tasks.spawn(task).id(), Active { trigger: Arc::clone(trigger), stop });
            }
        }
        if is_stopping && active.is_empty() {
            return;
        }
        tokio::select! {
            Some(ended) = tasks.join_next_with_id() => {
                let id = match &ended {
                    Ok((id, ())) => *id,
                    Err(error) => error.id(),
                };
                active.remove(&id);
            }
            _ = wanted.changed() => {}
            () = stop.cancelled(), if !is_stopping => {}
        }
    }
}

/// Delivers for one trigger until `stop`. What fails begins anew after a pause.
pub(super) async fn deliver(trigger: Arc<Trigger>, log: Arc<TopicLog>, caller: Caller, standing: Arc<Standing>, stop: CancellationToken) {
    let delivering = async {
        while !stop.is_cancelled() {
            let Err(error) = deliver_once(Arc::clone(&trigger), &log, &caller, &standing, &stop).await else { return };
            tracing::error!(trigger = %trigger.id, error = error.chain(), "a trigger cannot go on; it begins anew");
            *standing.failure.lock() = Some(error.chain());
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(TRIGGER_RESTART_PAUSE) => {}
            }
        }
    };
    let too_long = async {
        stop.cancelled().await;
        tokio::time::sleep(TRIGGER_STOP_TIMEOUT).await;
    };
    tokio::select! {
        () = delivering => {}
        () = too_long => tracing::warn!(trigger = %trigger.id, "calls of a trigger took too long to end; their messages come again"),
    }
}

async fn deliver_once(
    trigger: Arc<Trigger>,
    log: &TopicLog,
    caller: &Caller,
    standing: &Arc<Standing>,
    stop: &CancellationToken,
) -> Result<(), EdgeError> {
    let subscription = subscription_of(&trigger.id);
    // It is there, unless the log was removed.
    log.put_durable(&subscription, trigger.filters.clone(), Vec::new(), Timestamp::now()).await?;
    *standing.failure.lock() = None;
    let retry = Retry { attempts: trigger.retry.attempts, pause_min: trigger.retry.pause_min(), pause_max: trigger.retry.pause_max() };
    let concurrency = usize::try_from(trigger.concurrency).expect("its bound is below 2^16");
    let delivery = Delivery { subscription, concurrency, retry };
    let handle = |message: Arc<Message>| {
        let (trigger, caller, standing, stop) = (Arc::clone(&trigger), caller.clone(), Arc::clone(standing), stop.clone());
        // A task of its own, so that calls run on all processors. It ends with the delivery.
        let running = AbortOnDropHandle::new(tokio::spawn(async move { caller.call(&trigger, &message, &standing, &stop).await }));
        async move { running.await.unwrap_or_else(|error| Err(broke(error))) }
    };
    delivery.run(log, &standing.counts, handle, stop.cancelled()).await
}

/// What becomes of a call that panicked.
fn broke(error: JoinError) -> EdgeError {
    EdgeError::new(ErrorKind::ExecutionFailed, "the call for the message broke").with_source(error)
}
