//! What a hub asks its nodes for an experiment.

use std::collections::BTreeMap;

use edgeward_model::{DocumentName, chaos::Fault};
use serde::{Deserialize, Serialize};

/// A question of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    /// Whether the node would inject these.
    Check {
        /// The faults.
        faults: Vec<Fault>,
    },
    /// To inject these for an experiment, and none else of it. What is injected already stays as it is.
    Inject {
        /// Names the run of the experiment.
        run: String,
        /// The faults, each with its name.
        faults: BTreeMap<String, Fault>,
    },
    /// What these documents are.
    Compare {
        /// The documents.
        documents: Vec<DocumentName>,
    },
}

/// What a node says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    /// The checksums of the documents that it has, of those that it was asked for.
    pub(crate) checksums: BTreeMap<DocumentName, String>,
}
