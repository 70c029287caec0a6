//! What a hub asks about the triggers of a node, and the answers, each of which fits into one message.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use edgeward_cluster::Message as Carrier;
use edgeward_model::{EdgeError, TopicName, TriggerId, limits::MESSAGE_BYTES_MAX};
use edgeward_topics::{DeadLetter, Message};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use crate::topics::bundle::Head;

/// Room for what is beside the items of a page, in bytes.
const FRAME_BYTES: usize = 64;

/// Asks about the triggers of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TriggerQuestion {
    /// How those after this one do: a [`Page`] of [`TriggerView`](crate::TriggerView)s.
    List { after: Option<TriggerId> },
    /// How it does: a [`TriggerView`](crate::TriggerView).
    Show(TriggerId),
    /// The dead letters after this id, of one trigger or of all: a [`Page`] of [`Letter`]s.
    DeadLetters { trigger: Option<TriggerId>, after: u64 },
    /// To try a dead letter again.
    Retry(u64),
    /// To remove a dead letter.
    Discard(u64),
}

/// As many as fit into one message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Whether there are more.
    #[serde(default)]
    pub(crate) has_more: bool,
}

/// Writes the first of these, as many as fit, and one in any case.
pub(crate) fn write_page<T: Serialize>(items: impl IntoIterator<Item = T>) -> Carrier {
    let mut page = Page { items: Vec::new(), has_more: false };
    let mut bytes = FRAME_BYTES;
    for item in items {
        let item = to_raw_value(&item).expect("an item has only text and numbers");
        bytes += item.get().len() + 1;
        page.has_more = bytes > MESSAGE_BYTES_MAX && !page.items.is_empty();
        if page.has_more {
            break;
        }
        page.items.push(item);
    }
    super::write(&page)
}

/// A dead letter.
#[derive(Serialize, Deserialize)]
pub(crate) struct Letter {
    id: u64,
    subscription: String,
    why: String,
    attempts: u32,
    at: Timestamp,
    #[serde(default)]
    is_to_retry: bool,
    #[serde(default)]
    position: Option<u64>,
    topic: TopicName,
    #[serde(flatten)]
    head: Head,
    /// In base 64.
    payload: String,
}

impl From<DeadLetter> for Letter {
    fn from(DeadLetter { id, subscription, message, why, attempts, at, is_to_retry }: DeadLetter) -> Self {
        let (position, topic, head) = (message.position, message.topic.clone(), Head::of(&message));
        let payload = BASE64_STANDARD.encode(&message.payload);
        Self { id, subscription, why, attempts, at, is_to_retry, position, topic, head, payload }
    }
}

impl TryFrom<Letter> for DeadLetter {
    type Error = EdgeError;

    fn try_from(letter: Letter) -> Result<Self, EdgeError> {
        let Letter { id, subscription, why, attempts, at, is_to_retry, position, topic, head, payload } = letter;
        let damaged = |error| EdgeError::invalid(format!("the payload of dead letter `{id}` is no base 64")).with_source(error);
        let message = head.into_message(topic, BASE64_STANDARD.decode(payload).map_err(damaged)?.into())?;
        Ok(Self { id, subscription, message: Arc::new(Message { position, ..message }), why, attempts, at, is_to_retry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{services::read, topics::bundle::tests::largest as largest_message};

    /// Every part as large as may be, of what takes most room as JSON.
    fn largest(id: u64) -> DeadLetter {
        let message = Message { position: Some(u64::MAX), ..largest_message() };
        let (subscription, at) = (format!("trigger:{}", "t".repeat(64)), Timestamp::UNIX_EPOCH);
        DeadLetter { id, subscription, message: Arc::new(message), why: "\u{1}".repeat(1024), attempts: 100, at, is_to_retry: true }
    }

    fn page_of(letters: &[DeadLetter]) -> (Vec<DeadLetter>, bool) {
        let carrier = write_page(letters.iter().cloned().map(Letter::from));
        assert!(carrier.payload.len() <= MESSAGE_BYTES_MAX, "{}", carrier.payload.len());
        let Page { items, has_more } = read::<Page<Letter>>(&carrier, "a page").expect("reads");
        (items.into_iter().map(|letter| letter.try_into().expect("reads")).collect(), has_more)
    }

    #[test]
    fn the_largest_dead_letter_fits_into_one_message_and_is_read_as_it_was() {
        let letters = [largest(1), largest(2)];
        assert_eq!(page_of(&letters[..1]), (letters[..1].to_vec(), false));
        assert_eq!(page_of(&letters), (letters[..1].to_vec(), true));
    }

    #[test]
    fn a_page_has_as_many_as_fit() {
        let small = |id: u64| {
            let message = Message::new(TopicName::new("a").expect("valid"), vec![7; 600], Timestamp::UNIX_EPOCH);
            DeadLetter { message: Arc::new(message), why: "why".to_owned(), is_to_retry: false, ..largest(id) }
        };
        let letters: Vec<_> = (1..=1000).map(small).collect();
        let (read, has_more) = page_of(&letters);
        assert!(has_more && read.len() > 500 && read == letters[..read.len()], "{}", read.len());
        assert_eq!(page_of(&letters[read.len()..]), (letters[read.len()..].to_vec(), false));
        assert_eq!(page_of(&[]), (Vec::new(), false));
    }
}
