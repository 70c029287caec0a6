//! Which nodes something is for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    error::EdgeError,
    id::NodeId,
    limits::{CAPABILITIES_MAX, LABELS_MAX, NODES_MAX, TARGET_NODES_MAX},
    node::{EdgeNode, check_label},
};

/// Words that say something else than a label in a target.
const ALL: &str = "all";
const NODE: &str = "node";
const CAPABILITY: &str = "capability";
const COUNT: &str = "count";
const ONE: &str = "one";

/// What a node must have: every label with this value, and every capability. As text, parts with commas between them:
/// `site=berlin,capability=gpu`, or `all` for one that every node meets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Labels with their values.
    pub labels: BTreeMap<String, String>,
    /// Capabilities.
    pub capabilities: BTreeSet<String>,
}

impl Selector {
    /// Whether a node meets it.
    pub fn matches(&self, node: &EdgeNode) -> bool {
        self.labels.iter().all(|(name, value)| node.labels.get(name) == Some(value))
            && self.capabilities.iter().all(|capability| node.capabilities.contains(capability))
    }

    /// Checks that its text says the same.
    pub fn validate(&self) -> Result<(), EdgeError> {
        says_the_same(self)
    }

    /// Whether every node meets it.
    pub fn is_all(&self) -> bool {
        self.labels.is_empty() && self.capabilities.is_empty()
    }
}

/// Which nodes a deployment is for. As text, parts with commas between them: `all`, `node=edge-01,node=edge-02`, `site=berlin,capability=gpu`,
/// with a number of nodes that are chosen, `count=2,site=berlin`, or `one,site=berlin` for one alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// These nodes.
    Nodes(BTreeSet<NodeId>),
    /// Every node that meets the selector, also those that come later.
    Matching(Selector),
    /// So many of the nodes that meet the selector, chosen by the hub.
    Count {
        /// How many.
        count: u32,
        /// Of which nodes.
        among: Selector,
    },
    /// One of the nodes that meet the selector, chosen by the hub. It runs the function under a lease: at no time do two.
    One {
        /// Of which nodes.
        among: Selector,
    },
}

impl Target {
    /// Every node.
    pub fn all() -> Self {
        Self::Matching(Selector::default())
    }

    /// How many nodes the hub is to choose, and of which; none where the target says which they are.
    pub fn chosen(&self) -> Option<(usize, &Selector)> {
        match self {
            Self::Nodes(_) | Self::Matching(_) => None,
            Self::Count { count, among } => Some((usize::try_from(*count).unwrap_or(usize::MAX), among)),
            Self::One { among } => Some((1, among)),
        }
    }

    /// Whether no two nodes may run it at once.
    pub fn is_exclusive(&self) -> bool {
        matches!(self, Self::One { .. })
    }

    /// Checks that its text says the same.
    pub fn validate(&self) -> Result<(), EdgeError> {
        says_the_same(self)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str(ALL);
        }
        let labels = self.labels.iter().map(|(name, value)| format!("{name}={value}"));
        let capabilities = self.capabilities.iter().map(|capability| format!("{CAPABILITY}={capability}"));
        f.write_str(&labels.chain(capabilities).collect::<Vec<_>>().join(","))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => f.write_str(&nodes.iter().map(|node| format!("{NODE}={node}")).collect::<Vec<_>>().join(",")),
            Self::Matching(selector) => selector.fmt(f),
            Self::Count { count, among } if among.is_all() => write!(f, "{COUNT}={count}"),
            Self::Count { count, among } => write!(f, "{COUNT}={count},{among}"),
            Self::One { among } if among.is_all() => f.write_str(ONE),
            Self::One { among } => write!(f, "{ONE},{among}"),
        }
    }
}

/// What the parts of a text say, together.
#[derive(Default)]
struct Parts {
    nodes: BTreeSet<NodeId>,
    count: Option<u32>,
    among: Selector,
    all: bool,
    one: bool,
}

impl Parts {
    fn read(text: &str) -> Result<Self, EdgeError> {
        let mut parts = Self::default();
        for part in text.split(',') {
            parts.add(part)?;
        }
        let Self { nodes, count, among, all, one } = &parts;
        let is_chosen = count.is_some() || *one;
        if count.is_some() && *one {
            return Err(EdgeError::invalid(format!("`{ONE}` and `{COUNT}` cannot both be; `{ONE}` is a single copy under a lease")));
        }
        let kinds = [!nodes.is_empty(), !among.is_all() || is_chosen, *all && !is_chosen];
        if kinds.into_iter().filter(|is| *is).count() > 1 || (*all && !among.is_all()) {
            return Err(EdgeError::invalid(format!(
                "`{}` mixes what cannot go together: `{ALL}`, named nodes, and labels or capabilities each stand alone",
                shown(text)
            )));
        }
        if nodes.len() > TARGET_NODES_MAX {
            return Err(EdgeError::invalid(format!("a target names at most {TARGET_NODES_MAX} nodes, not {}; use a label", nodes.len())));
        }
        if among.labels.len() > LABELS_MAX || among.capabilities.len() > CAPABILITIES_MAX {
            return Err(EdgeError::invalid(format!("a selector has at most {LABELS_MAX} labels and {CAPABILITIES_MAX} capabilities")));
        }
        Ok(parts)
    }

    fn add(&mut self, part: &str) -> Result<(), EdgeError> {
        match part {
            ALL => self.all = true,
            ONE => self.one = true,
            _ => return self.add_pair(part),
        }
        Ok(())
    }

    fn add_pair(&mut self, part: &str) -> Result<(), EdgeError> {
        let Some((name, value)) = part.split_once('=') else {
            return Err(EdgeError::invalid(format!(
                "`{}` says not which nodes; write `all`, `node=ID`, `count=N`, `one`, `capability=NAME` or a label as `NAME=VALUE`",
                shown(part)
            )));
        };
        match name {
            NODE => drop(self.nodes.insert(NodeId::new(value)?)),
            COUNT => {
                let count = value.parse().ok().filter(|count| (1..=NODES_MAX).contains(&usize::try_from(*count).unwrap_or(usize::MAX)));
                let count = count.ok_or_else(|| {
                    EdgeError::invalid(format!("`{COUNT}={}` is no number of nodes; the most is {NODES_MAX}", shown(value)))
                })?;
                if self.count.replace(count).is_some() {
                    return Err(EdgeError::invalid(format!("`{COUNT}` is said twice")));
                }
            }
            CAPABILITY if value.is_empty() => return Err(EdgeError::invalid("a capability has a name".to_owned())),
            CAPABILITY => drop(self.among.capabilities.insert(value.to_owned())),
            label => {
                check_label(label, value)?;
                if self.among.labels.insert(label.to_owned(), value.to_owned()).is_some_and(|other| other != value) {
                    return Err(EdgeError::invalid(format!("label `{}` cannot have two values at once", shown(label))));
                }
            }
        }
        Ok(())
    }
}

/// Checks that something comes back from its text, as that is what is kept of it.
fn says_the_same<T: fmt::Display + FromStr<Err = EdgeError> + PartialEq>(given: &T) -> Result<(), EdgeError> {
    let text = given.to_string();
    if text.parse::<T>()? == *given {
        return Ok(());
    }
    Err(EdgeError::invalid(format!(
        "`{}` would be read as something else: a name or value in it holds a comma or a word of its own",
        shown(&text)
    )))
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect::<String>().escape_debug().to_string()
}

impl FromStr for Selector {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let Parts { nodes, count, among, one, .. } = Parts::read(text)?;
        if !nodes.is_empty() || count.is_some() || one {
            return Err(EdgeError::invalid(format!("`{}` takes only labels and capabilities here", shown(text))));
        }
        Ok(among)
    }
}

impl FromStr for Target {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let Parts { nodes, count, among, one, .. } = Parts::read(text)?;
        Ok(match count {
            _ if one => Self::One { among },
            Some(count) => Self::Count { count, among },
            None if nodes.is_empty() => Self::Matching(among),
            None => Self::Nodes(nodes),
        })
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(Selector);
as_text!(Target);

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().expect("valid")
    }

    #[test]
    fn a_target_comes_back_from_its_text() {
        for text in [
            "all",
            "node=a,node=b",
            "site=berlin",
            "site=berlin,capability=gpu",
            "capability=gpu",
            "count=3",
            "count=2,site=berlin,capability=gpu",
            "one",
            "one,site=berlin",
        ] {
            assert_eq!(target(text).to_string(), text);
            let json = serde_json::to_string(&target(text)).expect("JSON");
            assert_eq!(serde_json::from_str::<Target>(&json).expect("valid"), target(text));
        }
        assert_eq!(target("count=3,all"), target("count=3"));
        assert_eq!(target("one,all"), target("one"));
        assert_eq!(target("capability=gpu,site=berlin"), target("site=berlin,capability=gpu"));
    }

    #[test]
    fn a_target_that_says_nothing_or_two_things_is_refused() {
        for text in [
            "",
            "berlin",
            "all,node=a",
            "all,site=berlin",
            "node=a,site=berlin",
            "node=a,count=2",
            "node=",
            "node=a/b",
            "count=0",
            "count=1,count=2",
            "count=99999",
            "one,count=1",
            "one,node=a",
            "site=a,site=b",
            "capability=",
            "site=a,",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        assert!("count=2".parse::<Selector>().is_err() && "one".parse::<Selector>().is_err() && "node=a".parse::<Selector>().is_err());
    }

    #[test]
    fn what_would_not_come_back_from_its_text_is_not_valid() {
        let among = |labels: &[(&str, &str)], capabilities: &[&str]| Selector {
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            capabilities: capabilities.iter().map(|&capability| capability.to_owned()).collect(),
        };
        for refused in [
            Target::Nodes(BTreeSet::new()),
            Target::Count { count: 0, among: Selector::default() },
            Target::Count { count: 99_999, among: Selector::default() },
            Target::Matching(among(&[], &["gpu,camera"])),
            Target::Matching(among(&[], &["gpu,capability=camera"])),
            Target::Matching(among(&[], &[""])),
            Target::Matching(among(&[("node", "a")], &[])),
            Target::Matching(among(&[("site", "a,rack=1")], &[])),
            Target::Count { count: 1, among: among(&[("count", "2")], &[]) },
        ] {
            assert!(refused.validate().is_err(), "{refused:?}");
        }
        for text in ["all", "node=a,node=b", "count=2,site=berlin,capability=gpu"] {
            target(text).validate().expect("it was read");
        }
    }

    #[test]
    fn a_selector_wants_every_label_and_capability() {
        let mut node = EdgeNode::new("a", "a").expect("valid");
        node.labels = [("site".to_owned(), "berlin".to_owned())].into();
        node.capabilities = vec!["gpu".to_owned(), "camera".to_owned()];
        let matches = |text: &str| text.parse::<Selector>().expect("valid").matches(&node);
        assert!(matches("all") && matches("site=berlin") && matches("site=berlin,capability=gpu,capability=camera"));
        assert!(!matches("site=oslo") && !matches("site=berlin,capability=arm") && !matches("rack=1"));
    }
}
