//! Where a message goes. A subject is built from checked parts, so that no id can reach another member's subjects.
//!
//! As text it is `rpc.hub.NODE.SERVICE`, from a node to the hub, or `rpc.node.NODE.SERVICE`, from the hub to a node. A node sends only
//! the first kind and only under its own id, and receives only the second kind for its own id; its credentials say so.

use std::fmt;

use edgeward_model::{EdgeError, NodeId};

/// Longest name of a service or lease, in bytes.
const NAME_BYTES_MAX: usize = 32;
/// Stands for the dot of a node's id, which would divide a subject. No id contains it.
const DOT: char = '=';
/// What a pattern says for every node.
const ANY: &str = "*";

/// Names a service or a lease: 1 to 32 lower-case letters, digits and `-`. Written in the program only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(&'static str);

impl Name {
    /// The name of this text.
    ///
    /// # Panics
    /// When the text is no name. In a constant that is an error of compilation.
    pub const fn new(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= NAME_BYTES_MAX, "a name has 1 to 32 bytes");
        let mut index = 0;
        while index < bytes.len() {
            let byte = bytes[index];
            assert!(byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-', "a name has lower-case letters, digits and `-`");
            index += 1;
        }
        Self(text)
    }

    /// The name as text.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Who is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From a node to the hub; the subject names the node that sends.
    ToHub,
    /// From the hub to a node; the subject names the node that receives.
    ToNode,
}

impl Direction {
    fn prefix(self) -> &'static str {
        match self {
            Self::ToHub => "rpc.hub",
            Self::ToNode => "rpc.node",
        }
    }
}

/// Where one message goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// Who is addressed.
    pub direction: Direction,
    /// The node that sends or receives.
    pub node: NodeId,
    /// What for.
    pub service: Name,
}

impl Subject {
    /// From this node to the hub.
    pub fn to_hub(node: NodeId, service: Name) -> Self {
        Self { direction: Direction::ToHub, node, service }
    }

    /// From the hub to this node.
    pub fn to_node(node: NodeId, service: Name) -> Self {
        Self { direction: Direction::ToNode, node, service }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.direction.prefix(), node_token(&self.node), self.service)
    }
}

/// What is served or subscribed to: one service, of one node or of every node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subjects {
    /// Who is addressed.
    pub direction: Direction,
    /// The node, or every one.
    pub node: Option<NodeId>,
    /// What for.
    pub service: Name,
}

impl Subjects {
    /// What any node sends to this service of the hub.
    pub fn to_hub(service: Name) -> Self {
        Self { direction: Direction::ToHub, node: None, service }
    }

    /// What the hub sends to this service of this node.
    pub fn to_node(node: NodeId, service: Name) -> Self {
        Self { direction: Direction::ToNode, node: Some(node), service }
    }

    /// The subject that is meant by one of them as text; none when the text is not one of them.
    pub(crate) fn parse(&self, text: &str) -> Option<Subject> {
        let rest = text.strip_prefix(self.direction.prefix())?.strip_prefix('.')?;
        let (token, service) = rest.split_once('.')?;
        let node = node_of_token(token).ok()?;
        let is_ours = service == self.service.as_str() && self.node.as_ref().is_none_or(|only| *only == node);
        is_ours.then_some(Subject { direction: self.direction, node, service: self.service })
    }
}

impl From<&Subject> for Subjects {
    fn from(subject: &Subject) -> Self {
        Self { direction: subject.direction, node: Some(subject.node.clone()), service: subject.service }
    }
}

impl fmt::Display for Subjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.as_ref().map_or_else(|| ANY.to_owned(), node_token);
        write!(f, "{}.{node}.{}", self.direction.prefix(), self.service)
    }
}

/// The id of a node as one part of a subject.
pub(crate) fn node_token(node: &NodeId) -> String {
    node.as_str().replace('.', &DOT.to_string())
}

pub(crate) fn node_of_token(token: &str) -> Result<NodeId, EdgeError> {
    NodeId::new(token.replace(DOT, "."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SYNC: Name = Name::new("sync");

    fn node(id: &str) -> NodeId {
        NodeId::new(id).expect(id)
    }

    #[test]
    fn a_subject_is_four_parts_whatever_the_id_holds() {
        assert_eq!(Subject::to_hub(node("edge-1"), SYNC).to_string(), "rpc.hub.edge-1.sync");
        assert_eq!(Subject::to_node(node("a.b"), SYNC).to_string(), "rpc.node.a=b.sync");
        assert_eq!(Subjects::to_hub(SYNC).to_string(), "rpc.hub.*.sync");
        assert_eq!(Subjects::to_node(node("a.b"), SYNC).to_string(), "rpc.node.a=b.sync");
    }

    #[test]
    fn what_is_not_one_of_the_subjects_is_not_read_as_one() {
        let any = Subjects::to_hub(SYNC);
        assert_eq!(any.parse("rpc.hub.a=b.sync"), Some(Subject::to_hub(node("a.b"), SYNC)));
        for text in
            ["rpc.node.a.sync", "rpc.hub.a.syncs", "rpc.hub.a.b.sync", "rpc.hub..sync", "rpc.hub.*.sync", "rpc.hub.>", "rpc.hubs.a.sync"]
        {
            assert_eq!(any.parse(text), None, "{text}");
        }
        assert_eq!(Subjects::to_node(node("a"), SYNC).parse("rpc.node.b.sync"), None);
    }

    proptest! {
        #[test]
        fn any_id_comes_back_and_never_divides_a_subject_or_matches_more(id in "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}", other in "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}") {
            let subject = Subject::to_node(node(&id), SYNC);
            let text = subject.to_string();
            prop_assert_eq!(text.split('.').count(), 4);
            prop_assert!(!text.contains(['*', '>', ' ']));
            prop_assert_eq!(Subjects::from(&subject).parse(&text), Some(subject.clone()));
            prop_assert_eq!(Subject::to_node(node(&other), SYNC).to_string() == text, other == id);
        }
    }
}
