//! Schedules that the hub gives to its nodes, which run them by themselves.

use std::{collections::BTreeSet, sync::Arc};

use edgeward::{
    DeploymentSpec, DocumentName, EdgeNodeStatus, ErrorKind, FunctionId, NodeId, Precondition, Schedule, ScheduleHistory, ScheduleId,
    Source, cluster::schedule::Outcome,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    site::{Site, eventually},
    support::{AtHub, AtNode, id, native, set},
};

fn schedule(target: &str) -> Schedule {
    let (id, function) = (ScheduleId::new("s").expect("valid"), FunctionId::new("double").expect("valid"));
    let schedule = Schedule::new(id, function, "every 1s".parse().expect("valid"));
    Schedule { target: target.parse().expect("valid"), payload: "21".to_owned(), ..schedule }
}

/// Runs the schedules of a node.
fn keep(node: &AtNode) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(Arc::clone(&node.node).keep_scheduled(CancellationToken::new())))
}

fn history(node: &AtNode) -> ScheduleHistory {
    node.node.schedules().history("s").unwrap_or_default()
}

async fn succeeds(node: &AtNode) {
    let before = history(node).totals.succeeded;
    eventually("it succeeds again", async || history(node).totals.succeeded > before).await;
}

async fn nodes(hub: &AtHub) -> BTreeSet<NodeId> {
    hub.cluster.schedules().get("s").await.expect("there").nodes
}

pub(crate) async fn a_schedule_of_the_fleet_fires_on_its_nodes_also_while_nobody_hears_of_them(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let [first, second] = [AtNode::start(&site, &hub, "edge-01").await, AtNode::start(&site, &hub, "edge-02").await];
    let _kept = [keep(&first), keep(&second)];
    hub.cluster.deploy_to_all(native("double", "double")).await.expect("assigns");
    let (view, created) = hub.cluster.schedules().put(schedule("node=edge-01"), Precondition::Absent).await.expect("put");
    assert!(created && view.record.generation == 1);
    succeeds(&first).await;
    let view = first.node.schedules().get("s").expect("there");
    assert_eq!((view.source, view.last.map(|run| run.outcome)), (Source::Fleet, Some(Outcome::Succeeded)));
    assert_eq!((nodes(&hub).await, second.node.schedules().list().len()), ([id("edge-01")].into(), 0));
    let own = first.node.schedules().put(schedule("all"), Precondition::None).await.expect_err("it is the fleet's");
    assert_eq!(own.kind(), ErrorKind::Forbidden);

    site.cut_off("edge-01").await;
    hub.is("edge-01", EdgeNodeStatus::Offline).await;
    succeeds(&first).await;
    hub.cluster.schedules().put(schedule("all"), Precondition::Generation(1)).await.expect("put");
    succeeds(&second).await;
    let removed =
        async || hub.cluster.schedules().remove(&ScheduleId::new("s").expect("valid"), Precondition::None).await.expect("removed");
    assert!(removed().await);
    eventually("the one that is heard stops", async || second.node.schedules().list().is_empty()).await;
    succeeds(&first).await;
    hub.cluster.schedules().put(Schedule { enabled: false, ..schedule("all") }, Precondition::Absent).await.expect("put");
    site.bring_back("edge-01").await;
    eventually("it is another, with no history", async || history(&first).totals.succeeded == 0).await;
    assert!(removed().await);
    eventually("the other one stops", async || first.node.schedules().list().is_empty()).await;
}

pub(crate) async fn a_schedule_for_one_node_stays_where_it_is_while_that_is_away_and_moves_when_it_is_removed(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let [first, second] = [AtNode::start(&site, &hub, "edge-01").await, AtNode::start(&site, &hub, "edge-02").await];
    let _kept = [keep(&first), keep(&second)];
    hub.cluster.schedules().put(schedule("one"), Precondition::None).await.expect("put");
    assert!(nodes(&hub).await.is_empty(), "nobody has the function");
    hub.cluster.deploy_to_node("edge-01", native("double", "double")).await.expect("assigns");
    succeeds(&first).await;
    hub.cluster.deploy_to_all(native("double", "double")).await.expect("assigns");
    site.cut_off("edge-01").await;
    hub.is("edge-01", EdgeNodeStatus::Offline).await;
    succeeds(&first).await;
    assert_eq!((nodes(&hub).await, second.node.schedules().list().len()), ([id("edge-01")].into(), 0));
    assert!(hub.cluster.deregister_node("edge-01").expect("writes"));
    succeeds(&second).await;
    assert_eq!(nodes(&hub).await, [id("edge-02")].into());
}

pub(crate) async fn a_node_that_is_removed_leaves_schedules_of_the_fleet_to_others_until_it_is_back(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let [first, second] = [AtNode::start(&site, &hub, "edge-01").await, AtNode::start(&site, &hub, "edge-02").await];
    let _kept = [keep(&first), keep(&second)];
    hub.cluster.deploy_to_all(native("double", "double")).await.expect("assigns");
    hub.cluster.schedules().put(schedule("all"), Precondition::None).await.expect("put");
    succeeds(&first).await;
    let own = Schedule { id: ScheduleId::new("own").expect("valid"), ..schedule("all") };
    first.node.schedules().put(own, Precondition::None).await.expect("put");
    assert!(hub.cluster.deregister_node("edge-01").expect("writes"));
    let own = async || first.node.schedules().history("own").expect("there").totals.succeeded;
    eventually("it stops", async || {
        let (before, of_its_own) = (history(&first).totals.succeeded, own().await);
        eventually("its own goes on", async || own().await >= of_its_own + 3).await;
        history(&first).totals.succeeded == before
    })
    .await;
    succeeds(&second).await;
    hub.cluster.admit(&id("edge-01"), None).expect("joins");
    // What it was assigned went with it.
    hub.cluster.deploy_to_all(native("double", "double")).await.expect("assigns");
    succeeds(&first).await;
}

pub(crate) async fn a_node_that_writes_nonsense_to_its_schedules_keeps_no_other_from_them(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let [first, second] = [AtNode::start(&site, &hub, "edge-01").await, AtNode::start(&site, &hub, "edge-02").await];
    let _kept = [keep(&first), keep(&second)];
    let name = "edgeward.schedules.edge-01";
    set(&first.document(name), "no id!", 1).await;
    let at_hub = hub.cluster.documents().document(DocumentName::new(name).expect("valid"));
    eventually("the hub has it", async || at_hub.get("no id!").expect("reads").is_some()).await;
    hub.cluster.deploy_to_all(native("double", "double")).await.expect("assigns");
    hub.cluster.schedules().put(schedule("all"), Precondition::None).await.expect("put");
    assert_eq!(hub.cluster.schedules().list().await.expect("reads").len(), 1);
    succeeds(&second).await;
    succeeds(&first).await;
}

pub(crate) async fn what_is_made_up_for_at_a_start_waits_for_its_lease(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(&site, folder.path()).await;
    let mut node = AtNode::start(&site, &hub, "edge-01").await;
    let kept = keep(&node);
    let spec = DeploymentSpec { target: "one".parse().expect("valid"), ..DeploymentSpec::new(native("double", "double")) };
    hub.cluster.deployments().apply(spec, None).await.expect("applies");
    eventually("it has its lease", async || node.node.runtime().invoke("double", "1").await.is_ok()).await;
    hub.cluster.schedules().put(schedule("one"), Precondition::None).await.expect("put");
    succeeds(&node).await;
    drop(kept);
    let before = history(&node).totals;
    node = AtNode::open("edge-01", node.stop().await);
    let _kept = keep(&node);
    node.connect(&site).await;
    eventually("it runs again", async || history(&node).totals.succeeded >= before.succeeded + 2).await;
    assert_eq!(history(&node).totals.failed, before.failed, "{:?}", history(&node));
}
