//! Deployments: a revision comes to its nodes by its strategy, is judged there, and goes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use edgeward::{
    Amount, DeploymentSpec, EdgeFunction, FunctionId, Gate, HandlerName, NativeHandler, RolloutView, Strategy, StrategyKind, Veto,
    cluster::rollout::{Approval, RolloutState},
};
use jiff::Timestamp;

use crate::{
    site::{Site, eventually},
    support::{AtHub, AtNode, native},
};

const FUNCTION: &str = "shout";

fn function() -> FunctionId {
    FunctionId::new(FUNCTION).expect("valid")
}

/// A node with handlers that answer, fail, and dawdle.
async fn start(site: &Site, hub: &AtHub, name: &str) -> AtNode {
    let node = AtNode::start(site, hub, name).await;
    register(&node);
    node
}

fn register(node: &AtNode) {
    let runtime = node.node.runtime();
    let add = |name: &str, handler| runtime.register(HandlerName::new(name).expect("valid"), handler);
    for name in ["first", "second", "third"] {
        add(name, NativeHandler::new(async move |_| Ok::<_, std::io::Error>(name.into())));
    }
    add("failing", NativeHandler::new(async |_| Err::<bytes::Bytes, _>(std::io::Error::other("it is broken"))));
    add(
        "dawdling",
        NativeHandler::new(async |_| {
            tokio::time::sleep(Duration::from_millis(60)).await;
            Ok::<_, std::io::Error>("dawdling".into())
        }),
    );
}

/// How fast calls are says nothing on a machine that is busy.
fn strategy(kind: StrategyKind) -> Strategy {
    Strategy { bake_seconds: Some(0.5), gate: Gate { p95_factor: Some(1000.0), ..Gate::default() }, ..Strategy::new(kind) }
}

async fn deploy(hub: &AtHub, handler: &str, target: &str, strategy: &Strategy) -> u64 {
    let spec = DeploymentSpec {
        target: target.parse().expect("valid"),
        strategy: strategy.clone(),
        ..DeploymentSpec::new(native(FUNCTION, handler))
    };
    let revision = hub.cluster.deployments().apply(spec, None).await.expect("applies").deployment.revision;
    // So that what is told of its rollout is not told of the one before.
    hub.cluster.deployments().until_observed(&function(), Duration::from_secs(10)).await.expect("there");
    revision
}

async fn rollout(hub: &AtHub) -> RolloutView {
    hub.cluster.deployments().rollout(FUNCTION).await.expect("there is one")
}

async fn comes_to(hub: &AtHub, to: u64, state: RolloutState) -> RolloutView {
    let mut last = None;
    eventually(&format!("the rollout to {to} is {state}"), async || {
        let found = rollout(hub).await;
        let is_there = (found.rollout.to, found.rollout.state) == (to, state);
        if last.as_ref() != Some(&found.rollout) {
            eprintln!("{:?}", found.rollout);
        }
        last = Some(found.rollout);
        is_there
    })
    .await;
    rollout(hub).await
}

/// Waits until nodes serve what this handler says and have nothing beside it.
async fn all_say(nodes: &[&AtNode], handler: &str) {
    for node in nodes {
        eventually(&format!("it says {handler}"), async || {
            node.node.runtime().invoke(FUNCTION, "").await.is_ok_and(|said| said == handler)
        })
        .await;
    }
}

/// Calls the function on nodes over and over, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<[AtomicU64; 2]>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn on(nodes: &[&AtNode]) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
        let tasks = nodes.iter().map(|node| {
            let (runtime, stop, counts) = (Arc::clone(node.node.runtime()), Arc::clone(&stop), Arc::clone(&counts));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let failed = runtime.invoke(FUNCTION, "").await.is_err();
                    counts[usize::from(failed)].fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        });
        Self { tasks: tasks.collect(), stop, counts }
    }

    /// How many calls ended well, and how many failed.
    async fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("it does not panic");
        }
        (self.counts[0].load(Ordering::Relaxed), self.counts[1].load(Ordering::Relaxed))
    }
}

/// A hub and three nodes on which the first revision serves.
async fn fleet(site: &Site, hub: &AtHub) -> [AtNode; 3] {
    let nodes = [start(site, hub, "a").await, start(site, hub, "b").await, start(site, hub, "c").await];
    let quick = Strategy { batch: Some(Amount::ALL), bake_seconds: Some(0.0), ..Strategy::default() };
    assert_eq!(deploy(hub, "first", "all", &quick).await, 1);
    comes_to(hub, 1, RolloutState::Completed).await;
    nodes
}

pub(crate) async fn a_revision_rolls_out_batch_by_batch_and_no_call_fails(site: Site) {
    let site = &site;
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(site, folder.path()).await;
    let nodes = fleet(site, &hub).await;
    let nodes: Vec<_> = nodes.iter().collect();
    for (number, (handler, kind)) in
        [("second", StrategyKind::Rolling), ("third", StrategyKind::Canary), ("first", StrategyKind::BlueGreen)].into_iter().enumerate()
    {
        let load = Load::on(&nodes);
        let revision = deploy(&hub, handler, "all", &strategy(kind)).await;
        assert_eq!(revision, [2, 3, 1][number], "what is the same is the same revision");
        comes_to(&hub, revision, RolloutState::Completed).await;
        all_say(&nodes, handler).await;
        let (well, failed) = load.stop().await;
        assert!(well > 100 && failed == 0, "{kind}: {failed} of {} failed", well + failed);
    }
    eventually("nothing is warm any more", async || {
        let view = hub.cluster.deployments().get(&function()).await.expect("there");
        nodes
            .iter()
            .all(|node| node.node.function(FUNCTION).is_ok_and(|view| view.record.deployed.is_some_and(|deployed| deployed.warm.is_none())))
            && view.nodes.ready == 3
    })
    .await;
    assert_eq!(hub.cluster.deployments().revisions(&function()).await.expect("there").len(), 3);
    assert_eq!(hub.cluster.deployments().rollouts().await.expect("there").len(), 4);
}

pub(crate) async fn a_canary_that_fails_or_dawdles_goes_back_and_no_other_node_saw_it(site: Site) {
    let site = &site;
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(site, folder.path()).await;
    let nodes = fleet(site, &hub).await;
    let nodes: Vec<_> = nodes.iter().collect();
    let load = Load::on(&nodes);
    // What comes later is judged by what was before.
    eventually("there is something to compare with", async || load.counts[0].load(Ordering::Relaxed) > 100).await;
    let canary = Strategy { gate: Gate { min_samples: Some(20), ..Gate::default() }, ..strategy(StrategyKind::Canary) };
    for (revision, handler, why) in [(2, "failing", "invocations failed"), (3, "dawdling", "the 95th percentile is")] {
        assert_eq!(deploy(&hub, handler, "all", &canary).await, revision);
        let ended = comes_to(&hub, revision, RolloutState::RolledBack).await;
        assert!(ended.rollout.reason.contains(why), "{}", ended.rollout.reason);
        all_say(&nodes, "first").await;
    }
    load.stop().await;
    let saw = |node: &AtNode| node.node.runtime().metrics().summary(edgeward::Filter::ALL).error_count > 0;
    assert_eq!(nodes.iter().filter(|node| saw(node)).count(), 1, "one of three is the canary");
}

pub(crate) async fn a_revision_that_cannot_run_goes_back_from_the_first_batch(site: Site) {
    let site = &site;
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(site, folder.path()).await;
    let nodes = fleet(site, &hub).await;
    let nodes: Vec<_> = nodes.iter().collect();
    let load = Load::on(&nodes);
    for (revision, kind) in [(2, StrategyKind::Rolling), (2, StrategyKind::BlueGreen)] {
        assert_eq!(deploy(&hub, "unknown", "all", &strategy(kind)).await, revision);
        let ended = comes_to(&hub, revision, RolloutState::RolledBack).await;
        assert!(ended.rollout.reason.contains("handler not found: `unknown`"), "{}", ended.rollout.reason);
        all_say(&nodes, "first").await;
        // The same again is to be tried again.
        deploy(&hub, "first", "all", &strategy(kind)).await;
    }
    let (_, failed) = load.stop().await;
    assert_eq!(failed, 0, "what served went on");
}

pub(crate) async fn a_node_that_was_away_takes_the_newest_only(site: Site) {
    let site = &site;
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(site, folder.path()).await;
    let [a, b, c] = fleet(site, &hub).await;
    let folder_of_c = c.stop().await;
    hub.is("c", edgeward::EdgeNodeStatus::Offline).await;
    for (revision, handler) in [(2, "second"), (3, "failing"), (4, "third")] {
        let load = Load::on(&[&a, &b]);
        assert_eq!(deploy(&hub, handler, "all", &strategy(StrategyKind::Rolling)).await, revision);
        let state = if revision == 3 { RolloutState::RolledBack } else { RolloutState::Completed };
        comes_to(&hub, revision, state).await;
        load.stop().await;
    }
    let mut c = AtNode::open("c", folder_of_c);
    let said = Arc::new(parking_lot::Mutex::new(Vec::new()));
    register(&c);
    for name in ["second", "third"] {
        let said = Arc::clone(&said);
        let handler = NativeHandler::new(move |_| {
            said.lock().push(name);
            async move { Ok::<_, std::io::Error>(name.into()) }
        });
        c.node.runtime().register(HandlerName::new(name).expect("valid"), handler);
    }
    c.node.reconcile().await;
    all_say(&[&c], "first").await;
    let load = Load::on(&[&c]);
    c.connect(site).await;
    all_say(&[&a, &b, &c], "third").await;
    assert_eq!(load.stop().await.1, 0);
    assert!(!said.lock().contains(&"second"), "it never ran what was superseded");
    eventually("its former revision goes when it has done well", async || {
        c.node.function(FUNCTION).is_ok_and(|view| view.record.deployed.is_some_and(|deployed| deployed.warm.is_none()))
    })
    .await;
}

pub(crate) async fn a_node_that_holds_keeps_what_it_runs_also_over_a_start(site: Site) {
    let site = &site;
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(site, folder.path()).await;
    let [a, b, c] = fleet(site, &hub).await;
    c.node.set_veto(Some(Veto::new("inventory", None, Timestamp::now()).expect("valid"))).await.expect("holds");
    eventually("the hub knows", async || hub.view("c").held.is_some_and(|why| why == "held: inventory")).await;
    assert_eq!(deploy(&hub, "second", "all", &strategy(StrategyKind::Rolling)).await, 2);
    comes_to(&hub, 2, RolloutState::Completed).await;
    all_say(&[&a, &b], "second").await;
    all_say(&[&c], "first").await;
    assert_eq!(hub.cluster.deployments().get(&function()).await.expect("there").nodes.pending, 1);
    let mut c = AtNode::open("c", c.stop().await);
    register(&c);
    c.node.reconcile().await;
    c.connect(site).await;
    all_say(&[&c], "first").await;
    c.node.set_veto(None).await.expect("is free");
    all_say(&[&c], "second").await;
}

pub(crate) async fn functions_of_a_number_move_before_they_leave(site: Site) {
    let site = &site;
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(site, folder.path()).await;
    let nodes = [start(site, &hub, "a").await, start(site, &hub, "b").await, start(site, &hub, "c").await];
    let quick = Strategy { batch: Some(Amount::ALL), bake_seconds: Some(0.0), ..Strategy::default() };
    deploy(&hub, "first", "count=2,capability=gpu", &quick).await;
    comes_to(&hub, 1, RolloutState::Completed).await;
    let serving = || nodes.iter().filter(|node| node.node.runtime().find(FUNCTION).is_ok()).count();
    assert_eq!(serving(), 2);
    let cluster = hub.cluster.clone();
    edgeward::blocking(move || cluster.drain_node("a", true)).await.expect("drains");
    eventually("it moved away", async || {
        assert!(serving() >= 2, "first there, then gone here");
        nodes[0].node.runtime().find(FUNCTION).is_err()
    })
    .await;
    all_say(&[&nodes[1], &nodes[2]], "first").await;
    let cluster = hub.cluster.clone();
    edgeward::blocking(move || cluster.drain_node("b", true)).await.expect("drains");
    eventually("it says what it lacks", async || {
        let missing = hub.cluster.deployments().get(&function()).await.expect("there").deployment.missing;
        missing == "1 could not be placed: of the other nodes are 2 draining"
    })
    .await;
    assert_eq!(serving(), 2, "who cannot be replaced stays");
}

pub(crate) async fn a_function_of_a_silent_node_starts_elsewhere_and_one_copy_goes_when_it_returns(site: Site) {
    let site = &site;
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(site, folder.path()).await;
    let [a, b] = [start(site, &hub, "a").await, start(site, &hub, "b").await];
    let quick = Strategy { batch: Some(Amount::ALL), bake_seconds: Some(0.0), ..Strategy::default() };
    deploy(&hub, "first", "count=1", &quick).await;
    comes_to(&hub, 1, RolloutState::Completed).await;
    let serves = |node: &AtNode| node.node.runtime().find(FUNCTION).is_ok();
    assert!(serves(&a) && !serves(&b), "with nothing to choose by, the first");
    let folder_of_a = a.stop().await;
    hub.is("a", edgeward::EdgeNodeStatus::Offline).await;
    assert!(!serves(&b), "a short silence moves nothing");
    all_say(&[&b], "first").await;
    let mut a = AtNode::open("a", folder_of_a);
    register(&a);
    a.node.reconcile().await;
    assert!(serves(&a), "its own copy serves until it hears of the other");
    a.connect(site).await;
    eventually("one copy goes", async || {
        assert!(serves(&a) || serves(&b), "and not both");
        !serves(&a) || !serves(&b)
    })
    .await;
}

pub(crate) async fn a_rollout_waits_for_approval_and_goes_on_under_another_hub_process(site: Site) {
    let site = &site;
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(site, folder.path()).await;
    let nodes = fleet(site, &hub).await;
    let nodes: Vec<_> = nodes.iter().collect();
    let careful = Strategy { approve: true, ..strategy(StrategyKind::Canary) };
    deploy(&hub, "second", "all", &careful).await;
    eventually("it waits for approval", async || rollout(&hub).await.rollout.approval == Approval::Awaited).await;
    drop(hub);
    let hub = AtHub::start(site, folder.path()).await;
    assert_eq!(rollout(&hub).await.waves[0].nodes.updated, 1);
    hub.cluster.deployments().approve(FUNCTION).await.expect("it waits for that");
    comes_to(&hub, 2, RolloutState::Completed).await;
    all_say(&nodes, "second").await;
    let back = hub.cluster.deployments().rollback(FUNCTION, None).await.expect("there is a former one");
    assert_eq!(back.deployment.revision, 1);
    comes_to(&hub, 1, RolloutState::Completed).await;
    all_say(&nodes, "first").await;
    assert!(hub.cluster.deployments().remove(&function()).await.expect("removes"));
    for node in &nodes {
        eventually("nobody has it", async || node.node.runtime().find(FUNCTION).is_err()).await;
    }
    eventually("it is forgotten", async || hub.cluster.deployments().list().await.expect("reads").is_empty()).await;
    eventually("with its rollouts", async || hub.cluster.deployments().rollouts().await.expect("reads").is_empty()).await;
}

pub(crate) async fn a_node_that_missed_that_a_deployment_was_made_anew_runs_what_that_says(site: Site) {
    let site = &site;
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(site, folder.path()).await;
    let [a, b, c] = fleet(site, &hub).await;
    // It lives on, and hears nothing.
    let mut c = c;
    c.disconnect();
    hub.is("c", edgeward::EdgeNodeStatus::Offline).await;
    assert!(hub.cluster.deployments().remove(&function()).await.expect("removes"));
    eventually("it is forgotten", async || hub.cluster.deployments().rollouts().await.expect("reads").is_empty()).await;
    assert_eq!(deploy(&hub, "second", "all", &strategy(StrategyKind::Rolling)).await, 1, "the numbers begin anew");
    comes_to(&hub, 1, RolloutState::Completed).await;
    all_say(&[&a, &b], "second").await;
    all_say(&[&c], "first").await;
    c.connect(site).await;
    all_say(&[&c], "second").await;
}

pub(crate) async fn a_first_revision_that_fails_is_taken_away(site: Site) {
    let site = &site;
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(site, folder.path()).await;
    let node = start(site, &hub, "a").await;
    let load = Load::on(&[&node]);
    deploy(&hub, "failing", "all", &strategy(StrategyKind::Rolling)).await;
    let ended = comes_to(&hub, 1, RolloutState::Failed).await;
    load.stop().await;
    assert!(ended.rollout.reason.contains("invocations failed"), "{}", ended.rollout.reason);
    eventually("it is gone", async || node.node.runtime().find(FUNCTION).is_err()).await;
    deploy(&hub, "first", "all", &strategy(StrategyKind::Rolling)).await;
    comes_to(&hub, 2, RolloutState::Completed).await;
    all_say(&[&node], "first").await;
}

pub(crate) async fn what_a_deployment_cares_for_is_not_assigned_by_itself(site: Site) {
    let site = &site;
    let folder = tempfile::tempdir().expect("a folder");
    let hub = AtHub::start(site, folder.path()).await;
    let node = start(site, &hub, "a").await;
    hub.cluster.deploy_to_node("a", native(FUNCTION, "first")).await.expect("assigns");
    hub.serves("a", FUNCTION).await;
    // What it had by itself is the former revision.
    let revision = deploy(&hub, "failing", "all", &Strategy { approve: true, ..strategy(StrategyKind::Rolling) }).await;
    assert_eq!(revision, 2);
    let load = Load::on(&[&node]);
    comes_to(&hub, 2, RolloutState::RolledBack).await;
    load.stop().await;
    all_say(&[&node], "first").await;
    let error = hub.cluster.deploy_to_all(native(FUNCTION, "second")).await.expect_err("it is a deployment's");
    assert!(error.to_string().contains("`edgeward deployments remove shout`"), "{error}");
    let error = hub.cluster.undeploy_from_all(&function()).await.expect_err("it is a deployment's");
    assert_eq!(error.kind(), edgeward::ErrorKind::Conflict);
    let other: EdgeFunction = native("other", "first");
    hub.cluster.deploy_to_all(other).await.expect("another is not");
}

/// Code of which no two invocations may run at once, wherever: it counts those that do.
#[derive(Clone, Default)]
struct Alone {
    running: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
}

impl Alone {
    fn handler(&self, name: &'static str) -> NativeHandler {
        let this = self.clone();
        NativeHandler::new(move |_| {
            let this = this.clone();
            async move {
                this.most.fetch_max(this.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                this.running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, std::io::Error>(name.into())
            }
        })
    }
}

pub(crate) async fn of_a_function_for_one_node_no_two_ever_run_it(site: Site) {
    let site = &site;
    let folder = tempfile::tempdir().expect("a folder");
    let mut hub = AtHub::start(site, folder.path()).await;
    let alone = Alone::default();
    let handler = || HandlerName::new("alone").expect("valid");
    let mut a = AtNode::start(site, &hub, "a").await;
    let b = AtNode::start(site, &hub, "b").await;
    a.node.runtime().register(handler(), alone.handler("a"));
    b.node.runtime().register(handler(), alone.handler("b"));
    let function = EdgeFunction { max_concurrency: 1, timeout_seconds: 1.0, ..native(FUNCTION, "alone") };
    let spec = |target: &str| DeploymentSpec { target: target.parse().expect("valid"), ..DeploymentSpec::new(function.clone()) };
    hub.cluster.deployments().apply(spec("one"), None).await.expect("applies");
    let load = Load::on(&[&a, &b]);
    let says = async |node: &AtNode| node.node.runtime().invoke(FUNCTION, "").await.is_ok();
    eventually("one of them runs it", async || says(&a).await).await;
    assert!(!says(&b).await, "nobody deployed it there");

    // Moved, it ends on the one before it begins on the other.
    let drain = async |hub: &AtHub, node: &'static str, draining| {
        let cluster = hub.cluster.clone();
        edgeward::blocking(move || cluster.drain_node(node, draining)).await.expect("there");
    };
    drain(&hub, "a", true).await;
    eventually("the other runs it", async || says(&b).await).await;
    assert!(!says(&a).await);
    drain(&hub, "b", true).await;
    drain(&hub, "a", false).await;
    eventually("the first runs it again", async || says(&a).await).await;
    drain(&hub, "b", false).await;
    let holder = hub.cluster.deployments().get(&self::function()).await.expect("there").lease;
    assert_eq!(holder.map(|node| node.to_string()), Some("a".to_owned()));

    // A hub that starts again goes on with who has it.
    drop(hub);
    hub = AtHub::start(site, folder.path()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(says(&a).await, "it has its lease still");

    // One that is cut off ends by itself, and only then does the other begin.
    a.disconnect();
    let holder = async || hub.cluster.deployments().get(&self::function()).await.expect("there").lease;
    eventually("the lease of the first lapses", async || holder().await.is_none_or(|node| node.as_str() != "a")).await;
    eventually("the other runs it", async || says(&b).await).await;
    assert!(!says(&a).await, "its lease lapsed");
    a.connect(site).await;
    eventually("it is taken from the first", async || hub.says("a", FUNCTION).is_none()).await;
    assert!(says(&b).await);

    // Without the promise it may run on both.
    hub.cluster.deployments().apply(spec("all"), None).await.expect("applies");
    assert_eq!(alone.most.load(Ordering::SeqCst), 1, "two ran at once");
    eventually("both run it", async || says(&a).await && says(&b).await).await;
    let (well, _) = load.stop().await;
    assert!(well > 50, "{well} calls ended well, which says little");
}
