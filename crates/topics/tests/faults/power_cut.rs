//! A power cut: whatever the disk was not told to keep is gone. Each message that was acknowledged before it is there, at its position.
//!
//! The log lies on a file system of its own, which is shut down under it. A log whose syncs do nothing must lose messages by that, or
//! the test would show nothing.

use std::{collections::HashMap, path::Path, sync::Arc};

use edgeward_model::EdgeError;
use edgeward_topics::{LogOptions, Message, TopicFilter, TopicLog, TopicName};
use jiff::Timestamp;
use tokio::runtime::{Builder, Runtime};

use crate::{
    child, cut,
    mount::{self, Mount},
};

const CHILD: &str = "power_cut::child_that_publishes_until_its_disk_is_gone";
const PUBLISHERS: usize = 4;
const DISK_MIB: u64 = 48;

fn message(topic: &str, payload: &str) -> Message {
    Message::new(TopicName::new(topic).expect("valid"), payload.to_owned(), Timestamp::now())
}

fn open(folder: &Path) -> Result<TopicLog, EdgeError> {
    TopicLog::open(folder, LogOptions::default())
}

/// Its threads see the mounts of the thread that makes it.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Publishes with several at once without end, and tells which messages were acknowledged.
#[test]
fn child_that_publishes_until_its_disk_is_gone() {
    let Some(folder) = child::store() else { return };
    child::tell(&format!("process {}", std::process::id()));
    runtime().block_on(async {
        let log = Arc::new(open(&folder).expect("opens"));
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    for n in 0.. {
                        let text = format!("{publisher}-{n}");
                        let message = Message { retain: n % 5 == 0, ..message(&format!("p/{publisher}"), &text) };
                        // The error is the power cut.
                        let Ok(position) = log.publish(message).await else { return };
                        child::tell(&format!("acknowledged {position} {text}"));
                    }
                })
            })
            .collect();
        for publisher in publishers {
            publisher.await.expect("no panic");
        }
    });
}

/// What lies at each position; and the log takes one more, behind all of them.
fn messages_in(folder: &Path) -> Result<HashMap<String, String>, EdgeError> {
    runtime().block_on(async {
        let log = open(folder)?;
        let (mut found, mut next) = (HashMap::new(), 1);
        while next <= log.state().head {
            let batch = log.read(next, &TopicFilter::new("#").expect("valid")).await?;
            assert!(batch.next > next && batch.lost == 0, "{batch:?}");
            next = batch.next;
            for message in batch.messages {
                let position = message.position.expect("durable").to_string();
                found.insert(position, String::from_utf8(message.payload.to_vec()).expect("text"));
            }
        }
        assert_eq!(log.publish(message("after", "x")).await?, next);
        Ok(found)
    })
}

/// Lets a child publish, cuts the power after so many messages were acknowledged, and says how many of them there are, and are not.
fn cut_after(messages: usize, start: impl FnOnce(&Path) -> std::process::Command) -> Result<(usize, usize), EdgeError> {
    let mut disk = Mount::image(DISK_MIB);
    let folder = disk.folder().join("log");
    let told = cut::after(messages, &disk, start(&folder));
    disk.mount_again();
    let found = messages_in(&folder)?;
    let is_there = |line: &&String| line.split_once(' ').is_some_and(|(position, text)| found.get(position).is_some_and(|at| at == text));
    let there = told.iter().filter(is_there).count();
    Ok((there, told.len() - there))
}

/// Cuts the power so many times, at different moments.
fn nothing_is_lost(trials: usize) {
    if !mount::is_allowed() {
        return;
    }
    for trial in 0..trials {
        let cut = cut_after(1 + trial * 67 % 401, |folder| child::command(CHILD, folder));
        let (there, lost) = cut.unwrap_or_else(|error| panic!("the log does not open after a power cut: {}", error.chain()));
        assert_eq!(lost, 0, "messages were acknowledged before the power cut and are not there; {there} are");
    }
}

#[test]
fn no_acknowledged_message_is_lost_to_a_power_cut() {
    nothing_is_lost(6);
}

#[test]
fn long_no_acknowledged_message_is_lost_to_a_hundred_power_cuts() {
    nothing_is_lost(100);
}

#[test]
fn a_power_cut_takes_what_a_log_without_syncs_acknowledged() {
    if !mount::is_allowed() {
        return;
    }
    let calls = tempfile::NamedTempFile::new().expect("temp file");
    let has_lost = (0..5).any(|trial| {
        let without_syncs = |folder: &Path| {
            // With syncs, so that a log is there whatever the child does.
            assert!(messages_in(folder).expect("opens").is_empty());
            child::traced(CHILD, folder, calls.path(), Some("fsync,fdatasync:retval=0"))
        };
        !cut_after(20 + trial, without_syncs).is_ok_and(|(_, lost)| lost == 0)
    });
    assert!(has_lost, "the power cuts of these tests take nothing, so that they show nothing");
}
