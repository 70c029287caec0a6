//! Policies: how the concurrent values of a key become one, and who may write it.
//!
//! They are keys of the document [`POLICIES`], which the hub owns: `document` for all of its keys, `document/prefix` for those
//! that begin so. The longest prefix wins.

use std::{collections::BTreeMap, fmt};

use edgeward_model::{DocumentName, EdgeError, NodeId, Object, Value};
use serde::{Deserialize, Serialize};

/// The document that holds the policies.
pub const POLICIES: &str = "edgeward.policies";
/// Documents whose name begins so stay on their node.
pub const LOCAL_PREFIX: &str = "edgeward.local.";
/// Documents whose name begins so are for all nodes to read, and for hubs alone to write.
pub const FLEET_PREFIX: &str = "edgeward.fleet.";

/// How the concurrent values of a key become one, or who alone may write it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The latest write, by its stamp.
    #[default]
    LastWriterWins,
    /// The write whose chain of sequential overwrites began first.
    FirstWriterWins,
    /// The greatest value since the last delete.
    Max,
    /// The least value since the last delete.
    Min,
    /// The greatest version: the whole document is one register.
    VersionWins,
    /// The sum of what was counted.
    Counter,
    /// Elements; an addition that a removal did not see stays.
    Set,
    /// All values that nobody overwrote.
    KeepBoth,
    /// The hub's value; between others the latest.
    HubWins,
    /// An edge's value; between edges the latest.
    EdgeWins,
    /// Only the hub writes.
    HubOwned,
    /// Only this node writes; where none is named, each node writes the keys that are its id, or begin with its id and `/`.
    EdgeOwned(Option<NodeId>),
}

/// Policies that are written as a name alone.
const NAMES: [(&str, Policy); 12] = [
    ("last_writer_wins", Policy::LastWriterWins),
    ("first_writer_wins", Policy::FirstWriterWins),
    ("max", Policy::Max),
    ("min", Policy::Min),
    ("version_wins", Policy::VersionWins),
    ("counter", Policy::Counter),
    ("set", Policy::Set),
    ("keep_both", Policy::KeepBoth),
    ("hub_wins", Policy::HubWins),
    ("edge_wins", Policy::EdgeWins),
    ("hub_owned", Policy::HubOwned),
    ("edge_owned", Policy::EdgeOwned(None)),
];
/// What stands before the node in a policy that names it.
const OWNED_BY: &str = "edge_owned:";

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EdgeOwned(Some(node)) => write!(f, "{OWNED_BY}{node}"),
            named => f.write_str(NAMES.iter().find(|(_, policy)| policy == named).map_or("", |(name, _)| name)),
        }
    }
}

impl std::str::FromStr for Policy {
    type Err = EdgeError;

    /// Reads a name such as `max`, or `edge_owned:NODE`.
    fn from_str(text: &str) -> Result<Self, EdgeError> {
        if let Some(node) = text.strip_prefix(OWNED_BY) {
            return NodeId::new(node).map(|node| Self::EdgeOwned(Some(node)));
        }
        NAMES.iter().find(|(name, _)| *name == text).map(|(_, policy)| policy.clone()).ok_or_else(|| {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            let shown: String = text.chars().take(64).collect();
            EdgeError::invalid(format!("`{}` is no policy; there are {} and {OWNED_BY}NODE", shown.escape_debug(), names.join(", ")))
        })
    }
}

impl Policy {
    /// Whether a node may write this key. `is_hub` says whether it is the hub itself.
    pub(crate) fn allows(&self, key: &str, node: &NodeId, is_hub: bool) -> bool {
        match self {
            Self::HubOwned => is_hub,
            Self::EdgeOwned(Some(owner)) => owner == node,
            Self::EdgeOwned(None) => key.strip_prefix(node.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            _ => true,
        }
    }

    /// Whether the hub decides between an edge's write and its own.
    pub(crate) fn is_arbitrated(&self) -> bool {
        matches!(self, Self::HubWins | Self::EdgeWins)
    }
}

/// The policies of a replica, as its policy document says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// By document, the policies of key prefixes, longest first.
    by_document: BTreeMap<String, Vec<(String, Policy)>>,
}

impl Policies {
    /// Reads the policy document. What is no policy, as a newer release may know, counts as the default.
    pub fn of(document: &Object) -> Self {
        let mut policies = Self::default();
        for (key, value) in &document.0 {
            let Value::String(text) = value else { continue };
            let Ok(policy) = text.parse() else { continue };
            let (document, prefix) = key.split_once('/').unwrap_or((key, ""));
            policies.by_document.entry(document.to_owned()).or_default().push((prefix.to_owned(), policy));
        }
        for prefixes in policies.by_document.values_mut() {
            prefixes.sort_by(|(left, _), (right, _)| right.len().cmp(&left.len()).then_with(|| left.cmp(right)));
        }
        policies
    }

    /// The policy of a key.
    pub fn policy(&self, document: &str, key: &str) -> Policy {
        if document == POLICIES || document.starts_with(FLEET_PREFIX) {
            return Policy::HubOwned;
        }
        if document.starts_with(LOCAL_PREFIX) {
            return Policy::LastWriterWins;
        }
        let prefixes = self.by_document.get(document).map(Vec::as_slice).unwrap_or_default();
        prefixes.iter().find(|(prefix, _)| key.starts_with(prefix)).map_or(Policy::LastWriterWins, |(_, policy)| policy.clone())
    }

    /// The policies of one document, by key prefix.
    pub fn of_document(&self, document: &str) -> BTreeMap<String, Policy> {
        self.by_document.get(document).into_iter().flatten().cloned().collect()
    }

    /// Whether the whole document is one register.
    pub(crate) fn is_whole(&self, document: &str) -> bool {
        self.policy(document, "") == Policy::VersionWins
    }
}

/// The key of the policy document for a document, or for a prefix of its keys.
pub(crate) fn policy_key(document: &DocumentName, prefix: &str) -> String {
    if prefix.is_empty() { document.to_string() } else { format!("{document}/{prefix}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_as_it_is_shown_and_nothing_else_is_one() {
        for (name, policy) in &NAMES {
            assert_eq!((policy.to_string().as_str(), name.parse::<Policy>().expect("a name")), (*name, policy.clone()));
        }
        let owned = "edge_owned:edge-01".parse::<Policy>().expect("a policy");
        assert_eq!(
            (owned.to_string().as_str(), owned.allows("k", &NodeId::new("edge-01").expect("valid"), false)),
            ("edge_owned:edge-01", true)
        );
        assert!("custom".parse::<Policy>().expect_err("no policy").to_string().contains("last_writer_wins"));
    }

    #[test]
    fn the_longest_prefix_wins() {
        let text = |text: &str| Value::from(text.to_owned());
        let document = Object::from_iter([
            ("a", text("max")),
            ("a/x", text("min")),
            ("a/xy", text("set")),
            ("b/x", text("what?")),
            ("edgeward.local.x", text("hub_owned")),
            ("edgeward.fleet.trusted-keys", text("max")),
        ]);
        let policies = Policies::of(&document);
        for (document, key, policy) in [
            ("a", "y", Policy::Max),
            ("a", "x", Policy::Min),
            ("a", "xyz", Policy::Set),
            ("b", "x", Policy::LastWriterWins),
            (POLICIES, "a", Policy::HubOwned),
            ("edgeward.fleet.trusted-keys", "k", Policy::HubOwned),
            ("edgeward.local.x", "k", Policy::LastWriterWins),
        ] {
            assert_eq!(policies.policy(document, key), policy, "{document} {key}");
        }
    }

    #[test]
    fn each_edge_owns_its_part() {
        let node = NodeId::new("edge-1").expect("valid");
        let own = |key| Policy::EdgeOwned(None).allows(key, &node, false);
        assert!(own("edge-1") && own("edge-1/x") && !own("edge-10") && !own("edge") && !own(""));
    }
}
