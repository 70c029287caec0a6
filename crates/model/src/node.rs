//! An edge node: a physical or virtual machine that runs functions.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::EdgeError,
    id::NodeId,
    limits::{CAPABILITIES_MAX, LABEL_NAME_BYTES_MAX, LABELS_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX},
};

/// Health of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeNodeStatus {
    /// Reports and serves.
    #[default]
    Online,
    /// Has not reported for too long.
    Offline,
    /// Reports, but something is wrong with it.
    Degraded,
    /// Catches up after it was away.
    Syncing,
}

impl EdgeNodeStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Online, Self::Degraded, Self::Syncing, Self::Offline];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Degraded => "degraded",
            Self::Syncing => "syncing",
        }
    }
}

impl fmt::Display for EdgeNodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EdgeNodeStatus {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| EdgeError::invalid(format!("`{}` is no status: online, degraded, syncing or offline", text.escape_debug())))
    }
}

/// A physical or virtual edge node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EdgeNode {
    /// Names the node.
    pub id: NodeId,
    /// For people.
    pub name: String,
    /// Where it stands, for people; empty when not said.
    #[serde(default)]
    pub location: String,
    /// Health; ONLINE at first.
    #[serde(default)]
    pub status: EdgeNodeStatus,
    /// What it can do, such as `gpu` or `camera`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// By what it is chosen, such as `site` = `berlin`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Anything else that its owner wants to keep with it.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// When it last reported; at first, when it was made.
    pub last_heartbeat: Timestamp,
}

impl EdgeNode {
    /// A node that is online since now, with no location, capabilities, labels or metadata.
    pub fn new(id: impl AsRef<str>, name: impl Into<String>) -> Result<Self, EdgeError> {
        let node = Self {
            id: NodeId::new(id)?,
            name: name.into(),
            location: String::new(),
            status: EdgeNodeStatus::Online,
            capabilities: Vec::new(),
            labels: BTreeMap::new(),
            metadata: Map::new(),
            last_heartbeat: Timestamp::now(),
        };
        node.validate()?;
        Ok(node)
    }

    /// Checks every field against its bound.
    pub fn validate(&self) -> Result<(), EdgeError> {
        let id = &self.id;
        let texts = [("name", &self.name), ("location", &self.location)];
        let capabilities = self.capabilities.iter().map(|text| ("capability", text));
        for (what, text) in texts.into_iter().chain(capabilities) {
            check_text(&format!("{what} of node `{id}`"), text)?;
        }
        if self.capabilities.len() > CAPABILITIES_MAX {
            return Err(EdgeError::invalid(format!(
                "node `{id}` has {} capabilities, the most is {CAPABILITIES_MAX}",
                self.capabilities.len()
            )));
        }
        if self.labels.len() > LABELS_MAX {
            return Err(EdgeError::invalid(format!("node `{id}` has {} labels, the most is {LABELS_MAX}", self.labels.len())));
        }
        self.labels.iter().try_for_each(|(name, value)| check_label(name, value))?;
        let metadata_bytes = serde_json::to_vec(&self.metadata).map_or(usize::MAX, |json| json.len());
        if metadata_bytes > METADATA_BYTES_MAX {
            return Err(EdgeError::invalid(format!(
                "metadata of node `{id}` is {metadata_bytes} bytes as JSON, the most is {METADATA_BYTES_MAX}"
            )));
        }
        Ok(())
    }
}

/// Checks the name and the value of a label.
pub fn check_label(name: &str, value: &str) -> Result<(), EdgeError> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    if name.is_empty() || name.len() > LABEL_NAME_BYTES_MAX || !name.bytes().all(is_name) {
        return Err(EdgeError::invalid(format!(
            "the label `{}` is not valid: its name must be 1 to {LABEL_NAME_BYTES_MAX} letters, digits, `-`, `_`, `.` and `/`",
            name.chars().take(LABEL_NAME_BYTES_MAX).collect::<String>().escape_debug()
        )));
    }
    check_text(&format!("value of label `{name}`"), value)
}

/// What a machine has to do, as measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Of all processors together, 0 to 100.
    pub cpu_percent: u8,
    /// Memory in use, in bytes.
    pub memory_used_bytes: u64,
    /// Memory of the machine, in bytes.
    pub memory_total_bytes: u64,
    /// Space in use on the disk of the data folder, in bytes.
    pub disk_used_bytes: u64,
    /// Size of that disk, in bytes.
    pub disk_total_bytes: u64,
    /// Invocations that run.
    pub running: u64,
}

/// Text for people: bounded, and without control characters that could forge a log line.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), EdgeError> {
    if text.len() > NAME_BYTES_MAX {
        return Err(EdgeError::invalid(format!("the {what} is {} bytes long, the most is {NAME_BYTES_MAX}", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(EdgeError::invalid(format!("the {what} holds a control character")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_has_the_defaults_of_the_specification() {
        let node = EdgeNode::new("edge-01", "warehouse-sensor").expect("valid");
        assert_eq!((node.location.as_str(), node.status), ("", EdgeNodeStatus::Online));
        assert!(node.capabilities.is_empty() && node.metadata.is_empty());
    }

    #[test]
    fn a_field_past_its_bound_is_named() {
        let mut node = EdgeNode::new("edge-01", "n").expect("valid");
        node.location = "x\ny".to_owned();
        assert!(node.validate().expect_err("control").to_string().contains("location of node `edge-01`"));
        node.location = "x".repeat(NAME_BYTES_MAX + 1);
        assert!(node.validate().expect_err("long").to_string().contains("the most is 256"));
        node.location.clear();
        node.labels.insert("site name".to_owned(), "berlin".to_owned());
        assert!(node.validate().expect_err("a space").to_string().contains("the label `site name`"));
        node.labels = [("site".to_owned(), "x\n".to_owned())].into();
        assert!(node.validate().expect_err("control").to_string().contains("value of label `site`"));
        node.labels.clear();
        node.capabilities = vec!["gpu".to_owned(); CAPABILITIES_MAX + 1];
        assert!(node.validate().expect_err("many").to_string().contains("65 capabilities"));
    }
}
