//! Our own types as values of documents. Fields that a release does not know are passed over when they are read.

use edgeward_model::{EdgeError, ErrorKind, Value, python_json};
use serde::{Serialize, de::DeserializeOwned};

/// The value of a document that holds this.
pub(crate) fn to_value<T: Serialize>(value: &T) -> Result<Value, EdgeError> {
    let json = serde_json::to_string(value);
    python_json::read(
        &json.map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to write a value of a document").with_source(error))?,
    )
}

/// How many bytes of a document's value this takes.
pub(crate) fn bytes_of<T: Serialize>(value: &T) -> Result<usize, EdgeError> {
    Ok(python_json::write(&to_value(value)?)?.len())
}

/// What a value of a document holds; `what` names it in an error.
pub(crate) fn of_value<T: DeserializeOwned>(value: &Value, what: impl FnOnce() -> String) -> Result<T, EdgeError> {
    let json = python_json::write(value)?;
    serde_json::from_str(&json)
        .map_err(|error| EdgeError::new(ErrorKind::Internal, format!("failed to read {}", what())).with_source(error))
}
