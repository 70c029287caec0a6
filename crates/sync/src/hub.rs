//! The hub: takes the writes of replicas, decides what is sequential and what is a conflict, and gives each row its position.
//!
//! Every answer that promises something is made from what is committed. It keeps nothing of a connection, so that any request may be
//! lost, repeated or late.

mod collection;
mod taking;
mod writers;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use edgeward_model::{EdgeError, ErrorKind, NodeId};
use parking_lot::Mutex;
use rusqlite::params;

use crate::{
    causality::{Epoch, Lineage, Position},
    clock::Stamp,
    digest,
    error::{damaged, reading},
    hub::{
        collection::{collect_document, forget_conflicts},
        taking::Taking,
        writers::{note_writer, writer},
    },
    planted::{self, Bug},
    policy::{LOCAL_PREFIX, POLICIES},
    record,
    replica_state::Role,
    row::{Body, Slot},
    snapshot::{Snapshot, from_sql, to_sql},
    store::Store,
    transaction::Transaction,
    wire::{self, Ack, Different, Fate, Hello, Keys, Push, Request, Response, Rows, RowsWriter, SentRow, Welcome},
};

/// How far a stamp may be ahead of the hub's clock.
pub const CLOCK_AHEAD_MILLIS_MAX: u64 = 60_000;
/// How far a stamp may be ahead of the greatest that the hub has taken.
const STAMP_AHEAD_MILLIS_MAX: u64 = 1_000;
/// After this time without a hello a replica holds back no tombstone, and a conflict ages out.
const FORGET_AFTER_MILLIS: u64 = 30 * 24 * 3600 * 1000;

/// The hub of a fleet, on its store. Thread-safe.
pub struct Hub {
    store: Arc<Store>,
    epoch: Epoch,
    lineage: Lineage,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// Up to where each replica has said to have applied.
    applied: HashMap<NodeId, Position>,
    /// The term of the lease, while this hub holds it.
    term: Option<u64>,
    /// The highest floor of a document.
    floor_max: Position,
}

impl Hub {
    /// The hub on this store, which must have been opened as one. Its epoch is durable when this returns.
    pub fn new(store: Arc<Store>) -> Result<Self, EdgeError> {
        if store.role() != Role::Hub {
            return Err(EdgeError::new(ErrorKind::Internal, "the store of a replica cannot be a hub"));
        }
        let (epoch, lineage) = store.write(|transaction| Ok((transaction.state.epoch, transaction.state.link.lineage.clone())))?;
        let floor_max = store.read(floor_max)?;
        Ok(Self { store, epoch, lineage, memory: Mutex::new(Memory { floor_max, ..Memory::default() }) })
    }

    /// Lets this hub decide between an edge's write and its own, in this term of the lease; none lets it no more.
    pub fn set_term(&self, term: Option<u64>) {
        if term.is_none() && planted::has(Bug::ArbitrationByTwoHubs) {
            return;
        }
        self.memory.lock().term = term;
    }

    /// The end of its feed. A replica that has applied less has something to pull.
    pub fn feed(&self) -> Result<Position, EdgeError> {
        self.store.read(last_position)
    }

    /// Answers a frame of a replica.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the frame is damaged; those of the disk. The replica then hears nothing, and asks again.
    pub fn answer(&self, frame: &[u8], now_millis: u64) -> Result<Vec<u8>, EdgeError> {
        let (number, message) = wire::open(frame)?;
        self.respond(number, message, wire::read(message)?, now_millis)
    }

    /// Answers a frame that came over a connection of this node.
    ///
    /// # Errors
    /// As [`Hub::answer`]; and [`ErrorKind::Forbidden`] when the frame speaks for another node.
    pub fn answer_node(&self, node: &NodeId, frame: &[u8], now_millis: u64) -> Result<Vec<u8>, EdgeError> {
        let (number, message) = wire::open(frame)?;
        let request: Request = wire::read(message)?;
        let speaker = match &request {
            Request::Hello(hello) => Some(hello.node.clone()),
            Request::Push(push) => Some(push.rows.writer()?.0),
            Request::Pull { node, .. } => Some(node.clone()),
            Request::Documents { .. } | Request::Buckets { .. } | Request::Keys(_) | Request::Give { .. } => None,
        };
        if let Some(other) = speaker.filter(|speaker| speaker != node) {
            return Err(EdgeError::new(
                ErrorKind::Forbidden,
                format!("node `{node}` sent a frame of the sync protocol for node `{other}`"),
            ));
        }
        self.respond(number, message, request, now_millis)
    }

    fn respond(&self, number: u32, message: &[u8], request: Request, now_millis: u64) -> Result<Vec<u8>, EdgeError> {
        let response = match request {
            Request::Hello(hello) => wire::message(&Response::Welcome(self.welcome(hello, now_millis)?)),
            Request::Push(push) => self.push(push, message, now_millis)?,
            Request::Pull { hub, node, epoch, counter, since } if hub == self.epoch => {
                wire::message(&self.pull(node, epoch, counter, since)?)
            }
            Request::Documents { hub, digests } if hub == self.epoch => wire::message(&self.documents(digests)?),
            Request::Buckets { hub, document, digests } if hub == self.epoch => wire::message(&self.buckets(&document, &digests)?),
            Request::Keys(keys) if keys.hub == self.epoch => wire::message(&self.keys(keys)?),
            Request::Give { hub, rows } if hub == self.epoch => wire::message(&self.give(rows, now_millis)?),
            _ => wire::message(&Response::HelloAgain),
        };
        Ok(wire::frame(number, &response))
    }

    fn welcome(&self, hello: Hello, now_millis: u64) -> Result<Welcome, EdgeError> {
        let lineage = self.lineage.clone();
        let applied = hello.applied;
        let (epoch, node, floor_max) = (self.epoch, hello.node.clone(), self.memory.lock().floor_max);
        let welcome = self.store.write(move |transaction| {
            let (mut epochs, mut taken) = (Vec::new(), Stamp::ZERO);
            let mut before = &hello.ancestors[..];
            for epoch in std::iter::once(hello.epoch).chain(hello.ancestors.iter().map(|(epoch, _)| *epoch)) {
                note_writer(transaction, &hello.node, epoch, before, now_millis)?;
                before = before.split_first().map(|(_, before)| before).unwrap_or_default();
                if let Some(writer) = writer(transaction, &hello.node, epoch)? {
                    epochs.push((epoch, writer.acknowledged, writer.chain));
                    taken = taken.max(writer.taken);
                }
            }
            let feed = transaction.state.feed;
            let (resync, set_back) = match applied {
                None => (false, false),
                Some((known, position)) => match lineage.reach(known, feed) {
                    Some(end) if position <= end => (position < floor_max, false),
                    _ => (true, true),
                },
            };
            let stamp_millis_max = stamp_millis_max(transaction, now_millis);
            let node = transaction.node().clone();
            Ok(Welcome { node, epoch, feed, now_millis, stamp_millis_max, taken, epochs, resync, set_back })
        })?;
        if let Some((known, position)) = applied
            && known == self.epoch
        {
            self.note_applied(node, position);
        } else {
            self.memory.lock().applied.remove(&node);
        }
        Ok(welcome)
    }

    fn note_applied(&self, node: NodeId, position: Position) {
        self.memory.lock().applied.insert(node, position);
    }

    fn push(&self, push: Push, message: &[u8], now_millis: u64) -> Result<Vec<u8>, EdgeError> {
        let Push { chain, after, upto, rows } = push;
        let (node, epoch) = rows.writer()?;
        let rows = rows.read()?;
        if rows.iter().any(|sent| sent.row.origin.dot.node != node || sent.row.origin.dot.epoch != epoch) {
            return Err(EdgeError::invalid("a frame of the sync protocol holds rows of another writer"));
        }
        let next = wire::chain(chain, message);
        let (lineage, term) = (self.lineage.clone(), self.memory.lock().term);
        self.store.write(move |transaction| {
            let Some(known) = writer(transaction, &node, epoch)? else { return Ok(wire::message(&Response::HelloAgain)) };
            if chain == known.before && next == known.chain && !known.answer.is_empty() {
                return Ok(known.answer);
            }
            let fits = chain == known.chain && after == known.acknowledged;
            if !fits && !planted::has(Bug::CloneNotFenced) {
                return Ok(wire::message(&if after > known.acknowledged { Response::HelloAgain } else { Response::Forked }));
            }
            let latest = stamp_millis_max(transaction, now_millis);
            if rows.iter().any(|sent| sent.row.stamp.millis() > latest) {
                return Ok(wire::message(&Response::Clock));
            }
            let taken = rows.iter().map(|sent| sent.row.stamp).max().unwrap_or_default().max(known.taken);
            let mut taking = Taking::new(transaction, &lineage, term, false);
            let mut fates = Vec::new();
            for sent in rows {
                let is_old = sent.row.origin.dot.counter <= known.acknowledged;
                fates.push(if is_old { Fate::Superseded(taking.end()) } else { taking.take(sent)? });
            }
            taking.finish(now_millis)?;
            // A hub that is set back to before this frame has not come so far.
            let end = transaction.state.feed;
            fates.iter_mut().filter(|fate| matches!(fate, Fate::Superseded(_))).for_each(|fate| *fate = Fate::Superseded(end));
            let answer = wire::message(&Response::Ack(ack(transaction.state.epoch, upto, &fates)));
            let update =
                "UPDATE writers SET acknowledged = ?3, chain = ?4, before = ?5, answer = ?6, taken = ?7 WHERE node = ?1 AND epoch = ?2";
            let (node, epoch) = (node.as_str(), to_sql(epoch.0));
            transaction.execute(update, params![node, epoch, to_sql(upto), to_sql(next), to_sql(chain), answer, to_sql(taken.bits())])?;
            Ok(answer)
        })
    }

    fn pull(&self, node: NodeId, epoch: Epoch, counter: u64, since: Position) -> Result<Response, EdgeError> {
        let floor_max = self.memory.lock().floor_max;
        let response = self.store.read(|snapshot| {
            if since > 0 && since < floor_max {
                return Ok(Response::HelloAgain);
            }
            let (mut writer, mut upto, mut more) = (RowsWriter::default(), since, false);
            snapshot.feed(since, |SentRow { document, key, slot, mut row }, position| {
                row.place(self.lineage.epoch_at(position).unwrap_or(self.epoch), position);
                let is_hidden = document.starts_with(LOCAL_PREFIX) || (*document == *POLICIES && planted::has(Bug::PolicyNotReplicated));
                // Its own writes have their positions from the acknowledgement; of a set others may have removed some.
                let dot = &row.origin.dot;
                let is_own = dot.node == node && ((dot.epoch == epoch && dot.counter <= counter) || planted::has(Bug::WrongEchoFilter));
                let is_hidden = is_hidden || (is_own && !matches!(row.body, Body::Member(_)));
                more = !is_hidden && !writer.add(&document, &key, &slot, &row);
                if !more {
                    upto = position;
                }
                Ok(!more)
            })?;
            Ok(Response::Rows { rows: writer.finish(), upto, more })
        })?;
        if matches!(response, Response::Rows { .. }) {
            self.note_applied(node, since);
        }
        Ok(response)
    }

    fn documents(&self, digests: Vec<(String, wire::Digest)>) -> Result<Response, EdgeError> {
        let own: BTreeMap<_, _> = self.store.read(|snapshot| digest::of_documents(snapshot, true))?.into_iter().collect();
        let theirs: BTreeMap<_, _> = digests.into_iter().collect();
        let names: std::collections::BTreeSet<_> = own.keys().chain(theirs.keys()).collect();
        let documents = names.into_iter().filter(|name| own.get(*name) != theirs.get(*name)).cloned().collect();
        Ok(Response::Differ { documents })
    }

    fn buckets(&self, document: &str, digests: &[wire::Digest]) -> Result<Response, EdgeError> {
        let own = self.store.read(|snapshot| digest::of_named(snapshot, document, true))?;
        if digests.len() != own.len() {
            return Err(EdgeError::invalid(format!("{} digests of buckets came, not {}", digests.len(), own.len())));
        }
        let different = own.iter().zip(digests).enumerate().filter(|(_, (own, theirs))| own != theirs);
        Ok(Response::DifferentBuckets { mask: different.fold(0, |mask, (bucket, _)| mask | (1 << bucket)) })
    }

    /// Tells rows that a replica lacks or has otherwise, and asks for those that this hub lacks or has otherwise.
    fn keys(&self, request: Keys) -> Result<Response, EdgeError> {
        let Keys { document, bucket, from, until, rows: theirs, lost, .. } = request;
        let (lineage, epoch) = (&self.lineage, self.epoch);
        let known: HashMap<_, _> = theirs.iter().enumerate().map(|(index, known)| ((known.key.as_str(), &known.slot[..]), index)).collect();
        let mut deleted = Vec::new();
        let mut seen = vec![false; theirs.len()];
        let mut different = Different { rows: Rows::default(), wanted: Vec::new(), gone: Vec::new(), until: until.clone() };
        self.store.read(|snapshot| {
            let feed = last_position(snapshot)?;
            let reach =
                |(known, position): &(Epoch, Position)| lineage.reach(*known, feed).filter(|end| position <= end).map(|_| *position);
            let head = snapshot.head(&document)?;
            let mut writer = RowsWriter::default();
            let mut end = until.clone();
            let mut wanted = Vec::new();
            if let Some(head) = &head {
                snapshot.each_row(head, &from, |key, slot, stored| {
                    if until.as_deref().is_some_and(|until| key >= until) {
                        return Ok(false);
                    }
                    if digest::bucket(key) != bucket || !digest::counts(&slot, &stored, true) {
                        return Ok(true);
                    }
                    let bytes = record::slot_bytes(&slot);
                    let theirs_at = known.get(&(key, &bytes[..])).copied();
                    if let Some(index) = theirs_at {
                        seen[index] = true;
                        if theirs[index].digest == digest::of_row(key, &slot, &stored.row) {
                            return Ok(true);
                        }
                        // What this hub has given a position it knows: its own row is what became of it.
                        if !theirs[index].is_unsent && !theirs[index].positions.iter().any(|position| reach(position).is_some()) {
                            wanted.push(index);
                        }
                    }
                    let position = stored.seq.ok_or_else(|| damaged("feed"))?;
                    let given_in = lineage.epoch_at(position).unwrap_or(epoch);
                    // What the replica had applied and lacks was deleted, and the deletion forgotten, before this hub was set back.
                    let was_applied = lost.is_some_and(|(known, applied)| lineage.reach(known, feed).unwrap_or(0).min(applied) >= position);
                    if theirs_at.is_none() && was_applied && slot == Slot::Register && !stored.row.is_dead() {
                        deleted.push(key.to_owned());
                        return Ok(true);
                    }
                    let mut row = stored.row;
                    row.place(given_in, position);
                    if !writer.add(&document, key, &slot, &row) {
                        // A key of more rows than a frame holds is told in part.
                        end = Some(if key == from { format!("{key}\0") } else { key.to_owned() });
                        return Ok(false);
                    }
                    Ok(true)
                })?;
            }
            let is_in = |index: &usize| end.as_deref().is_none_or(|end| theirs[*index].key.as_str() < end);
            different.wanted = wanted.into_iter().filter(is_in).map(to_u32).collect();
            for index in (0..theirs.len()).filter(|index| !seen[*index] && !theirs[*index].is_unsent).filter(is_in) {
                // What this hub had and has no more was deleted, and the deletion forgotten.
                let was_forgotten = theirs[index].positions.iter().any(|position| reach(position).is_some());
                if was_forgotten { &mut different.gone } else { &mut different.wanted }.push(to_u32(index));
            }
            (different.rows, different.until) = (writer.finish(), end);
            Ok(())
        })?;
        if !deleted.is_empty() {
            let (document, term) = (Arc::from(document.as_str()), self.memory.lock().term);
            let lineage = self.lineage.clone();
            self.store.write(move |transaction| {
                let mut taking = Taking::new(transaction, &lineage, term, true);
                taking.decided = deleted.into_iter().map(|key| (Arc::clone(&document), key, None)).collect();
                taking.finish(0)
            })?;
        }
        Ok(Response::Different(different))
    }

    /// Takes rows that were found different.
    fn give(&self, rows: Rows, now_millis: u64) -> Result<Response, EdgeError> {
        let rows = rows.read()?;
        let (lineage, term) = (self.lineage.clone(), self.memory.lock().term);
        self.store.write(move |transaction| {
            let latest = stamp_millis_max(transaction, now_millis);
            if rows.iter().any(|sent| sent.row.stamp.millis() > latest) {
                return Ok(Response::Clock);
            }
            let mut taking = Taking::new(transaction, &lineage, term, true);
            for sent in rows {
                taking.take(sent)?;
            }
            taking.finish(now_millis)?;
            Ok(Response::Taken { end: transaction.state.feed })
        })
    }

    /// Forgets tombstones that every replica has applied, or that are older than 30 days, and conflicts of that age. To be called now
    /// and then.
    pub fn collect(&self, now_millis: u64) -> Result<(), EdgeError> {
        let applied = self.memory.lock().applied.clone();
        let floor = self.store.write(move |transaction| {
            let mut least = Position::MAX;
            let mut statement = transaction.prepare("SELECT DISTINCT node FROM writers WHERE seen_at >= ?1")?;
            let oldest = now_millis.saturating_sub(FORGET_AFTER_MILLIS);
            let nodes = statement.query_map([to_sql(oldest)], |row| row.get::<_, String>(0)).map_err(reading)?;
            for node in nodes {
                let node = node.map_err(reading)?;
                least = least.min(applied.get(node.as_str()).copied().unwrap_or(0));
            }
            if planted::has(Bug::EarlyTombstoneCollection) {
                least = Position::MAX;
            }
            for head in transaction.heads()?.into_iter().filter(|head| !head.name.starts_with(LOCAL_PREFIX)) {
                collect_document(transaction, &head, least, oldest, now_millis)?;
            }
            forget_conflicts(transaction, oldest, now_millis)?;
            // Openings that a living replica has not named for so long are before the last that it names.
            let forget = "DELETE FROM writers WHERE seen_at < ?1 AND node IN (SELECT node FROM writers WHERE seen_at >= ?1)";
            transaction.execute(forget, [to_sql(oldest)])?;
            floor_max(transaction)
        })?;
        self.memory.lock().floor_max = floor;
        Ok(())
    }
}

/// The answer to a push: where its rows are.
fn ack(hub: Epoch, upto: u64, fates: &[Fate]) -> Ack {
    let placed = fates.iter().enumerate().find_map(|(index, fate)| match fate {
        Fate::Placed(position) => position.checked_sub(index as u64),
        _ => None,
    });
    let first = placed.unwrap_or(0);
    let others = fates.iter().enumerate().filter(|(index, fate)| **fate != Fate::Placed(first.saturating_add(*index as u64)));
    Ack { hub, upto, first, fates: others.map(|(index, fate)| (to_u32(index), *fate)).collect() }
}

/// The last millisecond whose stamps are taken.
fn stamp_millis_max(transaction: &Transaction<'_>, now_millis: u64) -> u64 {
    let seen = transaction.state.clock.last().millis();
    now_millis.saturating_add(CLOCK_AHEAD_MILLIS_MAX).max(seen.saturating_add(STAMP_AHEAD_MILLIS_MAX))
}

fn last_position(snapshot: &Snapshot<'_>) -> Result<Position, EdgeError> {
    let last = snapshot.prepare("SELECT coalesce(max(seq), 0) FROM rows WHERE seq IS NOT NULL")?.query_row([], |row| row.get(0));
    last.map(from_sql).map_err(reading)
}

fn floor_max(snapshot: &Snapshot<'_>) -> Result<Position, EdgeError> {
    snapshot.heads()?.iter().try_fold(0, |most: Position, head| Ok(most.max(snapshot.floor(head)?)))
}

fn to_u32(index: usize) -> u32 {
    u32::try_from(index).expect("a frame has few rows")
}
