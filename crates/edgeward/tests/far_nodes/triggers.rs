//! Triggers that the hub gives to its nodes, which handle messages by themselves.

use std::{collections::BTreeSet, sync::Arc};

use edgeward::{
    DeploymentSpec, EdgeNodeStatus, ErrorKind, EventKind, FunctionId, HandlerName, Message, NativeHandler, NodeId, Precondition, Source,
    TopicName, Trigger, TriggerId,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    site::{Site, eventually},
    support::{AtHub, AtNode, id, native},
};

/// A node that runs its triggers, and what its function `note` was given.
struct Noting {
    at: AtNode,
    given: Arc<Mutex<Vec<String>>>,
    running: AbortOnDropHandle<()>,
}

impl Noting {
    async fn start(site: &Site, hub: &AtHub, name: &str) -> Self {
        Self::over(AtNode::start(site, hub, name).await).await
    }

    async fn over(at: AtNode) -> Self {
        let given: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&given);
        let noting = NativeHandler::new(move |payload: bytes::Bytes| {
            let fails = payload == "fails";
            noted.lock().push(String::from_utf8(payload.to_vec()).expect("text"));
            async move { if fails { Err(std::io::Error::other("told to fail")) } else { Ok(bytes::Bytes::new()) } }
        });
        at.node.runtime().register(HandlerName::new("note").expect("valid"), noting);
        at.node.reconcile().await;
        let node = Arc::clone(&at.node);
        let running = AbortOnDropHandle::new(tokio::spawn(async move { node.topics().run_triggers(CancellationToken::new()).await }));
        Self { at, given, running }
    }

    async fn publish(&self, topic: &str, payload: &str) {
        let message = Message::new(TopicName::new(topic).expect("valid"), payload.to_owned(), Timestamp::now());
        self.at.node.topics().publish(message).await.expect("published");
    }

    async fn is_given(&self, all: &[&str]) {
        eventually(&format!("it was given {all:?}"), async || *self.given.lock() == all).await;
    }

    /// Its triggers, and who wants each.
    async fn triggers(&self) -> Vec<(Trigger, Source)> {
        let views = self.at.node.topics().triggers().await.expect("reads").into_iter();
        views.map(|view| (view.trigger, view.source)).collect()
    }

    async fn has(&self, wanted: &[(&Trigger, Source)]) {
        let wanted: Vec<_> = wanted.iter().map(|(trigger, source)| ((*trigger).clone(), *source)).collect();
        eventually("it has these triggers", async || self.triggers().await == wanted).await;
    }
}

fn trigger(filter: &str, target: &str) -> Trigger {
    let (id, function) = (TriggerId::new("t").expect("valid"), FunctionId::new("note").expect("valid"));
    Trigger { target: target.parse().expect("valid"), ..Trigger::new(id, function, vec![filter.parse().expect("valid")]) }
}

async fn put(hub: &AtHub, trigger: &Trigger) {
    hub.cluster.triggers().put(trigger.clone(), Precondition::None).await.expect("put");
}

async fn remove(hub: &AtHub) {
    assert!(hub.cluster.triggers().remove(&trigger("a", "all").id, Precondition::None).await.expect("removed"));
}

async fn nodes(hub: &AtHub) -> BTreeSet<NodeId> {
    hub.cluster.triggers().get("t").await.expect("there").nodes
}

pub(crate) async fn a_trigger_of_the_fleet_calls_its_function_where_messages_are_published_also_while_nobody_hears_of_them(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let [mut first, second] = [Noting::start(&site, &hub, "edge-01").await, Noting::start(&site, &hub, "edge-02").await];
    hub.cluster.deploy_to_all(native("note", "note")).await.expect("assigns");
    let wanted = trigger("site/+", "node=edge-01");
    put(&hub, &wanted).await;
    first.has(&[(&wanted, Source::Fleet)]).await;
    assert_eq!((nodes(&hub).await, second.triggers().await), ([id("edge-01")].into(), Vec::new()));
    first.publish("site/a", "1").await;
    second.publish("site/a", "of another").await;
    first.is_given(&["1"]).await;
    let topics = first.at.node.topics();
    for error in [
        topics.put_trigger(trigger("own/+", "all")).await.expect_err("it is the fleet's"),
        topics.remove_trigger(&wanted.id).await.expect_err("it is the fleet's"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Forbidden);
        assert_eq!(error.to_string(), "trigger `t` is assigned to this node by the hub of its fleet; change it there");
    }

    // Without its hub it goes on, also after a start.
    site.cut_off("edge-01").await;
    hub.is("edge-01", EdgeNodeStatus::Offline).await;
    first.publish("site/a", "2").await;
    first.is_given(&["1", "2"]).await;
    let acknowledged = async |first: &Noting| first.at.node.topics().trigger(&wanted.id).await.expect("there").acknowledged;
    eventually("it is noted", async || acknowledged(&first).await == 2).await;
    let Noting { at, running, .. } = first;
    drop(running);
    first = Noting::over(AtNode::open("edge-01", at.stop().await)).await;
    first.publish("site/a", "3").await;
    first.is_given(&["3"]).await;

    // What changed meanwhile is taken with the next word of the hub, and how far it got is its name's.
    let everywhere = trigger("site/#", "all");
    put(&hub, &everywhere).await;
    second.has(&[(&everywhere, Source::Fleet)]).await;
    second.publish("site/a/b", "4").await;
    second.is_given(&["4"]).await;
    site.bring_back("edge-01").await;
    first.at.connect(&site).await;
    first.has(&[(&everywhere, Source::Fleet)]).await;
    first.publish("site/a/b", "5").await;
    first.is_given(&["3", "5"]).await;

    remove(&hub).await;
    for node in [&first, &second] {
        node.has(&[]).await;
        node.publish("site/a", "nobody's").await;
    }
    let again = trigger("site/+", "site=berlin");
    put(&hub, &again).await;
    for (node, given) in [(&first, ["3", "5", "6"].as_slice()), (&second, &["4", "6"])] {
        node.has(&[(&again, Source::Fleet)]).await;
        node.publish("site/a", "6").await;
        node.is_given(given).await;
    }
}

pub(crate) async fn a_trigger_of_the_fleet_comes_to_a_node_with_its_function_and_goes_with_it(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let [first, second] = [Noting::start(&site, &hub, "edge-01").await, Noting::start(&site, &hub, "edge-02").await];
    let wanted = trigger("site/+", "site=berlin");
    put(&hub, &wanted).await;
    let spec = |target: &str| DeploymentSpec { target: target.parse().expect("valid"), ..DeploymentSpec::new(native("note", "note")) };
    hub.cluster.deployments().apply(spec("node=edge-01"), None).await.expect("applies");
    first.has(&[(&wanted, Source::Fleet)]).await;
    first.publish("site/a", "1").await;
    first.is_given(&["1"]).await;
    assert_eq!((nodes(&hub).await, second.triggers().await), ([id("edge-01")].into(), Vec::new()));

    hub.cluster.deployments().apply(spec("node=edge-02"), None).await.expect("applies");
    second.has(&[(&wanted, Source::Fleet)]).await;
    first.has(&[]).await;
    assert_eq!(nodes(&hub).await, [id("edge-02")].into());
    second.publish("site/a", "2").await;
    second.is_given(&["2"]).await;

    // Of those that have it, the target says which.
    hub.cluster.deployments().apply(spec("all"), None).await.expect("applies");
    eventually("both have it", async || nodes(&hub).await.len() == 2).await;
    let moved = trigger("site/+", "node=edge-01");
    put(&hub, &moved).await;
    second.has(&[]).await;
    first.has(&[(&moved, Source::Fleet)]).await;
    put(&hub, &trigger("site/+", "one")).await;
    eventually("it stays where it is", async || nodes(&hub).await == [id("edge-01")].into()).await;
    first.has(&[(&trigger("site/+", "one"), Source::Fleet)]).await;
    assert!(second.triggers().await.is_empty());
}

pub(crate) async fn of_two_triggers_of_one_name_the_one_of_the_hub_runs_and_the_other_goes_on_after_it(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let node = Noting::start(&site, &hub, "edge-01").await;
    hub.cluster.deploy_to_all(native("note", "note")).await.expect("assigns");
    hub.serves("edge-01", "note").await;
    let own = trigger("own/+", "all");
    node.at.node.topics().put_trigger(own.clone()).await.expect("put");
    node.publish("own/a", "1").await;
    node.is_given(&["1"]).await;
    let of_fleet = trigger("site/+", "all");
    put(&hub, &of_fleet).await;
    node.has(&[(&of_fleet, Source::Fleet)]).await;
    node.publish("own/a", "not now").await;
    node.publish("site/a", "2").await;
    node.is_given(&["1", "2"]).await;
    remove(&hub).await;
    node.has(&[(&own, Source::Node)]).await;
    node.publish("own/a", "3").await;
    node.is_given(&["1", "2", "3"]).await;
    assert!(node.at.node.topics().remove_trigger(&own.id).await.expect("it is the node's again"));
    node.has(&[]).await;
}

pub(crate) async fn what_a_trigger_had_not_handled_when_it_left_a_node_is_counted_and_told(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let [first, second] = [Noting::start(&site, &hub, "edge-01").await, Noting::start(&site, &hub, "edge-02").await];
    hub.cluster.deploy_to_all(native("note", "note")).await.expect("assigns");
    let mut wanted = trigger("site/+", "node=edge-01");
    wanted.retry.attempts = 100;
    put(&hub, &wanted).await;
    first.has(&[(&wanted, Source::Fleet)]).await;
    first.publish("site/a", "1").await;
    first.is_given(&["1"]).await;
    // The second one waits for its turn after the one that fails, and another topic is none of its.
    for (topic, payload) in [("site/a", "fails"), ("site/a", "2"), ("other", "3")] {
        first.publish(topic, payload).await;
    }
    eventually("it has failed", async || first.given.lock().contains(&"fails".to_owned())).await;
    assert_eq!(first.at.node.topics().left_by_triggers(), 0);

    wanted.target = "node=edge-02".parse().expect("valid");
    put(&hub, &wanted).await;
    second.has(&[(&wanted, Source::Fleet)]).await;
    first.has(&[]).await;
    eventually("it is told", async || !hub.events(EventKind::TriggerLeft).is_empty()).await;
    let told: Vec<_> = hub.events(EventKind::TriggerLeft).into_iter().map(|event| (event.node, event.data.expect("there"))).collect();
    assert_eq!(told, [(Some(id("edge-01")), serde_json::json!({ "trigger": "t", "messages": 2 }))]);
    let left = |node: &Noting| node.at.node.topics().left_by_triggers();
    assert_eq!((left(&first), left(&second)), (2, 0));

    // One that leaves with nothing is not worth a word.
    second.publish("site/a", "4").await;
    second.is_given(&["4"]).await;
    let behind = async || second.at.node.topics().trigger(&wanted.id).await.expect("there").behind;
    eventually("all is noted", async || behind().await == 0).await;
    remove(&hub).await;
    second.has(&[]).await;
    assert_eq!((left(&second), hub.events(EventKind::TriggerLeft).len()), (0, 1));
}
