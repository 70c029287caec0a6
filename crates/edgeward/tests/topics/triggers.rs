//! Triggers: what reaches a function, in which order, how often, and what is left when it fails or the node stops.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use edgeward::{
    CloudEvent, ContentMode, DocumentName, ErrorKind, Message, Received, Redelivery, Start, TopicFilter, TopicName, Trigger, TriggerId,
    document,
};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::support::{Bench, in_time, trigger, until};

fn failed() -> Result<(), String> {
    Err("it fails on purpose".to_owned())
}

#[tokio::test]
async fn a_message_waits_for_its_function_without_costing_an_attempt() {
    let bench = Bench::new();
    assert!(bench.put(trigger(&["a/#"], 1, 4)).await, "it is new");
    assert!(!bench.put(trigger(&["a/#"], 1, 4)).await, "it is the same");
    bench.publish("a/1", None, "first").await;
    bench.publish("b", None, "of another topic").await;
    until("the message waits", async || bench.view().await.waiting == 1).await;
    bench.deploy(async |_| Ok(())).await;
    until("it is handled", async || bench.view().await.delivered == 1).await;
    bench.publish("a/1", None, "second").await;
    until("all is acknowledged", async || bench.view().await.behind == 0).await;
    let view = bench.view().await;
    assert_eq!((view.delivered, view.dead, view.waiting, view.acknowledged), (2, 0, 0, 3));
    assert_eq!(bench.given(), ["first", "second"]);
}

#[tokio::test]
async fn messages_of_one_key_come_in_order_though_some_fail_at_first() {
    let bench = Bench::new();
    let calls = Arc::new(AtomicU64::new(0));
    bench
        .deploy(move |_| {
            let fails = calls.fetch_add(1, Ordering::SeqCst) % 7 == 3;
            async move { if fails { failed() } else { Ok(()) } }
        })
        .await;
    bench.put(trigger(&["a"], 20, 3)).await;
    for n in 0..90 {
        let key = format!("k{}", n % 3);
        bench.publish("a", Some(&key), &format!("{key}:{}", n / 3)).await;
    }
    until("all are handled", async || bench.view().await.delivered == 90).await;
    let mut of_key: HashMap<String, Vec<u32>> = HashMap::new();
    for text in bench.given() {
        let (key, number) = text.split_once(':').expect("as it was published");
        let numbers = of_key.entry(key.to_owned()).or_default();
        let number = number.parse().expect("a number");
        // One that failed comes again before the next.
        if numbers.last() != Some(&number) {
            numbers.push(number);
        }
    }
    assert_eq!(of_key.len(), 3);
    for numbers in of_key.values() {
        assert_eq!(*numbers, (0..30).collect::<Vec<_>>());
    }
    assert!(bench.view().await.retried >= 10);
}

#[tokio::test]
async fn what_fails_too_often_is_a_dead_letter_until_it_is_tried_again_or_discarded() {
    let bench = Bench::new();
    let is_broken = Arc::new(AtomicBool::new(true));
    let broken = Arc::clone(&is_broken);
    bench
        .deploy(move |text| {
            let fails = broken.load(Ordering::SeqCst) && text.starts_with("bad");
            async move { if fails { failed() } else { Ok(()) } }
        })
        .await;
    bench.put(trigger(&["a"], 2, 1)).await;
    for text in ["bad 1", "bad 2", "good"] {
        bench.publish("a", None, text).await;
    }
    until("all are done", async || bench.view().await.behind == 0).await;
    assert_eq!(bench.given(), ["bad 1", "bad 1", "bad 2", "bad 2", "good"]);
    let topics = bench.node.topics();
    let id = bench.view().await.trigger.id;
    let letters = topics.dead_letters(Some(&id), 0).await.expect("listed");
    assert_eq!(
        letters.iter().map(|letter| (&*letter.message.payload, letter.attempts)).collect::<Vec<_>>(),
        [(&b"bad 1"[..], 2), (b"bad 2", 2)]
    );
    assert!(letters[0].why.contains("on purpose"), "{}", letters[0].why);
    topics.discard_dead_letter(letters[1].id).await.expect("discarded");
    // Tried again it fails again, and stays.
    topics.retry_dead_letter(letters[0].id).await.expect("to retry");
    until("it failed again", async || bench.view().await.dead == 3).await;
    is_broken.store(false, Ordering::SeqCst);
    topics.retry_dead_letter(letters[0].id).await.expect("to retry");
    until("no letter is left", async || topics.dead_letters(None, 0).await.expect("listed").is_empty()).await;
    assert_eq!(bench.given()[5..], ["bad 1", "bad 1", "bad 1"]);
    assert_eq!(topics.retry_dead_letter(letters[0].id).await.expect_err("gone").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_trigger_goes_on_after_a_restart_where_it_was() {
    let bench = Bench::new();
    let handle = |is_open: bool| move |text: String| async move { if is_open || text.as_str() < "05" { Ok(()) } else { failed() } };
    bench.deploy(handle(false)).await;
    let retry = Redelivery { attempts: 100, pause_min_ms: 3_600_000, pause_max_ms: 3_600_000 };
    bench.put(Trigger { retry, ..trigger(&["a"], 1, 1) }).await;
    for n in 0..10 {
        bench.publish("a", None, &format!("{n:02}")).await;
    }
    until("the first five are handled", async || bench.view().await.retried == 1).await;
    let bench = bench.restart().await;
    assert_eq!(bench.given().len(), 6);
    assert_eq!(bench.view().await.trigger.retry, retry);
    bench.deploy(handle(true)).await;
    until("all are handled", async || bench.view().await.behind == 0).await;
    let all: Vec<_> = (0..10).map(|n| format!("{n:02}")).collect();
    // What was acknowledged comes no more, and what was not comes again.
    assert_eq!(bench.given()[6..], all[5..]);
}

#[tokio::test]
async fn a_slow_function_gets_no_more_at_once_than_it_may_and_misses_nothing() {
    let bench = Bench::new();
    let gate = Arc::new(Semaphore::new(0));
    let (running, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (opens, runs, peak) = (Arc::clone(&gate), Arc::clone(&running), Arc::clone(&most));
    bench
        .deploy(move |_| {
            let (opens, runs, peak) = (Arc::clone(&opens), Arc::clone(&runs), Arc::clone(&peak));
            async move {
                peak.fetch_max(runs.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                opens.acquire().await.expect("open").forget();
                runs.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
        .await;
    bench.put(trigger(&["#"], 1, 2)).await;
    // More than are read at once, and publishing them waits for nobody.
    let count = edgeward::limits::DELIVERY_WINDOW_MAX + 500;
    let published = futures::future::join_all((0..count).map(|n| {
        let bench = &bench;
        async move { bench.publish(&format!("a/{}", n % 50), None, &n.to_string()).await }
    }));
    in_time("all are published", published).await;
    until("two run", async || running.load(Ordering::SeqCst) == 2).await;
    assert_eq!(bench.view().await.behind, count as u64);
    gate.add_permits(count);
    until("all are handled", async || bench.view().await.behind == 0).await;
    assert_eq!((most.load(Ordering::SeqCst), bench.view().await.delivered), (2, count as u64));
    assert_eq!(bench.given().len(), count);
}

#[tokio::test]
async fn a_changed_trigger_goes_on_by_its_new_filters_and_a_removed_one_ends() {
    let bench = Bench::new();
    bench.deploy(async |_| Ok(())).await;
    bench.put(trigger(&["a"], 1, 1)).await;
    bench.publish("a", None, "a1").await;
    until("the first is handled", async || bench.view().await.delivered == 1).await;
    assert!(!bench.put(trigger(&["b"], 1, 1)).await, "it is not new");
    bench.publish("b", None, "b1").await;
    bench.publish("a", None, "a2").await;
    until("what the new filter matches is handled", async || bench.view().await.behind == 0).await;
    let topics = bench.node.topics();
    let id = bench.view().await.trigger.id;
    assert!(topics.remove_trigger(&id).await.expect("removed") && !topics.remove_trigger(&id).await.expect("gone"));
    // As a crash that kept the place of the one that was removed.
    let filters = vec![TopicFilter::new("b").expect("valid")];
    topics.log().put_durable("trigger:t", filters, Vec::new(), Timestamp::now()).await.expect("made");
    bench.publish("b", None, "to nobody").await;
    bench.put(trigger(&["b"], 1, 1)).await;
    bench.publish("b", None, "b2").await;
    until("what comes after it is there again is handled", async || bench.given().len() == 3).await;
    assert_eq!(bench.given(), ["a1", "b1", "b2"]);
    let bench = bench.restart().await;
    assert_eq!(bench.view().await.trigger, trigger(&["b"], 1, 1));
    let refused = bench.node.topics().put_trigger(trigger(&[], 1, 1)).await.expect_err("no filter");
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_trigger_that_cannot_be_read_can_be_removed() {
    let bench = Bench::new();
    let document = bench.node.documents().document(DocumentName::new("edgeward.local.triggers").expect("valid"));
    document.edit(document::Precondition::None, |draft| draft.set("t", &"of a newer release".into())).expect("edits");
    drop(document);
    let bench = bench.restart().await;
    let topics = bench.node.topics();
    assert!(topics.triggers().await.expect("listed").is_empty());
    let id = TriggerId::new("t").expect("valid");
    assert!(topics.remove_trigger(&id).await.expect("removed") && !topics.remove_trigger(&id).await.expect("gone"));
}

#[tokio::test]
async fn an_event_comes_to_a_function_as_it_was_published() {
    let bench = Bench::new();
    bench.deploy(async |_| Ok(())).await;
    bench.put(Trigger { mode: ContentMode::Structured, ..trigger(&["door"], 1, 1) }).await;
    let json = r#"{"specversion":"1.0","id":"7","source":"/door","type":"opened","partitionkey":"left","data":{"of": [18446744073709551617, 1.50], "by":"ada"}}"#;
    let event = CloudEvent::from_json(json.as_bytes()).expect("an event");
    let topics = bench.node.topics();
    let topic = || TopicName::new("door").expect("valid");
    topics.publish_event(topic(), event.clone()).await.expect("published");
    until("it is handled", async || bench.view().await.delivered == 1).await;
    assert!(bench.given()[0].contains(r#""data":{"of": [18446744073709551617, 1.50], "by":"ada"}"#), "{}", bench.given()[0]);
    let given = CloudEvent::from_json(bench.given()[0].as_bytes()).expect("an event");
    let sorted = |mut event: CloudEvent| {
        event.attributes.sort();
        event
    };
    assert_eq!(sorted(given), sorted(event.clone()));
    // It is read again from the log, by position.
    let mut subscription = topics.subscribe(&[TopicFilter::exactly(&topic())], Start::At(1)).expect("subscribed");
    let Received::Message(message) = in_time("it comes", subscription.next()).await.expect("reads") else { panic!("none is lost") };
    assert_eq!((message.key.as_deref(), sorted(topics.event_of(&message))), (Some("left"), sorted(event)));
    let refused = topics.publish_event(topic(), CloudEvent { attributes: Vec::new(), content_type: None, data: "x".into() });
    assert_eq!(refused.await.expect_err("no event").kind(), ErrorKind::InvalidInput);
    let reserved = Message::new(TopicName::new("$edgeward/x").expect("valid"), "x", Timestamp::now());
    assert_eq!(topics.publish(reserved).await.expect_err("reserved").kind(), ErrorKind::Forbidden);
    let listed = topics.list(&TopicFilter::new("#").expect("valid"), "").await.expect("listed");
    assert_eq!(listed.iter().map(|info| (info.topic.as_str(), info.messages)).collect::<Vec<_>>(), [("door", 1)]);
}
