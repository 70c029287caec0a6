//! What a replica wants of its hub, and what it wants more than before: of that it has seen nothing, whatever position it has applied.

use std::collections::BTreeSet;

use edgeward_model::EdgeError;

use crate::{
    causality::Position,
    interest::{Interest, Pattern, is_system},
    policy::LOCAL_PREFIX,
    replica_state::Role,
    snapshot::Snapshot,
    transaction::Transaction,
};

/// What the last hello told that is wanted.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) interest: Interest,
    pub(super) digest: u64,
    /// The patterns among it that were declared.
    declared: Vec<Pattern>,
    /// The last document that was there.
    pub(super) last: i64,
}

impl Told {
    /// What is wanted now: what is declared, and what is here.
    pub(super) fn new(transaction: &mut Transaction<'_>, declared: &BTreeSet<Pattern>) -> Result<Self, EdgeError> {
        let declared: Vec<_> = match transaction.state.role() {
            Role::Replica => declared.iter().cloned().collect(),
            Role::Standby | Role::Hub => vec![Pattern::all()],
        };
        let held = transaction.names_after(0)?;
        let last = held.last().map_or(0, |(id, _)| *id);
        let held = held.into_iter().map(|(_, name)| name).filter(|name| !(name.starts_with(LOCAL_PREFIX) || is_system(name)));
        let held = held.map(Pattern::of);
        let interest = Interest::new(declared.iter().cloned().chain(held))?;
        // What is not wanted any more will not come, so the base does not count for it.
        let link = &mut transaction.state.link;
        link.patterns = declared.iter().filter(|pattern| link.patterns.iter().any(|known| known.includes(pattern))).cloned().collect();
        transaction.state.must_store = true;
        Ok(Self { digest: interest.digest(), interest, declared, last })
    }

    /// The last document that is there, if it tells of all after one; else none.
    pub(super) fn tells_of_all_after(&self, snapshot: &Snapshot<'_>, document: i64) -> Result<Option<i64>, EdgeError> {
        let later = snapshot.names_after(document)?;
        let tells_of = |name: &str| name.starts_with(LOCAL_PREFIX) || is_system(name) || self.interest.wants(name);
        Ok(later.iter().all(|(_, name)| tells_of(name)).then(|| later.last().map_or(document, |(id, _)| *id)))
    }

    /// What it tells of that was not wanted before.
    pub(super) fn grown(&self, transaction: &Transaction<'_>) -> Result<Vec<Pattern>, EdgeError> {
        let known = &transaction.state.link.patterns;
        let declared: Vec<_> = self.declared.iter().filter(|pattern| !known.contains(pattern)).cloned().collect();
        let names = transaction.uncovered()?.into_iter().filter(|name| self.interest.wants(name)).map(Pattern::of);
        let names: Vec<_> = names.filter(|name| !declared.iter().any(|pattern| pattern.includes(name))).collect();
        Ok(declared.into_iter().chain(names).collect())
    }

    /// Notes that of all that it tells of every row up to the base is here.
    pub(super) fn cover(&self, transaction: &mut Transaction<'_>) -> Result<bool, EdgeError> {
        transaction.cover(&self.interest, &self.declared)
    }
}

/// Documents that were not wanted before, while their rows are fetched.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) patterns: Vec<Pattern>,
    pub(super) since: Position,
    /// The applied position: a hub that is set back behind what is here learns it by this alone.
    pub(super) until: Position,
    /// Whether it waits for an answer.
    pub(super) is_asked: bool,
}
