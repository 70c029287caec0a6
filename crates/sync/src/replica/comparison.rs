//! A comparison of all that a replica has and is told of with its hub: digests of documents, then of buckets of keys, then of rows.
//!
//! A row that neither the hub gave nor its lineage knows is given to the hub first, and joined there.

use std::{collections::VecDeque, sync::Arc};

use edgeward_model::EdgeError;

use crate::{
    causality::{Epoch, Lineage, Position},
    clock::time,
    digest,
    hub::writers,
    interest::{Pattern, Scope, is_system},
    merge::Merge,
    record,
    replica::{growth::Told, join::join, tells_of_more, write},
    replica_state::Role,
    snapshot::Snapshot,
    store::Store,
    view::Stored,
    wire::{self, Different, Keys, Known, Question, RowsWriter, SentRow},
};

/// Rows that one request to compare names.
const COMPARED_ROWS_MAX: usize = 4000;
/// Documents that one request to compare names.
const COMPARED_DOCUMENTS_MAX: usize = 4000;

/// A comparison of everything, while it goes on.
#[derive(Debug)]
pub(super) struct Comparison {
    /// The end of the hub's feed when it began.
    feed: Position,
    /// Up to where the rows of a hub that was set back were applied.
    lost: Option<(Epoch, Position)>,
    /// Whether the hub asked for it, or an earlier one did not end.
    is_due: bool,
    /// Of what these mean nothing was applied, and so nothing lost.
    grown: Vec<Pattern>,
    step: Step,
    /// The documents from this name on are compared next, up to before the second; none is the end.
    from_document: String,
    until_document: Option<String>,
    documents: Vec<String>,
    buckets: Vec<u8>,
    from: String,
    /// Rows that the hub wants, and those that are on their way to it.
    give: VecDeque<SentRow>,
    given: Vec<SentRow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Documents,
    Buckets,
    Keys,
}

impl Comparison {
    pub(super) fn new(feed: Position, lost: Option<(Epoch, Position)>, is_due: bool, grown: Vec<Pattern>) -> Self {
        Self {
            feed,
            lost,
            is_due,
            grown,
            step: Step::Documents,
            from_document: String::new(),
            until_document: None,
            documents: Vec::new(),
            buckets: Vec::new(),
            from: String::new(),
            give: VecDeque::new(),
            given: Vec::new(),
        }
    }

    /// Up to where the rows of a document were applied: of one that was not wanted then, nothing.
    fn lost_of(&self, document: &str) -> Option<(Epoch, Position)> {
        let is_new = if is_system(document) { !self.grown.is_empty() } else { self.grown.iter().any(|pattern| pattern.matches(document)) };
        self.lost.filter(|_| !is_new)
    }

    /// The documents that differ, up to before one.
    pub(super) fn go_on_with(&mut self, documents: Vec<String>, until: Option<String>) {
        (self.documents, self.until_document, self.step) = (documents, until, Step::Buckets);
    }

    /// The buckets of a document that differ, a bit for each.
    pub(super) fn go_on_with_buckets(&mut self, mask: u64) {
        self.buckets = (0..64).filter(|bucket| mask & (1 << bucket) != 0).collect();
        self.step = Step::Keys;
        self.from.clear();
    }

    /// The next request; none when all was compared.
    pub(super) fn next(&mut self, store: &Store, told: &Told) -> Result<Option<Question>, EdgeError> {
        let scope = Scope { interest: &told.interest, may_see: &|_| true, node: None };
        if !self.give.is_empty() {
            let mut writer = RowsWriter::default();
            while let Some(sent) = self.give.pop_front_if(|sent| writer.add(&sent.document, &sent.key, &sent.slot, &sent.row)) {
                self.given.push(sent);
            }
            return Ok(Some(Question::Give { rows: writer.finish() }));
        }
        loop {
            match self.step {
                Step::Documents => {
                    let from = self.from_document.clone();
                    let (until, digests) = store.read(|snapshot| {
                        let mut documents = scope.documents(snapshot)?;
                        documents.retain(|(_, name)| **name >= *from);
                        let until = documents.get(COMPARED_DOCUMENTS_MAX).map(|(_, name)| name.to_string());
                        documents.truncate(COMPARED_DOCUMENTS_MAX);
                        Ok((until, digest::of_documents(snapshot, scope, documents, false).collect::<Result<_, _>>()?))
                    })?;
                    return Ok(Some(Question::Documents { from, until, digests }));
                }
                Step::Buckets => {
                    let Some(document) = self.documents.last() else {
                        let Some(next) = self.until_document.take() else { return Ok(None) };
                        (self.from_document, self.step) = (next, Step::Documents);
                        continue;
                    };
                    let digests = store.read(|snapshot| digest::of_named(snapshot, document, scope, false))?;
                    return Ok(Some(Question::Buckets { document: document.clone(), digests }));
                }
                Step::Keys => {
                    let (Some(document), Some(bucket)) = (self.documents.last(), self.buckets.last().copied()) else {
                        self.documents.pop();
                        self.step = Step::Buckets;
                        continue;
                    };
                    let (rows, until) = store.read(|snapshot| known_rows(snapshot, scope, document, bucket, &self.from))?;
                    let (document, from, lost) = (document.clone(), self.from.clone(), self.lost_of(document));
                    return Ok(Some(Question::Keys(Keys { document, bucket, from, until, rows, lost })));
                }
            }
        }
    }

    /// Notes that all was compared: what the hub had when it began is here.
    pub(super) fn end(&self, store: &Store, told: Arc<Told>, lineage: Option<Lineage>, hub: Epoch) -> Result<(), EdgeError> {
        let (feed, is_due) = (self.feed, self.is_due);
        write(store, move |transaction| {
            let link = &mut transaction.state.link;
            if link.base.entries().first().is_some_and(|(epoch, _)| *epoch != hub) {
                link.base.limit(link.whole);
            }
            link.base.advance(hub, feed);
            // What was pulled since the welcome may be further on.
            let is_past = link.base.entries().first().is_some_and(|(_, position)| *position > feed);
            link.whole = if is_past { link.whole.max(feed) } else { feed };
            link.must_compare = false;
            if is_due && transaction.state.role() == Role::Standby {
                // Those that are here may be of another hub, or of this one before it was set back.
                writers::forget(transaction)?;
            }
            transaction.state.follow(lineage);
            if told.cover(transaction)? {
                transaction.state.link.base.keep_only(hub);
            }
            Ok(())
        })
    }

    /// What the hub was given it has joined: by this position it knows it.
    pub(super) fn taken(&mut self, store: &Store, hub: Epoch, end: Position) -> Result<(), EdgeError> {
        let given = std::mem::take(&mut self.given);
        write(store, move |transaction| {
            for sent in given {
                let Some(head) = transaction.document(&sent.document)? else { continue };
                if let Some(mut stored) = transaction.row(&head, &sent.key, &sent.slot)?
                    && stored.row.origin.dot == sent.row.origin.dot
                {
                    stored.row.place(hub, end);
                    transaction.put_row(&head, &sent.key, &sent.slot, &stored)?;
                }
            }
            Ok(())
        })
    }

    /// Takes what the hub has otherwise. Returns false when it told of writes of this opening that are not here.
    pub(super) fn compared(&mut self, store: &Store, told: &Arc<Told>, different: Different, now_millis: u64) -> Result<bool, EdgeError> {
        let told = Arc::clone(told);
        let (Some(document), Some(bucket)) = (self.documents.last().cloned(), self.buckets.last().copied()) else { return Ok(true) };
        let Different { rows, wanted, gone, until } = different;
        let (rows, from) = (rows.read()?, self.from.clone());
        let compared = write(store, move |transaction| {
            if tells_of_more(transaction, &rows)? {
                return Ok(None);
            }
            let (known, end) =
                known_rows(transaction, Scope { interest: &told.interest, may_see: &|_| true, node: None }, &document, bucket, &from)?;
            let name: Arc<str> = Arc::from(document);
            let find = |index: &u32| known.get(*index as usize).and_then(|known| Some((known, record::slot_of(&known.slot)?)));
            let mut give = VecDeque::new();
            if let Some(head) = transaction.document(&name)? {
                for (known, slot) in wanted.iter().filter_map(find) {
                    if let Some(stored) = transaction.row(&head, &known.key, &slot)? {
                        give.push_back(SentRow { document: Arc::clone(&name), key: known.key.clone(), slot, row: stored.row });
                    }
                }
            }
            // What the hub wants is joined there first: here it may be the only one.
            let is_wanted = |sent: &SentRow| give.iter().any(|given: &SentRow| given.key == sent.key && given.slot == sent.slot);
            let decided = rows.into_iter().filter(|sent| !is_wanted(sent));
            let mut merge = Merge::default();
            let mut others = Vec::new();
            for sent in decided {
                let mut place = merge.place(transaction, &sent.document, &sent.key, &sent.slot)?;
                if sent.document == name && place.rows.get(&sent.slot).is_some_and(|stored| stored.seq.is_none()) {
                    transaction.state.clock.observe(sent.row.stamp);
                    merge.put(transaction, &sent.document, &sent.key, &sent.slot, Stored { row: sent.row, seq: None }, &mut place)?;
                } else {
                    others.push(sent);
                }
            }
            for (known, slot) in gone.iter().filter_map(find) {
                let mut place = merge.place(transaction, &name, &known.key, &slot)?;
                if place.rows.get(&slot).is_some_and(|stored| stored.seq.is_none()) {
                    merge.remove(transaction, &name, &known.key, &slot, &mut place)?;
                }
            }
            merge.finish(transaction, time(now_millis))?;
            join(transaction, others, time(now_millis))?;
            Ok(Some((give, end)))
        })?;
        let Some((give, end)) = compared else { return Ok(false) };
        self.give = give;
        if !self.give.is_empty() {
            // Then it asks for these again.
            return Ok(true);
        }
        if let Some(next) = until.filter(|until| end.as_ref().is_none_or(|end| until <= end)).or(end) {
            self.from = next;
        } else {
            self.buckets.pop();
            self.from.clear();
        }
        Ok(true)
    }
}

/// The rows of a bucket from a key on that are compared, and the key before which they end.
fn known_rows(
    snapshot: &Snapshot<'_>,
    scope: Scope<'_>,
    document: &str,
    bucket: u8,
    from: &str,
) -> Result<(Vec<Known>, Option<String>), EdgeError> {
    let Some(head) = snapshot.head(document)? else { return Ok((Vec::new(), None)) };
    let mut rows: Vec<Known> = Vec::new();
    let mut until = None;
    let mut bytes = 0;
    let is_seen = |key: &str| digest::bucket(key) == bucket && scope.sees(document, key);
    snapshot.each_row_of(head.id, from, is_seen, |key, slot, stored| {
        let is_full = rows.len() >= COMPARED_ROWS_MAX || bytes > wire::FRAME_BYTES_MAX / 2;
        if is_full && rows.last().is_some_and(|last| last.key != key) {
            until = Some(key.to_owned());
            return Ok(false);
        }
        let digest = digest::of_row(key, &slot, &stored.row);
        let slot = record::slot_bytes(&slot);
        bytes += key.len() + slot.len() + 64;
        rows.push(Known { key: key.to_owned(), slot, digest, positions: stored.row.positions, is_unsent: stored.seq.is_some() });
        Ok(true)
    })?;
    Ok((rows, until))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_document_that_was_not_wanted_before_nothing_was_applied() {
        let pattern = |text: &str| text.parse::<Pattern>().expect("valid");
        let of = |grown: Vec<Pattern>| Comparison::new(9, Some((Epoch(7), 9)), false, grown);
        let applied = Some((Epoch(7), 9));
        let settled = of(Vec::new());
        assert_eq!((settled.lost_of("cellar"), settled.lost_of("edgeward.policies")), (applied, applied));
        let grown = of(vec![pattern("cellar"), pattern("sites.*")]);
        assert_eq!((grown.lost_of("cellar"), grown.lost_of("sites.berlin"), grown.lost_of("attic")), (None, None, applied));
        // Policies come with the documents that they are about.
        assert_eq!(grown.lost_of("edgeward.policies"), None);
    }
}
