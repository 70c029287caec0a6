//! Finds whose filters match a topic, in time that depends on the levels of the topic and on what is found, not on how many filters there
//! are.

use std::collections::{BTreeMap, HashMap};

use crate::topic::{TopicFilter, TopicName};

/// Values by filter and key: of one filter each key has one value.
#[derive(Debug)]
pub struct FilterTree<K, V> {
    root: Node<K, V>,
    levels: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    /// Below a level of this name.
    named: HashMap<Box<str>, Node<K, V>>,
    /// Below `+`.
    any: Option<Box<Node<K, V>>>,
    /// Whose filter ends here.
    here: BTreeMap<K, V>,
    /// Whose filter ends here with `#`.
    rest: BTreeMap<K, V>,
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Self { named: HashMap::new(), any: None, here: BTreeMap::new(), rest: BTreeMap::new() }
    }
}

impl<K, V> Default for FilterTree<K, V> {
    fn default() -> Self {
        Self { root: Node::default(), levels: 0 }
    }
}

impl<K: Ord, V> FilterTree<K, V> {
    /// Puts a value there, and returns the one that it takes the place of.
    pub fn insert(&mut self, filter: &TopicFilter, key: K, value: V) -> Option<V> {
        let mut node = &mut self.root;
        for level in filter.levels() {
            node = match level {
                "#" => return node.rest.insert(key, value),
                "+" => node.any.get_or_insert_with(|| {
                    self.levels += 1;
                    Box::default()
                }),
                name if node.named.contains_key(name) => node.named.get_mut(name).expect("it is there"),
                name => {
                    self.levels += 1;
                    node.named.entry(name.into()).or_default()
                }
            };
        }
        node.here.insert(key, value)
    }

    /// Takes a value away.
    pub fn remove(&mut self, filter: &TopicFilter, key: &K) -> Option<V> {
        self.root.remove(&mut filter.levels(), key, &mut self.levels)
    }

    /// Levels that are kept, those that filters have in common once.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Tells each value whose filter matches this topic; a key of several such filters comes as often.
    pub fn matches<'a>(&'a self, topic: &TopicName, found: &mut impl FnMut(&'a K, &'a V)) {
        self.root.matches(topic.as_str().split('/'), topic.is_reserved(), found);
    }
}

impl<K: Ord, V> Node<K, V> {
    fn remove<'f>(&mut self, levels: &mut impl Iterator<Item = &'f str>, key: &K, kept: &mut usize) -> Option<V> {
        match levels.next() {
            None => self.here.remove(key),
            Some("#") => self.rest.remove(key),
            Some("+") => {
                let below = self.any.as_mut()?;
                let removed = below.remove(levels, key, kept);
                if below.is_empty() {
                    *kept -= 1;
                    self.any = None;
                }
                removed
            }
            Some(name) => {
                let below = self.named.get_mut(name)?;
                let removed = below.remove(levels, key, kept);
                if below.is_empty() {
                    *kept -= 1;
                    self.named.remove(name);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.named.is_empty() && self.any.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    /// The depth of the recursion is that of the deepest filter, which has a bound.
    fn matches<'a, 't>(
        &'a self,
        mut levels: impl Iterator<Item = &'t str> + Clone,
        is_reserved: bool,
        found: &mut impl FnMut(&'a K, &'a V),
    ) {
        if !is_reserved {
            self.rest.iter().for_each(|(key, value)| found(key, value));
        }
        match levels.next() {
            None => self.here.iter().for_each(|(key, value)| found(key, value)),
            Some(level) => {
                if let Some(below) = self.named.get(level) {
                    below.matches(levels.clone(), false, found);
                }
                if let Some(below) = self.any.as_ref().filter(|_| !is_reserved) {
                    below.matches(levels, false, found);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Levels of a small world, so that names and filters meet.
    fn level(also: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
        let names: Vec<_> = ["", "a", "b", "$a"].into_iter().chain(also.iter().copied()).collect();
        prop::sample::select(names)
    }

    fn a_topic() -> impl Strategy<Value = TopicName> {
        prop::collection::vec(level(&[]), 1..5).prop_filter_map("empty", |levels| TopicName::new(levels.join("/")).ok())
    }

    fn a_filter() -> impl Strategy<Value = TopicFilter> {
        (prop::collection::vec(level(&["+", "+"]), 0..4), any::<bool>()).prop_filter_map("empty", |(mut levels, rest)| {
            levels.extend(rest.then_some("#"));
            TopicFilter::new(levels.join("/")).ok()
        })
    }

    /// The definition of the standard, by recursion over whole lists: not the way of either implementation.
    fn matches(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => matches(filter, topic),
            ([level, filter @ ..], [name, topic @ ..]) => level == name && matches(filter, topic),
            _ => false,
        }
    }

    fn matches_naively(filter: &TopicFilter, topic: &TopicName) -> bool {
        let (filter, topic): (Vec<_>, Vec<_>) = (filter.levels().collect(), topic.levels().collect());
        !(topic[0].starts_with('$') && ["+", "#"].contains(&filter[0])) && matches(&filter, &topic)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_tree_finds_whom_a_naive_matcher_finds(
            filters in prop::collection::vec(a_filter(), 0..24),
            removed in prop::collection::vec(any::<bool>(), 24),
            topics in prop::collection::vec(a_topic(), 1..8),
        ) {
            let mut tree = FilterTree::default();
            for (key, filter) in filters.iter().enumerate() {
                prop_assert_eq!(tree.insert(filter, key, filter.clone()), None);
            }
            for (key, filter) in filters.iter().enumerate().filter(|(key, _)| removed[*key]) {
                prop_assert_eq!(tree.remove(filter, &key), Some(filter.clone()));
                prop_assert_eq!(tree.remove(filter, &key), None);
            }
            for topic in &topics {
                let mut found = BTreeSet::new();
                tree.matches(topic, &mut |key, _| assert!(found.insert(*key), "{key} was found twice"));
                let numbered = filters.iter().enumerate();
                let stays = numbered.filter(|(key, filter)| !removed[*key] && matches_naively(filter, topic));
                let expected: BTreeSet<_> = stays.map(|(key, _)| key).collect();
                prop_assert_eq!(found, expected, "{}", topic);
                for filter in &filters {
                    prop_assert_eq!(filter.matches(topic), matches_naively(filter, topic), "{} {}", filter, topic);
                }
            }
            for (key, filter) in filters.iter().enumerate() {
                tree.remove(filter, &key);
            }
            prop_assert!(tree.root.is_empty() && tree.levels() == 0, "what is removed leaves nothing behind");
        }

        #[test]
        fn what_a_filter_covers_it_matches(own in a_filter(), other in a_filter(), topic in a_topic()) {
            prop_assert!(!own.covers(&other) || !other.matches(&topic) || own.matches(&topic));
            prop_assert!(!own.matches(&topic) || topic.as_str().starts_with(own.prefix()));
            prop_assert_eq!(own.covers(&TopicFilter::exactly(&topic)), own.matches(&topic));
        }
    }
}
