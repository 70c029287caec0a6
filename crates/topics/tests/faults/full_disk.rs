//! A log on a disk that is full: what does not fit is refused with the reason, what was acknowledged stays, and with some space it goes on.

use std::fs;

use edgeward_model::ErrorKind;
use edgeward_topics::{LogOptions, Message, Received, Start, TopicFilter, TopicLog, TopicName};
use jiff::Timestamp;

use crate::mount::{self, Mount};

fn message(n: usize) -> Message {
    Message::new(TopicName::new("a").expect("valid"), format!("{n} {}", "x".repeat(4000)), Timestamp::now())
}

#[test]
fn what_does_not_fit_is_refused_and_what_was_acknowledged_stays() {
    if !mount::is_allowed() {
        return;
    }
    let disk = Mount::small(6 * 1024);
    let filler = disk.folder().join("filler");
    fs::write(&filler, vec![0; 3 * 1024 * 1024]).expect("written");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let folder = disk.folder().join("log");
        let log = TopicLog::open(&folder, LogOptions::default()).expect("opens");
        let topic = TopicFilter::new("a").expect("valid");
        let mut subscription = log.subscribe(std::slice::from_ref(&topic), Start::Now).expect("subscribed");
        let mut acknowledged = Vec::new();
        let mut refused = 0;
        for n in 0.. {
            match log.publish(message(n)).await {
                Ok(position) => acknowledged.push((position, n)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
                    assert!(error.to_string().contains("the disk is full; free some space"), "{error}");
                    refused += 1;
                }
            }
            if refused == 3 && filler.exists() {
                fs::remove_file(&filler).expect("removed");
            }
            if refused >= 3 && acknowledged.last().is_some_and(|(_, last)| *last == n) {
                break;
            }
            assert!(refused < 10, "it goes on when there is space again");
        }
        assert!(acknowledged.len() > 50 && acknowledged.iter().map(|(position, _)| *position).eq(1..=acknowledged.len() as u64));
        drop(log);
        for (position, n) in &acknowledged {
            match subscription.next().await.expect("given before the end") {
                Received::Message(message) => {
                    assert!(message.position == Some(*position) && message.payload.starts_with(format!("{n} ").as_bytes()));
                }
                lost @ Received::Lost(_) => panic!("{lost:?}"),
            }
        }
        drop(subscription);
        let log = TopicLog::open(&folder, LogOptions::default()).expect("opens");
        let batch = log.read(1, &topic).await.expect("reads");
        for (message, (position, n)) in batch.messages.iter().zip(&acknowledged) {
            assert!(message.position == Some(*position) && message.payload.starts_with(format!("{n} ").as_bytes()));
        }
        assert_eq!(log.state().head, acknowledged.len() as u64);
    });
}
