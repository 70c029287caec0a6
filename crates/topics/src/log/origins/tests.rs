//! Messages of other members: taken once, whatever is sent again, restored, or lost.

use std::{collections::BTreeMap, fs};

use jiff::Timestamp;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    log::LogOptions,
    message::Origin,
    subscriber::{Received, Start},
    topic::{TopicFilter, TopicName},
};

fn open(folder: &TempDir) -> TopicLog {
    TopicLog::open(folder.path(), LogOptions::default()).expect("opens")
}

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("valid")
}

fn message(payload: &str) -> Message {
    Message::new(TopicName::new("a/b").expect("valid"), payload.to_owned(), Timestamp::now())
}

fn from(id: &str, epoch: u64, position: u64) -> Message {
    Message { origin: Some(Origin { node: node(id), epoch, position }), ..message(&format!("{id}/{epoch}/{position}")) }
}

async fn all(log: &TopicLog) -> Vec<(u64, String)> {
    let (mut found, mut next) = (Vec::new(), 1);
    loop {
        let batch = log.read(next, &TopicFilter::new("#").expect("valid")).await.expect("reads");
        if batch.next == next {
            return found;
        }
        next = batch.next;
        let text = |message: &Message| String::from_utf8(message.payload.to_vec()).expect("text");
        found.extend(batch.messages.iter().map(|message| (message.position.expect("stored"), text(message))));
    }
}

async fn texts(log: &TopicLog) -> Vec<String> {
    all(log).await.into_iter().map(|(_, text)| text).collect()
}

#[tokio::test]
async fn what_others_published_and_what_a_node_tells_of_itself_is_not_counted_as_published_here() {
    let folder = tempfile::tempdir().expect("temp folder");
    let log = open(&folder);
    log.take(vec![from("a", 1, 1), from("a", 1, 2)], None).await.expect("taken");
    let news = Message::new(TopicName::new("$edgeward/clients/a").expect("valid"), "x", Timestamp::now());
    for message in [message("x"), news, message("y"), message("z")] {
        log.publish(message).await.expect("published");
    }
    assert_eq!((log.state().published, log.state().head), (3, 6));
}

#[tokio::test]
async fn what_comes_again_is_taken_once_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("temp folder");
    let mark = Mark { epoch: 9, position: 40 };
    let log = open(&folder);
    assert_eq!(log.take(vec![from("a", 1, 3), from("a", 1, 7), from("b", 1, 3)], None).await.expect("taken"), 3);
    assert_eq!(log.take(vec![from("a", 1, 7), from("a", 1, 8)], Some(("fleet", mark))).await.expect("taken"), 1);
    drop(log);
    let log = open(&folder);
    assert_eq!(log.take(vec![from("a", 1, 8), from("a", 2, 8), from("b", 1, 4)], None).await.expect("taken"), 2);
    assert_eq!(texts(&log).await, ["a/1/3", "a/1/7", "b/1/3", "a/1/8", "a/2/8", "b/1/4"]);
    assert_eq!((log.taken(&node("a"), 1).await.expect("reads"), log.taken(&node("c"), 1).await.expect("reads")), (8, 0));
    assert_eq!((log.mark("fleet").await.expect("reads"), log.mark("other").await.expect("reads")), (Some(mark), None));
}

#[tokio::test]
async fn of_many_epochs_of_a_member_the_newest_are_remembered() {
    let folder = tempfile::tempdir().expect("temp folder");
    let log = open(&folder);
    let many = u64::from(TOPIC_ORIGIN_EPOCHS_MAX) + 3;
    for epoch in 1..=many {
        log.take(vec![from("a", epoch, 5)], None).await.expect("taken");
    }
    let mut known = Vec::new();
    for epoch in 1..=many {
        known.push(log.taken(&node("a"), epoch).await.expect("reads"));
    }
    assert_eq!((&known[..3], &known[3..]), (&[0; 3][..], &[5; TOPIC_ORIGIN_EPOCHS_MAX as usize][..]));
    // In a log that begins anew, too, where positions are small again.
    log.begin_copy(77, 0).await.expect("begins");
    let again = Message { position: Some(1), ..from("a", 100, 5) };
    log.copy(vec![again]).await.expect("copies");
    assert_eq!(log.taken(&node("a"), 100).await.expect("reads"), 5);
}

#[tokio::test]
async fn what_cannot_be_retained_is_taken_all_the_same() {
    let folder = tempfile::tempdir().expect("temp folder");
    let log = open(&folder);
    let mut retained = Vec::new();
    for n in 0..=edgeward_model::limits::RETAINED_TOPICS_MAX {
        let topic = TopicName::new(format!("r/{n}")).expect("valid");
        retained.push(Message { topic, retain: true, ..from("a", 1, n + 1) });
    }
    let count = retained.len() as u64;
    assert_eq!(log.take(retained, None).await.expect("taken"), count);
}

/// A log that was restored gives the same positions again, and they name other messages.
#[tokio::test]
async fn positions_that_are_given_again_after_a_restore_belong_to_another_epoch() {
    let (folder, backup) = (tempfile::tempdir().expect("temp folder"), tempfile::tempdir().expect("temp folder"));
    let log = open(&folder);
    log.publish(message("1")).await.expect("published");
    drop(log);
    let copy = |from: &TempDir, to: &TempDir| {
        for file in fs::read_dir(from.path()).expect("reads") {
            let file = file.expect("reads");
            fs::copy(file.path(), to.path().join(file.file_name())).expect("copies");
        }
    };
    copy(&folder, &backup);
    let log = open(&folder);
    log.publish(message("2")).await.expect("published");
    let spans = [log.span(1).await.expect("reads").expect("there"), log.span(2).await.expect("reads").expect("there")];
    assert_eq!((spans[0].until, spans[1].until), (Some(2), None));
    assert_ne!(spans[0].epoch, spans[1].epoch);
    assert_eq!(log.span(3).await.expect("reads"), None);
    let restored = open(&backup);
    restored.publish(message("another 2")).await.expect("published");
    let again = restored.span(2).await.expect("reads").expect("there");
    assert_eq!(restored.span(1).await.expect("reads"), Some(spans[0]));
    assert_ne!(again.epoch, spans[1].epoch);
}

#[tokio::test]
async fn a_copy_has_the_positions_and_the_epoch_of_its_original_and_begins_anew_with_another() {
    let folder = tempfile::tempdir().expect("temp folder");
    let log = open(&folder);
    let at = |position: u64, text: &str| Message { position: Some(position), ..message(text) };
    log.begin_copy(77, 12).await.expect("begins");
    log.copy(vec![at(5, "five"), at(6, "six"), at(9, "nine")]).await.expect("copies");
    log.copy(vec![at(6, "six"), at(9, "nine"), at(10, "ten")]).await.expect("copies");
    let expected = [(5, "five"), (6, "six"), (9, "nine"), (10, "ten")].map(|(position, text)| (position, text.to_owned()));
    assert_eq!((all(&log).await, log.state().head), (expected.to_vec(), 10));
    assert_eq!(log.state().trimmed, 4, "what was before is gone");
    drop(log);
    let log = open(&folder);
    assert_eq!(log.state().trimmed, 4);
    log.begin_copy(77, 10).await.expect("begins");
    log.copy(vec![at(11, "eleven")]).await.expect("copies");
    assert_eq!(log.span(11).await.expect("reads"), Some(Span { epoch: 77, until: None }));
    let filter = TopicFilter::new("#").expect("valid");
    let mut follower = log.subscribe(&[filter], Start::Now).expect("subscribes");
    log.begin_copy(78, 1).await.expect("begins");
    log.copy(vec![at(1, "other")]).await.expect("copies");
    assert!(follower.next().await.expect_err("it began anew").to_string().contains("began anew"));
    assert_eq!((texts(&log).await, log.state().head), (vec!["other".to_owned()], 1));
    assert_eq!(log.span(1).await.expect("reads"), Some(Span { epoch: 78, until: None }));
    let mut follower = log.subscribe(&[TopicFilter::new("#").expect("valid")], Start::At(1)).expect("subscribes");
    let Received::Message(first) = follower.next().await.expect("there") else { panic!("nothing is lost") };
    assert_eq!(first.payload, "other");
}

/// A step of a sender, a taker, and what is between them.
#[derive(Clone, Debug)]
enum Step {
    Publish,
    /// Sends so many of what is not acknowledged; whether the answer arrives.
    Send(usize, bool),
    RestartSender,
    /// The sender goes back to its last backup.
    Restore,
    Backup,
    RestartTaker,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Publish),
        4 => (1_usize..6, any::<bool>()).prop_map(|(count, arrives)| Step::Send(count, arrives)),
        1 => Just(Step::RestartSender),
        1 => Just(Step::Backup),
        1 => Just(Step::Restore),
        1 => Just(Step::RestartTaker),
    ]
}

/// What a sender has on its disk.
#[derive(Clone, Default)]
struct Sender {
    /// (epoch, what)
    log: Vec<(u64, u64)>,
    acknowledged: usize,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// The model of a node that forwards and of who takes: what was published and not undone by a restore arrives; nothing arrives twice.
    #[test]
    fn whatever_is_lost_sent_again_or_restored_each_message_is_taken_once_and_in_order(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("builds");
        runtime.block_on(async {
            let folder = tempfile::tempdir().expect("temp folder");
            let mut taker = open(&folder);
            let (mut sender, mut backup, mut epoch, mut published) = (Sender::default(), Sender::default(), 1, 0);
            for step in steps.into_iter().chain([Step::Publish, Step::Send(usize::MAX, true)]) {
                match step {
                    Step::Publish => {
                        published += 1;
                        sender.log.push((epoch, published));
                    }
                    Step::Send(count, arrives) => {
                        let batch: Vec<_> = sender.log.iter().enumerate().skip(sender.acknowledged).take(count).collect();
                        let end = batch.last().map_or(sender.acknowledged, |(index, _)| index + 1);
                        let messages = batch.iter().map(|(index, (epoch, what))| Message {
                            payload: what.to_string().into(),
                            ..from("a", *epoch, *index as u64 + 1)
                        });
                        taker.take(messages.collect(), None).await.expect("taken");
                        if arrives {
                            sender.acknowledged = end;
                        }
                    }
                    Step::RestartSender => epoch += 1,
                    Step::Backup => backup = sender.clone(),
                    Step::Restore => {
                        sender = backup.clone();
                        epoch += 1;
                    }
                    Step::RestartTaker => {
                        drop(taker);
                        taker = open(&folder);
                    }
                }
            }
            let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
            let got: Vec<u64> = texts(&taker).await.iter().map(|text| text.parse().expect("a number")).collect();
            for what in &got {
                *counts.entry(*what).or_default() += 1;
            }
            assert!(counts.values().all(|count| *count == 1), "{got:?}");
            let kept: Vec<u64> = sender.log.iter().map(|(_, what)| *what).collect();
            let of_kept: Vec<u64> = got.iter().copied().filter(|what| kept.contains(what)).collect();
            assert_eq!(of_kept, kept, "all that the sender has arrived, in its order");
        });
    }
}
