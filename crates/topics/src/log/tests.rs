//! The log and its subscribers in one process: what is acknowledged, kept, lost, and told.

use std::sync::{Arc, atomic::Ordering};

use edgeward_model::limits::{
    SUBSCRIBER_OWN_BYTES, SUBSCRIBER_WAITING_MAX, SUBSCRIBERS_READ_BYTES_MAX, SUBSCRIBERS_WAITING_BYTES_MAX, TOPIC_PAGE_MAX,
    TOPIC_READ_BYTES_MAX, TOPIC_RECENT_MESSAGES_MAX,
};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::*;
use crate::{
    log::{
        durable::DurableSubscription,
        listing::{LOOK_MESSAGES, Latest, Listing},
    },
    subscriber::Received,
    topic::TopicName,
};

fn open_with(folder: &TempDir, options: LogOptions) -> TopicLog {
    TopicLog::open(folder.path(), options).expect("opens")
}

fn open(folder: &TempDir) -> TopicLog {
    open_with(folder, LogOptions::default())
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("temp folder")
}

fn message(topic: &str, payload: &str) -> Message {
    Message::new(TopicName::new(topic).expect("valid"), payload.to_owned(), Timestamp::now())
}

fn retained(topic: &str, payload: &str) -> Message {
    Message { retain: true, ..message(topic, payload) }
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).expect("valid")
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).expect("text")
}

async fn next(subscription: &mut Subscription) -> Arc<Message> {
    match tokio::time::timeout(Duration::from_secs(20), subscription.next()).await.expect("in time").expect("open") {
        Received::Message(message) => message,
        Received::Lost(lost) => panic!("{lost} were lost"),
    }
}

#[tokio::test]
async fn positions_grow_by_one_and_are_never_given_twice() {
    let folder = folder();
    let few = LogOptions { messages_max: 2, ..LogOptions::default() };
    for round in 0..3 {
        let log = open_with(&folder, few);
        for n in 1..=4 {
            assert_eq!(log.publish(message("a", "x")).await.expect("published"), round * 4 + n);
        }
        assert_eq!((log.state().head, log.state().trimmed), (round * 4 + 4, round * 4 + 2));
    }
    let none = open_with(&folder, LogOptions { messages_max: 0, ..few });
    assert_eq!(none.publish(message("a", "x")).await.expect("published"), 13);
    assert_eq!((none.state().trimmed, none.state().bytes), (13, 0));
    drop(none);
    assert_eq!(open(&folder).publish(message("a", "x")).await.expect("published"), 14);
}

#[tokio::test]
async fn many_publishers_share_commits_and_each_keeps_its_order() {
    let folder = folder();
    let log = Arc::new(open(&folder));
    let tasks = (0..8).map(|publisher| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let mut pending = Vec::new();
            for n in 0..50 {
                pending.push(log.enqueue(message(&format!("p/{publisher}"), &n.to_string())).await.expect("open"));
            }
            let mut positions = Vec::new();
            for position in pending {
                positions.push(position.await.expect("committed"));
            }
            assert!(positions.is_sorted(), "{positions:?}");
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("done");
    }
    for publisher in 0..8 {
        let batch = log.read(0, &filter(&format!("p/{publisher}"))).await.expect("reads");
        assert!(batch.messages.iter().map(|message| text(message)).eq((0..50).map(|n| n.to_string())), "{publisher}");
    }
    assert_eq!(log.state().head, 400);
}

#[tokio::test]
async fn after_a_commit_that_failed_nothing_of_it_is_seen_and_the_log_goes_on() {
    let folder = folder();
    let log = open(&folder);
    let mut subscription = log.subscribe(&[filter("#")], Start::Now).expect("subscribed");
    log.publish(retained("a", "1")).await.expect("published");
    log.shared.fails.store(true, Ordering::Relaxed);
    let error = log.publish(retained("a", "2")).await.expect_err("failed");
    assert!(error.to_string().contains("told to fail"), "{error}");
    assert_eq!(text(&*next(&mut subscription).await), "1");
    assert_eq!((subscription.try_next(), log.state().head), (None, 1));
    assert_eq!(log.publish(message("a", "3")).await.expect("published"), 2);
    assert_eq!(text(&*next(&mut subscription).await), "3");
    assert_eq!(text(&log.retained(&filter("a"), "").await.expect("reads")[0]), "1");
    drop(log);
    let batch = open(&folder).read(1, &filter("#")).await.expect("reads");
    assert!(batch.messages.iter().map(|message| text(message)).eq(["1", "3"]));
}

#[tokio::test]
async fn the_oldest_messages_give_way_and_a_reader_behind_hears_how_many() {
    let folder = folder();
    let log = open_with(&folder, LogOptions { messages_max: 100, ..LogOptions::default() });
    let mut old = log.subscribe(&[filter("odd")], Start::At(1)).expect("subscribed");
    for n in 1..=300 {
        log.publish(message(if n % 2 == 1 { "odd" } else { "even" }, &n.to_string())).await.expect("published");
    }
    let state = log.state();
    assert!(state.head == 300 && (200..204).contains(&state.trimmed), "{state:?}");
    drop(log);
    let log = open_with(&folder, LogOptions { messages_max: 100, ..LogOptions::default() });
    let batch = log.read(1, &filter("odd")).await.expect("reads");
    assert_eq!((batch.lost, batch.next), (state.trimmed, 301));
    assert_eq!(text(&batch.messages[0]), format!("{}", state.trimmed + 1 + state.trimmed % 2));
    let mut again = log.subscribe(&[filter("odd")], Start::At(101)).expect("subscribed");
    assert_eq!(again.next().await.expect("open"), Received::Lost(state.trimmed - 100));
    assert_eq!(next(&mut again).await, batch.messages[0]);
    // The one that was there all the time found them in memory.
    assert_eq!(text(&*next(&mut old).await), "1");
}

#[tokio::test]
async fn a_log_keeps_within_its_bytes_and_its_age() {
    let folder = folder();
    let log = open_with(&folder, LogOptions { bytes_max: 100_000, ..LogOptions::default() });
    for _ in 0..50 {
        log.publish(message("a", &"x".repeat(5000))).await.expect("published");
        assert!(log.state().bytes <= 100_000, "{:?}", log.state());
    }
    assert!(log.state().bytes > 80_000, "{:?}", log.state());
}

/// As if the log that is closed had been open for two more hours.
fn two_hours_pass(folder: &TempDir) {
    let connection = store::connect(folder.path()).expect("opens");
    connection.execute("UPDATE log SET clock = ?1 + (SELECT max(clock) FROM messages)", [2 * 3600 * 1000]).expect("changed");
}

#[tokio::test]
async fn the_age_of_a_message_is_the_time_for_which_the_log_was_open_whatever_any_clock_says() {
    let folder = folder();
    let an_hour = LogOptions { age_max: Duration::from_hours(1), ..LogOptions::default() };
    let at = |published_at| Message { published_at, ..message("b", "y") };
    let log = open_with(&folder, an_hour);
    for published_at in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::now() - SignedDuration::from_hours(2)] {
        log.publish(at(published_at)).await.expect("published");
    }
    drop(log);
    // The writer looks at the age at the first write.
    let log = open_with(&folder, an_hour);
    assert!(log.clock() < Duration::from_mins(10), "{:?}", log.clock());
    log.publish(at(Timestamp::now() + SignedDuration::from_hours(9000))).await.expect("published");
    assert_eq!(log.state().trimmed, 0, "what a publisher claims removes nothing");
    drop(log);
    two_hours_pass(&folder);
    let log = open_with(&folder, an_hour);
    log.publish(message("b", "young")).await.expect("published");
    assert_eq!((log.state().trimmed, log.state().head), (4, 5));
    let before = log.clock();
    drop(log);
    assert!(open(&folder).clock() > Duration::from_hours(2) && before > Duration::from_hours(2), "it goes on where it was");
}

#[tokio::test]
async fn a_log_that_opens_with_lower_bounds_is_within_them_after_one_write() {
    let folder = folder();
    let log = open(&folder);
    let mut pending = Vec::new();
    for n in 0..20_000 {
        pending.push(log.enqueue(message("a", "x")).await.expect("open"));
        if n % 1000 == 999 {
            for position in pending.drain(..) {
                position.await.expect("committed");
            }
        }
    }
    drop(log);
    let log = open_with(&folder, LogOptions { messages_max: 100, ..LogOptions::default() });
    log.publish(message("a", "x")).await.expect("published");
    let state = log.state();
    assert!(state.head - state.trimmed <= 100, "{state:?}");
}

#[tokio::test]
async fn a_retained_message_is_the_last_of_its_topic_until_an_empty_one_comes() {
    let folder = folder();
    let log = open(&folder);
    for (topic, payload) in [("a/1", "old"), ("a/2", "two"), ("a/1", "one"), ("b", "b"), ("ab", "ab"), ("a", "a"), ("a/2", "")] {
        log.publish(retained(topic, payload)).await.expect("published");
    }
    log.enqueue_retained(retained("a/3", "live")).await.expect("open").await.expect("kept");
    let listed = async |log: &TopicLog, text: &str, after: &str| {
        let messages = log.retained(&filter(text), after).await.expect("reads");
        messages.iter().map(|message| (message.topic.to_string(), message.position)).collect::<Vec<_>>()
    };
    let entry = |topic: &str, position| (topic.to_owned(), position);
    assert_eq!(listed(&log, "a/#", "").await, [entry("a", Some(6)), entry("a/1", Some(3)), entry("a/3", None)]);
    drop(log);
    let log = open(&folder);
    assert_eq!(listed(&log, "a/+", "a/1").await, [entry("a/3", None)]);
    assert_eq!(listed(&log, "+", "").await, [entry("a", Some(6)), entry("ab", Some(5)), entry("b", Some(4))]);
    assert_eq!(log.read(1, &filter("a/2")).await.expect("reads").messages.len(), 2, "the log keeps both");
}

#[tokio::test]
async fn what_is_retained_has_a_bound() {
    let folder = folder();
    let log = open(&folder);
    let text = "x".repeat(edgeward_model::limits::TOPIC_PAYLOAD_BYTES_MAX);
    let mut kept = 0;
    let error = loop {
        match log.publish(retained(&format!("big/{kept}"), &text)).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(error.kind() == ErrorKind::TooLarge && kept == 127, "{kept} {error}");
    assert_eq!(log.state().head, 127, "what was refused is nowhere");
    log.publish(retained("big/3", "small")).await.expect("one takes the place of its former");
    log.publish(retained("big/last", &"x".repeat(1000))).await.expect("there is room");
}

#[tokio::test]
async fn what_is_retained_and_has_expired_is_not_listed_and_makes_room() {
    let folder = folder();
    let log = open(&folder);
    let text = "x".repeat(edgeward_model::limits::TOPIC_PAYLOAD_BYTES_MAX);
    for n in 0..127 {
        let soon = Timestamp::now() + SignedDuration::from_millis(if n < 2 { 1 } else { 3_600_000 });
        let message = Message { expires_at: Some(soon), ..retained(&format!("big/{n:03}"), &text) };
        log.publish(message).await.expect("published");
    }
    let listed = log.retained(&filter("big/+"), "").await.expect("reads");
    assert_eq!(listed[0].topic.as_str(), "big/002");
    for n in 0..2 {
        log.publish(retained(&format!("more/{n}"), &text)).await.expect("there is room for as many as have expired");
    }
    assert_eq!(log.publish(retained("more/2", &text)).await.expect_err("and for no more").kind(), ErrorKind::TooLarge);
    drop(log);
    let log = open(&folder);
    assert_eq!(log.publish(retained("more/2", &text)).await.expect_err("it is counted well").kind(), ErrorKind::TooLarge);
    log.publish(retained("more/1", "")).await.expect("removed");
    log.publish(retained("more/2", &text)).await.expect("there is room");
}

#[tokio::test]
async fn a_subscriber_gets_each_message_once_in_order_however_slow_it_is() {
    let folder = folder();
    let log = open(&folder);
    let mut slow = log.subscribe(&[filter("a/#"), filter("a/+")], Start::Now).expect("subscribed");
    let count = TOPIC_RECENT_MESSAGES_MAX + 3 * SUBSCRIBER_WAITING_MAX;
    let mut pending = Vec::new();
    for n in 0..count {
        pending.push(log.enqueue(message(if n % 3 == 0 { "b" } else { "a/x" }, &n.to_string())).await.expect("open"));
        if pending.len() == 1000 {
            for position in pending.drain(..) {
                position.await.expect("committed");
            }
        }
    }
    for position in pending {
        position.await.expect("committed");
    }
    let mut late = log.subscribe(&[filter("a/x")], Start::At(1)).expect("subscribed");
    for n in (0..count).filter(|n| n % 3 != 0) {
        assert_eq!(text(&*next(&mut slow).await), n.to_string());
        assert_eq!(text(&*next(&mut late).await), n.to_string());
    }
    assert_eq!((slow.try_next(), slow.position(), late.position()), (None, count as u64, count as u64));
    log.publish(message("a/y", "last")).await.expect("published");
    assert_eq!(text(&*next(&mut slow).await), "last");
    assert_eq!((late.try_next(), late.position()), (None, count as u64 + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_begins_while_others_publish_gets_every_message_once_and_in_order() {
    let folder = folder();
    let log = Arc::new(open(&folder));
    let (publisher, is_done) = (Arc::clone(&log), Arc::new(AtomicBool::new(false)));
    let stops = Arc::clone(&is_done);
    let publishing = tokio::spawn(async move {
        while !stops.load(Ordering::Relaxed) {
            for _ in 0..10 {
                drop(publisher.enqueue(message("a", "x")).await.expect("open"));
            }
            publisher.publish(message("a", "x")).await.expect("published");
        }
    });
    for begun in 0..60 {
        let start = log.state().head.saturating_sub(begun % 7) + 1;
        let mut subscription = log.subscribe(&[filter("a")], Start::At(start)).expect("subscribed");
        for position in start..start + 12 {
            assert_eq!(next(&mut subscription).await.position, Some(position));
        }
    }
    is_done.store(true, Ordering::Relaxed);
    publishing.await.expect("no panic");
}

#[test]
fn a_commit_returns_when_it_is_on_disk() {
    let place = folder();
    drop(open(&place));
    let connection = store::connect(place.path()).expect("opens");
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).expect("reads");
    assert_eq!(pragma("synchronous"), rusqlite::types::Value::Integer(2), "FULL");
    assert_eq!(pragma("journal_mode"), rusqlite::types::Value::Text("wal".to_owned()));
}

#[tokio::test]
async fn a_filter_counts_from_when_it_was_added_until_it_is_removed() {
    let folder = folder();
    let log = open(&folder);
    let mut subscription = log.subscribe(&[], Start::Now).expect("subscribed");
    log.publish(message("a", "before")).await.expect("published");
    subscription.add(&filter("a")).expect("added");
    subscription.add(&filter("a")).expect("known");
    log.publish(message("a", "during")).await.expect("published");
    assert_eq!(text(&*next(&mut subscription).await), "during");
    subscription.remove(&filter("a"));
    log.publish(message("a", "after")).await.expect("published");
    assert_eq!(subscription.try_next(), None);
    drop(subscription);
    assert_eq!(log.state().subscribers, 0);
    assert!(log.subscribe(&vec![filter("a"); 300], Start::Now).is_err());
    assert_eq!(log.state().subscribers, 0, "what failed leaves nothing behind");
}

#[tokio::test]
async fn what_is_not_durable_goes_to_who_listens_and_past_a_bound_is_dropped_and_counted() {
    let folder = folder();
    let log = open(&folder);
    log.publish_live(message("a", "nobody")).await.expect("valid");
    let mut subscription = log.subscribe(&[filter("a"), filter("#")], Start::At(1)).expect("subscribed");
    for n in 0..SUBSCRIBER_WAITING_MAX + 10 {
        log.publish_live(message("a", &n.to_string())).await.expect("valid");
    }
    assert_eq!(subscription.dropped(), 10);
    let first = next(&mut subscription).await;
    assert_eq!((text(&first), first.position), ("0", None));
    log.publish(message("a", "durable")).await.expect("published");
    for n in 1..SUBSCRIBER_WAITING_MAX {
        assert_eq!(text(&*next(&mut subscription).await), n.to_string());
    }
    assert_eq!(text(&*next(&mut subscription).await), "durable");
    assert_eq!(log.read(1, &filter("#")).await.expect("reads").messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_publishes_waits_a_little_for_who_is_behind_and_no_more_for_who_takes_nothing() {
    let folder = folder();
    let log = open(&folder);
    let mut subscription = log.subscribe(&[filter("a")], Start::Now).expect("subscribed");
    let publish = async |count: usize| {
        let begun = tokio::time::Instant::now();
        for _ in 0..count {
            log.publish_live(message("a", "x")).await.expect("valid");
        }
        begun.elapsed()
    };
    assert_eq!(publish(SUBSCRIBER_WAITING_MAX / 2).await, Duration::ZERO);
    let patience = edgeward_model::limits::SUBSCRIBER_PATIENCE;
    let waited = publish(SUBSCRIBER_WAITING_MAX).await;
    assert!(waited >= patience && waited < 2 * patience, "{waited:?}");
    assert_eq!(subscription.dropped(), SUBSCRIBER_WAITING_MAX as u64 / 2);
    while subscription.try_next().is_some() {}
    let reading = tokio::spawn(async move {
        let mut count = 0;
        while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(1), subscription.next()).await {
            count += 1;
        }
        (count, subscription.dropped())
    });
    publish(20 * SUBSCRIBER_WAITING_MAX).await;
    assert_eq!(
        reading.await.expect("done"),
        (20 * SUBSCRIBER_WAITING_MAX, SUBSCRIBER_WAITING_MAX as u64 / 2),
        "who keeps up misses nothing"
    );
}

#[tokio::test]
async fn a_durable_subscription_keeps_its_place() {
    let folder = folder();
    let log = open(&folder);
    let now = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).expect("valid");
    log.publish(message("a", "1")).await.expect("published");
    let made = log.put_durable("one", vec![filter("a"), filter("b/#")], b"data".to_vec(), now).await.expect("made");
    assert_eq!((made.acknowledged, made.filters.len()), (1, 2));
    log.publish(message("a", "2")).await.expect("published");
    log.acknowledge("one", 2, now).await.expect("acknowledged");
    log.acknowledge("one", 1, now).await.expect("it does not go back");
    log.acknowledge("nobody", 7, now).await.expect("nothing");
    drop(log);
    let log = open(&folder);
    let stored = log.durable("one").await.expect("reads").expect("there");
    assert!(stored.used_clock >= made.used_clock && stored.used_clock <= log.clock());
    assert_eq!(stored, DurableSubscription { acknowledged: 2, used_clock: stored.used_clock, ..made.clone() });
    let changed = log.put_durable("one", Vec::new(), Vec::new(), now).await.expect("changed");
    assert_eq!((changed.acknowledged, changed.filters.len()), (2, 0));
    log.put_durable("other", Vec::new(), Vec::new(), now).await.expect("made");
    let names = async |prefix: &str, after: &str| {
        log.durables(prefix, after).await.expect("reads").into_iter().map(|durable| durable.name).collect::<Vec<_>>()
    };
    assert_eq!((names("", "").await, names("on", "").await), (vec!["one".to_owned(), "other".to_owned()], vec!["one".to_owned()]));
    assert!(log.remove_durable("one").await.expect("removed") && !log.remove_durable("one").await.expect("absent"));
    for name in ["", "a\nb", &"x".repeat(257)] {
        assert!(log.put_durable(name, Vec::new(), Vec::new(), now).await.is_err());
    }
}

#[tokio::test]
async fn however_many_sessions_there_are_triggers_have_their_places() {
    use edgeward_model::limits::{DURABLE_SUBSCRIPTIONS_MAX, TRIGGERS_MAX};
    let folder = folder();
    let log = open(&folder);
    let put = |name: String| {
        let log = &log;
        async move { log.put_durable(&name, Vec::new(), Vec::new(), Timestamp::now()).await }
    };
    let sessions: Vec<_> = (0..DURABLE_SUBSCRIPTIONS_MAX - 2 * TRIGGERS_MAX).map(|n| put(format!("mqtt:u/{n}"))).collect();
    assert!(futures::future::join_all(sessions).await.iter().all(Result::is_ok));
    assert_eq!(put("mqtt:u/more".to_owned()).await.expect_err("too many").kind(), ErrorKind::TooLarge);
    put("mqtt:u/7".to_owned()).await.expect("one that there is may change");
    let triggers: Vec<_> = (0..2 * TRIGGERS_MAX).map(|n| put(format!("trigger:{n}"))).collect();
    assert!(futures::future::join_all(triggers).await.iter().all(Result::is_ok));
    assert_eq!(put("trigger:more".to_owned()).await.expect_err("too many").kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn dead_letters_of_messages_without_a_position_are_each_kept_with_their_own_payload() {
    let folder = folder();
    let log = open(&folder);
    let now = Timestamp::now();
    for text in ["first", "second"] {
        log.put_dead_letter("one", Arc::new(message("a", text)), "why", 5, now).await.expect("kept");
    }
    let at = |text| Arc::new(Message { position: Some(7), ..message("b", text) });
    log.put_dead_letter("one", at("third"), "why", 5, now).await.expect("kept");
    log.put_dead_letter("one", at("of another log"), "why not", 1, now).await.expect("kept");
    log.put_back_dead_letter(2, "again", 3, now).await.expect("kept");
    log.put_back_dead_letter(77, "discarded meanwhile", 3, now).await.expect("nothing");
    let letters = log.dead_letters(Some("one"), 0).await.expect("reads");
    let told: Vec<_> = letters.iter().map(|letter| (letter.message.position, text(&letter.message), letter.why.as_str())).collect();
    assert_eq!(told, [(None, "first", "why"), (None, "second", "again"), (Some(7), "of another log", "why not")]);
}

#[tokio::test]
async fn dead_letters_are_listed_tried_again_and_discarded() {
    let folder = folder();
    let log = open(&folder);
    let now = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).expect("valid");
    log.put_durable("one", Vec::new(), Vec::new(), now).await.expect("made");
    let dead = |position| Arc::new(Message { position: Some(position), ..message("a", "x") });
    for (subscription, position) in [("one", 1), ("two", 1), ("one", 2), ("one", 1)] {
        log.put_dead_letter(subscription, dead(position), "why", 5, now).await.expect("kept");
    }
    let letters = log.dead_letters(Some("one"), 0).await.expect("reads");
    assert_eq!(letters.iter().map(|letter| (letter.id, letter.message.position)).collect::<Vec<_>>(), [(1, Some(1)), (3, Some(2))]);
    assert_eq!((letters[0].why.as_str(), letters[0].attempts, letters[0].at, letters[0].is_to_retry), ("why", 5, now, false));
    let mut retries = log.retries();
    retries.mark_unchanged();
    log.retry_dead_letter(3).await.expect("marked");
    assert!(retries.has_changed().expect("open"));
    let gone = log.retry_dead_letter(2).await.expect_err("there is no such subscription");
    assert!(gone.kind() == ErrorKind::Conflict && gone.to_string().contains("`two` was removed; make it again"), "{gone}");
    let to_retry = log.dead_letters_to_retry("one", 0).await.expect("reads");
    assert_eq!(to_retry.iter().map(|letter| letter.id).collect::<Vec<_>>(), [3]);
    log.discard_dead_letter(3).await.expect("discarded");
    for error in [log.discard_dead_letter(3).await, log.retry_dead_letter(3).await] {
        assert_eq!(error.expect_err("absent").kind(), ErrorKind::NotFound);
    }
    assert_eq!(log.dead_letters(None, 1).await.expect("reads").len(), 1);
}

#[tokio::test]
async fn past_their_bound_the_oldest_dead_letters_give_way() {
    let folder = folder();
    let log = open(&folder);
    let large = "x".repeat(edgeward_model::limits::TOPIC_PAYLOAD_BYTES_MAX);
    let mut dropped = 0;
    for position in 1..=130 {
        let letter = Arc::new(Message { position: Some(position), ..message("a", &large) });
        dropped += log.put_dead_letter("one", letter, "why", 1, Timestamp::now()).await.expect("kept");
    }
    assert_eq!(dropped, 3);
    assert_eq!(log.dead_letters(None, 0).await.expect("reads")[0].message.position, Some(4));
}

#[tokio::test]
async fn a_packet_that_is_not_released_is_received_once() {
    let folder = folder();
    let log = open(&folder);
    let receive =
        async |log: &TopicLog, packet| log.receive_once("s", packet, message("a", "x")).await.expect("open").await.expect("received");
    assert_eq!((receive(&log, 1).await, receive(&log, 1).await, receive(&log, 2).await), (1, 0, 2));
    drop(log);
    let log = open(&folder);
    assert_eq!((receive(&log, 1).await, log.received("s").await.expect("reads").len()), (0, 2));
    log.release("s", 1).await.expect("open").await.expect("released");
    assert_eq!(receive(&log, 1).await, 3);
    log.put_durable("s", Vec::new(), Vec::new(), Timestamp::now()).await.expect("made");
    assert_eq!(log.received("s").await.expect("reads").len(), 0, "a new session has received nothing");
    assert_eq!(receive(&log, 1).await, 4);
    log.put_durable("s", Vec::new(), Vec::new(), Timestamp::now()).await.expect("changed");
    assert_eq!(log.received("s").await.expect("reads").len(), 1);
    log.remove_durable("s").await.expect("removed");
    assert_eq!(log.received("s").await.expect("reads").len(), 0, "and one that is gone leaves nothing");
}

#[tokio::test]
async fn a_session_that_is_used_meanwhile_is_not_swept() {
    let folder = folder();
    let log = open(&folder);
    let put = async |name: &str| log.put_durable(name, Vec::new(), Vec::new(), Timestamp::now()).await.expect("made");
    let (unused, used) = (put("mqtt:u/unused").await, put("mqtt:u/used").await);
    tokio::time::sleep(Duration::from_millis(2)).await;
    put("mqtt:u/used").await;
    log.sweep_sessions([&unused, &used].map(|old| (old.name.clone(), old.used_clock)).to_vec(), Vec::new()).await.expect("swept");
    let names: Vec<_> = log.durables("mqtt:", "").await.expect("reads").into_iter().map(|durable| durable.name).collect();
    assert_eq!(names, ["mqtt:u/used"]);
    let before = put("mqtt:u/used").await.used_clock;
    tokio::time::sleep(Duration::from_millis(2)).await;
    log.sweep_sessions(Vec::new(), vec!["mqtt:u/used".to_owned()]).await.expect("swept");
    assert!(log.durable("mqtt:u/used").await.expect("reads").expect("there").used_clock > before);
}

#[tokio::test]
async fn the_filters_of_all_subscribers_have_a_bound_in_memory() {
    use edgeward_model::limits::{SUBSCRIBER_FILTERS_MAX, SUBSCRIBER_LEVELS_MAX};
    let folder = folder();
    let log = open(&folder);
    let deep = |subscriber: usize, n: usize| filter(&format!("{subscriber}/{n}{}", "/x".repeat(30)));
    let mut all = Vec::new();
    let error = loop {
        let filters: Vec<_> = (0..SUBSCRIBER_FILTERS_MAX).map(|n| deep(all.len(), n)).collect();
        match log.subscribe(&filters, Start::Now) {
            Ok(subscription) => all.push(subscription),
            Err(error) => break error,
        }
    };
    assert!(error.kind() == ErrorKind::Overloaded && error.to_string().contains("use fewer or shorter ones"), "{error}");
    let each = 1 + SUBSCRIBER_FILTERS_MAX * 31;
    assert_eq!(all.len(), SUBSCRIBER_LEVELS_MAX / each);
    all.pop();
    let mut last = log.subscribe(&[], Start::Now).expect("there is room again");
    last.add(&deep(999, 0)).expect("there is room again");
}

#[tokio::test]
async fn the_newest_messages_of_a_filter_are_read_a_page_at_a_time() {
    let folder = folder();
    let log = open(&folder);
    for n in 1..=7 {
        log.publish(message(if n % 3 == 0 { "b" } else { "a" }, &n.to_string())).await.expect("published");
    }
    let page = async |before| {
        let Latest { messages, before } = log.latest(&filter("a"), before, 2).await.expect("reads");
        (messages.iter().map(|message| message.position.expect("it has one")).collect::<Vec<_>>(), before)
    };
    assert_eq!(page(None).await, (vec![5, 7], Some(5)));
    assert_eq!(page(Some(5)).await, (vec![2, 4], Some(2)));
    assert_eq!(page(Some(2)).await, (vec![1], None));
    assert_eq!(page(Some(u64::MAX)).await, (vec![5, 7], Some(5)));
    assert_eq!(page(Some(0)).await, (vec![], None));
}

#[tokio::test]
async fn a_copy_holds_all_that_was_acknowledged_before_and_is_a_log_of_its_own() {
    let (place, copies) = (folder(), folder());
    let log = open(&place);
    for n in 1..=3 {
        log.publish(retained("a", &n.to_string())).await.expect("published");
    }
    crate::backup::copy(place.path(), copies.path()).expect("copied");
    log.publish(message("a", "later")).await.expect("published");
    let files = std::fs::read_dir(copies.path()).expect("there").map(|entry| entry.expect("readable").file_name());
    assert_eq!(files.collect::<Vec<_>>(), ["topics.db"], "no log beside it");
    crate::backup::copy(place.path(), copies.path()).expect_err("there is one");
    let copy = open(&copies);
    assert_eq!((copy.state().head, log.state().head), (3, 4));
    assert_eq!(text(&copy.retained(&filter("#"), "").await.expect("reads")[0]), "3");
    assert_eq!(copy.publish(message("a", "own")).await.expect("published"), 4);
}

#[tokio::test]
async fn what_is_not_durable_and_waits_for_many_slow_subscribers_has_a_bound_and_others_miss_nothing() {
    const BYTES: usize = 400 * 1024;
    let folder = folder();
    let log = open(&folder);
    let subscribe = |topic: &str| log.subscribe(&[filter(topic)], Start::Now).expect("subscribed");
    // One message that all want is there once.
    let all: Vec<_> = (0..2 * SUBSCRIBERS_WAITING_BYTES_MAX / BYTES).map(|_| subscribe("all")).collect();
    log.publish_live(message("all", &"x".repeat(BYTES))).await.expect("shown");
    assert!(log.shared.waiting.bytes() < 2 * BYTES && all.iter().all(|slow| slow.dropped() == 0));
    drop(all);

    let slow: Vec<_> = (0..2 * SUBSCRIBERS_WAITING_BYTES_MAX / BYTES).map(|n| subscribe(&format!("slow/{n}"))).collect();
    let mut other = subscribe("other");
    for n in 0..slow.len() {
        log.publish_live(message(&format!("slow/{n}"), &"x".repeat(BYTES))).await.expect("shown");
        log.publish_live(message("other", &n.to_string())).await.expect("shown");
        assert_eq!(text(&*next(&mut other).await), n.to_string());
    }
    let dropped: u64 = slow.iter().map(Subscription::dropped).sum();
    assert!(log.shared.waiting.bytes() <= SUBSCRIBERS_WAITING_BYTES_MAX + SUBSCRIBER_OWN_BYTES && other.dropped() == 0);
    assert_eq!(dropped, (slow.len() - log.shared.waiting.bytes() / BYTES) as u64, "the rest is counted");
    drop(slow);
    assert_eq!(log.shared.waiting.bytes(), 0);
}

#[tokio::test]
async fn what_many_slow_subscribers_have_read_and_not_taken_has_a_bound_and_none_misses_any() {
    const COUNT: usize = 100;
    let read = async |log: &TopicLog| {
        let held = || log.shared.read.bytes();
        let mut slow = Vec::new();
        for _ in 0..2 * SUBSCRIBERS_READ_BYTES_MAX / TOPIC_READ_BYTES_MAX {
            let mut subscription = log.subscribe(&[filter("a")], Start::At(1)).expect("subscribed");
            assert_eq!(next(&mut subscription).await.position, Some(1));
            slow.push(subscription);
        }
        let own = slow.len() * 2 * SUBSCRIBER_OWN_BYTES;
        assert!((SUBSCRIBERS_READ_BYTES_MAX..SUBSCRIBERS_READ_BYTES_MAX + own).contains(&held()), "{}", held());
        // The last one reads less at once, and goes on all the same.
        let mut last = slow.pop().expect("there are some");
        for position in 2..=COUNT as u64 {
            assert_eq!(next(&mut last).await.position, Some(position));
        }
        drop((slow, last));
        assert_eq!(held(), 0);
    };
    let folder = folder();
    let log = open(&folder);
    for _ in 0..COUNT {
        drop(log.enqueue(message("a", &"x".repeat(TOPIC_READ_BYTES_MAX / COUNT))).await.expect("open"));
    }
    log.publish(message("b", "x")).await.expect("published");
    read(&log).await;
    // The same of the disk.
    drop(log);
    read(&open(&folder)).await;
}

#[tokio::test]
async fn topics_are_listed_with_what_they_hold() {
    let folder = folder();
    let log = open(&folder);
    for topic in ["b", "a/1", "a/2", "a/1"] {
        log.publish(message(topic, "x")).await.expect("published");
    }
    let topics = log.topics(&filter("a/+"), "").await.expect("reads");
    let listed: Vec<_> = topics.iter().map(|info| (info.topic.as_str(), info.messages, info.last_position)).collect();
    assert_eq!(listed, [("a/1", 2, 4), ("a/2", 1, 3)]);
    assert_eq!(log.topics(&filter("#"), "a/2").await.expect("reads").len(), 1);
}

#[tokio::test]
async fn a_page_of_topics_has_the_first_ones_wherever_in_the_log_they_are() {
    let folder = folder();
    let log = open(&folder);
    let count = 3 * TOPIC_PAGE_MAX / 2;
    // Each twice, the last ones first and then the first ones, between others that are not asked for.
    let names: Vec<_> = (0..count).rev().chain(0..count).map(|n| format!("a/{n:05}")).collect();
    let mut pending = Vec::new();
    for name in &names {
        pending.push(log.enqueue(message(name, "x")).await.expect("open"));
        drop(log.enqueue(message("A", "x")).await.expect("open"));
    }
    for position in pending {
        position.await.expect("committed");
    }
    let first = log.topics(&filter("a/+"), "").await.expect("reads");
    let rest = log.topics(&filter("a/+"), first.last().expect("there are some").topic.as_str()).await.expect("reads");
    assert_eq!((first.len(), rest.len()), (TOPIC_PAGE_MAX, count - TOPIC_PAGE_MAX));
    // Of the last four two are not asked for, and those that both filters match count once.
    assert_eq!(log.count(4 * count as u64 - 3, &[filter("a/+"), filter("a/#")]).await.expect("reads"), 2);
    assert_eq!(log.count(0, &[filter("a/00000"), filter("A")]).await.expect("reads"), 2 + 2 * count as u64);
    assert_eq!(log.count(4 * count as u64 + 1, &[filter("#")]).await.expect("reads"), 0);
    for (n, info) in first.iter().chain(&rest).enumerate() {
        let expected = (format!("a/{n:05}"), 2, 2 * (count + n) as u64 + 1);
        assert_eq!((info.topic.to_string(), info.messages, info.last_position), expected);
    }
}

#[tokio::test]
async fn who_lists_topics_looks_at_some_messages_at_a_time_and_waits_for_who_lists_already() {
    let folder = folder();
    let log = open_with(&folder, LogOptions { messages_max: 3 * LOOK_MESSAGES, ..LogOptions::default() });
    for _ in 0..4 * LOOK_MESSAGES {
        drop(log.enqueue(message("a", "x")).await.expect("open"));
    }
    let head = log.publish(message("a", "x")).await.expect("published");
    let trimmed = log.state().trimmed;
    {
        let reader = log.shared.reader.lock();
        let look = |from| Listing::new(&filter("#"), "").look(&reader, from, head).expect("reads").1;
        assert_eq!([look(1), look(head - 1)], [trimmed + LOOK_MESSAGES + 1, head + 1]);
    }
    let other = log.shared.listing.lock().await;
    let everything = filter("#");
    let mut listing = std::pin::pin!(log.topics(&everything, ""));
    for _ in 0..20 {
        assert!(futures::poll!(listing.as_mut()).is_pending());
        assert_eq!(log.latest(&everything, None, 1).await.expect("reads").messages.len(), 1, "others need not wait");
    }
    drop(other);
    assert_eq!(listing.await.expect("reads")[0].messages, head - trimmed);
}

#[tokio::test]
async fn a_log_that_is_dropped_has_written_what_it_was_handed_and_its_subscribers_hear_of_it() {
    let folder = folder();
    let log = open(&folder);
    let mut subscription = log.subscribe(&[filter("#")], Start::Now).expect("subscribed");
    let pending = log.enqueue(message("a", "x")).await.expect("open");
    drop(log);
    assert_eq!(pending.await.expect("committed"), 1);
    assert_eq!(text(&*next(&mut subscription).await), "x");
    assert_eq!(subscription.next().await.expect_err("closed").kind(), ErrorKind::Unavailable);
    assert_eq!(open(&folder).state().head, 1);
}

#[test]
fn a_log_in_use_of_another_program_newer_or_damaged_is_refused_with_the_reason() {
    let place = folder();
    let log = open(&place);
    let refused = |place: &TempDir| TopicLog::open(place.path(), LogOptions::default()).expect_err("refused");
    assert_eq!(refused(&place).kind(), ErrorKind::Conflict);
    drop(log);
    let change = |statement: &str| store::connect(place.path()).expect("opens").execute_batch(statement).expect("changed");
    change("PRAGMA user_version = 2");
    assert!(refused(&place).to_string().contains("use a newer release"));
    change("PRAGMA user_version = 1; PRAGMA application_id = 7");
    assert!(refused(&place).to_string().contains("another program"));
    let other = folder();
    std::fs::write(other.path().join("topics.db"), "no database, but long enough to be taken for one".repeat(100)).expect("written");
    let error = refused(&other);
    assert!(error.to_string().contains("damaged"), "{error}");
}
