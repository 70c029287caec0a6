//! The newest messages of the log, in memory for those who follow it. A bounded run of neighbours without a gap.

use std::{collections::VecDeque, sync::Arc};

use edgeward_model::limits::{TOPIC_RECENT_BYTES_MAX, TOPIC_RECENT_MESSAGES_MAX};

use crate::message::Message;

/// The run, from the oldest.
#[derive(Default)]
pub(super) struct Recent {
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
}

impl Recent {
    /// Adds the next one.
    pub(super) fn push(&mut self, message: Arc<Message>) {
        if message.position != self.end() {
            self.messages.clear();
            self.bytes = 0;
        }
        self.bytes += message.cost_bytes();
        self.messages.push_back(message);
        while self.messages.len() > TOPIC_RECENT_MESSAGES_MAX || self.bytes > TOPIC_RECENT_BYTES_MAX {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes -= oldest.cost_bytes();
        }
    }

    /// The message at this position, when it is here.
    pub(super) fn get(&self, position: u64) -> Option<&Arc<Message>> {
        let index = position.checked_sub(self.first()?)?;
        self.messages.get(usize::try_from(index).ok()?)
    }

    /// Those from this position on, when the first of them is here.
    pub(super) fn from(&self, position: u64) -> Option<impl Iterator<Item = &Arc<Message>>> {
        let index = usize::try_from(position.checked_sub(self.first()?)?).ok()?;
        (index < self.messages.len()).then(|| self.messages.range(index..))
    }

    fn first(&self) -> Option<u64> {
        self.messages.front()?.position
    }

    fn end(&self) -> Option<u64> {
        Some(self.messages.back()?.position? + 1)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::topic::TopicName;

    fn message(position: u64, bytes: usize) -> Arc<Message> {
        let message = Message::new(TopicName::new("a").expect("valid"), vec![0; bytes], Timestamp::UNIX_EPOCH);
        Arc::new(Message { position: Some(position), ..message })
    }

    #[test]
    fn the_newest_are_found_and_the_oldest_give_way() {
        let mut recent = Recent::default();
        assert!(recent.get(1).is_none() && recent.from(1).is_none());
        let count = TOPIC_RECENT_MESSAGES_MAX as u64;
        for position in 5..count + 10 {
            recent.push(message(position, 1));
        }
        let found = |recent: &Recent, position| recent.get(position).and_then(|message| message.position);
        assert_eq!(
            (found(&recent, 9), found(&recent, 10), found(&recent, count + 9), found(&recent, count + 10)),
            (None, Some(10), Some(count + 9), None)
        );
        assert_eq!(recent.from(11).expect("there").count(), TOPIC_RECENT_MESSAGES_MAX - 1);
        assert!(recent.from(9).is_none() && recent.from(count + 10).is_none());
        for position in count + 10..count + 14 {
            recent.push(message(position, TOPIC_RECENT_BYTES_MAX / 3));
        }
        assert_eq!(recent.from(count + 12).expect("there").count(), 2);
        assert!(recent.get(count + 11).is_none() && recent.bytes <= TOPIC_RECENT_BYTES_MAX);
        recent.push(message(1_000_000, 1));
        assert_eq!((recent.messages.len(), found(&recent, 1_000_000)), (1, Some(1_000_000)), "there is no gap inside");
    }
}
