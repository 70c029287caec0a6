//! Durable subscriptions: who reads the log under a name, by which filters, and how far it got.

use std::time::Duration;

use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{
        DURABLE_SUBSCRIPTIONS_MAX, SUBSCRIBER_FILTERS_MAX, SUBSCRIPTION_NAME_BYTES_MAX, TOPIC_PAGE_MAX, TOPIC_READ_BYTES_MAX, TRIGGERS_MAX,
    },
};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};

use super::{
    TopicLog, Transaction, clock, session,
    store::{from_sql, to_sql},
};
use crate::{
    error::{damaged, reading},
    topic::TopicFilter,
};

/// Largest data that an owner keeps with a subscription, in bytes: a session of MQTT with as many and as long filters as may be.
const DATA_BYTES_MAX: usize = 160 * 1024;
/// What a write that only moves numbers holds until its commit, in bytes.
const SMALL_BYTES: usize = 256;
/// Subscriptions in one answer, as SQLite takes it.
const PAGE: i64 = TOPIC_PAGE_MAX.cast_signed() as i64;
const COLUMNS: &str = "name, filters, acknowledged, data, created_at, used_at, used_clock";

/// A durable subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DurableSubscription {
    /// Its name: 1 to [`SUBSCRIPTION_NAME_BYTES_MAX`] bytes without control characters.
    pub name: String,
    /// What it reads.
    pub filters: Vec<TopicFilter>,
    /// Up to where everything is done.
    pub acknowledged: u64,
    /// What its owner keeps with it.
    pub data: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was made, changed or acknowledged last.
    pub used_at: Timestamp,
    /// The same by the log's own clock: see [`TopicLog::clock`].
    pub used_clock: Duration,
}

impl TopicLog {
    /// Makes a durable subscription that begins now, or changes the filters and the data of one that there is, and returns it as it is
    /// then.
    pub async fn put_durable(
        &self,
        name: &str,
        filters: Vec<TopicFilter>,
        data: Vec<u8>,
        now: Timestamp,
    ) -> Result<DurableSubscription, EdgeError> {
        check(name, &filters, &data)?;
        let (name, bytes) = (name.to_owned(), SMALL_BYTES + data.len());
        self.shared.write(bytes, move |transaction| transaction.put_durable(name, filters, data, now)).await?.await
    }

    /// The durable subscription of this name.
    pub async fn durable(&self, name: &str) -> Result<Option<DurableSubscription>, EdgeError> {
        let name = name.to_owned();
        self.shared
            .read(move |connection| {
                let statement = format!("SELECT {COLUMNS} FROM subscriptions WHERE name = ?1");
                let found = connection.prepare_cached(&statement).and_then(|mut statement| statement.query_row([name], columns).optional());
                found.map_err(reading)?.map(Columns::read).transpose()
            })
            .await
    }

    /// Durable subscriptions whose names begin with `prefix` and come after `after`, by name: at most [`TOPIC_PAGE_MAX`] of them, with at most
    /// [`TOPIC_READ_BYTES_MAX`] bytes of data beside the first one. There may be more as long as any comes.
    pub async fn durables(&self, prefix: &str, after: &str) -> Result<Vec<DurableSubscription>, EdgeError> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.shared
            .read(move |connection| {
                let statement = format!("SELECT {COLUMNS} FROM subscriptions WHERE name > ?1 AND name >= ?2 ORDER BY name LIMIT ?3");
                let mut statement = connection.prepare_cached(&statement).map_err(reading)?;
                let rows = statement.query_map(params![after, prefix, PAGE], columns).map_err(reading)?;
                let rows = rows.map(|row| row.map_err(reading).and_then(Columns::read));
                let mut bytes = 0;
                let mut is_in_page = |row: &DurableSubscription| {
                    let is_full = bytes >= TOPIC_READ_BYTES_MAX;
                    bytes += row.data.len();
                    !is_full && row.name.starts_with(&prefix)
                };
                rows.take_while(|row| row.as_ref().map_or(true, &mut is_in_page)).collect()
            })
            .await
    }

    /// Says that everything up to this position is done. It never goes back, and for a subscription that is not there it does nothing.
    pub async fn acknowledge(&self, name: &str, position: u64, now: Timestamp) -> Result<(), EdgeError> {
        let name = name.to_owned();
        let write = move |transaction: &mut Transaction<'_>| transaction.acknowledge(&name, position, now);
        self.shared.write(SMALL_BYTES, write).await?.await
    }

    /// Removes a durable subscription; returns whether it was there.
    pub async fn remove_durable(&self, name: &str) -> Result<bool, EdgeError> {
        let name = name.to_owned();
        self.shared.write(SMALL_BYTES, move |transaction| transaction.remove_durable(&name)).await?.await
    }
}

impl Transaction<'_> {
    /// Makes or changes a subscription whose parts were checked.
    pub(crate) fn put_durable(
        &mut self,
        name: String,
        filters: Vec<TopicFilter>,
        data: Vec<u8>,
        now: Timestamp,
    ) -> Result<DurableSubscription, EdgeError> {
        let old = self.find("SELECT acknowledged, created_at FROM subscriptions WHERE name = ?1", [&name], |row| {
            Ok((from_sql(row.get(0)?), row.get::<_, i64>(1)?))
        })?;
        // However many clients there are, triggers have their places: the node's own, and those of its fleet.
        let kept = if name.starts_with(session::PREFIX) { 2 * TRIGGERS_MAX } else { 0 };
        let max = DURABLE_SUBSCRIPTIONS_MAX - kept;
        if old.is_none() && self.counts.subscriptions >= max as u64 {
            let message =
                format!("failed to make the durable subscription `{}`: there are {max} already; remove some", name.escape_debug());
            return Err(EdgeError::new(ErrorKind::TooLarge, message));
        }
        let (acknowledged, created_at) = old.unwrap_or((self.counts.next - 1, now.as_millisecond()));
        let (used_at, used_clock) = (now.as_millisecond(), clock::to_column(self.clock));
        if old.is_none() {
            // A new one has received nothing, whatever a former one of its name has left.
            self.execute("DELETE FROM received WHERE session = ?1", [&name])?;
        }
        self.execute(
            "REPLACE INTO subscriptions (name, filters, acknowledged, data, created_at, used_at, used_clock)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![name, lines(&filters), to_sql(acknowledged), data, created_at, used_at, used_clock],
        )?;
        self.counts.subscriptions += u64::from(old.is_none());
        let time = |ms| Timestamp::from_millisecond(ms).unwrap_or(now);
        let used_clock = clock::from_column(used_clock);
        Ok(DurableSubscription { name, filters, acknowledged, data, created_at: time(created_at), used_at: time(used_at), used_clock })
    }

    pub(crate) fn acknowledge(&mut self, name: &str, position: u64, now: Timestamp) -> Result<(), EdgeError> {
        let statement = "UPDATE subscriptions SET acknowledged = max(acknowledged, ?2), used_at = ?3, used_clock = ?4 WHERE name = ?1";
        let values = params![name, to_sql(position), now.as_millisecond(), clock::to_column(self.clock)];
        self.execute(statement, values).map(drop)
    }

    pub(crate) fn remove_durable(&mut self, name: &str) -> Result<bool, EdgeError> {
        let removed = self.execute("DELETE FROM subscriptions WHERE name = ?1", [name])?;
        self.counts.subscriptions -= removed as u64;
        self.execute("DELETE FROM received WHERE session = ?1", [name])?;
        Ok(removed > 0)
    }
}

/// Checks the parts of a subscription.
pub(crate) fn check(name: &str, filters: &[TopicFilter], data: &[u8]) -> Result<(), EdgeError> {
    let shown: String = name.chars().take(64).collect();
    let refused =
        |kind, why: String| Err(EdgeError::new(kind, format!("the durable subscription `{}` is not valid: {why}", shown.escape_debug())));
    if name.is_empty() || name.len() > SUBSCRIPTION_NAME_BYTES_MAX {
        return refused(ErrorKind::InvalidInput, format!("its name has {} bytes; give it 1 to {SUBSCRIPTION_NAME_BYTES_MAX}", name.len()));
    }
    if name.chars().any(char::is_control) {
        return refused(ErrorKind::InvalidInput, "its name has a control character".to_owned());
    }
    if filters.len() > SUBSCRIBER_FILTERS_MAX {
        return refused(ErrorKind::TooLarge, format!("it has {} filters, the most is {SUBSCRIBER_FILTERS_MAX}", filters.len()));
    }
    if data.len() > DATA_BYTES_MAX {
        return refused(ErrorKind::TooLarge, format!("its data has {} bytes, the most is {DATA_BYTES_MAX}", data.len()));
    }
    Ok(())
}

/// A filter has no control character, so each is a line.
fn lines(filters: &[TopicFilter]) -> String {
    filters.iter().map(TopicFilter::as_str).collect::<Vec<_>>().join("\n")
}

struct Columns {
    name: String,
    filters: String,
    acknowledged: u64,
    data: Vec<u8>,
    times: [i64; 2],
    used_clock: Duration,
}

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok(Columns {
        name: row.get(0)?,
        filters: row.get(1)?,
        acknowledged: from_sql(row.get(2)?),
        data: row.get(3)?,
        times: [row.get(4)?, row.get(5)?],
        used_clock: row.get(6).map(clock::from_column)?,
    })
}

impl Columns {
    fn read(self) -> Result<DurableSubscription, EdgeError> {
        let broken = || damaged(&format!("durable subscription `{}` of the log of topics", self.name.escape_debug()));
        let filters = self.filters.lines().map(|line| TopicFilter::new(line).map_err(|_| broken())).collect::<Result<_, _>>()?;
        let time = |ms| Timestamp::from_millisecond(ms).map_err(|_| broken());
        let [created_at, used_at] = [time(self.times[0])?, time(self.times[1])?];
        let Self { name, acknowledged, data, used_clock, .. } = self;
        Ok(DurableSubscription { name, filters, acknowledged, data, created_at, used_at, used_clock })
    }
}
