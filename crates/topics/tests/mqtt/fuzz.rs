//! Any bytes end cleanly, whatever they are, and hold no memory.

use std::{num::NonZeroU16, time::Duration};

use bytes::BytesMut;
use proptest::prelude::*;
use rmqtt_codec::{
    types::QoS,
    v3,
    v5::{self, Codec, Packet, PublishAck2, Subscribe, SubscriptionOptions},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::Encoder;

use crate::client::{Bench, login, lower, message};

fn packet() -> impl Strategy<Value = Packet> {
    let topic = prop::sample::select(vec!["a", "a/b", "b", "c", "$a", ""]);
    let filter = prop::sample::select(vec!["a", "#", "a/+", "a/#/b", "$share/x/a", "b/#"]);
    let qos = prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
    let number = 1_u16..4;
    prop_oneof![
        (topic, qos.clone(), number.clone(), any::<bool>(), 0_usize..300).prop_map(|(topic, qos, number, retain, bytes)| {
            let number = if qos == QoS::AtMostOnce { 0 } else { number };
            let mut publish = message(topic, &"x".repeat(bytes), qos, number);
            publish.retain = retain;
            publish.into()
        }),
        (filter, qos).prop_map(|(filter, qos)| {
            let options = SubscriptionOptions { qos, ..Default::default() };
            let topic_filters = vec![(filter.into(), options)];
            Packet::Subscribe(Subscribe { packet_id: NonZeroU16::MIN, id: None, user_properties: Vec::new(), topic_filters })
        }),
        number.clone().prop_map(|number| {
            let packet_id = NonZeroU16::new(number).expect("not 0");
            Packet::PublishRelease(PublishAck2 { packet_id, ..Default::default() })
        }),
        number.prop_map(|number| {
            let packet_id = NonZeroU16::new(number).expect("not 0");
            Packet::PublishAck(v5::PublishAck { packet_id, ..Default::default() })
        }),
        Just(Packet::PingRequest),
        Just(Packet::Disconnect(v5::Disconnect::new(v5::DisconnectReasonCode::DisconnectWithWillMessage))),
        Just(Packet::from(login("c"))),
    ]
}

/// Packets that begin well, of which some bytes are others then.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let well = (any::<[bool; 2]>(), prop::collection::vec(packet(), 0..12), changes);
    let broken = well.prop_map(|([connects, is_five], packets, changes)| {
        let mut output = BytesMut::new();
        let (mut five, mut three) = (Codec::default(), v3::Codec::default());
        for packet in connects.then(|| login("c").into()).into_iter().chain(packets) {
            if is_five {
                five.encode(packet, &mut output).expect("valid");
            } else {
                three.encode(lower(packet), &mut output).expect("valid");
            }
        }
        let mut bytes = output.to_vec();
        for (index, byte) in changes {
            if !bytes.is_empty() {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
        }
        bytes
    });
    prop_oneof![4 => broken, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

#[test]
fn any_bytes_end_cleanly() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let bench = runtime.block_on(async { Bench::new() });
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() });
    runner
        .run(&(bytes(), 1_usize..50), |(bytes, chunk)| {
            runtime.block_on(async {
                let (stream, task) = bench.stream();
                let (mut reader, mut writer) = tokio::io::split(stream);
                let writing = async {
                    for chunk in bytes.chunks(chunk) {
                        if writer.write_all(chunk).await.is_err() {
                            break;
                        }
                    }
                    let _ = writer.shutdown().await;
                };
                let mut answers = Vec::new();
                let (read, ()) = tokio::join!(reader.read_to_end(&mut answers), writing);
                read.expect("read");
                tokio::time::timeout(Duration::from_secs(20), task).await.expect("it ends").expect("it does not panic");
                assert!(answers.len() < 100_000, "{} bytes of answers", answers.len());
            });
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((bench.broker.state().clients, bench.log.state().subscribers), (0, 0), "nothing stays behind");
    let accepted = bench.events.lock().len() / 2;
    assert!(accepted > 100, "{accepted} connections came past the first packet");
}

#[tokio::test]
async fn what_a_client_of_version_5_may_ask_for_to_be_small_breaks_nothing() {
    for bytes in 1..30 {
        let bench = Bench::new();
        let (mut stream, task) = bench.stream();
        let mut output = BytesMut::new();
        let mut codec = Codec::default();
        let connect = v5::Connect { max_packet_size: bytes.try_into().ok(), ..login("c") };
        codec.encode(connect.into(), &mut output).expect("valid");
        codec.encode(message("a", "x", QoS::AtLeastOnce, 1).into(), &mut output).expect("valid");
        codec.encode(Packet::PingRequest, &mut output).expect("valid");
        stream.write_all(&output).await.expect("sent");
        stream.shutdown().await.expect("sent");
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).await.expect("read");
        task.await.expect("no panic");
    }
}
