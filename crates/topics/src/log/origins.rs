//! Messages that come from the logs of other members: each is taken once, however often it is handed over.
//!
//! A position alone does not name a message for ever: a log that was restored from a backup gives positions again. So a log
//! has epochs, which begin with the first message after it was opened, and (member, epoch, position) names a message.

use std::collections::HashMap;

use edgeward_model::{EdgeError, ErrorKind, NodeId, limits::TOPIC_ORIGIN_EPOCHS_MAX};
use rusqlite::{OptionalExtension, Params, Row, params};
use serde::{Deserialize, Serialize};

use super::{
    TopicLog, Transaction,
    store::{from_sql, to_sql},
};
use crate::{error::reading, message::Message};

/// What a write that only moves numbers holds until its commit, in bytes.
const SMALL_BYTES: usize = 256;

/// Positions of one epoch of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which: a number that no other epoch of any log has.
    pub epoch: u64,
    /// Where the next one begins; none of the last.
    pub until: Option<u64>,
}

/// How far the log of another member was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The epoch of the last position.
    pub epoch: u64,
    /// The last position that was looked at; 0 for none.
    pub position: u64,
}

impl TopicLog {
    /// The epoch of this position; none when the log does not reach so far, or nothing of it is left.
    pub async fn span(&self, position: u64) -> Result<Option<Span>, EdgeError> {
        if position > self.shared.head() {
            return Ok(None);
        }
        self.shared
            .read(move |connection| {
                let find = |statement: &str| {
                    let found = connection.prepare_cached(statement).and_then(|mut statement| pair(&mut statement, [to_sql(position)]));
                    found.map_err(reading)
                };
                let epoch = find("SELECT epoch, begins FROM epochs WHERE begins <= ?1 ORDER BY begins DESC LIMIT 1")?;
                let until = find("SELECT begins, epoch FROM epochs WHERE begins > ?1 ORDER BY begins LIMIT 1")?;
                Ok(epoch.map(|(epoch, _)| Span { epoch, until: until.map(|(begins, _)| begins) }))
            })
            .await
    }

    /// Up to where everything of this epoch of a member's log was taken; 0 for nothing.
    pub async fn taken(&self, node: &NodeId, epoch: u64) -> Result<u64, EdgeError> {
        let node = node.clone();
        self.shared
            .read(move |connection| {
                let found =
                    connection.prepare_cached(TAKEN).and_then(|mut statement| pair(&mut statement, params![node.as_str(), to_sql(epoch)]));
                Ok(found.map_err(reading)?.map_or(0, |(position, _)| position))
            })
            .await
    }

    /// How far the log that is known by this name was read; none when it never was.
    pub async fn mark(&self, name: &str) -> Result<Option<Mark>, EdgeError> {
        let name = name.to_owned();
        self.shared
            .read(move |connection| {
                let statement = connection.prepare_cached("SELECT epoch, position FROM marks WHERE name = ?1");
                let found = statement.and_then(|mut statement| pair(&mut statement, [name])).map_err(reading)?;
                Ok(found.map(|(epoch, position)| Mark { epoch, position }))
            })
            .await
    }

    /// Appends the messages that it has not taken before, all or none of them, and in the same write says how far the log that is known by a
    /// name was read. Those of one epoch of a member come in the order of their positions, as who hands them over sees to. Returns how many
    /// were new.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] past a bound of a message, those of the disk.
    pub async fn take(&self, messages: Vec<Message>, mark: Option<(&str, Mark)>) -> Result<u64, EdgeError> {
        messages.iter().try_for_each(Message::check)?;
        let mark = mark.map(|(name, mark)| (name.to_owned(), mark));
        let bytes = SMALL_BYTES + messages.iter().map(Message::cost_bytes).sum::<usize>();
        let take = move |transaction: &mut Transaction<'_>| {
            let new = transaction.take(messages, false)?;
            if let Some((name, mark)) = mark {
                transaction.put_mark(&name, mark)?;
            }
            Ok(new)
        };
        self.shared.write(bytes, take).await?.await
    }

    /// Makes it ready to be a copy of a log with this one epoch, whose last position is `last`: what is there and is not of that log is removed, and
    /// whoever follows it is told. Where messages came from stays known.
    pub async fn begin_copy(&self, epoch: u64, last: u64) -> Result<(), EdgeError> {
        let begin = move |transaction: &mut Transaction<'_>| transaction.begin_copy(epoch, last);
        self.shared.write(SMALL_BYTES, begin).await?.await
    }

    /// Appends messages of the log that this is a copy of, each at its own position there. Those before its end are passed over.
    pub async fn copy(&self, messages: Vec<Message>) -> Result<(), EdgeError> {
        messages.iter().try_for_each(Message::check)?;
        let bytes = SMALL_BYTES + messages.iter().map(Message::cost_bytes).sum::<usize>();
        self.shared.write(bytes, move |transaction| transaction.take(messages, true).map(drop)).await?.await
    }
}

/// The statement that says up to where everything was taken.
const TAKEN: &str = "SELECT position, 0 FROM origins WHERE node = ?1 AND epoch = ?2";

fn pair(statement: &mut rusqlite::Statement<'_>, values: impl Params) -> rusqlite::Result<Option<(u64, u64)>> {
    statement.query_row(values, two).optional()
}

fn two(row: &Row<'_>) -> rusqlite::Result<(u64, u64)> {
    Ok((from_sql(row.get(0)?), from_sql(row.get(1)?)))
}

impl Transaction<'_> {
    /// Begins an epoch with the next message.
    pub(super) fn begin_epoch(&mut self) -> Result<(), EdgeError> {
        let epoch =
            getrandom::u64().map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to draw a random number").with_source(error))?;
        self.put_epoch(self.counts.next, epoch)
    }

    fn put_epoch(&mut self, begins: u64, epoch: u64) -> Result<(), EdgeError> {
        // Of epochs whose messages are gone the last is kept: the first message that there is may belong to it.
        self.execute(
            "DELETE FROM epochs WHERE begins < (SELECT max(begins) FROM epochs WHERE begins <= ?1 + 1)",
            [to_sql(self.counts.trimmed)],
        )?;
        self.execute("REPLACE INTO epochs (begins, epoch) VALUES (?1, ?2)", [to_sql(begins), to_sql(epoch)])?;
        self.counts.has_epoch = true;
        Ok(())
    }

    /// Appends messages with their origins; those of a copy at the positions that they have.
    fn take(&mut self, messages: Vec<Message>, is_copy: bool) -> Result<u64, EdgeError> {
        let mut taken: HashMap<(NodeId, u64), u64> = HashMap::new();
        let mut new = 0;
        // The epoch of a copy is that of what it copies.
        self.counts.has_epoch |= is_copy;
        for mut message in messages {
            if is_copy {
                let position = message.position.unwrap_or(0);
                if position < self.counts.next {
                    continue;
                }
                if self.counts.next == 1 && position > 1 {
                    // What was before is gone from what it copies.
                    self.execute("UPDATE log SET trimmed = ?1", [to_sql(position - 1)])?;
                    self.counts.trimmed = position - 1;
                }
                self.counts.next = position;
            }
            if let Some(origin) = &message.origin {
                let key = (origin.node.clone(), origin.epoch);
                let last = match taken.get(&key) {
                    Some(last) => *last,
                    None => self.find(TAKEN, params![key.0.as_str(), to_sql(key.1)], two)?.map_or(0, |(position, _)| position),
                };
                if origin.position <= last && !is_copy {
                    continue;
                }
                taken.insert(key, origin.position.max(last));
            }
            self.append_retaining(&mut message)?;
            new += 1;
        }
        for ((node, epoch), position) in taken {
            self.put_taken(&node, epoch, position)?;
        }
        Ok(new)
    }

    /// Appends a message. One that cannot be retained any more, as too much is, is appended all the same: who published it was told that it
    /// was.
    fn append_retaining(&mut self, message: &mut Message) -> Result<u64, EdgeError> {
        match self.append(message.clone()) {
            Err(error) if error.kind() == ErrorKind::TooLarge && message.retain => {
                tracing::warn!(topic = %message.topic, error = error.chain(), "a message of another member is not retained here");
                message.retain = false;
                self.append(message.clone())
            }
            appended => appended,
        }
    }

    fn put_taken(&mut self, node: &NodeId, epoch: u64, position: u64) -> Result<(), EdgeError> {
        let head = to_sql(self.counts.next);
        let values = params![node.as_str(), to_sql(epoch), to_sql(position), head];
        self.execute("REPLACE INTO origins (node, epoch, position, used) VALUES (?1, ?2, ?3, ?4)", values)?;
        let statement =
            "DELETE FROM origins WHERE node = ?1 AND epoch NOT IN (SELECT epoch FROM origins WHERE node = ?1 ORDER BY used DESC LIMIT ?2)";
        self.execute(statement, params![node.as_str(), TOPIC_ORIGIN_EPOCHS_MAX]).map(drop)
    }

    fn put_mark(&mut self, name: &str, mark: Mark) -> Result<(), EdgeError> {
        let values = params![name, to_sql(mark.epoch), to_sql(mark.position)];
        self.execute("REPLACE INTO marks (name, epoch, position) VALUES (?1, ?2, ?3)", values).map(drop)
    }

    fn begin_copy(&mut self, epoch: u64, last: u64) -> Result<(), EdgeError> {
        let known = self.find("SELECT epoch, begins FROM epochs ORDER BY begins DESC LIMIT 1", [], two)?;
        if self.counts.next > 1 && (known.is_none_or(|(known, _)| known != epoch) || self.counts.next - 1 > last) {
            for statement in
                ["DELETE FROM messages", "DELETE FROM retained", "DELETE FROM epochs", "UPDATE log SET trimmed = 0, trimmed_bytes = 0"]
            {
                self.execute(statement, [])?;
            }
            // Of those that come now the newest are remembered, whatever the positions were before.
            self.execute("UPDATE origins SET used = 0", [])?;
            self.counts.begin_anew();
        }
        if known.is_none_or(|(known, _)| known != epoch) || self.counts.next == 1 {
            self.put_epoch(1, epoch)?;
        }
        self.counts.has_epoch = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
