//! Gives each node of a fleet what is for it, and takes from it what is not any more.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
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

/// What is wanted and what is assigned, as it was read last: most looks find nothing to do.
pub(crate) struct Assigner<T: Allotted> {
    /// Of the document of what is wanted.
    version: u64,
    wanted: All<T>,
    /// The generations of what each node has; none before it was read.
    assigned: Option<BTreeMap<NodeId, BTreeMap<T::Id, u64>>>,
}

impl<T: Allotted> Default for Assigner<T> {
    fn default() -> Self {
        Self { version: 0, wanted: Arc::default(), assigned: None }
    }
}

impl<T: Allotted> Assigner<T> {
    /// What there is to be; none where there is nothing, and was nothing.
    pub(crate) fn wanted(&mut self, cluster: &EdgeCluster) -> Result<Option<All<T>>, EdgeError> {
        if self.assigned.is_none() {
            let documents = cluster.documents();
            let assigned =
                documents::nodes::<T>(documents)?.into_iter().map(|node| Ok((node.clone(), documents::of::<T>(documents, &node)?)));
            self.assigned = Some(assigned.collect::<Result<_, EdgeError>>()?);
        }
        let document = wanted::document::<T>(cluster)?;
        if document.info()?.map_or(0, |info| info.version) != self.version {
            let (version, records) = record::read::<T>(&document)?;
            (self.version, self.wanted) = (version, records.into_values().collect());
        }
        let has_any = !self.wanted.is_empty() || self.assigned.iter().flat_map(BTreeMap::values).any(|held| !held.is_empty());
        Ok(has_any.then(|| Arc::clone(&self.wanted)))
    }

    /// The nodes that have each.
    pub(crate) fn holders(&self) -> BTreeMap<T::Id, BTreeSet<NodeId>> {
        let mut holders: BTreeMap<T::Id, BTreeSet<NodeId>> = BTreeMap::new();
        for (node, held) in self.assigned.iter().flatten() {
            for id in held.keys() {
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
        let assigned = self.assigned.get_or_insert_default();
        for (node, held) in assigned.iter_mut() {
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
            let known = assigned.entry(node.clone()).or_default();
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
    fn a_node_that_cannot_be_told_keeps_no_other_from_what_it_is_to_have_and_loses_nothing_to_another() {
        let (one, all) = (record("one", "one"), record("all", "all"));
        let mut assigner = Assigner { assigned: Some(BTreeMap::new()), ..Assigner::default() };
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
