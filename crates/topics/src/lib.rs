//! Topics: messages that are published once and read by many, at their own pace.
//!
//! A message that was acknowledged is on disk (`log`); who reads has bounded memory (`subscriber`); who must not miss one gets it at least
//! once, in order of its key (`deliver`); and sensors speak MQTT (`mqtt`).

pub mod backup;
pub mod cloud_event;
pub mod deliver;
mod error;
pub mod filter_tree;
pub mod log;
pub mod message;
pub mod mqtt;
pub mod subscriber;

pub use cloud_event::CloudEvent;
pub use deliver::{Delivery, DeliveryCounts, Retry};
pub use edgeward_model::topic::{self, TopicFilter, TopicName};
pub use filter_tree::FilterTree;
pub use log::{
    LogOptions, LogState, Pending, TopicLog,
    dead_letters::DeadLetter,
    durable::DurableSubscription,
    listing::{Latest, TopicInfo},
    origins::{Mark, Span},
    read::Batch,
};
pub use message::{Message, Origin};
pub use subscriber::{Received, Start, Subscription};
