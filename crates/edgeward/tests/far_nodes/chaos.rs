//! Experiments on a real fleet: faults come, are seen, and go.

use std::time::Duration;

use edgeward::{
    DocumentName, EdgeFunction, EdgeNodeStatus, ErrorKind, EventKind, FunctionId, HandlerName, NativeHandler, Resilience,
    chaos::{Experiment, Phase, Report, Scenario, Verdict},
};
use edgeward_model::Breaker;
use tokio::time::Instant;

use crate::{
    site::{Site, eventually},
    support::{AtHub, AtNode, id, native, set},
};

const NODES: [&str; 3] = ["edge-01", "edge-02", "edge-03"];

/// A hub and three nodes that allow everything but the end of this process, with the function `double` on each.
async fn fleet(site: &Site, folder: &std::path::Path) -> (AtHub, Vec<AtNode>) {
    let hub = AtHub::start(site, folder).await;
    hub.cluster.allow_chaos();
    let mut nodes = Vec::new();
    for name in NODES {
        nodes.push(join(site, &hub, name, true).await);
    }
    // Nodes that failed are tried again soon.
    let breaker = Breaker { open_seconds: Some(0.5), open_seconds_max: Some(1.0), ..Breaker::default() };
    let resilience = Resilience { breaker, ..Resilience::default() };
    hub.cluster.deploy_to_all(EdgeFunction { resilience, ..native("double", "double") }).await.expect("assigned");
    for name in NODES {
        hub.serves(name, "double").await;
    }
    (hub, nodes)
}

async fn join(site: &Site, hub: &AtHub, name: &str, allows: bool) -> AtNode {
    hub.cluster.admit(&id(name), None).expect("joins");
    let mut node = AtNode::open(name, tempfile::tempdir().expect("a folder"));
    if allows {
        node.node.chaos().allow(None);
    }
    node.connect(site).await;
    hub.is(name, EdgeNodeStatus::Online).await;
    node
}

fn experiment(name: &str, duration_seconds: u32, more: &str) -> Experiment {
    let text = format!(
        r#"
            name = "{name}"
            before_seconds = 3
            duration_seconds = {duration_seconds}
            [[load]]
            function = "double"
            per_second = 50
            payload = "21"
            [[steady_state]]
            probe = "success_rate"
            function = "double"
            at_least_percent = 90
            {more}
        "#
    );
    Experiment::read(name, &text).expect("valid")
}

async fn run(hub: &AtHub, experiment: Experiment) -> Report {
    hub.cluster.chaos().run(experiment).await.expect("it begins")
}

pub(crate) async fn an_experiment_holds_or_breaks_and_its_report_stays(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let (hub, nodes) = fleet(&site, folder.path()).await;
    let late = r#"
        [[fault]]
        kind = "latency"
        blast_radius = "100%"
        delay_ms = 100
        duration_seconds = 2
        [[steady_state]]
        probe = "p95"
        function = "double"
        at_most_ms = 5000
    "#;
    let held = run(&hub, experiment("late", 4, late)).await;
    assert_eq!(held.verdict, Verdict::Held, "{}", held.to_markdown());
    let slowest = held.points.iter().filter_map(|point| point.p95_ms.values().copied().reduce(f64::max)).fold(0.0, f64::max);
    assert!(slowest > 100.0, "calls were late: {}", held.to_markdown());

    let failing = r#"
        [[fault]]
        kind = "error"
        blast_radius = "100%"
        function = "double"
        duration_seconds = 2
    "#;
    let broken = run(&hub, experiment("failing", 4, failing)).await;
    assert_eq!(broken.verdict, Verdict::Broken, "{}", broken.to_markdown());
    assert_eq!(broken.faults[0].nodes.len(), 3);
    assert!(broken.hypotheses[0].recovered_after_seconds.is_some(), "{}", broken.to_markdown());
    assert!(nodes.iter().all(|node| node.node.chaos().injected().is_empty()));

    let listed = hub.cluster.chaos().list().await.expect("reads");
    let listed: Vec<_> = listed.iter().map(|view| (view.id.as_str(), view.phase, view.verdict)).collect();
    assert_eq!(listed, [("failing:1", Phase::Ended, Some(Verdict::Broken)), ("late:1", Phase::Ended, Some(Verdict::Held))]);
    for (kind, count) in [(EventKind::ExperimentChanged, 4), (EventKind::FaultChanged, 12)] {
        // The nodes tell of each fault that it began and that it ended.
        eventually(&format!("{kind:?} is told"), async || hub.events(kind).len() == count).await;
    }
    drop(hub);
    let hub = AtHub::start(&site, folder.path()).await;
    let kept = hub.cluster.chaos().report("late:1").await.expect("it stays over a start");
    assert_eq!((kept.verdict, kept.started_at), (Verdict::Held, held.started_at));
    assert_eq!(hub.cluster.chaos().report("none:1").await.expect_err("never run").kind(), ErrorKind::NotFound);
}

pub(crate) async fn an_experiment_ends_when_it_is_too_bad_or_somebody_says_so(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let (hub, nodes) = fleet(&site, folder.path()).await;
    let failing = r#"
        [[fault]]
        kind = "error"
        blast_radius = "100%"
        duration_seconds = 600
        [[abort]]
        probe = "success_rate"
        function = "double"
        at_least_percent = 50
        for_seconds = 1
    "#;
    let begun = Instant::now();
    let report = run(&hub, experiment("endless", 601, failing)).await;
    assert_eq!(report.verdict, Verdict::Aborted, "{}", report.to_markdown());
    assert!(report.reason.contains("success rate of double") && begun.elapsed() < Duration::from_mins(1), "{}", report.reason);
    assert!(nodes.iter().all(|node| node.node.chaos().injected().is_empty()), "its faults ended with it");

    let chaos = hub.cluster.chaos();
    // What failed may be given no calls for a moment, so none are made.
    let quiet = || {
        let text = r#"
            name = "quiet"
            before_seconds = 1
            duration_seconds = 601
            [[fault]]
            kind = "error"
            blast_radius = "100%"
            duration_seconds = 600
            [[steady_state]]
            probe = "nodes_online"
            at_least = 1
        "#;
        Experiment::read("quiet", text).expect("valid")
    };
    let id = chaos.start(quiet()).await.expect("begins").id;
    eventually("every node injects", async || nodes.iter().all(|node| !node.node.chaos().injected().is_empty())).await;
    let other = chaos.start(quiet()).await.expect_err("one at a time");
    assert!(other.kind() == ErrorKind::Conflict && other.to_string().contains(&id), "{other}");
    let stopped = chaos.stop(&id, "enough is seen").await.expect("it runs");
    assert_eq!((stopped.phase, stopped.verdict, stopped.reason.as_str()), (Phase::Ended, Some(Verdict::Aborted), "enough is seen"));
    assert!(nodes.iter().all(|node| node.node.chaos().injected().is_empty()));
    assert_eq!(chaos.stop(&id, "again").await.expect("it is over").reason, "enough is seen");
}

pub(crate) async fn nodes_that_an_experiment_cuts_off_serve_on_and_catch_up(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let (hub, nodes) = fleet(&site, folder.path()).await;
    let at_hub = hub.cluster.documents().document(DocumentName::new("prices").expect("valid"));
    set(&at_hub, "tea", 1).await;
    for node in &nodes {
        eventually("it has the document", async || node.document("prices").info().expect("reads").is_some()).await;
    }
    // As it comes with the product, in less time.
    let (function, document) = (FunctionId::new("double").expect("valid"), DocumentName::new("prices").expect("valid"));
    let text = Scenario::Partition.text(&function, &document, 3);
    let short = text.replace("duration_seconds = 105", "duration_seconds = 14").replace("duration_seconds = 40", "duration_seconds = 6");
    let mut short = Experiment::read("partition", &short).expect("valid");
    (short.before_seconds, short.faults[0].begins_after_seconds) = (1, 0);
    "21".clone_into(&mut short.loads[0].payload);
    let chaos = hub.cluster.chaos();
    let begun = chaos.start(short).await.expect("begins").id;
    eventually("one node is cut off", async || nodes.iter().any(|node| !node.node.chaos().injected().is_empty())).await;
    let cut = nodes.iter().find(|node| !node.node.chaos().injected().is_empty()).expect("just seen");
    let name = cut.node.runtime().node().id.to_string();
    hub.is(&name, EdgeNodeStatus::Offline).await;
    assert_eq!(cut.invoke("double", "4").await, "8", "it serves on");
    set(&cut.document("prices"), "salt", 2).await;
    set(&at_hub, "milk", 3).await;
    hub.is(&name, EdgeNodeStatus::Online).await;
    chaos.until_ended(&begun).await.expect("it ends");
    let report = chaos.report(&begun).await.expect("kept");
    assert_eq!(report.verdict, Verdict::Held, "{}", report.to_markdown());
    let converged = &report.hypotheses[2];
    assert_ne!(converged.during, "always", "they differed meanwhile: {}", report.to_markdown());
    assert_eq!(at_hub.get("salt").expect("reads"), Some(2_i64.into()));
    assert_eq!(cut.document("prices").get("milk").expect("reads"), Some(3_i64.into()));
}

pub(crate) async fn what_cannot_be_an_experiment_is_refused_before_anything_happens(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let (hub, _nodes) = fleet(&site, folder.path()).await;
    let chaos = hub.cluster.chaos();
    let refused = async |more: &str| chaos.start(experiment("bad", 4, more)).await.expect_err(more);
    let fault = |keys: &str| format!("[[fault]]\nduration_seconds = 2\n{keys}");
    let error = refused(&fault("kind = \"timeout\"\nfunction = \"ghost\"")).await;
    assert_eq!(error.to_string(), "experiment `bad`, fault 1: there is no function `ghost`; there are `double`");
    let error = refused(&fault("kind = \"timeout\"\nnodes = \"site=paris\"")).await;
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("no node meets"), "{error}");
    let error = refused(&fault("kind = \"crash\"")).await;
    assert!(error.to_string().contains("part of another program"), "{error}");
    let error = refused(&fault("kind = \"partition\"\nbetween = [\"node=edge-01\", \"node=edge-02\"]")).await;
    assert!(error.to_string().contains("write `hub` as one side"), "{error}");

    let _closed = join(&site, &hub, "edge-04", false).await;
    let error = refused(&fault("kind = \"timeout\"")).await;
    assert!(error.kind() == ErrorKind::Forbidden && error.to_string().contains("`edge-04`"), "{error}");
    let open =
        experiment("open", 2, "[[fault]]\nkind = \"latency\"\ndelay_ms = 1\nduration_seconds = 1\nnodes = \"node=edge-01,node=edge-02\"");
    assert_eq!(run(&hub, open.clone()).await.verdict, Verdict::Held, "nodes that it is not for need not allow it");
    assert_eq!(chaos.list().await.expect("reads").len(), 1, "what was refused is no experiment");
    drop((chaos, hub));
    let hub = AtHub::start(&site, folder.path()).await;
    let error = hub.cluster.chaos().start(open).await.expect_err("this hub allows none");
    assert!(error.kind() == ErrorKind::Forbidden && error.to_string().contains("--allow-chaos"), "{error}");
}

pub(crate) async fn faults_end_by_themselves_when_their_hub_is_gone(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let (hub, nodes) = fleet(&site, folder.path()).await;
    let fault = "[[fault]]\nkind = \"error\"\nblast_radius = \"100%\"\nduration_seconds = 4";
    hub.cluster.chaos().start(experiment("alone", 10, fault)).await.expect("begins");
    eventually("every node injects", async || nodes.iter().all(|node| !node.node.chaos().injected().is_empty())).await;
    drop(hub);
    let calls = nodes[0].node.runtime().invoke("double", "1").await;
    assert!(calls.is_err(), "nobody ended it");
    eventually("all have ended", async || nodes.iter().all(|node| node.node.chaos().injected().is_empty())).await;
    assert_eq!(nodes[0].invoke("double", "1").await, "2");
}

pub(crate) async fn a_hub_that_starts_again_ends_what_it_left_behind(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let (hub, nodes) = fleet(&site, folder.path()).await;
    let fault = "[[fault]]\nkind = \"error\"\nblast_radius = \"100%\"\nduration_seconds = 600";
    hub.cluster.chaos().start(experiment("left", 601, fault)).await.expect("begins");
    eventually("every node injects", async || nodes.iter().all(|node| !node.node.chaos().injected().is_empty())).await;
    drop(hub);
    let hub = AtHub::start(&site, folder.path()).await;
    eventually("all have ended", async || nodes.iter().all(|node| node.node.chaos().injected().is_empty())).await;
    let left = hub.cluster.chaos().get("left:1").await.expect("it is known");
    assert_eq!((left.phase, left.verdict, left.reason.as_str()), (Phase::Ended, Some(Verdict::Aborted), "its hub ended with it"));
}

pub(crate) async fn a_fault_that_met_no_node_is_not_borne(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let (hub, mut nodes) = fleet(&site, folder.path()).await;
    let fault = |begins_after_seconds: u32, duration_seconds: u32| {
        format!(
            "[[fault]]\nkind = \"latency\"\ndelay_ms = 10\nnodes = \"node=edge-03\"\nbegins_after_seconds = {begins_after_seconds}\nduration_seconds = {duration_seconds}"
        )
    };
    let begun = hub.cluster.chaos().start(experiment("away", 4, &fault(1, 2))).await.expect("begins").id;
    nodes[2].disconnect();
    hub.cluster.chaos().until_ended(&begun).await.expect("ends");
    let report = hub.cluster.chaos().report(&begun).await.expect("kept");
    assert_eq!((report.verdict, report.reason.as_str()), (Verdict::Inconclusive, "fault 1 was injected on no node"));
    // One that is back in time is hit.
    nodes[2].connect(&site).await;
    hub.is("edge-03", EdgeNodeStatus::Online).await;
    let begun = hub.cluster.chaos().start(experiment("back", 40, &fault(1, 30))).await.expect("begins").id;
    nodes[2].disconnect();
    eventually("its time has come", async || hub.cluster.chaos().get(&begun).await.expect("it runs").phase == Phase::Faults).await;
    nodes[2].connect(&site).await;
    eventually("it is hit", async || !nodes[2].node.chaos().injected().is_empty()).await;
    hub.cluster.chaos().stop(&begun, "enough is seen").await.expect("it runs");
    assert!(nodes[2].node.chaos().injected().is_empty());
}

pub(crate) async fn calls_that_are_under_way_at_the_end_are_waited_for(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let (hub, nodes) = fleet(&site, folder.path()).await;
    for node in &nodes {
        let slow = NativeHandler::json(async |n: i64| {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            Ok::<_, std::io::Error>(n)
        });
        node.node.runtime().register(HandlerName::new("slow").expect("valid"), slow);
    }
    hub.cluster.deploy_to_all(native("slow", "slow")).await.expect("assigned");
    for name in NODES {
        hub.serves(name, "slow").await;
    }
    let text = r#"
        name = "slow"
        before_seconds = 3
        duration_seconds = 3
        [[load]]
        function = "slow"
        per_second = 20
        payload = "21"
        [[fault]]
        kind = "error"
        function = "double"
        duration_seconds = 1
        [[steady_state]]
        probe = "success_rate"
        function = "slow"
        at_least_percent = 99
    "#;
    let report = run(&hub, Experiment::read("slow", text).expect("valid")).await;
    assert_eq!(report.verdict, Verdict::Held, "{}", report.to_markdown());
    let last = report.points.last().expect("it was looked");
    assert!(last.success_percent.values().eq(&[100.0]), "what was due in the last second has ended: {}", report.to_markdown());
}

pub(crate) async fn what_fails_on_one_node_counts_when_calls_of_a_load_may_not_run_twice(site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let (hub, _nodes) = fleet(&site, folder.path()).await;
    let text = r#"
        name = "one-fails"
        before_seconds = 3
        duration_seconds = 4
        [[load]]
        function = "double"
        per_second = 50
        payload = "21"
        [[fault]]
        kind = "error"
        duration_seconds = 2
        [[steady_state]]
        probe = "success_rate"
        function = "double"
        at_least_percent = 99.9
    "#;
    let twice = run(&hub, Experiment::read("twice", text).expect("valid")).await;
    assert_eq!(twice.verdict, Verdict::Held, "another node took what failed: {}", twice.to_markdown());
    let once = text.replace("per_second = 50", "per_second = 50\nidempotent = false");
    let once = run(&hub, Experiment::read("once", &once).expect("valid")).await;
    assert_eq!(once.verdict, Verdict::Broken, "nobody else took it: {}", once.to_markdown());
}
