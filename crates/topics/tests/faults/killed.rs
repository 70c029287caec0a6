//! A process that publishes and is killed: every message that it was told is durable is there, in its order, and the log goes on after it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
    sync::Arc,
};

use edgeward_topics::{LogOptions, Message, TopicFilter, TopicLog, TopicName};
use jiff::Timestamp;

use crate::child;

const CHILD: &str = "killed::child_that_publishes";
const PUBLISHERS: usize = 8;
const ROUNDS: usize = 12;

/// Publishes with several at once until it is killed, and tells each position that is durable with what lies there.
#[test]
fn child_that_publishes() {
    let Some(folder) = child::store() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let log = Arc::new(TopicLog::open(&folder, LogOptions { messages_max: 5000, ..LogOptions::default() }).expect("opens"));
        for publisher in 0..PUBLISHERS {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                for n in 0.. {
                    let topic = TopicName::new(format!("p/{publisher}")).expect("valid");
                    let text = format!("{publisher}-{n}");
                    let message = Message { retain: n % 5 == 0, ..Message::new(topic, text.clone(), Timestamp::now()) };
                    let position = log.publish(message).await.expect("published");
                    child::tell(&format!("{position} {text}"));
                }
            });
        }
        std::future::pending::<()>().await;
    });
}

/// Has a child publish until it has told so many positions, and kills it. Returns what it told.
fn publish_and_kill(folder: &Path, count: usize) -> Vec<(u64, String)> {
    let mut child = child::command(CHILD, folder).stdout(Stdio::piped()).spawn().expect("a child");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut told = Vec::new();
    let mut take = |line: String| {
        // The last line may be cut by the kill.
        let said = child::told(&line).and_then(|said| said.split_once(' '));
        let Some((position, text)) = said.filter(|(_, text)| text.contains('-')) else { return 0 };
        told.push((position.parse().expect("a position"), text.to_owned()));
        told.len()
    };
    while let Some(Ok(line)) = lines.next() {
        if take(line) == count {
            break;
        }
    }
    child.kill().expect("killed");
    // What it had written before it died counts too.
    lines.map_while(Result::ok).for_each(|line| {
        take(line);
    });
    child.wait().expect("ended");
    // The last line may be a part of one: its text is then the beginning of another, which proves nothing.
    told.pop();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_message_is_lost_to_a_kill() {
    let place = tempfile::tempdir().expect("temp folder");
    let folder = place.path().join("log");
    let mut head = 0;
    let mut checked = 0;
    for round in 0..ROUNDS {
        let told = publish_and_kill(&folder, 50 + 150 * round);
        assert!(told.len() > 10, "{} messages prove nothing", told.len());
        let log = TopicLog::open(&folder, LogOptions::default()).expect("opens after the kill");
        let state = log.state();
        assert!(
            told.iter().all(|(position, _)| (head + 1..=state.head).contains(position)),
            "a position was given twice, or is beyond the end"
        );
        head = state.head;
        let mut found = std::collections::HashMap::new();
        let mut next = state.trimmed + 1;
        while next <= head {
            let batch = log.read(next, &TopicFilter::new("#").expect("valid")).await.expect("reads");
            assert!(batch.next > next && batch.lost == 0, "{batch:?}");
            next = batch.next;
            for message in batch.messages {
                found.insert(message.position.expect("durable"), String::from_utf8(message.payload.to_vec()).expect("text"));
            }
        }
        for (position, text) in told.iter().filter(|(position, _)| *position > state.trimmed) {
            assert_eq!(found.get(position), Some(text), "round {round}");
            checked += 1;
        }
        // Each publisher waited for its commit, so at most one message of each is there without a word of it.
        let of_this_round = found.keys().filter(|position| told.iter().map(|(told, _)| told).min() <= Some(position)).count();
        assert!(of_this_round <= told.len() + 2 * PUBLISHERS + 1, "{of_this_round} found, {} told", told.len());
        let retained = log.retained(&TopicFilter::new("p/+").expect("valid"), "").await.expect("reads");
        assert_eq!(retained.len(), PUBLISHERS);
        head = log.publish(Message::new(TopicName::new("after").expect("valid"), "x", Timestamp::now())).await.expect("it goes on");
        assert_eq!(head, state.head + 1);
    }
    assert!(checked > 2000, "{checked} messages were checked");
    assert!(fs::metadata(folder.join("topics.db")).expect("there").len() > 0);
}
