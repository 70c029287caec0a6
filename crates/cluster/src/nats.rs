//! The backbone over NATS: core NATS for messages, one JetStream bucket for leases.
//!
//! Three things differ from what the client does unless told: requests that are given up leave nothing behind, and end when the connection
//! breaks; what arrives waits in bounded buffers that count what they drop; nothing is sent while there is no connection.

mod admission;
mod audit;
mod authority;
mod broker;
mod certificates;
mod connection;
mod enrolment;
mod errand;
mod fingerprint;
mod fleet_folder;
mod fleet_keys;
mod hub_link;
mod join_token;
mod jwt;
mod keeper;
mod lease;
mod node_link;
mod options;
mod presence;
mod reception;
mod renewal;
mod replies;
mod revocation;
mod secret_file;
mod server_config;
mod server_files;
mod topic_stream;
mod used_tokens;
mod wire;

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Subscriber, client::PublishErrorKind, connection::State};
use edgeward_model::{
    EdgeError, ErrorKind, NodeId,
    limits::{REQUEST_TIMEOUT_MAX, SEND_TIMEOUT},
};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use self::admission::{Applicant, CredentialsTtl};
pub use self::authority::{Authority, Revoked, Seeds};
pub use self::broker::{Broker, BrokerOptions, BrokerState};
pub use self::certificates::{Certificate, CertificateAuthority};
pub use self::enrolment::Enrolment;
pub use self::fingerprint::Fingerprint;
pub use self::fleet_folder::FleetFolder;
pub use self::fleet_keys::FleetKeys;
pub use self::hub_link::{HubLink, HubOptions, Servers};
pub use self::join_token::JoinToken;
pub use self::keeper::CredentialState;
pub use self::node_link::NodeLink;
pub use self::options::{Credentials, NatsOptions, PING_INTERVAL_DEFAULT, Tls};
pub use self::reception::{Reception, Refusal, Registry};
pub use self::server_config::ServerConfig;
pub use self::server_files::ServerFiles;
pub use self::topic_stream::{Appending, Following, StreamBounds, StreamContent, StreamMessage, StreamState, TopicStream};
use self::{
    lease::Leases,
    replies::{Broken, Replies},
};
use crate::{
    backbone::{Backbone, Connection},
    buffer::Buffer,
    error::BackboneError,
    lease::{Claim, Claimed},
    message::Message,
    service::{Answer, Call, Counter, Handler, Pending, Received, Service, Subscription},
    subject::{Name, Subject, Subjects},
};

/// Members that serve a subject share it under this name.
const QUEUE_GROUP: &str = "edgeward";
/// A subject that nobody serves: its answer tells that the broker has read all that was sent before.
const PROBE: Name = Name::new("probe");
/// Longest wait for that answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is looked whether nobody waits for an answer.
const QUIET_LOOK: Duration = Duration::from_millis(20);

/// One member's connection to NATS. It reconnects by itself until it is dropped.
pub struct NatsBackbone {
    link: Link,
    leases: Leases,
    replicas: usize,
    connection: watch::Receiver<Connection>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// What sends.
#[derive(Clone)]
struct Link {
    member: NodeId,
    client: Client,
    replies: Arc<Replies>,
    /// What it shows the broker.
    credentials: Option<Credentials>,
    /// Requests that came and are not answered.
    answering: TaskTracker,
}

impl NatsBackbone {
    /// Starts to connect, and returns without waiting for it: a member works before its broker is there.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when an option is not valid.
    pub async fn connect(options: NatsOptions) -> Result<Self, EdgeError> {
        let (events, received_events) = connection::events();
        let servers = options.servers()?;
        let (member, period, replicas) = (options.member.clone(), options.ping_interval, options.lease_replicas);
        let credentials = options.credentials.clone();
        let failed = |error| EdgeError::invalid("failed to prepare the connection to NATS").with_source(error);
        let client = options.client(events).connect(servers).await.map_err(|error| failed(error.into()))?;
        let replies = Arc::new(Replies::new(client.new_inbox()));
        let inbox =
            client.subscribe(replies.pattern()).await.map_err(|error| failed(Box::<dyn std::error::Error + Send + Sync>::from(error)))?;
        let leases = Leases::new(client.clone(), replicas);
        let link = Link { member, client, replies, credentials, answering: TaskTracker::new() };
        let (state, connection) = watch::channel(Connection::default());
        let tasks = [
            tokio::spawn(take_answers(inbox, Arc::clone(&link.replies))),
            tokio::spawn(connection::watch(link.clone(), received_events, state, period)),
        ];
        Ok(Self { link, leases, replicas, connection, _tasks: tasks.map(AbortOnDropHandle::new) })
    }

    /// The stream of the fleet's topics, for a hub.
    pub fn topic_stream(&self) -> TopicStream {
        TopicStream::new(self.link.client.clone(), self.connection.clone(), self.replicas)
    }
}

impl Link {
    fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// How often the connection was made.
    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn check_up(&self) -> Result<(), BackboneError> {
        if self.is_up() { Ok(()) } else { Err(disconnected()) }
    }

    async fn ask(&self, to: &Subject, message: Message, time: Duration) -> Result<Message, BackboneError> {
        message.check(to)?;
        self.check_up()?;
        let time = time.min(REQUEST_TIMEOUT_MAX);
        let (subject, bytes) = (to.to_string(), message.payload.len());
        let waiter = self.replies.wait(&subject, self.connects())?;
        let sending = async {
            let headers = wire::request_headers(&message.headers, time);
            let reply = waiter.inbox();
            let sent = self.client.publish_with_reply_and_headers(subject.clone(), reply, headers, message.payload).await;
            sent.map_err(|error| self.not_sent(to, bytes, error))?;
            waiter.answer().await.map_err(|broken| match broken {
                Broken::Disconnected => disconnected(),
                Broken::Forbidden => BackboneError::Forbidden(subject.clone()),
            })
        };
        let answer = timeout(time, sending).await.map_err(|_elapsed| BackboneError::Timeout(to.to_string()))??;
        if answer.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
            return Err(BackboneError::NoResponder(subject));
        }
        wire::read_answer(answer.headers.as_ref(), answer.payload).map_err(BackboneError::Answered)
    }

    /// Returns when the broker has read all that this member sent before, as far as that can be told.
    async fn settle(&self) {
        let nobody = Subject::to_hub(self.member.clone(), PROBE);
        // Every outcome is one: nobody answers, there is no connection, or no right to ask.
        let _ = self.ask(&nobody, Message::default(), PROBE_TIMEOUT).await;
    }

    async fn send(&self, to: &Subject, message: Message) -> Result<(), BackboneError> {
        message.check(to)?;
        self.check_up()?;
        let (headers, bytes) = (wire::headers(&message.headers), message.payload.len());
        let sent = timeout(SEND_TIMEOUT, self.client.publish_with_headers(to.to_string(), headers, message.payload)).await;
        sent.map_err(|_elapsed| BackboneError::Timeout(to.to_string()))?.map_err(|error| self.not_sent(to, bytes, error))
    }

    /// The error of who could not send a payload of this size.
    fn not_sent(&self, to: &Subject, bytes: usize, error: async_nats::PublishError) -> BackboneError {
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                BackboneError::TooLarge { subject: to.to_string(), bytes, bytes_max: self.client.max_payload() }
            }
            PublishErrorKind::Send => BackboneError::Disconnected("the connection to NATS is closed".to_owned()),
            PublishErrorKind::InvalidSubject => BackboneError::Broker { what: format!("send to `{to}`"), source: error.into() },
        }
    }

    fn way_back(&self, reply: async_nats::Subject) -> Answer {
        let (client, waits) = (self.client.clone(), self.answering.token());
        Box::new(move |result| {
            async move {
                answer(client, reply, result).await;
                drop(waits);
            }
            .boxed()
        })
    }

    /// Makes a new connection, which shows the present credentials, in a moment in which nobody waits for an answer here or from here, and
    /// at `by` in any case. It is made before the broker ends the old one, which it does in any moment.
    async fn change_over(&self, by: Instant) {
        let connects = self.connects();
        while self.is_up() && Instant::now() < by && !(self.replies.is_empty() && self.answering.is_empty()) {
            sleep(QUIET_LOOK).await;
        }
        // One that broke meanwhile is made anew as well.
        if self.is_up() && self.connects() == connects {
            // It fails when the connection is gone for ever.
            let _ = self.client.force_reconnect().await;
        }
    }

    /// Ends the connection; whether there is another is up to the credentials.
    async fn break_off(&self) {
        if self.is_up() {
            // It fails when the connection is gone for ever.
            let _ = self.client.force_reconnect().await;
        }
    }
}

fn disconnected() -> BackboneError {
    BackboneError::Disconnected("it has no connection to NATS".to_owned())
}

/// Sends an answer; one that the broker would not take becomes an error, so that the caller need not wait.
async fn answer(client: Client, reply: async_nats::Subject, result: Result<Message, EdgeError>) {
    let send = async |result| {
        let (headers, payload) = wire::answer(result);
        let sent = timeout(SEND_TIMEOUT, client.publish_with_headers(reply.clone(), headers, payload)).await;
        matches!(sent, Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded)
    };
    let is_too_large = send(result).await;
    if is_too_large {
        send(Err(EdgeError::new(ErrorKind::TooLarge, "the broker takes no answer of this size"))).await;
    }
}

async fn take_answers(mut inbox: Subscriber, replies: Arc<Replies>) {
    while let Some(message) = inbox.next().await {
        replies.answer(message);
    }
}

async fn take_requests(mut subscriber: Subscriber, subjects: Subjects, link: Link, counter: Arc<Counter>) {
    while let Some(request) = subscriber.next().await {
        let (Some(subject), Some(reply)) = (subjects.parse(&request.subject), request.reply) else { continue };
        let deadline = Instant::now() + wire::timeout(request.headers.as_ref());
        let message = wire::read(request.headers.as_ref(), request.payload);
        counter.take_in(Pending { call: Call { subject, message, deadline }, answer: link.way_back(reply) }).await;
    }
}

async fn take_messages(mut subscriber: Subscriber, subjects: Subjects, buffer: Arc<Buffer<(Instant, Received)>>) {
    while let Some(published) = subscriber.next().await {
        let Some(subject) = subjects.parse(&published.subject) else { continue };
        let message = wire::read(published.headers.as_ref(), published.payload);
        let bytes = message.bytes();
        // The subscription counts what it has no room for.
        let _ = buffer.push((Instant::now(), Received { subject, message }), bytes);
    }
    buffer.close();
}

fn not_subscribed(subjects: &Subjects, error: async_nats::SubscribeError) -> BackboneError {
    BackboneError::Broker { what: format!("subscribe to `{subjects}`"), source: error.into() }
}

impl Backbone for NatsBackbone {
    fn request<'a>(&'a self, to: &'a Subject, message: Message, timeout: Duration) -> BoxFuture<'a, Result<Message, BackboneError>> {
        self.link.ask(to, message, timeout).boxed()
    }

    fn serve<'a>(&'a self, subjects: &'a Subjects, concurrency: usize, handler: Handler) -> BoxFuture<'a, Result<Service, BackboneError>> {
        async move {
            let counter = Counter::new(concurrency, handler)?;
            let subscribing = self.link.client.queue_subscribe(subjects.to_string(), QUEUE_GROUP.to_owned());
            let subscriber = subscribing.await.map_err(|error| not_subscribed(subjects, error))?;
            let feeding = tokio::spawn(take_requests(subscriber, subjects.clone(), self.link.clone(), Arc::clone(&counter)));
            let service = Service::new(counter, Box::new(AbortOnDropHandle::new(feeding)));
            self.link.settle().await;
            Ok(service)
        }
        .boxed()
    }

    fn publish<'a>(&'a self, to: &'a Subject, message: Message) -> BoxFuture<'a, Result<(), BackboneError>> {
        self.link.send(to, message).boxed()
    }

    fn subscribe<'a>(&'a self, subjects: &'a Subjects) -> BoxFuture<'a, Result<Subscription, BackboneError>> {
        async move {
            let subscriber = self.link.client.subscribe(subjects.to_string()).await.map_err(|error| not_subscribed(subjects, error))?;
            let buffer = Arc::new(Buffer::new());
            let feeding = tokio::spawn(take_messages(subscriber, subjects.clone(), Arc::clone(&buffer)));
            let subscription = Subscription::new(buffer, Box::new(AbortOnDropHandle::new(feeding)));
            self.link.settle().await;
            Ok(subscription)
        }
        .boxed()
    }

    fn lease(&self, claim: Claim) -> BoxFuture<'_, Result<Claimed, BackboneError>> {
        async move {
            claim.check()?;
            self.link.check_up()?;
            self.leases.claim(claim).await
        }
        .boxed()
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }
}
