//! What functions print, kept per function in a bounded ring and passed on to those who follow.
//!
//! Logs live in memory: they help to see what a function does now, and end with the process.

use std::{collections::VecDeque, time::Duration};

use edgeward_model::limits::{LOG_BYTES_MAX, LOG_LINE_BYTES_MAX};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{sync::broadcast, time::timeout};

/// Lines that a slow follower may fall behind before it misses some.
const FOLLOWER_LAG_LINES: usize = 256;

/// Where a line was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// The function's standard output.
    Stdout,
    /// The function's standard error.
    Stderr,
    /// The runtime itself: why an invocation failed.
    Runtime,
}

/// One line of a function's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Counts the lines of this function's log from 1; a gap means that lines were dropped.
    pub seq: u64,
    /// When it was printed.
    pub timestamp: Timestamp,
    /// Where it was printed.
    pub stream: LogStream,
    /// The text without its line end, at most 4 KiB.
    pub text: String,
}

/// The log of one function.
#[derive(Debug)]
pub struct FunctionLog {
    ring: Mutex<Ring>,
    followers: broadcast::Sender<LogLine>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    last_seq: u64,
}

impl Default for FunctionLog {
    fn default() -> Self {
        Self { ring: Mutex::default(), followers: broadcast::Sender::new(FOLLOWER_LAG_LINES) }
    }
}

impl FunctionLog {
    /// Adds one line; what is past 4 KiB of it is cut, and the oldest lines give way.
    pub fn push(&self, stream: LogStream, text: &str) {
        let text = text.get(..text.floor_char_boundary(LOG_LINE_BYTES_MAX)).unwrap_or_default().to_owned();
        let mut ring = self.ring.lock();
        ring.last_seq += 1;
        let line = LogLine { seq: ring.last_seq, timestamp: Timestamp::now(), stream, text };
        ring.bytes += cost(&line);
        ring.lines.push_back(line.clone());
        while ring.bytes > LOG_BYTES_MAX {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.bytes -= cost(&oldest);
        }
        // Sent under the lock, so that followers get the lines in order. No follower is no error.
        let _ = self.followers.send(line);
    }

    /// The lines that are kept, and a receiver for those that come, without a gap between them.
    pub fn follow(&self) -> (Vec<LogLine>, broadcast::Receiver<LogLine>) {
        let ring = self.ring.lock();
        (ring.lines.iter().cloned().collect(), self.followers.subscribe())
    }

    /// The lines after one that are kept, oldest first; when there are none, the next one, unless it takes longer than `wait`.
    pub async fn after(&self, seq: u64, wait: Duration) -> Vec<LogLine> {
        let (lines, mut coming) = self.follow();
        let mut lines: Vec<_> = lines.into_iter().filter(|line| line.seq > seq).collect();
        if lines.is_empty() {
            lines.extend(timeout(wait, coming.recv()).await.ok().and_then(Result::ok));
        }
        lines
    }

    /// The lines that are kept, oldest first.
    pub fn lines(&self) -> Vec<LogLine> {
        self.ring.lock().lines.iter().cloned().collect()
    }
}

fn cost(line: &LogLine) -> usize {
    size_of::<LogLine>() + line.text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_the_newest_lines_within_its_bound() {
        let log = FunctionLog::default();
        (0..10_000).for_each(|i| log.push(LogStream::Stdout, &format!("line {i}")));
        let lines = log.lines();
        assert!(lines.iter().map(cost).sum::<usize>() <= LOG_BYTES_MAX);
        assert_eq!(lines.last().expect("not empty").text, "line 9999");
        assert_eq!(lines.last().expect("not empty").seq, 10_000);
    }

    #[test]
    fn a_long_line_is_cut_at_a_character() {
        let log = FunctionLog::default();
        log.push(LogStream::Stderr, &"ü".repeat(LOG_LINE_BYTES_MAX));
        assert_eq!(log.lines()[0].text.len(), LOG_LINE_BYTES_MAX);
    }

    #[test]
    fn a_follower_gets_every_line_once() {
        let log = FunctionLog::default();
        log.push(LogStream::Stdout, "before");
        let (kept, mut coming) = log.follow();
        log.push(LogStream::Stdout, "after");
        assert_eq!(kept.len(), 1);
        assert_eq!(coming.try_recv().expect("sent").text, "after");
        assert!(coming.try_recv().is_err());
    }
}
