//! Topics on a node: triggers with native functions, over restarts, and MQTT with a client of others.

#[path = "topics/mqtt.rs"]
mod mqtt;
#[path = "topics/support.rs"]
mod support;
#[path = "topics/triggers.rs"]
mod triggers;
