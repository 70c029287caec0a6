//! Delivery against handlers that fail, wait, panic and die.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::{Notify, watch};

use super::*;
use crate::{
    log::LogOptions,
    topic::{TopicFilter, TopicName},
};

const NAME: &str = "function:f";
const DEADLINE: Duration = Duration::from_secs(30);

/// A log with a durable subscription to everything, and a handler that notes what it was given.
struct Bench {
    _folder: TempDir,
    log: Arc<TopicLog>,
    counts: Arc<DeliveryCounts>,
    given: Arc<Mutex<Vec<String>>>,
    stop: watch::Sender<bool>,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        let log = Arc::new(TopicLog::open(folder.path(), LogOptions::default()).expect("opens"));
        log.put_durable(NAME, vec![TopicFilter::new("#").expect("valid")], Vec::new(), Timestamp::now()).await.expect("made");
        Self { _folder: folder, log, counts: Arc::default(), given: Arc::default(), stop: watch::Sender::new(false) }
    }

    async fn publish(&self, key: &str, payload: &str) -> u64 {
        let message = Message::new(TopicName::new("a").expect("valid"), payload.to_owned(), Timestamp::now());
        self.log.publish(Message { key: Some(key.to_owned()), ..message }).await.expect("published")
    }

    /// Delivers in a task until told to stop.
    fn deliver<H: Future<Output = Result<(), EdgeError>> + Send>(
        &self,
        concurrency: usize,
        attempts: u32,
        handle: impl Fn(String) -> H + Send + Sync + 'static,
    ) -> tokio::task::JoinHandle<Result<(), EdgeError>> {
        let (log, counts, given, mut stop) =
            (Arc::clone(&self.log), Arc::clone(&self.counts), Arc::clone(&self.given), self.stop.subscribe());
        let retry = Retry { attempts, pause_min: Duration::from_millis(2), pause_max: Duration::from_millis(10) };
        let delivery = Delivery { subscription: NAME.to_owned(), concurrency, retry };
        tokio::spawn(async move {
            let handle = |message: Arc<Message>| {
                let text = String::from_utf8(message.payload.to_vec()).expect("text");
                given.lock().push(text.clone());
                handle(text)
            };
            delivery.run(&log, &counts, handle, async { drop(stop.wait_for(|stop| *stop).await) }).await
        })
    }

    async fn stop(&self, task: tokio::task::JoinHandle<Result<(), EdgeError>>) {
        self.stop.send_replace(true);
        tokio::time::timeout(DEADLINE, task).await.expect("in time").expect("no panic").expect("stopped");
        self.stop.send_replace(false);
    }

    async fn acknowledged(&self) -> u64 {
        self.log.durable(NAME).await.expect("reads").expect("there").acknowledged
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn failed() -> EdgeError {
    EdgeError::new(ErrorKind::ExecutionFailed, "it failed on purpose")
}

#[tokio::test]
async fn what_no_filter_matches_is_passed_over_and_not_lost_later() {
    let bench = Bench::new().await;
    bench.log.put_durable(NAME, vec![TopicFilter::new("quiet/#").expect("valid")], Vec::new(), Timestamp::now()).await.expect("changed");
    let task = bench.deliver(1, 1, |_| async { Ok(()) });
    for n in 0..20 {
        bench.publish("k", &n.to_string()).await;
    }
    until("it is past them", async || bench.acknowledged().await == 20).await;
    bench.stop(task).await;
    assert!(bench.given.lock().is_empty());
}

#[tokio::test]
async fn messages_of_one_key_come_in_order_and_those_of_others_at_once() {
    let bench = Bench::new().await;
    let (open, running) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
    for n in 0..30 {
        bench.publish(&format!("k{}", n % 3), &format!("{}:{}", n % 3, n / 3)).await;
    }
    let (gate, counter) = (Arc::clone(&open), Arc::clone(&running));
    let task = bench.deliver(8, 1, move |text| {
        let (gate, counter) = (Arc::clone(&gate), Arc::clone(&counter));
        async move {
            counter.fetch_add(1, Ordering::SeqCst);
            if text.ends_with(":0") {
                gate.notified().await;
            }
            counter.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    until("one of each key runs", async || running.load(Ordering::SeqCst) == 3).await;
    assert_eq!(bench.given.lock().len(), 3);
    for _ in 0..3 {
        open.notify_one();
    }
    until("all are acknowledged", async || bench.acknowledged().await == 30).await;
    bench.stop(task).await;
    let mut of_key: HashMap<char, Vec<String>> = HashMap::new();
    for text in bench.given.lock().iter() {
        of_key.entry(text.chars().next().expect("a key")).or_default().push(text.clone());
    }
    for (key, given) in of_key {
        assert_eq!(given, (0..10).map(|n| format!("{key}:{n}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_is_acknowledged_moves_when_everything_below_is_done_and_a_new_delivery_goes_on_there() {
    let bench = Bench::new().await;
    for n in 1..=6 {
        bench.publish(&n.to_string(), &n.to_string()).await;
    }
    let task = bench.deliver(8, 1, |text| async move {
        if text == "3" {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    until("all others are done", async || bench.counts.delivered.load(Ordering::SeqCst) == 5).await;
    until("the first two are acknowledged", async || bench.acknowledged().await == 2).await;
    // As a crash: what was under way comes again, and what was done above it too.
    task.abort();
    drop(task.await);
    bench.given.lock().clear();
    let task = bench.deliver(8, 1, |_| async { Ok(()) });
    until("all are acknowledged", async || bench.acknowledged().await == 6).await;
    bench.stop(task).await;
    let mut given = bench.given.lock().clone();
    given.sort();
    assert_eq!(given, ["3", "4", "5", "6"]);
}

#[tokio::test]
async fn a_message_that_fails_is_tried_again_then_is_a_dead_letter_and_the_next_of_its_key_follows() {
    let bench = Bench::new().await;
    let script = Arc::new(Mutex::new(HashMap::from([("twice", VecDeque::from([false, false, true])), ("never", VecDeque::new())])));
    for text in ["twice", "never", "panics", "good"] {
        bench.publish("one key", text).await;
    }
    let answers = Arc::clone(&script);
    let task = bench.deliver(4, 3, move |text| {
        let result = match answers.lock().get_mut(text.as_str()) {
            Some(script) => script.pop_front().unwrap_or(false),
            None => true,
        };
        async move {
            assert!(text != "panics", "on purpose");
            if result { Ok(()) } else { Err(failed()) }
        }
    });
    until("all are acknowledged", async || bench.acknowledged().await == 4).await;
    assert_eq!(*bench.given.lock(), ["twice", "twice", "twice", "never", "never", "never", "panics", "panics", "panics", "good"]);
    let letters = bench.log.dead_letters(Some(NAME), 0).await.expect("reads");
    let told: Vec<_> = letters.iter().map(|letter| (&letter.message.payload[..], letter.attempts, letter.why.as_str())).collect();
    assert_eq!(told, [(&b"never"[..], 3, "it failed on purpose"), (b"panics", 3, "the handler of the message panicked")]);

    script.lock().insert("never", VecDeque::from([false, true]));
    bench.given.lock().clear();
    bench.log.retry_dead_letter(letters[0].id).await.expect("marked");
    until("it was handled", async || bench.log.dead_letters(None, 0).await.expect("reads").len() == 1).await;
    bench.log.retry_dead_letter(letters[1].id).await.expect("marked");
    until("it failed again", async || {
        let letters = bench.log.dead_letters(None, 0).await.expect("reads");
        !letters[0].is_to_retry && bench.counts.dead.load(Ordering::SeqCst) == 3
    })
    .await;
    assert_eq!(*bench.given.lock(), ["never", "never", "panics", "panics", "panics"]);
    bench.stop(task).await;
}

#[tokio::test]
async fn messages_that_are_not_durable_are_dead_letters_of_their_own_and_one_that_fails_again_stays_the_same() {
    let bench = Bench::new().await;
    let task = bench.deliver(1, 1, |_| async { Err(failed()) });
    until("it listens", async || bench.log.state().subscribers == 1).await;
    for text in ["first", "second"] {
        bench.log.publish_live(Message::new(TopicName::new("a").expect("valid"), text, Timestamp::now())).await.expect("valid");
    }
    let dead = |count| bench.counts.dead.load(Ordering::SeqCst) == count;
    until("both are given up", async || dead(2)).await;
    let listed = async || {
        let letters = bench.log.dead_letters(None, 0).await.expect("reads");
        letters.iter().map(|letter| (letter.id, letter.message.payload.clone(), letter.is_to_retry)).collect::<Vec<_>>()
    };
    let both = [(1, "first".into(), false), (2, "second".into(), false)];
    assert_eq!(listed().await, both);
    bench.log.retry_dead_letter(1).await.expect("marked");
    until("it failed again", async || dead(3)).await;
    assert_eq!(listed().await, both);
    bench.stop(task).await;
}

#[tokio::test]
async fn however_many_dead_letters_are_to_be_tried_again_all_of_them_are() {
    let bench = Bench::new().await;
    let count = 2 * DELIVERY_WINDOW_MAX as u64 + 100;
    let letters = (1..=count).map(|position| {
        let message = Message::new(TopicName::new(format!("t/{position}")).expect("valid"), "x", Timestamp::now());
        let log = &bench.log;
        async move {
            log.put_dead_letter(NAME, Arc::new(Message { position: Some(position), ..message }), "why", 1, Timestamp::now()).await
        }
    });
    assert!(futures::future::join_all(letters).await.iter().all(Result::is_ok));
    let marked = (1..=count).map(|id| bench.log.retry_dead_letter(id));
    assert!(futures::future::join_all(marked).await.iter().all(Result::is_ok));
    let task = bench.deliver(8, 1, |_| async { Ok(()) });
    until("all are handled", async || bench.log.dead_letters(None, 0).await.expect("reads").is_empty()).await;
    assert_eq!(bench.given.lock().len() as u64, count);
    bench.stop(task).await;
}

#[tokio::test]
async fn what_is_not_durable_and_comes_too_fast_is_counted() {
    let bench = Bench::new().await;
    let slots = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&slots);
    let task = bench.deliver(1, 1, move |_| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.expect("open").forget();
            Ok(())
        }
    });
    until("it listens", async || bench.log.state().subscribers == 1).await;
    let published = DELIVERY_WINDOW_MAX as u64 + 2 * edgeward_model::limits::SUBSCRIBER_WAITING_MAX as u64;
    for n in 0..published {
        let message = Message::new(TopicName::new("a").expect("valid"), n.to_string(), Timestamp::now());
        bench.log.publish_live(message).await.expect("valid");
    }
    let dropped = || bench.counts.dropped.load(Ordering::SeqCst);
    slots.add_permits(usize::try_from(published).expect("small"));
    until("all of them are handled or counted", async || {
        dropped() > 0 && bench.counts.delivered.load(Ordering::SeqCst) + dropped() == published
    })
    .await;
    bench.stop(task).await;
}

#[tokio::test]
async fn a_message_that_nobody_has_time_for_waits_and_never_becomes_a_dead_letter() {
    let bench = Bench::new().await;
    bench.publish("k", "x").await;
    let task = bench.deliver(1, 2, {
        let tries = AtomicU64::new(0);
        move |_| {
            let n = tries.fetch_add(1, Ordering::SeqCst);
            async move { if n < 6 { Err(EdgeError::new(ErrorKind::Overloaded, "busy")) } else { Ok(()) } }
        }
    });
    until("it is acknowledged", async || bench.acknowledged().await == 1).await;
    bench.stop(task).await;
    assert_eq!((bench.given.lock().len(), bench.counts.dead.load(Ordering::SeqCst)), (7, 0));
}

#[tokio::test]
async fn a_delivery_that_is_stopped_leaves_what_is_between_two_attempts_for_the_next_one() {
    let bench = Bench::new().await;
    bench.publish("k", "waits").await;
    let task = bench.deliver(1, 1, |_| async { Err(EdgeError::new(ErrorKind::Unavailable, "not now")) });
    let given = &bench.given;
    until("it was tried", async || !given.lock().is_empty()).await;
    bench.stop(task).await;
    assert_eq!(bench.acknowledged().await, 0);
    let task = bench.deliver(1, 1, |_| async { Ok(()) });
    until("it is handled", async || bench.acknowledged().await == 1).await;
    bench.stop(task).await;
}

#[tokio::test]
async fn who_is_slow_is_read_for_no_further_than_the_window() {
    let bench = Bench::new().await;
    let mut pending = Vec::new();
    for n in 0..DELIVERY_WINDOW_MAX + 500 {
        let message = Message::new(TopicName::new(format!("t/{n}")).expect("valid"), "x", Timestamp::now());
        pending.push(bench.log.enqueue(message).await.expect("open"));
    }
    for position in pending {
        position.await.expect("committed");
    }
    let slots = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&slots);
    let task = bench.deliver(4, 1, move |_| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.expect("open").forget();
            Ok(())
        }
    });
    until("four run", async || bench.given.lock().len() == 4).await;
    slots.add_permits(10);
    until("ten are acknowledged", async || bench.acknowledged().await == 10).await;
    assert_eq!(bench.given.lock().len(), 14);
    slots.add_permits(DELIVERY_WINDOW_MAX + 490);
    until("all are acknowledged", async || bench.acknowledged().await == DELIVERY_WINDOW_MAX as u64 + 500).await;
    bench.stop(task).await;
}

#[tokio::test]
async fn a_message_that_has_expired_is_not_delivered() {
    let bench = Bench::new().await;
    let message = Message::new(TopicName::new("a").expect("valid"), "old", Timestamp::now());
    bench.log.publish(Message { expires_at: Some(Timestamp::now()), ..message }).await.expect("published");
    bench.publish("k", "new").await;
    let task = bench.deliver(1, 1, |_| async { Ok(()) });
    until("both are acknowledged", async || bench.acknowledged().await == 2).await;
    bench.stop(task).await;
    assert_eq!(*bench.given.lock(), ["new"]);
}

#[tokio::test]
async fn a_delivery_for_nobody_is_refused() {
    let bench = Bench::new().await;
    bench.log.remove_durable(NAME).await.expect("removed");
    let task = bench.deliver(1, 1, |_| async { Ok(()) });
    assert_eq!(task.await.expect("no panic").expect_err("nobody").kind(), ErrorKind::NotFound);
}

#[test]
fn a_pause_doubles_up_to_its_bound_and_is_half_of_it_at_least() {
    let retry = Retry { attempts: 1, pause_min: Duration::from_millis(100), pause_max: Duration::from_secs(1) };
    let pauses = [1, 2, 3, 4, 5, 100].map(|attempts| retry.pause(attempts, 0.0).as_millis());
    assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
    assert_eq!(retry.pause(2, 1.0).as_millis(), 100);
}
