//! Requests that wait for an answer: each has a number below the member's own inbox. One that is given up leaves nothing behind.

use std::collections::HashMap;

use async_nats::Message;
use edgeward_model::limits::REQUESTS_MAX;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::BackboneError;

/// Why there will be no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The connection broke after the request was sent.
    Disconnected,
    /// The broker refused the subject.
    Forbidden,
}

pub(super) struct Replies {
    /// Subject of the inbox, which no other member knows.
    inbox: String,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next_number: u64,
    by_number: HashMap<u64, Asked>,
}

struct Asked {
    subject: String,
    /// The connection that it was sent over, or the next.
    connects: u64,
    answer: oneshot::Sender<Result<Message, Broken>>,
}

/// A request that waits. Dropped, it no longer does.
pub(super) struct Waiter<'a> {
    replies: &'a Replies,
    number: u64,
    answer: Mutex<Option<oneshot::Receiver<Result<Message, Broken>>>>,
}

impl Replies {
    pub(super) fn new(inbox: String) -> Self {
        Self { inbox, waiting: Mutex::default() }
    }

    /// What the member subscribes to.
    pub(super) fn pattern(&self) -> String {
        format!("{}.*", self.inbox)
    }

    /// A place for the answer of a request on this subject, sent over this connection.
    pub(super) fn wait(&self, subject: &str, connects: u64) -> Result<Waiter<'_>, BackboneError> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.by_number.len() >= REQUESTS_MAX {
            return Err(BackboneError::Overloaded(REQUESTS_MAX));
        }
        waiting.next_number += 1;
        let number = waiting.next_number;
        waiting.by_number.insert(number, Asked { subject: subject.to_owned(), connects, answer: sender });
        Ok(Waiter { replies: self, number, answer: Mutex::new(Some(answer)) })
    }

    /// Whether nothing waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().by_number.is_empty()
    }

    /// Takes an answer to whoever waits for it.
    pub(super) fn answer(&self, message: Message) {
        let number = message.subject.strip_prefix(self.inbox.as_str()).and_then(|rest| rest.strip_prefix('.')?.parse().ok());
        let asked = number.and_then(|number: u64| self.waiting.lock().by_number.remove(&number));
        if let Some(asked) = asked {
            // It may have been given up in this moment.
            let _ = asked.answer.send(Ok(message));
        }
    }

    /// Ends what was sent over connections before this one.
    pub(super) fn break_before(&self, connects: u64) {
        self.end(Broken::Disconnected, |asked| asked.connects < connects);
    }

    /// Ends what was sent on a subject that the broker refused.
    pub(super) fn forbid(&self, subject: &str) {
        self.end(Broken::Forbidden, |asked| asked.subject == subject);
    }

    fn end(&self, why: Broken, is_meant: impl Fn(&Asked) -> bool) {
        for (_, asked) in self.waiting.lock().by_number.extract_if(|_, asked| is_meant(asked)) {
            let _ = asked.answer.send(Err(why));
        }
    }
}

impl Waiter<'_> {
    /// Where the answer is to go.
    pub(super) fn inbox(&self) -> String {
        format!("{}.{}", self.replies.inbox, self.number)
    }

    /// The answer. To be called once.
    pub(super) async fn answer(&self) -> Result<Message, Broken> {
        let answer = self.answer.lock().take().expect("it is waited for once");
        answer.await.unwrap_or(Err(Broken::Disconnected))
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.replies.waiting.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str) -> Message {
        Message { subject: subject.into(), reply: None, payload: "x".into(), headers: None, status: None, description: None, length: 1 }
    }

    #[tokio::test]
    async fn an_answer_reaches_its_request_and_no_other() {
        let replies = Replies::new("_INBOX_a.x".to_owned());
        let (first, second) = (replies.wait("s", 1).expect("room"), replies.wait("s", 1).expect("room"));
        for wrong in ["_INBOX_a.x.77", "_INBOX_a.y.2", "_INBOX_a.x.", "_INBOX_a.x.two", "_INBOX_a.x"] {
            replies.answer(message(wrong));
        }
        replies.answer(message(&second.inbox()));
        assert_eq!(second.answer().await.map(|message| message.payload), Ok("x".into()));
        assert_eq!(replies.waiting.lock().by_number.len(), 1);
        drop(first);
        assert!(replies.waiting.lock().by_number.is_empty());
    }

    #[tokio::test]
    async fn what_was_sent_over_a_broken_connection_ends_and_what_came_later_does_not() {
        let replies = Replies::new("_INBOX_a.x".to_owned());
        let (old, new) = (replies.wait("s", 1).expect("room"), replies.wait("t", 2).expect("room"));
        replies.break_before(2);
        assert_eq!(old.answer().await.err(), Some(Broken::Disconnected));
        replies.forbid("s");
        assert_eq!(replies.waiting.lock().by_number.len(), 1);
        replies.forbid("t");
        assert_eq!(new.answer().await.err(), Some(Broken::Forbidden));
    }

    #[test]
    fn requests_that_wait_are_bounded() {
        let replies = Replies::new("_INBOX_a.x".to_owned());
        let waiters: Vec<_> = (0..REQUESTS_MAX).map(|_| replies.wait("s", 1).expect("room")).collect();
        assert!(matches!(replies.wait("s", 1), Err(BackboneError::Overloaded(REQUESTS_MAX))));
        drop(waiters);
        assert!(replies.wait("s", 1).is_ok());
    }
}
