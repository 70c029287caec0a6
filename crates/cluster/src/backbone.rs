//! The contract between members of the fleet. Both implementations keep it, and one suite of tests holds them to it.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    error::BackboneError,
    lease::{Claim, Claimed},
    message::Message,
    service::{Handler, Service, Subscription},
    subject::{Subject, Subjects},
};

/// How one member talks to the others.
///
/// **Delivery** is at most once: a message is handled once or never. Whoever needs more asks again with something that is safe to repeat.
/// Nothing is kept for a member that is away.
///
/// **Order.** What one member sends on one subject arrives at one subscriber in that order, with gaps where something was dropped. A
/// service starts requests in that order, but answers several at once. There is no order between subjects or senders.
///
/// **Bounds** are in [`edgeward_model::limits`]. Past one the answer is an error, or a count of what was dropped.
///
/// **Away and back.** While this member is cut off, [`request`](Self::request), [`publish`](Self::publish) and
/// [`lease`](Self::lease) fail at once with [`BackboneError::Disconnected`]; [`serve`](Self::serve) and [`subscribe`](Self::subscribe)
/// succeed and count from when it is back. Requests that wait when the connection breaks fail at once with the same error, and may
/// have been executed. Reconnection is the backbone's own work and never ends. When [`connection`](Self::connection) shows the member up
/// again, everything it serves and subscribes to is in place again; what was sent to it meanwhile is lost, so it must then ask for what
/// it missed.
///
/// Whether a member that went silent is gone shows late: its service looks like [`BackboneError::Timeout`] until the broker notices, and
/// like [`BackboneError::NoResponder`] then.
pub trait Backbone: Send + Sync {
    /// Sends a request and waits for its answer, at most `timeout`, which is at most [`edgeward_model::limits::REQUEST_TIMEOUT_MAX`].
    ///
    /// The other side knows the deadline and gives up at it. A call that is dropped is no longer waited for.
    ///
    /// # Errors
    /// Every [`BackboneError`]; each says whether the request may have been executed.
    fn request<'a>(&'a self, to: &'a Subject, message: Message, timeout: Duration) -> BoxFuture<'a, Result<Message, BackboneError>>;

    /// Answers the requests on these subjects by `handler`, `concurrency` at once (1 to
    /// [`edgeward_model::limits::SERVICE_CONCURRENCY_MAX`]), until the service is stopped or dropped.
    ///
    /// Members that serve the same subject share its requests: each goes to one of them. Further requests wait for their turn, as many as
    /// [`edgeward_model::limits::WAITING_MESSAGES_MAX`]; past that they are answered with
    /// [`edgeward_model::ErrorKind::Overloaded`]. A handler is dropped at the deadline of its request; one that panics answers with
    /// [`edgeward_model::ErrorKind::Internal`]. When this returns and the member is connected, requests arrive.
    fn serve<'a>(&'a self, subjects: &'a Subjects, concurrency: usize, handler: Handler) -> BoxFuture<'a, Result<Service, BackboneError>>;

    /// Sends a message to every subscriber. `Ok` says that it was handed to the connection, not that it arrives.
    ///
    /// # Errors
    /// [`BackboneError::Disconnected`], [`BackboneError::TooLarge`], [`BackboneError::Timeout`] when the connection takes nothing.
    fn publish<'a>(&'a self, to: &'a Subject, message: Message) -> BoxFuture<'a, Result<(), BackboneError>>;

    /// Receives what is published on these subjects, until it is dropped. When this returns and the member is connected, messages arrive.
    ///
    /// At most [`edgeward_model::limits::WAITING_MESSAGES_MAX`] messages wait for the subscriber; past that the new ones are dropped and
    /// counted.
    fn subscribe<'a>(&'a self, subjects: &'a Subjects) -> BoxFuture<'a, Result<Subscription, BackboneError>>;

    /// Takes a lease, which one member has at a time: see [`Claim`] and [`Lease`](crate::lease::Lease).
    ///
    /// # Errors
    /// [`BackboneError::Disconnected`], [`BackboneError::Timeout`], [`BackboneError::Broker`]. It may be taken all the same; the same
    /// holder can claim it again at once.
    fn lease(&self, claim: Claim) -> BoxFuture<'_, Result<Claimed, BackboneError>>;

    /// Whether this member reaches the others.
    fn connection(&self) -> watch::Receiver<Connection>;
}

/// Whether a member reaches the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// It does.
    pub is_up: bool,
    /// How often it came up, the first time included. Who sees this change has missed messages.
    pub ups: u64,
    /// Why it does not, for people; none while it does.
    pub why_down: Option<String>,
}
