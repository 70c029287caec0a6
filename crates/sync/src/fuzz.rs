//! Arbitrary bytes in every decoder: frames that are right but for some bytes, with their checksum made right again, and bytes from
//! nowhere. Each gives an answer or an error, and the store goes on.

use std::sync::Arc;

use edgeward_model::{DocumentName, NodeId, Value};

use crate::{
    causality::Epoch,
    document::{Documents, Precondition},
    hub::Hub,
    policy::Policy,
    record,
    replica::ReplicaSession,
    replica_state::Role,
    simulation::random::Random,
    store::Store,
    wire,
};

/// Later than any write of the tests.
const NOW: u64 = 4_000_000_000_000;

struct Pair {
    hub: Hub,
    session: ReplicaSession,
    documents: Documents,
}

impl Pair {
    fn new() -> Self {
        let node = |name| NodeId::new(name).expect("valid");
        let store = |name, epoch, role| {
            let connection = rusqlite::Connection::open_in_memory().expect("opens");
            Arc::new(Store::on(connection, node(name), Epoch(epoch), role).expect("opens"))
        };
        let (hub, replica) = (store("hub", 1, Role::Hub), store("n1", 2, Role::Replica));
        let policies = Documents::new(Arc::clone(&hub)).document(DocumentName::new("d").expect("valid"));
        policies.set_policy("set", Some(&Policy::Set)).expect("set");
        let documents = Documents::new(Arc::clone(&replica));
        Self { hub: Hub::new(hub).expect("opens"), session: ReplicaSession::new(replica), documents }
    }

    fn write(&self, n: u64) {
        let document = self.documents.document(DocumentName::new("d").expect("valid"));
        let edit = document.edit(Precondition::None, move |draft| {
            draft.set(&format!("k{}", n % 5), &Value::from(n))?;
            draft.increment("count", 1)?;
            draft.set("set", &Value::Array(vec![Value::from(n % 3)]))?;
            draft.set_bytes("raw", b" [1] ")
        });
        edit.expect("written");
    }

    /// Speaks until nothing is to be said; each message is shown, and may be changed.
    fn speak(&mut self, mut change: impl FnMut(bool, Vec<u8>) -> Vec<u8>) {
        for _ in 0..50 {
            let Ok(Some(frame)) = self.session.next_frame() else { return };
            let (number, message) = wire::open(&frame).expect("its own");
            let sent = wire::frame(number, &change(true, message.to_vec()));
            let Ok(answer) = self.hub.answer(&sent, NOW) else {
                self.session.reconnect();
                continue;
            };
            let (number, message) = wire::open(&answer).expect("its own");
            let answer = wire::frame(number, &change(false, message.to_vec()));
            if self.session.receive(&answer, NOW).is_err() {
                self.session.reconnect();
            }
        }
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1));
        match random.below(4) {
            0 if !bytes.is_empty() => bytes[at] = random.next().to_le_bytes()[0],
            1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            _ => bytes.insert(at.min(bytes.len()), random.next().to_le_bytes()[0]),
        }
    }
}

#[test]
fn changed_messages_give_an_answer_or_an_error_and_the_stores_go_on() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut pair = Pair::new();
        for n in 0..4 {
            pair.write(n);
            pair.session.poke();
            if n == 2 {
                pair.session.compare();
            }
            pair.speak(|_, mut message| {
                if random.percent(30) {
                    mutate(&mut random, &mut message);
                }
                message
            });
            pair.session.reconnect();
        }
        pair.write(9);
        pair.documents.list().expect("reads");
        pair.hub.feed().expect("reads");
    }
}

#[test]
fn bytes_from_nowhere_give_an_error() {
    let mut random = Random::new(7);
    let mut pair = Pair::new();
    for _ in 0..3000 {
        let bytes: Vec<u8> = (0..random.below(200)).map(|_| random.next().to_le_bytes()[0]).collect();
        assert!(pair.hub.answer(&bytes, NOW).is_err());
        // It waits for nothing, so what comes is late at best.
        let _ = pair.session.receive(&bytes, NOW);
        let framed = wire::frame(0, &bytes);
        let _ = pair.hub.answer(&framed, NOW);
        let _ = record::slot_of(&bytes);
        let _ = record::decode(None, &bytes);
    }
    let huge = vec![0; wire::FRAME_BYTES_MAX + 1];
    assert!(pair.hub.answer(&huge, NOW).expect_err("too large").to_string().contains("the most is"));
}

#[test]
fn one_changed_key_is_a_small_frame() {
    let mut pair = Pair::new();
    let document = pair.documents.document(DocumentName::new("cellar").expect("valid"));
    let mut random = Random::new(3);
    let mut put = |n: usize| {
        let (key, value) = (format!("sensor-{n:09}"), Value::from(format!("{:06}", random.below(1_000_000))));
        document.edit(Precondition::None, move |draft| draft.set(&key, &value)).expect("written");
    };
    (0..1000).for_each(&mut put);
    pair.speak(|_, message| message);
    (0..500).for_each(|n| put(n * 7 % 1000));
    pair.speak(|_, message| message);
    put(77);
    let mut bytes = 0;
    let mut frames = 0;
    pair.speak(|_, message| {
        // With the checksum, the version and the number of the request.
        bytes += message.len() + 7;
        frames += 1;
        message
    });
    assert_eq!(frames, 2, "a push and its answer");
    assert!(bytes <= 150, "{bytes} bytes");
    println!("{bytes} bytes");
}
