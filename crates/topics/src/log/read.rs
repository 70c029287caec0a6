//! Reading a run of the log by filter: a bounded look that tells how far it looked.

use std::sync::Arc;

use edgeward_model::{
    EdgeError,
    limits::{SUBSCRIBER_OWN_BYTES, SUBSCRIBERS_READ_BYTES_MAX, TOPIC_READ_BYTES_MAX, TOPIC_READ_MESSAGES_MAX, TOPIC_SCAN_MESSAGES_MAX},
};
use rusqlite::{Connection, params};

use super::{
    Shared, TopicLog,
    held::Part,
    store::{from_sql, to_sql},
};
use crate::{error::reading, message::Message, subscriber::SinceFilter, topic::TopicFilter};

/// What one look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Messages that match, in their order.
    pub messages: Vec<Arc<Message>>,
    /// Where the next look begins: one past the last message that was looked at.
    pub next: u64,
    /// Messages, of whatever topic, that are gone from where this look was to begin.
    pub lost: u64,
}

pub(crate) type Scanned = Batch;

impl TopicLog {
    /// The messages of this filter from this position on: at most [`TOPIC_READ_MESSAGES_MAX`] of them, with at most
    /// [`TOPIC_READ_BYTES_MAX`] bytes beside the first one, out of [`TOPIC_SCAN_MESSAGES_MAX`] that it looks at. There may be more as long
    /// as `next` grows.
    pub async fn read(&self, from: u64, filter: &TopicFilter) -> Result<Batch, EdgeError> {
        self.read_any(from, std::slice::from_ref(filter)).await
    }

    /// The same of several filters; a message that more than one matches comes once.
    pub async fn read_any(&self, from: u64, filters: &[TopicFilter]) -> Result<Batch, EdgeError> {
        let filters: Vec<_> = filters.iter().cloned().map(SinceFilter::always).collect();
        let from = from.max(1);
        match self.shared.scan_recent(from, &filters, TOPIC_READ_BYTES_MAX) {
            Some(batch) => Ok(batch),
            None => self.shared.read(move |connection| scan(connection, from, &filters, TOPIC_READ_BYTES_MAX)).await,
        }
    }
}

impl Shared {
    /// Looks from this position on for what one of these filters matches, for a subscriber that has taken all that it found before. May block.
    pub(crate) fn look(&self, from: u64, filters: &[SinceFilter]) -> Result<(Scanned, Part), EdgeError> {
        let from = from.max(1);
        if let Some(found) = self.look_recent(from, filters) {
            return Ok(found);
        }
        // One after the other, so that each knows of those before.
        let reader = self.reader.lock();
        let scanned = scan(&reader, from, filters, self.look_bytes_max())?;
        let part = self.hold(&scanned);
        Ok((scanned, part))
    }

    /// The same, when the run is in memory. Blocks for nothing.
    pub(crate) fn look_recent(&self, from: u64, filters: &[SinceFilter]) -> Option<(Scanned, Part)> {
        let scanned = self.scan_recent(from, filters, self.look_bytes_max())?;
        let part = self.hold(&scanned);
        Some((scanned, part))
    }

    fn look_bytes_max(&self) -> usize {
        if self.read.bytes() < SUBSCRIBERS_READ_BYTES_MAX { TOPIC_READ_BYTES_MAX } else { SUBSCRIBER_OWN_BYTES }
    }

    fn hold(&self, scanned: &Scanned) -> Part {
        self.read.hold(scanned.messages.iter().map(|message| message.cost_bytes()).sum())
    }

    fn scan_recent(&self, from: u64, filters: &[SinceFilter], bytes_max: usize) -> Option<Scanned> {
        let recent = self.recent.read();
        let run = recent.from(from)?;
        let mut found = Found::new(from, bytes_max);
        for message in run {
            let position = message.position.expect("a message of the log has a position");
            if found.is_full() {
                break;
            }
            if filters.iter().any(|filter| filter.matches(position, message.topic.as_str())) {
                found.add(Arc::clone(message));
            }
            found.batch.next = position + 1;
        }
        Some(found.batch)
    }
}

fn scan(connection: &Connection, from: u64, filters: &[SinceFilter], bytes_max: usize) -> Result<Scanned, EdgeError> {
    let statement = "SELECT position, topic, published_at, head, payload FROM messages WHERE position >= ?1 ORDER BY position LIMIT ?2";
    let mut statement = connection.prepare_cached(statement).map_err(reading)?;
    let mut rows = statement.query(params![to_sql(from), to_sql(TOPIC_SCAN_MESSAGES_MAX)]).map_err(reading)?;
    let mut found = Found::new(from, bytes_max);
    let mut is_first = true;
    while let Some(row) = rows.next().map_err(reading)? {
        if found.is_full() {
            break;
        }
        let position = row.get(0).map(from_sql).map_err(reading)?;
        if std::mem::take(&mut is_first) {
            found.batch.lost = position - from;
        }
        let text = |index| row.get_ref(index).and_then(|value| value.as_str().map_err(Into::into)).map_err(reading);
        let bytes = |index| row.get_ref(index).and_then(|value| value.as_blob().map_err(Into::into)).map_err(reading);
        let topic = text(1)?;
        if filters.iter().any(|filter| filter.matches(position, topic)) {
            let published_at = row.get(2).map_err(reading)?;
            found.add(Arc::new(Message::from_columns(position, topic, published_at, bytes(3)?, bytes(4)?)?));
        }
        found.batch.next = position + 1;
    }
    if is_first {
        let trimmed =
            connection.prepare_cached("SELECT trimmed FROM log").and_then(|mut statement| statement.query_row([], |row| row.get(0)));
        let trimmed = trimmed.map(from_sql).map_err(reading)?;
        found.batch.next = from.max(trimmed + 1);
        found.batch.lost = found.batch.next - from;
    }
    Ok(found.batch)
}

struct Found {
    batch: Batch,
    bytes: usize,
    bytes_max: usize,
}

impl Found {
    fn new(from: u64, bytes_max: usize) -> Self {
        Self { batch: Batch { messages: Vec::new(), next: from, lost: 0 }, bytes: 0, bytes_max }
    }

    fn add(&mut self, message: Arc<Message>) {
        self.bytes += message.cost_bytes();
        self.batch.messages.push(message);
    }

    fn is_full(&self) -> bool {
        self.batch.messages.len() >= TOPIC_READ_MESSAGES_MAX || self.bytes >= self.bytes_max
    }
}
