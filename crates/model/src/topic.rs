//! Names and filters of topics: levels separated by `/`, and in a filter `+` for one level and a last `#` for the rest.
//!
//! The rules are those of MQTT 3.1.1 and 5: `a/#` matches `a` too, and a wildcard at the beginning does not match a name that begins with
//! `$`.

use std::sync::Arc;

use crate::{
    error::EdgeError,
    id::checked_text,
    limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX},
};

/// Stands for one level in a filter.
const ONE: &str = "+";
/// Stands for the rest of a topic in a filter.
const REST: &str = "#";

checked_text!(
    /// Names a topic.
    TopicName
);
checked_text!(
    /// Matches topics.
    TopicFilter
);

impl TopicName {
    /// Its levels, of which there is one at least.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Checks `text` and makes it a name: 1 to [`TOPIC_BYTES_MAX`] bytes, at most [`TOPIC_LEVELS_MAX`] levels, no wildcard and no control
    /// character. A level may be empty.
    pub fn new(text: impl AsRef<str>) -> Result<Self, EdgeError> {
        let text = text.as_ref();
        let why = match fault(text) {
            Some(why) => Some(why),
            None if text.contains(['+', '#']) => Some("`+` and `#` are for filters only".to_owned()),
            None => None,
        };
        why.map_or_else(|| Ok(Self(text.into())), |why| Err(refused("topic", text, &why)))
    }

    /// Whether it is the server's own: nobody else publishes there.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl TopicFilter {
    /// Its levels, of which there is one at least.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Checks `text` and makes it a filter: bounds as those of a name, `+` as a whole level, `#` as the whole last one.
    pub fn new(text: impl AsRef<str>) -> Result<Self, EdgeError> {
        let text = text.as_ref();
        let mut levels = text.split('/').peekable();
        let mut why = fault(text);
        while let (None, Some(level)) = (&why, levels.next()) {
            if level.contains('#') && (level != REST || levels.peek().is_some()) {
                why = Some("`#` must be the whole last level".to_owned());
            } else if level.contains('+') && level != ONE {
                why = Some("`+` must be a whole level".to_owned());
            }
        }
        why.map_or_else(|| Ok(Self(text.into())), |why| Err(refused("filter", text, &why)))
    }

    /// The filter that matches this topic only.
    pub fn exactly(topic: &TopicName) -> Self {
        Self(Arc::clone(&topic.0))
    }

    /// Whether it matches this topic.
    pub fn matches(&self, topic: &TopicName) -> bool {
        self.matches_text(&topic.0)
    }

    /// Whether it matches the topic of this name, which was checked before.
    pub fn matches_text(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.begins_with_wildcard() {
            return false;
        }
        let (mut filter, mut topic) = (self.levels(), topic.split('/'));
        loop {
            match (filter.next(), topic.next()) {
                (Some(REST), _) | (None, None) => return true,
                (Some(ONE), Some(_)) => {}
                (Some(level), Some(name)) if level == name => {}
                _ => return false,
            }
        }
    }

    /// Whether it surely matches every topic that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        if other.0.starts_with('$') && self.begins_with_wildcard() {
            return false;
        }
        let (mut own, mut others) = (self.levels(), other.levels());
        loop {
            match (own.next(), others.next()) {
                (Some(REST), _) | (None, None) => return true,
                (_, Some(REST)) => return false,
                (Some(ONE), Some(_)) => {}
                (Some(level), Some(other)) if level == other => {}
                _ => return false,
            }
        }
    }

    fn begins_with_wildcard(&self) -> bool {
        self.0.starts_with(['+', '#'])
    }

    /// What the names of all topics that it matches begin with.
    pub fn prefix(&self) -> &str {
        let end = self.0.find(['+', '#']).unwrap_or(self.0.len());
        // `a/#` matches `a` too.
        self.0[..end].strip_suffix('/').unwrap_or(&self.0[..end])
    }
}

/// What is wrong with a name or a filter alike.
fn fault(text: &str) -> Option<String> {
    let levels = text.split('/').count();
    if text.is_empty() {
        Some("it is empty".to_owned())
    } else if text.len() > TOPIC_BYTES_MAX {
        Some(format!("it is {} bytes long, the most is {TOPIC_BYTES_MAX}", text.len()))
    } else if levels > TOPIC_LEVELS_MAX {
        Some(format!("it has {levels} levels, the most is {TOPIC_LEVELS_MAX}"))
    } else {
        let bad = text.chars().find(|c| c.is_control());
        bad.map(|bad| format!("the control character `{}` is not allowed", bad.escape_default()))
    }
}

fn refused(what: &str, text: &str, why: &str) -> EdgeError {
    let shown: String = text.chars().take(64).collect();
    EdgeError::invalid(format!("the {what} `{}` is not valid: {why}", shown.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> TopicName {
        TopicName::new(text).expect(text)
    }

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).expect(text)
    }

    #[test]
    fn a_filter_matches_as_the_standard_of_mqtt_says() {
        for (text, matched, others) in [
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1 sport/tennis/player1/ranking sport/tennis/player1/score/wimbledon",
                "sport/tennis",
            ),
            ("sport/#", "sport sport/ sport/a", "sports /sport"),
            ("#", "a a/b / /a", "$SYS $SYS/a"),
            ("sport/tennis/+", "sport/tennis/player1 sport/tennis/", "sport/tennis sport/tennis/player1/ranking"),
            ("sport/+", "sport/", "sport"),
            ("+/+", "/finance a/b", "a a/b/c $SYS/a"),
            ("/+", "/finance", "finance"),
            ("+", "finance", "/finance $SYS"),
            ("+/#", "a a/b", "$SYS/a"),
            ("$SYS/#", "$SYS $SYS/a", "SYS"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", "$SYS/monitor"),
            ("a//b", "a//b", "a/b a/x/b"),
            ("Accounts", "Accounts", "ACCOUNTS accounts"),
        ] {
            for topic in matched.split(' ') {
                assert!(filter(text).matches(&name(topic)), "{text} {topic}");
            }
            for topic in others.split(' ') {
                assert!(!filter(text).matches(&name(topic)), "{text} {topic}");
            }
        }
    }

    #[test]
    fn a_text_that_is_no_topic_or_no_filter_is_refused_with_the_reason() {
        let deep = vec!["a"; TOPIC_LEVELS_MAX + 1].join("/");
        let long = "x".repeat(TOPIC_BYTES_MAX + 1);
        for (text, why) in [("", "empty"), (&*deep, "33 levels"), (&*long, "513 bytes"), ("a\0b", "control"), ("a\nb", "control")] {
            for error in [TopicName::new(text).expect_err(text), TopicFilter::new(text).expect_err(text)] {
                assert!(error.to_string().contains(why), "{error}");
            }
        }
        for text in ["a/+", "#", "a+b", "a#"] {
            assert!(TopicName::new(text).expect_err(text).to_string().contains("filters only"));
        }
        for (text, why) in
            [("a/#/b", "last level"), ("a#", "last level"), ("a/b+", "whole level"), ("++", "whole level"), ("+#", "last level")]
        {
            assert!(TopicFilter::new(text).expect_err(text).to_string().contains(why), "{text}");
        }
        assert!(TopicName::new(&deep[2..]).is_ok() && TopicName::new(&long[1..]).is_ok());
    }

    #[test]
    fn a_filter_covers_another_when_it_matches_all_that_the_other_does() {
        for (text, covered, others) in [
            ("#", "# + a a/# +/a", "$SYS/a $SYS/#"),
            ("a/#", "a a/# a/b a/+ a/+/c a/b/#", "# + ab +/b"),
            ("a/+", "a/b a/+", "a a/# a/b/c +/b"),
            ("a/b", "a/b", "a/+ a/# a"),
            ("$SYS/#", "$SYS/a $SYS/+", "#"),
        ] {
            for other in covered.split(' ') {
                assert!(filter(text).covers(&filter(other)), "{text} {other}");
            }
            for other in others.split(' ') {
                assert!(!filter(text).covers(&filter(other)), "{text} {other}");
            }
        }
    }
}
