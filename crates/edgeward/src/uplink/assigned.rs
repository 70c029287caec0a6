//! What the hub assigns to this node: followed, fetched, and reported on.

use std::{collections::BTreeMap, sync::Arc};

use edgeward_cluster::{Backbone, backoff};
use edgeward_model::FunctionId;
use edgeward_runtime::blocking;

use crate::{
    assignments::Assignments,
    events::{EventKind, FleetEvent},
    node::{FunctionState, Node, Source},
    reports::{Description, FunctionReport, NodeReport},
    uplink::{
        RELEASE,
        artifacts::{self, Fetching},
        outbox::Outbox,
    },
};

/// Makes the node run what is assigned and trusted, for ever: after each change, and again while an artifact is missing.
pub(super) async fn follow(node: Arc<Node>, backbone: Arc<dyn Backbone>) {
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
            let fetching = Fetching { member: &id, data_dir: node.data_dir(), backbone: backbone.as_ref() };
            match artifacts::fetch(fetching, &digest, async |bytes| node.add_artifact(bytes).await).await {
                Ok(()) => {}
                Err(error) => {
                    is_whole = false;
                    node.note_fetching(digest, format!("its artifact could not be fetched yet: {}", error.chain()));
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
        }
    }
}

/// Says in the node's document what it is and how its functions are, for ever.
pub(super) async fn report(node: Arc<Node>, outbox: Arc<Outbox>) {
    let own = node.runtime().node().clone();
    let report = NodeReport::new(node.documents(), &own.id).expect("the name of a node makes a valid name of a document");
    let description = Description { node: own, release: RELEASE.to_owned() };
    let mut reconciled = node.reconciled();
    // What was said before this start is not news.
    let read = report.clone();
    let mut before = blocking(move || read.functions()).await.unwrap_or_default();
    loop {
        reconciled.borrow_and_update();
        if node.is_ready() {
            let functions: BTreeMap<FunctionId, FunctionReport> = node
                .functions()
                .into_iter()
                .filter(|view| view.source == Source::Fleet)
                .map(|view| {
                    (
                        view.record.function.id,
                        FunctionReport { generation: view.record.generation, state: view.state, message: view.message },
                    )
                })
                .collect();
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
            let (report, description) = (report.clone(), description.clone());
            if let Err(error) = blocking(move || report.write(&description, &functions)).await {
                tracing::warn!(error = error.chain(), "the report of this node could not be written; it is tried again");
            }
        }
        if reconciled.changed().await.is_err() {
            return;
        }
    }
}
