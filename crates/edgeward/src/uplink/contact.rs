//! Says in the log of a node when its hub cannot be reached, and when it is back: once each, however often it was tried.

use std::time::{Duration, Instant};

use edgeward_cluster::Connection;
use edgeward_sync::SessionState;
use tokio::sync::watch;

use crate::replication::Replication;

/// Whether the node and its hub hear each other.
#[derive(Debug, PartialEq, Eq)]
enum Contact {
    /// Not known yet.
    Unknown,
    Held,
    Lost(Instant),
}

/// What is to be said.
#[derive(Debug, PartialEq, Eq)]
enum News {
    First,
    Lost { why: String },
    Again { after: Duration },
}

impl Contact {
    fn turn(&mut self, connection: &Connection, replication: &Replication, now: Instant) -> Option<News> {
        let why = match connection {
            Connection { is_up: false, why_down, .. } => Some(why_down.clone().unwrap_or_default()),
            _ => replication.error.clone(),
        };
        match (&*self, why) {
            (Self::Unknown | Self::Held, Some(why)) => {
                *self = Self::Lost(now);
                Some(News::Lost { why })
            }
            (Self::Unknown, None) if replication.state == SessionState::Synced => {
                *self = Self::Held;
                Some(News::First)
            }
            (Self::Lost(since), None) if replication.state == SessionState::Synced => {
                let after = now.duration_since(*since);
                *self = Self::Held;
                Some(News::Again { after })
            }
            _ => None,
        }
    }
}

/// Tells of it until the node leaves its fleet.
pub(super) async fn tell(mut connection: watch::Receiver<Connection>, mut replication: watch::Receiver<Replication>) {
    let mut contact = Contact::Unknown;
    loop {
        let news = contact.turn(&connection.borrow_and_update(), &replication.borrow_and_update(), Instant::now());
        match news {
            Some(News::First) => {
                tracing::info!("the hub is reached: it has all documents of this node, and the node has those that it wants");
            }
            Some(News::Lost { why }) => {
                tracing::warn!(why, "the hub cannot be reached; the node goes on alone, keeps what is for it, and tries again");
            }
            Some(News::Again { after }) => {
                tracing::info!(away_s = after.as_secs(), "the hub is back, and has all documents of this node again");
            }
            None => {}
        }
        tokio::select! {
            changed = connection.changed() => if changed.is_err() { return },
            changed = replication.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_that_goes_and_returns_is_told_of_once_each() {
        let (up, begun) = (Connection { is_up: true, ups: 1, why_down: None }, Instant::now());
        let down = Connection { is_up: false, ups: 1, why_down: Some("refused".to_owned()) };
        let (at, mut contact) = (|s| begun + Duration::from_secs(s), Contact::Unknown);
        let replication =
            |state, error: Option<&str>| Replication { state, synced_at: None, error: error.map(str::to_owned), is_refused: false };
        let (syncing, synced) = (replication(SessionState::Syncing, None), replication(SessionState::Synced, None));
        let silent = replication(SessionState::Connecting, Some("no answer"));
        let lost = |why: &str| Some(News::Lost { why: why.to_owned() });
        for (connection, replication, now, said) in [
            (&up, &syncing, 0, None),
            (&up, &synced, 1, Some(News::First)),
            (&up, &syncing, 2, None),
            (&up, &synced, 3, None),
            (&down, &synced, 4, lost("refused")),
            (&down, &silent, 5, None),
            (&up, &syncing, 60, None),
            (&up, &synced, 64, Some(News::Again { after: Duration::from_mins(1) })),
            // The servers are there, and no hub behind them.
            (&up, &silent, 70, lost("no answer")),
            (&up, &synced, 71, Some(News::Again { after: Duration::from_secs(1) })),
        ] {
            assert_eq!(contact.turn(connection, replication, at(now)), said, "{now} s");
        }
        assert_eq!(Contact::Unknown.turn(&down, &syncing, begun), lost("refused"));
    }
}
