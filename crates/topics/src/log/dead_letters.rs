//! Dead letters: messages that a durable subscription could not handle, kept until someone tries them again or discards them.

use std::sync::Arc;

use edgeward_model::{EdgeError, ErrorKind, limits::TOPIC_PAGE_MAX};
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use tokio::sync::watch;

use super::{
    TopicLog, Transaction,
    store::{from_sql, to_sql},
};
use crate::{
    error::{damaged, reading},
    message::Message,
};

/// Longest reason that is kept, in bytes.
const WHY_BYTES_MAX: usize = 1024;
/// Dead letters in one answer, as SQLite takes it.
const PAGE: i64 = TOPIC_PAGE_MAX.cast_signed() as i64;
const COLUMNS: &str = "id, subscription, position, topic, published_at, head, payload, why, attempts, at, retry";

/// A message that could not be handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it.
    pub id: u64,
    /// The durable subscription that could not handle it.
    pub subscription: String,
    /// The message.
    pub message: Arc<Message>,
    /// What the last attempt failed of.
    pub why: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up.
    pub at: Timestamp,
    /// Whether it is to be tried again.
    pub is_to_retry: bool,
}

impl TopicLog {
    /// Keeps a message that this subscription could not handle. One of the same position takes the place of the former (of one that is not
    /// durable, and has none, each is kept), and the oldest give way when there are too many; returns how many did.
    pub async fn put_dead_letter(
        &self,
        subscription: &str,
        message: Arc<Message>,
        why: &str,
        attempts: u32,
        at: Timestamp,
    ) -> Result<u64, EdgeError> {
        let subscription = subscription.to_owned();
        let why = shortened(why);
        let bytes = message.cost_bytes();
        self.shared.write(bytes, move |transaction| transaction.put_dead_letter(&subscription, &message, &why, attempts, at)).await?.await
    }

    /// Keeps a dead letter that was tried again and not handled either, as [`put_dead_letter`](Self::put_dead_letter) does. One that was
    /// discarded meanwhile stays so.
    pub(crate) async fn put_back_dead_letter(&self, id: u64, why: &str, attempts: u32, at: Timestamp) -> Result<u64, EdgeError> {
        let why = shortened(why);
        let put_back = move |transaction: &mut Transaction<'_>| {
            let find = "SELECT bytes, length(CAST(why AS BLOB)) FROM dead_letters WHERE id = ?1";
            let old = transaction.find(find, [to_sql(id)], |row| Ok((from_sql(row.get(0)?), from_sql(row.get(1)?))))?;
            let Some((old, old_why)) = old else { return Ok(0) };
            let bytes = old.saturating_sub(old_why) + why.len() as u64;
            let statement = "UPDATE dead_letters SET bytes = ?2, why = ?3, attempts = ?4, at = ?5, retry = 0 WHERE id = ?1";
            transaction.execute(statement, params![to_sql(id), to_sql(bytes), why, attempts, at.as_millisecond()])?;
            transaction.count_dead_letter(bytes, Some(old))
        };
        self.shared.write(WHY_BYTES_MAX, put_back).await?.await
    }

    /// Dead letters after this id, by id, of one subscription or of all, at most [`TOPIC_PAGE_MAX`] of them and 1 MiB or one.
    pub async fn dead_letters(&self, subscription: Option<&str>, after: u64) -> Result<Vec<DeadLetter>, EdgeError> {
        let subscription = subscription.map(str::to_owned);
        let condition = "id > ?1 AND (?2 IS NULL OR subscription = ?2)";
        self.shared.read(move |connection| list(connection, condition, params![to_sql(after), subscription, PAGE])).await
    }

    /// Has a dead letter tried again by its subscription, from the first attempt on.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none of this id, [`ErrorKind::Conflict`] when its subscription is not there any more.
    pub async fn retry_dead_letter(&self, id: u64) -> Result<(), EdgeError> {
        let retry = move |transaction: &mut Transaction<'_>| {
            let subscription = transaction.find("SELECT subscription FROM dead_letters WHERE id = ?1", [to_sql(id)], |row| row.get(0))?;
            let subscription: String = subscription.ok_or_else(|| not_found(id))?;
            if transaction.find("SELECT 1 FROM subscriptions WHERE name = ?1", [&subscription], |_| Ok(()))?.is_none() {
                let why = format!(
                    "dead letter `{id}` cannot be tried again: `{}` was removed; make it again, or discard the dead letter",
                    subscription.escape_debug()
                );
                return Err(EdgeError::new(ErrorKind::Conflict, why));
            }
            transaction.execute("UPDATE dead_letters SET retry = 1 WHERE id = ?1", [to_sql(id)]).map(drop)
        };
        self.shared.write(64, retry).await?.await?;
        self.shared.retries.send_modify(|retries| *retries += 1);
        Ok(())
    }

    /// Removes a dead letter, which was handled or is of no use.
    pub async fn discard_dead_letter(&self, id: u64) -> Result<(), EdgeError> {
        let discard = move |transaction: &mut Transaction<'_>| {
            let bytes = transaction.find("SELECT bytes FROM dead_letters WHERE id = ?1", [to_sql(id)], |row| row.get(0).map(from_sql))?;
            let bytes = bytes.ok_or_else(|| not_found(id))?;
            transaction.execute("DELETE FROM dead_letters WHERE id = ?1", [to_sql(id)])?;
            transaction.uncount_dead_letter(bytes);
            Ok(())
        };
        self.shared.write(64, discard).await?.await
    }

    /// The dead letters of this subscription that are to be tried again, after this id.
    pub(crate) async fn dead_letters_to_retry(&self, subscription: &str, after: u64) -> Result<Vec<DeadLetter>, EdgeError> {
        let subscription = subscription.to_owned();
        let condition = "id > ?1 AND subscription = ?2 AND retry = 1";
        self.shared.read(move |connection| list(connection, condition, params![to_sql(after), subscription, PAGE])).await
    }

    /// Changes when a dead letter is to be tried again.
    pub(crate) fn retries(&self) -> watch::Receiver<u64> {
        self.shared.retries.subscribe()
    }
}

impl Transaction<'_> {
    fn put_dead_letter(
        &mut self,
        subscription: &str,
        message: &Message,
        why: &str,
        attempts: u32,
        at: Timestamp,
    ) -> Result<u64, EdgeError> {
        // None is like no other.
        let position = message.position.map(to_sql);
        let bytes = (message.cost_bytes() + why.len()) as u64;
        let old = self.find(
            "SELECT bytes FROM dead_letters WHERE subscription = ?1 AND position = ?2",
            params![subscription, position],
            |row| row.get(0).map(from_sql),
        )?;
        let statement =
            "INSERT INTO dead_letters (subscription, position, bytes, topic, published_at, head, payload, why, attempts, at, retry)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0)
             ON CONFLICT (subscription, position) DO UPDATE
             SET bytes = ?3, topic = ?4, published_at = ?5, head = ?6, payload = ?7, why = ?8, attempts = ?9, at = ?10, retry = 0";
        let (topic, published_at) = (message.topic.as_str(), message.published_at.as_millisecond());
        let (head, payload) = (message.head(), &message.payload[..]);
        let values = params![subscription, position, to_sql(bytes), topic, published_at, head, payload, why, attempts, at.as_millisecond()];
        self.execute(statement, values)?;
        self.count_dead_letter(bytes, old)
    }
}

fn list(connection: &Connection, condition: &str, values: impl rusqlite::Params) -> Result<Vec<DeadLetter>, EdgeError> {
    let statement = format!("SELECT {COLUMNS} FROM dead_letters WHERE {condition} ORDER BY id LIMIT ?3");
    let mut statement = connection.prepare_cached(&statement).map_err(reading)?;
    let mut rows = statement.query(values).map_err(reading)?;
    let (mut letters, mut bytes) = (Vec::new(), 0);
    while bytes < edgeward_model::limits::TOPIC_READ_BYTES_MAX
        && let Some(row) = rows.next().map_err(reading)?
    {
        let letter = read(row)?;
        bytes += letter.message.cost_bytes();
        letters.push(letter);
    }
    Ok(letters)
}

fn read(row: &Row<'_>) -> Result<DeadLetter, EdgeError> {
    let columns = || {
        let (head, payload): (Vec<u8>, Vec<u8>) = (row.get(5)?, row.get(6)?);
        let topic: String = row.get(3)?;
        let message = Message::from_columns(row.get::<_, Option<_>>(2)?.map_or(0, from_sql), &topic, row.get(4)?, &head, &payload);
        let (id, at) = (from_sql(row.get(0)?), Timestamp::from_millisecond(row.get(9)?));
        rusqlite::Result::Ok((id, row.get(1)?, message, row.get(7)?, row.get(8)?, at, row.get(10)?))
    };
    let (id, subscription, message, why, attempts, at, is_to_retry) = columns().map_err(reading)?;
    let at = at.map_err(|_| damaged(&format!("dead letter {id} of the log of topics")))?;
    Ok(DeadLetter { id, subscription, message: Arc::new(message?), why, attempts, at, is_to_retry })
}

fn shortened(why: &str) -> String {
    why[..why.floor_char_boundary(WHY_BYTES_MAX)].to_owned()
}

fn not_found(id: u64) -> EdgeError {
    EdgeError::new(ErrorKind::NotFound, format!("dead letter not found: `{id}`"))
}
