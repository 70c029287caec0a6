//! Triggers: which messages call which function, and what becomes of those that it cannot handle.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    deployment::Target,
    error::EdgeError,
    id::{FunctionId, TriggerId},
    limits::{DELIVERY_ATTEMPTS_MAX, DELIVERY_CONCURRENCY_MAX, TRIGGER_CONCURRENCY_DEFAULT, TRIGGER_FILTERS_MAX, TRIGGER_PAUSE_MS_MAX},
    topic::TopicFilter,
};

/// How a message becomes a request, by the HTTP binding of CloudEvents. Functions that see no requests get the body of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentMode {
    /// The payload is the body, and the attributes are header fields that begin with `ce-`.
    #[default]
    Binary,
    /// The body is one JSON object with everything.
    Structured,
}

/// How a message that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redelivery {
    /// Attempts in all. Those at which the function was overloaded or not there do not count.
    pub attempts: u32,
    /// Pause after the first attempt, in milliseconds. It doubles with each, and is up to a half shorter, by chance.
    pub pause_min_ms: u64,
    /// Longest pause, in milliseconds.
    pub pause_max_ms: u64,
}

impl Default for Redelivery {
    fn default() -> Self {
        Self { attempts: 5, pause_min_ms: 100, pause_max_ms: 30_000 }
    }
}

impl Redelivery {
    /// Pause after the first attempt.
    pub fn pause_min(&self) -> Duration {
        Duration::from_millis(self.pause_min_ms)
    }

    /// Longest pause.
    pub fn pause_max(&self) -> Duration {
        Duration::from_millis(self.pause_max_ms)
    }
}

/// Which messages call which function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// Names it; how far it got belongs to the name.
    pub id: TriggerId,
    /// What is called.
    pub function: FunctionId,
    /// Messages of which topics. One that several of them match comes once.
    pub filters: Vec<TopicFilter>,
    /// What becomes of messages that fail.
    #[serde(default)]
    pub retry: Redelivery,
    /// Messages that are handled at once, of different keys.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
    /// What the function gets.
    #[serde(default)]
    pub mode: ContentMode,
    /// Which nodes of a fleet have it, of those that are to have the function; all of them when it is not said.
    #[serde(default = "Target::all", skip_serializing_if = "is_all")]
    pub target: Target,
}

fn default_concurrency() -> u32 {
    TRIGGER_CONCURRENCY_DEFAULT
}
fn is_all(target: &Target) -> bool {
    *target == Target::all()
}

impl Trigger {
    /// A trigger with the defaults.
    pub fn new(id: TriggerId, function: FunctionId, filters: Vec<TopicFilter>) -> Self {
        Self {
            id,
            function,
            filters,
            retry: Redelivery::default(),
            concurrency: TRIGGER_CONCURRENCY_DEFAULT,
            mode: ContentMode::default(),
            target: Target::all(),
        }
    }

    /// Checks every field against its bound.
    pub fn validate(&self) -> Result<(), EdgeError> {
        let within = |what: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(EdgeError::invalid(format!("{what} of trigger `{}` is {value}; it must be from {low} to {high}", self.id)))
        };
        let Redelivery { attempts, pause_min_ms, pause_max_ms } = self.retry;
        within("the number of filters", self.filters.len() as u64, 1, TRIGGER_FILTERS_MAX as u64)?;
        within("concurrency", self.concurrency.into(), 1, DELIVERY_CONCURRENCY_MAX as u64)?;
        within("attempts", attempts.into(), 1, DELIVERY_ATTEMPTS_MAX.into())?;
        within("pause_max_ms", pause_max_ms, 1, TRIGGER_PAUSE_MS_MAX)?;
        within("pause_min_ms", pause_min_ms, 1, pause_max_ms)?;
        self.target.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"{"id": "t", "function": "f", "filters": ["site/+/temp"]}"#;

    #[test]
    fn what_a_trigger_does_not_say_has_a_default() {
        let trigger: Trigger = serde_json::from_str(LEAST).expect("reads");
        let id = TriggerId::new("t").expect("valid");
        let filters = vec![TopicFilter::new("site/+/temp").expect("valid")];
        assert_eq!(trigger, Trigger::new(id, FunctionId::new("f").expect("valid"), filters));
        trigger.validate().expect("valid");
        let json = serde_json::to_string(&trigger).expect("writes");
        assert!(
            json.contains(r#""retry":{"attempts":5,"pause_min_ms":100,"pause_max_ms":30000},"concurrency":8,"mode":"binary""#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Trigger>(&json).expect("reads"), trigger);
    }

    #[test]
    fn a_trigger_past_a_bound_is_refused_with_the_bound() {
        for (change, why) in [
            (r#""filters": []"#, "number of filters of trigger `t` is 0"),
            (r#""concurrency": 0"#, "concurrency of trigger `t` is 0; it must be from 1 to 256"),
            (r#""retry": {"attempts": 101}"#, "attempts of trigger `t` is 101"),
            (r#""retry": {"pause_max_ms": 3600001}"#, "pause_max_ms"),
            (r#""retry": {"pause_min_ms": 0}"#, "pause_min_ms"),
            (r#""retry": {"pause_max_ms": 99}"#, "pause_min_ms of trigger `t` is 100; it must be from 1 to 99"),
        ] {
            let mut json: serde_json::Value = serde_json::from_str(LEAST).expect("JSON");
            let change: serde_json::Value = serde_json::from_str(&format!("{{{change}}}")).expect("JSON");
            json.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
            let trigger: Trigger = serde_json::from_value(json).expect("reads");
            assert!(trigger.validate().expect_err(why).to_string().contains(why), "{why}");
        }
        for json in [LEAST.replace("\"id\"", "\"more\": 1, \"id\""), LEAST.replace("+/", "+a/"), LEAST.replace("\"t\"", "\"a b\"")] {
            serde_json::from_str::<Trigger>(&json).expect_err(&json);
        }
    }
}
