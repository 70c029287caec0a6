//! Deployments to nodes of one process.

use std::time::Duration;

use edgeward::{
    Amount, DeploymentSpec, EdgeCluster, EdgeFunction, EdgeNode, ErrorKind, FunctionId, Handler, HandlerName, NativeHandler, Strategy,
    Target,
    cluster::rollout::{Rollout, RolloutState},
    signing::SigningKey,
};

/// Longest wait for a rollout.
const PATIENCE: Duration = Duration::from_secs(30);

fn id() -> FunctionId {
    FunctionId::new("f").expect("valid")
}

fn function(handler: &str) -> EdgeFunction {
    EdgeFunction::new("f", "f", Handler::Native(HandlerName::new(handler).expect("valid"))).expect("valid")
}

/// To all nodes at once.
fn spec(handler: &str) -> DeploymentSpec {
    let strategy = Strategy { batch: Some(Amount::ALL), bake_seconds: Some(0.0), ..Strategy::default() };
    DeploymentSpec { strategy, ..DeploymentSpec::new(function(handler)) }
}

/// A cluster with these nodes, on which every handler of these is there.
fn cluster(nodes: &[&str], handlers: &[&'static str]) -> EdgeCluster {
    let cluster = EdgeCluster::new().expect("opens");
    for node in nodes {
        cluster.register_node(EdgeNode::new(*node, "test").expect("valid")).expect("registers");
        for handler in handlers {
            add(&cluster, node, handler);
        }
    }
    cluster
}

fn add(cluster: &EdgeCluster, node: &str, handler: &'static str) {
    let says = NativeHandler::new(async move |_| Ok::<_, std::io::Error>(handler.into()));
    cluster.get_runtime(node).expect("there").register(HandlerName::new(handler).expect("valid"), says).expect("it is here");
}

/// Deploys, and returns the generation.
async fn deploy(cluster: &EdgeCluster, spec: DeploymentSpec) -> u64 {
    cluster.deployments().apply(spec, None).await.expect("applies").deployment.generation
}

async fn ends(cluster: &EdgeCluster) -> Rollout {
    cluster.deployments().until_settled(&id(), PATIENCE).await.expect("in time").rollout
}

/// What the function answers on a node; nothing where it does not run.
async fn says(cluster: &EdgeCluster, node: &str) -> Option<String> {
    let answer = cluster.get_runtime(node).expect("there").invoke("f", "").await.ok()?;
    Some(String::from_utf8(answer.to_vec()).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_went_back_is_rolled_out_anew_when_it_is_deployed_again() {
    let cluster = cluster(&["a"], &["first"]);
    let _steering = cluster.steer();
    deploy(&cluster, spec("first")).await;
    assert_eq!(ends(&cluster).await.state, RolloutState::Completed);
    let failed = deploy(&cluster, spec("late")).await;
    assert_eq!(ends(&cluster).await.state, RolloutState::RolledBack);
    add(&cluster, "a", "late");
    let again = deploy(&cluster, spec("late")).await;
    assert!(again > failed, "{again}");
    let rollout = ends(&cluster).await;
    assert_eq!((rollout.generation, rollout.from, rollout.to, rollout.state), (again, Some(1), 2, RolloutState::Completed));
    assert_eq!(deploy(&cluster, spec("late")).await, again, "it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_revision_that_failed_is_rolled_out_anew_when_it_is_deployed_again() {
    let cluster = cluster(&["a"], &[]);
    let _steering = cluster.steer();
    let failed = deploy(&cluster, spec("late")).await;
    assert_eq!(ends(&cluster).await.state, RolloutState::Failed);
    add(&cluster, "a", "late");
    assert!(deploy(&cluster, spec("late")).await > failed);
    assert_eq!(ends(&cluster).await.state, RolloutState::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_revision_that_is_superseded_serves_on_until_the_next_is_there() {
    let cluster = cluster(&["a", "b"], &["first", "second"]);
    let _steering = cluster.steer();
    let careful = Strategy { batch: Some(Amount::Count(1)), bake_seconds: Some(600.0), ..Strategy::default() };
    deploy(&cluster, DeploymentSpec { strategy: careful, ..spec("first") }).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let pause = || async {
        assert!(tokio::time::Instant::now() < deadline, "it takes too long");
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    while says(&cluster, "a").await.as_deref() != Some("first") {
        pause().await;
    }
    deploy(&cluster, spec("second")).await;
    loop {
        match says(&cluster, "a").await.as_deref() {
            Some("first") => pause().await,
            Some("second") => break,
            other => panic!("it says {other:?}"),
        }
    }
    let rollout = ends(&cluster).await;
    assert_eq!((rollout.from, rollout.to, rollout.state), (None, 2, RolloutState::Completed));
    assert_eq!(says(&cluster, "b").await.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_function_that_would_not_fit_beside_the_one_before_is_refused_also_by_a_plan() {
    let cluster = cluster(&["a"], &["first"]);
    let mut large = spec("first");
    large.function.environment = [("LARGE", "\u{1}".repeat(21_000))].into_iter().collect();
    let deployments = cluster.deployments();
    let error = deployments.plan(large.clone()).await.expect_err("too large");
    assert_eq!(deployments.apply(large, None).await.expect_err("too large").to_string(), error.to_string());
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("the function of the deployment of function `f` takes 126"), "{error}");
}

#[tokio::test]
async fn what_could_not_be_read_again_is_not_deployed() {
    let cluster = cluster(&["a"], &["first"]);
    let deployments = cluster.deployments();
    let batch = Strategy { batch: Some(Amount::Percent(200)), ..Strategy::default() };
    for refused in [
        DeploymentSpec { target: Target::Nodes(std::collections::BTreeSet::new()), ..spec("first") },
        DeploymentSpec { strategy: batch, ..spec("first") },
    ] {
        assert_eq!(deployments.apply(refused.clone(), None).await.expect_err("refused").kind(), ErrorKind::InvalidInput, "{refused:?}");
        assert!(deployments.plan(refused).await.is_err() && deployments.list().await.expect("reads").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_not_taken_for_a_function_whose_id_looks_like_it() {
    let cluster = cluster(&["a"], &["first"]);
    let _steering = cluster.steer();
    let generation = deploy(&cluster, spec("first")).await;
    ends(&cluster).await;
    let other = format!("f-{generation}");
    let function = EdgeFunction { id: FunctionId::new(&other).expect("valid"), ..function("first") };
    cluster.deployments().apply(DeploymentSpec::new(function), None).await.expect("applies");
    let of = async |id: &str| cluster.deployments().rollout(id).await.expect("there").rollout.function.to_string();
    assert_eq!((of(&other).await, of(&format!("f:{generation}")).await), (other, "f".to_owned()));
    for unknown in ["f:", "f:x", ":1", "f:1:1"] {
        assert_eq!(cluster.deployments().rollout(unknown).await.expect_err("unknown").kind(), ErrorKind::NotFound, "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_is_at_once_and_the_strategy_stays() {
    let cluster = cluster(&["a", "b"], &["first", "second", "third"]);
    let _steering = cluster.steer();
    let careful = Strategy { approve: true, bake_seconds: Some(600.0), batch: Some(Amount::Count(1)), ..Strategy::default() };
    deploy(&cluster, spec("first")).await;
    ends(&cluster).await;
    deploy(&cluster, spec("second")).await;
    ends(&cluster).await;
    deploy(&cluster, DeploymentSpec { strategy: careful.clone(), ..spec("second") }).await;
    let back = cluster.deployments().rollback("f", None).await.expect("there is a former one");
    assert_eq!((back.deployment.revision, &back.deployment.strategy), (1, &careful));
    let rollout = ends(&cluster).await;
    assert_eq!((rollout.to, rollout.state, rollout.at_once), (1, RolloutState::Completed, true));
    deploy(&cluster, DeploymentSpec { strategy: careful, ..spec("third") }).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while cluster.deployments().rollout("f").await.expect("there").rollout.to != 3 {
        assert!(tokio::time::Instant::now() < deadline, "it does not begin");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!cluster.deployments().rollout("f").await.expect("there").rollout.at_once);
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_to_an_image_that_nodes_would_refuse_is_refused_with_what_to_do() {
    let cluster = cluster(&["a"], &[]);
    let _steering = cluster.steer();
    let key = SigningKey::generate().expect("random");
    cluster.trust_key(key.public_key(), "release".to_owned()).expect("trusts");
    for counter in [1, 2] {
        let module = format!(r#"(module $release{counter} (memory (export "memory") 1) (func (export "_start")))"#);
        let artifact = cluster.add_artifact(wat::parse_str(module).expect("valid")).await.expect("runs here");
        let function = EdgeFunction { handler: Handler::Artifact(artifact), ..function("none") };
        let signature = Some(key.sign(&function.id, &artifact, counter));
        deploy(&cluster, DeploymentSpec { function: EdgeFunction { signature, ..function }, ..spec("none") }).await;
        assert_eq!(ends(&cluster).await.state, RolloutState::Completed);
    }
    let error = cluster.deployments().rollback("f", None).await.expect_err("it is old");
    assert!(error.kind() == ErrorKind::RefusedArtifact && error.to_string().contains("with a counter of 2 or more"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_had_different_functions_by_themselves_go_back_to_their_own() {
    let cluster = cluster(&["a", "b", "c"], &["first", "second", "third"]);
    let _steering = cluster.steer();
    for (node, handler) in [("a", "first"), ("b", "second")] {
        cluster.deploy_to_node(node, function(handler)).await.expect("assigns");
    }
    let planned = cluster.deployments().plan(spec("second")).await.expect("plans");
    assert_eq!((planned.revision, planned.is_new, planned.from), (2, false, Some(2)));
    let planned = cluster.deployments().plan(spec("missing")).await.expect("plans");
    assert_eq!((planned.revision, planned.is_new, planned.from), (3, true, None));
    deploy(&cluster, spec("missing")).await;
    let rollout = ends(&cluster).await;
    assert_eq!((rollout.from, rollout.to, rollout.state), (None, 3, RolloutState::Failed));
    let all = async || [says(&cluster, "a").await, says(&cluster, "b").await, says(&cluster, "c").await];
    assert_eq!(all().await, [Some("first".to_owned()), Some("second".to_owned()), None]);
    deploy(&cluster, spec("third")).await;
    assert_eq!(ends(&cluster).await.state, RolloutState::Completed);
    assert_eq!(all().await, [Some("third".to_owned()), Some("third".to_owned()), Some("third".to_owned())]);
}
