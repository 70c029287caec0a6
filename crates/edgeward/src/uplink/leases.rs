//! Asks the hub, over and over, for the right to run what one node at a time may run.

use std::{sync::Arc, time::Duration};

use edgeward_cluster::{Backbone, Subject};
use edgeward_model::{
    EdgeError,
    limits::{FUNCTION_LEASE_TIMEOUT, FUNCTION_LEASE_WAITING_EVERY},
};
use edgeward_runtime::uptime;
use tokio::time::{sleep, timeout};

use crate::{
    leases::{LeaseAnswer, LeaseQuestion},
    node::Node,
    services::{self, LEASES},
};

/// Asks as long as there is something to ask, for ever.
pub(super) async fn ask(node: Arc<Node>, backbone: Arc<dyn Backbone>) {
    let to = Subject::to_hub(node.runtime().node().id.clone(), LEASES);
    let mut reconciled = node.reconciled();
    loop {
        reconciled.borrow_and_update();
        let Some(question) = node.lease_question() else {
            if reconciled.changed().await.is_err() {
                return;
            }
            continue;
        };
        let asked_at = uptime();
        let pause = match answer(backbone.as_ref(), &to, &question).await {
            Ok(answer) => node.take_leases(asked_at, &question, &answer),
            Err(error) => {
                // A lease that is held lapses by itself.
                tracing::debug!(error = error.chain(), "the hub did not say which leases this node has");
                FUNCTION_LEASE_WAITING_EVERY
            }
        };
        // Not more often than that, whatever is reconciled.
        sleep(FUNCTION_LEASE_WAITING_EVERY).await;
        let rest: Duration = pause.saturating_sub(FUNCTION_LEASE_WAITING_EVERY);
        // It ends early when there is something else to ask.
        let _ = timeout(rest, reconciled.changed()).await;
    }
}

async fn answer(backbone: &dyn Backbone, to: &Subject, question: &LeaseQuestion) -> Result<LeaseAnswer, EdgeError> {
    let answer = backbone.request(to, services::write(question), FUNCTION_LEASE_TIMEOUT).await?;
    services::read(&answer, "an answer with leases")
}
