//! How many calls of a function may be under way, so that one slow node or function does not take what the others need.

use serde::{Deserialize, Serialize};

use super::within_whole;
use crate::{
    error::EdgeError,
    limits::{CALLS_PER_FUNCTION_DEFAULT, CALLS_PER_FUNCTION_MAX, CALLS_PER_NODE_DEFAULT},
};

/// How many calls of a function may be under way at once, from one router. More are told "overloaded".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Bulkhead {
    /// To one node; 384 when it is not said. Past it a call goes to another node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_node_max: Option<u32>,
    /// To all nodes; 4096 when it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_max: Option<u32>,
}

crate::map_only!(Bulkhead);
crate::written_as_derived!(Bulkhead);

impl Bulkhead {
    /// Calls to one node.
    pub fn calls_per_node_max(&self) -> u32 {
        self.calls_per_node_max.unwrap_or(CALLS_PER_NODE_DEFAULT)
    }

    /// Calls to all nodes.
    pub fn calls_max(&self) -> u32 {
        self.calls_max.unwrap_or(CALLS_PER_FUNCTION_DEFAULT)
    }

    pub(super) fn validate(&self) -> Result<(), EdgeError> {
        within_whole("calls_per_node_max", self.calls_per_node_max, 1..=CALLS_PER_FUNCTION_MAX)?;
        within_whole("calls_max", self.calls_max, 1..=CALLS_PER_FUNCTION_MAX)
    }
}
