//! A replica's side of the protocol: what it asks its hub next, and what it does with the answer. It reads no clock and opens no
//! connection.
//!
//! One request is under way at a time. What the hub acknowledged is confirmed in the transaction that notes it; a frame that was
//! sent is sent again byte for byte until it is answered, so that the hub knows it from the frame of a copy of this store.

mod acknowledgement;
mod comparison;
mod growth;
mod join;
pub(crate) mod outbox;
mod renewal;

use std::{collections::BTreeSet, sync::Arc};

use edgeward_model::{EdgeError, ErrorKind, limits::INTEREST_PATTERNS_MAX};
use rusqlite::params;

use crate::{
    causality::{Base, Epoch, Lineage, Position},
    clock::time,
    error::reading,
    hub::{CLOCK_AHEAD_MILLIS_MAX, writers},
    interest::Pattern,
    planted::{self, Bug},
    replica::{
        acknowledgement::note_ack,
        comparison::Comparison,
        growth::{Fetch, Told},
        join::join,
        outbox::{InFlight, acknowledge_up_to, compose, cursor, take_over_cursor},
        renewal::{begin_apart, restamp},
    },
    replica_state::Role,
    row::{Body, Slot},
    snapshot::{from_sql, to_sql},
    store::Store,
    transaction::Transaction,
    wire::{self, Ack, Asker, Hello, Question, Request, Response, Rows, SentRow, Welcome, Writer},
};

/// Epochs that a hello names beside the current one, newest first.
const ANCESTORS_MAX: u64 = 64;

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
            self.in_flight = compose(&crate::snapshot::Snapshot::new(connection))?.map(Arc::new);
        }
        Ok(())
    }
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

impl SessionState {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Syncing => "syncing",
            Self::Synced => "synced",
            Self::ClockAhead => "clock_ahead",
        }
    }
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
    declared: BTreeSet<Pattern>,
    told: Option<Arc<Told>>,
    /// Whether something else is declared than was told.
    must_tell: bool,
    /// It tells of every document up to this one.
    told_upto: i64,
    welcome: Option<Hub>,
    /// The epochs of the hub that welcomed this standby.
    lineage: Option<Lineage>,
    comparison: Option<Comparison>,
    fetch: Option<Fetch>,
    wants_pull: bool,
    wants_comparison: bool,
    /// Whether the hub took the frame that was sent, and its answer was lost.
    wants_answer: bool,
}

/// What the last welcome said.
#[derive(Clone, Copy, Debug)]
struct Hub {
    epoch: Epoch,
    feed: Position,
}

impl ReplicaSession {
    /// A session of this replica, which wants every document that its hub lets it see, until it declares otherwise. There may be another
    /// session before it, but not beside it.
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            number: 0,
            is_waiting: false,
            state: SessionState::Connecting,
            declared: BTreeSet::from([Pattern::all()]),
            told: None,
            must_tell: false,
            told_upto: 0,
            welcome: None,
            lineage: None,
            comparison: None,
            fetch: None,
            wants_pull: true,
            wants_comparison: false,
            wants_answer: false,
        }
    }

    /// Wants the documents that these mean, and those that it holds: what was written here goes to the hub, and what is here is kept the same,
    /// also when nothing that is declared means it any more. A standby wants every document, whatever it declares.
    ///
    /// # Errors
    /// [`edgeward_model::ErrorKind::InvalidInput`] when there are too many.
    pub fn declare(&mut self, patterns: impl IntoIterator<Item = Pattern>) -> Result<(), EdgeError> {
        let declared: BTreeSet<_> = patterns.into_iter().collect();
        if declared.len() > INTEREST_PATTERNS_MAX {
            let why = format!("a node may declare {INTEREST_PATTERNS_MAX} patterns of documents, not {}", declared.len());
            return Err(EdgeError::invalid(why));
        }
        self.must_tell |= std::mem::replace(&mut self.declared, declared) != self.declared;
        Ok(())
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
        self.comparison.is_some()
    }

    /// Begins anew: the connection was lost, or an answer did not come in time.
    pub fn reconnect(&mut self) {
        (self.is_waiting, self.welcome, self.comparison, self.fetch) = (false, None, None, None);
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
        self.wants_comparison = true;
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
        let Some(told) = self.told.clone().filter(|_| !self.must_tell) else { return self.hello().map(Some) };
        let asker = Asker { node: self.store.node().clone(), hub: hub.epoch, interest: told.digest };
        let ask = |question| Ok(Some(wire::message(&Request::Ask(asker, question))));
        if self.wants_comparison && self.comparison.is_none() {
            self.wants_comparison = false;
            let told = Arc::clone(&told);
            let (grown, is_due) = write(&self.store, move |transaction| {
                // Until it has ended, rows from past the applied position may be here.
                let is_due = std::mem::replace(&mut transaction.state.link.must_compare, true);
                transaction.state.must_store = true;
                Ok((told.grown(transaction)?, is_due))
            })?;
            self.comparison = Some(Comparison::new(hub.feed, None, is_due, grown));
        }
        if let Some(question) = self.compare_next(hub)? {
            return ask(question);
        }
        match self.store.read(|snapshot| told.tells_of_all_after(snapshot, self.told_upto))? {
            Some(last) => self.told_upto = last,
            None => return self.hello().map(Some),
        }
        if let Some(fetch) = &mut self.fetch {
            fetch.is_asked = true;
            return ask(Question::Fetch { patterns: fetch.patterns.clone(), since: fetch.since, until: fetch.until });
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
        let (epoch, counter, since, writers) = write(&self.store, move |transaction| {
            let epoch = transaction.state.epoch;
            let is_standby = transaction.state.role() == Role::Standby;
            let writers = is_standby.then(|| writers::last_number(transaction)).transpose()?;
            Ok((epoch, cursor(transaction, epoch)?.0, applied(&transaction.state.link.base, hub.epoch), writers))
        })?;
        ask(Question::Pull { epoch, counter, since, writers })
    }

    fn hello(&mut self) -> Result<Vec<u8>, EdgeError> {
        self.reconnect();
        let (node, declared) = (self.store.node().clone(), self.declared.clone());
        let (hello, told) = write(&self.store, move |transaction| {
            let told = Told::new(transaction, &declared)?;
            let select = "SELECT epoch, counter FROM epochs WHERE epoch <> ?1 ORDER BY opening DESC LIMIT ?2";
            let mut statement = transaction.prepare(select)?;
            let epoch = transaction.state.epoch;
            let found = statement.query_map(params![to_sql(epoch.0), to_sql(ANCESTORS_MAX)], |row| Ok((row.get(0)?, row.get(1)?)));
            let ancestors = found
                .map_err(reading)?
                .map(|row| row.map(|(epoch, counter)| (Epoch(from_sql(epoch)), from_sql(counter))).map_err(reading))
                .collect::<Result<_, _>>()?;
            let applied = transaction.state.link.base.entries().first().copied();
            let (interest, more) = (told.interest.patterns().cloned().collect(), Vec::new());
            Ok((Hello { node, epoch, ancestors, applied, versions: wire::VERSIONS, interest, more }, told))
        })?;
        self.told_upto = told.last;
        (self.told, self.must_tell) = (Some(Arc::new(told)), false);
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
            write(&self.store, move |transaction| acknowledge_up_to(transaction, epoch, upto, None))?;
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
            Response::Rows { rows, upto, more, writers } => self.pulled(rows, writers, upto, more, now_millis),
            Response::Differ { documents, until } => {
                if let Some(comparison) = &mut self.comparison {
                    comparison.go_on_with(documents, until);
                }
                Ok(())
            }
            Response::DifferentBuckets { mask } => {
                if let Some(comparison) = &mut self.comparison {
                    comparison.go_on_with_buckets(mask);
                }
                Ok(())
            }
            Response::Different(different) => {
                let (Some(comparison), Some(told)) = (&mut self.comparison, &self.told) else { return Ok(()) };
                if comparison.compared(&self.store, told, different, now_millis)? { Ok(()) } else { self.told_of_more() }
            }
            Response::Taken { end } => match (&mut self.comparison, self.welcome) {
                (Some(comparison), Some(hub)) => comparison.taken(&self.store, hub.epoch, end),
                _ => Ok(()),
            },
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
        let Welcome { node, epoch: hub, feed, now_millis: hub_millis, stamp_millis_max, taken, epochs, resync, set_back, lineage, .. } =
            welcome;
        let told_lineage = lineage.clone();
        let in_flight = self.store.link.lock().in_flight.clone();
        let Some(told) = self.told.clone() else { return Ok(()) };
        let verdict = write(&self.store, move |transaction| {
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
            let applied = transaction.state.link.base.entries().first().copied();
            // Of a hub that was it may have been told a part only: what was on its way then the next one may hold otherwise, below this position.
            let whole = transaction.state.link.whole;
            transaction.state.link.must_compare |= applied.is_some_and(|(epoch, position)| epoch != hub && whole < position);
            transaction.state.must_store = true;
            if verdict == Verdict::Fits {
                transaction.state.link.hub = Some(node);
                transaction.state.link.taken = transaction.state.link.taken.max(taken);
                if !transaction.state.link.must_compare {
                    transaction.state.link.base.advance(hub, applied.map_or(0, |(_, position)| position));
                    if transaction.state.link.lineage.current().is_some() {
                        transaction.state.follow(told_lineage);
                    }
                    if applied.is_none() || planted::has(Bug::GrowthNotFetched) {
                        // Nothing was applied, of nothing.
                        told.cover(transaction)?;
                    }
                }
                // What the hub has taken keeps its stamps: its answer comes first.
                if is_answered && !planted::has(Bug::QuarantineNeverHeals) {
                    is_void |= restamp(transaction, hub_millis, stamp_millis_max)?;
                }
            }
            let applied = transaction.state.link.base.entries().first().copied();
            let grown = told.grown(transaction)?;
            Ok((verdict, transaction.state.link.must_compare, applied, whole, is_void, is_answered, grown))
        })?;
        let (verdict, must_compare, applied, whole, is_void, is_answered, grown) = verdict;
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
        (self.welcome, self.lineage) = (Some(Hub { epoch: hub, feed }), lineage);
        self.state = SessionState::Syncing;
        self.wants_pull = true;
        if must_compare {
            let lost = applied.filter(|_| set_back).map(|(epoch, position)| (epoch, position.min(whole)));
            self.comparison = Some(Comparison::new(feed, lost, true, grown));
        } else if !grown.is_empty() {
            let until = applied.map_or(0, |(_, position)| position);
            self.fetch = Some(Fetch { patterns: grown, since: 0, until, is_asked: false });
        }
        Ok(())
    }

    /// The next request of a comparison; none when it is over.
    fn compare_next(&mut self, hub: Hub) -> Result<Option<Question>, EdgeError> {
        let (Some(comparison), Some(told)) = (&mut self.comparison, &self.told) else { return Ok(None) };
        if let Some(question) = comparison.next(&self.store, told)? {
            return Ok(Some(question));
        }
        comparison.end(&self.store, Arc::clone(told), self.lineage.clone(), hub.epoch)?;
        (self.comparison, self.fetch) = (None, None);
        Ok(None)
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
        write(&self.store, |transaction| {
            transaction.state.link.must_compare = true;
            begin_apart(transaction)
        })?;
        self.store.link.lock().in_flight = None;
        self.reconnect();
        Ok(())
    }

    fn acknowledged(&mut self, ack: Ack, now_millis: u64) -> Result<(), EdgeError> {
        let Some(in_flight) = self.store.link.lock().in_flight.clone() else { return Ok(()) };
        let must_compare = write(&self.store, move |transaction| note_ack(transaction, &in_flight, &ack, time(now_millis)))?;
        // Only now: what could not be noted must be sent again as it was.
        self.store.link.lock().in_flight = None;
        self.wants_answer = false;
        self.wants_comparison |= must_compare;
        Ok(())
    }

    fn pulled(&mut self, rows: Rows, writers: Vec<Writer>, upto: Position, more: bool, now_millis: u64) -> Result<(), EdgeError> {
        let (Some(hub), Some(told)) = (self.welcome, self.told.clone()) else { return Ok(()) };
        let lineage = self.lineage.clone();
        let is_fetched = self.fetch.as_ref().is_some_and(|fetch| fetch.is_asked);
        let mut rows = rows.read()?;
        if planted::has(Bug::PartialFrameApplied) && rows.len() > 1 {
            rows.pop();
        }
        let policies_changed = write(&self.store, move |transaction| {
            if tells_of_more(transaction, &rows)? {
                return Ok(None);
            }
            let before = transaction.policies()?;
            join(transaction, rows, time(now_millis))?;
            if transaction.state.role() == Role::Standby {
                writers::follow(transaction, &writers)?;
            }
            transaction.state.must_store = true;
            if !is_fetched {
                transaction.state.link.base.advance(hub.epoch, upto);
                if !more || planted::has(Bug::PartTakenForWhole) {
                    transaction.state.link.whole = upto;
                }
                if !more {
                    // Before it has caught up once a standby is not fit to be the hub.
                    transaction.state.follow(lineage);
                }
            } else if !more && told.cover(transaction)? {
                transaction.state.link.base.keep_only(hub.epoch);
            }
            Ok(Some(*before != *transaction.policies()?))
        })?;
        let Some(policies_changed) = policies_changed else { return self.told_of_more() };
        match &mut self.fetch {
            Some(fetch) if is_fetched && more => (fetch.since, fetch.is_asked) = (upto, false),
            _ if is_fetched => self.fetch = None,
            _ => self.wants_pull = more,
        }
        // What was joined under another policy may have to be joined anew.
        self.wants_comparison |= policies_changed;
        Ok(())
    }
}

/// Does `work` in one transaction, unless the store became that of a hub meanwhile.
fn write<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&mut Transaction<'_>) -> Result<T, EdgeError> + Send + 'static,
) -> Result<T, EdgeError> {
    store.write(move |transaction| {
        if transaction.state.is_hub() {
            return Err(EdgeError::new(ErrorKind::Unavailable, "this store is that of a hub, which follows nobody"));
        }
        work(transaction)
    })
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
