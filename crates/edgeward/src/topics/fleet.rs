//! Triggers of a fleet: the hub keeps them, and nodes that have their functions run them by themselves, so that messages are handled where they are
//! published while nobody hears of each other.
//!
//! A trigger comes to a node with its function and goes with it: on a node without the function messages would wait for ever.

use std::collections::BTreeSet;

use edgeward_model::{EdgeError, FunctionId, NodeId, Target, Trigger, TriggerId, limits::TRIGGERS_MAX};
use serde::Serialize;

use crate::{
    allotments::{Allotted, record::Record, wanted},
    desired::Precondition,
    fleet::EdgeCluster,
};

/// A trigger as it was put in a fleet.
pub type TriggerRecord = Record<Trigger>;

/// A trigger of a fleet, and which nodes have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FleetTriggerView {
    /// What is wanted.
    #[serde(flatten)]
    pub record: TriggerRecord,
    /// The nodes that have it, each for the messages that come into its log.
    pub nodes: BTreeSet<NodeId>,
}

/// The triggers of a fleet. They reach their nodes while its deployments are steered, see [`EdgeCluster::steer`]; nodes of the hub's own process have none.
#[derive(Clone, Debug)]
pub struct ClusterTriggers {
    cluster: EdgeCluster,
}

impl EdgeCluster {
    /// The triggers of this fleet.
    pub fn triggers(&self) -> ClusterTriggers {
        ClusterTriggers { cluster: self.clone() }
    }
}

impl ClusterTriggers {
    /// Makes this the trigger of its id, durably. Of its target, nodes that are to have its function get it when they are heard: those to which the hub
    /// or a deployment assigned it. Returns it, and whether its id is new.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](edgeward_model::ErrorKind::InvalidInput) past a bound of a trigger,
    /// [`ErrorKind::Conflict`](edgeward_model::ErrorKind::Conflict) when the precondition does not hold,
    /// [`ErrorKind::TooLarge`](edgeward_model::ErrorKind::TooLarge) when there are as many as may be.
    pub async fn put(&self, trigger: Trigger, precondition: Precondition) -> Result<(FleetTriggerView, bool), EdgeError> {
        trigger.validate()?;
        let id = trigger.id.clone();
        let created = wanted::put(&self.cluster, trigger, precondition).await?;
        Ok((self.get(id.as_str()).await?, created))
    }

    /// One trigger.
    pub async fn get(&self, id: &str) -> Result<FleetTriggerView, EdgeError> {
        let (record, nodes) = wanted::get(&self.cluster, id).await?;
        Ok(FleetTriggerView { record, nodes })
    }

    /// Every trigger, by id.
    pub async fn list(&self) -> Result<Vec<FleetTriggerView>, EdgeError> {
        let all = wanted::list(&self.cluster).await?;
        Ok(all.into_iter().map(|(record, nodes)| FleetTriggerView { record, nodes }).collect())
    }

    /// Removes a trigger, durably; its nodes stop when they hear of it, and forget how far it got. Returns whether there was one.
    pub async fn remove(&self, id: &TriggerId, precondition: Precondition) -> Result<bool, EdgeError> {
        wanted::remove::<Trigger>(&self.cluster, id, precondition).await
    }
}

impl Allotted for Trigger {
    type Id = TriggerId;
    const KIND: &'static str = "trigger";
    const MAX: usize = TRIGGERS_MAX;
    const FOLLOWS_FUNCTION: bool = true;

    fn id(&self) -> &TriggerId {
        &self.id
    }

    fn function(&self) -> &FunctionId {
        &self.function
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn validate(&self) -> Result<(), EdgeError> {
        Self::validate(self)
    }
}

#[cfg(test)]
mod tests {
    use edgeward_model::ErrorKind;

    use super::*;

    fn trigger(id: &str) -> Trigger {
        let function = FunctionId::new("f").expect("valid");
        Trigger::new(TriggerId::new(id).expect("valid"), function, vec!["site/+".parse().expect("valid")])
    }

    #[tokio::test]
    async fn a_trigger_of_a_fleet_is_put_changed_and_removed_by_its_generation() {
        let triggers = EdgeCluster::new().expect("a cluster").triggers();
        let (made, is_new) = triggers.put(trigger("t"), Precondition::Absent).await.expect("put");
        assert!(is_new && made.record.generation == 1 && made.nodes.is_empty(), "{made:?}");
        triggers.put(trigger("u"), Precondition::None).await.expect("put");
        let changed = Trigger { target: "site=berlin".parse().expect("valid"), ..trigger("t") };
        let (view, is_new) = triggers.put(changed.clone(), Precondition::Generation(1)).await.expect("put");
        assert!(!is_new && view.record.wanted == changed, "{view:?}");
        assert_eq!((view.record.generation, view.record.since), (3, 1));
        for (precondition, why) in [
            (Precondition::Generation(1), "trigger `t` is at generation 3, not 1"),
            (Precondition::Absent, "trigger `t` exists already, at generation 3"),
        ] {
            let error = triggers.put(trigger("t"), precondition).await.expect_err("refused");
            assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains(why), "{error}");
            triggers.remove(&changed.id, precondition).await.expect_err("refused");
        }
        let ids =
            async || triggers.list().await.expect("reads").into_iter().map(|view| view.record.wanted.id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids().await, ["t", "u"]);
        assert!(triggers.remove(&changed.id, Precondition::Generation(3)).await.expect("removed"));
        assert!(!triggers.remove(&changed.id, Precondition::None).await.expect("looked for"));
        assert_eq!(ids().await, ["u"]);
        let error = triggers.get("t").await.expect_err("gone");
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, "trigger not found: `t`"));
        let (view, _) = triggers.put(trigger("t"), Precondition::Absent).await.expect("put");
        assert_eq!(view.record.since, view.record.generation, "it is another");
    }

    #[tokio::test]
    async fn what_is_no_trigger_and_what_is_one_too_many_is_refused() {
        let triggers = EdgeCluster::new().expect("a cluster").triggers();
        let error = triggers.put(Trigger { filters: Vec::new(), ..trigger("t") }, Precondition::None).await.expect_err("no filter");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        for n in 0..TRIGGERS_MAX {
            triggers.put(trigger(&format!("t{n}")), Precondition::None).await.expect("put");
        }
        let error = triggers.put(trigger("more"), Precondition::None).await.expect_err("too many");
        assert!(error.kind() == ErrorKind::TooLarge && error.to_string().contains("this fleet has 256 triggers"), "{error}");
        triggers.put(trigger("t7"), Precondition::Present).await.expect("one that there is may change");
    }
}
