//! The record of a function, and its form as a value of a document.
//!
//! No error repeats what was read: a record holds the environment of its function.

use edgeward_model::{EdgeError, EdgeFunction, ErrorKind, Value, python_json};
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
        let record = FunctionRecord { generation: u64::MAX, function };
        assert_eq!(FunctionRecord::of_value("f", &record.to_value().expect("a value")).expect("a record"), record);
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
