//! Who may connect, and what of a session stays.

use std::time::Duration;

use edgeward_model::limits::{MQTT_CLIENT_ID_BYTES_MAX, MQTT_SESSION_EXPIRY_MAX, SUBSCRIBER_FILTERS_MAX, TOPIC_BYTES_MAX};
use edgeward_topics::mqtt::ClientEventKind;
use rmqtt_codec::{
    types::QoS,
    v5::{Connect, ConnectAckReason, Disconnect, DisconnectReasonCode as Reason, Packet, PublishAckReason, SubscribeAckReason},
};

use crate::client::{Bench, login, message, until};

#[tokio::test]
async fn who_is_not_known_or_not_allowed_or_has_no_valid_id_is_refused_with_the_reason() {
    let bench = Bench::new();
    for is_five in [false, true] {
        let of = |name: &'static str| Connect { username: Some(name.into()), ..login("c") };
        let long = "x".repeat(MQTT_CLIENT_ID_BYTES_MAX + 1);
        for (connect, reason) in [
            (of("wrong"), ConnectAckReason::BadUserNameOrPassword),
            (of("banned"), ConnectAckReason::NotAuthorized),
            (login(&long), ConnectAckReason::ClientIdentifierNotValid),
            (login("a\nb"), ConnectAckReason::ClientIdentifierNotValid),
        ] {
            let (client, ack) = bench.connect(is_five, connect).await;
            assert_eq!(ack.reason_code, reason);
            assert_eq!(client.ended().await, None);
        }
    }
    let (_, ack) = bench.connect(true, Connect { auth_method: Some("SCRAM".into()), ..login("c") }).await;
    assert_eq!(ack.reason_code, ConnectAckReason::BadAuthenticationMethod);
    assert_eq!((bench.broker.state().refused, bench.refused().len()), (9, 9));
    assert_eq!(bench.refused()[0], ("c".to_owned(), "not known".to_owned()));
    assert_eq!(bench.events.lock().len(), 9, "nobody else was there");
}

#[tokio::test]
async fn a_client_without_an_id_gets_one_and_hears_the_bounds() {
    let bench = Bench::new();
    let asked = Connect { client_id: "".into(), keep_alive: 0, session_expiry_interval_secs: u32::MAX, ..login("") };
    let (_client, ack) = bench.connect(true, asked).await;
    let id = ack.assigned_client_id.expect("an id").to_string();
    assert!(id.starts_with("auto-") && bench.events.lock()[0].client_id == id);
    assert_eq!(ack.session_expiry_interval_secs.map(u64::from), Some(MQTT_SESSION_EXPIRY_MAX.as_secs()));
    assert_eq!((ack.server_keepalive_sec, ack.topic_alias_max, ack.shared_subscription_available), (Some(3600), 0, false));
    let (_client, ack) = bench.connect(false, Connect { client_id: "".into(), ..login("") }).await;
    assert_eq!(ack.reason_code, ConnectAckReason::Success);
    let (_client, ack) = bench.connect(true, login("named")).await;
    assert_eq!((ack.assigned_client_id, ack.server_keepalive_sec, ack.session_expiry_interval_secs), (None, None, None));
}

#[tokio::test]
async fn a_session_that_stays_has_its_subscriptions_and_what_came_meanwhile() {
    for is_five in [false, true] {
        let bench = Bench::new();
        let mut sender = bench.client(true, "sender").await;
        sender.publish("a/x", "before").await;
        let (mut client, was_there) = bench.staying(is_five, "c").await;
        assert!(!was_there);
        client.subscribe(&[("a/x", QoS::AtLeastOnce), ("b/x", QoS::AtMostOnce)]).await;
        sender.publish("a/x", "1").await;
        assert_eq!(client.messages(1).await, ["1"]);
        sender.publish("a/x", "2").await;
        assert_eq!(client.unacknowledged().await.payload, "2");
        client.vanish().await;
        sender.publish("a/x", "3").await;
        sender.publish("b/x", "not kept for who is away").await;
        let bench = {
            sender.vanish().await;
            bench.restart()
        };
        let mut sender = bench.client(true, "sender").await;
        sender.publish("a/x", "4").await;
        let (mut client, was_there) = bench.staying(is_five, "c").await;
        assert!(was_there);
        assert_eq!(client.messages(3).await, ["2", "3", "4"]);
        sender.publish("b/x", "live").await;
        assert_eq!(client.messages(1).await, ["live"]);
        client.nothing_more().await;
        client.leave().await;
        let (mut client, was_there) = bench.staying(is_five, "c").await;
        assert!(was_there);
        client.nothing_more().await;
        client.leave().await;
        // It begins anew, and stays; then it begins anew, and leaves nothing.
        let anew = Connect { session_expiry_interval_secs: if is_five { 3600 } else { 0 }, ..login("c") };
        let (mut client, ack) = bench.connect(is_five, anew).await;
        assert!(!ack.session_present);
        sender.publish("a/x", "nobody").await;
        client.nothing_more().await;
        client.leave().await;
        assert_eq!(bench.staying(is_five, "c").await.1, is_five);
        bench.client(is_five, "c").await.leave().await;
        assert!(!bench.staying(is_five, "c").await.1);
    }
}

#[tokio::test]
async fn a_process_that_dies_repeats_what_was_not_acknowledged_and_loses_nothing() {
    let bench = Bench::new();
    let mut sender = bench.client(true, "sender").await;
    let (mut client, _) = bench.staying(false, "c").await;
    client.subscribe(&[("a", QoS::AtLeastOnce)]).await;
    for n in 0..50 {
        sender.publish("a", &n.to_string()).await;
    }
    assert_eq!(client.messages(20).await.len(), 20);
    // Nothing of the broker is told to end: its tasks die.
    client.task.abort();
    sender.task.abort();
    drop((client, sender));
    until("the tasks are gone", async || bench.broker.state().clients == 0).await;
    let bench = bench.restart();
    let (mut client, _) = bench.staying(false, "c").await;
    let mut got = client.messages(1).await;
    let first: usize = got[0].parse().expect("a number");
    assert!(first <= 20, "{first}");
    got.extend(client.messages(49 - first).await);
    assert!(got.iter().map(|text| text.parse::<usize>().expect("a number")).eq(first..50));
}

#[tokio::test]
async fn a_session_is_of_one_user_and_a_newer_connection_takes_it_over() {
    let bench = Bench::new();
    let of = |name: &'static str| Connect { username: Some(name.into()), ..login("c") };
    let (mut one, _) = bench.connect(true, of("one")).await;
    let (mut two, _) = bench.connect(true, of("two")).await;
    one.nothing_more().await;
    let (mut again, ack) = bench.connect(true, of("one")).await;
    assert_eq!(ack.reason_code, ConnectAckReason::Success);
    assert_eq!(one.ended().await, Some(Reason::SessionTakenOver));
    two.nothing_more().await;
    again.nothing_more().await;
    assert_eq!(bench.broker.state().clients, 2);
    let kinds: Vec<_> = bench.events.lock().iter().filter(|event| event.user == "one").map(|event| event.kind.clone()).collect();
    assert!(matches!(
        kinds[..],
        [ClientEventKind::Connected, ClientEventKind::Disconnected { is_graceful: false, .. }, ClientEventKind::Connected]
    ));
}

#[tokio::test]
async fn a_session_ends_when_its_client_says_so_or_stays_away() {
    let bench = Bench::new();
    let (mut client, _) = bench.staying(true, "c").await;
    let end = Disconnect { session_expiry_interval_secs: Some(0), ..Disconnect::new(Reason::NormalDisconnection) };
    client.send(Packet::Disconnect(end.clone())).await;
    client.ended().await;
    assert!(!bench.staying(true, "c").await.1);

    let mut short = bench.client(true, "short").await;
    short.send(Packet::Disconnect(Disconnect { session_expiry_interval_secs: Some(60), ..end })).await;
    assert_eq!(short.ended().await, Some(Reason::ProtocolError));

    bench.staying(true, "away").await.0.leave().await;
    let (present, _) = bench.staying(true, "present").await;
    let later = bench.log.clock() + Duration::from_hours(2);
    bench.broker.remove_expired(bench.log.clock()).await.expect("looked");
    assert!(bench.log.durable("mqtt:/away").await.expect("reads").is_some());
    bench.broker.remove_expired(later).await.expect("looked");
    assert!(bench.log.durable("mqtt:/away").await.expect("reads").is_none());
    assert!(bench.log.durable("mqtt:/present").await.expect("reads").is_some());
    present.leave().await;
}

#[tokio::test]
async fn a_session_whose_client_is_connected_is_in_use_however_quiet_it_is() {
    let bench = Bench::new();
    let (quiet, _) = bench.staying(true, "c").await;
    let used = async || bench.log.durable("mqtt:/c").await.expect("reads").expect("there").used_clock;
    let before = used().await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    bench.broker.remove_expired(bench.log.clock()).await.expect("looked");
    assert_eq!(used().await, before, "it is written now and then only");
    bench.broker.remove_expired(bench.log.clock() + Duration::from_mins(20)).await.expect("looked");
    assert!(used().await > before);
    quiet.leave().await;
}

#[tokio::test]
async fn a_session_that_cannot_be_read_begins_anew() {
    let bench = Bench::new();
    bench.staying(true, "c").await.0.leave().await;
    bench.meddle("UPDATE subscriptions SET data = x'ff'");
    bench.broker.remove_expired(bench.log.clock()).await.expect("looked");
    let (client, was_there) = bench.staying(true, "c").await;
    assert!(!was_there);
    client.leave().await;
    assert!(bench.staying(true, "c").await.1);
    bench.staying(true, "other").await.0.leave().await;
    bench.meddle("UPDATE subscriptions SET data = x'ff' WHERE name = 'mqtt:/other'");
    bench.broker.remove_expired(bench.log.clock() + MQTT_SESSION_EXPIRY_MAX + Duration::from_secs(1)).await.expect("looked");
    assert!(bench.log.durable("mqtt:/other").await.expect("reads").is_none(), "and stays no longer than any other");
}

#[tokio::test]
async fn who_would_not_be_let_in_any_more_is_ended_when_it_is_looked_at() {
    let bench = Bench::new();
    let of = |name: &'static str| Connect { username: Some(name.into()), ..login(name) };
    let (revoked, _) = bench.connect(true, of("revoked")).await;
    let (mut stays, _) = bench.connect(true, of("stays")).await;
    bench.broker.check_again().await;
    bench.banned.lock().push("revoked".to_owned());
    stays.nothing_more().await;
    assert_eq!(bench.broker.state().clients, 2);
    bench.broker.check_again().await;
    assert_eq!(revoked.ended().await, Some(Reason::NotAuthorized));
    assert_eq!(bench.ended("revoked").await, (false, "not allowed any more".to_owned()));
    stays.nothing_more().await;
}

#[tokio::test]
async fn a_session_with_as_many_and_as_long_filters_as_may_be_is_kept() {
    let bench = Bench::new();
    let (mut client, _) = bench.staying(true, "c").await;
    let texts: Vec<_> = (0..SUBSCRIBER_FILTERS_MAX).map(|n| format!("a/{n:0>width$}", width = TOPIC_BYTES_MAX - 2)).collect();
    let filters: Vec<_> = texts.iter().map(|text| (text.as_str(), QoS::AtLeastOnce)).collect();
    let granted = client.subscribe(&filters).await;
    assert!(granted.len() == filters.len() && granted.iter().all(|reason| *reason == SubscribeAckReason::GrantedQos1));
    client.leave().await;
    let (mut client, was_there) = bench.staying(true, "c").await;
    assert!(was_there);
    let mut sender = bench.client(true, "sender").await;
    assert_eq!(sender.publish(&texts[SUBSCRIBER_FILTERS_MAX - 1], "x").await, PublishAckReason::Success);
    assert_eq!(client.messages(1).await, ["x"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_silent_for_too_long_is_ended() {
    let bench = Bench::new();
    for is_five in [false, true] {
        let (mut client, _) = bench.connect(is_five, Connect { keep_alive: 10, ..login("c") }).await;
        tokio::time::sleep(Duration::from_secs(14)).await;
        client.nothing_more().await;
        let begun = tokio::time::Instant::now();
        bench.ended("c").await;
        assert!(begun.elapsed() >= Duration::from_secs(15) && begun.elapsed() < Duration::from_secs(16), "{:?}", begun.elapsed());
        assert_eq!(client.ended().await, is_five.then_some(Reason::KeepAliveTimeout));
        bench.events.lock().clear();
    }
    let hours = |hours: u64| tokio::time::sleep(Duration::from_hours(hours));
    for (keep_alive, silence_h) in [(7200, 2), (0, 20)] {
        let (mut client, _) = bench.connect(false, Connect { keep_alive, ..login("patient") }).await;
        hours(silence_h).await;
        client.nothing_more().await;
        client.leave().await;
    }
    let (_stream, task) = bench.stream();
    tokio::time::timeout(Duration::from_secs(13), task).await.expect("who does not say who it is is ended").expect("no panic");
    let mut client = bench.client(true, "c").await;
    client.send_bytes(&[0xc0]).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    client.send_bytes(&[0]).await;
    assert_eq!(client.next().await, Packet::PingResponse);
    tokio::time::sleep(Duration::from_secs(20)).await;
    client.nothing_more().await;
    client.send_bytes(&[0x30, 100, 0]).await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert!(!client.task.is_finished());
    assert_eq!(client.ended().await, Some(Reason::KeepAliveTimeout), "nor is half a packet forever");
}

#[tokio::test]
async fn a_broker_that_stops_ends_everybody_and_accepts_nobody() {
    let bench = Bench::new();
    let client = bench.client(true, "c").await;
    bench.broker.stop();
    assert_eq!(client.ended().await, Some(Reason::ServerShuttingDown));
    let (_, ack) = bench.connect(true, login("c")).await;
    assert_eq!(ack.reason_code, ConnectAckReason::ServerUnavailable);
}

#[tokio::test]
async fn another_version_or_another_protocol_is_refused() {
    let bench = Bench::new();
    for first in [&b"\x10\x0c\x00\x04MQTT\x06\x02\x00\x3c\x00\x00"[..], b"\x10\x0c\x00\x04HTTP\x04\x02\x00\x3c\x00\x00"] {
        let (mut stream, task) = bench.stream();
        tokio::io::AsyncWriteExt::write_all(&mut stream, first).await.expect("sent");
        let mut answer = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.expect("read");
        assert_eq!(answer, [0x20, 2, 0, 1], "{first:?}");
        task.await.expect("no panic");
        assert!(bench.refused().last().is_some_and(|(id, why)| id.is_empty() && why.contains("else than MQTT 3.1.1 or 5")));
    }
    for (first, why) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "none of MQTT"),
        (b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04\xff\xff\xff\xff", "text that is not UTF-8"),
        (b"\x10\xff\xff\xff\xff", "malformed"),
        (b"", "before it said who it is"),
    ] {
        let (mut stream, task) = bench.stream();
        tokio::io::AsyncWriteExt::write_all(&mut stream, first).await.expect("sent");
        drop(stream);
        task.await.expect("no panic");
        let told = bench.refused();
        assert!(told.last().is_some_and(|(id, said)| id.is_empty() && said.contains(why)), "{told:?}");
    }
    let mut client = bench.client(true, "c").await;
    client.send(login("c").into()).await;
    assert_eq!(client.ended().await, Some(Reason::ProtocolError), "nobody connects twice");
    let (mut stream, task) = bench.stream();
    let without_id = b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00";
    tokio::io::AsyncWriteExt::write_all(&mut stream, without_id).await.expect("sent");
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.expect("read");
    assert_eq!(answer, [0x20, 2, 0, 2], "a session that stays is that of an id");
    task.await.expect("no panic");
    let mut client = bench.client(false, "c").await;
    client.send(message("a", "x", QoS::AtMostOnce, 0).into()).await;
    client.nothing_more().await;
}
