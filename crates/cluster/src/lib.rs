//! The fleet: how its members talk, and what they decide about each other.
//!
//! [`Backbone`] is the contract between members; [`local`] keeps it inside one process, [`nats`] across machines. What is decided about
//! members is pure: time is an argument.

pub mod backbone;
pub mod backoff;
mod buffer;
pub mod chaos;
pub mod deadline;
pub mod error;
pub mod grants;
pub mod lease;
pub mod local;
pub mod membership;
pub mod message;
pub mod nats;
pub mod placement;
mod planted;
#[cfg(test)]
mod random;
pub mod rollout;
pub mod routing;
pub mod schedule;
pub mod service;
pub mod subject;

pub use backbone::{Backbone, Connection};
pub use error::BackboneError;
pub use lease::{Claim, Claimed, Lease};
pub use local::{LocalBackbone, LocalNetwork};
pub use membership::Membership;
pub use message::{Headers, Message};
pub use nats::{Credentials, NatsBackbone, NatsOptions, Tls};
pub use routing::{Picked, RetryPlan, RouteView, Router};
pub use service::{Call, Handler, Received, Service, Subscription, handler};
pub use subject::{Direction, Name, Subject, Subjects};
