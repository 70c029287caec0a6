//! Watches the connection: what is seen of it, what was refused, and which requests it took with it.
//!
//! Events only wake it: each time it looks at the connection itself, as an event may be lost.

use std::time::Duration;

use async_nats::{ClientError, ConnectErrorKind, Event, ServerError};
use tokio::{
    sync::{mpsc, watch},
    time::interval,
};

use crate::{backbone::Connection, nats::Link};

/// Events that wait to be looked at.
const EVENTS_MAX: usize = 256;
/// The client's word for whatever the network does, before the cause.
const IO: &str = "IO error";
/// How the broker says that a subject was refused.
const REFUSED: &str = "Permissions Violation";
/// The same of a message, before its subject in quotes.
const PUBLISH_REFUSED: &str = "Permissions Violation for Publish to \"";

pub(super) fn events() -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
    mpsc::channel(EVENTS_MAX)
}

pub(super) async fn watch(link: Link, mut events: mpsc::Receiver<Event>, state: watch::Sender<Connection>, period: Duration) {
    let mut look = interval(period);
    let mut why = "it has not connected yet".to_owned();
    let mut dropped = 0_u64;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::SlowConsumer(_)) => dropped += 1,
                Some(event) => why = said(&link, &event).unwrap_or(why),
                None => return,
            },
            _ = look.tick() => if dropped > 0 {
                tracing::warn!(member = %link.member, dropped, "messages arrived faster than they could be put where they wait");
                dropped = 0;
            },
        }
        let (is_up, connects) = (link.is_up(), link.connects());
        let seen = state.borrow().clone();
        if is_up && connects != seen.ups {
            if seen.is_up {
                state.send_replace(down(&seen, &why));
            }
            link.replies.break_before(connects);
            link.settle().await;
            state.send_replace(Connection { is_up: true, ups: connects, why_down: None });
        } else if !is_up {
            link.replies.break_before(connects + 1);
            let now = down(&seen, &why);
            state.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        }
    }
}

fn down(seen: &Connection, why: &str) -> Connection {
    Connection { is_up: false, ups: seen.ups, why_down: Some(why.to_owned()) }
}

/// What an event says about the connection; a refusal also ends the requests that it is about.
fn said(link: &Link, event: &Event) -> Option<String> {
    match event {
        Event::ServerError(ServerError::Other(text)) if text.starts_with(REFUSED) => {
            tracing::warn!(member = %link.member, text, "the broker refused a subject");
            if let Some(subject) = text.strip_prefix(PUBLISH_REFUSED).and_then(|rest| rest.split('"').next()) {
                link.replies.forbid(subject);
            }
            None
        }
        Event::ClientError(ClientError::Other(text)) if *text == ConnectErrorKind::AuthorizationViolation.to_string() => {
            if let Some(credentials) = &link.credentials {
                credentials.note_refusal();
            }
            Some("the broker does not take the credentials of this member: authorization violation".to_owned())
        }
        Event::ClientError(ClientError::Other(text)) => Some(match text.strip_prefix(IO) {
            Some(cause) => format!("the NATS server cannot be reached{cause}"),
            None => text.clone(),
        }),
        Event::ServerError(ServerError::Other(text)) => Some(text.clone()),
        Event::ServerError(error) => Some(error.to_string()),
        Event::ClientError(error) => Some(error.to_string()),
        Event::Connected => Some("the connection broke".to_owned()),
        _ => None,
    }
}
