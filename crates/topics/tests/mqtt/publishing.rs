//! What a client publishes, and what it may not.

use bytes::BytesMut;
use edgeward_model::limits::{
    MQTT_RECEIVE_MAX, SUBSCRIBER_PATIENCE, SUBSCRIBER_WAITING_MAX, TOPIC_ATTRIBUTES_MAX, TOPIC_LEVELS_MAX, TOPIC_PAYLOAD_BYTES_MAX,
};
use edgeward_topics::{Message, Received, Start, TopicFilter, TopicName};
use jiff::Timestamp;
use rmqtt_codec::{
    types::{Publish, QoS},
    v5::{
        self, Connect, ConnectAckReason, DisconnectReasonCode as Reason, LastWill, Packet, PublishAck2, PublishAckReason, PublishProperties,
    },
};
use tokio_util::codec::Encoder;

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
            (Some("/c"), &b"payload"[..], Some(1 + u64::from(is_five)))
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
async fn a_session_that_begins_anew_has_received_nothing() {
    for is_five in [false, true] {
        let bench = Bench::new();
        let publish = message("a", "1", QoS::ExactlyOnce, 5);
        let mut client = bench.staying(is_five, "c").await.0;
        client.send(publish.clone().into()).await;
        assert_eq!(received(&mut client).await, (5, PublishAckReason::Success));
        client.vanish().await;
        // As a crash between the end of a session and that of what it has received.
        bench.meddle("DELETE FROM subscriptions");
        let (mut client, was_there) = bench.staying(is_five, "c").await;
        assert!(!was_there);
        client.send(Publish { payload: "2".into(), ..publish }.into()).await;
        assert_eq!(received(&mut client).await, (5, PublishAckReason::Success));
        assert_eq!(texts(&bench).await, ["1", "2"]);
    }
}

#[tokio::test]
async fn what_the_disk_does_not_take_is_not_answered_and_the_client_may_send_it_again() {
    let bench = Bench::new();
    for (n, is_five) in [false, true].into_iter().enumerate() {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            bench.meddle("CREATE TRIGGER fails BEFORE INSERT ON messages BEGIN SELECT RAISE(FAIL, 'told to fail'); END");
            let (mut client, _) = bench.staying(is_five, "c").await;
            client.send(message("a", "x", qos, 7).into()).await;
            match client.try_next().await {
                None => assert!(!is_five),
                Some(Packet::Disconnect(disconnect)) => assert_eq!(disconnect.reason_code, Reason::UnspecifiedError),
                other => panic!("it was answered: {other:?}"),
            }
            client.vanish().await;
            bench.meddle("DROP TRIGGER fails");
        }
        let (mut client, _) = bench.staying(is_five, "c").await;
        client.send(Publish { dup: true, ..message("a", "x", QoS::ExactlyOnce, 7) }.into()).await;
        assert_eq!(received(&mut client).await, (7, PublishAckReason::Success));
        release(&mut client, 7).await;
        client.leave().await;
        assert_eq!(texts(&bench).await.len(), n + 1);
    }
}

#[tokio::test]
async fn a_refusal_comes_after_the_answers_to_what_was_published_before() {
    let bench = Bench::new();
    let mut client = bench.client(true, "c").await;
    let mut codec = v5::Codec::default();
    let mut packets = BytesMut::new();
    for (packet, topic, qos) in
        [(1, "a", QoS::AtLeastOnce), (2, "c", QoS::AtLeastOnce), (3, "a", QoS::ExactlyOnce), (4, "c", QoS::ExactlyOnce)]
    {
        codec.encode(message(topic, "x", qos, packet).into(), &mut packets).expect("valid");
    }
    codec.encode(Publish { dup: true, ..message("a", "x", QoS::ExactlyOnce, 3) }.into(), &mut packets).expect("valid");
    client.send_bytes(&packets).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(match client.next().await {
            Packet::PublishAck(ack) | Packet::PublishReceived(ack) => (ack.packet_id.get(), ack.reason_code),
            other => panic!("{other:?}"),
        });
    }
    let (done, refused) = (PublishAckReason::Success, PublishAckReason::NotAuthorized);
    assert_eq!(answers, [(1, done), (2, refused), (3, done), (4, refused)]);
}

#[tokio::test(start_paused = true)]
async fn a_client_gets_what_it_publishes_itself_and_waits_for_nobody() {
    let bench = Bench::new();
    let mut client = bench.client(true, "c").await;
    client.subscribe(&[("a", QoS::AtMostOnce)]).await;
    let (begun, count) = (tokio::time::Instant::now(), 8 * SUBSCRIBER_WAITING_MAX);
    let mut codec = v5::Codec::default();
    let mut packets = BytesMut::new();
    for n in 0..count {
        codec.encode(message("a", &n.to_string(), QoS::AtMostOnce, 0).into(), &mut packets).expect("valid");
    }
    for chunk in packets.chunks(8 * 1024) {
        client.send_bytes(chunk).await;
        // What comes back meanwhile is taken.
        for _ in 0..50 {
            tokio::task::yield_now().await;
            client.read_what_there_is();
        }
    }
    let expected: Vec<_> = (0..count).map(|n| n.to_string()).collect();
    assert_eq!(client.messages(count).await, expected);
    // The clock moves on whenever all waits for the disk, which it may once or twice on a busy machine; who waited for itself would do so for each time that it is full.
    assert!(begun.elapsed() < 4 * SUBSCRIBER_PATIENCE, "{:?}", begun.elapsed());
    assert_eq!(bench.broker.state().dropped, 0);
}

#[tokio::test]
async fn what_a_slow_client_does_not_take_is_counted() {
    let bench = Bench::new();
    let mut slow = bench.client(true, "slow").await;
    slow.subscribe(&[("a", QoS::AtMostOnce)]).await;
    let text = "x".repeat(1000);
    for _ in 0..4 * SUBSCRIBER_WAITING_MAX {
        let message = Message::new(TopicName::new("a").expect("valid"), text.clone(), Timestamp::now());
        bench.log.publish_live(message).await.expect("valid");
    }
    until("all of them came or are counted", async || {
        let taken = slow.read_what_there_is();
        bench.broker.state().dropped > 0 && taken as u64 + bench.broker.state().dropped == 4 * SUBSCRIBER_WAITING_MAX as u64
    })
    .await;
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
    let large = LastWill { user_properties: vec![("n".into(), "v".into()); TOPIC_ATTRIBUTES_MAX + 1], ..will("a/x") };
    for (will, reason) in [
        (will("elsewhere"), ConnectAckReason::NotAuthorized),
        (will("a/+"), ConnectAckReason::TopicNameInvalid),
        (large, ConnectAckReason::QuotaExceeded),
    ] {
        let (_, ack) = bench.connect(true, with_will("c", will)).await;
        assert_eq!(ack.reason_code, reason);
    }
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
    let back = |id: &str| Connect { session_expiry_interval_secs: 600, clean_start: false, ..login(id) };
    let (client, _) = bench.connect(true, back("c")).await;
    client.leave().await;
    assert_eq!(bench.log.state().head, 0, "its client is back");
    let (client, _) = bench.connect(true, late("c")).await;
    let (after, _) = bench.connect(true, back("c")).await;
    assert_eq!(client.ended().await, Some(Reason::SessionTakenOver));
    after.leave().await;
    assert_eq!(bench.log.state().head, 0, "it was back before the former connection had ended");
    for (n, is_over) in [(1, true), (2, false)] {
        let (client, _) = bench.connect(true, late("anew")).await;
        if is_over {
            drop(client);
            bench.ended("anew").await;
        }
        let (after, _) = bench.connect(true, Connect { clean_start: true, ..back("anew") }).await;
        until("its session has ended", async || bench.log.state().head == n).await;
        after.leave().await;
    }
    let (client, _) = bench.connect(true, late("other")).await;
    drop(client);
    bench.ended("other").await;
    bench.broker.stop();
    until("it is published when the broker stops", async || bench.log.state().head == 3).await;
}
