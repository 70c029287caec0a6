//! What a deployment would do, and in what two revisions differ.

use std::collections::BTreeMap;

use edgeward_cluster::rollout::Rollout;
use edgeward_model::{EdgeError, EdgeFunction, ErrorKind, NodeId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    DeploymentSpec,
    facts::Facts,
    stored::{Deployment, Revision, former_of},
    wave_names,
};
use crate::fleet::EdgeCluster;

/// What applying a deployment would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The revision that would be wanted.
    pub revision: u64,
    /// Whether it would be a new one.
    pub is_new: bool,
    /// The revision that it would replace, if there is one.
    pub from: Option<u64>,
    /// In what it differs from that.
    pub differences: Vec<Difference>,
    /// The waves with their nodes.
    pub waves: Vec<PlannedWave>,
    /// Nodes that would have to wait, with why.
    pub pending: BTreeMap<NodeId, String>,
    /// Nodes from which the function would be taken.
    pub leaving: Vec<NodeId>,
    /// Why fewer nodes would have it than there are to be; empty when there are enough.
    pub missing: String,
}

/// A wave as it would be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedWave {
    /// Its number, from 0 on. Waves without nodes are left out.
    pub number: usize,
    /// What its nodes have in common.
    pub of: String,
    /// Its nodes.
    pub nodes: Vec<NodeId>,
    /// How many nodes would have the revision after each batch.
    pub batches: Vec<usize>,
}

/// In what two revisions differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The field.
    pub field: String,
    /// What it was; none when it was not there.
    pub from: Option<serde_json::Value>,
    /// What it is.
    pub to: Option<serde_json::Value>,
}

pub(super) fn plan(cluster: &EdgeCluster, spec: &DeploymentSpec) -> Result<Plan, EdgeError> {
    let (store, id, now) = (cluster.deployment_store(), &spec.function.id, Timestamp::now());
    let known = store.get(id)?.filter(|known| !known.deleted);
    let mut revisions = store.revisions(id)?;
    let next = |revisions: &[Revision]| revisions.last().map_or(1, |last| last.revision + 1);
    let mut adopted = Vec::new();
    for function in super::adopted(cluster, id)? {
        adopted.push(next(&revisions));
        revisions.push(Revision { revision: next(&revisions), created_at: now, function });
    }
    let same = revisions.iter().rev().find(|revision| revision.function == spec.function);
    let revision = same.map_or(next(&revisions), |same| same.revision);
    let from = match &known {
        Some(known) => known.rollout.goal().or(known.rollout.from),
        None => former_of(&adopted, revision),
    };
    let former = match from.map(|from| (from, revisions.iter().find(|known| known.revision == from))) {
        Some((_, Some(former))) => Some(former.function.clone()),
        Some((from, None)) => Some(store.revision(id, from)?.function),
        None => None,
    };
    let rollout = Rollout::new(id.clone(), 0, from, revision, now);
    let planned = Deployment {
        function: id.clone(),
        generation: 0,
        observed_generation: 0,
        revision,
        target: spec.target.clone(),
        strategy: spec.strategy.clone(),
        updated_at: now,
        leaving: known.map(|known| known.leaving).unwrap_or_default(),
        missing: String::new(),
        at_once: false,
        deleted: false,
        rollout,
    };
    let gathering = Facts::read(cluster)?;
    let facts = gathering.of(cluster, &planned, &spec.function, now);
    let waves = wave_names(&spec.strategy).enumerate().map(|(wave, of)| {
        let nodes: Vec<_> =
            facts.nodes.iter().filter(|(_, node)| node.in_target && node.wave == wave).map(|(node, _)| node.clone()).collect();
        let mut batches = Vec::new();
        while batches.last().copied().unwrap_or(0) < nodes.len() {
            batches.push(spec.strategy.next(batches.last().copied().unwrap_or(0), nodes.len()));
        }
        PlannedWave { number: wave, of, nodes, batches }
    });
    let pending = gathering.views().filter_map(|(node, view)| {
        let facts = facts.nodes.get(node).filter(|facts| facts.in_target)?;
        let why = match &view.held {
            _ if !facts.is_reachable => format!("offline since {}", view.since.strftime("%Y-%m-%d %H:%M:%SZ")),
            Some(why) => why.clone(),
            None => return None,
        };
        Some((node.clone(), why))
    });
    Ok(Plan {
        revision,
        is_new: same.is_none(),
        from,
        differences: former.map(|former| differences(&former, &spec.function)).transpose()?.unwrap_or_default(),
        pending: pending.collect(),
        leaving: facts.nodes.iter().filter(|(_, node)| !node.in_target).map(|(node, _)| node.clone()).collect(),
        waves: waves.filter(|wave| !wave.nodes.is_empty()).collect(),
        missing: facts.missing,
    })
}

/// The fields in which two functions differ. Of the environment only the names show whose values differ.
pub(super) fn differences(from: &EdgeFunction, to: &EdgeFunction) -> Result<Vec<Difference>, EdgeError> {
    let (mut before, mut after) = (fields(from)?, fields(to)?);
    for (name, value) in &from.environment.0 {
        let shown = |differs: bool| if differs { "[redacted, another]" } else { "[redacted]" };
        let differs = to.environment.0.get(name) != Some(value);
        before.insert(format!("environment.{name}"), "[redacted]".into());
        if to.environment.0.contains_key(name) {
            after.insert(format!("environment.{name}"), shown(differs).into());
        }
    }
    for name in to.environment.0.keys().filter(|name| !from.environment.0.contains_key(*name)) {
        after.insert(format!("environment.{name}"), "[redacted]".into());
    }
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    let differences = names.into_iter().map(|field| Difference { from: before.remove(&field), to: after.remove(&field), field });
    Ok(differences.filter(|difference| difference.from != difference.to).collect())
}

/// The fields of a function without its environment.
fn fields(function: &EdgeFunction) -> Result<BTreeMap<String, serde_json::Value>, EdgeError> {
    let json = serde_json::to_value(function)
        .map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to write a function as JSON").with_source(error))?;
    let serde_json::Value::Object(fields) = json else { return Ok(BTreeMap::new()) };
    Ok(fields.into_iter().filter(|(name, _)| name != "environment").collect())
}

#[cfg(test)]
mod tests {
    use edgeward_model::{Handler, HandlerName};

    use super::*;

    #[test]
    fn the_difference_of_two_revisions_names_fields_and_shows_no_secret() {
        let mut from = EdgeFunction::new("f", "f", Handler::Native(HandlerName::new("h").expect("valid"))).expect("valid");
        from.environment = [("KEPT", "s3cret"), ("CHANGED", "s3cret"), ("GONE", "s3cret")].into_iter().collect();
        let mut to = from.clone();
        to.memory_mb = 64;
        to.environment = [("KEPT", "s3cret"), ("CHANGED", "s3cret2"), ("NEW", "s3cret")].into_iter().collect();
        let found = differences(&from, &to).expect("JSON");
        let fields: Vec<_> = found.iter().map(|difference| difference.field.as_str()).collect();
        assert_eq!(fields, ["environment.CHANGED", "environment.GONE", "environment.NEW", "memory_mb"]);
        assert!(!serde_json::to_string(&found).expect("JSON").contains("s3cret"));
        assert!(differences(&from, &from).expect("JSON").is_empty());
    }
}
