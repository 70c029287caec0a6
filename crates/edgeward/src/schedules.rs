//! Schedules of a node: which function runs by itself and when, kept in its documents, so that it fires with and without a network.
//!
//! What is decided is `edgeward_cluster::schedule`'s; here it is kept, started and told. Nothing starts before it is on the disk that it does.

mod event;
pub mod fleet;
mod keeper;
mod ledger;

use std::{collections::BTreeSet, sync::Arc};

use edgeward_cluster::schedule::{Run, ScheduleState, Totals, Try};
use edgeward_model::{EdgeError, ErrorKind, FunctionId, Schedule, ScheduleId, Target, limits::SCHEDULES_MAX};
use edgeward_runtime::{EdgeRuntime, blocking};
use edgeward_sync::Documents;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::ledger::Ledger;
use crate::{
    allotments::{Allotted, not_found, record::Record},
    desired::Precondition,
    node::Source,
};

/// A schedule as it was put, on a node or in a fleet.
pub type ScheduleRecord = Record<Schedule>;

/// A schedule as a caller may see it: what is wanted, and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScheduleView {
    /// What is wanted.
    #[serde(flatten)]
    pub record: ScheduleRecord,
    /// Who wants it here.
    pub source: Source,
    /// When it is due next, by the clock of now; none when it is off, or never will be.
    pub next_due_at: Option<Timestamp>,
    /// What runs now.
    pub running: Option<Try>,
    /// Due times that are still made up for.
    pub waiting: usize,
    /// What was noted last.
    pub last: Option<Run>,
    /// How often which outcome came.
    pub totals: Totals,
}

/// What [`Schedules::put`] did.
#[derive(Clone, Debug)]
pub struct PutSchedule {
    /// Whether there was no schedule of this id before.
    pub created: bool,
    /// The schedule.
    pub view: ScheduleView,
}

/// The runs of a schedule that are kept, and how many there were of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScheduleHistory {
    /// Newest first.
    pub runs: Vec<Run>,
    /// How often which outcome came.
    pub totals: Totals,
}

/// The schedules of a node, see [`Node::schedules`](crate::Node::schedules). They run while
/// [`Node::keep_scheduled`](crate::Node::keep_scheduled) does.
#[derive(Debug)]
pub struct Schedules {
    runtime: Arc<EdgeRuntime>,
    ledger: Arc<Ledger>,
    /// Told when there is something to look at.
    changed: Notify,
    /// Held by the one who runs them.
    keeping: tokio::sync::Mutex<()>,
}

impl Schedules {
    pub(crate) fn open(documents: &Documents, runtime: Arc<EdgeRuntime>) -> Result<Self, EdgeError> {
        let ledger = Arc::new(Ledger::open(documents, runtime.node().id.clone())?);
        Ok(Self { runtime, ledger, changed: Notify::new(), keeping: tokio::sync::Mutex::default() })
    }

    /// Makes this the schedule of its id, durably. It begins with what is due from now on, unless its times are as they were.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for one that is never due from now on; [`ErrorKind::Conflict`] when the precondition does not hold;
    /// [`ErrorKind::Forbidden`] for an id that the hub assigned.
    pub async fn put(&self, schedule: Schedule, precondition: Precondition) -> Result<PutSchedule, EdgeError> {
        check(&schedule, Timestamp::now())?;
        let (ledger, id) = (Arc::clone(&self.ledger), schedule.id.clone());
        let (_, created) = blocking(move || ledger.put(schedule, precondition)).await?;
        self.changed.notify_one();
        Ok(PutSchedule { created, view: self.get(id.as_str())? })
    }

    /// The time by which schedules are due.
    pub(crate) fn now(&self) -> Timestamp {
        self.ledger.now()
    }

    /// One schedule.
    pub fn get(&self, id: &str) -> Result<ScheduleView, EdgeError> {
        let (snapshot, now) = (self.ledger.snapshot(), self.now());
        let (record, source) = snapshot.find(id).ok_or_else(|| not_found::<Schedule>(id))?;
        Ok(view(record, source, snapshot.state(id).map(AsRef::as_ref), now))
    }

    /// Every schedule, by id.
    pub fn list(&self) -> Vec<ScheduleView> {
        let (snapshot, now) = (self.ledger.snapshot(), self.now());
        let all = snapshot.all().into_iter();
        all.map(|(id, (record, source))| view(record, source, snapshot.state(id.as_str()).map(AsRef::as_ref), now)).collect()
    }

    /// Removes a schedule and its history, durably. Returns whether there was one. A run that goes on ends by itself and is told nowhere.
    pub async fn remove(&self, id: &ScheduleId, precondition: Precondition) -> Result<bool, EdgeError> {
        let (ledger, id) = (Arc::clone(&self.ledger), id.clone());
        let existed = blocking(move || ledger.remove(id.as_str(), precondition)).await?;
        self.changed.notify_one();
        Ok(existed)
    }

    /// Starts a run now, beside the due times, also of a schedule that is off. It is kept when this returns, and its end will be in the history.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while a run of it goes on; [`ErrorKind::Unavailable`] when the node does not run its schedules.
    pub async fn run_now(&self, id: &str) -> Result<Try, EdgeError> {
        if self.keeping.try_lock().is_ok() {
            return Err(EdgeError::new(ErrorKind::Unavailable, "this node does not run its schedules now: it starts or stops; try again"));
        }
        let (ledger, id) = (Arc::clone(&self.ledger), id.to_owned());
        let run = blocking(move || ledger.ask(&id, Timestamp::now())).await?;
        self.changed.notify_one();
        Ok(run)
    }

    /// What ran of a schedule, and what did not.
    pub fn history(&self, id: &str) -> Result<ScheduleHistory, EdgeError> {
        let snapshot = self.ledger.snapshot();
        snapshot.find(id).ok_or_else(|| not_found::<Schedule>(id))?;
        let history = snapshot.state(id).map(|state| state.history());
        Ok(history
            .map(|history| ScheduleHistory { runs: history.newest_first().cloned().collect(), totals: history.totals() })
            .unwrap_or_default())
    }

    /// Says whether the fleet refuses this node: then it starts none of the fleet's schedules, until it is taken again.
    pub(crate) fn set_refused(&self, is_refused: bool) {
        if self.ledger.set_refused(is_refused) {
            if is_refused && self.list().iter().any(|view| view.source == Source::Fleet) {
                tracing::warn!("the fleet refuses this node, which starts none of the fleet's schedules any more");
            }
            self.changed.notify_one();
        }
    }

    /// The functions that schedules run.
    pub(crate) fn functions(&self) -> BTreeSet<FunctionId> {
        self.ledger.snapshot().all().into_values().map(|(record, _)| record.wanted.function.clone()).collect()
    }

    /// Runs them until it is told to stop, see [`Node::keep_scheduled`](crate::Node::keep_scheduled).
    pub(crate) async fn keep(&self, stop: &CancellationToken) {
        let _one = self.keeping.lock().await;
        keeper::keep(self, stop).await;
    }
}

/// Refuses a schedule that says nothing, or nothing any more.
pub(crate) fn check(schedule: &Schedule, now: Timestamp) -> Result<(), EdgeError> {
    schedule.validate()?;
    event::check(schedule)?;
    if schedule.next_after(now).is_some() {
        return Ok(());
    }
    let Schedule { id, when, ends_at, .. } = schedule;
    let until = ends_at.map(|ends_at| format!(" until it ends at {ends_at}")).unwrap_or_default();
    Err(EdgeError::invalid(format!("schedule `{id}` is never due: it is {now}, and `{when}` has no time after that{until}")))
}

fn view(record: &ScheduleRecord, source: Source, state: Option<&ScheduleState>, now: Timestamp) -> ScheduleView {
    let schedule = &record.wanted;
    ScheduleView {
        record: record.clone(),
        source,
        next_due_at: schedule.next_after(now).filter(|_| schedule.enabled),
        running: state.and_then(ScheduleState::running).cloned(),
        waiting: state.map_or(0, |state| state.backlog().len()),
        last: state.and_then(|state| state.history().newest_first().next().cloned()),
        totals: state.map(|state| state.history().totals()).unwrap_or_default(),
    }
}

impl Allotted for Schedule {
    type Id = ScheduleId;
    const KIND: &'static str = "schedule";
    const MAX: usize = SCHEDULES_MAX;
    /// Where a schedule is and its function is not, its runs fail, which its history tells.
    const FOLLOWS_FUNCTION: bool = false;

    fn id(&self) -> &ScheduleId {
        &self.id
    }

    fn function(&self) -> &FunctionId {
        &self.function
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn validate(&self) -> Result<(), EdgeError> {
        Self::validate(self)
    }
}
