//! What a member receives: requests that a service answers, and messages that a subscription gives.
//!
//! The implementations bring what comes; everything behind that is here, so that both behave alike.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use edgeward_model::{EdgeError, ErrorKind, limits::SERVICE_CONCURRENCY_MAX};
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    buffer::{Buffer, Waiting},
    error::BackboneError,
    message::Message,
    subject::Subject,
};

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

/// Whatever brings requests or messages. Dropping it ends that.
pub(crate) type Feed = Box<dyn Any + Send + Sync>;

/// Requests that are being answered. Dropped, it takes no more and drops the handlers that run.
pub struct Service {
    counter: Arc<Counter>,
    feed: Feed,
    /// Drops the handlers that run, with the service.
    end: DropGuard,
}

impl Service {
    pub(crate) fn new(counter: Arc<Counter>, feed: Feed) -> Self {
        Self { end: counter.end.clone().drop_guard(), counter, feed }
    }

    /// Takes no more requests, and returns when those that came are answered.
    pub async fn stop(self) {
        let Self { counter, feed, end } = self;
        drop(feed);
        counter.running.close();
        counter.running.wait().await;
        drop(end);
    }

    /// Requests that were answered as overloaded.
    pub fn refused(&self) -> u64 {
        self.counter.desk.lock().refused
    }
}

/// Where requests come in: so many are answered at once, and the others wait here for their turn.
pub(crate) struct Counter {
    handler: Handler,
    concurrency: usize,
    desk: Mutex<Desk>,
    running: TaskTracker,
    end: CancellationToken,
}

struct Desk {
    waiting: Waiting<Pending>,
    running: usize,
    refused: u64,
}

impl Counter {
    /// # Errors
    /// [`BackboneError::Invalid`] when that many at once are out of bounds.
    pub(crate) fn new(concurrency: usize, handler: Handler) -> Result<Arc<Self>, BackboneError> {
        if !(1..=SERVICE_CONCURRENCY_MAX).contains(&concurrency) {
            let message = format!("a service answers 1 to {SERVICE_CONCURRENCY_MAX} requests at once, not {concurrency}");
            return Err(BackboneError::Invalid(message));
        }
        let desk = Mutex::new(Desk { waiting: Waiting::default(), running: 0, refused: 0 });
        Ok(Arc::new(Self { handler, concurrency, desk, running: TaskTracker::new(), end: CancellationToken::new() }))
    }

    /// Takes a request in: it is answered, or waits, or is answered that there is no room.
    pub(crate) async fn take_in(self: &Arc<Self>, pending: Pending) {
        match self.admit(pending) {
            Admitted::Now(pending) => {
                let counter = Arc::clone(self);
                self.running.spawn(async move {
                    let end = counter.end.clone();
                    end.run_until_cancelled(counter.answer_all(pending)).await
                });
            }
            Admitted::Later => {}
            Admitted::Never(Pending { call, answer }) => {
                let message = format!("`{}` is overloaded; try again later", call.subject);
                answer(Err(EdgeError::new(ErrorKind::Overloaded, message))).await;
            }
        }
    }

    fn admit(&self, pending: Pending) -> Admitted {
        let mut desk = self.desk.lock();
        if desk.running < self.concurrency {
            desk.running += 1;
            return Admitted::Now(pending);
        }
        let bytes = pending.call.message.bytes();
        match desk.waiting.push(pending, bytes) {
            Ok(()) => Admitted::Later,
            Err(pending) => {
                desk.refused += 1;
                Admitted::Never(pending)
            }
        }
    }

    /// Answers one request, and then those that wait.
    async fn answer_all(&self, first: Pending) {
        let mut next = Some(first);
        while let Some(pending) = next {
            answer_one(pending, &self.handler).await;
            next = self.next();
        }
    }

    /// The next request that waits; none, and one less runs.
    fn next(&self) -> Option<Pending> {
        let mut desk = self.desk.lock();
        let next = desk.waiting.pop();
        if next.is_none() {
            desk.running -= 1;
        }
        next
    }
}

enum Admitted {
    Now(Pending),
    Later,
    Never(Pending),
}

async fn answer_one(Pending { call, answer }: Pending, handler: &Handler) {
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

/// Says of a message how late it arrives; none when it never does.
pub(crate) type Fate = Box<dyn Fn() -> Option<Duration> + Send + Sync>;

/// Messages that arrive.
pub struct Subscription {
    /// With when each came.
    buffer: Arc<Buffer<(Instant, Received)>>,
    _feed: Feed,
    fate: Option<Fate>,
    /// One that is late, and until when.
    late: Option<(Instant, Received)>,
}

impl Subscription {
    pub(crate) fn new(buffer: Arc<Buffer<(Instant, Received)>>, feed: Feed) -> Self {
        Self { buffer, _feed: feed, fate: None, late: None }
    }

    /// The same, where messages may be lost or late.
    pub(crate) fn with_fate(self, fate: Fate) -> Self {
        Self { fate: Some(fate), ..self }
    }

    /// The next message. Dropping the future loses none. None when the backbone is gone.
    pub async fn next(&mut self) -> Option<Received> {
        loop {
            if let Some((until, _)) = &self.late {
                sleep_until(*until).await;
                return self.late.take().map(|(_, received)| received);
            }
            let (came, received) = self.buffer.next().await?;
            match self.fate.as_ref().map_or(Some(Duration::ZERO), |fate| fate()) {
                Some(Duration::ZERO) => return Some(received),
                Some(delay) => self.late = Some((came + delay, received)),
                None => {}
            }
        }
    }

    /// Messages that were dropped because they found no room.
    pub fn dropped(&self) -> u64 {
        self.buffer.dropped()
    }
}
