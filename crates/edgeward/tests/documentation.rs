//! The Rust snippets of the documentation, each in a function with what it takes for granted. What the pages show is what is compiled here, and
//! what needs neither a network nor a minute is run.

use std::{error::Error, fs, path::Path, sync::Arc, time::Duration};

use edgeward::{
    Balance, CallOptions, ContentMode, Digest, EdgeCluster, EdgeFunction, EdgeNode, FleetHub, FunctionId, Handler, Message, MqttOptions,
    Node, NodeOptions, Precondition, Received, Resilience, Schedule, ScheduleId, Start, Terms, TopicFilter, TopicName, Trigger, TriggerId,
    access::Tokens,
    chaos::Scenario,
    listener::{Listener, Tls},
    serve_mqtt,
};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type Done = Result<(), Box<dyn Error>>;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[expect(unused_variables, reason = "a reader has a use for what it gives")]
async fn readme_functions() -> Done {
    use edgeward::{EdgeFunction, EdgeNode, EdgeRuntime, Filter, Handler};

    let node = EdgeNode::new("edge-01", "warehouse-sensor")?;
    let runtime = EdgeRuntime::new(node);
    let digest = runtime.add_artifact(std::fs::read("daily-stats.wasm")?).await?;
    runtime.deploy(EdgeFunction::new("fn-1", "daily-stats", Handler::Artifact(digest))?).await?;
    let json = runtime.invoke("fn-1", std::fs::read("sf-temps.csv")?).await?;
    println!("{} invocations, {} % fine", runtime.metrics().total_invocations(Filter::ALL), runtime.metrics().success_rate(Filter::ALL));
    runtime.undeploy("fn-1");
    Ok(())
}

#[expect(unused_variables, reason = "a reader has a use for what it gives")]
fn readme_state() -> Done {
    use edgeward::{EdgeSynchronizer, Object, SyncState};

    let sync = EdgeSynchronizer::open("state")?; // or `new()`, in memory
    let state = sync.update_local(Object::from_iter([("temperature", 21.5)]))?; // on disk when it returns
    for change in sync.get_pending_changes()? { /* send it */ }
    sync.confirm_sync(state.version)?;
    sync.apply_remote(&SyncState::from_data(Object::from_iter([("temperature", 19.0)]), 7)?)?; // true: it is newer
    Ok(())
}

async fn routing(cluster: EdgeCluster, digest: Digest) -> Result<String, Box<dyn Error>> {
    let function = EdgeFunction::new("price", "price", Handler::Artifact(digest))?;
    let resilience = Resilience { balance: Balance::LeastConnections, deadline_seconds: Some(2.0), ..Resilience::default() };
    cluster.deploy_to_all(EdgeFunction { resilience, ..function }).await?;
    let terms = Terms { left: Some(Duration::from_millis(500)), is_idempotent: true };
    let answer = cluster.call(&FunctionId::new("price")?, r#"{"item": 7}"#, CallOptions::default(), terms).await?;
    for route in cluster.routes()? {
        println!("{}: {} calls, {} retries", route.function, route.calls, route.retries);
    }
    Ok(String::from_utf8(answer.body.to_vec())?)
}

#[expect(dead_code, unused_variables, reason = "it needs a hub, and a reader has a use for what it gives")]
async fn topics_of_a_fleet(hub: &FleetHub) -> Done {
    let topics = hub.cluster().topics()?;
    let position = topics.publish(Message::new(TopicName::new("prices/power")?, "0.31", Timestamp::now())).await?;
    let mut subscription = topics.subscribe(&[TopicFilter::new("site/+/temp")?], Start::At(1))?;
    let received = subscription.next().await?;
    Ok(())
}

#[expect(dead_code, unused_variables, reason = "it needs a certificate, and a reader has a use for what it gives")]
async fn topics(node: Arc<Node>, tls: Arc<Tls>, tokens: Arc<Tokens>, stop: CancellationToken) -> Done {
    let topics = node.topics();
    let topic = TopicName::new("site/berlin/temp")?;
    let position = topics.publish(Message::new(topic, "21.5", Timestamp::now())).await?;
    let mut subscription = topics.subscribe(&[TopicFilter::new("site/+/temp")?], Start::At(position))?;
    while let Received::Message(message) = subscription.next().await? { /* … */ }

    let mut trigger = Trigger::new(TriggerId::new("average")?, FunctionId::new("average")?, vec![TopicFilter::new("site/+/temp")?]);
    trigger.mode = ContentMode::Structured;
    topics.put_trigger(trigger).await?;
    tokio::spawn({
        let (node, stop) = (Arc::clone(&node), stop.clone());
        async move { node.topics().run_triggers(stop).await }
    });

    let listener = Listener::new(TcpListener::bind("0.0.0.0:8883").await?, Some(tls))?;
    serve_mqtt(&node, listener, MqttOptions { tokens }, stop).await;
    Ok(())
}

#[expect(unused_variables, reason = "a reader has a use for what it gives")]
async fn schedules(node: Arc<Node>, stop: CancellationToken) -> Done {
    let schedule = Schedule::new(ScheduleId::new("nightly")?, FunctionId::new("report")?, "30 2 * * *".parse()?);
    let put = node.schedules().put(Schedule { zone: "Europe/Berlin".parse()?, ..schedule }, Precondition::None).await?;
    tokio::spawn(Arc::clone(&node).keep_scheduled(stop));
    Ok(())
}

#[expect(dead_code, reason = "it takes more than a minute")]
async fn chaos(cluster: EdgeCluster) -> Done {
    cluster.allow_chaos();
    let experiment = cluster.chaos().scenario(Scenario::Overload, &FunctionId::new("resize")?, None)?;
    let report = cluster.chaos().run(experiment).await?;
    println!("{}: {}", report.verdict, report.to_markdown());
    Ok(())
}

#[tokio::test]
async fn the_snippets_of_the_documentation_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let of_functions = Path::new(ROOT).join("functions").canonicalize().expect("it is there");
    for file in ["built/daily-stats.wasm", "data/sf-temps.csv"] {
        fs::copy(of_functions.join(file), folder.path().join(Path::new(file).file_name().expect("a file"))).expect("copies");
    }
    std::env::set_current_dir(folder.path()).expect("it is there");
    readme_functions().await.expect("runs");
    readme_state().expect("runs");
    let cluster = EdgeCluster::new().expect("a cluster in memory");
    cluster.register_node(EdgeNode::new("edge-01", "one").expect("valid")).expect("it is new");
    let component = fs::read(of_functions.join("built/hello.wasm")).expect("it is built");
    let digest = cluster.add_artifact(component).await.expect("it can run");
    assert_eq!(routing(cluster, digest).await.expect("runs"), "hello from the edge\n");
    let node = Node::open(NodeOptions::new(EdgeNode::new("a", "a").expect("valid"), folder.path().join("node"))).expect("opens");
    let stop = CancellationToken::new();
    schedules(node, stop.clone()).await.expect("runs");
    stop.cancel();
}

#[test]
fn every_snippet_of_the_documentation_is_compiled_here() {
    let dense = |text: &str| text.split_whitespace().collect::<String>();
    let here = dense(include_str!("documentation.rs"));
    let docs = fs::read_dir(Path::new(ROOT).join("docs")).expect("it is there").map(|entry| entry.expect("it can be read").path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")).chain([Path::new(ROOT).join("README.md")]);
    let mut count = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("text");
        for snippet in text.split("```rust\n").skip(1) {
            let (snippet, _) = snippet.split_once("```").expect("it ends");
            assert!(here.contains(&dense(snippet)), "{} shows what is not compiled here:\n{snippet}", page.display());
            count += 1;
        }
    }
    assert!(count >= 7, "{count} were found");
}
