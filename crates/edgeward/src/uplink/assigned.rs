//! What the hub assigns to this node: followed, fetched, and reported on.

use std::{sync::Arc, time::Duration};

use edgeward_cluster::{Backbone, backoff};
use edgeward_runtime::blocking;

use crate::{
    assignments::Assignments,
    events::{EventKind, FleetEvent},
    node::{FunctionState, Node},
    reports::{Description, NodeReport},
    uplink::{
        RELEASE,
        artifacts::{self, Fetching},
        outbox::Outbox,
    },
};

/// Time between two looks whether the node holds.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// Makes the node run what is assigned and trusted, for ever: after each change, and again while an artifact is missing.
pub(super) async fn follow(node: Arc<Node>, backbone: Arc<dyn Backbone>, bytes_per_second: Option<u64>) {
    let id = node.runtime().node().id.clone();
    let mut watch = Assignments::new(node.documents().clone()).watch(&id).expect("the name of a node makes a valid name of a document");
    let mut trusted = node.trust().watch();
    let mut failures = 0_u32;
    let mut connection = backbone.connection();
    loop {
        node.reconcile().await;
        let missing = node.missing_artifacts();
        let mut is_whole = true;
        for digest in missing {
            let fetching = Fetching { member: &id, data_dir: node.data_dir(), backbone: backbone.as_ref(), bytes_per_second };
            match artifacts::fetch(fetching, &digest, async |bytes| node.add_artifact(bytes).await).await {
                Ok(()) => {}
                Err(error) => {
                    is_whole = false;
                    node.note_lacking(digest, &error);
                }
            }
        }
        failures = if is_whole { 0 } else { failures.saturating_add(1) };
        tokio::select! {
            changed = watch.changed() => if let Err(error) = changed {
                tracing::warn!(error = error.chain(), "the assignments could not be watched");
                tokio::time::sleep(backoff::pause(failures + 1)).await;
            },
            changed = trusted.changed() => if let Err(error) = changed {
                tracing::warn!(error = error.chain(), "the trusted keys could not be watched");
                tokio::time::sleep(backoff::pause(failures + 1)).await;
            },
            () = tokio::time::sleep(backoff::pause(failures)), if !is_whole => {}
            _ = connection.changed(), if !is_whole => {}
            // What it holds back is to be fetched when it does no more.
            () = tokio::time::sleep(TOLD_EVERY), if node.held().is_some() => {}
        }
    }
}

/// Says in the node's document what it is and how its functions are, for ever.
pub(super) async fn report(node: Arc<Node>, outbox: Arc<Outbox>) {
    let own = node.runtime().node().clone();
    let report = NodeReport::new(node.documents(), &own.id).expect("the name of a node makes a valid name of a document");
    let mut description = Description { node: own, release: RELEASE.to_owned(), held: None };
    let mut reconciled = node.reconciled();
    // What was said before this start is not news.
    let read = report.clone();
    let mut before = blocking(move || read.functions()).await.unwrap_or_default();
    loop {
        reconciled.borrow_and_update();
        if node.is_ready() {
            let functions = node.reports();
            for (id, now) in functions
                .iter()
                .filter(|(id, now)| before.get(*id).is_none_or(|then| (then.generation, then.state) != (now.generation, now.state)))
            {
                let event = match now.state {
                    FunctionState::Ready => FleetEvent::new(EventKind::FunctionReady, format!("function `{id}` serves")),
                    FunctionState::Failed => {
                        FleetEvent::new(EventKind::FunctionFailed, format!("function `{id}` cannot run: {}", now.message))
                    }
                    FunctionState::Pending => continue,
                };
                outbox.tell(event.of(id)).await;
            }
            before.clone_from(&functions);
            description.held = node.held();
            let (report, description) = (report.clone(), description.clone());
            if let Err(error) = blocking(move || report.write(&description, &functions)).await {
                tracing::warn!(error = error.chain(), "the report of this node could not be written; it is tried again");
            }
        }
        tokio::select! {
            changed = reconciled.changed() => if changed.is_err() { return },
            // How it does, and whether the node holds, changes with nothing else.
            () = tokio::time::sleep(node.tells_in().unwrap_or(TOLD_EVERY).min(TOLD_EVERY)) => {}
        }
    }
}
