//! Gives each node of a fleet what is for it, and takes from it what is not any more.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use edgeward_model::{EdgeError, NodeId};

use super::{
    Allotted, documents,
    record::{self, Record, Records},
    wanted,
};
use crate::fleet::EdgeCluster;

/// What each node is to have.
pub(crate) type WantedOf<T> = BTreeMap<NodeId, Records<T>>;

/// All that is wanted of a kind.
pub(crate) type All<T> = Arc<[Arc<Record<T>>]>;

/// Time between two looks at what nodes have that was not given to them here: a node brings it back to a hub that was set back, or that lagged when it took over.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What a node has, by the version of its document.
#[derive(Debug)]
struct Held<I> {
    version: u64,
    generations: BTreeMap<I, u64>,
}

impl<I> Default for Held<I> {
    fn default() -> Self {
        Self { version: 0, generations: BTreeMap::new() }
    }
}

/// What is wanted and what is assigned, as it was read last: most looks find nothing to do.
pub(crate) struct Assigner<T: Allotted> {
    /// Of the document of what is wanted.
    version: u64,
    wanted: All<T>,
    /// What each node has.
    assigned: BTreeMap<NodeId, Held<T::Id>>,
    /// When that was looked for last.
    looked_at: Option<Instant>,
}

impl<T: Allotted> Default for Assigner<T> {
    fn default() -> Self {
        Self { version: 0, wanted: Arc::default(), assigned: BTreeMap::new(), looked_at: None }
    }
}

impl<T: Allotted> Assigner<T> {
    /// What there is to be; none where there is nothing, and was nothing.
    pub(crate) fn wanted(&mut self, cluster: &EdgeCluster) -> Result<Option<All<T>>, EdgeError> {
        if self.looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            for (node, version) in documents::versions::<T>(cluster.documents())? {
                if self.assigned.get(&node).is_none_or(|held| held.version != version) {
                    let generations = documents::of::<T>(cluster.documents(), &node)?;
                    self.assigned.insert(node, Held { version, generations });
                }
            }
            self.looked_at = Some(Instant::now());
        }
        let document = wanted::document::<T>(cluster)?;
        if document.info()?.map_or(0, |info| info.version) != self.version {
            let (version, records) = record::read::<T>(&document)?;
            (self.version, self.wanted) = (version, records.into_values().collect());
        }
        let has_any = !self.wanted.is_empty() || self.assigned.values().any(|held| !held.generations.is_empty());
        Ok(has_any.then(|| Arc::clone(&self.wanted)))
    }

    /// The nodes that have each.
    pub(crate) fn holders(&self) -> BTreeMap<T::Id, BTreeSet<NodeId>> {
        let mut holders: BTreeMap<T::Id, BTreeSet<NodeId>> = BTreeMap::new();
        for (node, held) in &self.assigned {
            for id in held.generations.keys() {
                holders.entry(id.clone()).or_default().insert(node.clone());
            }
        }
        holders
    }

    /// Has exactly these nodes have them: first what is to go goes, and then comes what is to come. A node that cannot be told is told with the next
    /// look, and keeps no other from it; what it should let go comes to no node in its place meanwhile.
    ///
    /// # Errors
    /// That of the last node that could not be told.
    pub(crate) fn assign(&mut self, cluster: &EdgeCluster, wanted: &WantedOf<T>) -> Result<(), EdgeError> {
        self.assign_by(wanted, |node, come, go| documents::change::<T>(cluster.documents(), node, come, go))
    }

    fn assign_by(
        &mut self,
        wanted: &WantedOf<T>,
        mut tell: impl FnMut(&NodeId, &[Arc<Record<T>>], &[T::Id]) -> Result<(), EdgeError>,
    ) -> Result<(), EdgeError> {
        let (mut outcome, mut stuck) = (Ok(()), BTreeSet::new());
        for (node, Held { generations: held, .. }) in &mut self.assigned {
            let stay = |id: &T::Id| wanted.get(node).is_some_and(|wanted| wanted.contains_key(id.borrow()));
            let gone: Vec<_> = held.keys().filter(|id| !stay(id)).cloned().collect();
            if gone.is_empty() {
                continue;
            }
            match tell(node, &[], &gone) {
                Ok(()) => held.retain(|id, _| stay(id)),
                Err(error) => {
                    outcome = Err(error);
                    stuck.extend(gone);
                }
            }
        }
        for (node, records) in wanted {
            let known = &mut self.assigned.entry(node.clone()).or_default().generations;
            let waits = |record: &Record<T>| record.wanted.target().chosen().is_some() && stuck.contains(record.wanted.id().borrow());
            let is_news = |record: &&Arc<Record<T>>| known.get(record.wanted.id().borrow()) != Some(&record.generation) && !waits(record);
            let news: Vec<_> = records.values().filter(is_news).map(Arc::clone).collect();
            if news.is_empty() {
                continue;
            }
            match tell(node, &news, &[]) {
                Ok(()) => known.extend(news.iter().map(|record| (record.wanted.id().clone(), record.generation))),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use edgeward_model::{ErrorKind, FunctionId, Schedule, ScheduleId};

    use super::*;

    fn node(id: &str) -> NodeId {
        NodeId::new(id).expect("valid")
    }

    fn record(id: &str, target: &str) -> Arc<Record<Schedule>> {
        let (id, function) = (ScheduleId::new(id).expect("valid"), FunctionId::new("f").expect("valid"));
        let schedule = Schedule::new(id, function, "every 1s".parse().expect("valid"));
        Arc::new(Record { generation: 1, since: 1, wanted: Schedule { target: target.parse().expect("valid"), ..schedule } })
    }

    fn wanted(of: &[(&str, &[&Arc<Record<Schedule>>])]) -> WantedOf<Schedule> {
        let schedules =
            |records: &[&Arc<Record<Schedule>>]| records.iter().map(|record| (record.wanted.id.clone(), Arc::clone(record))).collect();
        of.iter().map(|(id, records)| (node(id), schedules(records))).collect()
    }

    #[test]
    fn what_a_node_brings_back_to_a_hub_that_was_set_back_is_seen() {
        let cluster = EdgeCluster::new().expect("opens");
        let (mut assigner, a) = (Assigner::<Schedule>::default(), node("a"));
        assert!(assigner.wanted(&cluster).expect("reads").is_none());
        let brought = record("nightly", "all");
        documents::change::<Schedule>(cluster.documents(), &a, &[brought], &[]).expect("written");
        assert!(assigner.wanted(&cluster).expect("reads").is_none(), "it is not looked for all the time");
        assigner.looked_at = None;
        assert!(assigner.wanted(&cluster).expect("reads").is_some());
        assigner.assign(&cluster, &WantedOf::new()).expect("told");
        assert!(documents::of::<Schedule>(cluster.documents(), &a).expect("reads").is_empty() && assigner.holders().is_empty());

        // One that it was given, and has no more.
        let kept = record("kept", "all");
        let wanted = wanted(&[("a", &[&kept])]);
        assigner.assign(&cluster, &wanted).expect("told");
        documents::change::<Schedule>(cluster.documents(), &a, &[], std::slice::from_ref(&kept.wanted.id)).expect("written");
        assigner.looked_at = None;
        assigner.wanted(&cluster).expect("reads");
        assigner.assign(&cluster, &wanted).expect("told");
        assert_eq!(documents::of::<Schedule>(cluster.documents(), &a).expect("reads").len(), 1);
    }

    #[test]
    fn a_node_that_cannot_be_told_keeps_no_other_from_what_it_is_to_have_and_loses_nothing_to_another() {
        let (one, all) = (record("one", "one"), record("all", "all"));
        let mut assigner = Assigner::default();
        assigner.assign_by(&wanted(&[("a", &[&one, &all])]), |_, _, _| Ok(())).expect("told");
        let next = wanted(&[("b", &[&one, &all]), ("c", &[&all])]);
        let failing = |id: &NodeId, _: &[Arc<Record<Schedule>>], _: &[ScheduleId]| {
            if id.as_str() == "a" { Err(EdgeError::new(ErrorKind::Internal, "its document")) } else { Ok(()) }
        };
        assigner.assign_by(&next, failing).expect_err("a is not told");
        let holders = assigner.holders();
        assert_eq!(holders[&one.wanted.id], [node("a")].into(), "it is not on two nodes");
        assert_eq!(holders[&all.wanted.id], [node("a"), node("b"), node("c")].into());
        assigner.assign_by(&next, |_, _, _| Ok(())).expect("told");
        assert_eq!(assigner.holders()[&one.wanted.id], [node("b")].into());
    }
}
