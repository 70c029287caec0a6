//! MQTT 3.1.1 and 5 for sensors and any other client: a broker over whatever stream its caller has accepted.
//!
//! What is published with QoS 1 or 2 is acknowledged after the commit of the log, and what a session was not given yet lies there too, so
//! neither is lost with the process. The packets are read and written by `rmqtt-codec`; everything else is here.

mod broker;
mod codec;
mod connection;
mod message;
mod opening;
mod retained;
mod room;
mod session;
mod will;
mod wire;

pub use broker::{Authenticate, Broker, BrokerState, ClientEvent, ClientEventKind, Identity, Login};
