//! The topic of a message and its member as a subject of NATS, and back: `edgeward.topics.MEMBER.LEVEL.LEVEL…`.
//!
//! In a level each byte but ASCII letters, digits, `-` and `_` is `%` and two hexadecimal digits; an empty level is `%`. So no topic reaches
//! another's subject, and none has a wildcard.

use std::fmt::Write as _;

use edgeward_model::{NodeId, TopicName};

use crate::subject::{node_of_token, node_token};

/// How all subjects begin.
const PREFIX: &str = "edgeward.topics";
/// Stands for a level without a character.
const EMPTY: &str = "%";

/// What all subjects match.
pub(in crate::nats) const SUBJECTS: &str = "edgeward.topics.>";

pub(super) fn subject_of(node: &NodeId, topic: &TopicName) -> String {
    let mut subject = format!("{PREFIX}.{}", node_token(node));
    for level in topic.levels() {
        subject.push('.');
        if level.is_empty() {
            subject.push_str(EMPTY);
        }
        for byte in level.bytes() {
            if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
                subject.push(char::from(byte));
            } else {
                write!(subject, "%{byte:02X}").expect("a string takes it");
            }
        }
    }
    subject
}

/// None when it is not the subject of a topic.
pub(super) fn topic_of(subject: &str) -> Option<(NodeId, TopicName)> {
    let mut parts = subject.strip_prefix(PREFIX)?.strip_prefix('.')?.split('.');
    let node = node_of_token(parts.next()?).ok()?;
    let levels = parts.map(level_of).collect::<Option<Vec<_>>>()?;
    let topic = TopicName::new(levels.join("/")).ok()?;
    // Only what we write ourselves is read, so that of one topic there is one subject.
    (subject_of(&node, &topic) == subject).then_some((node, topic))
}

fn level_of(token: &str) -> Option<String> {
    if token == EMPTY {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use edgeward_model::limits::TOPIC_BYTES_MAX;
    use proptest::prelude::*;

    use super::*;

    fn subject(node: &str, topic: &str) -> String {
        subject_of(&NodeId::new(node).expect("valid"), &TopicName::new(topic).expect("valid"))
    }

    #[test]
    fn a_topic_is_one_subject_whatever_it_holds() {
        for (topic, expected) in [
            ("site/berlin/temp", "edgeward.topics.a=b.site.berlin.temp"),
            ("/a//", "edgeward.topics.a=b.%.a.%.%"),
            ("a.b/*/>", "edgeward.topics.a=b.a%2Eb.%2A.%3E"),
            ("100%/ü x", "edgeward.topics.a=b.100%25.%C3%BC%20x"),
        ] {
            assert_eq!(subject("a.b", topic), expected);
        }
        assert!(subject("a", &"ü".repeat(TOPIC_BYTES_MAX / 2)).len() < 4096, "it fits into a line of the protocol");
    }

    #[test]
    fn what_is_not_the_subject_of_a_topic_is_not_read_as_one() {
        for text in [
            "edgeward.topics",
            "edgeward.topics.a",
            "edgeward.topicsx.a.b",
            "edgeward.topics.a.b%2",
            "edgeward.topics.a.%2b",
            "edgeward.topics.a.%62",
            "edgeward.topics.a.%FF",
            "edgeward.topics.a..b",
            "edgeward.topics.*.b",
        ] {
            assert_eq!(topic_of(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_topic_of_any_member_comes_back(node in "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}", topic in "[^+#\\p{Cc}]{1,60}") {
            let (node, topic) = (NodeId::new(&node).expect("valid"), TopicName::new(&topic).expect("valid"));
            let text = subject_of(&node, &topic);
            prop_assert!(!text.contains([' ', '*', '>']) && !text.split('.').any(str::is_empty));
            prop_assert_eq!(text.split('.').count(), 3 + topic.levels().count());
            prop_assert_eq!(topic_of(&text), Some((node, topic)));
        }
    }
}
