//! What the log holds, listed: topics, and retained messages.

use std::{collections::BTreeMap, sync::Arc};

use edgeward_model::{
    EdgeError,
    limits::{TOPIC_PAGE_MAX, TOPIC_READ_BYTES_MAX, TOPIC_SCAN_MESSAGES_MAX},
};
use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::{
    TopicLog,
    store::{from_sql, to_sql},
};
use crate::{
    error::{damaged, reading},
    message::Message,
    topic::{TopicFilter, TopicName},
};

/// Messages of one look for topics.
pub(super) const LOOK_MESSAGES: u64 = if cfg!(test) { 100 } else { TOPIC_SCAN_MESSAGES_MAX };

/// A topic with messages in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub topic: TopicName,
    /// Messages in the log.
    pub messages: u64,
    /// Position of the last one.
    pub last_position: u64,
    /// When the last one was published.
    pub last_published_at: Timestamp,
}

/// The newest messages of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// The messages, the oldest first.
    pub messages: Vec<Arc<Message>>,
    /// Before which position older ones may be; none when there are no more.
    pub before: Option<u64>,
}

impl TopicLog {
    /// The topics of this filter whose names come after `after`, by name, at most [`TOPIC_PAGE_MAX`] of them. It looks at the whole log, in
    /// looks of [`TOPIC_SCAN_MESSAGES_MAX`] messages, between which others read; what comes or goes meanwhile may be counted or not. Who
    /// lists while another does waits for its turn.
    pub async fn topics(&self, filter: &TopicFilter, after: &str) -> Result<Vec<TopicInfo>, EdgeError> {
        // However many list, others wait for one look.
        let _turn = self.shared.listing.lock().await;
        let mut listing = Listing::new(filter, after);
        let (mut from, until) = (1, self.shared.head());
        while from <= until {
            (listing, from) = self.shared.read(move |connection| listing.look(connection, from, until)).await?;
        }
        listing.topics.into_iter().map(|(topic, found)| found.of(&topic)).collect()
    }

    /// How many messages from this position on one of these filters matches. It looks as [`topics`](Self::topics) does, and waits for no turn.
    pub async fn count(&self, from: u64, filters: &[TopicFilter]) -> Result<u64, EdgeError> {
        let filters: Arc<[TopicFilter]> = filters.into();
        let (mut count, mut from, until) = (0, from.max(1), self.shared.head());
        while from <= until {
            let filters = Arc::clone(&filters);
            let looked = self.shared.read(move |connection| {
                let mut found = 0;
                let is_match = |topic: &str| filters.iter().any(|filter| filter.matches_text(topic));
                let next = look(connection, from, until, |topic, _, _| found += u64::from(is_match(topic)))?;
                Ok((found, next))
            });
            let (found, next) = looked.await?;
            (count, from) = (count + found, next);
        }
        Ok(count)
    }

    /// The newest messages of this filter before a position, or before the end: at most `count` or [`TOPIC_PAGE_MAX`] of them, with at most
    /// [`TOPIC_READ_BYTES_MAX`] bytes beside the newest, out of [`TOPIC_SCAN_MESSAGES_MAX`] that it looks at.
    pub async fn latest(&self, filter: &TopicFilter, before: Option<u64>, count: usize) -> Result<Latest, EdgeError> {
        let (filter, count) = (filter.clone(), count.min(TOPIC_PAGE_MAX));
        let before = before.unwrap_or(u64::MAX).min(self.shared.head() + 1);
        self.shared
            .read(move |connection| {
                let statement = "SELECT position, topic, published_at, head, payload FROM messages WHERE position < ?1
                    ORDER BY position DESC LIMIT ?2";
                let mut statement = connection.prepare_cached(statement).map_err(reading)?;
                let mut rows = statement.query(params![to_sql(before), to_sql(TOPIC_SCAN_MESSAGES_MAX)]).map_err(reading)?;
                let (mut messages, mut bytes, mut looked, mut lowest) = (Vec::new(), 0, 0, before);
                let mut is_whole = false;
                while messages.len() < count && bytes < TOPIC_READ_BYTES_MAX {
                    let Some(row) = rows.next().map_err(reading)? else {
                        is_whole = looked < TOPIC_SCAN_MESSAGES_MAX;
                        break;
                    };
                    (looked, lowest) = (looked + 1, row.get(0).map(from_sql).map_err(reading)?);
                    let topic = row.get_ref(1).and_then(|value| value.as_str().map_err(Into::into)).map_err(reading)?;
                    if filter.matches_text(topic) {
                        let blob = |index| row.get::<_, Vec<u8>>(index).map_err(reading);
                        let message = Message::from_columns(lowest, topic, row.get(2).map_err(reading)?, &blob(3)?, &blob(4)?)?;
                        bytes += message.cost_bytes();
                        messages.push(Arc::new(message));
                    }
                }
                messages.reverse();
                Ok(Latest { messages, before: (!is_whole).then_some(lowest) })
            })
            .await
    }

    /// The retained messages of this filter that have not expired and whose topics come after `after`, by topic: at most
    /// [`TOPIC_PAGE_MAX`] of them, with at most [`TOPIC_READ_BYTES_MAX`] bytes beside the first one. There may be more as long as any comes.
    pub async fn retained(&self, filter: &TopicFilter, after: &str) -> Result<Vec<Arc<Message>>, EdgeError> {
        let (filter, after) = (filter.clone(), after.to_owned());
        self.shared
            .read(move |connection| {
                let statement = "SELECT topic, position, published_at, head, payload FROM retained
                     WHERE topic > ?1 AND topic >= ?2 AND (expires_at IS NULL OR expires_at > ?3) ORDER BY topic";
                let mut statement = connection.prepare_cached(statement).map_err(reading)?;
                let values = params![after, filter.prefix(), Timestamp::now().as_millisecond()];
                let mut rows = statement.query(values).map_err(reading)?;
                let (mut messages, mut bytes) = (Vec::new(), 0);
                while messages.len() < TOPIC_PAGE_MAX
                    && bytes < TOPIC_READ_BYTES_MAX
                    && let Some(row) = rows.next().map_err(reading)?
                {
                    let text = row.get_ref(0).and_then(|value| value.as_str().map_err(Into::into)).map_err(reading)?;
                    if !text.starts_with(filter.prefix()) {
                        break;
                    }
                    if filter.matches_text(text) {
                        let blob = |index| row.get::<_, Vec<u8>>(index).map_err(reading);
                        let position = row.get(1).map(from_sql).map_err(reading)?;
                        let at = row.get(2).map_err(reading)?;
                        let message = Message::from_columns(position, text, at, &blob(3)?, &blob(4)?)?;
                        bytes += message.cost_bytes();
                        messages.push(Arc::new(message));
                    }
                }
                Ok(messages)
            })
            .await
    }
}

/// Tells of some messages from this position on, and returns where the next look begins.
fn look(connection: &Connection, from: u64, until: u64, mut found: impl FnMut(&str, u64, i64)) -> Result<u64, EdgeError> {
    let statement = "SELECT position, topic, published_at FROM messages WHERE position BETWEEN ?1 AND ?2 ORDER BY position LIMIT ?3";
    let mut statement = connection.prepare_cached(statement).map_err(reading)?;
    let mut rows = statement.query(params![to_sql(from), to_sql(until), to_sql(LOOK_MESSAGES)]).map_err(reading)?;
    let (mut looked, mut last) = (0, until);
    while let Some(row) = rows.next().map_err(reading)? {
        (looked, last) = (looked + 1, row.get(0).map(from_sql).map_err(reading)?);
        let topic = row.get_ref(1).and_then(|value| value.as_str().map_err(Into::into)).map_err(reading)?;
        found(topic, last, row.get(2).map_err(reading)?);
    }
    Ok(if looked < LOOK_MESSAGES { until + 1 } else { last + 1 })
}

/// A list of topics that is being made.
pub(super) struct Listing {
    filter: TopicFilter,
    after: String,
    /// The first of those that were found.
    pub(super) topics: BTreeMap<String, Found>,
}

/// What was found of a topic.
pub(super) struct Found {
    messages: u64,
    position: u64,
    published_at_ms: i64,
}

impl Listing {
    pub(super) fn new(filter: &TopicFilter, after: &str) -> Self {
        Self { filter: filter.clone(), after: after.to_owned(), topics: BTreeMap::new() }
    }

    /// Looks at some messages from this position on, and returns where the next look begins.
    pub(super) fn look(mut self, connection: &Connection, from: u64, until: u64) -> Result<(Self, u64), EdgeError> {
        let next = look(connection, from, until, |topic, position, published_at_ms| self.add(topic, position, published_at_ms))?;
        Ok((self, next))
    }

    fn add(&mut self, topic: &str, position: u64, published_at_ms: i64) {
        if topic <= self.after.as_str() {
            return;
        }
        if let Some(found) = self.topics.get_mut(topic) {
            *found = Found { messages: found.messages + 1, position, published_at_ms };
            return;
        }
        // One that gave way never comes back: as many come before it, then and later.
        let is_full = self.topics.len() >= TOPIC_PAGE_MAX;
        if is_full && self.topics.last_key_value().is_some_and(|(last, _)| last.as_str() < topic) || !self.filter.matches_text(topic) {
            return;
        }
        if is_full {
            self.topics.pop_last();
        }
        self.topics.insert(topic.to_owned(), Found { messages: 1, position, published_at_ms });
    }
}

impl Found {
    fn of(self, topic: &str) -> Result<TopicInfo, EdgeError> {
        let Self { messages, position, published_at_ms } = self;
        let broken = || damaged(&format!("message at position {position} of the log of topics"));
        Ok(TopicInfo {
            topic: TopicName::new(topic).map_err(|_| broken())?,
            messages,
            last_position: position,
            last_published_at: Timestamp::from_millisecond(published_at_ms).map_err(|_| broken())?,
        })
    }
}
