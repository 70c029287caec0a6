//! What an experiment sees of its fleet.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use edgeward_cluster::chaos::{choose, resolve};
use edgeward_model::{
    Amount, DocumentName, EdgeError, ErrorKind, Experiment, Fault, NodeId,
    chaos::{Expectation, Known},
};
use edgeward_runtime::blocking;
use futures::future::join_all;

use super::{orders::ask, question::Question};
use crate::{deployments::routes, fleet::EdgeCluster};

/// The documents that an experiment compares.
pub(super) fn compared(experiment: &Experiment) -> BTreeSet<DocumentName> {
    let steady = experiment.steady_state.iter().map(|hypothesis| &hypothesis.expectation);
    let expectations = steady.chain(experiment.abort.iter().map(|condition| &condition.expectation));
    let documents = expectations.filter_map(|expectation| match expectation {
        Expectation::Converged { document } => Some(document.clone()),
        _ => None,
    });
    documents.collect()
}

/// What there is that an experiment can name.
pub(super) async fn known(cluster: &EdgeCluster) -> Result<Known, EdgeError> {
    let cluster = cluster.clone();
    blocking(move || {
        // Of a moment ago they may not be: what serves since then can be named too, and is called at once.
        cluster.read_routes(false)?;
        let documents = cluster.documents().list()?.into_iter().map(|info| info.name).filter(|name| !name.is_reserved());
        Ok(Known {
            functions: cluster.routes()?.into_iter().map(|route| route.function).collect(),
            nodes: cluster.list_nodes(None),
            documents: documents.collect(),
            has_hub: cluster.backbone().is_some(),
        })
    })
    .await
}

/// The longest that a call of an experiment may take, whatever becomes of it.
pub(super) async fn call_max(cluster: &EdgeCluster, experiment: &Experiment) -> Result<Duration, EdgeError> {
    let (cluster, called) = (cluster.clone(), experiment.clone());
    blocking(move || {
        let routes = routes(&cluster)?;
        let routes = called.loads.iter().filter_map(|load| routes.get(&load.function));
        Ok(routes.map(|route| route.resilience.deadline(route.timeout)).max().unwrap_or_default())
    })
    .await
}

/// Whether documents are the same wherever they are. One of which a node that is not OFFLINE says nothing is left out, unless it differs already.
pub(super) async fn converged(cluster: &EdgeCluster, documents: &BTreeSet<DocumentName>) -> BTreeMap<DocumentName, bool> {
    if documents.is_empty() {
        return BTreeMap::new();
    }
    let (of, names) = (cluster.clone(), documents.clone());
    let own = blocking(move || {
        let mut own = BTreeMap::new();
        for name in names {
            if let Some(state) = of.documents().document(name.clone()).view()? {
                own.insert(name, state.checksum);
            }
        }
        Ok(own)
    });
    // One that is cut off is OFFLINE, and answers this all the same.
    let (nodes, present) = (cluster.node_ids(), cluster.present());
    let question = Question::Compare { documents: documents.iter().cloned().collect() };
    let (own, answers) = tokio::join!(own, join_all(nodes.iter().map(|node| ask(cluster, node, question.clone()))));
    let Ok(own) = own else { return BTreeMap::new() };
    let is_complete = nodes.iter().zip(&answers).all(|(node, answer)| answer.is_ok() || !present.contains(node));
    let compared = documents.iter().filter_map(|name| {
        let here = own.get(name)?;
        let differs = answers.iter().flatten().filter_map(|answer| answer.checksums.get(name)).any(|there| there != here);
        (differs || is_complete).then(|| (name.clone(), !differs))
    });
    compared.collect()
}

/// The nodes that some fault of an experiment may hit, with the faults.
///
/// # Errors
/// [`ErrorKind::Unavailable`] when none is there of those that a fault is for.
pub(super) fn hittable(experiment: &Experiment, cluster: &EdgeCluster) -> Result<BTreeMap<NodeId, Vec<Fault>>, EdgeError> {
    let (present, nodes) = (cluster.present(), cluster.list_nodes(None));
    let mut hittable: BTreeMap<NodeId, Vec<Fault>> = BTreeMap::new();
    for (index, planned) in experiment.faults.iter().enumerate() {
        let everywhere = Fault { blast_radius: Amount::ALL, ..planned.fault.clone() };
        let mut hit = choose(&everywhere, &nodes, &BTreeSet::new(), "");
        hit.retain(|node| present.contains(node));
        if hit.is_empty() {
            let (name, number) = (&experiment.name, index + 1);
            let message =
                format!("experiment `{name}`, fault {number}: none of the nodes that it is for is there now; wait until they are");
            return Err(EdgeError::new(ErrorKind::Unavailable, message));
        }
        let fault = resolve(&planned.fault, &nodes);
        for node in hit {
            hittable.entry(node).or_default().push(fault.clone());
        }
    }
    Ok(hittable)
}
