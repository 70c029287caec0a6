//! What is kept of one invocation.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    error::ErrorKind,
    id::{FunctionId, NodeId},
};

/// Record of a single function invocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InvocationRecord {
    /// The function that ran.
    pub function_id: FunctionId,
    /// The node it ran on.
    pub node_id: NodeId,
    /// How long it took, in milliseconds, from its permit to the end of its response.
    pub duration_ms: f64,
    /// Whether it did what was asked.
    pub success: bool,
    /// When it ended.
    pub timestamp: Timestamp,
    /// Why it failed; empty when it did not.
    pub error: String,
    /// The kind of its failure, where the runtime knows it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_kind: Option<ErrorKind>,
    /// Whether it had to wait for a new sandbox, as against a reused one.
    #[serde(default)]
    pub cold_start: bool,
}

impl InvocationRecord {
    /// A record of now, with no error text.
    pub fn new(function_id: FunctionId, node_id: NodeId, duration_ms: f64, success: bool) -> Self {
        Self {
            function_id,
            node_id,
            duration_ms,
            success,
            timestamp: Timestamp::now(),
            error: String::new(),
            error_kind: None,
            cold_start: false,
        }
    }
}
