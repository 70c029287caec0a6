//! The record of a function, and its form as a value of a document.
//!
//! No error repeats what was read: a record holds the environment of its function.

use std::time::Duration;

use edgeward_cluster::rollout::Order;
use edgeward_model::{Digest, EdgeError, EdgeFunction, ErrorKind, Probe, Value, python_json};
use serde::{Deserialize, Serialize};

/// Version of a record's form. A newer one is refused.
const FORMAT: u32 = 1;

/// A function that should run, and the generation of that wish.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionRecord {
    /// Grows with every change of desired state on this node.
    pub generation: u64,
    /// The function.
    #[serde(flatten)]
    pub function: EdgeFunction,
    /// What a deployment of the fleet says of it; none for what was assigned or deployed by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed: Option<Box<RevisionRecord>>,
}

/// A revision of a deployment, as a node is to have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// Its number.
    pub revision: u64,
    /// What the function must answer before it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// How long it must do well, in seconds: the node tells when it has served for that time.
    #[serde(default)]
    pub bake_seconds: f64,
    /// For how long after it began to serve the node tells how it does, in seconds; while something is to be ready beside it, it always does.
    #[serde(default)]
    pub judged_seconds: u64,
    /// Whether no other node may run it at the same time: then it runs only while this node has the function's lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// Whether the node need not go back from it any more. What a release wrote that did not know this has nothing to be ready beside it then.
    #[serde(default = "confirmed", skip_serializing_if = "is_confirmed")]
    pub confirmed: bool,
    /// What is to be ready beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<WarmRecord>,
}

/// A revision that is ready and does not serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarmRecord {
    /// Its number.
    pub revision: u64,
    /// The function as of that revision.
    pub function: EdgeFunction,
}

fn confirmed() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_confirmed(confirmed: &bool) -> bool {
    *confirmed
}

#[derive(Serialize)]
struct Stored<'a> {
    format: u32,
    #[serde(flatten)]
    record: &'a FunctionRecord,
}

/// The part of a record that every release can read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl FunctionRecord {
    /// A record that no deployment wrote.
    pub(crate) fn new(generation: u64, function: EdgeFunction) -> Self {
        Self { generation, function, deployed: None }
    }

    /// The same with nothing warm beside it.
    pub(crate) fn alone(&self) -> Self {
        let mut alone = self.clone();
        if let Some(deployed) = &mut alone.deployed {
            deployed.warm = None;
        }
        alone
    }

    /// The same without the values of environments, for listings.
    pub(crate) fn redacted(mut self) -> Self {
        self.function.environment = self.function.environment.redacted();
        if let Some(warm) = self.deployed.as_mut().and_then(|deployed| deployed.warm.as_mut()) {
            warm.function.environment = warm.function.environment.redacted();
        }
        self
    }

    /// The revision that is to be ready beside the one that serves.
    pub(crate) fn warm(&self) -> Option<&WarmRecord> {
        self.deployed.as_ref().and_then(|deployed| deployed.warm.as_ref())
    }

    /// Whether it runs only while this node has the function's lease.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.deployed.as_ref().is_some_and(|deployed| deployed.exclusive)
    }

    /// How long it must do well.
    pub(crate) fn bake(&self) -> Duration {
        let seconds = self.deployed.as_ref().map_or(0.0, |deployed| deployed.bake_seconds);
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    /// Whether the hub wants to see how it does after it has served for so long.
    pub(crate) fn is_judged_after(&self, time: Duration) -> bool {
        self.deployed.as_ref().is_some_and(|deployed| deployed.warm.is_some() || time.as_secs() < deployed.judged_seconds)
    }

    /// What it orders, by revision; none for a record that no deployment wrote.
    pub(crate) fn order(&self) -> Option<Order> {
        let deployed = self.deployed.as_ref()?;
        let warm = deployed.warm.as_ref().map(|warm| warm.revision);
        Some(Order { serve: Some(deployed.revision), warm, is_confirmed: self.is_confirmed() })
    }

    /// Whether nothing older need run any more once it serves.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.deployed.as_ref().is_none_or(|deployed| deployed.confirmed && deployed.warm.is_none())
    }

    /// The artifacts that it needs, first that of what serves.
    pub(crate) fn artifacts(&self) -> impl Iterator<Item = Digest> {
        let warm = self.warm().and_then(|warm| warm.function.handler.artifact());
        self.function.handler.artifact().into_iter().chain(warm)
    }

    /// The record as a value.
    pub(crate) fn to_value(&self) -> Result<Value, EdgeError> {
        let json = serde_json::to_string(&Stored { format: FORMAT, record: self });
        let json = json.map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to write a function's record").with_source(error))?;
        python_json::read(&json)
    }

    /// Reads the value of this key.
    pub(crate) fn of_value(key: &str, value: &Value) -> Result<Self, EdgeError> {
        let refused = |why: &str| EdgeError::new(ErrorKind::Internal, format!("failed to read the record of function `{key}`: {why}"));
        let damaged = || refused("it is damaged; restore the data folder from a backup");
        let json = python_json::write(value)?;
        let Format { format } = serde_json::from_str(&json).map_err(|_| damaged())?;
        if format > FORMAT {
            return Err(refused(&format!("it has format {format}, and this release knows {FORMAT}; use a newer release")));
        }
        let record: Self = serde_json::from_str(&json).map_err(|_| damaged())?;
        if record.function.id.as_str() != key {
            return Err(damaged());
        }
        record.function.validate()?;
        if let Some(warm) = record.warm() {
            warm.function.validate()?;
            if warm.function.id != record.function.id {
                return Err(damaged());
            }
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use edgeward_model::{Handler, HandlerName};

    use super::*;

    #[test]
    fn a_record_comes_back_from_its_value_as_it_was() {
        let mut function = EdgeFunction::new("f", "ü", Handler::Native(HandlerName::new("h").expect("valid"))).expect("valid");
        function.timeout_seconds = 0.1 + 0.2;
        function.environment = [("TOKEN", "\u{1}\"é😀")].into_iter().collect();
        let warm = WarmRecord { revision: 1, function: function.clone() };
        let deployed = RevisionRecord {
            revision: 2,
            probe: Some(Probe { path: "/health".to_owned() }),
            bake_seconds: 0.5,
            judged_seconds: 60,
            exclusive: false,
            confirmed: false,
            warm: Some(warm),
        };
        let record = FunctionRecord { generation: u64::MAX, function, deployed: Some(Box::new(deployed)) };
        assert_eq!(FunctionRecord::of_value("f", &record.to_value().expect("a value")).expect("a record"), record);
    }

    #[test]
    fn a_record_of_a_release_that_did_not_know_of_confirmation_is_confirmed_when_nothing_is_warm_beside_it() {
        let read = |deployed: &str| {
            let json = format!(
                r#"{{"format": 1, "generation": 1, "id": "f", "name": "f", "handler": {{"native": "h"}}, "deployed": {{"revision": 2{deployed}}}}}"#
            );
            FunctionRecord::of_value("f", &python_json::read(&json).expect("JSON")).expect("a record").is_confirmed()
        };
        assert!(read("") && !read(r#", "confirmed": false"#));
        assert!(!read(r#", "warm": {"revision": 1, "function": {"id": "f", "name": "f", "handler": {"native": "g"}}}"#));
    }

    #[test]
    fn a_damaged_or_newer_record_is_refused_without_its_secrets() {
        let whole = r#""id": "f", "name": "s3cret", "handler": {"native": "h"}"#;
        for (json, why) in [
            (r#"{"format": 2, "what": "s3cret"}"#.to_owned(), "format 2, and this release knows 1; use a newer release"),
            (r#""s3cret""#.to_owned(), "damaged"),
            (format!(r#"{{"generation": 1, {whole}}}"#), "damaged"),
            (format!(r#"{{"format": 1, {whole}}}"#), "damaged"),
            (format!(r#"{{"format": 1, "generation": 1, "environment": "s3cret", {whole}}}"#), "damaged"),
            (format!(r#"{{"format": 1, "generation": 1, {}}}"#, whole.replace("\"f\"", "\"g\"")), "damaged"),
        ] {
            let error = FunctionRecord::of_value("f", &python_json::read(&json).expect("JSON")).expect_err(&json);
            assert!(error.chain().contains(why) && !error.chain().contains("s3cret"), "{json}: {}", error.chain());
            assert!(error.to_string().contains("`f`"), "{error}");
        }
    }
}
