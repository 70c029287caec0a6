//! What each node is assigned, by hand or by a deployment, and what becomes of it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use edgeward_model::{Digest, EdgeError, EdgeFunction, ErrorKind, FunctionId, NodeId};
use edgeward_runtime::{artifacts::GRACE, blocking};
use futures::{StreamExt, TryStreamExt, stream};

use super::{EdgeCluster, members::Member};
use crate::{
    assignments::{Assignments, Written},
    desired::record::FunctionRecord,
    events::{EventKind, FleetEvent},
    node::{FunctionView, Source},
    reports::{FunctionReport, NodeReport},
};

/// Deadlines that are remembered; past that they are read again.
const DEADLINES_MAX: usize = 10_000;
/// Assignments that are written at once, each to its node's document.
const ASSIGNING_CONCURRENCY: usize = 32;

impl EdgeCluster {
    /// Stores an artifact for the nodes of this cluster and says its digest. One that cannot run is refused with the reason.
    pub async fn add_artifact(&self, bytes: impl Into<Bytes>) -> Result<Digest, EdgeError> {
        self.0.checker.add_artifact(bytes).await
    }

    /// Assigns a function to every node; returns how many have it assigned durably. A node of this process that could not run it refuses
    /// it for all; a far one says so in its report.
    pub async fn deploy_to_all(&self, function: EdgeFunction) -> Result<usize, EdgeError> {
        let nodes = self.0.members.lock().nodes.iter().map(|(id, member)| (id.clone(), member.clone())).collect();
        self.deploy(nodes, function).await
    }

    /// Assigns a function to one node.
    pub async fn deploy_to_node(&self, id: &str, function: EdgeFunction) -> Result<(), EdgeError> {
        self.deploy(vec![self.member(id)?], function).await.map(drop)
    }

    pub(super) async fn deploy(&self, nodes: Vec<(NodeId, Member)>, function: EdgeFunction) -> Result<usize, EdgeError> {
        let _deploying = self.0.deploying.lock().await;
        self.check_not_deployed(&function.id).await?;
        self.check_function(&function).await?;
        for (id, member) in &nodes {
            let Member::Here(_, installer) = member else { continue };
            installer.runtime().check(&function).await.map_err(|error| {
                EdgeError::new(error.kind(), format!("node `{id}` cannot run function `{}`", function.id)).with_source(error)
            })?;
        }
        // As a vector: an iterator of closures over borrowed nodes would make this future one that no other thread can take.
        let assigning: Vec<_> = nodes
            .iter()
            .map(|(id, _)| {
                let (assignments, id, function) = (self.0.assignments.clone(), id.clone(), function.clone());
                blocking(move || assignments.put(&id, &function, None).map(|record| (id, record)))
            })
            .collect();
        let assigned: Vec<_> = stream::iter(assigning).buffer_unordered(ASSIGNING_CONCURRENCY).try_collect().await?;
        self.forget_deadlines(&function.id);
        for (node, record) in assigned {
            self.install_here(&node, &record).await;
        }
        if let Some((first, _)) = nodes.first() {
            let id = &function.id;
            let whom = if let [_] = nodes.as_slice() { format!("node `{first}`") } else { format!("{} nodes", nodes.len()) };
            self.0.events.tell(FleetEvent::new(EventKind::FunctionAssigned, format!("function `{id}` was assigned to {whom}")).of(id));
        }
        Ok(nodes.len())
    }

    /// Takes a function from every node; returns how many had it assigned.
    pub async fn undeploy_from_all(&self, id: &FunctionId) -> Result<usize, EdgeError> {
        let nodes = self.0.members.lock().nodes.iter().map(|(id, member)| (id.clone(), member.clone())).collect();
        self.undeploy(nodes, id).await
    }

    /// Takes a function from one node; returns whether it was assigned.
    pub async fn undeploy_from_node(&self, node: &str, id: &FunctionId) -> Result<bool, EdgeError> {
        Ok(self.undeploy(vec![self.member(node)?], id).await? > 0)
    }

    pub(super) async fn undeploy(&self, nodes: Vec<(NodeId, Member)>, id: &FunctionId) -> Result<usize, EdgeError> {
        let _deploying = self.0.deploying.lock().await;
        self.check_not_deployed(id).await?;
        let removing: Vec<_> = nodes
            .iter()
            .map(|(node, _)| {
                let (assignments, node, function) = (self.0.assignments.clone(), node.clone(), id.clone());
                blocking(move || assignments.remove(&node, &function))
            })
            .collect();
        let removed: Vec<bool> = stream::iter(removing).buffer_unordered(ASSIGNING_CONCURRENCY).try_collect().await?;
        self.forget_deadlines(id);
        for (node, _) in &nodes {
            self.remove_here(node, id);
        }
        let count = removed.into_iter().filter(|removed| *removed).count();
        if count > 0 {
            self.0
                .events
                .tell(FleetEvent::new(EventKind::FunctionUnassigned, format!("function `{id}` was taken from {count} nodes")).of(id));
        }
        Ok(count)
    }

    /// How long a function of a node may run; none when it is not assigned.
    pub(super) async fn deadline(&self, node: &NodeId, function: &str) -> Result<Option<Duration>, EdgeError> {
        let Ok(function) = FunctionId::new(function) else { return Ok(None) };
        let key = (node.clone(), function);
        if let Some(deadline) = self.0.deadlines.lock().get(&key) {
            return Ok(Some(*deadline));
        }
        let assigned = self.assigned(node).await?;
        let Some(deadline) = assigned.iter().find(|function| function.id == key.1).map(EdgeFunction::timeout) else { return Ok(None) };
        let mut deadlines = self.0.deadlines.lock();
        if deadlines.len() >= DEADLINES_MAX {
            deadlines.clear();
        }
        deadlines.insert(key, deadline);
        Ok(Some(deadline))
    }

    /// The functions that are assigned to a node, by id.
    pub async fn assigned(&self, id: &NodeId) -> Result<Vec<EdgeFunction>, EdgeError> {
        let (assignments, id) = (self.0.assignments.clone(), id.clone());
        blocking(move || assignments.of(&id)).await
    }

    /// What a node should run, without secrets, and what became of it as far as the node said. Reads the disk.
    pub fn functions_of(&self, node: &NodeId) -> Result<Vec<FunctionView>, EdgeError> {
        let here = match self.0.members.lock().nodes.get(node) {
            Some(Member::Here(_, installer)) => Some(Arc::clone(installer.runtime())),
            Some(Member::Far(_)) => None,
            None => return Err(EdgeError::node_not_found(node.as_str())),
        };
        let mut reports = if here.is_some() { BTreeMap::new() } else { NodeReport::new(&self.0.documents, node)?.functions()? };
        if let Some(runtime) = here {
            let ready = |function: EdgeFunction| (function.id, FunctionReport::ready());
            reports.extend(runtime.list_functions().into_iter().map(ready));
        }
        let mut views = Vec::new();
        for (id, record) in self.0.assignments.records(node)? {
            match record {
                Ok(record) => {
                    let report = reports.remove(id.as_str());
                    views.push(FunctionView::of_assignment(record, report));
                }
                // It is of a newer release, which tells of it itself.
                Err(error) => tracing::warn!(%node, function = id, error = error.chain(), "an assignment could not be read"),
            }
        }
        Ok(views)
    }

    /// Makes every runtime of this process run what its node is assigned; returns what cannot. For a cluster that was opened from a folder,
    /// once its nodes are registered and their handlers are there.
    pub async fn reconcile(&self) -> Result<Vec<(NodeId, FunctionId, EdgeError)>, EdgeError> {
        let _deploying = self.0.deploying.lock().await;
        let members: Vec<_> = self.0.members.lock().nodes.values().cloned().collect();
        let mut failed = Vec::new();
        for member in members {
            let Member::Here(node, installer) = member else { continue };
            for (_, record) in self.assignment_records(&node.id)? {
                let record = record?;
                let id = record.function.id.clone();
                installer.install(&record, Source::Fleet, None, tokio::time::Instant::now()).await;
                if let Some(why) = installer.status(&id).and_then(|status| status.failure) {
                    failed.push((node.id.clone(), id, EdgeError::new(ErrorKind::Unavailable, why)));
                }
            }
        }
        self.note_routes_change();
        Ok(failed)
    }

    /// Removes artifacts that no node is assigned and that are older than ten minutes; returns how many files went. Blocks for as long as
    /// the disk takes.
    pub fn collect_garbage(&self) -> Result<usize, EdgeError> {
        self.collect_garbage_after(GRACE)
    }

    pub(super) fn collect_garbage_after(&self, grace: Duration) -> Result<usize, EdgeError> {
        let live = self.artifacts_in_use()?;
        self.0.checker.collect_garbage(&live, grace)
    }

    /// Artifacts that are assigned to any node and not here. Reads the disk.
    pub(crate) fn missing_artifacts(&self) -> Result<Vec<Digest>, EdgeError> {
        Ok(self.artifacts_in_use()?.into_iter().filter(|digest| !self.0.artifacts.contains(digest)).collect())
    }

    /// The artifacts that are assigned to any node, or belong to a revision that is kept. Reads the disk.
    pub(super) fn artifacts_in_use(&self) -> Result<HashSet<Digest>, EdgeError> {
        let mut artifacts = self.0.assignments.artifacts()?;
        artifacts.extend(self.0.deployments.artifacts()?);
        Ok(artifacts)
    }

    /// Refuses a function that no node could run.
    pub(crate) async fn check_function(&self, function: &EdgeFunction) -> Result<(), EdgeError> {
        function.validate()?;
        self.check_trust(function).await?;
        if function.handler.artifact().is_some() { self.0.checker.check(function).await } else { Ok(()) }
    }

    /// Refuses to assign by itself what a deployment cares for.
    pub(super) async fn check_not_deployed(&self, id: &FunctionId) -> Result<(), EdgeError> {
        let (store, of) = (self.0.deployments.clone(), id.clone());
        if blocking(move || store.get(&of)).await?.is_none() {
            return Ok(());
        }
        let message = format!(
            "function `{id}` is deployed by target and strategy; change that, or remove it with `edgeward deployments remove {id}`"
        );
        Err(EdgeError::new(ErrorKind::Conflict, message))
    }

    pub(crate) fn assignments(&self) -> &Assignments {
        &self.0.assignments
    }

    pub(crate) fn assignment_records(&self, node: &NodeId) -> Result<Vec<(String, Written)>, EdgeError> {
        self.0.assignments.records(node)
    }

    pub(crate) fn assignment_record(&self, node: &NodeId, function: &FunctionId) -> Result<Option<FunctionRecord>, EdgeError> {
        self.0.assignments.record(node, function)
    }

    /// The functions of this id that nodes were assigned by themselves, each once.
    pub(crate) fn assigned_alone(&self, id: &FunctionId) -> Result<Vec<EdgeFunction>, EdgeError> {
        let mut functions = Vec::new();
        for node in self.node_ids() {
            let records = self.assignment_records(&node)?.into_iter().filter_map(|(_, record)| record.ok());
            for record in records.filter(|record| record.function.id == *id && record.deployed.is_none()) {
                if !functions.contains(&record.function) {
                    functions.push(record.function);
                }
            }
        }
        Ok(functions)
    }

    /// Held while assignments are changed.
    pub(crate) async fn deploying(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.deploying.lock().await
    }

    pub(crate) fn forget_deadlines(&self, function: &FunctionId) {
        self.0.deadlines.lock().retain(|(_, id), _| id != function);
    }

    /// Has a node of this process take what it is assigned; of another it does nothing.
    pub(crate) async fn install_here(&self, node: &NodeId, record: &FunctionRecord) {
        if let Some(installer) = self.installer(node) {
            installer.install(record, Source::Fleet, None, tokio::time::Instant::now()).await;
            self.note_routes_change();
        }
    }

    /// Takes a function from a node of this process; of another it does nothing.
    pub(crate) fn remove_here(&self, node: &NodeId, function: &FunctionId) {
        if let Some(installer) = self.installer(node) {
            installer.retain(|id| id != function);
            self.note_routes_change();
        }
    }
}
