//! The hub: takes the writes of replicas, decides what is sequential and what is a conflict, and gives each row its position.
//!
//! Every answer that promises something is made from what is committed. It keeps nothing of a connection, so that any request may be
//! lost, repeated or late.

mod audience;
mod collection;
mod comparison;
mod feed;
mod taking;
pub(crate) mod writers;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use edgeward_model::{EdgeError, ErrorKind, NodeId};
use parking_lot::Mutex;

use crate::{
    access::Access,
    causality::{Epoch, Lineage, Position},
    clock::Stamp,
    error::reading,
    hub::{
        collection::{collect_document, forget_conflicts},
        taking::Taking,
        writers::{changed_after, note_writer, put_writer, writer},
    },
    interest::{Interest, Scope, is_system, subject},
    planted::{self, Bug},
    policy::LOCAL_PREFIX,
    replica_state::Role,
    row::{Body, Row},
    snapshot::{DocumentHead, Snapshot, from_sql, to_sql},
    store::Store,
    transaction::Transaction,
    wire::{self, Ack, Asker, Fate, Hello, Keys, Push, Question, Request, Response, Rows, RowsWriter, SentRow, Welcome, Writer},
};

/// How far a stamp may be ahead of the hub's clock.
pub const CLOCK_AHEAD_MILLIS_MAX: u64 = 60_000;
/// How far a stamp may be ahead of the greatest that the hub has taken.
const STAMP_AHEAD_MILLIS_MAX: u64 = 1_000;
/// After this time without a hello a replica holds back no tombstone, and a conflict ages out.
const FORGET_AFTER_MILLIS: u64 = 30 * 24 * 3600 * 1000;

/// Rows of one answer: tests have answers that are not the last.
const ROWS_MAX: usize = if cfg!(test) { 4 } else { usize::MAX };
/// Interests that are remembered of one node: copies of its store may have others.
const INTERESTS_MAX: usize = 8;

/// The hub of a fleet, on its store. Thread-safe.
pub struct Hub {
    store: Arc<Store>,
    epoch: Epoch,
    lineage: Lineage,
    access: Arc<Access>,
    refused: AtomicU64,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    replicas: HashMap<NodeId, Replica>,
    /// The term of the lease, while this hub holds it.
    term: Option<u64>,
    /// The highest floor of a document.
    floor_max: Position,
}

/// What is remembered of a replica.
#[derive(Default)]
struct Replica {
    /// Up to where it has said to have applied.
    applied: Position,
    /// What it wants, by digest, the newest last.
    interests: VecDeque<(u64, Arc<Interest>)>,
}

impl Hub {
    /// The hub on this store, which must have been opened as one or promoted. Its epoch is durable when this returns. Every node may see and write every
    /// document, but those whose names say otherwise, see [`names_allow`](crate::access::names_allow).
    pub fn new(store: Arc<Store>) -> Result<Self, EdgeError> {
        Self::with_access(store, |_, _| true)
    }

    /// The same with a rule that may keep a node also from others, by name: its writes to them are refused, and it hears nothing of them. The
    /// rule must always say the same.
    pub fn with_access(store: Arc<Store>, rule: impl Fn(&NodeId, &str) -> bool + Send + Sync + 'static) -> Result<Self, EdgeError> {
        let (epoch, lineage) = store.write(|transaction| {
            if !transaction.state.is_hub() {
                return Err(EdgeError::new(ErrorKind::Internal, "the store of a replica cannot be a hub; a standby is promoted first"));
            }
            Ok((transaction.state.epoch, transaction.state.link.lineage.clone()))
        })?;
        let floor_max = store.read(floor_max)?;
        let memory = Mutex::new(Memory { floor_max, ..Memory::default() });
        Ok(Self { store, epoch, lineage, access: Arc::new(Access::new(rule)), refused: AtomicU64::new(0), memory })
    }

    /// Rows that nodes wrote to documents that they may not write, since this hub was made.
    pub fn refused_rows(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Lets these nodes see and write everything, as other hubs that follow this one: to be called before they first say hello.
    pub fn set_standbys(&self, standbys: impl IntoIterator<Item = NodeId>) {
        self.access.set_standbys(standbys);
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
            Request::Hello(hello) => hello.node.clone(),
            Request::Push(push) => push.rows.writer()?.0,
            Request::Ask(asker, _) => asker.node.clone(),
        };
        if speaker != *node {
            return Err(EdgeError::new(
                ErrorKind::Forbidden,
                format!("node `{node}` sent a frame of the sync protocol for node `{speaker}`"),
            ));
        }
        self.respond(number, message, request, now_millis)
    }

    /// Does `work` in one transaction, unless the store became that of a standby meanwhile.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, EdgeError> + Send + 'static,
    ) -> Result<T, EdgeError> {
        let epoch = self.epoch;
        self.store.write(move |transaction| {
            if !transaction.state.is_hub() || transaction.state.epoch != epoch {
                return Err(deposed());
            }
            work(transaction)
        })
    }

    fn respond(&self, number: u32, message: &[u8], request: Request, now_millis: u64) -> Result<Vec<u8>, EdgeError> {
        if self.store.role() != Role::Hub {
            return Err(deposed());
        }
        let response = match request {
            Request::Hello(hello) => wire::message(&Response::Welcome(self.welcome(hello, now_millis)?)),
            Request::Push(push) => self.push(push, message, now_millis)?,
            Request::Ask(asker, question) => wire::message(&self.reply(asker, question, now_millis)?),
        };
        Ok(wire::frame(number, &response))
    }

    fn reply(&self, asker: Asker, question: Question, now_millis: u64) -> Result<Response, EdgeError> {
        let Asker { node, hub, interest } = asker;
        let known = || {
            let memory = self.memory.lock();
            let interests = &memory.replicas.get(&node)?.interests;
            interests.iter().find(|(digest, _)| *digest == interest).map(|(_, interest)| Arc::clone(interest))
        };
        let Some(interest) = known().filter(|_| hub == self.epoch) else { return Ok(Response::HelloAgain) };
        let may_see = |document: &str| self.access.allows(&node, document);
        let apart = (!self.access.is_standby(&node)).then_some(&node);
        let scope = Scope { interest: &interest, may_see: &may_see, node: apart };
        match question {
            Question::Pull { epoch, counter, since, writers } => {
                let writers = writers.filter(|_| self.access.is_standby(&node));
                self.pull(&node, scope, (epoch, counter), since, writers)
            }
            Question::Fetch { patterns, since, until } => {
                self.rows(Scope { interest: &Interest::new(patterns)?, ..scope }, (since, until), None, |_| true)
            }
            Question::Documents { from, until, digests } => {
                self.store.read(|snapshot| comparison::documents(snapshot, scope, &from, until, digests))
            }
            Question::Buckets { document, digests } => {
                self.store.read(|snapshot| comparison::buckets(snapshot, scope, &document, &digests))
            }
            Question::Keys(keys) => self.compare(scope, keys),
            Question::Give { rows } => self.give(node.clone(), rows, now_millis),
        }
    }

    fn welcome(&self, hello: Hello, now_millis: u64) -> Result<Welcome, EdgeError> {
        let version = wire::agree(hello.versions)?;
        let interest = Arc::new(Interest::new(hello.interest.iter().cloned())?);
        let lineage = self.lineage.clone();
        let applied = hello.applied;
        let told_lineage = self.access.is_standby(&hello.node).then(|| lineage.clone());
        let (epoch, node, floor_max) = (self.epoch, hello.node.clone(), self.memory.lock().floor_max);
        let welcome = self.write(move |transaction| {
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
            let (lineage, more) = (told_lineage, Vec::new());
            Ok(Welcome { node, epoch, feed, now_millis, stamp_millis_max, taken, epochs, resync, set_back, lineage, version, more })
        })?;
        let mut memory = self.memory.lock();
        let replica = memory.replicas.entry(node).or_default();
        replica.applied = applied.filter(|(known, _)| *known == self.epoch).map_or(0, |(_, position)| position);
        let digest = interest.digest();
        replica.interests.retain(|(known, _)| *known != digest);
        replica.interests.push_back((digest, interest));
        let excess = replica.interests.len().saturating_sub(INTERESTS_MAX);
        replica.interests.drain(..excess);
        Ok(welcome)
    }

    fn push(&self, push: Push, message: &[u8], now_millis: u64) -> Result<Vec<u8>, EdgeError> {
        let Push { chain, after, upto, rows } = push;
        let (node, epoch) = rows.writer()?;
        let rows = rows.read()?;
        if rows.iter().any(|sent| sent.row.origin.dot.node != node || sent.row.origin.dot.epoch != epoch) {
            return Err(EdgeError::invalid("a frame of the sync protocol holds rows of another writer"));
        }
        let next = wire::chain(chain, message);
        let (lineage, term, access) = (self.lineage.clone(), self.memory.lock().term, Arc::clone(&self.access));
        let sender = node.clone();
        let (answer, refused) = self.write(move |transaction| {
            let Some(known) = writer(transaction, &node, epoch)? else { return Ok((wire::message(&Response::HelloAgain), None)) };
            if chain == known.before && next == known.chain && !known.answer.is_empty() {
                return Ok((known.answer, None));
            }
            let fits = chain == known.chain && after == known.acknowledged;
            if !fits && !planted::has(Bug::CloneNotFenced) {
                let why = if after > known.acknowledged { Response::HelloAgain } else { Response::Forked };
                return Ok((wire::message(&why), None));
            }
            let latest = stamp_millis_max(transaction, now_millis);
            if rows.iter().any(|sent| sent.row.stamp.millis() > latest) {
                return Ok((wire::message(&Response::Clock), None));
            }
            let taken = rows.iter().map(|sent| sent.row.stamp).max().unwrap_or_default().max(known.taken);
            let mut taking = Taking::new(transaction, &lineage, term, false);
            let (mut fates, mut refused) = (Vec::new(), Vec::new());
            for sent in rows {
                fates.push(if sent.row.origin.dot.counter <= known.acknowledged {
                    Fate::Superseded(taking.end())
                } else if may_write(&access, &node, &sent) {
                    taking.take(sent)?
                } else {
                    refused.push(sent.document);
                    Fate::Lost
                });
            }
            taking.finish(now_millis)?;
            // A hub that is set back to before this frame has not come so far.
            let end = transaction.state.feed;
            fates.iter_mut().filter(|fate| matches!(fate, Fate::Superseded(_))).for_each(|fate| *fate = Fate::Superseded(end));
            let answer = wire::message(&Response::Ack(ack(transaction.state.epoch, upto, &fates)));
            let writer = Writer { acknowledged: upto, chain: next, before: chain, answer: answer.clone(), taken, ..known };
            put_writer(transaction, &writer)?;
            Ok((answer, Some(refused)))
        })?;
        self.note_refused(&sender, &refused.unwrap_or_default());
        Ok(answer)
    }

    fn note_refused(&self, node: &NodeId, documents: &[Arc<str>]) {
        let Some(document) = documents.first() else { return };
        self.refused.fetch_add(documents.len() as u64, Ordering::Relaxed);
        tracing::warn!(%node, rows = documents.len(), document = &**document, "a node wrote to documents that are not its own; nothing was changed");
    }

    fn pull(
        &self,
        node: &NodeId,
        scope: Scope<'_>,
        (epoch, counter): (Epoch, u64),
        since: Position,
        writers: Option<u64>,
    ) -> Result<Response, EdgeError> {
        if since > 0 && since < self.memory.lock().floor_max {
            return Ok(Response::HelloAgain);
        }
        let response = self.rows(scope, (since, Position::MAX), writers, |row| {
            // Its own writes have their positions from the acknowledgement; of a set others may have removed some.
            let dot = &row.origin.dot;
            let is_own = dot.node == *node && ((dot.epoch == epoch && dot.counter <= counter) || planted::has(Bug::WrongEchoFilter));
            !is_own || matches!(row.body, Body::Member(_))
        })?;
        self.memory.lock().replicas.entry(node.clone()).or_default().applied = since;
        Ok(response)
    }

    /// The rows after a position and up to another, and with the last of them the writers after a number.
    fn rows(
        &self,
        scope: Scope<'_>,
        (since, until): (Position, Position),
        writers: Option<u64>,
        is_told: impl Fn(&Row) -> bool,
    ) -> Result<Response, EdgeError> {
        self.store.read(|snapshot| {
            let mut writer = RowsWriter::default();
            let mut left = ROWS_MAX;
            let (upto, is_all) = feed::each_since(snapshot, scope, since, until, |SentRow { document, key, slot, mut row }, position| {
                row.place(self.lineage.epoch_at(position).unwrap_or(self.epoch), position);
                let is_taken = !is_told(&row) || (left > 0 && writer.add(&document, &key, &slot, &row));
                left = left.saturating_sub(1);
                Ok(is_taken)
            })?;
            let (writers, is_whole) = match writers {
                None => (Vec::new(), is_all),
                // What is acknowledged of a writer is to be there before it is told.
                Some(number) if (is_all && writer.leaves_room()) || planted::has(Bug::WritersAheadOfRows) => {
                    let (writers, is_last) = changed_after(snapshot, number)?;
                    (writers, is_all && is_last)
                }
                Some(_) => (Vec::new(), false),
            };
            Ok(Response::Rows { rows: writer.finish(), upto, more: !is_whole, writers })
        })
    }

    /// Compares the rows of a bucket.
    fn compare(&self, scope: Scope<'_>, keys: Keys) -> Result<Response, EdgeError> {
        let document: Arc<str> = Arc::from(keys.document.as_str());
        let (different, deleted) = self.store.read(|snapshot| comparison::keys(snapshot, scope, &self.lineage, self.epoch, keys))?;
        if !deleted.is_empty() {
            let (lineage, term) = (self.lineage.clone(), self.memory.lock().term);
            self.write(move |transaction| {
                let mut taking = Taking::new(transaction, &lineage, term, true);
                taking.decided = deleted.into_iter().map(|key| (Arc::clone(&document), key, None)).collect();
                taking.finish(0)
            })?;
        }
        Ok(Response::Different(different))
    }

    /// Takes rows that were found different.
    fn give(&self, node: NodeId, rows: Rows, now_millis: u64) -> Result<Response, EdgeError> {
        let rows = rows.read()?;
        let (lineage, term, access) = (self.lineage.clone(), self.memory.lock().term, Arc::clone(&self.access));
        self.write(move |transaction| {
            let latest = stamp_millis_max(transaction, now_millis);
            if rows.iter().any(|sent| sent.row.stamp.millis() > latest) {
                return Ok(Response::Clock);
            }
            let mut taking = Taking::new(transaction, &lineage, term, true);
            for sent in rows.into_iter().filter(|sent| may_write(&access, &node, sent)) {
                taking.take(sent)?;
            }
            taking.finish(now_millis)?;
            Ok(Response::Taken { end: transaction.state.feed })
        })
    }

    /// Forgets tombstones that every replica has applied, or that are older than 30 days, and conflicts of that age. To be called now
    /// and then.
    pub fn collect(&self, now_millis: u64) -> Result<(), EdgeError> {
        let applied: HashMap<_, _> = self.memory.lock().replicas.iter().map(|(node, replica)| (node.clone(), replica.applied)).collect();
        let (floor, living) = self.write(move |transaction| {
            let (mut least, mut living) = (Position::MAX, HashSet::new());
            let mut statement = transaction.prepare("SELECT DISTINCT node FROM writers WHERE seen_at >= ?1")?;
            let oldest = now_millis.saturating_sub(FORGET_AFTER_MILLIS);
            let nodes = statement.query_map([to_sql(oldest)], |row| row.get::<_, String>(0)).map_err(reading)?;
            for node in nodes {
                let node = node.map_err(reading)?;
                least = least.min(applied.get(node.as_str()).copied().unwrap_or(0));
                living.insert(node);
            }
            if planted::has(Bug::EarlyTombstoneCollection) {
                least = Position::MAX;
            }
            for (id, name) in transaction.names_after(0)?.into_iter().filter(|(_, name)| !name.starts_with(LOCAL_PREFIX)) {
                collect_document(transaction, &DocumentHead::new(id, &name), least, oldest, now_millis)?;
            }
            forget_conflicts(transaction, oldest, now_millis)?;
            // Openings that a living replica has not named for so long are before the last that it names.
            let forget = "DELETE FROM writers WHERE seen_at < ?1 AND node IN (SELECT node FROM writers WHERE seen_at >= ?1)
                AND number < (SELECT max(number) FROM writers)";
            transaction.execute(forget, [to_sql(oldest)])?;
            Ok((floor_max(transaction)?, living))
        })?;
        let mut memory = self.memory.lock();
        memory.floor_max = floor;
        memory.replicas.retain(|node, _| living.contains(node.as_str()));
        Ok(())
    }
}

/// Says that this hub is one no more.
fn deposed() -> EdgeError {
    EdgeError::new(ErrorKind::Unavailable, "this hub has become a standby; ask the one that it follows")
}

/// Whether a node may write this row.
fn may_write(access: &Access, node: &NodeId, sent: &SentRow) -> bool {
    let subject = subject(&sent.document, &sent.key);
    is_system(subject) || access.allows_writing(node, subject)
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
    snapshot.names_after(0)?.iter().try_fold(0, |most: Position, (id, _)| Ok(most.max(snapshot.floor(*id)?)))
}

fn to_u32(index: usize) -> u32 {
    u32::try_from(index).expect("a frame has few rows")
}
