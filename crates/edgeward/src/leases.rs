//! Functions that one node at a time may run: what a node asks its hub, and what it does with the answer.
//!
//! Its hub decides by [`Grants`](edgeward_cluster::grants::Grants). A node asks one question at a time, over and over, and counts what it is given from
//! before it asked. What it gives back it has ended.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use edgeward_model::{
    FunctionId, NodeId,
    limits::{FUNCTION_LEASE_ASKED_EVERY, FUNCTION_LEASE_WAITING_EVERY},
};
use edgeward_runtime::{EdgeRuntime, RunLease, uptime};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What a node asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseQuestion {
    /// Tells the questions of a node apart; a later one has a greater number.
    pub(crate) number: u64,
    /// Functions that it is ready to run.
    pub(crate) wanted: Vec<FunctionId>,
    /// Functions that it has ended, each with the number of the last question in which it wanted it.
    #[serde(default)]
    pub(crate) ended: BTreeMap<FunctionId, u64>,
}

/// What its hub answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseAnswer {
    /// How long it may run what is granted, from before it asked.
    pub(crate) ttl_ms: u64,
    /// Functions that it may run.
    pub(crate) granted: Vec<FunctionId>,
    /// Functions that it may not, with who may, if that is known.
    #[serde(default)]
    pub(crate) waiting: BTreeMap<FunctionId, Option<NodeId>>,
}

/// The leases of one node.
#[derive(Debug, Default)]
pub(crate) struct NodeLeases(Mutex<BTreeMap<FunctionId, Leased>>);

#[derive(Debug, Default)]
struct Leased {
    lease: Arc<RunLease>,
    /// The last question in which it was wanted.
    asked: u64,
    /// Who has it instead.
    holder: Option<NodeId>,
}

impl NodeLeases {
    /// The lease of a function, which nobody gave yet when it is new.
    pub(crate) fn of(&self, function: &FunctionId) -> Arc<RunLease> {
        Arc::clone(&self.0.lock().entry(function.clone()).or_default().lease)
    }

    /// What to ask now; none when there is nothing to ask. What is not to run here any more begins no other invocation.
    pub(crate) fn question(&self, runtime: &EdgeRuntime) -> Option<LeaseQuestion> {
        let number = u64::try_from(uptime().as_nanos()).unwrap_or(u64::MAX);
        let mut question = LeaseQuestion { number, wanted: Vec::new(), ended: BTreeMap::new() };
        let mut leases = self.0.lock();
        for (id, known) in leases.iter_mut() {
            if is_leased(runtime, id) {
                known.asked = number;
                question.wanted.push(id.clone());
            } else {
                known.lease.revoke();
                if known.lease.is_idle() {
                    question.ended.insert(id.clone(), known.asked);
                }
            }
        }
        (!leases.is_empty()).then_some(question)
    }

    /// Takes the answer to a question of this moment. Says whether something is another than before.
    pub(crate) fn take(&self, runtime: &EdgeRuntime, asked_at: Duration, question: &LeaseQuestion, answer: &LeaseAnswer) -> bool {
        let mut is_news = false;
        let mut leases = self.0.lock();
        for id in answer.granted.iter().filter(|id| question.wanted.contains(*id) && is_leased(runtime, id)) {
            let Some(known) = leases.get_mut(id) else { continue };
            is_news |= known.holder.take().is_some() | !known.lease.is_held();
            known.lease.extend(asked_at + Duration::from_millis(answer.ttl_ms));
        }
        for (id, holder) in &answer.waiting {
            let Some(known) = leases.get_mut(id) else { continue };
            if holder.is_some() && known.lease.is_held() {
                // Somebody else has it, whatever was thought here.
                known.lease.revoke();
                is_news = true;
            }
            is_news |= known.holder != *holder;
            known.holder.clone_from(holder);
        }
        leases.retain(|id, known| known.asked == question.number || !question.ended.contains_key(id) || is_leased(runtime, id));
        is_news
    }

    /// Why a function does not run here though it is ready, for people; none when it does, or runs without a lease.
    pub(crate) fn why_waiting(&self, function: &FunctionId) -> Option<String> {
        let leases = self.0.lock();
        let known = leases.get(function).filter(|known| !known.lease.is_held())?;
        Some(match &known.holder {
            Some(holder) => format!("it is ready, and node `{holder}` has its lease"),
            None => "it is ready, and waits for its lease".to_owned(),
        })
    }

    /// Whether a function waits for its lease, and nobody said who has it.
    pub(crate) fn is_unknown(&self, function: &FunctionId) -> bool {
        self.0.lock().get(function).is_some_and(|known| !known.lease.is_held() && known.holder.is_none())
    }

    /// Time until the next question.
    pub(crate) fn pause(&self) -> Duration {
        let leases = self.0.lock();
        let is_settled = leases.values().all(|known| known.lease.is_held());
        if is_settled { FUNCTION_LEASE_ASKED_EVERY } else { FUNCTION_LEASE_WAITING_EVERY }
    }
}

/// Whether a node has a function ready that runs only under its lease.
fn is_leased(runtime: &EdgeRuntime, function: &FunctionId) -> bool {
    runtime.find(function.as_str()).is_ok_and(|deployed| deployed.is_leased())
}

#[cfg(test)]
mod tests {
    use edgeward_model::{EdgeFunction, EdgeNode, Handler, HandlerName, limits::FUNCTION_LEASE_TTL};
    use edgeward_runtime::NativeHandler;

    use super::*;

    #[tokio::test]
    async fn a_node_counts_from_before_it_asked_and_gives_back_what_has_ended() {
        let runtime = EdgeRuntime::new(EdgeNode::new("a", "a").expect("valid"));
        let handler = HandlerName::new("h").expect("valid");
        runtime.register(handler.clone(), NativeHandler::new(async |_| Ok::<_, std::io::Error>("ran".into())));
        let function = EdgeFunction::new("f", "f", Handler::Native(handler)).expect("valid");
        let (leases, id, other) = (NodeLeases::default(), function.id.clone(), NodeId::new("b").expect("valid"));
        assert_eq!(leases.question(&runtime), None);
        runtime.install(runtime.prepare_under(function, Some(leases.of(&id))).await.expect("ready")).expect("serves");
        assert!(runtime.invoke("f", "").await.is_err() && leases.is_unknown(&id), "nobody allowed it");

        let question = leases.question(&runtime).expect("it wants it");
        let ttl_ms = u64::try_from(FUNCTION_LEASE_TTL.as_millis()).expect("short");
        let granted = LeaseAnswer { ttl_ms, granted: vec![id.clone()], ..LeaseAnswer::default() };
        let long_ago = uptime().saturating_sub(FUNCTION_LEASE_TTL);
        leases.take(&runtime, long_ago, &question, &granted);
        assert!(runtime.invoke("f", "").await.is_err(), "the answer came too late");
        assert!(leases.take(&runtime, uptime(), &question, &granted));
        assert_eq!(runtime.invoke("f", "").await.expect("it may"), "ran");
        assert_eq!((leases.why_waiting(&id), leases.pause()), (None, FUNCTION_LEASE_ASKED_EVERY));
        assert!(!leases.is_unknown(&id) && !leases.is_unknown(&FunctionId::new("other").expect("valid")));

        let denied = LeaseAnswer { waiting: [(id.clone(), Some(other))].into(), ..LeaseAnswer::default() };
        assert!(leases.take(&runtime, uptime(), &question, &denied) && runtime.invoke("f", "").await.is_err());
        assert_eq!(leases.why_waiting(&id).expect("it waits"), "it is ready, and node `b` has its lease");
        assert!(!leases.is_unknown(&id), "it is known who has it");
        leases.take(&runtime, uptime(), &question, &granted);
        runtime.undeploy("f");
        let last = leases.question(&runtime).expect("it gives it back");
        assert_eq!((last.wanted.len(), &last.ended), (0, &[(id.clone(), question.number)].into()));
        leases.take(&runtime, uptime(), &question, &granted);
        assert!(!leases.of(&id).is_held(), "what was granted before is over");
        leases.take(&runtime, uptime(), &last, &LeaseAnswer::default());
        assert_eq!(leases.question(&runtime), None);
    }
}
