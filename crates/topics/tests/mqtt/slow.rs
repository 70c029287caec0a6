//! Many clients that take nothing, and what that means for others.

use edgeward_model::limits::{MQTT_SENDING_ALL_BYTES_MAX, MQTT_SENDING_BYTES_MAX, TOPIC_PAYLOAD_BYTES_MAX};
use edgeward_topics::{Message, TopicName};
use jiff::Timestamp;
use rmqtt_codec::types::QoS;

use crate::client::{Bench, until};

/// Clients that together would have twice as much waiting as may be.
const CLIENTS: usize = 2 * MQTT_SENDING_ALL_BYTES_MAX / TOPIC_PAYLOAD_BYTES_MAX;

#[tokio::test]
async fn what_waits_for_many_slow_clients_has_a_bound_and_others_go_on_being_served() {
    let bench = Bench::new();
    let mut slow = Vec::new();
    for n in 0..CLIENTS {
        let mut client = bench.client(true, &format!("slow-{n}")).await;
        client.subscribe(&[("a/large", QoS::AtLeastOnce)]).await;
        slow.push(client);
    }
    let mut other = bench.client(true, "other").await;
    other.subscribe(&[("a/small", QoS::AtLeastOnce), ("a/live", QoS::AtMostOnce)]).await;

    let large = Message::new(TopicName::new("a/large").expect("valid"), vec![7; TOPIC_PAYLOAD_BYTES_MAX], Timestamp::now());
    bench.log.publish(large).await.expect("published");
    // There is no room for one more.
    let is_full = || bench.broker.state().sending_bytes + TOPIC_PAYLOAD_BYTES_MAX > MQTT_SENDING_ALL_BYTES_MAX;
    until("there is no room", async || is_full()).await;
    for n in 0..100 {
        let message = |topic| Message::new(TopicName::new(topic).expect("valid"), n.to_string(), Timestamp::now());
        bench.log.publish(message("a/small")).await.expect("published");
        bench.log.publish_live(message("a/live")).await.expect("shown");
        assert_eq!(other.messages(2).await, [n.to_string(), n.to_string()]);
    }
    // Each has what is written at the other end of its stream, which gives no room to others as long as it is less than half.
    let sent = bench.broker.state().sent - 200;
    assert!(
        is_full() && sent <= (MQTT_SENDING_ALL_BYTES_MAX / (TOPIC_PAYLOAD_BYTES_MAX - MQTT_SENDING_BYTES_MAX)) as u64,
        "{sent} were sent"
    );

    // What found no room waited, and comes when others have taken theirs.
    for client in &mut slow {
        assert_eq!(client.message().await.payload.len(), TOPIC_PAYLOAD_BYTES_MAX);
    }
    let state = bench.broker.state();
    assert_eq!((state.sent, state.dropped), (200 + CLIENTS as u64, 0));
    until("all room is given back", async || bench.broker.state().sending_bytes == 0).await;
}
