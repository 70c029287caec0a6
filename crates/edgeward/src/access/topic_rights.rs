//! What a caller may do on topics, by whichever door it comes: MQTT, HTTP, and what is made of that.
//!
//! A token that names topics may do there what it names and nothing else, whatever its role; any other may do what its role allows.

use edgeward_model::{EdgeError, ErrorKind, TopicFilter, TopicName, limits::TOKEN_FILTERS_MAX};
use serde::{Deserialize, Serialize};

/// Where one publishes, and what one follows. What is not said is not allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicRights {
    /// Topics to which it publishes. Nobody publishes where a name begins with `$`.
    pub publish: Vec<TopicFilter>,
    /// Topics that it follows and lists: each of its filters must be covered by one of these.
    pub subscribe: Vec<TopicFilter>,
}

impl TopicRights {
    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.publish.is_empty() && self.subscribe.is_empty()
    }

    /// Whether it may see what is published to this topic.
    pub fn may_see(&self, topic: &TopicName) -> bool {
        self.subscribe.iter().any(|own| own.matches(topic))
    }

    /// Refuses who may not publish to this topic.
    pub fn check_publish(&self, topic: &TopicName) -> Result<(), EdgeError> {
        // What is the node's own has an error of its own.
        if topic.is_reserved() || self.publish.iter().any(|own| own.matches(topic)) {
            return Ok(());
        }
        let why = if self.publish.is_empty() { "it publishes to no topic" } else { "it publishes elsewhere only" };
        Err(EdgeError::new(ErrorKind::Forbidden, format!("the token may not publish to topic `{topic}`: {why}")))
    }

    /// Refuses who may not follow this filter.
    pub fn check_subscribe(&self, filter: &TopicFilter) -> Result<(), EdgeError> {
        if self.subscribe.iter().any(|own| own.covers(filter)) {
            return Ok(());
        }
        let why = if filter.as_str().starts_with('$') {
            "what begins with `$` is for admins"
        } else {
            "it is for less than that, or other topics"
        };
        Err(EdgeError::new(ErrorKind::Forbidden, format!("the token may not follow topics `{filter}`: {why}")))
    }

    /// Checks their number.
    pub(super) fn check(&self) -> Result<(), EdgeError> {
        for (what, filters) in [("publish to", &self.publish), ("follow", &self.subscribe)] {
            if filters.len() > TOKEN_FILTERS_MAX {
                let why = format!("a token cannot name {} filters of topics to {what}, the most is {TOKEN_FILTERS_MAX}", filters.len());
                return Err(EdgeError::invalid(why));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(publish: &[&str], subscribe: &[&str]) -> TopicRights {
        let filters = |texts: &[&str]| texts.iter().map(|text| TopicFilter::new(text).expect("valid")).collect();
        TopicRights { publish: filters(publish), subscribe: filters(subscribe) }
    }

    fn topic(text: &str) -> TopicName {
        TopicName::new(text).expect("valid")
    }

    #[test]
    fn what_is_not_named_is_refused() {
        let own = rights(&["site/berlin/#"], &["commands/berlin"]);
        own.check_publish(&topic("site/berlin/temp")).expect("its own");
        own.check_subscribe(&TopicFilter::new("commands/berlin").expect("valid")).expect("its own");
        for other in ["site/rome/temp", "commands/berlin"] {
            assert_eq!(own.check_publish(&topic(other)).expect_err(other).kind(), ErrorKind::Forbidden);
        }
        for other in ["#", "commands/+", "site/berlin/#", "$edgeward/clients/+"] {
            let filter = TopicFilter::new(other).expect("valid");
            assert_eq!(own.check_subscribe(&filter).expect_err(other).kind(), ErrorKind::Forbidden);
        }
        assert!(own.may_see(&topic("commands/berlin")) && !own.may_see(&topic("commands/rome")));
    }

    #[test]
    fn a_token_names_a_bounded_number_of_filters() {
        let many = vec!["a"; TOKEN_FILTERS_MAX + 1];
        rights(&many[1..], &many[1..]).check().expect("the most");
        assert!(rights(&many, &[]).check().expect_err("too many").to_string().contains("publish to"));
        assert!(rights(&[], &many).check().expect_err("too many").to_string().contains("follow"));
    }
}
