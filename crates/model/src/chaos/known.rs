//! What there is that an experiment can name.

use std::collections::BTreeSet;

use crate::{
    chaos::{experiment::Experiment, fault::FaultKind, fault::Side, hypothesis::Expectation},
    deployment::Target,
    error::EdgeError,
    id::{DocumentName, FunctionId, NodeId},
    node::EdgeNode,
};

/// Names that a message lists.
const LISTED_MAX: usize = 10;

/// What there is.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Functions that some node runs.
    pub functions: BTreeSet<FunctionId>,
    /// Nodes.
    pub nodes: Vec<EdgeNode>,
    /// Documents.
    pub documents: BTreeSet<DocumentName>,
    /// Whether there is a hub that nodes could be cut off from.
    pub has_hub: bool,
}

impl Known {
    /// Refuses an experiment that names what there is not, or hits nothing, and says what.
    pub fn check(&self, experiment: &Experiment) -> Result<(), EdgeError> {
        let name = &experiment.name;
        let refused = |place: &str, why: String| EdgeError::invalid(format!("experiment `{name}`, {place}: {why}"));
        for (index, planned) in experiment.faults.iter().enumerate() {
            let place = format!("fault {}", index + 1);
            let fault = &planned.fault;
            if let Some(function) = &fault.function {
                self.function(function).map_err(|why| refused(&place, why))?;
            }
            self.target(&fault.nodes).map_err(|why| refused(&place, why))?;
            if let FaultKind::Partition { between } = &fault.kind {
                between.iter().try_for_each(|side| self.side(side)).map_err(|why| refused(&place, why))?;
            }
        }
        for (index, load) in experiment.loads.iter().enumerate() {
            self.function(&load.function).map_err(|why| refused(&format!("load {}", index + 1), why))?;
        }
        let steady = experiment.steady_state.iter().map(|hypothesis| &hypothesis.expectation).enumerate();
        let aborts = experiment.abort.iter().map(|condition| &condition.expectation).enumerate();
        let steady = steady.map(|(index, expectation)| (format!("steady_state {}", index + 1), expectation));
        for (place, expectation) in steady.chain(aborts.map(|(index, expectation)| (format!("abort {}", index + 1), expectation))) {
            self.expectation(expectation).map_err(|why| refused(&place, why))?;
        }
        Ok(())
    }

    fn expectation(&self, expectation: &Expectation) -> Result<(), String> {
        match expectation {
            // One that a load calls.
            Expectation::SuccessRate { .. } | Expectation::P95 { .. } => Ok(()),
            Expectation::NodesOnline { at_least } => {
                let count = self.nodes.len();
                if usize::try_from(*at_least).is_ok_and(|least| least <= count) {
                    return Ok(());
                }
                Err(format!("{at_least} nodes cannot be online: there are {count}"))
            }
            Expectation::Converged { document } if self.documents.contains(document) => Ok(()),
            Expectation::Converged { document } => {
                Err(none("document", document.as_str(), self.documents.iter().map(DocumentName::as_str)))
            }
        }
    }

    fn function(&self, function: &FunctionId) -> Result<(), String> {
        if self.functions.contains(function) {
            return Ok(());
        }
        Err(none("function", function.as_str(), self.functions.iter().map(FunctionId::as_str)))
    }

    fn side(&self, side: &Side) -> Result<(), String> {
        match side {
            Side::Hub if self.has_hub => Ok(()),
            Side::Hub => Err("there is no hub here that anything could be cut off from".to_owned()),
            Side::Nodes(nodes) => self.target(nodes),
        }
    }

    fn target(&self, target: &Target) -> Result<(), String> {
        let ids = || self.nodes.iter().map(|node| node.id.as_str());
        match target {
            Target::Nodes(named) => {
                let is_known = |id: &&NodeId| self.nodes.iter().any(|node| node.id == **id);
                named.iter().find(|id| !is_known(id)).map_or(Ok(()), |id| Err(none("node", id.as_str(), ids())))
            }
            Target::Matching(selector) | Target::Count { among: selector, .. } | Target::One { among: selector } => {
                if self.nodes.iter().any(|node| selector.matches(node)) {
                    return Ok(());
                }
                Err(format!("no node meets `{selector}`"))
            }
        }
    }
}

/// That there is nothing of this name, and what there is.
fn none<'a>(what: &str, name: &str, there: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<_> = there.map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(LISTED_MAX);
    names.truncate(LISTED_MAX);
    let listed = match (names.len(), more) {
        (0, _) => format!("there is no {what} at all"),
        (_, 0) => format!("there are {}", names.join(", ")),
        _ => format!("there are {} and {more} more", names.join(", ")),
    };
    format!("there is no {what} `{name}`; {listed}")
}
