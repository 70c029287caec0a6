//! Schedules of a fleet: the hub keeps them, and has nodes run them by themselves, so that they fire while nobody hears of each other.
//!
//! They are the document `edgeward.hub.schedules`. Which nodes have one stands in the documents of these nodes alone ([`assigned`](super::assigned)):
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
            let document = document(&this.cluster)?;
            let (version, records) = read(&document)?;
            let found = records.get(&schedule.id).map(|record| record.generation);
            precondition.check(|| format!("schedule `{}`", schedule.id), found)?;
            if found.is_none() && records.len() >= SCHEDULES_MAX {
                let message = format!("this fleet has {SCHEDULES_MAX} schedules, which is the most; remove one first");
                return Err(EdgeError::new(ErrorKind::TooLarge, message));
            }
            let record = ScheduleRecord { generation: version + 1, schedule };
            let (key, value) = (record.schedule.id.to_string(), record.to_value()?);
            document.edit(at(version), move |draft| draft.set(&key, &value))?;
            Ok(found.is_none())
        })
        .await?;
        self.cluster.wake_steering();
        Ok((self.get(id.as_str()).await?, created))
    }

    /// One schedule.
    pub async fn get(&self, id: &str) -> Result<FleetScheduleView, EdgeError> {
        self.list().await?.into_iter().find(|view| view.record.schedule.id.as_str() == id).ok_or_else(|| not_found(id))
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
            let view = |(id, record): (ScheduleId, ScheduleRecord)| FleetScheduleView {
                next_due_at: record.schedule.next_after(now).filter(|_| record.schedule.enabled),
                nodes: nodes.remove(&id).unwrap_or_default(),
                record,
            };
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
            let document = document(&this.cluster)?;
            let (version, records) = read(&document)?;
            let found = records.get(&id).map(|record| record.generation);
            precondition.check(|| format!("schedule `{id}`"), found)?;
            if found.is_some() {
                document.edit(at(version), move |draft| draft.remove(id.as_str()))?;
            }
            Ok(found.is_some())
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

    /// The nodes that have a schedule.
    pub(crate) fn holders(&self, id: &ScheduleId) -> BTreeSet<NodeId> {
        let holders = self.assigned.iter().flatten().filter(|(_, schedules)| schedules.contains_key(id));
        holders.map(|(node, _)| node.clone()).collect()
    }

    /// Has exactly these nodes have them: first what is to go goes, and then comes what is to come.
    pub(crate) fn assign(&mut self, cluster: &EdgeCluster, wanted: &BTreeMap<NodeId, Vec<Arc<ScheduleRecord>>>) -> Result<(), EdgeError> {
        let documents = AssignedSchedules::new(cluster.documents().clone());
        let assigned = self.assigned.get_or_insert_default();
        for (node, schedules) in assigned.iter_mut() {
            let stay = |id: &ScheduleId| wanted.get(node).is_some_and(|wanted| wanted.iter().any(|record| record.schedule.id == *id));
            let gone: Vec<_> = schedules.keys().filter(|id| !stay(id)).cloned().collect();
            if !gone.is_empty() {
                documents.change(node, &[], &gone)?;
                schedules.retain(|id, _| !gone.contains(id));
            }
        }
        for (node, records) in wanted {
            let known = assigned.entry(node.clone()).or_default();
            let is_news = |record: &&Arc<ScheduleRecord>| known.get(&record.schedule.id) != Some(&record.generation);
            let news: Vec<_> = records.iter().filter(is_news).map(Arc::clone).collect();
            if !news.is_empty() {
                documents.change(node, &news, &[])?;
                known.extend(news.iter().map(|record| (record.schedule.id.clone(), record.generation)));
            }
        }
        Ok(())
    }
}

fn document(cluster: &EdgeCluster) -> Result<Document, EdgeError> {
    Ok(cluster.documents().document(DocumentName::new(DOCUMENT)?))
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
