//! The broker as its clients see it, over streams in memory; and with clients of others, where they are installed.

#[path = "mqtt/client.rs"]
mod client;
#[path = "mqtt/fuzz.rs"]
mod fuzz;
#[path = "mqtt/others.rs"]
mod others;
#[path = "mqtt/publishing.rs"]
mod publishing;
#[path = "mqtt/sessions.rs"]
mod sessions;
#[path = "mqtt/slow.rs"]
mod slow;
#[path = "mqtt/subscribing.rs"]
mod subscribing;
