//! Who of the fleet may run a function that one node at a time may run: granted by its hub, and noted in the document `edgeward.hub.leases`.

use std::collections::BTreeMap;

use edgeward_cluster::grants::{Grant, Granting, Grants, Noted, Reign};
use edgeward_model::{DocumentName, EdgeError, ErrorKind, FunctionId, NodeId, limits::FUNCTION_LEASE_TTL};
use edgeward_runtime::uptime;
use edgeward_sync::{Document, Precondition};

use crate::{
    desired::record::FunctionRecord,
    events::{EventKind, FleetEvent},
    fleet::EdgeCluster,
    leases::{LeaseAnswer, LeaseQuestion},
    stored::{of_value, to_value},
};

/// The document of grants: who led when they were noted, and a key for each function.
const DOCUMENT: &str = "edgeward.hub.leases";
const REIGN: &str = "reign";
const FUNCTION: &str = "function/";

impl EdgeCluster {
    fn noted_grants(&self) -> Result<Document, EdgeError> {
        Ok(self.documents().document(DocumentName::new(DOCUMENT)?))
    }

    /// Begins to grant leases, in this term; none for a hub that has no other beside it. Reads and writes the disk.
    pub(crate) fn begin_grants(&self, term: Option<u64>) -> Result<(), EdgeError> {
        let document = self.noted_grants()?;
        let mut noted = Noted::default();
        for (key, value) in document.view()?.map(|state| state.data.0).unwrap_or_default() {
            let what = || format!("key `{key}` of document `{DOCUMENT}`");
            let read = match key.strip_prefix(FUNCTION) {
                Some(id) => FunctionId::new(id).and_then(|id| {
                    noted.grants.insert(id, of_value(&value, what)?);
                    Ok(())
                }),
                None if key == REIGN => of_value(&value, what).map(|reign| noted.reign = Some(reign)),
                None => Ok(()),
            };
            if let Err(error) = read {
                // What is not known is waited out.
                tracing::warn!(error = error.chain(), "a note about a lease could not be read");
            }
        }
        let reign = Reign { hub: self.id().clone(), term: term.unwrap_or(1) };
        let (grants, noted) = Grants::begin(noted, reign, uptime());
        document.edit(Precondition::None, move |draft| {
            if let Some(reign) = &noted.reign {
                draft.set(REIGN, &to_value(reign)?)?;
            }
            noted.grants.iter().try_for_each(|(id, grant)| draft.set(&format!("{FUNCTION}{id}"), &to_value(grant)?))
        })?;
        *self.grants().lock() = Some(grants);
        Ok(())
    }

    /// Answers a node that wants to run functions which one node at a time may. Reads and writes the disk.
    pub(crate) fn grant(&self, node: &NodeId, question: &LeaseQuestion) -> Result<LeaseAnswer, EdgeError> {
        let mut records = BTreeMap::new();
        for id in &question.wanted {
            records.extend(self.assignment_record(node, id)?.filter(FunctionRecord::is_exclusive).map(|record| (id, record)));
        }
        let document = self.noted_grants()?;
        let mut granting = self.grants().lock();
        let grants = granting.as_mut().ok_or_else(|| EdgeError::new(ErrorKind::Unavailable, "this hub does not grant leases yet"))?;
        let mut answer =
            LeaseAnswer { ttl_ms: u64::try_from(FUNCTION_LEASE_TTL.as_millis()).unwrap_or(u64::MAX), ..LeaseAnswer::default() };
        for (id, last) in &question.ended {
            grants.release(id, (node, *last), uptime());
        }
        for id in &question.wanted {
            let Some(record) = records.get(id) else {
                answer.waiting.insert(id.clone(), grants.holder(id, uptime()).filter(|holder| *holder != node).cloned());
                continue;
            };
            let warm = record.warm().map_or(record.function.timeout(), |warm| warm.function.timeout());
            let timeout = record.function.timeout().max(warm);
            let had_it = grants.holder(id, uptime()) == Some(node);
            let keep = |grant: &Grant| {
                let (key, value) = (format!("{FUNCTION}{id}"), to_value(grant)?);
                document.edit(Precondition::None, move |draft| draft.set(&key, &value))?;
                if !had_it {
                    let what = format!("node `{node}` has the lease of function `{id}`");
                    self.events().tell(FleetEvent::new(EventKind::FunctionLeased, what).on(node).of(id));
                    self.note_routes_change();
                }
                Ok::<_, EdgeError>(())
            };
            match grants.ask(id, (node, question.number), timeout, uptime(), keep)? {
                Granting::Granted => answer.granted.push(id.clone()),
                Granting::Waiting { holder, .. } => drop(answer.waiting.insert(id.clone(), holder)),
            }
        }
        Ok(answer)
    }

    /// Who may run a function now that one node at a time may.
    pub(crate) fn lease_holder(&self, function: &FunctionId) -> Option<NodeId> {
        self.grants().lock().as_ref()?.holder(function, uptime()).cloned()
    }

    /// Forgets grants of functions that are not deployed so any more. Writes the disk.
    pub(crate) fn forget_grants(&self, is_exclusive: impl Fn(&FunctionId) -> bool) -> Result<(), EdgeError> {
        let gone = self.grants().lock().as_mut().map(|grants| grants.retain(uptime(), is_exclusive)).unwrap_or_default();
        if gone.is_empty() {
            return Ok(());
        }
        let edited = self
            .noted_grants()?
            .edit(Precondition::None, move |draft| gone.iter().try_for_each(|id| draft.remove(&format!("{FUNCTION}{id}"))));
        edited.map(drop)
    }
}
