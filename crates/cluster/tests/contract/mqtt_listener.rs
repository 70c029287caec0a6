//! Why the MQTT listener of nats-server itself is not used: what it acknowledges need not be kept. See ADR 20.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::{Command, Stdio},
};

use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy},
};

use crate::server::Server;

/// Set where `cargo xtask setup` has installed what tests need.
const SET_UP_VARIABLE: &str = "EDGEWARD_IS_SET_UP";

#[tokio::test]
async fn nats_servers_own_listener_for_mqtt_acknowledges_what_a_full_stream_refused() {
    if Command::new("mosquitto_pub").arg("--help").stdout(Stdio::null()).status().is_err() {
        assert!(std::env::var_os(SET_UP_VARIABLE).is_none(), "`mosquitto_pub` was not found, though `cargo xtask setup` installs it");
        eprintln!("not tested: `mosquitto_pub` was not found; install the package `mosquitto-clients`");
        return;
    }
    let mqtt = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a free port").port();
    let server = Server::start(Box::leak(format!("mqtt {{ listen: \"127.0.0.1:{mqtt}\" }}").into_boxed_str())).await;
    let client = async_nats::connect(format!("127.0.0.1:{}", server.port())).await.expect("connects");
    let config = Config {
        name: "fleet".to_owned(),
        subjects: vec!["fleet.>".to_owned()],
        max_messages: 1,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    let stream = jetstream::new(client).create_stream(config).await.expect("made");
    let port = mqtt.to_string();
    for number in ["1", "2", "3"] {
        let published =
            Command::new("mosquitto_pub").args(["-p", &port, "-q", "1", "-i", "sensor", "-t", "fleet/a", "-m", number]).output();
        let published = published.expect("starts");
        // With QoS 1 it ends well once it has the PUBACK.
        assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    }
    assert_eq!(stream.get_info().await.expect("asks").state.messages, 1, "of three that were acknowledged");
}
