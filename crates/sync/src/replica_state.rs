//! The numbers of a replica that writes move: its clock, the end of its feed, the counter of its epoch, and its link to the hub.
//!
//! Local writes do not store them: the last row of the feed says them. Everything else that moves them does.

use edgeward_model::{EdgeError, ErrorKind, NodeId};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::{
    causality::{Base, Epoch, Lineage, Position},
    clock::{Clock, Stamp},
    error::{damaged, reading, writing},
    interest::Pattern,
    planted::{self, Bug},
    snapshot::{Snapshot, from_sql, stored, to_sql},
};

/// Version of the encoding of a link.
const LINK_VERSION: u8 = 2;

/// What a store is to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It may have a hub, and holds the documents that it wants.
    #[default]
    Replica,
    /// It follows a hub, holds all documents and writes none, and may become the hub.
    Standby,
    /// Others are its replicas: its feed numbers are their positions.
    Hub,
}

/// What a replica knows of its hub, or a hub of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    /// The hub that this replica follows.
    pub(crate) hub: Option<NodeId>,
    /// Up to where its rows are applied.
    pub(crate) base: Base,
    /// Up to where what is here is what the hub held at one moment, or came after it: behind the base while a pull of several answers goes on.
    pub(crate) whole: Position,
    /// The epochs of a hub: of the one that this is, or that this standby follows.
    pub(crate) lineage: Lineage,
    /// The greatest stamp of its own that a hub has taken.
    pub(crate) taken: Stamp,
    /// Whether this replica must compare all it has with its hub, until it has.
    pub(crate) must_compare: bool,
    /// The declared patterns that the base counts for: of a document that they mean, every row up to it is here.
    pub(crate) patterns: Vec<Pattern>,
    /// What the store is: at a hub the numbers of its feed are positions.
    pub(crate) role: Role,
}

impl Link {
    /// Whether the base counts for a document that is not here.
    pub(crate) fn covers(&self, document: &str) -> bool {
        self.base.entries().is_empty() || self.patterns.iter().any(|pattern| pattern.matches(document))
    }
}

/// A link as format 1 of the store has it.
#[derive(Deserialize)]
struct OldLink {
    hub: Option<NodeId>,
    base: Base,
    lineage: Lineage,
    taken: Stamp,
    must_compare: bool,
}

impl From<OldLink> for Link {
    fn from(old: OldLink) -> Self {
        let OldLink { hub, base, lineage, taken, must_compare } = old;
        let role = if lineage.current().is_some() { Role::Hub } else { Role::Replica };
        let whole = base.entries().first().map_or(0, |(_, position)| *position);
        // Everything reached everybody.
        Self { hub, base, whole, lineage, taken, must_compare, patterns: vec![Pattern::all()], role }
    }
}

fn read_link(bytes: &[u8]) -> Result<Link, EdgeError> {
    match bytes.split_first() {
        Some((&LINK_VERSION, bytes)) => postcard::from_bytes(bytes).map_err(|_| damaged("link to the hub")),
        Some((&1, bytes)) => postcard::from_bytes::<OldLink>(bytes).map(Link::from).map_err(|_| damaged("link to the hub")),
        None => Ok(Link::default()),
        Some(_) => Err(damaged("link to the hub")),
    }
}

#[derive(Clone, Debug)]
pub(crate) struct ReplicaState {
    pub(crate) clock: Clock,
    pub(crate) feed: Position,
    pub(crate) epoch: Epoch,
    pub(crate) counter: u64,
    pub(crate) link: Link,
    /// Whether the epoch is in the table of epochs.
    epoch_is_stored: bool,
    /// Whether a change is not told by the last row of the feed.
    pub(crate) must_store: bool,
}

impl ReplicaState {
    pub(crate) fn load(sql: &Connection, role: Role, epoch: Epoch) -> Result<Self, EdgeError> {
        let (clock, feed, link): (i64, i64, Vec<u8>) = sql
            .query_row("SELECT clock, feed, link FROM replica", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .map_err(reading)?;
        let mut link = read_link(&link)?;
        let is_new = !sql.query_row("SELECT EXISTS (SELECT 1 FROM epochs)", [], |row| row.get::<_, bool>(0)).map_err(reading)?;
        let stored_role = link.role;
        // To become a hub, or to cease to be one, takes more than that.
        if is_new || (link.role != Role::Hub && role != Role::Hub) {
            link.role = role;
        }
        let mut state = Self {
            clock: Clock::new(Stamp::from_bits(from_sql(clock))),
            feed: from_sql(feed),
            epoch,
            counter: 0,
            must_store: link.role != stored_role,
            link,
            epoch_is_stored: false,
        };
        state.read_last_row(sql)?;
        // A commit of which nobody knows may have written it already, with counters that must not come twice.
        let known = sql.query_row("SELECT counter FROM epochs WHERE epoch = ?1", [to_sql(epoch.0)], |row| row.get(0));
        match known {
            Ok(counter) => (state.counter, state.epoch_is_stored) = (state.counter.max(from_sql(counter)), true),
            Err(rusqlite::Error::QueryReturnedNoRows) => {}
            Err(error) => return Err(reading(error)),
        }
        Ok(state)
    }

    /// What a store is that was opened before; none of a new one.
    pub(crate) fn stored_role(snapshot: &Snapshot<'_>) -> Result<Option<Role>, EdgeError> {
        let select = "SELECT link, EXISTS (SELECT 1 FROM epochs) FROM replica";
        let (link, is_old): (Vec<u8>, bool) =
            snapshot.prepare(select)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(reading)?;
        Ok(if is_old { Some(read_link(&link)?.role) } else { None })
    }

    /// The last row of the feed is of the last local write, if none stored the numbers after it.
    fn read_last_row(&mut self, sql: &Connection) -> Result<(), EdgeError> {
        let select = "SELECT slot, value, state, seq, key FROM rows WHERE seq IS NOT NULL ORDER BY seq DESC LIMIT 1";
        let mut statement = sql.prepare(select).map_err(reading)?;
        let mut rows = statement.query([]).map_err(reading)?;
        let Some(row) = rows.next().map_err(reading)? else { return Ok(()) };
        let key: String = row.get(4).map_err(reading)?;
        let last = stored(row, &key)?;
        self.feed = self.feed.max(last.seq.unwrap_or(0));
        self.clock.observe(last.row.stamp);
        let dot = last.row.origin.dot;
        if dot.epoch == self.epoch {
            self.counter = dot.counter;
        }
        let update = "UPDATE epochs SET counter = ?2 WHERE epoch = ?1 AND counter < ?2";
        sql.execute(update, [to_sql(dot.epoch.0), to_sql(dot.counter)]).map_err(writing)?;
        Ok(())
    }

    /// Writes down an epoch before its first row.
    pub(crate) fn begin_epoch(&mut self, sql: &Connection) -> Result<(), EdgeError> {
        if self.epoch_is_stored {
            return Ok(());
        }
        let insert = "INSERT INTO epochs (epoch, opening, counter, acknowledged, chain) SELECT ?1, coalesce(max(opening), 0) + 1, 0, 0, 0 FROM epochs";
        sql.execute(insert, [to_sql(self.epoch.0)]).map_err(writing)?;
        self.epoch_is_stored = true;
        if self.is_hub() {
            // A pull looks up the rows of each document that is wanted.
            let index = "CREATE INDEX IF NOT EXISTS feed_of ON rows (document, seq) WHERE seq IS NOT NULL";
            sql.execute(index, []).map_err(writing)?;
            self.link.lineage.begin(self.epoch, self.feed);
            self.must_store = true;
        }
        Ok(())
    }

    /// Goes on in another epoch, from the counter 1.
    pub(crate) fn change_epoch(&mut self, sql: &Connection, epoch: Epoch) -> Result<(), EdgeError> {
        self.begin_epoch(sql)?;
        self.must_store = true;
        self.store(sql)?;
        (self.epoch, self.counter, self.epoch_is_stored) = (epoch, 0, false);
        self.begin_epoch(sql)
    }

    /// Stores what the last row of the feed does not tell.
    pub(crate) fn store(&mut self, sql: &Connection) -> Result<(), EdgeError> {
        if !self.must_store {
            return Ok(());
        }
        let link = postcard::to_extend(&self.link, vec![LINK_VERSION]).expect("a link has only numbers, texts and lists");
        sql.prepare_cached("UPDATE replica SET clock = ?1, feed = ?2, link = ?3")
            .and_then(|mut update| update.execute(params![to_sql(self.clock.last().bits()), to_sql(self.feed), link]))
            .and_then(|_| sql.prepare_cached("UPDATE epochs SET counter = ?1 WHERE epoch = ?2"))
            .and_then(|mut update| update.execute([to_sql(self.counter), to_sql(self.epoch.0)]))
            .map_err(writing)?;
        self.must_store = false;
        Ok(())
    }

    /// Takes over the epochs of a hub, which tells them to standbys.
    pub(crate) fn follow(&mut self, lineage: Option<Lineage>) {
        if let Some(lineage) = lineage.filter(|_| self.link.role == Role::Standby) {
            self.link.lineage = lineage;
        }
    }

    pub(crate) fn is_hub(&self) -> bool {
        self.link.role == Role::Hub
    }

    pub(crate) fn role(&self) -> Role {
        self.link.role
    }

    pub(crate) fn is_replica(&self) -> bool {
        self.link.role == Role::Replica
    }

    pub(crate) fn tick(&mut self, millis: u64) -> Result<Stamp, EdgeError> {
        if planted::has(Bug::WallClock) {
            let stamp = Stamp::from_millis(millis);
            self.clock.observe(stamp);
            return Ok(stamp);
        }
        self.clock.tick(millis).map_err(|_| EdgeError::new(ErrorKind::Internal, "the clock of this replica has come to its end"))
    }

    pub(crate) fn next_counter(&mut self) -> Result<u64, EdgeError> {
        self.counter = self.counter.checked_add(1).ok_or_else(|| damaged("counter of the epoch"))?;
        Ok(self.counter)
    }

    pub(crate) fn next_seq(&mut self) -> Result<u64, EdgeError> {
        // SQLite orders them as numbers with a sign.
        self.feed = self.feed.checked_add(1).filter(|next| i64::try_from(*next).is_ok()).ok_or_else(|| damaged("end of the feed"))?;
        Ok(self.feed)
    }

    /// What a write made now has seen.
    pub(crate) fn base(&self) -> Base {
        if self.is_hub() {
            let mut base = Base::new();
            base.advance(self.epoch, self.feed);
            return base;
        }
        // Within a pull what lies below the applied position may not have been told.
        let mut base = self.link.base.clone();
        base.limit(if planted::has(Bug::PartTakenForWhole) { Position::MAX } else { self.link.whole });
        base
    }
}
