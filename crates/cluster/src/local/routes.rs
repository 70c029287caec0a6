//! Who serves or subscribes to what in one process.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use edgeward_model::NodeId;

use crate::subject::{Subject, Subjects};

/// A member and where it takes what comes.
pub(super) struct Route<T> {
    pub(super) member: NodeId,
    pub(super) to: Arc<T>,
}

impl<T> Clone for Route<T> {
    fn clone(&self) -> Self {
        Self { member: self.member.clone(), to: Arc::clone(&self.to) }
    }
}

pub(super) struct Routes<T> {
    by_subjects: HashMap<Subjects, Vec<(u64, Route<T>)>>,
    next_number: u64,
    /// Moves with each choice, so that those who serve the same take turns.
    turn: usize,
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self { by_subjects: HashMap::new(), next_number: 0, turn: 0 }
    }
}

impl<T> Routes<T> {
    /// Adds a route, and returns its number.
    pub(super) fn add(&mut self, subjects: Subjects, route: Route<T>) -> u64 {
        self.next_number += 1;
        self.by_subjects.entry(subjects).or_default().push((self.next_number, route));
        self.next_number
    }

    pub(super) fn remove(&mut self, subjects: &Subjects, number: u64) {
        if let Some(routes) = self.by_subjects.get_mut(subjects) {
            routes.retain(|(other, _)| *other != number);
            if routes.is_empty() {
                self.by_subjects.remove(subjects);
            }
        }
    }

    /// All routes of a subject.
    pub(super) fn all(&self, subject: &Subject) -> impl Iterator<Item = &Route<T>> {
        let of_node = Subjects::from(subject);
        let of_any = Subjects { node: None, ..of_node.clone() };
        [of_node, of_any].into_iter().filter_map(|subjects| self.by_subjects.get(&subjects)).flatten().map(|(_, route)| route)
    }

    /// One of the routes of a subject that are not cut.
    pub(super) fn one(&mut self, subject: &Subject, cut: &HashSet<NodeId>) -> Option<Route<T>> {
        self.turn = self.turn.wrapping_add(1);
        let routes: Vec<_> = self.all(subject).filter(|route| !cut.contains(&route.member)).collect();
        routes.get(self.turn.checked_rem(routes.len())?).map(|route| (*route).clone())
    }
}
