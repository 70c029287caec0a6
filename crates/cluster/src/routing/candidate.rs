//! A node that could take the calls of a function, and how near it is.

use edgeward_model::{EdgeError, EdgeNode, EdgeNodeStatus, Locality, NodeId, limits::WEIGHT_MAX};
use serde::{Deserialize, Serialize};

use crate::placement::SITE;

/// The label with the weight of a node, 0 to [`WEIGHT_MAX`]; 1 when it has none.
pub const WEIGHT: &str = "weight";

/// A node that has a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Where it stands, by its label.
    pub site: Option<String>,
    /// Its health.
    pub status: EdgeNodeStatus,
    /// Whether it is to be left.
    pub is_draining: bool,
    /// For [`edgeward_model::Balance::Weighted`].
    pub weight: u32,
    /// Whether it is this process: it is there whatever is said of it, and a backbone is not needed.
    pub is_local: bool,
}

impl Candidate {
    /// A far node. A weight that is none counts as 1.
    pub fn far(node: &EdgeNode, is_draining: bool) -> Self {
        let weight = node.labels.get(WEIGHT).and_then(|text| text.parse().ok()).filter(|weight| *weight <= WEIGHT_MAX);
        Self {
            node: node.id.clone(),
            site: node.labels.get(SITE).cloned(),
            status: node.status,
            is_draining,
            weight: weight.unwrap_or(1),
            is_local: false,
        }
    }

    /// The node of this process.
    pub fn local(node: &EdgeNode, is_draining: bool) -> Self {
        Self { is_local: true, ..Self::far(node, is_draining) }
    }

    /// How near it is to who stands at a site.
    pub(super) fn nearness(&self, site: Option<&str>) -> Nearness {
        match (self.is_local, site) {
            (true, _) => Nearness::Here,
            (false, Some(site)) if self.site.as_deref() == Some(site) => Nearness::SameSite,
            (false, _) => Nearness::Elsewhere,
        }
    }

    /// How early it is asked, less first; none when it is not asked at all. A node that is not well comes after those that are, however far
    /// they are, and one that is to be left comes last.
    pub(super) fn rank(&self, nearness: Nearness, locality: Locality) -> Option<(u8, Nearness)> {
        let status = if self.is_local { EdgeNodeStatus::Online } else { self.status };
        let health = match status {
            EdgeNodeStatus::Offline => return None,
            _ if self.is_draining => 2,
            EdgeNodeStatus::Online => 0,
            EdgeNodeStatus::Degraded | EdgeNodeStatus::Syncing => 1,
        };
        Some((health, if locality == Locality::Any { Nearness::Here } else { nearness }))
    }

    pub(super) fn validate(&self) -> Result<(), EdgeError> {
        if self.weight <= WEIGHT_MAX {
            return Ok(());
        }
        Err(EdgeError::invalid(format!("the weight of node `{}` is {}; it must be from 0 to {WEIGHT_MAX}", self.node, self.weight)))
    }
}

/// How near a node is to who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nearness {
    /// It is this node.
    Here,
    /// It stands at the same site.
    SameSite,
    /// It is elsewhere, or nobody said where.
    Elsewhere,
}

#[cfg(test)]
mod tests {
    use EdgeNodeStatus::{Degraded, Offline, Online, Syncing};

    use super::*;

    #[test]
    fn its_weight_and_site_are_those_of_its_labels() {
        let mut node = EdgeNode::new("a", "a").expect("valid");
        assert_eq!((Candidate::far(&node, false).weight, Candidate::far(&node, false).site), (1, None));
        node.labels = [(WEIGHT.to_owned(), "20".to_owned()), (SITE.to_owned(), "berlin".to_owned())].into();
        let candidate = Candidate::far(&node, false);
        assert_eq!((candidate.weight, candidate.site.as_deref()), (20, Some("berlin")));
        for text in ["", "-1", "many", "1001", "99999999999"] {
            node.labels.insert(WEIGHT.to_owned(), text.to_owned());
            assert_eq!(Candidate::far(&node, false).weight, 1, "{text:?}");
        }
    }

    #[test]
    fn health_comes_before_nearness_and_this_node_is_always_there() {
        let node = EdgeNode::new("a", "a").expect("valid");
        let of = |status, is_draining, is_local, site: &str| {
            let candidate = Candidate { status, is_draining, is_local, site: Some(site.to_owned()), ..Candidate::far(&node, false) };
            candidate.rank(candidate.nearness(Some("berlin")), Locality::Nearest)
        };
        let ranks = [
            of(Offline, false, true, "x"),
            of(Online, false, false, "berlin"),
            of(Online, false, false, "x"),
            of(Degraded, false, false, "berlin"),
            of(Syncing, false, false, "x"),
            of(Online, true, true, "berlin"),
            of(Online, true, false, "x"),
        ];
        assert!(ranks.is_sorted() && ranks.iter().all(Option::is_some), "{ranks:?}");
        assert_eq!(of(Offline, false, false, "berlin"), None);
        assert_eq!(of(Offline, true, false, "berlin"), None);
    }
}
