//! What a node says of itself that outlasts its connection: what it is, and how its functions are. One document for each node, which the
//! node writes and its hub reads.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_cluster::rollout::Sample;
use edgeward_model::{DocumentName, EdgeError, EdgeNode, FunctionId, NodeId};
use edgeward_sync::{Document, Documents, Precondition};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{node::FunctionState, stored};

/// How the names of these documents begin; the id of the node follows.
pub(crate) const PREFIX: &str = "edgeward.reports.";
/// The key of what the node is.
const NODE: &str = "node";
/// How the keys of functions begin.
const FUNCTION: &str = "function/";

/// What a node is, by its own word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Description {
    /// The node; status and heartbeat say nothing here.
    pub(crate) node: EdgeNode,
    /// The release that it runs.
    #[serde(default)]
    pub(crate) release: String,
    /// Why it takes nothing that is assigned anew, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<String>,
}

/// How a function is on its node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionReport {
    /// The generation of the assignment, or of the node's own record.
    pub generation: u64,
    /// How far it is.
    pub state: FunctionState,
    /// Why it failed or what it waits for; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Whether an earlier form of it answers calls as long as it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub former_serves: bool,
    /// How what is to be ready beside it is; none when nothing is to be, or is yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<FunctionState>,
    /// Whether it has served for as long as it must do well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub baked: bool,
    /// Invocations since it serves, while its hub judges it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
    /// Those of what served before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Sample>,
}

impl FunctionReport {
    /// Of a function that serves, whatever its generation.
    pub(crate) fn ready() -> Self {
        Self {
            generation: u64::MAX,
            state: FunctionState::Ready,
            message: String::new(),
            former_serves: false,
            warm: None,
            baked: true,
            sample: None,
            before: None,
        }
    }
}

/// The report of one node. Writing it blocks until it is on the disk.
#[derive(Clone, Debug)]
pub(crate) struct NodeReport {
    document: Document,
}

impl NodeReport {
    pub(crate) fn new(documents: &Documents, node: &NodeId) -> Result<Self, EdgeError> {
        Ok(Self { document: documents.document(DocumentName::new(format!("{PREFIX}{node}"))?) })
    }

    /// What the node is; none before it said so.
    pub(crate) fn description(&self) -> Result<Option<Description>, EdgeError> {
        let Some(value) = self.document.get(NODE)? else { return Ok(None) };
        let mut description: Description = stored::of_value(&value, || format!("`{NODE}` of document `{}`", self.document.name()))?;
        // The document may be of another node's making.
        description.node.validate()?;
        description.node.last_heartbeat = Timestamp::UNIX_EPOCH;
        Ok(Some(description))
    }

    /// How its functions are, by id.
    pub(crate) fn functions(&self) -> Result<BTreeMap<FunctionId, FunctionReport>, EdgeError> {
        let Some(state) = self.document.view()? else { return Ok(BTreeMap::new()) };
        let functions = state.data.0.iter().filter_map(|(key, value)| Some((key.strip_prefix(FUNCTION)?, value)));
        functions
            .map(|(id, value)| Ok((FunctionId::new(id)?, stored::of_value(value, || format!("the report of function `{id}`"))?)))
            .collect()
    }

    /// Says what the node is and how its functions are. What is said already is not written again.
    pub(crate) fn write(&self, description: &Description, functions: &BTreeMap<FunctionId, FunctionReport>) -> Result<(), EdgeError> {
        let mut wanted = BTreeMap::from([(NODE.to_owned(), stored::to_value(description)?)]);
        for (id, report) in functions {
            wanted.insert(format!("{FUNCTION}{id}"), stored::to_value(report)?);
        }
        let known = self.document.view()?.map(|state| state.data.0).unwrap_or_default();
        let gone: BTreeSet<_> = known.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        wanted.retain(|key, value| known.get(key) != Some(value));
        if wanted.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let edited = self.document.edit(Precondition::None, move |draft| {
            wanted.iter().try_for_each(|(key, value)| draft.set(key, value))?;
            gone.iter().try_for_each(|key| draft.remove(key))
        });
        edited.map(drop)
    }
}
