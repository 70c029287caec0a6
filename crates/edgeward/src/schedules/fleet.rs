//! Schedules of a fleet: the hub keeps them, and has nodes run them by themselves, so that they fire while nobody hears of each other.
//!
//! They are the document `edgeward.hub.schedules`. Which nodes have one stands in the documents of these nodes alone:
//! who was chosen stays chosen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use edgeward_cluster::schedule::Try;
use edgeward_model::{DocumentName, EdgeError, ErrorKind, NodeId, Schedule, ScheduleId, limits::SCHEDULES_MAX};
use edgeward_runtime::blocking;
use edgeward_sync::{Document, Precondition as DocumentPrecondition};
use jiff::Timestamp;
use serde::Serialize;

use super::{ScheduleHistory, assigned::AssignedSchedules, check, not_found, record::ScheduleRecord};
use crate::{
    desired::Precondition,
    fleet::{EdgeCluster, NodeRuntime},
};

const DOCUMENT: &str = "edgeward.hub.schedules";
/// Nodes that an error names.
const NAMED_MAX: usize = 8;
/// So often a change is tried again when others change schedules at the same time.
const TRIES: u32 = 100;

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
        Self { next_due_at: record.schedule.next_after(now).filter(|_| record.schedule.enabled), nodes, record }
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
        let (this, id) = (self.clone(), schedule.id.clone());
        let created = blocking(move || {
            change(&this.cluster, |document, version, records| {
                let before = records.get(&schedule.id);
                let found = before.map(|record| record.generation);
                precondition.check(|| format!("schedule `{}`", schedule.id), found)?;
                if found.is_none() && records.len() >= SCHEDULES_MAX {
                    let message = format!("this fleet has {SCHEDULES_MAX} schedules, which is the most; remove one first");
                    return Err(EdgeError::new(ErrorKind::TooLarge, message));
                }
                let record = ScheduleRecord {
                    generation: version + 1,
                    since: before.map_or(version + 1, |before| before.since),
                    schedule: schedule.clone(),
                };
                let (key, value) = (record.schedule.id.to_string(), record.to_value()?);
                let edited = document.edit(at(version), move |draft| draft.set(&key, &value));
                Ok(edited.map(|_| found.is_none()))
            })
        })
        .await?;
        self.cluster.wake_steering();
        Ok((self.get(id.as_str()).await?, created))
    }

    /// One schedule.
    pub async fn get(&self, id: &str) -> Result<FleetScheduleView, EdgeError> {
        let (this, id) = (self.clone(), id.to_owned());
        blocking(move || {
            let id = ScheduleId::new(&*id).map_err(|_| not_found(&id))?;
            let value = document(&this.cluster)?.get(id.as_str())?.ok_or_else(|| not_found(id.as_str()))?;
            let record = ScheduleRecord::of_value(id.as_str(), &value)?;
            let assigned = AssignedSchedules::new(this.cluster.documents().clone());
            let mut nodes = assigned
                .nodes()?
                .into_iter()
                .map(|node| Ok((assigned.has(&node, id.as_str())?, node)))
                .collect::<Result<Vec<_>, EdgeError>>()?;
            nodes.retain(|(has, _)| *has);
            Ok(FleetScheduleView::new(record, nodes.into_iter().map(|(_, node)| node).collect(), Timestamp::now()))
        })
        .await
    }

    /// Every schedule, by id.
    pub async fn list(&self) -> Result<Vec<FleetScheduleView>, EdgeError> {
        let this = self.clone();
        blocking(move || {
            let (_, records) = read(&document(&this.cluster)?)?;
            let mut nodes: BTreeMap<ScheduleId, BTreeSet<NodeId>> = BTreeMap::new();
            let assigned = AssignedSchedules::new(this.cluster.documents().clone());
            for node in assigned.nodes()? {
                for id in assigned.of(&node)?.into_keys() {
                    nodes.entry(id).or_default().insert(node.clone());
                }
            }
            let now = Timestamp::now();
            let view = |(id, record)| FleetScheduleView::new(record, nodes.remove(&id).unwrap_or_default(), now);
            Ok(records.into_iter().map(view).collect())
        })
        .await
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
        let (this, id) = (self.clone(), id.clone());
        let existed = blocking(move || {
            change(&this.cluster, |document, version, records| {
                let found = records.get(&id).map(|record| record.generation);
                precondition.check(|| format!("schedule `{id}`"), found)?;
                if found.is_none() {
                    return Ok(Ok(false));
                }
                let id = id.clone();
                Ok(document.edit(at(version), move |draft| draft.remove(id.as_str())).map(|_| true))
            })
        })
        .await?;
        self.cluster.wake_steering();
        Ok(existed)
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

/// The schedules that each node is to have.
pub(crate) type WantedOf = BTreeMap<NodeId, BTreeMap<ScheduleId, Arc<ScheduleRecord>>>;

/// What is wanted and what is assigned, as it was read last: most looks find nothing to do.
#[derive(Debug, Default)]
pub(crate) struct Assigner {
    /// Of the document of what is wanted.
    version: u64,
    wanted: Arc<[Arc<ScheduleRecord>]>,
    /// The generations of what each node has; none before it was read.
    assigned: Option<BTreeMap<NodeId, BTreeMap<ScheduleId, u64>>>,
}

impl Assigner {
    /// The schedules that there are to be; none where there are none, and none were.
    pub(crate) fn wanted(&mut self, cluster: &EdgeCluster) -> Result<Option<Arc<[Arc<ScheduleRecord>]>>, EdgeError> {
        if self.assigned.is_none() {
            let documents = AssignedSchedules::new(cluster.documents().clone());
            let assigned = documents.nodes()?.into_iter().map(|node| Ok((node.clone(), documents.of(&node)?)));
            self.assigned = Some(assigned.collect::<Result<_, EdgeError>>()?);
        }
        let document = document(cluster)?;
        if document.info()?.map_or(0, |info| info.version) != self.version {
            let (version, records) = read(&document)?;
            (self.version, self.wanted) = (version, records.into_values().map(Arc::new).collect());
        }
        let has_any = !self.wanted.is_empty() || self.assigned.iter().flat_map(BTreeMap::values).any(|schedules| !schedules.is_empty());
        Ok(has_any.then(|| Arc::clone(&self.wanted)))
    }

    /// The nodes that have each schedule.
    pub(crate) fn holders(&self) -> BTreeMap<ScheduleId, BTreeSet<NodeId>> {
        let mut holders: BTreeMap<ScheduleId, BTreeSet<NodeId>> = BTreeMap::new();
        for (node, schedules) in self.assigned.iter().flatten() {
            for id in schedules.keys() {
                holders.entry(id.clone()).or_default().insert(node.clone());
            }
        }
        holders
    }

    /// Has exactly these nodes have them: first what is to go goes, and then comes what is to come. A node that cannot be told is told with the next
    /// look, and keeps no other from it; a schedule that it should let go comes to no node in its place meanwhile.
    ///
    /// # Errors
    /// That of the last node that could not be told.
    pub(crate) fn assign(&mut self, cluster: &EdgeCluster, wanted: &WantedOf) -> Result<(), EdgeError> {
        let documents = AssignedSchedules::new(cluster.documents().clone());
        self.assign_by(wanted, |node, come, go| documents.change(node, come, go))
    }

    fn assign_by(
        &mut self,
        wanted: &WantedOf,
        mut tell: impl FnMut(&NodeId, &[Arc<ScheduleRecord>], &[ScheduleId]) -> Result<(), EdgeError>,
    ) -> Result<(), EdgeError> {
        let (mut outcome, mut stuck) = (Ok(()), BTreeSet::new());
        let assigned = self.assigned.get_or_insert_default();
        for (node, schedules) in assigned.iter_mut() {
            let stay = |id: &ScheduleId| wanted.get(node).is_some_and(|wanted| wanted.contains_key(id));
            let gone: Vec<_> = schedules.keys().filter(|id| !stay(id)).cloned().collect();
            if gone.is_empty() {
                continue;
            }
            match tell(node, &[], &gone) {
                Ok(()) => schedules.retain(|id, _| stay(id)),
                Err(error) => {
                    outcome = Err(error);
                    stuck.extend(gone);
                }
            }
        }
        for (node, records) in wanted {
            let known = assigned.entry(node.clone()).or_default();
            let waits = |record: &ScheduleRecord| record.schedule.target.chosen().is_some() && stuck.contains(&record.schedule.id);
            let is_news = |record: &&Arc<ScheduleRecord>| known.get(&record.schedule.id) != Some(&record.generation) && !waits(record);
            let news: Vec<_> = records.values().filter(is_news).map(Arc::clone).collect();
            if news.is_empty() {
                continue;
            }
            match tell(node, &news, &[]) {
                Ok(()) => known.extend(news.iter().map(|record| (record.schedule.id.clone(), record.generation))),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}

fn document(cluster: &EdgeCluster) -> Result<Document, EdgeError> {
    Ok(cluster.documents().document(DocumentName::new(DOCUMENT)?))
}

/// Changes what is wanted by what is there now. Where somebody else changed it meanwhile, be it another schedule, it is tried again: the inner error.
fn change<T>(
    cluster: &EdgeCluster,
    change: impl Fn(&Document, u64, &BTreeMap<ScheduleId, ScheduleRecord>) -> Result<Result<T, EdgeError>, EdgeError>,
) -> Result<T, EdgeError> {
    let document = document(cluster)?;
    let mut tries = 0;
    loop {
        let (version, records) = read(&document)?;
        match change(&document, version, &records)? {
            Err(error) if error.kind() == ErrorKind::Conflict && tries < TRIES => tries += 1,
            changed => return changed,
        }
    }
}

/// That nobody has changed the document since.
fn at(version: u64) -> DocumentPrecondition {
    if version == 0 { DocumentPrecondition::Absent } else { DocumentPrecondition::Version(version) }
}

/// The version of the document, and what is in it that this release can read.
fn read(document: &Document) -> Result<(u64, BTreeMap<ScheduleId, ScheduleRecord>), EdgeError> {
    let Some(state) = document.view()? else { return Ok((0, BTreeMap::new())) };
    let mut records = BTreeMap::new();
    for (key, value) in &state.data.0 {
        match ScheduleRecord::of_value(key, value) {
            Ok(record) => drop(records.insert(record.schedule.id.clone(), record)),
            Err(error) => tracing::warn!(schedule = key, error = error.chain(), "a schedule of the fleet could not be read"),
        }
    }
    Ok((state.version, records))
}

#[cfg(test)]
mod tests {
    use edgeward_model::FunctionId;

    use super::*;

    fn node(id: &str) -> NodeId {
        NodeId::new(id).expect("valid")
    }

    fn record(id: &str, target: &str) -> Arc<ScheduleRecord> {
        let (id, function) = (ScheduleId::new(id).expect("valid"), FunctionId::new("f").expect("valid"));
        let schedule = Schedule::new(id, function, "every 1s".parse().expect("valid"));
        Arc::new(ScheduleRecord { generation: 1, since: 1, schedule: Schedule { target: target.parse().expect("valid"), ..schedule } })
    }

    fn wanted(of: &[(&str, &[&Arc<ScheduleRecord>])]) -> WantedOf {
        let schedules =
            |records: &[&Arc<ScheduleRecord>]| records.iter().map(|record| (record.schedule.id.clone(), Arc::clone(record))).collect();
        of.iter().map(|(id, records)| (node(id), schedules(records))).collect()
    }

    #[test]
    fn a_node_that_cannot_be_told_keeps_no_other_from_its_schedules_and_loses_none_to_another() {
        let (one, all) = (record("one", "one"), record("all", "all"));
        let mut assigner = Assigner { assigned: Some(BTreeMap::new()), ..Assigner::default() };
        assigner.assign_by(&wanted(&[("a", &[&one, &all])]), |_, _, _| Ok(())).expect("told");
        let next = wanted(&[("b", &[&one, &all]), ("c", &[&all])]);
        let failing = |id: &NodeId, _: &[Arc<ScheduleRecord>], _: &[ScheduleId]| {
            if id.as_str() == "a" { Err(EdgeError::new(ErrorKind::Internal, "its document")) } else { Ok(()) }
        };
        assigner.assign_by(&next, failing).expect_err("a is not told");
        let holders = assigner.holders();
        assert_eq!(holders[&one.schedule.id], [node("a")].into(), "it is not on two nodes");
        assert_eq!(holders[&all.schedule.id], [node("a"), node("b"), node("c")].into());
        assigner.assign_by(&next, |_, _, _| Ok(())).expect("told");
        assert_eq!(assigner.holders()[&one.schedule.id], [node("b")].into());
    }

    #[tokio::test]
    async fn changes_of_many_schedules_at_once_are_all_made() {
        let cluster = EdgeCluster::new().expect("a cluster");
        let putting = (0..20).map(|number| {
            let (schedules, record) = (cluster.schedules(), record(&format!("s{number}"), "one"));
            tokio::spawn(async move { schedules.put(record.schedule.clone(), Precondition::None).await.map(|(_, created)| created) })
        });
        for put in putting.collect::<Vec<_>>() {
            assert!(put.await.expect("it ends").expect("put"));
        }
        let view = cluster.schedules().get("s7").await.expect("there");
        assert_eq!(
            (view.record.schedule.id.as_str(), view.nodes.len(), cluster.schedules().list().await.expect("reads").len()),
            ("s7", 0, 20)
        );
        assert_eq!(cluster.schedules().get("none").await.expect_err("not there").kind(), ErrorKind::NotFound);
    }
}
