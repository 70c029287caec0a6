//! The schedules of a node and how each stands: in its documents, and the same in memory.
//!
//! A change is on the disk before it is seen here, and a run is before it starts: a crash in between is found as an interrupted run. Reading takes
//! a snapshot and never waits for a change that is on its way to the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use edgeward_cluster::schedule::{ScheduleState, Try};
use edgeward_model::{DocumentName, EdgeError, ErrorKind, NodeId, Schedule, ScheduleId, limits::SCHEDULES_MAX};
use edgeward_sync::{Document, Documents, Draft, Precondition as DocumentPrecondition, policy::LOCAL_PREFIX};
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use super::ScheduleRecord;
use crate::{
    allotments::{
        given, not_found,
        record::{self, Records},
    },
    desired::Precondition,
    node::Source,
    stored,
};

/// What is known at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// Of the document of the node's own schedules.
    version: u64,
    own: Records<Schedule>,
    assigned: Records<Schedule>,
    states: BTreeMap<ScheduleId, Arc<ScheduleState>>,
}

impl Snapshot {
    /// A schedule, and who wants it here. Of two of one id the hub's runs.
    pub(super) fn find(&self, id: &str) -> Option<(&Arc<ScheduleRecord>, Source)> {
        let assigned = self.assigned.get(id).map(|record| (record, Source::Fleet));
        assigned.or_else(|| self.own.get(id).map(|record| (record, Source::Node)))
    }

    /// Every schedule, by id.
    pub(super) fn all(&self) -> BTreeMap<&ScheduleId, (&Arc<ScheduleRecord>, Source)> {
        let own = self.own.iter().map(|(id, record)| (id, (record, Source::Node)));
        own.chain(self.assigned.iter().map(|(id, record)| (id, (record, Source::Fleet)))).collect()
    }

    /// How a schedule stands; none before it was looked at.
    pub(super) fn state(&self, id: &str) -> Option<&Arc<ScheduleState>> {
        self.states.get(id)
    }
}

/// A run to be started.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) record: Arc<ScheduleRecord>,
    pub(super) run: Try,
}

/// A run that has ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) id: ScheduleId,
    pub(super) run: Try,
    pub(super) result: Result<(), String>,
}

/// What a look at all schedules came to.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) starts: Vec<Start>,
    /// When the next run begins, if nothing happens before.
    pub(super) next_look: Option<Timestamp>,
}

/// The documents and what they hold. Changing them blocks until the change is on disk.
#[derive(Debug)]
pub(super) struct Ledger {
    node: NodeId,
    schedules: Document,
    states: Document,
    assigned: Document,
    snapshot: ArcSwap<Snapshot>,
    changing: Mutex<Changing>,
    /// Whether the fleet refuses this node: then nothing of the fleet's starts, as it is others' to run.
    is_refused: AtomicBool,
}

/// Held while something changes.
#[derive(Debug, Default)]
struct Changing {
    /// After a failed change of schedules: what is on disk is then not known.
    is_doubtful: bool,
    /// Runs that somebody asked for, which are kept and not started.
    asked: Vec<Start>,
    /// Schedules with a run that has not ended, also of a schedule that is gone: one of its name waits for it.
    busy: BTreeSet<ScheduleId>,
}

impl Changing {
    /// Starts none of the runs that somebody asked for of these.
    fn forget_asked(&mut self, is_gone: impl Fn(&ScheduleId) -> bool) {
        for start in self.asked.extract_if(.., |start| is_gone(&start.record.wanted.id)) {
            self.busy.remove(&start.record.wanted.id);
        }
    }
}

impl Ledger {
    /// The time by which schedules are due.
    pub(super) fn now(&self) -> Timestamp {
        self.states.now()
    }

    pub(super) fn open(documents: &Documents, node: NodeId) -> Result<Self, EdgeError> {
        let document = |name: String| Ok::<_, EdgeError>(documents.document(DocumentName::new(name)?));
        let schedules = document(format!("{LOCAL_PREFIX}schedules"))?;
        let states = document(format!("{LOCAL_PREFIX}schedule-states"))?;
        let assigned = given::document::<Schedule>(documents, &node)?;
        let (version, own) = record::read::<Schedule>(&schedules)?;
        let mut snapshot =
            Snapshot { version, own, assigned: given::read(&assigned, &Records::<Schedule>::new())?, states: BTreeMap::new() };
        let mut gone = Vec::new();
        for (key, value) in states.entries("")? {
            match (snapshot.find(&key).map(|(record, _)| record.wanted.id.clone()), stored::of_value(&value, || "its state".to_owned())) {
                (Some(id), Ok(state)) => drop(snapshot.states.insert(id, Arc::new(state))),
                (Some(_), Err(error)) => {
                    tracing::warn!(schedule = key, error = error.chain(), "how a schedule stood could not be read; it begins anew");
                }
                // The process ended between the two changes of a removal.
                (None, _) => gone.push(key),
            }
        }
        if !gone.is_empty() {
            states.edit(DocumentPrecondition::None, move |draft| gone.iter().try_for_each(|key| draft.remove(key)))?;
        }
        Ok(Self {
            node,
            schedules,
            states,
            assigned,
            snapshot: ArcSwap::from_pointee(snapshot),
            changing: Mutex::default(),
            is_refused: AtomicBool::new(false),
        })
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Says whether the fleet refuses this node. Returns whether that is another than before.
    pub(super) fn set_refused(&self, is_refused: bool) -> bool {
        self.is_refused.swap(is_refused, Ordering::Relaxed) != is_refused
    }

    /// What the hub wants here.
    pub(super) fn assigned(&self) -> &Document {
        &self.assigned
    }

    /// Makes this the schedule of its id. Returns it with its new generation, and whether its id is new.
    pub(super) fn put(&self, schedule: Schedule, precondition: Precondition) -> Result<(Arc<ScheduleRecord>, bool), EdgeError> {
        let mut changing = self.settled()?;
        let mut next = self.check(schedule.id.as_str(), precondition)?;
        let since = next.own.get(&schedule.id).map_or(next.version, |before| before.since);
        let record = Arc::new(ScheduleRecord { generation: next.version, since, wanted: schedule });
        let id = record.wanted.id.clone();
        let is_new = next.own.insert(id.clone(), Arc::clone(&record)).is_none();
        if next.own.len() > SCHEDULES_MAX {
            let message = format!("this node has {SCHEDULES_MAX} schedules, which is the most; remove one first");
            return Err(EdgeError::new(ErrorKind::TooLarge, message));
        }
        let value = record::to_value(&record)?;
        self.change(&mut changing, next, move |draft| draft.set(id.as_str(), &value))?;
        Ok((record, is_new))
    }

    /// Removes the schedule of this id with its history. Returns whether there was one. A run of it ends by itself.
    pub(super) fn remove(&self, id: &str, precondition: Precondition) -> Result<bool, EdgeError> {
        let mut changing = self.settled()?;
        let mut next = self.check(id, precondition)?;
        if next.own.remove(id).is_none() {
            return Ok(false);
        }
        next.states.remove(id);
        let key = id.to_owned();
        self.change(&mut changing, next, move |draft| draft.remove(&key))?;
        changing.forget_asked(|of| of.as_str() == id);
        let key = id.to_owned();
        if let Err(error) = self.states.edit(DocumentPrecondition::None, move |draft| draft.remove(&key)) {
            tracing::warn!(schedule = id, error = error.chain(), "the history of a removed schedule could not be removed");
        }
        Ok(true)
    }

    /// What comes after a change of the schedule of this id, if it may be made.
    fn check(&self, id: &str, precondition: Precondition) -> Result<Snapshot, EdgeError> {
        let snapshot = self.snapshot.load();
        given::check_own::<Schedule>(&snapshot.assigned, id)?;
        precondition.check(|| format!("schedule `{id}`"), snapshot.own.get(id).map(|record| record.generation))?;
        let mut next = Snapshot::clone(&snapshot);
        next.version += 1;
        Ok(next)
    }

    /// Takes the right to change. After a failed change the disk decides what is wanted.
    fn settled(&self) -> Result<MutexGuard<'_, Changing>, EdgeError> {
        let mut changing = self.changing.lock();
        if changing.is_doubtful {
            let (version, own) = record::read::<Schedule>(&self.schedules)?;
            self.snapshot.store(Arc::new(Snapshot { version, own, ..Snapshot::clone(&self.snapshot.load()) }));
            changing.is_doubtful = false;
        }
        Ok(changing)
    }

    /// Makes one change of the node's own schedules, which leads from the snapshot to `next`.
    fn change(
        &self,
        changing: &mut Changing,
        next: Snapshot,
        edit: impl FnOnce(&mut Draft<'_, '_>) -> Result<(), EdgeError> + Send + 'static,
    ) -> Result<(), EdgeError> {
        let precondition = match self.snapshot.load().version {
            0 => DocumentPrecondition::Absent,
            version => DocumentPrecondition::Version(version),
        };
        self.schedules.edit(precondition, edit).inspect_err(|_| changing.is_doubtful = true)?;
        self.snapshot.store(Arc::new(next));
        Ok(())
    }

    /// Keeps a run that somebody asks for; the next turn starts it. Where one is due now, it is that.
    pub(super) fn ask(&self, id: &str, now: Timestamp) -> Result<Try, EdgeError> {
        let mut changing = self.settled()?;
        let mut next = Snapshot::clone(&self.snapshot.load());
        let (record, _) = next.find(id).ok_or_else(|| not_found::<Schedule>(id))?;
        let record = Arc::clone(record);
        let mut state = next.state(id).map(|state| ScheduleState::clone(state)).unwrap_or_default();
        let is_free = !changing.busy.contains(id) && state.running().is_none();
        let due = if is_free { state.look(&record.wanted, &self.node, now) } else { None };
        let run = due.or_else(|| state.start_asked(now)).filter(|_| is_free).ok_or_else(|| {
            EdgeError::new(
                ErrorKind::Conflict,
                format!("schedule `{id}` runs now, and two of its runs never go on at once; wait for its end"),
            )
        })?;
        self.keep(&mut next, [(record.wanted.id.clone(), state)].into())?;
        changing.busy.insert(record.wanted.id.clone());
        changing.asked.push(Start { record, run: run.clone() });
        Ok(run)
    }

    /// To be called before the first turn of a process, and after turns were given up: what ran then does so no more.
    pub(super) fn recover(&self, now: Timestamp) -> Result<(), EdgeError> {
        let mut changing = self.settled()?;
        (changing.asked, changing.busy) = (Vec::new(), BTreeSet::new());
        let mut next = Snapshot::clone(&self.snapshot.load());
        let mut changed = BTreeMap::new();
        for (id, (record, _)) in next.all() {
            if let Some(state) = next.state(id.as_str()).filter(|state| state.running().is_some()) {
                let mut state = ScheduleState::clone(state);
                state.recover(&record.wanted, now);
                changed.insert(id.clone(), state);
            }
        }
        self.keep(&mut next, changed)
    }

    /// Takes the ends of runs, and decides what is to be started now: on the disk first. Nothing has happened when it fails.
    pub(super) fn turn(&self, ended: &[Ended], now: Timestamp) -> Result<Turn, EdgeError> {
        self.turn_if(ended, now, true)
    }

    /// Takes the ends of the last runs, and starts nothing.
    pub(super) fn finish(&self, ended: &[Ended], now: Timestamp) -> Result<(), EdgeError> {
        self.turn_if(ended, now, false).map(drop)
    }

    fn turn_if(&self, ended: &[Ended], now: Timestamp, may_start: bool) -> Result<Turn, EdgeError> {
        let mut changing = self.settled()?;
        let mut next = Snapshot::clone(&self.snapshot.load());
        let mut busy = changing.busy.clone();
        let mut ends: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for one in ended {
            busy.remove(&one.id);
            ends.entry(&one.id).or_default().push(one);
        }
        let (mut turn, mut changed) = (Turn::default(), BTreeMap::new());
        let is_refused = self.is_refused.load(Ordering::Relaxed);
        for (id, (record, source)) in next.all() {
            let schedule = &record.wanted;
            let before = next.state(id.as_str());
            let is_held = busy.contains(id) || (source == Source::Fleet && is_refused);
            let ends = ends.remove(id).unwrap_or_default();
            if let Some(before) = before.filter(|_| ends.is_empty()) {
                // Of many, most have only to wait.
                let at = before.next_look(schedule, &self.node, now).filter(|_| !is_held);
                if !may_start || at.is_none_or(|at| at > now) {
                    turn.next_look = turn.next_look.into_iter().chain(at).min();
                    continue;
                }
            }
            let mut state = before.map(|state| ScheduleState::clone(state)).unwrap_or_default();
            for Ended { run, result, .. } in ends {
                state.end(schedule, &self.node, run, result.as_ref().copied().map_err(String::as_str), now);
            }
            if may_start && !is_held && state.next_look(schedule, &self.node, now).is_some_and(|at| at <= now) {
                let start = state.look(schedule, &self.node, now);
                turn.starts.extend(start.map(|run| Start { record: Arc::clone(record), run }));
            }
            let next_look = state.next_look(schedule, &self.node, now).filter(|_| !is_held);
            turn.next_look = turn.next_look.into_iter().chain(next_look).min();
            if before.is_none_or(|before| **before != state) {
                changed.insert(id.clone(), state);
            }
        }
        self.keep(&mut next, changed)?;
        busy.extend(turn.starts.iter().map(|start| start.record.wanted.id.clone()));
        changing.busy = busy;
        turn.starts.append(&mut changing.asked);
        Ok(turn)
    }

    /// Reads what the hub wants here. What is not wanted any more loses its history, also when another of its name has come meanwhile.
    pub(super) fn read_assigned(&self) -> Result<(), EdgeError> {
        let mut changing = self.settled()?;
        let mut next = Snapshot::clone(&self.snapshot.load());
        let before = std::mem::take(&mut next.assigned);
        next.assigned = given::read(&self.assigned, &before)?;
        let is_another = |id: &ScheduleId| before.get(id).zip(next.assigned.get(id)).is_some_and(|(before, now)| before.since != now.since);
        let gone: Vec<_> = next.states.keys().filter(|id| next.find(id.as_str()).is_none() || is_another(id)).cloned().collect();
        next.states.retain(|id, _| !gone.contains(id));
        if !gone.is_empty() {
            let keys = gone.clone();
            self.states.edit(DocumentPrecondition::None, move |draft| keys.iter().try_for_each(|id| draft.remove(id.as_str())))?;
        }
        self.snapshot.store(Arc::new(next));
        changing.forget_asked(|id| gone.contains(id));
        Ok(())
    }

    /// Makes these the states of their schedules, on the disk and then here.
    fn keep(&self, next: &mut Snapshot, changed: BTreeMap<ScheduleId, ScheduleState>) -> Result<(), EdgeError> {
        if changed.is_empty() {
            return Ok(());
        }
        let values: Vec<_> =
            changed.iter().map(|(id, state)| Ok((id.clone(), stored::to_value(state)?))).collect::<Result<_, EdgeError>>()?;
        self.states
            .edit(DocumentPrecondition::None, move |draft| values.iter().try_for_each(|(id, value)| draft.set(id.as_str(), value)))?;
        next.states.extend(changed.into_iter().map(|(id, state)| (id, Arc::new(state))));
        self.snapshot.store(Arc::new(next.clone()));
        Ok(())
    }
}
