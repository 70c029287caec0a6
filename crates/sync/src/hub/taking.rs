//! Rows on their way into a hub: what each is to the row that is there, which of them shows, and what is listed as a conflict.

use std::{collections::HashMap, sync::Arc};

use edgeward_model::{EdgeError, NodeId, limits::CONFLICTS_MAX};

use crate::{
    causality::{Ancestors, Epoch, Lineage, Origin, Position},
    clock::time,
    conflict::{self, CONFLICTS, Listing, Why},
    hub::writers::{ancestors, writer},
    merge::{Merge, Place},
    planted::{self, Bug},
    policy::{LOCAL_PREFIX, Policy},
    row::{Body, Relation, Row, Slot},
    transaction::Transaction,
    view::{NewValue, Stored},
    wire::{Fate, SentRow},
};

/// A frame while it is taken.
pub(super) struct Taking<'t, 'a> {
    transaction: &'t mut Transaction<'a>,
    lineage: &'t Lineage,
    merge: Merge,
    ancestors: HashMap<(NodeId, Epoch), Ancestors>,
    listings: Vec<Listing>,
    /// Values that the hub must write anew, as it decided for them.
    pub(super) decided: Vec<(Arc<str>, String, Option<NewValue>)>,
    term: Option<u64>,
    is_resync: bool,
}

impl<'t, 'a> Taking<'t, 'a> {
    pub(super) fn new(transaction: &'t mut Transaction<'a>, lineage: &'t Lineage, term: Option<u64>, is_resync: bool) -> Self {
        let (listings, decided) = (Vec::new(), Vec::new());
        Self { transaction, lineage, merge: Merge::default(), ancestors: HashMap::new(), listings, decided, term, is_resync }
    }

    /// Takes one row: it shows, or what it lost to stays.
    pub(super) fn take(&mut self, sent: SentRow) -> Result<Fate, EdgeError> {
        let SentRow { document, key, slot, row } = sent;
        if document.starts_with(LOCAL_PREFIX) || slot == Slot::Floor {
            return Ok(Fate::Superseded(self.end()));
        }
        let policy = self.transaction.policies()?.policy(&document, &key);
        let mut place = self.merge.place(self.transaction, &document, &key, &slot)?;
        let current = place.rows.get(&slot).cloned();
        let writer = &row.origin.dot.node;
        // What is compared was taken before, by this hub or by one that it followed.
        if !self.is_resync && !policy.allows(&key, writer, writer == self.transaction.node()) {
            if let Some(current) = current.clone() {
                // The writer drops its row: it must get this one, which it may have held for the lesser.
                self.place_anew(&document, &key, &slot, current.row, &mut place)?;
            }
            self.list(&document, &key, row, current.map(|current| current.row), Why::NotOwner);
            return Ok(Fate::Lost);
        }
        // What this hub has taken once it has, or what became of it, also where that is nothing.
        let is_known = self.is_resync && !matches!(row.body, Body::Member(_)) && self.was_acknowledged(&row)?;
        let Some(current) = current else {
            return if is_known { Ok(Fate::Superseded(self.end())) } else { self.take_first(&document, &key, &slot, row, &mut place) };
        };
        let is_register = matches!(row.body, Body::Register(_));
        let is_same = current.row.origin.dot == row.origin.dot && current.row.stamp == row.stamp;
        let relation = self.relation(&row, &current)?;
        if (is_same || is_known || relation == Relation::Stale) && is_register {
            if is_same && row.positions.iter().any(|position| !current.row.positions.contains(position)) {
                let mut known = current.clone();
                row.positions.iter().for_each(|(epoch, position)| known.row.place(*epoch, *position));
                self.merge.put(self.transaction, &document, &key, &slot, known, &mut place)?;
            }
            return Ok(if is_same { Fate::Placed(current.seq.unwrap_or(0)) } else { Fate::Superseded(self.end()) });
        }
        let joined = current.row.clone().join(row.clone(), &policy);
        let is_new = joined.origin.dot != current.row.origin.dot || joined.body != current.row.body;
        let (mut loser, mut winner) = (current.row, row);
        let fate = if is_new {
            Fate::Placed(self.place_anew(&document, &key, &slot, joined, &mut place)?)
        } else {
            std::mem::swap(&mut loser, &mut winner);
            Fate::Superseded(self.end())
        };
        let is_conflict = matches!(relation, Relation::Concurrent | Relation::Same) && conflict::differ(&loser, &winner);
        if is_conflict && is_register {
            if self.decide(&document, &key, &policy, &loser, &winner) {
                std::mem::swap(&mut loser, &mut winner);
            }
            self.list(&document, &key, loser, Some(winner), Why::Concurrent);
        }
        Ok(fate)
    }

    /// Takes a row whose slot is empty.
    fn take_first(&mut self, document: &Arc<str>, key: &str, slot: &Slot, row: Row, place: &mut Place) -> Result<Fate, EdgeError> {
        let floor = self.merge.floor(self.transaction, document)?;
        let was_away = floor > 0 && row.origin.base.position_in(self.lineage) < floor && row.origin.dot.node != *self.transaction.node();
        if was_away && !self.is_resync && !matches!(row.body, Body::Member(_)) && !planted::has(Bug::NoFloor) {
            // What it wrote over may be what was deleted meanwhile.
            let is_lost = row.origin.overwrote.is_some();
            // A count that begins adds to what the others counted, and hides nothing.
            if is_lost || !matches!(row.body, Body::Counter(_)) {
                self.list(document, key, row.clone(), None, Why::BelowFloor);
            }
            if is_lost {
                return Ok(Fate::Lost);
            }
        }
        Ok(Fate::Placed(self.place_anew(document, key, slot, row, place)?))
    }

    /// The end of the feed.
    pub(super) fn end(&self) -> Position {
        self.transaction.state.feed
    }

    fn place_anew(&mut self, document: &Arc<str>, key: &str, slot: &Slot, mut row: Row, place: &mut Place) -> Result<Position, EdgeError> {
        let seq = self.transaction.state.next_seq()?;
        self.transaction.state.must_store = true;
        self.transaction.state.clock.observe(row.stamp);
        if let Body::Counter(subtotal) = &mut row.body {
            subtotal.acknowledged = 0;
        }
        self.merge.put(self.transaction, document, key, slot, Stored { row, seq: Some(seq) }, place)?;
        Ok(seq)
    }

    fn relation(&mut self, row: &Row, current: &Stored) -> Result<Relation, EdgeError> {
        let mut positions = current.row.positions.clone();
        if let Some(seq) = current.seq {
            positions.extend(self.lineage.epoch_at(seq).map(|epoch| (epoch, seq)));
        }
        self.know_ancestors(row)?;
        self.know_ancestors(&current.row)?;
        let covers = |later: &Origin, earlier: &Row, positions: &[(Epoch, Position)]| {
            let ancestors = &self.ancestors[&(later.dot.node.clone(), later.dot.epoch)];
            later.covers(&earlier.origin.dot, positions, ancestors, self.lineage)
        };
        Ok(if row.origin.dot == current.row.origin.dot {
            Relation::Same
        } else if covers(&row.origin, &current.row, &positions) {
            Relation::Sequential
        } else if covers(&current.row.origin, row, &row.positions) {
            Relation::Stale
        } else {
            Relation::Concurrent
        })
    }

    fn was_acknowledged(&self, row: &Row) -> Result<bool, EdgeError> {
        let dot = &row.origin.dot;
        Ok(writer(self.transaction, &dot.node, dot.epoch)?.is_some_and(|writer| dot.counter <= writer.acknowledged))
    }

    fn know_ancestors(&mut self, row: &Row) -> Result<(), EdgeError> {
        let dot = &row.origin.dot;
        let name = (dot.node.clone(), dot.epoch);
        if !self.ancestors.contains_key(&name) {
            let known = ancestors(self.transaction, &dot.node, dot.epoch)?;
            self.ancestors.insert(name, known);
        }
        Ok(())
    }

    /// Where the policy prefers the side that lost, its value is to be written anew. Returns whether it is.
    fn decide(&mut self, document: &Arc<str>, key: &str, policy: &Policy, loser: &Row, winner: &Row) -> bool {
        if !policy.is_arbitrated() || self.term.is_none() {
            return false;
        }
        let is_hubs = |row: &Row| row.origin.dot.node == *self.transaction.node() || self.lineage.includes(row.origin.dot.epoch);
        let prefers_loser = match policy {
            Policy::HubWins => is_hubs(loser) && !is_hubs(winner),
            _ => !is_hubs(loser) && is_hubs(winner),
        };
        if prefers_loser && let Body::Register(register) = &loser.body {
            let value = register.value.clone().map(|text| NewValue { text, raw: register.raw.clone() });
            self.decided.push((Arc::clone(document), key.to_owned(), value));
            return true;
        }
        false
    }

    fn list(&mut self, document: &Arc<str>, key: &str, loser: Row, winner: Option<Row>, why: Why) {
        if !planted::has(Bug::LostConflict) {
            self.listings.push(Listing { document: Arc::clone(document), key: key.to_owned(), loser, winner, why });
        }
    }

    /// Writes what was decided and what is to be listed, and notes what changed.
    pub(super) fn finish(mut self, now_millis: u64) -> Result<(), EdgeError> {
        let now = time(now_millis);
        for (document, key, value) in std::mem::take(&mut self.decided) {
            self.merge.decide(self.transaction, &document, &key, value, self.term.unwrap_or(0), now_millis)?;
        }
        let log: Arc<str> = Arc::from(CONFLICTS);
        for listing in std::mem::take(&mut self.listings) {
            let (key, value) = listing.entry(now)?;
            let head = self.merge.head(self.transaction, &log)?;
            if self.transaction.value(head, &key)?.is_some() {
                continue;
            }
            self.make_room(&log, &listing.document, now_millis)?;
            self.merge.set(self.transaction, &log, &key, Some(&value), now_millis)?;
        }
        self.merge.finish(self.transaction, now)
    }

    /// Forgets the conflict of a document whose loser was written first, when there are as many as may be.
    fn make_room(&mut self, log: &Arc<str>, document: &str, now_millis: u64) -> Result<(), EdgeError> {
        let head = self.merge.head(self.transaction, log)?.clone();
        let prefix = format!("{document}/");
        let keys = self.transaction.live_keys(&head, &prefix)?;
        if keys.len() < CONFLICTS_MAX {
            return Ok(());
        }
        let oldest: Vec<_> = keys.first().and_then(|key| key.strip_prefix(&prefix)).map(str::to_owned).into_iter().collect();
        conflict::forget(self.transaction, &mut self.merge, document, &oldest, now_millis)
    }
}
