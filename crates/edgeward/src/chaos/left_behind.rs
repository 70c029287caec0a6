//! What an experiment left whose hub ended with it, or lost its lease: faults that nodes inject, and a report that says that it is not over.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use edgeward_cluster::chaos::Report;
use edgeward_model::{EdgeError, NodeId};
use edgeward_runtime::blocking;
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::{
    kept::Reports,
    orders::{ask, is_refusal},
    question::Question,
};
use crate::fleet::EdgeCluster;

/// Pause before nodes are told again that did not answer.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Why what was left behind has ended.
pub(super) const WHY: &str = "its hub ended with it";

/// Ends what another process began that nobody runs any more, as a hub begins to serve: the reports say so, and the faults end on each node as soon as it can
/// be told, or at their time.
pub(crate) async fn end_all(cluster: EdgeCluster) {
    match mark(&cluster).await {
        Ok(marked) => {
            join_all(marked.iter().map(|(id, report)| end(&cluster, id, report))).await;
        }
        Err(error) => tracing::warn!(error = error.chain(), "it could not be read which experiments a hub left behind"),
    }
}

/// Has the reports of what nobody runs any more say so.
async fn mark(cluster: &EdgeCluster) -> Result<Vec<(String, Report)>, EdgeError> {
    let reports = Reports::new(cluster.documents())?;
    let running = cluster.chaos_seams().running().map(|run| run.id.clone());
    blocking(move || {
        let mut marked = reports.all()?;
        marked.retain(|(id, report)| !report.is_over() && running.as_ref() != Some(id));
        for (id, report) in &mut marked {
            report.cut_short(WHY);
            reports.put(id, report.clone())?;
        }
        Ok(marked)
    })
    .await
}

/// Tells every node, again and again until each has heard it, as long as a fault could last.
async fn end(cluster: &EdgeCluster, id: &str, report: &Report) {
    let deadline = Instant::now() + report.experiment.total();
    let mut left: BTreeSet<_> = cluster.node_ids().into_iter().collect();
    loop {
        left = tell(cluster, id, left).await;
        if left.is_empty() || Instant::now() >= deadline {
            return;
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// Tells nodes that a run is over, and returns those that have not heard it.
pub(super) async fn tell(cluster: &EdgeCluster, id: &str, nodes: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let over = || Question::Inject { run: id.to_owned(), faults: BTreeMap::new() };
    let answers = join_all(nodes.iter().map(|node| ask(cluster, node, over()))).await;
    let left = nodes.into_iter().zip(answers).filter(|(_, answer)| answer.as_ref().is_err_and(|error| !is_refusal(error)));
    left.map(|(node, _)| node).collect()
}
