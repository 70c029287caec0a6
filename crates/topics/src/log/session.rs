//! Packets that a session has received and whose release is to come: the part of "exactly once" that must be in the transaction of the
//! message.

use std::collections::BTreeSet;

use edgeward_model::EdgeError;
use rusqlite::params;

use super::{Pending, TopicLog, Transaction};
use crate::{error::reading, message::Message};

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

    /// Forgets all packets of a session.
    pub(crate) async fn forget_received(&self, session: &str) -> Result<(), EdgeError> {
        let session = session.to_owned();
        let forget =
            move |transaction: &mut Transaction<'_>| transaction.execute("DELETE FROM received WHERE session = ?1", [session]).map(drop);
        self.shared.write(64, forget).await?.await
    }
}
