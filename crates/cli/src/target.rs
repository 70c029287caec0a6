//! The options that say on which nodes of a fleet a command acts. A node that is asked itself takes none of them.

use edgeward::{NodeId, Target};

// No doc comment: it would become the description of each command that takes the options.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct OneNode {
    /// On this node of the fleet; a hub is asked
    #[arg(long, value_name = "ID")]
    pub(crate) node: Option<NodeId>,
}

impl OneNode {
    /// What it adds to a path, after `?` or `&`.
    pub(crate) fn query(&self, before: char) -> String {
        self.node.as_ref().map_or_else(String::new, |node| format!("{before}node={node}"))
    }
}

// No doc comment: it would become the description of each command that takes the options.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Targets {
    #[command(flatten)]
    one: OneNode,
    /// On every node of the fleet; a hub is asked
    #[arg(long, conflicts_with = "node")]
    all: bool,
}

impl Targets {
    /// Whether a hub is asked.
    pub(crate) fn is_fleet(&self) -> bool {
        self.all || self.one.node.is_some()
    }

    /// What it adds to a path.
    pub(crate) fn query(&self) -> String {
        if self.all { "?all=true".to_owned() } else { self.one.query('?') }
    }

    /// The same as a target.
    pub(crate) fn target(&self) -> Target {
        self.one.node.clone().map_or_else(Target::all, |node| Target::Nodes([node].into()))
    }

    /// Whom it means, for people.
    pub(crate) fn whom(&self, count: u64) -> String {
        match &self.one.node {
            Some(node) => format!("node {node}"),
            None => format!("{count} nodes"),
        }
    }
}
