//! What a client publishes, and what it may not.

use edgeward_model::limits::{MQTT_RECEIVE_MAX, TOPIC_LEVELS_MAX, TOPIC_PAYLOAD_BYTES_MAX};
use edgeward_topics::{Received, Start, TopicFilter};
use rmqtt_codec::{
    types::{Publish, QoS},
    v5::{Connect, ConnectAckReason, DisconnectReasonCode as Reason, LastWill, Packet, PublishAck2, PublishAckReason, PublishProperties},
};

use crate::client::{Bench, Client, login, message, until};

async fn texts(bench: &Bench) -> Vec<String> {
    let batch = bench.log.read(1, &TopicFilter::new("#").expect("valid")).await.expect("reads");
    batch.messages.iter().map(|message| String::from_utf8(message.payload.to_vec()).expect("text")).collect()
}

#[tokio::test]
async fn a_message_of_qos_1_is_in_the_log_when_it_is_acknowledged() {
    let bench = Bench::new();
    for is_five in [false, true] {
        let mut client = bench.client(is_five, "c").await;
        assert_eq!(client.publish("a/x", "payload").await, PublishAckReason::Success);
        let batch = bench.log.read(1, &TopicFilter::new("a/+").expect("valid")).await.expect("reads");
        let last = batch.messages.last().expect("there");
        assert_eq!(
            (last.publisher.as_deref(), &last.payload[..], last.position),
            (Some("c"), &b"payload"[..], Some(1 + u64::from(is_five)))
        );
        client.leave().await;
    }
}

#[tokio::test]
async fn acknowledgements_come_in_the_order_of_the_messages_and_many_may_be_on_their_way() {
    let bench = Bench::new();
    let mut client = bench.client(false, "c").await;
    for packet in 1..=2 * MQTT_RECEIVE_MAX {
        client.send(message("a", &packet.to_string(), QoS::AtLeastOnce, packet).into()).await;
    }
    for packet in 1..=2 * MQTT_RECEIVE_MAX {
        match client.next().await {
            Packet::PublishAck(ack) => assert_eq!(ack.packet_id.get(), packet),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.log.state().head, 2 * u64::from(MQTT_RECEIVE_MAX));
}

async fn received(client: &mut Client) -> (u16, PublishAckReason) {
    match client.next().await {
        Packet::PublishReceived(ack) => (ack.packet_id.get(), ack.reason_code),
        other => panic!("{other:?}"),
    }
}

async fn release(client: &mut Client, packet: u16) {
    let release = PublishAck2 { packet_id: packet.try_into().expect("not 0"), ..Default::default() };
    client.send(Packet::PublishRelease(release)).await;
    match client.next().await {
        Packet::PublishComplete(complete) => assert_eq!(complete.packet_id.get(), packet),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_of_qos_2_is_in_the_log_once_however_often_it_is_sent_until_it_is_released() {
    for (is_five, stays) in [(false, true), (true, true), (true, false)] {
        let bench = Bench::new();
        let mut client = if stays { bench.staying(is_five, "c").await.0 } else { bench.client(is_five, "c").await };
        let publish = message("a", "1", QoS::ExactlyOnce, 5);
        client.send(publish.clone().into()).await;
        assert_eq!(received(&mut client).await, (5, PublishAckReason::Success));
        client.send(Publish { dup: true, ..publish.clone() }.into()).await;
        assert_eq!(received(&mut client).await, (5, PublishAckReason::Success));
        let bench = if stays {
            client.vanish().await;
            let bench = bench.restart();
            client = bench.staying(is_five, "c").await.0;
            client.send(Publish { dup: true, ..publish.clone() }.into()).await;
            assert_eq!(received(&mut client).await, (5, PublishAckReason::Success));
            bench
        } else {
            bench
        };
        assert_eq!(texts(&bench).await, ["1"]);
        release(&mut client, 5).await;
        release(&mut client, 5).await;
        client.send(Publish { payload: "2".into(), ..publish }.into()).await;
        assert_eq!(received(&mut client).await, (5, PublishAckReason::Success));
        assert_eq!(texts(&bench).await, ["1", "2"]);
        client.leave().await;
    }
}

#[tokio::test]
async fn a_client_that_releases_nothing_is_ended() {
    let bench = Bench::new();
    let mut client = bench.client(true, "c").await;
    for packet in 1..=MQTT_RECEIVE_MAX {
        client.send(message("a", "x", QoS::ExactlyOnce, packet).into()).await;
        assert_eq!(received(&mut client).await.0, packet);
    }
    client.send(message("a", "x", QoS::ExactlyOnce, MQTT_RECEIVE_MAX + 1).into()).await;
    assert_eq!(client.ended().await, Some(Reason::ReceiveMaximumExceeded));
}

#[tokio::test]
async fn a_message_of_qos_0_goes_to_who_listens_and_is_in_no_log() {
    let bench = Bench::new();
    let mut subscription = bench.log.subscribe(&[TopicFilter::new("a").expect("valid")], Start::Now).expect("subscribed");
    let mut client = bench.client(false, "c").await;
    client.send(message("a", "x", QoS::AtMostOnce, 0).into()).await;
    match subscription.next().await.expect("open") {
        Received::Message(message) => assert_eq!((&message.payload[..], message.position), (&b"x"[..], None)),
        lost @ Received::Lost(_) => panic!("{lost:?}"),
    }
    assert_eq!(bench.log.state().head, 0);
}

#[tokio::test]
async fn who_may_not_publish_somewhere_hears_of_it_and_nothing_is_kept() {
    let bench = Bench::new();
    for topic in ["c", "$SYS/x"] {
        let mut five = bench.client(true, "five").await;
        assert_eq!(five.publish(topic, "x").await, PublishAckReason::NotAuthorized);
        five.send(message(topic, "x", QoS::ExactlyOnce, 3).into()).await;
        assert_eq!(received(&mut five).await, (3, PublishAckReason::NotAuthorized));
        five.send(message(topic, "x", QoS::AtMostOnce, 0).into()).await;
        five.nothing_more().await;
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut three = bench.client(false, "three").await;
            three.send(message(topic, "x", qos, u16::from(qos != QoS::AtMostOnce)).into()).await;
            assert_eq!(three.ended().await, None, "version 3 has no word for it");
        }
        assert!(bench.ended("three").await.1.contains("may not publish"));
    }
    assert_eq!((bench.log.state().head, bench.broker.state().received_refused), (0, 12));
}

#[tokio::test]
async fn a_topic_or_a_message_past_a_bound_is_refused() {
    let bench = Bench::new();
    let deep = vec!["a"; TOPIC_LEVELS_MAX + 1].join("/");
    for topic in [deep.as_str(), "a/+", "a\u{1}"] {
        let mut client = bench.client(true, "c").await;
        client.send(message(topic, "x", QoS::AtLeastOnce, 1).into()).await;
        assert_eq!(client.ended().await, Some(Reason::TopicNameInvalid), "{topic}");
    }
    let mut client = bench.client(true, "c").await;
    let most = "x".repeat(TOPIC_PAYLOAD_BYTES_MAX);
    assert_eq!(client.publish("a", &most).await, PublishAckReason::Success);
    assert_eq!(client.publish("a", &format!("{most}x")).await, PublishAckReason::QuotaExceeded);
    let user_properties = vec![("n".into(), "v".into()); 33];
    let properties = Some(PublishProperties { user_properties, ..Default::default() });
    let many = Publish { properties, ..message("a", "x", QoS::AtLeastOnce, 1) };
    assert_eq!(client.publish_with(many).await, PublishAckReason::QuotaExceeded);
    client.send(message("a", &"x".repeat(TOPIC_PAYLOAD_BYTES_MAX + 16 * 1024), QoS::AtLeastOnce, 1).into()).await;
    assert_eq!(client.ended().await, Some(Reason::PacketTooLarge));
    assert_eq!(bench.log.state().head, 1);
}

#[tokio::test]
async fn a_topic_alias_is_refused_as_none_was_allowed() {
    let bench = Bench::new();
    let mut client = bench.client(true, "c").await;
    let properties = Some(PublishProperties { topic_alias: 1.try_into().ok(), ..Default::default() });
    client.send(Publish { properties, ..message("a", "x", QoS::AtLeastOnce, 1) }.into()).await;
    assert_eq!(client.ended().await, Some(Reason::TopicAliasInvalid));
}

fn with_will(id: &str, will: LastWill) -> Connect {
    Connect { last_will: Some(will), ..login(id) }
}

fn will(topic: &str) -> LastWill {
    LastWill {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: topic.into(),
        message: "gone".into(),
        will_delay_interval_sec: None,
        correlation_data: None,
        message_expiry_interval: None,
        content_type: None,
        user_properties: Vec::new(),
        is_utf8_payload: None,
        response_topic: None,
    }
}

#[tokio::test]
async fn the_will_of_a_client_that_goes_without_a_word_is_published_and_the_owner_hears_of_it() {
    let bench = Bench::new();
    for is_five in [false, true] {
        let (client, _) = bench.connect(is_five, with_will("polite", will("a/polite"))).await;
        client.leave().await;
        assert_eq!(bench.ended("polite").await, (true, "it said goodbye".to_owned()));
        let before = bench.log.state().head;
        let (client, _) = bench.connect(is_five, with_will("rude", will("a/rude"))).await;
        client.vanish().await;
        assert!(!bench.ended("rude").await.0);
        assert_eq!(bench.log.state().head, before + 1);
        let (client, _) = bench.connect(is_five, with_will("taken", will("a/taken"))).await;
        let (other, _) = bench.connect(is_five, login("taken")).await;
        assert_eq!(client.ended().await, is_five.then_some(Reason::SessionTakenOver));
        other.leave().await;
        let retained = bench.log.retained(&TopicFilter::new("a/+").expect("valid"), "").await.expect("reads");
        assert_eq!(retained.iter().map(|message| message.topic.as_str()).collect::<Vec<_>>(), ["a/rude", "a/taken"]);
    }
    let (_, ack) = bench.connect(true, with_will("c", will("elsewhere"))).await;
    assert_eq!(ack.reason_code, ConnectAckReason::NotAuthorized);
}

#[tokio::test]
async fn a_will_waits_as_long_as_its_client_asks_and_not_at_all_when_the_client_is_back() {
    let bench = Bench::new();
    let late = |id: &str| Connect {
        session_expiry_interval_secs: 600,
        ..with_will(id, LastWill { will_delay_interval_sec: Some(600), ..will("a/will") })
    };
    let (client, _) = bench.connect(true, late("c")).await;
    drop(client);
    bench.ended("c").await;
    assert_eq!(bench.log.state().head, 0, "it waits");
    let (client, _) = bench.connect(true, Connect { session_expiry_interval_secs: 600, ..login("c") }).await;
    client.leave().await;
    assert_eq!(bench.log.state().head, 0, "its client is back");
    let (client, _) = bench.connect(true, late("other")).await;
    drop(client);
    bench.ended("other").await;
    bench.broker.stop();
    until("it is published when the broker stops", async || bench.log.state().head == 1).await;
}
