//! What a client subscribes to, and what it gets.

use std::num::NonZeroU16;

use edgeward_model::limits::{MQTT_IN_FLIGHT_MAX, SUBSCRIBER_FILTERS_MAX};
use edgeward_topics::{Message, TopicFilter, TopicName};
use jiff::Timestamp;
use rmqtt_codec::{
    types::{Publish, QoS},
    v5::{
        Connect, Packet, PublishAck, PublishAckReason, PublishProperties, RetainHandling, SubscribeAckReason, SubscriptionOptions,
        Unsubscribe, UnsubscribeAckReason,
    },
};

use crate::client::{Bench, login, message, until};

fn at_least_once() -> SubscriptionOptions {
    SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() }
}

#[tokio::test]
async fn a_subscriber_gets_what_its_filters_match_once_and_with_the_qos_that_both_sides_asked_for() {
    let bench = Bench::new();
    for is_five in [false, true] {
        let mut sender = bench.client(!is_five, "sender").await;
        let mut reader = bench.client(is_five, "reader").await;
        let granted = reader.subscribe(&[("a/#", QoS::AtMostOnce), ("a/+", QoS::ExactlyOnce), ("b", QoS::AtMostOnce)]).await;
        assert_eq!(granted, [SubscribeAckReason::GrantedQos0, SubscribeAckReason::GrantedQos1, SubscribeAckReason::GrantedQos0]);
        for topic in ["a/x", "b/x", "a/x/y", "b"] {
            sender.publish(topic, topic).await;
        }
        sender.send(message("a/x", "live", QoS::AtMostOnce, 0).into()).await;
        for (text, qos) in [("a/x", 1), ("a/x/y", 0), ("b", 0), ("live", 0)] {
            let got = reader.message().await;
            assert_eq!((&got.payload[..], got.qos.value(), got.retain, got.dup), (text.as_bytes(), qos, false, false));
        }
        reader.nothing_more().await;
        reader.leave().await;
        sender.leave().await;
    }
}

#[tokio::test]
async fn a_filter_that_is_not_allowed_not_valid_or_shared_is_refused_alone() {
    let bench = Bench::new();
    let (mut client, _) = bench.connect(true, Connect { username: Some("reader".into()), ..login("c") }).await;
    let filters = ["a/b", "b", "#", "a/#/b", "$share/g/a", "a/#"].map(|filter| (filter, QoS::AtLeastOnce));
    let expected = [
        SubscribeAckReason::GrantedQos1,
        SubscribeAckReason::NotAuthorized,
        SubscribeAckReason::NotAuthorized,
        SubscribeAckReason::TopicFilterInvalid,
        SubscribeAckReason::SharedSubscriptionNotSupported,
        SubscribeAckReason::GrantedQos1,
    ];
    assert_eq!(client.subscribe(&filters).await, expected);
    assert_eq!(client.publish("a/b", "x").await, PublishAckReason::NotAuthorized);
    let mut three = bench.client(false, "three").await;
    assert_eq!(three.subscribe(&[("elsewhere", QoS::AtLeastOnce)]).await, [SubscribeAckReason::UnspecifiedError]);
}

#[tokio::test]
async fn one_client_has_so_many_filters_and_no_more() {
    let bench = Bench::new();
    let mut client = bench.client(true, "c").await;
    let texts: Vec<_> = (0..=SUBSCRIBER_FILTERS_MAX).map(|n| format!("a/{n}")).collect();
    let filters: Vec<_> = texts.iter().map(|text| (text.as_str(), QoS::AtMostOnce)).collect();
    let granted = client.subscribe(&filters).await;
    assert!(granted[..SUBSCRIBER_FILTERS_MAX].iter().all(|reason| *reason == SubscribeAckReason::GrantedQos0));
    assert_eq!(granted[SUBSCRIBER_FILTERS_MAX], SubscribeAckReason::QuotaExceeded);
    assert_eq!(client.subscribe(&filters[..1]).await, [SubscribeAckReason::GrantedQos0], "one that there is may be changed");
}

#[tokio::test]
async fn who_unsubscribes_gets_no_more() {
    let bench = Bench::new();
    let mut client = bench.client(true, "c").await;
    client.subscribe(&[("a/#", QoS::AtLeastOnce), ("b", QoS::AtLeastOnce)]).await;
    let unsubscribe =
        Unsubscribe { packet_id: NonZeroU16::MIN, user_properties: Vec::new(), topic_filters: ["a/#", "c", "#/"].map(Into::into).to_vec() };
    client.send(Packet::Unsubscribe(unsubscribe)).await;
    match client.next().await {
        Packet::UnsubscribeAck(ack) => assert_eq!(
            ack.status,
            [UnsubscribeAckReason::Success, UnsubscribeAckReason::NoSubscriptionExisted, UnsubscribeAckReason::TopicFilterInvalid]
        ),
        other => panic!("{other:?}"),
    }
    let mut sender = bench.client(true, "sender").await;
    sender.publish("a/x", "no").await;
    sender.publish("b", "yes").await;
    assert_eq!(client.messages(1).await, ["yes"]);
}

#[tokio::test]
async fn a_filter_that_one_packet_repeats_has_its_retained_messages_sent_once() {
    let bench = Bench::new();
    let mut sender = bench.client(true, "sender").await;
    sender.publish_with(Publish { retain: true, ..message("a/x", "kept", QoS::AtLeastOnce, 1) }).await;
    let mut client = bench.client(true, "c").await;
    client.subscribe(&[("a/#", QoS::AtLeastOnce); 500]).await;
    // What is new comes after all that is retained.
    sender.publish("a/x", "new").await;
    assert_eq!(client.messages(2).await, ["kept", "new"]);
}

#[tokio::test]
async fn a_new_subscriber_gets_what_is_retained_before_what_is_new() {
    let bench = Bench::new();
    for is_five in [false, true] {
        let mut sender = bench.client(is_five, "sender").await;
        for n in 0..1500 {
            let kept = Message {
                retain: true,
                ..Message::new(TopicName::new(format!("a/{n:04}")).expect("valid"), n.to_string(), Timestamp::now())
            };
            drop(bench.log.enqueue(kept).await.expect("open"));
        }
        let live = Publish { retain: true, ..message("a/9999", "live", QoS::AtMostOnce, 0) };
        sender.send(live.into()).await;
        sender.publish("a/other", "not retained").await;
        let mut reader = bench.client(is_five, "reader").await;
        assert_eq!(reader.subscribe(&[("a/+", QoS::AtLeastOnce)]).await, [SubscribeAckReason::GrantedQos1]);
        sender.publish("a/0007", "new").await;
        for n in 0..1500 {
            let got = reader.message().await;
            assert_eq!((&got.payload[..], got.retain, got.qos), (n.to_string().as_bytes(), true, QoS::AtLeastOnce));
        }
        let got = reader.message().await;
        assert_eq!((&got.payload[..], got.retain, got.qos), (&b"live"[..], true, QoS::AtMostOnce));
        let got = reader.message().await;
        assert_eq!((&got.payload[..], got.retain), (&b"new"[..], false));
        reader.nothing_more().await;
        reader.leave().await;
        sender.leave().await;
    }
}

#[tokio::test]
async fn options_of_version_5_say_what_comes_and_how() {
    let bench = Bench::new();
    let mut client = bench.client(true, "c").await;
    client.publish_with(Publish { retain: true, ..message("a/kept", "kept", QoS::AtLeastOnce, 1) }).await;
    let new_only = SubscriptionOptions { retain_handling: RetainHandling::AtSubscribeNew, ..at_least_once() };
    let never = SubscriptionOptions { retain_handling: RetainHandling::NoAtSubscribe, ..at_least_once() };
    client.subscribe_with(&[("a/kept", never)], Some(3)).await;
    client.subscribe_with(&[("a/kept", new_only)], Some(4)).await;
    client.nothing_more().await;
    client.subscribe_with(&[("a/+", new_only)], Some(5)).await;
    let got = client.message().await;
    let ids = |publish: &Publish| {
        let ids = publish.properties.as_ref().map(|properties| properties.subscription_ids.clone()).unwrap_or_default();
        ids.into_iter().map(std::num::NonZeroU32::get).collect::<Vec<_>>()
    };
    assert_eq!((&got.payload[..], got.retain, ids(&got)), (&b"kept"[..], true, vec![5]));
    client.subscribe_with(&[("a/kept", SubscriptionOptions { retain_as_published: true, ..never })], Some(6)).await;
    client.subscribe_with(&[("b/#", SubscriptionOptions { no_local: true, ..at_least_once() })], None).await;

    let mut sender = bench.client(true, "sender").await;
    let properties = PublishProperties {
        user_properties: vec![("id".into(), "1".into())],
        content_type: Some("text/plain".into()),
        ..Default::default()
    };
    let publish = Publish { retain: true, properties: Some(properties.clone()), ..message("a/kept", "again", QoS::AtLeastOnce, 1) };
    sender.publish_with(publish).await;
    let got = client.message().await;
    assert_eq!((got.retain, ids(&got)), (true, vec![6, 5]));
    assert_eq!(
        got.properties.map(|got| (got.content_type, got.user_properties)),
        Some((properties.content_type, properties.user_properties))
    );
    client.send(message("b/own", "own", QoS::AtLeastOnce, 9).into()).await;
    sender.publish("b/other", "other").await;
    let mut came = Vec::new();
    for _ in 0..2 {
        match client.next().await {
            Packet::Publish(publish) => came.push(publish.payload),
            Packet::PublishAck(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(came, ["other"]);
}

#[tokio::test]
async fn a_client_gets_no_more_than_it_takes_before_it_acknowledges() {
    let bench = Bench::new();
    for (is_five, receive_max, window) in [(false, None, MQTT_IN_FLIGHT_MAX), (true, NonZeroU16::new(3), 3)] {
        let mut sender = bench.client(true, "sender").await;
        let (mut reader, _) = bench.connect(is_five, Connect { receive_max, ..login("reader") }).await;
        reader.subscribe(&[("a", QoS::AtLeastOnce)]).await;
        for n in 0..2 * window {
            sender.publish("a", &n.to_string()).await;
        }
        let mut packets = Vec::new();
        for n in 0..window {
            let got = reader.unacknowledged().await;
            assert_eq!(got.payload, n.to_string());
            packets.push(got.packet_id.expect("a number"));
        }
        reader.nothing_more().await;
        sender.send(message("a", "live", QoS::AtMostOnce, 0).into()).await;
        for packet_id in packets.into_iter().rev() {
            reader.send(Packet::PublishAck(PublishAck { packet_id, ..Default::default() })).await;
        }
        for n in window..2 * window {
            assert_eq!(reader.messages(1).await, [n.to_string()]);
        }
        assert_eq!(reader.messages(1).await, ["live"]);
        reader.leave().await;
        sender.leave().await;
    }
}

#[tokio::test]
async fn a_message_larger_than_a_client_takes_is_left_out() {
    let bench = Bench::new();
    let mut sender = bench.client(true, "sender").await;
    let (mut reader, _) = bench.connect(true, Connect { max_packet_size: 100.try_into().ok(), ..login("reader") }).await;
    reader.subscribe(&[("a", QoS::AtLeastOnce)]).await;
    sender.publish("a", &"x".repeat(100_000)).await;
    until("it is left out", async || bench.broker.state().dropped == 1).await;
    assert_eq!(bench.broker.state().sending_bytes, 0, "its room is for others");
    sender.publish("a", "small").await;
    assert_eq!(reader.messages(1).await, ["small"]);
}

#[tokio::test]
async fn a_message_that_has_expired_is_not_sent() {
    let bench = Bench::new();
    let mut reader = bench.client(true, "reader").await;
    reader.subscribe(&[("a", QoS::AtLeastOnce)]).await;
    let topic = TopicName::new("a").expect("valid");
    let old = Message { expires_at: Some(Timestamp::now()), ..Message::new(topic.clone(), "old", Timestamp::now()) };
    bench.log.publish(old).await.expect("published");
    bench.log.publish(Message::new(topic, "from the program itself", Timestamp::now())).await.expect("published");
    assert_eq!(reader.messages(1).await, ["from the program itself"]);
    assert_eq!(bench.log.read(1, &TopicFilter::new("a").expect("valid")).await.expect("reads").messages.len(), 2);
}
