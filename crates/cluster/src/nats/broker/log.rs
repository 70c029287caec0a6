//! What a broker says, as lines of our own log; what it refused, of the audit log.

use std::sync::Arc;

use edgeward_model::limits::LOG_LINE_BYTES_MAX;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::nats::audit::Audit;

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// The last line that said what is wrong.
pub(super) type LastWords = Arc<Mutex<Option<String>>>;

/// Parts of lines about members who asked for what is not theirs, or are no members.
const REFUSALS: [&str; 3] = [" Violation - ", "authentication error", "Authentication Revoked"];

/// Forwards its lines until it closes them.
pub(super) async fn forward(from: impl AsyncRead + Unpin, last_words: LastWords) {
    let audit = Audit::default();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = u64::try_from(LOG_LINE_BYTES_MAX).expect("a small number");
        // What is longer comes as several lines.
        match (&mut from).take(most).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => say(&line, &last_words, &audit),
        }
    }
}

fn say(line: &[u8], last_words: &LastWords, audit: &Audit) {
    let line = String::from_utf8_lossy(line);
    let (level, text) = read(line.trim_end());
    if text.is_empty() {
        return;
    }
    if REFUSALS.iter().any(|refusal| text.contains(refusal)) {
        audit.broker_refused(text);
        return;
    }
    match level {
        Level::Trace => tracing::trace!(target: "nats_server", "{text}"),
        Level::Debug => tracing::debug!(target: "nats_server", "{text}"),
        Level::Info => tracing::info!(target: "nats_server", "{text}"),
        Level::Warn => tracing::warn!(target: "nats_server", "{text}"),
        Level::Error => {
            tracing::error!(target: "nats_server", "{text}");
            *last_words.lock() = Some(text.to_owned());
        }
    }
}

/// Level and text of a line such as `[4711] [INF] Server is ready`. What is none is an error: so speaks a server that ends.
fn read(line: &str) -> (Level, &str) {
    let rest = line.split_once("] ").map_or(line, |(_, rest)| rest);
    for (mark, level) in [
        ("[TRC]", Level::Trace),
        ("[DBG]", Level::Debug),
        ("[INF]", Level::Info),
        ("[WRN]", Level::Warn),
        ("[ERR]", Level::Error),
        ("[FTL]", Level::Error),
    ] {
        if let Some(text) = rest.strip_prefix(mark) {
            return (level, text.trim_start());
        }
    }
    (Level::Error, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_level_and_what_has_none_is_an_error() {
        for (line, level, text) in [
            ("[4711] [INF] Server is ready", Level::Info, "Server is ready"),
            ("[4711] [WRN] a [x] b", Level::Warn, "a [x] b"),
            ("[4711] [FTL] bind: address already in use", Level::Error, "bind: address already in use"),
            ("[4711] [DBG] ", Level::Debug, ""),
            ("[4711] [TRC] x", Level::Trace, "x"),
            ("nats-server: /x/nats.conf:3: unknown field", Level::Error, "nats-server: /x/nats.conf:3: unknown field"),
            ("", Level::Error, ""),
        ] {
            assert_eq!(read(line), (level, text), "{line}");
        }
    }

    #[tokio::test]
    async fn the_last_words_are_the_last_line_that_is_an_error() {
        let last_words = LastWords::default();
        let long = "x".repeat(3 * LOG_LINE_BYTES_MAX);
        let lines = format!("{long}\n[1] [ERR] first\n[1] [FTL] second\n\n[1] [INF] bye\n");
        forward(lines.as_bytes(), Arc::clone(&last_words)).await;
        assert_eq!(last_words.lock().as_deref(), Some("second"));
    }
}
