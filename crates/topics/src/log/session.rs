//! What the log knows of sessions: the packets that one has received and whose release is to come, which is the part of "exactly once" that
//! must be in the transaction of the message; and which of them are in use.

use std::{collections::BTreeSet, time::Duration};

use edgeward_model::EdgeError;
use jiff::Timestamp;
use rusqlite::params;

use super::{Pending, TopicLog, Transaction, clock};
use crate::{error::reading, message::Message};

/// How the names of durable subscriptions of sessions begin.
pub(crate) const PREFIX: &str = "mqtt:";

impl TopicLog {
    /// Appends a message, unless this session has handed over a packet of the same number before that it has not released yet: then it
    /// answers 0.
    pub(crate) async fn receive_once(&self, session: &str, packet: u16, message: Message) -> Result<Pending<u64>, EdgeError> {
        message.check()?;
        let (session, bytes) = (session.to_owned(), message.cost_bytes());
        let receive = move |transaction: &mut Transaction<'_>| {
            let values = params![session, packet];
            let known = transaction.find("SELECT 1 FROM received WHERE session = ?1 AND packet = ?2", values, |_| Ok(()))?;
            if known.is_some() {
                return Ok(0);
            }
            let position = transaction.append(message)?;
            transaction.execute("INSERT INTO received (session, packet) VALUES (?1, ?2)", values)?;
            Ok(position)
        };
        self.shared.write(bytes, receive).await
    }

    /// The packet of this number is another one from now on.
    pub(crate) async fn release(&self, session: &str, packet: u16) -> Result<Pending<u64>, EdgeError> {
        let session = session.to_owned();
        let release = move |transaction: &mut Transaction<'_>| {
            transaction.execute("DELETE FROM received WHERE session = ?1 AND packet = ?2", params![session, packet]).map(|_| 0)
        };
        self.shared.write(64, release).await
    }

    /// The packets that this session has handed over and not released.
    pub(crate) async fn received(&self, session: &str) -> Result<BTreeSet<u16>, EdgeError> {
        let session = session.to_owned();
        self.shared
            .read(move |connection| {
                let mut statement = connection.prepare_cached("SELECT packet FROM received WHERE session = ?1").map_err(reading)?;
                statement.query_map([session], |row| row.get(0)).map_err(reading)?.collect::<Result<_, _>>().map_err(reading)
            })
            .await
    }

    /// Removes these sessions, each unless it was used after this moment of the log's own clock, which was its last when it was looked at; and
    /// says of others that they are in use.
    pub(crate) async fn sweep_sessions(&self, unused: Vec<(String, Duration)>, in_use: Vec<String>) -> Result<(), EdgeError> {
        let bytes = 256 * (unused.len() + in_use.len());
        let sweep = move |transaction: &mut Transaction<'_>| {
            for (name, used_clock) in unused {
                let values = params![name, clock::to_column(used_clock)];
                let is_unused = transaction.find("SELECT 1 FROM subscriptions WHERE name = ?1 AND used_clock = ?2", values, |_| Ok(()))?;
                if is_unused.is_some() {
                    transaction.remove_durable(&name)?;
                }
            }
            for name in in_use {
                transaction.acknowledge(&name, 0, Timestamp::now())?;
            }
            Ok(())
        };
        self.shared.write(bytes, sweep).await?.await
    }
}
