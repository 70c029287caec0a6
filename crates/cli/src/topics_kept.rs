//! The options that say how much is kept of topics, which a hub and its nodes take alike.

use std::time::Duration;

use edgeward::{
    limits::{TOPIC_LOG_BYTES_MAX, TOPIC_LOG_BYTES_MIN, TOPIC_LOG_DAYS_MAX, TOPIC_LOG_MESSAGES_MAX},
    topics::LogOptions,
};

// No doc comment: it would become the description of each command that takes the options.
#[derive(Debug, clap::Args)]
pub(crate) struct TopicsKept {
    /// Messages that are kept of all topics together; past any of these bounds the oldest give way, read or not [default: 1000000]
    #[arg(long = "topics-keep-messages", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=TOPIC_LOG_MESSAGES_MAX))]
    messages: Option<u64>,
    /// Bytes of messages that are kept of all topics together [default: 1073741824]
    #[arg(long = "topics-keep-bytes", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(TOPIC_LOG_BYTES_MIN..=TOPIC_LOG_BYTES_MAX))]
    bytes: Option<u64>,
    /// Days of running for which messages of topics are kept [default: 7]
    #[arg(long = "topics-keep-days", value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=TOPIC_LOG_DAYS_MAX))]
    days: Option<u64>,
}

impl TopicsKept {
    /// What is kept, when any of it was said.
    pub(crate) fn read(&self) -> Option<LogOptions> {
        let &Self { messages, bytes, days } = self;
        if messages.is_none() && bytes.is_none() && days.is_none() {
            return None;
        }
        let mut kept = LogOptions::default();
        kept.messages_max = messages.unwrap_or(kept.messages_max);
        kept.bytes_max = bytes.unwrap_or(kept.bytes_max);
        kept.age_max = days.map_or(kept.age_max, |days| Duration::from_hours(24 * days));
        Some(kept)
    }
}
