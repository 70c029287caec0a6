//! Interest: which documents a replica wants of its hub, by name or by prefix, and which of those it may see.
//!
//! The system's own documents reach everybody, but of them only the keys that are about a document that is wanted.

use std::{collections::BTreeSet, fmt, sync::Arc};

use edgeward_model::{
    DocumentName, EdgeError, NodeId,
    id::RESERVED_PREFIX,
    limits::{DOCUMENTS_MAX, INTEREST_PATTERNS_MAX},
};
use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};

use crate::{
    access::NODE_PREFIXES,
    conflict::CONFLICTS,
    error::reading,
    planted::{self, Bug},
    policy::{LOCAL_PREFIX, POLICIES},
    snapshot::Snapshot,
};

/// Names that a hello tells at most.
const NAMES_MAX: usize = DOCUMENTS_MAX + INTEREST_PATTERNS_MAX;

/// A document that is wanted by its name, or all whose names begin so, written `begin*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Every document: `*`.
    pub fn all() -> Self {
        Self(Arc::from("*"))
    }

    /// The document of this name.
    pub fn named(name: &DocumentName) -> Self {
        Self(Arc::from(name.as_str()))
    }

    /// The document of this name, which is known to be one.
    pub(crate) fn of(name: Arc<str>) -> Self {
        Self(name)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How the names begin, when it is no single name.
    fn prefix(&self) -> Option<&str> {
        self.0.strip_suffix('*')
    }

    /// Whether it means this document.
    pub fn matches(&self, document: &str) -> bool {
        self.prefix().map_or(*self.0 == *document, |prefix| document.starts_with(prefix))
    }

    /// Whether it means all that another means.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        match (self.prefix(), other.prefix()) {
            (Some(prefix), _) => other.0.starts_with(prefix),
            (None, Some(_)) => false,
            (None, None) => self == other,
        }
    }
}

impl std::str::FromStr for Pattern {
    type Err = EdgeError;

    /// Reads a document name, or the begin of one and `*`.
    fn from_str(text: &str) -> Result<Self, EdgeError> {
        match text.strip_suffix('*') {
            Some("") => {}
            Some(prefix) => drop(DocumentName::new(prefix)?),
            None => drop(DocumentName::new(text)?),
        }
        Ok(Self(Arc::from(text)))
    }
}

impl TryFrom<String> for Pattern {
    type Error = EdgeError;
    fn try_from(text: String) -> Result<Self, EdgeError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a document is one of the two that hold what the system says of others.
pub(crate) fn is_system(document: &str) -> bool {
    document == POLICIES || document == CONFLICTS
}

/// Whether a document is one that the product keeps for itself: its changes are confirmed as they are made.
pub(crate) fn is_own(document: &str) -> bool {
    document.starts_with(RESERVED_PREFIX) && !is_system(document)
}

/// Which document a key is about.
pub(crate) fn subject<'a>(document: &'a str, key: &'a str) -> &'a str {
    if is_system(document) { key.split_once('/').map_or(key, |(subject, _)| subject) } else { document }
}

/// What a replica wants: what it declares, and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    names: BTreeSet<Pattern>,
    prefixes: Vec<Pattern>,
}

impl Interest {
    /// The interest in what these mean.
    ///
    /// # Errors
    /// [`edgeward_model::ErrorKind::InvalidInput`] when they are more than a hello tells.
    pub(crate) fn new(patterns: impl IntoIterator<Item = Pattern>) -> Result<Self, EdgeError> {
        let (prefixes, names): (BTreeSet<_>, BTreeSet<_>) = patterns.into_iter().partition(|pattern| pattern.prefix().is_some());
        let mut interest = Self { names, prefixes: prefixes.into_iter().collect() };
        let prefixes = &interest.prefixes;
        interest.names.retain(|name| !prefixes.iter().any(|prefix| prefix.includes(name)));
        if interest.names.len() > NAMES_MAX || interest.prefixes.len() > INTEREST_PATTERNS_MAX {
            let why = format!("a replica may want {NAMES_MAX} documents by name and {INTEREST_PATTERNS_MAX} by prefix");
            return Err(EdgeError::invalid(format!("{why}, not {} and {}", interest.names.len(), interest.prefixes.len())));
        }
        Ok(interest)
    }

    pub(crate) fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.prefixes.iter().chain(&self.names)
    }

    /// Names this interest among others of the same replica.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for pattern in self.patterns() {
            hasher.update(pattern.as_str().as_bytes()).update(b"\n");
        }
        u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes"))
    }

    /// Whether a document is wanted for itself.
    pub(crate) fn wants(&self, document: &str) -> bool {
        let is_meant = || self.names.contains(document) || self.prefixes.iter().any(|prefix| prefix.matches(document));
        !document.starts_with(LOCAL_PREFIX) && !is_system(document) && is_meant()
    }
}

impl std::borrow::Borrow<str> for Pattern {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What an exchange is about: what one side wants, as far as it may see it.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) interest: &'a Interest,
    pub(crate) may_see: &'a dyn Fn(&str) -> bool,
    /// The node that asks, of whose like each has documents that no other sees; none for one that sees those of all.
    pub(crate) node: Option<&'a NodeId>,
}

impl Scope<'_> {
    /// Whether a document belongs to it, with all or some of its keys.
    pub(crate) fn has(&self, document: &str) -> bool {
        is_system(document) || (self.interest.wants(document) && (self.may_see)(document))
    }

    /// Whether the rows of a key belong to it.
    pub(crate) fn sees(&self, document: &str, key: &str) -> bool {
        if document == POLICIES && planted::has(Bug::PolicyNotReplicated) {
            return false;
        }
        let subject = subject(document, key);
        // The empty key of a document of the system is that of its floor.
        is_system(document) && (key.is_empty() || is_system(subject)) || (self.interest.wants(subject) && (self.may_see)(subject))
    }

    /// Whether every document belongs to it: then it is not worth while to look them up.
    pub(crate) fn is_everything(&self) -> bool {
        self.node.is_none() && self.interest.prefixes.first().is_some_and(|first| *first == Pattern::all())
    }

    /// The documents of a store that belong to it, by name. Names are looked up, prefixes are ranges of names: what others hold is not read, nor are
    /// the documents of other nodes, which are most of those of a large fleet.
    pub(crate) fn documents(&self, snapshot: &Snapshot<'_>) -> Result<Vec<(i64, Arc<str>)>, EdgeError> {
        let mut found = Vec::new();
        let own: Vec<_> = self.node.iter().flat_map(|node| NODE_PREFIXES.map(|prefix| format!("{prefix}{node}"))).collect();
        let names = self.interest.names.iter().map(Pattern::as_str).chain([POLICIES, CONFLICTS]).chain(own.iter().map(String::as_str));
        let mut id_of = snapshot.prepare("SELECT id FROM documents WHERE name = ?1")?;
        for name in names {
            let id: Option<i64> = id_of.query_row([name], |row| row.get(0)).optional().map_err(reading)?;
            found.extend(id.map(|id| (id, Arc::from(name))));
        }
        let mut ranged = snapshot.prepare("SELECT id, name FROM documents WHERE name >= ?1 AND name < ?2 ORDER BY name")?;
        for (from, to) in self.interest.prefixes.iter().filter_map(Pattern::prefix).flat_map(|prefix| self.ranges(prefix)) {
            let rows = ranged.query_map([from, to], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)));
            for row in rows.map_err(reading)? {
                let (id, name) = row.map_err(reading)?;
                found.push((id, Arc::from(name)));
            }
        }
        found.retain(|(_, name)| self.has(name));
        found.sort_by(|(_, left): &(i64, Arc<str>), (_, right)| left.cmp(right));
        found.dedup();
        Ok(found)
    }

    /// The ranges of names that begin with a prefix, without those of the documents that each node has for itself.
    fn ranges(&self, prefix: &str) -> Vec<(String, String)> {
        // Names are ASCII, so nothing that begins so comes after this.
        let end = |prefix: &str| format!("{prefix}\u{7f}");
        let mut ranges = vec![(prefix.to_owned(), end(prefix))];
        for apart in NODE_PREFIXES.iter().filter(|_| self.node.is_some()) {
            let without = |(from, to): (String, String)| [(from.clone(), to.clone().min((*apart).to_owned())), (from.max(end(apart)), to)];
            ranges = ranges.into_iter().flat_map(without).filter(|(from, to)| from < to).collect();
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect(text)
    }

    fn interest(texts: &[&str]) -> Interest {
        Interest::new(texts.iter().map(|text| pattern(text))).expect("few")
    }

    #[test]
    fn a_pattern_means_one_name_or_all_that_begin_so() {
        assert!(pattern("cellar").matches("cellar") && !pattern("cellar").matches("cellar-2"));
        assert!(pattern("cell*").matches("cellar") && pattern("cell*").matches("cell") && !pattern("cell*").matches("cel"));
        assert!(pattern("*").matches("anything"));
        assert!(
            pattern("c*").includes(&pattern("cell*"))
                && pattern("c*").includes(&pattern("c"))
                && !pattern("cell*").includes(&pattern("c*"))
        );
        for bad in ["", "a b", "a*b", "**", "a/b"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn of_the_documents_of_the_system_those_keys_are_seen_that_are_about_what_is_wanted() {
        let interest = interest(&["cellar", "site-*"]);
        let scope = Scope { interest: &interest, may_see: &|document| document != "site-2", node: None };
        assert!(scope.sees(CONFLICTS, "cellar/5") && scope.sees(CONFLICTS, "cellar") && scope.sees(POLICIES, "site-1/x"));
        assert!(!scope.sees(CONFLICTS, "attic/5") && !scope.sees(POLICIES, "site-2") && !scope.sees(POLICIES, "cellar-2"));
        assert!(scope.sees("cellar", "k") && !scope.sees("attic", "k") && !scope.sees("site-2", "k"));
        assert!(!self::interest(&["*"]).wants("edgeward.local.functions"));
    }

    #[test]
    fn the_documents_of_other_nodes_are_left_out_of_what_is_looked_up() {
        let node = NodeId::new("edge-1").expect("valid");
        let [all, reports, sites] = ["", "edgeward.reports.", "sites."].map(|prefix| {
            let scope = Scope { interest: &Interest::default(), may_see: &|_| true, node: Some(&node) };
            let ranges = scope.ranges(prefix);
            ranges.iter().map(|(from, to)| format!("{from}-{to}").replace('\u{7f}', "~")).collect::<Vec<_>>()
        });
        let names = ["assignments", "reports", "schedules", "triggers"].map(|name| format!("edgeward.{name}."));
        let between = names.windows(2).map(|pair| format!("{}~-{}", pair[0], pair[1]));
        let apart = [format!("-{}", names[0])].into_iter().chain(between).chain([format!("{}~-~", names[3])]);
        assert_eq!(all, apart.collect::<Vec<_>>());
        assert_eq!((reports.len(), sites), (0, vec!["sites.-sites.~".to_owned()]));
    }

    #[test]
    fn an_interest_is_bounded_and_names_what_no_prefix_means() {
        let many = (0..=NAMES_MAX).map(|n| pattern(&format!("d{n}")));
        assert!(Interest::new(many.clone()).is_err());
        let all = Interest::new(many.chain([Pattern::all()])).expect("one pattern");
        assert_eq!(all.patterns().collect::<Vec<_>>(), [&Pattern::all()]);
        assert_ne!(all.digest(), Interest::default().digest());
    }
}
