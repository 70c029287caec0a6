//! One transaction of the log's writer, which holds the writes of everybody who waited, and the numbers that it keeps in mind.
//!
//! A write first checks and then changes: an error of the database is one of the whole transaction, any other left no trace.

use std::{sync::Arc, time::Duration};

use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{DEAD_LETTERS_BYTES_MAX, DEAD_LETTERS_MAX, RETAINED_BYTES_MAX, RETAINED_TOPICS_MAX},
};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    LogOptions, clock,
    store::{from_sql, to_sql},
};
use crate::{error::writing, message::Message};

/// Messages that are trimmed at once.
const TRIM_MAX: u32 = 8192;

/// What the writer knows of the database, read anew after a transaction that failed.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    /// Position of the next message.
    pub(super) next: u64,
    /// Bytes of all messages that there ever were.
    ends: u64,
    /// Up to where messages are gone.
    pub(super) trimmed: u64,
    trimmed_bytes: u64,
    retained: u64,
    retained_bytes: u64,
    dead: u64,
    dead_bytes: u64,
    pub(super) subscriptions: u64,
    /// Whether what is appended belongs to an epoch that began since the database was opened.
    pub(super) has_epoch: bool,
}

impl Counts {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let pair = |statement: &str| {
            let read = |row: &rusqlite::Row<'_>| Ok((from_sql(row.get(0)?), from_sql(row.get(1)?)));
            connection.query_row(statement, [], read).optional()
        };
        let (trimmed, trimmed_bytes) = pair("SELECT trimmed, trimmed_bytes FROM log")?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let last = pair("SELECT position, ends FROM messages ORDER BY position DESC LIMIT 1")?;
        let (last, ends) = last.unwrap_or((trimmed, trimmed_bytes));
        let (retained, retained_bytes) = pair("SELECT count(*), coalesce(sum(bytes), 0) FROM retained")?.unwrap_or_default();
        let (dead, dead_bytes) = pair("SELECT count(*), coalesce(sum(bytes), 0) FROM dead_letters")?.unwrap_or_default();
        let (subscriptions, _) = pair("SELECT count(*), 0 FROM subscriptions")?.unwrap_or_default();
        Ok(Self {
            next: last + 1,
            ends,
            trimmed,
            trimmed_bytes,
            retained,
            retained_bytes,
            dead,
            dead_bytes,
            subscriptions,
            has_epoch: false,
        })
    }

    /// Those of a log that begins anew and keeps what belongs to no message.
    pub(super) fn begin_anew(&mut self) {
        *self = Self { next: 1, ends: 0, trimmed: 0, trimmed_bytes: 0, retained: 0, retained_bytes: 0, ..self.clone() };
    }

    /// Bytes of the messages that there are.
    pub(super) fn bytes(&self) -> u64 {
        self.ends - self.trimmed_bytes
    }
}

/// The transaction under way.
pub(crate) struct Transaction<'a> {
    pub(super) connection: &'a Connection,
    pub(super) counts: &'a mut Counts,
    /// What time it is, and what time by the log's own clock.
    pub(super) now: Timestamp,
    pub(super) clock: Duration,
    /// What others see of it after the commit.
    pub(super) appended: Vec<Arc<Message>>,
    /// How the database failed, which takes the writes of all with it.
    pub(super) broken: Option<EdgeError>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(connection: &'a Connection, counts: &'a mut Counts, now: Timestamp, clock: Duration) -> Self {
        Self { connection, counts, now, clock, appended: Vec::new(), broken: None }
    }

    pub(super) fn done<T>(&mut self, result: rusqlite::Result<T>) -> Result<T, EdgeError> {
        result.map_err(|error| {
            let error = writing(error);
            let copy = EdgeError::new(error.kind(), error.chain());
            self.broken.get_or_insert(error);
            copy
        })
    }

    /// Runs one statement; returns how many rows it changed.
    pub(super) fn execute(&mut self, statement: &str, values: impl rusqlite::Params) -> Result<usize, EdgeError> {
        let connection = self.connection;
        let result = connection.prepare_cached(statement).and_then(|mut statement| statement.execute(values));
        self.done(result)
    }

    /// Reads one row, where there is one.
    pub(super) fn find<T>(
        &mut self,
        statement: &str,
        values: impl rusqlite::Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, EdgeError> {
        let connection = self.connection;
        let result = connection.prepare_cached(statement).and_then(|mut statement| statement.query_row(values, read).optional());
        self.done(result)
    }

    /// Appends a message whose bounds were checked, and returns its position.
    pub(crate) fn append(&mut self, mut message: Message) -> Result<u64, EdgeError> {
        if !self.counts.has_epoch {
            self.begin_epoch()?;
        }
        let (position, bytes) = (self.counts.next, message.cost_bytes() as u64);
        message.position = Some(position);
        let head = message.head();
        if message.retain {
            self.retain(&message, &head, bytes)?;
        }
        let ends = self.counts.ends + bytes;
        let values = params![
            to_sql(position),
            to_sql(ends),
            clock::to_column(self.clock),
            message.topic.as_str(),
            message.published_at.as_millisecond(),
            head,
            &message.payload[..]
        ];
        self.execute(
            "INSERT INTO messages (position, ends, clock, topic, published_at, head, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            values,
        )?;
        self.counts.next += 1;
        self.counts.ends = ends;
        self.appended.push(Arc::new(message));
        Ok(position)
    }

    /// Keeps a message that is not durable as the retained one of its topic; it has no position.
    pub(crate) fn retain_only(&mut self, message: &Message) -> Result<(), EdgeError> {
        self.retain(message, &message.head(), message.cost_bytes() as u64)
    }

    /// Makes it the retained message of its topic, or removes that.
    fn retain(&mut self, message: &Message, head: &[u8], bytes: u64) -> Result<(), EdgeError> {
        let topic = message.topic.as_str();
        if self.counts.retained >= RETAINED_TOPICS_MAX || self.counts.retained_bytes + bytes > RETAINED_BYTES_MAX {
            self.remove_expired_retained()?;
        }
        let old = self.find("SELECT bytes FROM retained WHERE topic = ?1", [topic], |row| row.get(0).map(from_sql))?;
        let (others, others_bytes) = (self.counts.retained - u64::from(old.is_some()), self.counts.retained_bytes - old.unwrap_or(0));
        if message.payload.is_empty() {
            if old.is_some() {
                self.execute("DELETE FROM retained WHERE topic = ?1", [topic])?;
            }
            (self.counts.retained, self.counts.retained_bytes) = (others, others_bytes);
            return Ok(());
        }
        if others >= RETAINED_TOPICS_MAX || others_bytes + bytes > RETAINED_BYTES_MAX {
            let message = format!(
                "failed to retain the message for topic `{topic}`: {RETAINED_TOPICS_MAX} topics or {RETAINED_BYTES_MAX} bytes are retained already; \
                 remove some by retained messages with an empty payload"
            );
            return Err(EdgeError::new(ErrorKind::TooLarge, message));
        }
        let position = message.position.map_or(0, to_sql);
        let (expires_at, published_at) = (message.expires_at.map(Timestamp::as_millisecond), message.published_at.as_millisecond());
        let values = params![topic, position, to_sql(bytes), expires_at, published_at, head, &message.payload[..]];
        self.execute(
            "REPLACE INTO retained (topic, position, bytes, expires_at, published_at, head, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            values,
        )?;
        (self.counts.retained, self.counts.retained_bytes) = (others + 1, others_bytes + bytes);
        Ok(())
    }

    /// Makes room where there is none: nobody gets what has expired.
    fn remove_expired_retained(&mut self) -> Result<(), EdgeError> {
        let now = self.now.as_millisecond();
        let find = "SELECT count(*), coalesce(sum(bytes), 0) FROM retained WHERE expires_at <= ?1";
        let expired = self.find(find, [now], |row| Ok((from_sql(row.get(0)?), from_sql(row.get(1)?))))?;
        if let Some((count @ 1.., bytes)) = expired {
            self.execute("DELETE FROM retained WHERE expires_at <= ?1", [now])?;
            self.counts.retained -= count;
            self.counts.retained_bytes -= bytes;
        }
        Ok(())
    }

    /// Removes the oldest messages past the bounds; those of age only when told to look, by the log's own clock, and then not all at once.
    pub(super) fn trim(&mut self, options: &LogOptions, oldest: Option<Duration>) -> Result<(), EdgeError> {
        let mut has_trimmed = self.trim_some(options, oldest)?;
        while has_trimmed {
            has_trimmed = self.trim_some(options, None)?;
        }
        Ok(())
    }

    fn trim_some(&mut self, options: &LogOptions, oldest: Option<Duration>) -> Result<bool, EdgeError> {
        let counts = &*self.counts;
        // It goes a little below a bound, so that it has nothing to do most times.
        let below = |now: u64, max: u64| if now > max { max - max / 32 } else { u64::MAX };
        let messages = below(counts.next - 1 - counts.trimmed, options.messages_max);
        let bytes = below(counts.bytes(), options.bytes_max);
        if messages == u64::MAX && bytes == u64::MAX && oldest.is_none() {
            return Ok(false);
        }
        let oldest = oldest.map_or(i64::MIN, clock::to_column);
        let (next, ends) = (counts.next, counts.ends);
        let is_kept = |position: u64, begins: u64, clock: i64| next - position <= messages && ends - begins <= bytes && clock >= oldest;
        let last = self.last_to_trim(is_kept)?;
        if let Some((position, end)) = last {
            self.execute("DELETE FROM messages WHERE position <= ?1", [to_sql(position)])?;
            self.execute("UPDATE log SET trimmed = ?1, trimmed_bytes = ?2", [to_sql(position), to_sql(end)])?;
            (self.counts.trimmed, self.counts.trimmed_bytes) = (position, end);
        }
        Ok(last.is_some())
    }

    fn last_to_trim(&mut self, is_kept: impl Fn(u64, u64, i64) -> bool) -> Result<Option<(u64, u64)>, EdgeError> {
        let (connection, trimmed_bytes) = (self.connection, self.counts.trimmed_bytes);
        let find = || {
            let mut statement = connection.prepare_cached("SELECT position, ends, clock FROM messages ORDER BY position LIMIT ?1")?;
            let mut rows = statement.query([TRIM_MAX])?;
            let (mut last, mut begins) = (None, trimmed_bytes);
            while let Some(row) = rows.next()? {
                let (position, ends) = (from_sql(row.get(0)?), from_sql(row.get(1)?));
                if is_kept(position, begins, row.get(2)?) {
                    break;
                }
                (last, begins) = (Some((position, ends)), ends);
            }
            Ok(last)
        };
        let found = find();
        self.done(found)
    }

    /// Counts a dead letter more, and returns how many of the oldest must give way. `old` are the bytes of the one that it takes the place
    /// of.
    pub(super) fn count_dead_letter(&mut self, bytes: u64, old: Option<u64>) -> Result<u64, EdgeError> {
        self.counts.dead += u64::from(old.is_none());
        self.counts.dead_bytes = self.counts.dead_bytes + bytes - old.unwrap_or(0);
        let mut dropped = 0;
        while self.counts.dead > 1 && (self.counts.dead > DEAD_LETTERS_MAX || self.counts.dead_bytes > DEAD_LETTERS_BYTES_MAX) {
            let oldest = self.find("SELECT id, bytes FROM dead_letters ORDER BY id LIMIT 1", [], |row| {
                Ok((row.get::<_, i64>(0)?, from_sql(row.get(1)?)))
            })?;
            let Some((id, bytes)) = oldest else { break };
            self.execute("DELETE FROM dead_letters WHERE id = ?1", [id])?;
            self.uncount_dead_letter(bytes);
            dropped += 1;
        }
        Ok(dropped)
    }

    pub(super) fn uncount_dead_letter(&mut self, bytes: u64) {
        self.counts.dead -= 1;
        self.counts.dead_bytes -= bytes;
    }
}
