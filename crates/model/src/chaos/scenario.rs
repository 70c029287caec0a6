//! Ready-made experiments. Each is a file that people can print, keep and change.

use std::{fmt, str::FromStr};

use crate::{
    chaos::experiment::Experiment,
    error::EdgeError,
    id::{DocumentName, FunctionId},
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A node ends and comes back.
    NodeFailure,
    /// Nodes are cut off from the hub.
    Partition,
    /// Calls and messages are late.
    SlowNetwork,
    /// There are more calls than one node can take.
    Overload,
    /// A node has no room to write.
    DiskFull,
    /// A slow node, then one that has too much to do, then one that ends.
    CascadingFailure,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::NodeFailure, Self::Partition, Self::SlowNetwork, Self::Overload, Self::DiskFull, Self::CascadingFailure];

    /// Its name, which is that of its experiment.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodeFailure => "node-failure",
            Self::Partition => "partition",
            Self::SlowNetwork => "slow-network",
            Self::Overload => "overload",
            Self::DiskFull => "disk-full",
            Self::CascadingFailure => "cascading-failure",
        }
    }

    /// What it is about, in a sentence.
    pub fn description(self) -> String {
        let (function, document) = (FunctionId::new("f").expect("valid"), DocumentName::new("d").expect("valid"));
        self.experiment(&function, &document, 3).description
    }

    /// Its file, with `{function}`, `{document}` and `{nodes}` where what it is run with goes.
    pub fn template(self) -> &'static str {
        match self {
            Self::NodeFailure => include_str!("scenarios/node-failure.toml"),
            Self::Partition => include_str!("scenarios/partition.toml"),
            Self::SlowNetwork => include_str!("scenarios/slow-network.toml"),
            Self::Overload => include_str!("scenarios/overload.toml"),
            Self::DiskFull => include_str!("scenarios/disk-full.toml"),
            Self::CascadingFailure => include_str!("scenarios/cascading-failure.toml"),
        }
    }

    /// Whether it compares a document.
    pub fn compares_a_document(self) -> bool {
        self.template().contains("{document}")
    }

    /// The text of its file, for calls of this function, this document, and so many nodes.
    pub fn text(self, function: &FunctionId, document: &DocumentName, nodes: usize) -> String {
        let nodes = nodes.max(1).to_string();
        self.template().replace("{function}", function.as_str()).replace("{document}", document.as_str()).replace("{nodes}", &nodes)
    }

    /// The experiment.
    pub fn experiment(self, function: &FunctionId, document: &DocumentName, nodes: usize) -> Experiment {
        Experiment::read(self.as_str(), &self.text(function, document, nodes)).expect("ids need no quoting, and a test reads each")
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Scenario {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        Self::ALL.into_iter().find(|scenario| scenario.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(32).collect();
            let names: Vec<_> = Self::ALL.iter().map(|scenario| scenario.as_str()).collect();
            EdgeError::invalid(format!("there is no scenario `{}`; there are {}", shown.escape_debug(), names.join(", ")))
        })
    }
}
