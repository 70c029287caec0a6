//! Whom a change is for: who would pull it is told of it, and who would find nothing is left alone.
//!
//! Somebody who is told in vain asks in vain; somebody who is not told waits until they ask by themselves. So in doubt everybody is told.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use edgeward_model::{EdgeError, NodeId};

use super::{Hub, last_position};
use crate::{
    access::NODE_PREFIXES,
    causality::Position,
    error::reading,
    interest::{Interest, is_system, subject},
    snapshot::{Snapshot, to_sql},
};

/// Changes that are looked at; more are for everybody.
const LOOKED_AT_MAX: usize = 4096;

impl Hub {
    /// Those of `nodes` for whom something came after a position, and up to where that is said. Standbys are always among them, and so is who
    /// has not told this hub what it wants.
    pub fn audience(&self, nodes: Vec<NodeId>, since: Position) -> Result<(Vec<NodeId>, Position), EdgeError> {
        let (changed, end) = self.store.read(|snapshot| Ok((changed(snapshot, since)?, last_position(snapshot)?)))?;
        let Some(changed) = changed else { return Ok((nodes, end)) };
        // What belongs to one node is for that one: a node is not asked about the documents of all others.
        let owner = |document: &String| NODE_PREFIXES.iter().find_map(|prefix| document.strip_prefix(prefix)).map(str::to_owned);
        let (of_nodes, of_all): (Vec<_>, Vec<_>) =
            changed.into_iter().map(|document| (owner(&document), document)).partition(|(owner, _)| owner.is_some());
        let mut own: HashMap<String, Vec<String>> = HashMap::new();
        for (owner, document) in of_nodes {
            own.entry(owner.expect("they have one")).or_default().push(document);
        }
        let memory = self.memory.lock();
        let hears = |node: &NodeId| {
            let interests = memory.replicas.get(node).map(|replica| &replica.interests).filter(|interests| !interests.is_empty());
            let Some(interests) = interests.filter(|_| !self.access.is_standby(node)) else { return true };
            let wanted = |document: &str| interests.iter().any(|(_, interest): &(u64, Arc<Interest>)| interest.wants(document));
            let own = own.get(node.as_str()).into_iter().flatten();
            of_all.iter().map(|(_, document)| document).chain(own).any(|document| self.access.allows(node, document) && wanted(document))
        };
        Ok((nodes.into_iter().filter(hears).collect(), end))
    }
}

/// What the changes after a position are about, by name; none when they are too many to tell, or about the system itself.
fn changed(snapshot: &Snapshot<'_>, since: Position) -> Result<Option<BTreeSet<String>>, EdgeError> {
    let select = "SELECT documents.name, found.key FROM (SELECT document, key FROM rows WHERE seq > ?1 ORDER BY seq LIMIT ?2) AS found \
        JOIN documents ON documents.id = found.document";
    let mut statement = snapshot.prepare(select)?;
    let mut rows = statement.query([to_sql(since), to_sql(LOOKED_AT_MAX as u64 + 1)]).map_err(reading)?;
    let (mut changed, mut looked_at) = (BTreeSet::new(), 0);
    while let Some(row) = rows.next().map_err(reading)? {
        let (name, key): (String, String) = (row.get(0).map_err(reading)?, row.get(1).map_err(reading)?);
        let about = subject(&name, &key);
        looked_at += 1;
        if looked_at > LOOKED_AT_MAX || is_system(about) || about.is_empty() {
            return Ok(None);
        }
        changed.insert(about.to_owned());
    }
    Ok(Some(changed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{causality::Epoch, interest::Pattern, replica::ReplicaSession, replica_state::Role, store::Store};

    #[test]
    fn who_would_pull_a_change_is_told_of_it_and_nobody_else() {
        let id = |id| NodeId::new(id).expect("valid");
        let [one, two, standby, silent] = ["edge-1", "edge-2", "hub-2", "edge-3"].map(id);
        let open = |node: &NodeId, role| Arc::new(Store::in_memory_as(node.clone(), Epoch::draw().expect("random"), role).expect("opens"));
        let hub_store = open(&id("hub-1"), Role::Hub);
        let hub = Hub::new(Arc::clone(&hub_store)).expect("a hub");
        hub.set_standbys([standby.clone()]);
        for (node, pattern) in [(&one, "sites.berlin.*"), (&two, "*")] {
            let mut session = ReplicaSession::new(open(node, Role::Replica));
            session.declare([pattern.parse::<Pattern>().expect("valid")]).expect("few");
            let hello = session.next_frame().expect("works").expect("a hello");
            hub.answer_node(node, &hello, 1).expect("a welcome");
        }
        let all = vec![one.clone(), two.clone(), standby.clone(), silent.clone()];
        let told = |since| hub.audience(all.clone(), since).expect("works");
        let documents = crate::document::Documents::new(Arc::clone(&hub_store));
        let mut end = told(0).1;
        let mut after = |document: &str| {
            let name = edgeward_model::DocumentName::new(document).expect("valid");
            let write = edgeward_model::Object::from_iter([("celsius", 12_i64)]);
            documents.document(name).replace(crate::Precondition::None, write).expect("written");
            let (told, upto) = told(end);
            assert!(upto > end);
            end = upto;
            told
        };
        let always = [standby, silent];
        assert_eq!(after("sites.berlin.cellar"), all);
        assert_eq!(after("sites.hamburg"), [std::slice::from_ref(&two), &always[..]].concat());
        assert_eq!(after("edgeward.hub.events"), always);
        assert_eq!(after("edgeward.assignments.edge-1"), always, "it did not ask for its own");
        assert_eq!(after("edgeward.assignments.edge-2"), [std::slice::from_ref(&two), &always[..]].concat());
        let (nobody_new, upto) = told(end);
        assert_eq!((nobody_new, upto), (always.to_vec(), end));
    }
}
