//! A replica's side of the protocol: what it asks its hub next, and what it does with the answer. It reads no clock and opens no
//! connection.
//!
//! One request is under way at a time. What the hub acknowledged is confirmed in the transaction that notes it; a frame that was
//! sent is sent again byte for byte until it is answered, so that the hub knows it from the frame of a copy of this store.

use std::{collections::VecDeque, sync::Arc};

use edgeward_model::EdgeError;
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use crate::{
    causality::{Base, Dot, Epoch, Position},
    changes,
    clock::{Clock, Stamp, time},
    digest,
    error::{damaged, reading},
    hub::CLOCK_AHEAD_MILLIS_MAX,
    merge::Merge,
    planted::{self, Bug},
    policy::LOCAL_PREFIX,
    record,
    row::{Addition, Body, Membership, Register, Row, Slot, Subtotal},
    snapshot::{Snapshot, from_sql, stored, to_sql},
    store::Store,
    transaction::Transaction,
    view::Stored,
    wire::{self, Ack, Different, Fate, Hello, Keys, Known, Push, Request, Response, Rows, RowsWriter, SentRow, Welcome},
};

/// Epochs that a hello names beside the current one, newest first.
const ANCESTORS_MAX: u64 = 64;
/// Rows that one request to compare names.
const COMPARED_ROWS_MAX: usize = 4000;

/// What sessions remember of one opening of a store.
#[derive(Debug, Default)]
pub(crate) struct LinkMemory {
    /// The frame that was sent and is not acknowledged.
    in_flight: Option<Arc<InFlight>>,
}

#[cfg(test)]
impl LinkMemory {
    /// A planted bug: the outbox is read before its rows are durable.
    pub(crate) fn send_what_is_not_durable(&mut self, connection: &rusqlite::Connection) -> Result<(), EdgeError> {
        if self.in_flight.is_none() {
            self.in_flight = compose(&Snapshot::new(connection))?.map(Arc::new);
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    epoch: Epoch,
    /// The chain before it and after it.
    before: u64,
    after: u64,
    message: Vec<u8>,
    rows: Vec<SentRow>,
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// It has not been welcomed.
    Connecting,
    /// It sends or fetches.
    Syncing,
    /// The hub has all that is here, and what it had when it was last asked is here.
    Synced,
    /// The clock of this node is more than a minute ahead of the hub's: nothing is sent until it is not.
    ClockAhead,
}

/// One replica's conversation with its hub.
#[expect(clippy::struct_excessive_bools, reason = "each is another thing that it may have to do next")]
#[derive(Debug)]
pub struct ReplicaSession {
    store: Arc<Store>,
    /// The number of the last request.
    number: u32,
    is_waiting: bool,
    state: SessionState,
    welcome: Option<Hub>,
    resync: Option<Resync>,
    wants_pull: bool,
    wants_resync: bool,
    /// Whether the hub took the frame that was sent, and its answer was lost.
    wants_answer: bool,
}

/// What the last welcome said.
#[derive(Clone, Copy, Debug)]
struct Hub {
    epoch: Epoch,
    feed: Position,
}

/// A comparison of everything, while it goes on.
#[derive(Debug)]
struct Resync {
    /// The end of the hub's feed when it began.
    feed: Position,
    /// Up to where the rows of a hub that was set back were applied.
    lost: Option<(Epoch, Position)>,
    step: Step,
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

impl ReplicaSession {
    /// A session of this replica. There may be another one before it, but not beside it.
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            number: 0,
            is_waiting: false,
            state: SessionState::Connecting,
            welcome: None,
            resync: None,
            wants_pull: true,
            wants_resync: false,
            wants_answer: false,
        }
    }

    /// How it stands.
    pub fn state(&self) -> SessionState {
        self.state
    }

    /// Whether it waits for an answer.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Whether it compares all it has with the hub.
    pub fn is_comparing(&self) -> bool {
        self.resync.is_some()
    }

    /// Begins anew: the connection was lost, or an answer did not come in time.
    pub fn reconnect(&mut self) {
        (self.is_waiting, self.welcome, self.resync) = (false, None, None);
        self.state = SessionState::Connecting;
        self.wants_pull = true;
    }

    /// Makes it ask what the hub has: to be called when the hub says that it has something, and now and then.
    pub fn poke(&mut self) {
        self.wants_pull = true;
        if self.state == SessionState::ClockAhead {
            self.welcome = None;
        }
    }

    /// Makes it compare all it has with the hub: to be called about every ten minutes.
    pub fn compare(&mut self) {
        self.wants_resync = true;
    }

    /// The next frame to send; none while an answer is awaited, and when there is nothing to do.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, EdgeError> {
        if self.is_waiting {
            return Ok(None);
        }
        let Some(message) = self.next_message()? else { return Ok(None) };
        self.number = self.number.wrapping_add(1);
        self.is_waiting = true;
        Ok(Some(wire::frame(self.number, &message)))
    }

    fn next_message(&mut self) -> Result<Option<Vec<u8>>, EdgeError> {
        let Some(hub) = self.welcome else {
            return if self.state == SessionState::ClockAhead { Ok(None) } else { self.hello().map(Some) };
        };
        if self.wants_answer
            && let Some(message) = self.push()?
        {
            return Ok(Some(message));
        }
        if self.wants_resync && self.resync.is_none() {
            self.wants_resync = false;
            self.resync = Some(Resync::new(hub.feed, None));
        }
        if let Some(request) = self.compare_next(hub)? {
            return Ok(Some(wire::message(&request)));
        }
        if let Some(message) = self.push()? {
            self.state = SessionState::Syncing;
            return Ok(Some(message));
        }
        if !self.wants_pull {
            self.state = SessionState::Synced;
            return Ok(None);
        }
        self.state = SessionState::Syncing;
        let (epoch, counter, since) = self.store.write(move |transaction| {
            let epoch = transaction.state.epoch;
            Ok((epoch, cursor(transaction, epoch)?.0, applied(&transaction.state.link.base, hub.epoch)))
        })?;
        Ok(Some(wire::message(&Request::Pull { hub: hub.epoch, node: self.store.node().clone(), epoch, counter, since })))
    }

    fn hello(&self) -> Result<Vec<u8>, EdgeError> {
        let node = self.store.node().clone();
        let hello = self.store.write(move |transaction| {
            let select = "SELECT epoch, counter FROM epochs WHERE epoch <> ?1 ORDER BY opening DESC LIMIT ?2";
            let mut statement = transaction.prepare(select)?;
            let epoch = transaction.state.epoch;
            let found = statement.query_map(params![to_sql(epoch.0), to_sql(ANCESTORS_MAX)], |row| Ok((row.get(0)?, row.get(1)?)));
            let ancestors = found
                .map_err(reading)?
                .map(|row| row.map(|(epoch, counter)| (Epoch(from_sql(epoch)), from_sql(counter))).map_err(reading))
                .collect::<Result<_, _>>()?;
            let applied = transaction.state.link.base.entries().first().copied();
            Ok(Hello { node, epoch, ancestors, applied })
        })?;
        Ok(wire::message(&Request::Hello(hello)))
    }

    /// The next frame of the outbox, or the one that is not acknowledged, as it was.
    fn push(&self) -> Result<Option<Vec<u8>>, EdgeError> {
        let mut memory = self.store.link.lock();
        if memory.in_flight.is_none() {
            memory.in_flight = self.store.read(compose)?.map(Arc::new);
        }
        if let Some(in_flight) = &memory.in_flight
            && planted::has(Bug::CursorAdvancedAtSend)
        {
            let (upto, epoch) = (in_flight.upto(), in_flight.epoch);
            self.store.write(move |transaction| acknowledge_up_to(transaction, epoch, upto, None))?;
        }
        Ok(memory.in_flight.as_ref().map(|in_flight| in_flight.message.clone()))
    }

    /// Takes an answer of the hub. A late or repeated one changes nothing.
    ///
    /// # Errors
    /// [`edgeward_model::ErrorKind::InvalidInput`] when the frame is damaged; those of the disk. The session then goes on when it is
    /// told to reconnect.
    pub fn receive(&mut self, frame: &[u8], now_millis: u64) -> Result<(), EdgeError> {
        let (number, message) = wire::open(frame)?;
        if !self.is_waiting || number != self.number {
            return Ok(());
        }
        let response = wire::read(message)?;
        self.is_waiting = false;
        match response {
            Response::Welcome(welcome) => self.welcomed(welcome, now_millis),
            Response::Ack(ack) => self.acknowledged(ack, now_millis),
            Response::Rows { rows, upto, more } => self.pulled(rows, upto, more, now_millis),
            Response::Differ { documents } => {
                if let Some(resync) = &mut self.resync {
                    (resync.documents, resync.step) = (documents, Step::Buckets);
                }
                Ok(())
            }
            Response::DifferentBuckets { mask } => {
                if let Some(resync) = &mut self.resync {
                    resync.buckets = (0..64).filter(|bucket| mask & (1 << bucket) != 0).collect();
                    resync.step = Step::Keys;
                    resync.from.clear();
                }
                Ok(())
            }
            Response::Different(different) => self.compared(different, now_millis),
            Response::Taken { end } => self.taken(end),
            Response::HelloAgain => {
                self.reconnect();
                Ok(())
            }
            Response::Forked => self.forked(),
            Response::Clock => {
                self.welcome = None;
                Ok(())
            }
        }
    }

    fn welcomed(&mut self, welcome: Welcome, now_millis: u64) -> Result<(), EdgeError> {
        if now_millis > welcome.now_millis.saturating_add(CLOCK_AHEAD_MILLIS_MAX) {
            self.state = SessionState::ClockAhead;
            return Ok(());
        }
        let Welcome { node, epoch: hub, feed, now_millis: hub_millis, stamp_millis_max, taken, epochs, resync, set_back } = welcome;
        let in_flight = self.store.link.lock().in_flight.clone();
        let verdict = self.store.write(move |transaction| {
            let own = transaction.state.epoch;
            let known_hub = transaction.state.link.base.entries().first().map(|(epoch, _)| *epoch);
            let mut verdict = Verdict::Fits;
            let mut is_answered = true;
            let mut is_void = false;
            for (epoch, acknowledged, chain) in epochs {
                let (known, known_chain) = cursor(transaction, epoch)?;
                let sent = in_flight.as_ref().filter(|sent| sent.epoch == epoch);
                let was_taken = sent.is_some_and(|sent| sent.before == known_chain && sent.after == chain);
                if epoch == own {
                    is_answered = !was_taken;
                    if (acknowledged, chain) == (known, known_chain) || was_taken || planted::has(Bug::CloneNotFenced) {
                        continue;
                    }
                    verdict = if known_hub == Some(hub) || acknowledged >= known { Verdict::Forked } else { Verdict::SetBack };
                } else if (acknowledged, chain) != (known, known_chain) && !was_taken && !planted::has(Bug::RestoreNotNoticed) {
                    // What the hub took of an earlier opening needs no sending, and what it lost of it is with nobody else: all is compared.
                    transaction.state.link.must_compare |= acknowledged != known;
                    take_over_cursor(transaction, epoch, acknowledged, chain, (hub, feed))?;
                    is_void |= sent.is_some();
                }
            }
            match verdict {
                Verdict::Fits => {}
                Verdict::Forked => begin_apart(transaction)?,
                Verdict::SetBack => transaction.state.change_epoch(transaction.sql(), Epoch::draw()?)?,
            }
            // It is remembered on disk: the next opening may be the one that compares.
            transaction.state.link.must_compare |= resync || verdict != Verdict::Fits;
            transaction.state.must_store = true;
            if verdict == Verdict::Fits {
                transaction.state.link.hub = Some(node);
                transaction.state.link.taken = transaction.state.link.taken.max(taken);
                if !transaction.state.link.must_compare {
                    let applied = transaction.state.link.base.entries().first().map_or(0, |(_, position)| *position);
                    transaction.state.link.base.advance(hub, applied);
                }
                // What the hub has taken keeps its stamps: its answer comes first.
                if is_answered && !planted::has(Bug::QuarantineNeverHeals) {
                    is_void |= restamp(transaction, hub_millis, stamp_millis_max)?;
                }
            }
            let applied = transaction.state.link.base.entries().first().copied();
            Ok((verdict, transaction.state.link.must_compare, applied, is_void, is_answered))
        })?;
        let (verdict, must_compare, applied, is_void, is_answered) = verdict;
        self.wants_answer = !is_answered;
        if verdict != Verdict::Fits {
            self.store.link.lock().in_flight = None;
            self.reconnect();
            return Ok(());
        }
        if is_void {
            // It was never taken, and its rows have another cursor or other stamps now.
            self.store.link.lock().in_flight = None;
        }
        self.welcome = Some(Hub { epoch: hub, feed });
        self.state = SessionState::Syncing;
        self.wants_pull = true;
        if must_compare {
            self.resync = Some(Resync::new(feed, applied.filter(|_| set_back)));
        }
        Ok(())
    }

    /// The hub has more of this epoch than it has acknowledged: the answer to a frame was lost, or another store wrote it.
    fn told_of_more(&mut self) -> Result<(), EdgeError> {
        if self.store.link.lock().in_flight.is_none() {
            return self.forked();
        }
        self.reconnect();
        Ok(())
    }

    /// Another store wrote in this epoch: what the hub has not taken goes on in another.
    fn forked(&mut self) -> Result<(), EdgeError> {
        self.store.write(|transaction| {
            transaction.state.link.must_compare = true;
            begin_apart(transaction)
        })?;
        self.store.link.lock().in_flight = None;
        self.reconnect();
        Ok(())
    }

    fn acknowledged(&mut self, ack: Ack, now_millis: u64) -> Result<(), EdgeError> {
        let Some(in_flight) = self.store.link.lock().in_flight.clone() else { return Ok(()) };
        let must_compare = self.store.write(move |transaction| note_ack(transaction, &in_flight, &ack, time(now_millis)))?;
        // Only now: what could not be noted must be sent again as it was.
        self.store.link.lock().in_flight = None;
        self.wants_answer = false;
        self.wants_resync |= must_compare;
        Ok(())
    }

    fn pulled(&mut self, rows: Rows, upto: Position, more: bool, now_millis: u64) -> Result<(), EdgeError> {
        let Some(hub) = self.welcome else { return Ok(()) };
        let mut rows = rows.read()?;
        if planted::has(Bug::PartialFrameApplied) && rows.len() > 1 {
            rows.pop();
        }
        let policies_changed = self.store.write(move |transaction| {
            if tells_of_more(transaction, &rows)? {
                return Ok(None);
            }
            let before = transaction.policies()?;
            apply(transaction, rows, time(now_millis))?;
            transaction.state.link.base.advance(hub.epoch, upto);
            transaction.state.must_store = true;
            Ok(Some(*before != *transaction.policies()?))
        })?;
        let Some(policies_changed) = policies_changed else { return self.told_of_more() };
        self.wants_pull = more;
        // What was joined under another policy may have to be joined anew.
        self.wants_resync |= policies_changed;
        Ok(())
    }

    /// The next request of a comparison; none when it is over.
    fn compare_next(&mut self, hub: Hub) -> Result<Option<Request>, EdgeError> {
        let Some(resync) = &mut self.resync else { return Ok(None) };
        let hub = hub.epoch;
        if !resync.give.is_empty() {
            let mut writer = RowsWriter::default();
            while let Some(sent) = resync.give.pop_front_if(|sent| writer.add(&sent.document, &sent.key, &sent.slot, &sent.row)) {
                resync.given.push(sent);
            }
            return Ok(Some(Request::Give { hub, rows: writer.finish() }));
        }
        loop {
            match resync.step {
                Step::Documents => {
                    let digests = self.store.read(|snapshot| digest::of_documents(snapshot, false))?;
                    return Ok(Some(Request::Documents { hub, digests }));
                }
                Step::Buckets => {
                    let Some(document) = resync.documents.last() else { break };
                    let digests = self.store.read(|snapshot| digest::of_named(snapshot, document, false))?;
                    return Ok(Some(Request::Buckets { hub, document: document.clone(), digests }));
                }
                Step::Keys => {
                    let (Some(document), Some(bucket)) = (resync.documents.last(), resync.buckets.last().copied()) else {
                        resync.documents.pop();
                        resync.step = Step::Buckets;
                        continue;
                    };
                    let (rows, until) = self.store.read(|snapshot| known_rows(snapshot, document, bucket, &resync.from))?;
                    let (document, from) = (document.clone(), resync.from.clone());
                    return Ok(Some(Request::Keys(Keys { hub, document, bucket, from, until, rows, lost: resync.lost })));
                }
            }
        }
        let feed = resync.feed;
        self.store.write(move |transaction| {
            transaction.state.link.base.advance(hub, feed);
            (transaction.state.link.must_compare, transaction.state.must_store) = (false, true);
            Ok(())
        })?;
        self.resync = None;
        Ok(None)
    }

    /// What the hub was given it has joined: by this position it knows it.
    fn taken(&mut self, end: Position) -> Result<(), EdgeError> {
        let (Some(resync), Some(hub)) = (&mut self.resync, self.welcome) else { return Ok(()) };
        let given = std::mem::take(&mut resync.given);
        self.store.write(move |transaction| {
            for sent in given {
                let Some(head) = transaction.document(&sent.document)? else { continue };
                if let Some(mut stored) = transaction.row(&head, &sent.key, &sent.slot)?
                    && stored.row.origin.dot == sent.row.origin.dot
                {
                    stored.row.place(hub.epoch, end);
                    transaction.put_row(&head, &sent.key, &sent.slot, &stored)?;
                }
            }
            Ok(())
        })
    }

    fn compared(&mut self, different: Different, now_millis: u64) -> Result<(), EdgeError> {
        let Some(resync) = &mut self.resync else { return Ok(()) };
        let (Some(document), Some(bucket)) = (resync.documents.last().cloned(), resync.buckets.last().copied()) else { return Ok(()) };
        let Different { rows, wanted, gone, until } = different;
        let (rows, from) = (rows.read()?, resync.from.clone());
        let compared = self.store.write(move |transaction| {
            if tells_of_more(transaction, &rows)? {
                return Ok(None);
            }
            let (known, end) = known_rows(transaction, &document, bucket, &from)?;
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
            apply(transaction, others, time(now_millis))?;
            Ok(Some((give, end)))
        })?;
        let Some((give, end)) = compared else { return self.told_of_more() };
        resync.give = give;
        if !resync.give.is_empty() {
            // Then it asks for these again.
            return Ok(());
        }
        if let Some(next) = until.filter(|until| end.as_ref().is_none_or(|end| until <= end)).or(end) {
            resync.from = next;
        } else {
            resync.buckets.pop();
            resync.from.clear();
        }
        Ok(())
    }
}

impl Resync {
    fn new(feed: Position, lost: Option<(Epoch, Position)>) -> Self {
        let (documents, buckets, from) = (Vec::new(), Vec::new(), String::new());
        Self { feed, lost, step: Step::Documents, documents, buckets, from, give: VecDeque::new(), given: Vec::new() }
    }
}

/// What a welcome says of this opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fits,
    /// Another store wrote in this epoch.
    Forked,
    /// The hub lost what it had acknowledged.
    SetBack,
}

impl InFlight {
    fn upto(&self) -> u64 {
        self.rows.last().map_or(0, |sent| sent.row.origin.dot.counter)
    }
}

/// Whether rows of the hub are of the current epoch and later than what it has acknowledged.
fn tells_of_more(transaction: &Transaction<'_>, rows: &[SentRow]) -> Result<bool, EdgeError> {
    let own = transaction.state.epoch;
    let known = cursor(transaction, own)?.0;
    Ok(rows.iter().any(|sent| counter_in(sent, own) > known))
}

/// The last write of an epoch that a row tells of.
fn counter_in(sent: &SentRow, epoch: Epoch) -> u64 {
    let dot = &sent.row.origin.dot;
    let written = if dot.epoch == epoch { dot.counter } else { 0 };
    match (&sent.slot, &sent.row.body) {
        (Slot::Member(_, _, of), Body::Member(membership)) if *of == epoch => {
            written.max(membership.added.as_ref().map_or(0, |added| added.counter))
        }
        _ => written,
    }
}

/// Up to where the rows of this hub epoch are applied.
fn applied(base: &Base, hub: Epoch) -> Position {
    base.entries().iter().find(|(epoch, _)| *epoch == hub).map_or(0, |(_, position)| *position)
}

/// The next frame of the outbox: rows of its oldest epoch, in the order in which they were written.
pub(crate) fn compose(snapshot: &Snapshot<'_>) -> Result<Option<InFlight>, EdgeError> {
    let mut outbox = Outbox::open(snapshot)?;
    let Some(first) = outbox.first_epoch(snapshot)? else { return Ok(None) };
    let (acknowledged, before) = cursor(snapshot, first)?;
    let mut writer = RowsWriter::default();
    let mut rows = Vec::new();
    outbox.each(snapshot, first, |sent| {
        let fits = writer.add(&sent.document, &sent.key, &sent.slot, &sent.row);
        if fits {
            rows.push(sent);
        }
        Ok(fits)
    })?;
    let Some(last) = rows.last() else { return Ok(None) };
    let upto = last.row.origin.dot.counter;
    let push = Push { chain: before, after: acknowledged, upto, rows: writer.finish() };
    let message = wire::message(&Request::Push(push));
    let after = wire::chain(before, &message);
    Ok(Some(InFlight { epoch: first, before, after, message, rows }))
}

/// The rows that the hub has not acknowledged: those with a place in the feed, and those that a pulled row took the place of.
struct Outbox {
    shadows: Vec<(i64, u64, SentRow)>,
}

const OUTBOX: &str = "SELECT rows.slot, rows.value, rows.state, rows.seq, rows.key, documents.name FROM rows
    JOIN documents ON documents.id = rows.document WHERE rows.seq > ?1 ORDER BY rows.seq";

impl Outbox {
    fn open(snapshot: &Snapshot<'_>) -> Result<Self, EdgeError> {
        let select = "SELECT slot, value, state, NULL, key, documents.name, opening, counter FROM shadows
            JOIN documents ON documents.id = shadows.document ORDER BY opening, counter";
        let mut statement = snapshot.prepare(select)?;
        let mut rows = statement.query([]).map_err(reading)?;
        let mut shadows = Vec::new();
        while let Some(row) = rows.next().map_err(reading)? {
            let counter: i64 = row.get(7).map_err(reading)?;
            shadows.push((row.get(6).map_err(reading)?, from_sql(counter), sent(row)?.0));
        }
        Ok(Self { shadows })
    }

    fn first_epoch(&self, snapshot: &Snapshot<'_>) -> Result<Option<Epoch>, EdgeError> {
        let mut statement = snapshot.prepare(OUTBOX)?;
        let mut rows = statement.query([0_i64]).map_err(reading)?;
        let row = rows.next().map_err(reading)?.map(sent).transpose()?.map(|(sent, _)| sent.row.origin.dot.epoch);
        let shadow = self.shadows.first().map(|(opening, _, sent)| (*opening, sent.row.origin.dot.epoch));
        Ok(match (row, shadow) {
            (Some(row), Some((opening, shadow))) => Some(if opening <= opening_of(snapshot, row)? { shadow } else { row }),
            (row, shadow) => row.or(shadow.map(|(_, epoch)| epoch)),
        })
    }

    /// Calls with each row of an epoch, by counter, until it has enough.
    fn each(
        &mut self,
        snapshot: &Snapshot<'_>,
        epoch: Epoch,
        mut each: impl FnMut(SentRow) -> Result<bool, EdgeError>,
    ) -> Result<(), EdgeError> {
        let mut statement = snapshot.prepare(OUTBOX)?;
        let mut rows = statement.query([0_i64]).map_err(reading)?;
        let mut shadows = std::mem::take(&mut self.shadows).into_iter().map(|(.., sent)| sent).peekable();
        let mut next = rows.next().map_err(reading)?.map(sent).transpose()?.map(|(sent, _)| sent);
        loop {
            let is_own = |sent: &SentRow| sent.row.origin.dot.epoch == epoch;
            let row = next.as_ref().filter(|sent| is_own(sent)).map(|sent| sent.row.origin.dot.counter);
            let shadow = shadows.peek().filter(|sent| is_own(sent)).map(|sent| sent.row.origin.dot.counter);
            let sent_row = match (row, shadow) {
                (None, None) => return Ok(()),
                (Some(row), shadow) if shadow.is_none_or(|shadow| row < shadow) => {
                    let taken = next.take();
                    next = rows.next().map_err(reading)?.map(sent).transpose()?.map(|(sent, _)| sent);
                    taken
                }
                _ => shadows.next(),
            };
            let Some(sent_row) = sent_row else { return Ok(()) };
            if !each(sent_row)? {
                return Ok(());
            }
        }
    }
}

/// A row of `slot, value, state, seq, key, name`, and its place in the feed.
fn sent(row: &rusqlite::Row<'_>) -> Result<(SentRow, Option<u64>), EdgeError> {
    let (key, document): (String, String) = (row.get(4).map_err(reading)?, row.get(5).map_err(reading)?);
    let slot: Vec<u8> = row.get(0).map_err(reading)?;
    let slot = record::slot_of(&slot).ok_or_else(|| damaged("outbox"))?;
    let Stored { row, seq } = stored(row, &key)?;
    Ok((SentRow { document: Arc::from(document), key, slot, row }, seq))
}

fn opening_of(snapshot: &Snapshot<'_>, epoch: Epoch) -> Result<i64, EdgeError> {
    let found = snapshot.prepare("SELECT opening FROM epochs WHERE epoch = ?1")?.query_row([to_sql(epoch.0)], |row| row.get(0));
    found.map_err(reading)
}

/// The acknowledged counter of an epoch, and the chain of its frames.
fn cursor(snapshot: &Snapshot<'_>, epoch: Epoch) -> Result<(u64, u64), EdgeError> {
    let select = "SELECT acknowledged, chain FROM epochs WHERE epoch = ?1";
    let found = snapshot.prepare(select)?.query_row([to_sql(epoch.0)], |row| Ok((row.get(0)?, row.get(1)?))).optional();
    Ok(found.map_err(reading)?.map_or((0, 0), |(acknowledged, chain)| (from_sql(acknowledged), from_sql(chain))))
}

fn set_cursor(transaction: &Transaction<'_>, epoch: Epoch, acknowledged: u64, chain: u64) -> Result<(), EdgeError> {
    let update = "UPDATE epochs SET acknowledged = ?2, chain = ?3 WHERE epoch = ?1";
    transaction.execute(update, [to_sql(epoch.0), to_sql(acknowledged), to_sql(chain)]).map(drop)
}

/// Takes over what the hub says of an epoch that is over, and takes what it has out of the outbox.
fn take_over_cursor(
    transaction: &mut Transaction<'_>,
    epoch: Epoch,
    acknowledged: u64,
    chain: u64,
    end: (Epoch, Position),
) -> Result<(), EdgeError> {
    set_cursor(transaction, epoch, acknowledged, chain)?;
    acknowledge_up_to(transaction, epoch, acknowledged, Some(end))
}

/// Takes the rows of an epoch up to a counter out of the outbox.
fn acknowledge_up_to(
    transaction: &mut Transaction<'_>,
    epoch: Epoch,
    acknowledged: u64,
    place: Option<(Epoch, Position)>,
) -> Result<(), EdgeError> {
    let mut taken = Vec::new();
    Outbox::open(transaction)?.each(transaction, epoch, |sent| {
        let is_taken = sent.row.origin.dot.counter <= acknowledged;
        if is_taken {
            taken.push(sent);
        }
        Ok(is_taken)
    })?;
    for sent in taken {
        confirm_row(transaction, &sent, place)?;
    }
    transaction.state.must_store = true;
    Ok(())
}

/// Takes a row that the hub has out of the outbox, unless it was overwritten since.
fn confirm_row(transaction: &mut Transaction<'_>, sent: &SentRow, place: Option<(Epoch, Position)>) -> Result<bool, EdgeError> {
    let dot = &sent.row.origin.dot;
    let Some(head) = transaction.document(&sent.document)? else { return Ok(false) };
    let shadows = delete_shadow(transaction, dot)?;
    let Some(mut stored) = transaction.row(&head, &sent.key, &sent.slot)? else { return Ok(shadows > 0) };
    if let (Body::Counter(current), Body::Counter(taken)) = (&mut stored.row.body, &sent.row.body)
        && current.instance == taken.instance
    {
        current.acknowledged = taken.sum;
    }
    if stored.row.origin.dot == *dot {
        if let Some((epoch, position)) = place {
            stored.row.place(epoch, position);
        }
        stored.seq = None;
    } else if !matches!(stored.row.body, Body::Counter(_)) {
        return Ok(shadows > 0);
    }
    transaction.put_row(&head, &sent.key, &sent.slot, &stored)?;
    Ok(shadows > 0)
}

/// Notes what became of a frame. Returns whether this replica may have to compare what it has.
fn note_ack(transaction: &mut Transaction<'_>, in_flight: &InFlight, ack: &Ack, now: Timestamp) -> Result<bool, EdgeError> {
    let hub = ack.hub;
    let mut must_compare = false;
    let mut fates = ack.fates.iter().peekable();
    let mut merge = Merge::default();
    let mut won = Vec::new();
    for (index, sent) in in_flight.rows.iter().enumerate() {
        let exception = fates.next_if(|(at, _)| *at as usize == index).map(|(_, fate)| *fate);
        match exception.unwrap_or(Fate::Placed(ack.first.saturating_add(index as u64))) {
            Fate::Placed(position) => {
                let was_shadow = confirm_row(transaction, sent, Some((hub, position)))?;
                if was_shadow {
                    // It lost here and won there: it is joined again, as a row of the hub.
                    let mut sent = sent.clone();
                    sent.row.place(hub, position);
                    won.push(sent);
                }
            }
            // What stands instead is no later than this: by it the hub will know that it had this row.
            Fate::Superseded(position) => drop(confirm_row(transaction, sent, Some((hub, position)))?),
            Fate::Lost => {
                let mut place = merge.place(transaction, &sent.document, &sent.key, &sent.slot)?;
                let is_there = place.rows.get(&sent.slot).is_some_and(|stored| stored.row.origin.dot == sent.row.origin.dot);
                confirm_row(transaction, sent, None)?;
                if is_there {
                    merge.remove(transaction, &sent.document, &sent.key, &sent.slot, &mut place)?;
                }
            }
        }
    }
    merge.finish(transaction, now)?;
    if !won.is_empty() {
        apply(transaction, won, now)?;
        must_compare = true;
    }
    set_cursor(transaction, in_flight.epoch, ack.upto, in_flight.after)?;
    let taken = in_flight.rows.iter().map(|sent| sent.row.stamp).max().unwrap_or_default();
    transaction.state.link.taken = transaction.state.link.taken.max(taken);
    transaction.state.must_store = true;
    // What was changed up to here is with the hub when nothing is left to send.
    if planted::has(Bug::ConfirmByVersionAlone) || Outbox::open(transaction)?.first_epoch(transaction)?.is_none() {
        for head in transaction.heads()? {
            if let Some(mut head) = transaction.document(&head.name)?
                && head.pending > 0
            {
                let version = head.version;
                changes::confirm(transaction, &mut head, version)?;
                transaction.store_head(&head);
            }
        }
    }
    Ok(must_compare)
}

/// Joins rows of the hub with what is here.
fn apply(transaction: &mut Transaction<'_>, rows: Vec<SentRow>, now: Timestamp) -> Result<(), EdgeError> {
    let mut merge = Merge::default();
    for sent in rows.iter().filter(|sent| sent.slot == Slot::Floor) {
        apply_floor(transaction, &mut merge, sent)?;
    }
    for SentRow { document, key, slot, row } in rows.into_iter().filter(|sent| sent.slot != Slot::Floor) {
        if document.starts_with(LOCAL_PREFIX) {
            continue;
        }
        transaction.state.clock.observe(row.stamp);
        let policy = transaction.policies()?.policy(&document, &key);
        let mut place = merge.place(transaction, &document, &key, &slot)?;
        let stored = match place.rows.get(&slot).cloned() {
            None => Stored { row, seq: None },
            Some(current) if current.seq.is_some() => {
                if current.row.origin.dot == row.origin.dot && !matches!(row.body, Body::Member(_)) {
                    // Its own write, which is not acknowledged yet.
                    continue;
                }
                let joined = current.row.clone().join(row.clone(), &policy);
                match (joined.body, current.row.body.clone()) {
                    (Body::Member(joined), Body::Member(_)) => {
                        let row = Row { body: Body::Member(joined), ..current.row };
                        Stored { row, seq: current.seq }
                    }
                    _ if joined.origin.dot == current.row.origin.dot => continue,
                    _ => {
                        // The hub must still hear of what lost.
                        let document = merge.head(transaction, &document)?.id;
                        put_shadow(transaction, document, &key, &slot, &current.row)?;
                        Stored { row, seq: None }
                    }
                }
            }
            Some(current) => {
                let mut joined = current.row.clone().join(row.clone(), &policy);
                if let (Body::Counter(joined), Body::Counter(known)) = (&mut joined.body, &current.row.body) {
                    joined.acknowledged = if joined.instance == known.instance { known.acknowledged.max(joined.acknowledged) } else { 0 };
                }
                if joined == current.row {
                    continue;
                }
                Stored { row: joined, seq: None }
            }
        };
        merge.put(transaction, &document, &key, &slot, stored, &mut place)?;
    }
    merge.finish(transaction, now)
}

/// Forgets tombstones as the hub did.
fn apply_floor(transaction: &mut Transaction<'_>, merge: &mut Merge, sent: &SentRow) -> Result<(), EdgeError> {
    let Body::Floor(floor) = sent.row.body else { return Ok(()) };
    let mut place = merge.place(transaction, &sent.document, &sent.key, &sent.slot)?;
    let known = place.rows.get(&Slot::Floor).map(|stored| stored.row.clone());
    let policy = crate::policy::Policy::LastWriterWins;
    let row = known.map_or_else(|| sent.row.clone(), |known| known.join(sent.row.clone(), &policy));
    merge.put(transaction, &sent.document, &sent.key, &sent.slot, Stored { row, seq: None }, &mut place)?;
    let head = merge.head(transaction, &sent.document)?.clone();
    let is_forgotten = |row: &Row| row.positions.iter().any(|(_, position)| *position <= floor);
    let mut dead = Vec::new();
    transaction.each_row(&head, "", |key, slot, stored| {
        if stored.seq.is_none() && stored.row.is_dead() && is_forgotten(&stored.row) {
            dead.push((key.to_owned(), slot, stored.row.stamp));
        }
        Ok(true)
    })?;
    for (key, slot, stamp) in dead {
        let rows = transaction.rows(&head, &key)?;
        transaction.delete_row(&head, &key, &slot)?;
        for (slot, stored) in &rows.0 {
            if let Body::Counter(subtotal) = &stored.row.body
                && subtotal.instance < Some(stamp)
                && stored.seq.is_none()
            {
                transaction.delete_row(&head, &key, slot)?;
            }
        }
    }
    Ok(())
}

/// Keeps a row of the outbox beside the one that shows, under its dot.
fn put_shadow(transaction: &Transaction<'_>, document: i64, key: &str, slot: &Slot, row: &Row) -> Result<(), EdgeError> {
    let dot = &row.origin.dot;
    let opening = opening_of(transaction, dot.epoch)?;
    let (value, state) = record::encode(row);
    let insert = "INSERT OR REPLACE INTO shadows (opening, counter, document, key, slot, value, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    transaction.execute(insert, params![opening, to_sql(dot.counter), document, key, record::slot_bytes(slot), value, state])?;
    Ok(())
}

/// Forgets a shadow; returns how many there were.
fn delete_shadow(transaction: &Transaction<'_>, dot: &Dot) -> Result<usize, EdgeError> {
    let delete = "DELETE FROM shadows WHERE opening = (SELECT opening FROM epochs WHERE epoch = ?1) AND counter = ?2";
    transaction.execute(delete, [to_sql(dot.epoch.0), to_sql(dot.counter)])
}

/// The rows of a bucket from a key on that are compared, and the key before which they end.
fn known_rows(snapshot: &Snapshot<'_>, document: &str, bucket: u8, from: &str) -> Result<(Vec<Known>, Option<String>), EdgeError> {
    let Some(head) = snapshot.head(document)? else { return Ok((Vec::new(), None)) };
    let mut rows: Vec<Known> = Vec::new();
    let mut until = None;
    let mut bytes = 0;
    snapshot.each_row(&head, from, |key, slot, stored| {
        if digest::bucket(key) != bucket || slot == Slot::Floor {
            return Ok(true);
        }
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

/// Everything in the outbox, in the order in which it was written.
fn outbox(transaction: &Transaction<'_>) -> Result<Vec<(SentRow, bool)>, EdgeError> {
    let shadows = Outbox::open(transaction)?.shadows.into_iter().map(|(.., sent)| (sent, true));
    let mut statement = transaction.prepare(OUTBOX)?;
    let mut rows = statement.query([0_i64]).map_err(reading)?;
    let mut found: Vec<_> = shadows.collect();
    while let Some(row) = rows.next().map_err(reading)? {
        found.push((sent(row)?.0, false));
    }
    let mut openings = std::collections::HashMap::new();
    for (sent, _) in &found {
        let epoch = sent.row.origin.dot.epoch;
        openings.insert(epoch, opening_of(transaction, epoch)?);
    }
    found.sort_by_key(|(sent, _)| (openings[&sent.row.origin.dot.epoch], sent.row.origin.dot.counter));
    Ok(found)
}

/// The dots of the outbox, in the order in which they were written.
#[cfg(test)]
pub(crate) fn outbox_dots(transaction: &Transaction<'_>) -> Result<Vec<Dot>, EdgeError> {
    Ok(outbox(transaction)?.into_iter().map(|(sent, _)| sent.row.origin.dot).collect())
}

/// Goes on in a new epoch after another store wrote in this one: what is not acknowledged gets new dots. Counts move to the new
/// epoch as far as the hub has not taken them.
fn begin_apart(transaction: &mut Transaction<'_>) -> Result<(), EdgeError> {
    let old = transaction.state.epoch;
    let found = outbox(transaction)?;
    let fresh = Epoch::draw()?;
    transaction.state.change_epoch(transaction.sql(), fresh)?;
    // What it knows of the old epoch ends where the other store's writes may begin.
    transaction.execute("UPDATE epochs SET counter = acknowledged WHERE epoch = ?1", [to_sql(old.0)])?;
    for (sent, is_shadow) in found.into_iter().filter(|(sent, _)| sent.row.origin.dot.epoch == old) {
        let SentRow { document, key, slot, mut row } = sent;
        let Some(head) = transaction.document(&document)? else { continue };
        let before = row.origin.dot.clone();
        if is_shadow {
            delete_shadow(transaction, &before)?;
        }
        let counter = transaction.state.next_counter()?;
        row.origin.dot = Dot { epoch: fresh, counter, ..before.clone() };
        let mut new_slot = slot.clone();
        match (&slot, &mut row.body) {
            (Slot::Counter(node, _), Body::Counter(Subtotal { sum, acknowledged, .. })) => {
                new_slot = Slot::Counter(node.clone(), fresh);
                (*sum, *acknowledged) = (sum.saturating_sub(*acknowledged), 0);
            }
            (Slot::Member(element, node, epoch), Body::Member(membership)) if *node == before.node && *epoch == old => {
                if let Some(added) = membership.live().cloned().filter(|added| added.counter == before.counter) {
                    new_slot = Slot::Member(Arc::clone(element), node.clone(), fresh);
                    *membership = Membership { added: Some(Addition { counter, ..added }), removed: 0 };
                }
            }
            _ => {}
        }
        if new_slot != slot {
            row.origin.overwrote = None;
            // What the other store made of the old slot comes with the comparison.
            transaction.delete_row(&head, &key, &slot)?;
        }
        if is_shadow {
            put_shadow(transaction, head.id, &key, &new_slot, &row)?;
        } else {
            let seq = Some(transaction.state.next_seq()?);
            transaction.put_row(&head, &key, &new_slot, &Stored { row, seq })?;
        }
    }
    transaction.state.must_store = true;
    Ok(())
}

/// Gives what the hub has not taken stamps that it takes, when the clock of this replica was ahead. Returns whether it was.
fn restamp(transaction: &mut Transaction<'_>, hub_millis: u64, stamp_millis_max: u64) -> Result<bool, EdgeError> {
    if transaction.state.clock.last().millis() <= stamp_millis_max {
        return Ok(false);
    }
    let mut clock = Clock::new(Stamp::from_millis(hub_millis).max(transaction.state.link.taken));
    for head in transaction.heads()? {
        transaction.each_row(&head, "", |_, _, stored| {
            if stored.seq.is_none() {
                clock.observe(stored.row.stamp);
            }
            Ok(true)
        })?;
    }
    transaction.state.clock = clock;
    transaction.state.must_store = true;
    let mut given = std::collections::HashMap::new();
    for (sent, is_shadow) in outbox(transaction)? {
        let SentRow { document, key, slot, mut row } = sent;
        let Some(head) = transaction.document(&document)? else { continue };
        let stamp = transaction.state.tick(hub_millis)?;
        given.insert(row.stamp, stamp);
        row.stamp = stamp;
        let renew = |stamp: &mut Stamp| *stamp = given.get(stamp).copied().unwrap_or(*stamp);
        match &mut row.body {
            Body::Register(Register { root, instance, .. }) => {
                root.as_mut().map(|(stamp, _)| stamp).into_iter().chain(instance).for_each(renew);
            }
            Body::Counter(subtotal) => subtotal.instance.as_mut().into_iter().for_each(renew),
            Body::Member(membership) => {
                // An addition that the hub has keeps its stamp, whoever removed it since.
                let counter = row.origin.dot.counter;
                membership
                    .added
                    .as_mut()
                    .filter(|added| added.counter == counter)
                    .map(|added| &mut added.stamp)
                    .into_iter()
                    .for_each(renew);
            }
            Body::Floor(_) => {}
        }
        if is_shadow {
            put_shadow(transaction, head.id, &key, &slot, &row)?;
        } else {
            let seq = transaction.row(&head, &key, &slot)?.and_then(|stored| stored.seq);
            transaction.put_row(&head, &key, &slot, &Stored { row, seq })?;
        }
    }
    Ok(true)
}
