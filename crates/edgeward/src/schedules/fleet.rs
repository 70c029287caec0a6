//! Schedules of a fleet: the hub keeps them, and has nodes run them by themselves, so that they fire while nobody hears of each other.
//!
//! How they are kept and get there is that of all that a hub allots.

use std::collections::BTreeSet;

use edgeward_cluster::schedule::Try;
use edgeward_model::{EdgeError, ErrorKind, NodeId, Schedule, ScheduleId};
use jiff::Timestamp;
use serde::Serialize;

use super::{ScheduleHistory, ScheduleRecord, check};
use crate::{
    allotments::wanted,
    desired::Precondition,
    fleet::{EdgeCluster, NodeRuntime},
};

/// Nodes that an error names.
const NAMED_MAX: usize = 8;

/// A schedule of a fleet, and which nodes run it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FleetScheduleView {
    /// What is wanted.
    #[serde(flatten)]
    pub record: ScheduleRecord,
    /// When it is due next, by the clock of now; none when it is off, or never will be.
    pub next_due_at: Option<Timestamp>,
    /// The nodes that have it, each for itself.
    pub nodes: BTreeSet<NodeId>,
}

impl FleetScheduleView {
    fn new(record: ScheduleRecord, nodes: BTreeSet<NodeId>, now: Timestamp) -> Self {
        Self { next_due_at: record.wanted.next_after(now).filter(|_| record.wanted.enabled), nodes, record }
    }
}

/// The schedules of a fleet. They reach their nodes while its deployments are steered, see [`EdgeCluster::steer`]; nodes of the hub's own process run none.
#[derive(Clone, Debug)]
pub struct ClusterSchedules {
    cluster: EdgeCluster,
}

impl EdgeCluster {
    /// The schedules of this fleet.
    pub fn schedules(&self) -> ClusterSchedules {
        ClusterSchedules { cluster: self.clone() }
    }
}

impl ClusterSchedules {
    /// Makes this the schedule of its id, durably. Its nodes get it when they are heard. Returns it, and whether its id is new.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for one that is never due from now on; [`ErrorKind::Conflict`] when the precondition does not hold.
    pub async fn put(&self, schedule: Schedule, precondition: Precondition) -> Result<(FleetScheduleView, bool), EdgeError> {
        check(&schedule, Timestamp::now())?;
        let id = schedule.id.clone();
        let created = wanted::put(&self.cluster, schedule, precondition).await?;
        Ok((self.get(id.as_str()).await?, created))
    }

    /// One schedule.
    pub async fn get(&self, id: &str) -> Result<FleetScheduleView, EdgeError> {
        let (record, nodes) = wanted::get(&self.cluster, id).await?;
        Ok(FleetScheduleView::new(record, nodes, Timestamp::now()))
    }

    /// Every schedule, by id.
    pub async fn list(&self) -> Result<Vec<FleetScheduleView>, EdgeError> {
        let (all, now) = (wanted::list(&self.cluster).await?, Timestamp::now());
        Ok(all.into_iter().map(|(record, nodes)| FleetScheduleView::new(record, nodes, now)).collect())
    }

    /// What ran of a schedule on a node, and what did not; on the node that has it, where it is not said on which.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is not said and several have it, [`ErrorKind::Unavailable`] when the node cannot be reached.
    pub async fn history(&self, id: &ScheduleId, node: Option<&str>) -> Result<ScheduleHistory, EdgeError> {
        self.holder(id, node).await?.schedule_history(id).await
    }

    /// Has a node start a run now, as [`Schedules::run_now`](crate::Schedules::run_now) does; the node that has it, where it is not said which.
    ///
    /// # Errors
    /// Those of [`ClusterSchedules::history`], and [`ErrorKind::Conflict`] while a run of it goes on.
    pub async fn run_now(&self, id: &ScheduleId, node: Option<&str>) -> Result<Try, EdgeError> {
        self.holder(id, node).await?.run_schedule(id).await
    }

    async fn holder(&self, id: &ScheduleId, node: Option<&str>) -> Result<NodeRuntime, EdgeError> {
        if let Some(node) = node {
            return self.cluster.runtime(node);
        }
        let nodes = self.get(id.as_str()).await?.nodes;
        match (nodes.first(), nodes.len()) {
            (Some(node), 1) => self.cluster.runtime(node.as_str()),
            (Some(_), _) => Err(which(id, &nodes)),
            (None, _) => Err(EdgeError::new(ErrorKind::NotFound, format!("schedule `{id}` is on no node now, so nothing ran of it"))),
        }
    }

    /// Removes a schedule, durably; its nodes stop when they hear of it. Returns whether there was one.
    pub async fn remove(&self, id: &ScheduleId, precondition: Precondition) -> Result<bool, EdgeError> {
        wanted::remove::<Schedule>(&self.cluster, id, precondition).await
    }
}

/// The error of who asks one node of several.
fn which(id: &ScheduleId, nodes: &BTreeSet<NodeId>) -> EdgeError {
    let mut named: Vec<_> = nodes.iter().take(NAMED_MAX).map(|node| format!("`{node}`")).collect();
    if nodes.len() > named.len() {
        named.push(format!("{} more", nodes.len() - named.len()));
    }
    EdgeError::invalid(format!("say on which node: `node=ID`; schedule `{id}` is on {}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use edgeward_model::FunctionId;

    use super::*;

    #[tokio::test]
    async fn changes_of_many_schedules_at_once_are_all_made() {
        let cluster = EdgeCluster::new().expect("a cluster");
        let putting = (0..20).map(|number| {
            let (id, function) = (ScheduleId::new(format!("s{number}")).expect("valid"), FunctionId::new("f").expect("valid"));
            let (schedules, schedule) = (cluster.schedules(), Schedule::new(id, function, "every 1s".parse().expect("valid")));
            tokio::spawn(async move { schedules.put(schedule, Precondition::None).await.map(|(_, created)| created) })
        });
        for put in putting.collect::<Vec<_>>() {
            assert!(put.await.expect("it ends").expect("put"));
        }
        let view = cluster.schedules().get("s7").await.expect("there");
        assert_eq!(
            (view.record.wanted.id.as_str(), view.nodes.len(), cluster.schedules().list().await.expect("reads").len()),
            ("s7", 0, 20)
        );
        assert_eq!(cluster.schedules().get("none").await.expect_err("not there").kind(), ErrorKind::NotFound);
    }
}
