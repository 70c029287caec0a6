//! Retained messages on their way to a client, because of its new subscriptions: one subscription after the other, page by page.

use std::{collections::VecDeque, future::pending, sync::Arc};

use edgeward_model::EdgeError;
use futures::future::BoxFuture;

use super::session::Subscribed;
use crate::{log::TopicLog, message::Message, topic::TopicFilter};

pub(super) type Page = Result<Vec<Arc<Message>>, EdgeError>;

/// What is to be sent.
#[derive(Default)]
pub(super) struct Retained {
    waiting: VecDeque<Waiting>,
    reading: Option<BoxFuture<'static, Page>>,
    /// What was read of the first that waits.
    page: VecDeque<Arc<Message>>,
}

/// The messages of a subscription, from the one after this topic on.
struct Waiting {
    subscribed: Subscribed,
    after: String,
}

impl Retained {
    /// Sends those of this subscription too. A client that asks again and again, in one packet or in many, does not have them wait more than once.
    pub(super) fn add(&mut self, subscribed: Subscribed) {
        self.forget(|filter| *filter == subscribed.filter);
        self.waiting.push_back(Waiting { subscribed, after: String::new() });
    }

    /// Sends none of these filters, unless it has begun to.
    pub(super) fn forget(&mut self, is_of: impl Fn(&TopicFilter) -> bool) {
        let mut has_begun = self.reading.is_some() || !self.page.is_empty();
        self.waiting.retain(|waiting| std::mem::take(&mut has_begun) || !is_of(&waiting.subscribed.filter));
    }

    /// Whether everything is sent.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next message that was read, and the subscription that it is sent for.
    pub(super) fn pop(&mut self) -> Option<(Arc<Message>, &Subscribed)> {
        let message = self.page.pop_front()?;
        let waiting = self.waiting.front().expect("a page is of the first that waits");
        Some((message, &waiting.subscribed))
    }

    /// Begins to read the next page, when the one before is sent.
    pub(super) fn begin_to_read(&mut self, log: &Arc<TopicLog>) {
        if self.reading.is_some() || !self.page.is_empty() {
            return;
        }
        if let Some(Waiting { subscribed, after }) = self.waiting.front() {
            let (log, filter, after) = (Arc::clone(log), subscribed.filter.clone(), after.clone());
            self.reading = Some(Box::pin(async move { log.retained(&filter, &after).await }));
        }
    }

    /// The page that is being read. May be dropped and called again.
    pub(super) async fn read(&mut self) -> Page {
        let Some(reading) = &mut self.reading else { return pending().await };
        let page = reading.await;
        self.reading = None;
        page
    }

    /// Takes a page that was read; after an empty one the next subscription follows.
    pub(super) fn turn(&mut self, page: Vec<Arc<Message>>) {
        match (page.last(), self.waiting.front_mut()) {
            (Some(last), Some(waiting)) => last.topic.as_str().clone_into(&mut waiting.after),
            _ => drop(self.waiting.pop_front()),
        }
        self.page = page.into();
    }
}
