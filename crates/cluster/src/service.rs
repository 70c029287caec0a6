//! What a member receives: requests that a service answers, and messages that a subscription gives.
//!
//! The implementations feed a buffer; everything behind it is here, so that both behave alike.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use edgeward_model::{EdgeError, ErrorKind, limits::SERVICE_CONCURRENCY_MAX};
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{buffer::Buffer, error::BackboneError, message::Message, subject::Subject};

/// A request to be answered.
#[derive(Clone, Debug)]
pub struct Call {
    /// Where it came in. Of what is sent to the hub it names the node that sent it.
    pub subject: Subject,
    /// What was asked.
    pub message: Message,
    /// When the caller gives up.
    pub deadline: Instant,
}

/// Answers requests. An error reaches the caller with its kind, text and failure, without its cause.
pub type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Message, EdgeError>> + Send + Sync>;

/// Makes a handler of an async function.
pub fn handler<F, R>(answer: F) -> Handler
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Message, EdgeError>> + Send + 'static,
{
    Arc::new(move |call| answer(call).boxed())
}

/// A message that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Where it came in. Of what is sent to the hub it names the node that sent it.
    pub subject: Subject,
    /// What was published.
    pub message: Message,
}

/// Sends an answer back.
pub(crate) type Answer = Box<dyn FnOnce(Result<Message, EdgeError>) -> BoxFuture<'static, ()> + Send>;

/// A request with the way back.
pub(crate) struct Pending {
    pub(crate) call: Call,
    pub(crate) answer: Answer,
}

/// Whatever fills a buffer. Dropping it ends that.
pub(crate) type Feed = Box<dyn Any + Send + Sync>;

/// Requests that are being answered. Dropped, it takes no more and drops the handlers that run.
pub struct Service {
    feed: Option<Feed>,
    buffer: Arc<Buffer<Pending>>,
    answering: AbortOnDropHandle<()>,
}

impl Service {
    /// Starts to answer what comes into `buffer`.
    pub(crate) fn start(buffer: Arc<Buffer<Pending>>, feed: Feed, concurrency: usize, handler: Handler) -> Self {
        let answering: JoinHandle<()> = tokio::spawn(answer_all(Arc::clone(&buffer), concurrency, handler));
        Self { feed: Some(feed), buffer, answering: AbortOnDropHandle::new(answering) }
    }

    /// Takes no more requests, and returns when those that came are answered.
    pub async fn stop(mut self) {
        self.feed.take();
        self.buffer.close();
        // It ends by itself, and a panic of it was a defect that is logged.
        let _ = (&mut self.answering).await;
    }

    /// Requests that were answered as overloaded.
    pub fn refused(&self) -> u64 {
        self.buffer.dropped()
    }
}

pub(crate) fn check_concurrency(concurrency: usize) -> Result<(), BackboneError> {
    if (1..=SERVICE_CONCURRENCY_MAX).contains(&concurrency) {
        return Ok(());
    }
    Err(BackboneError::Invalid(format!("a service answers 1 to {SERVICE_CONCURRENCY_MAX} requests at once, not {concurrency}")))
}

/// Puts a request where its turn comes, or answers that there is no room.
pub(crate) async fn take_in(buffer: &Buffer<Pending>, pending: Pending) {
    let bytes = pending.call.message.bytes();
    if let Err(Pending { call, answer }) = buffer.push(pending, bytes) {
        let message = format!("`{}` is overloaded; try again later", call.subject);
        answer(Err(EdgeError::new(ErrorKind::Overloaded, message))).await;
    }
}

async fn answer_all(buffer: Arc<Buffer<Pending>>, concurrency: usize, handler: Handler) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            pending = buffer.next(), if running.len() < concurrency => match pending {
                Some(pending) => _ = running.spawn(answer_one(pending, Arc::clone(&handler))),
                None => break,
            },
            Some(_) = running.join_next() => {}
        }
    }
    while running.join_next().await.is_some() {}
}

async fn answer_one(Pending { call, answer }: Pending, handler: Handler) {
    let (subject, deadline) = (call.subject.clone(), call.deadline);
    if deadline <= Instant::now() {
        return;
    }
    let answering = AssertUnwindSafe(async { handler(call).await }).catch_unwind();
    // Past the deadline nobody waits for an answer.
    let Ok(answered) = timeout_at(deadline, answering).await else { return };
    let result = answered.unwrap_or_else(|_panic| {
        Err(EdgeError::new(ErrorKind::Internal, format!("the handler of `{subject}` panicked; its log says more")))
    });
    let result = result.and_then(|message| match message.check(&subject) {
        Ok(()) => Ok(message),
        Err(_) => Err(EdgeError::new(ErrorKind::TooLarge, format!("the answer of `{subject}` is {} bytes long", message.payload.len()))),
    });
    answer(result).await;
}

/// Messages that arrive.
pub struct Subscription {
    buffer: Arc<Buffer<Received>>,
    _feed: Feed,
}

impl Subscription {
    pub(crate) fn new(buffer: Arc<Buffer<Received>>, feed: Feed) -> Self {
        Self { buffer, _feed: feed }
    }

    /// The next message. Dropping the future loses none. None when the backbone is gone.
    pub async fn next(&mut self) -> Option<Received> {
        self.buffer.next().await
    }

    /// Messages that were dropped because they found no room.
    pub fn dropped(&self) -> u64 {
        self.buffer.dropped()
    }
}
