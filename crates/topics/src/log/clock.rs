//! The log's own clock: how long the log was open in all.
//!
//! By it the age of messages is counted, and how long sessions are unused: neither a clock that is set, nor a time that a publisher
//! claims, nor a week without power removes what nobody has read.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::store::{from_sql, to_sql};

/// How often it is written down, when nothing else is.
pub(super) const SAVE_EVERY: Duration = Duration::from_mins(10);

#[derive(Debug)]
pub(super) struct Clock {
    before: Duration,
    opened_at: Instant,
}

impl Clock {
    /// Goes on from what is written, which after a crash is the last stamp.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let statement = "SELECT max(clock,
             coalesce((SELECT clock FROM messages ORDER BY position DESC LIMIT 1), 0),
             coalesce((SELECT max(used_clock) FROM subscriptions), 0)) FROM log";
        let before = connection.query_row(statement, [], |row| row.get(0).map(from_column))?;
        Ok(Self { before, opened_at: Instant::now() })
    }

    pub(super) fn now(&self) -> Duration {
        self.before + self.opened_at.elapsed()
    }
}

/// Milliseconds, as the columns hold it.
pub(super) fn to_column(clock: Duration) -> i64 {
    to_sql(u64::try_from(clock.as_millis()).unwrap_or(u64::MAX >> 1))
}

pub(super) fn from_column(column: i64) -> Duration {
    Duration::from_millis(from_sql(column))
}
