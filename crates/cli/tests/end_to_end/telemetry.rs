//! Telemetry of the real binary, received by a program that is made of OpenTelemetry's own protocol definitions; and `docs/metrics.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::Arc,
};

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    access::Certificate,
    fleet_support::Fleet,
    mqtt::{is_installed, mosquitto},
    support::{KillOnDrop, Node, artifact, data_dir, refused_up, until},
};

/// A Python that has the package `opentelemetry-proto`; `cargo xtask test` sets it.
const PYTHON_VARIABLE: &str = "EDGEWARD_PYTHON";
/// A caller's trace, and its span.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// Has spans and metrics exported soon.
const SOON: [(&str, &str); 3] =
    [("OTEL_BSP_SCHEDULE_DELAY", "50"), ("OTEL_METRIC_EXPORT_INTERVAL", "200"), ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=mill%201")];

/// A receiver in a process of its own.
struct Receiver {
    _child: KillOnDrop,
    port: u16,
    /// What it was sent, a request a value.
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    /// At a port, or with 0 at a free one.
    fn start(port: u16) -> Self {
        Self::start_with(port, &[])
    }

    /// The same with further arguments.
    fn start_with(port: u16, arguments: &[String]) -> Self {
        let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".to_owned());
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/otlp_receiver.py")).arg(port.to_string()).args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let port = lines.next().expect("the port").parse().expect("a port");
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let received = Arc::clone(&requests);
        std::thread::spawn(move || lines.for_each(|line| received.lock().push(serde_json::from_str(&line).expect("JSON"))));
        Self { _child: KillOnDrop(Some(child)), port, requests }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All that was received of one sort.
    fn all(&self, what: &str) -> Vec<Value> {
        let requests = self.requests.lock();
        for request in requests.iter() {
            assert!(request.get("failure").is_none(), "{request}");
            assert_eq!(request["tenant"], "mill 1", "the headers go with each");
        }
        requests.iter().filter_map(|request| request[what].as_array()).flatten().cloned().collect()
    }

    /// The spans of a trace, by name.
    fn trace(&self, trace: &str) -> BTreeMap<String, Value> {
        let spans = self.all("spans").into_iter().filter(|span| span["trace"] == trace);
        spans.map(|span| (span["name"].as_str().expect("a name").to_owned(), span)).collect()
    }

    /// Waits for spans of a trace of which each is below the one before, and the first one below the caller's; gives all spans of it. A
    /// span is told as its name, its kind, and the process that it is of.
    async fn chain(&self, trace: &str, expected: &[(&str, &str, &str)]) -> BTreeMap<String, Value> {
        until(&format!("all spans of {trace}"), async || {
            let spans = self.trace(trace);
            expected.iter().all(|(name, ..)| spans.contains_key(*name))
        })
        .await;
        let spans = self.trace(trace);
        let mut parent = json!(CALLER);
        for (name, kind, instance) in expected {
            let span = &spans[*name];
            let found = (&span["parent"], &span["resource"]["service.instance.id"], &span["status"]);
            assert_eq!(found, (&parent, &json!(instance), &json!("STATUS_CODE_UNSET")), "{span}");
            assert_eq!(span["kind"], format!("SPAN_KIND_{kind}"), "{span}");
            assert!(span["began"].as_u64() > Some(0) && span["ended"].as_u64() >= span["began"].as_u64(), "{span}");
            assert_eq!((&span["resource"]["service.name"], &span["flags"]), (&json!("edgeward"), &json!(1)));
            parent = span["id"].clone();
        }
        spans
    }

    /// The last reading of a metric of one process.
    fn metric(&self, name: &str, instance: &str) -> Option<Value> {
        let is_it = |metric: &Value| metric["name"] == name && metric["resource"]["service.instance.id"] == instance;
        self.all("metrics").into_iter().rfind(is_it)
    }
}

/// Starts a hub and a node that export, each by other means.
async fn fleet(receiver: &Receiver) -> (Fleet, Node) {
    let heartbeat = ["--heartbeat-seconds", "0.2"];
    let endpoint = ["--otlp-endpoint", &receiver.url()];
    let fleet = Fleet::start_in(&[&heartbeat[..], &endpoint].concat(), &heartbeat, &SOON).await;
    let node = join(&fleet, receiver, "edge-01").await;
    (fleet, node)
}

async fn join(fleet: &Fleet, receiver: &Receiver, id: &str) -> Node {
    let (token, url) = (fleet.token(&[]), receiver.url());
    let variables: Vec<_> = SOON.into_iter().chain([("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())]).collect();
    let node = fleet.launch_in(id, Some(&token), &variables);
    fleet.is(id, "online").await;
    node
}

/// A trace of its own, as its caller tells it.
fn traceparent(trace: &str) -> String {
    format!("00-{trace}-{CALLER}-01")
}

#[tokio::test]
async fn a_call_is_one_trace_from_its_caller_over_hub_and_node_to_the_document() {
    let receiver = Receiver::start(0);
    let (fleet, node) = fleet(&receiver).await;
    let hub = fleet.hub();
    hub.done(&["deploy", &artifact("visits"), "--id", "visits", "--document", "visits", "--all"]);
    fleet.serves("visits", 1).await;
    // By the name of the node, and as the router chooses.
    for (way, trace) in [("?node=edge-01", TRACE.to_owned()), ("", TRACE.replace('4', "6"))] {
        let path = format!("/v1/functions/visits/invoke{way}");
        let answer = hub.ask(Method::POST, &path, &[("traceparent", &traceparent(&trace))], "").await;
        assert_eq!(answer.status(), 200, "{:?}", answer.body());
        let expected = [
            ("call visits", "SERVER", "hub-1"),
            ("attempt visits", "CLIENT", "hub-1"),
            ("invoke visits", "SERVER", "edge-01"),
            ("increment visits", "INTERNAL", "edge-01"),
        ];
        let spans = receiver.chain(&trace, &expected).await;
        assert_eq!(spans.len(), expected.len(), "{spans:?}");
        let of = |name: &str| &spans[name]["attributes"];
        let (attempt, invoke, document) = (of("attempt visits"), of("invoke visits"), of("increment visits"));
        assert_eq!((&attempt["edgeward.node.id"], &attempt["edgeward.attempt"]), (&json!("edge-01"), &json!(1)));
        assert_eq!((&invoke["faas.name"], &invoke["faas.coldstart"]), (&json!("visits"), &json!(true)));
        assert_eq!((&invoke["edgeward.node.id"], &invoke["http.response.status_code"]), (&json!("edge-01"), &json!(200)));
        assert_eq!((&document["db.collection.name"], &document["db.operation.name"]), (&json!("visits"), &json!("increment")));
    }

    // From a node that has not the function, over the hub to the one that has.
    let other = join(&fleet, &receiver, "edge-02").await;
    hub.done(&["deploy", &artifact("hello"), "--id", "hello", "--node", "edge-01"]);
    fleet.serves("hello", 1).await;
    let trace = TRACE.replace('4', "7");
    let path = "/v1/functions/hello/invoke";
    until("the way is known", async || other.ask(Method::POST, path, &[], "").await.status() == 200).await;
    let answer = other.ask(Method::POST, path, &[("traceparent", &traceparent(&trace))], "").await;
    assert_eq!(answer.status(), 200, "{:?}", answer.body());
    let expected = [
        ("call hello by the hub", "CLIENT", "edge-02"),
        ("call hello", "SERVER", "hub-1"),
        ("attempt hello", "CLIENT", "hub-1"),
        ("invoke hello", "SERVER", "edge-01"),
    ];
    receiver.chain(&trace, &expected).await;

    // What failed says so in every span of it.
    let trace = TRACE.replace('4', "8");
    let absent = node.ask(Method::POST, "/v1/functions/absent/invoke", &[("traceparent", &traceparent(&trace))], "").await;
    assert_eq!(absent.status(), 404);
    until("the failed spans", async || receiver.trace(&trace).len() == 2).await;
    for (name, span) in receiver.trace(&trace) {
        assert_eq!((&span["status"], &span["attributes"]["error.type"]), (&json!("STATUS_CODE_ERROR"), &json!("not_found")), "{name}");
        assert!(span["why"].as_str().is_some_and(|why| why.contains("absent")), "{span}");
    }
}

#[tokio::test]
async fn a_guest_is_told_its_span_and_who_sends_a_trace_says_whether_it_is_kept() {
    let receiver = Receiver::start(0);
    let (_folder, data) = data_dir();
    let node = Node::launch_as("up", &data, &["--otlp-endpoint", &receiver.url(), "--otlp-sample-ratio", "1"], &SOON);
    until("the node is ready", async || node.ask(Method::GET, "/readyz", &[], "").await.status() == 200).await;
    // It answers with the request that it sees.
    node.deploy("echo", "hostile", &[]);
    let seen = async |traceparent: &str| {
        let headers = [("traceparent", traceparent), ("tracestate", "a=1")];
        let answer = node.ask(Method::POST, "/v1/functions/echo/invoke", &headers, "").await;
        serde_json::from_slice::<Value>(answer.body()).expect("JSON")["headers"].as_array().expect("pairs").clone()
    };
    let headers = seen(&traceparent(TRACE)).await;
    let spans = receiver.chain(TRACE, &[("invoke echo", "SERVER", "edge-test")]).await;
    let told = format!("00-{TRACE}-{}-01", spans["invoke echo"]["id"].as_str().expect("an id"));
    assert!(headers.contains(&json!(["traceparent", told])) && headers.contains(&json!(["tracestate", "a=1"])), "{headers:?}");

    let other = TRACE.replace('4', "5");
    let not_kept = format!("00-{other}-{CALLER}-00");
    assert!(seen(&not_kept).await.contains(&json!(["traceparent", not_kept])), "it passes as it is");
    // A later span is there, so what was before it would be.
    node.ask(Method::POST, "/v1/functions/echo/invoke", &[], "").await;
    let is_root = |span: &Value| span["name"] == "invoke echo" && span["parent"] == "";
    until("a trace that begins at the node", async || receiver.all("spans").iter().any(is_root)).await;
    assert!(receiver.trace(&other).is_empty(), "a trace that is not kept is not exported");
}

#[tokio::test]
async fn a_message_goes_on_with_the_trace_of_its_publisher_and_a_schedule_begins_one() {
    let receiver = Receiver::start(0);
    let (_folder, data) = data_dir();
    let node = Node::launch_as("up", &data, &["--otlp-endpoint", &receiver.url()], &SOON);
    until("the node is ready", async || node.ask(Method::GET, "/readyz", &[], "").await.status() == 200).await;
    node.deploy("visits", "visits", &["--document", "visits"]);
    node.deploy("hello", "hello", &[]);
    node.done(&["triggers", "put", "count", "--function", "visits", "--topic", "site/+/temp"]);
    let caller = traceparent(TRACE);
    let published = node.ask(Method::POST, "/v1/topics/site/berlin/temp", &[("traceparent", &caller)], "21.5").await;
    assert_eq!(published.status(), 201, "{:?}", published.body());
    let expected = [
        ("publish site/berlin/temp", "PRODUCER", "edge-test"),
        ("process site/berlin/temp", "CONSUMER", "edge-test"),
        ("invoke visits", "SERVER", "edge-test"),
        ("increment visits", "INTERNAL", "edge-test"),
    ];
    let spans = receiver.chain(TRACE, &expected).await;
    let process = &spans["process site/berlin/temp"]["attributes"];
    assert_eq!((&process["messaging.system"], &process["messaging.consumer.group.name"]), (&json!("edgeward"), &json!("count")));

    node.done(&["schedules", "put", "beat", "hello", "--every", "1s"]);
    let run = async || receiver.all("spans").into_iter().find(|span| span["name"] == "invoke hello");
    until("a run of the schedule", async || run().await.is_some()).await;
    let invoke = run().await.expect("there");
    let is_parent = |span: &&Value| span["id"] == invoke["parent"];
    let schedule = async || receiver.all("spans").iter().find(is_parent).cloned();
    until("the span of the schedule", async || schedule().await.is_some()).await;
    let schedule = schedule().await.expect("there");
    assert_eq!((&schedule["name"], &schedule["parent"], &schedule["trace"]), (&json!("schedule beat"), &json!(""), &invoke["trace"]));
    assert_eq!(schedule["attributes"]["faas.trigger"], "timer");
    let counted = |metric: &Value| metric["points"].as_array().is_some_and(|points| points.iter().any(|point| point["count"] == 1));
    let durations = async || receiver.metric("messaging.process.duration", "edge-test");
    until("the attempt is measured", async || durations().await.as_ref().is_some_and(counted)).await;
    let sent = receiver.metric("messaging.client.sent.messages", "edge-test").expect("there");
    let point = &sent["points"][0];
    assert_eq!((&point["value"], &sent["is_monotonic"]), (&json!(1), &json!(true)));
    assert!(point["began"].as_u64() > Some(0), "{point}");
    let trimmed = receiver.metric("edgeward.topics.log.trimmed", "edge-test").expect("there");
    assert_eq!((&trimmed["points"][0]["began"], &trimmed["is_monotonic"]), (&json!(0), &json!(true)), "it is over all starts");
}

#[tokio::test]
async fn a_message_that_another_node_imports_goes_on_with_the_trace_of_its_publisher() {
    let receiver = Receiver::start(0);
    let url = receiver.url();
    let heartbeat = ["--heartbeat-seconds", "0.2"];
    let options = ["--otlp-endpoint", &url, "--topics-forward", "site/#", "--topics-import", "site/#", "--mqtt-listen", "127.0.0.1:0"];
    let fleet = Fleet::start_with(&heartbeat, &[&heartbeat[..], &options].concat()).await;
    let launch = async |id: &str| {
        let token = fleet.token(&[]);
        let node = fleet.launch_in(id, Some(&token), &SOON);
        fleet.is(id, "online").await;
        node
    };
    let (one, two) = (launch("edge-01").await, launch("edge-02").await);
    let topic = "/v1/topics/site/berlin/temp";
    let messages = "/v1/topics/site/berlin/temp/messages";
    until("edge-02 imports", async || {
        one.ask(Method::POST, topic, &[], "x").await;
        two.json(messages).await["messages"].as_array().is_some_and(|messages| !messages.is_empty())
    })
    .await;
    fleet.hub().done(&["deploy", &artifact("visits"), "--id", "visits", "--document", "visits", "--node", "edge-02"]);
    fleet.serves("visits", 1).await;
    two.done(&["triggers", "put", "count", "--function", "visits", "--topic", "site/+/temp"]);
    let published = one.ask(Method::POST, topic, &[("traceparent", &traceparent(TRACE)), ("tracestate", "a=1")], "21.5").await;
    assert_eq!(published.status(), 201, "{:?}", published.body());
    let handled = [
        ("process site/berlin/temp", "CONSUMER", "edge-02"),
        ("invoke visits", "SERVER", "edge-02"),
        ("increment visits", "INTERNAL", "edge-02"),
    ];
    let publish = [("publish site/berlin/temp", "PRODUCER", "edge-01")];
    receiver.chain(TRACE, &[&publish[..], &handled].concat()).await;
    let imported = two.json(&format!("{messages}?limit=1")).await["messages"][0].clone();
    assert!(imported["attributes"].as_array().expect("pairs").contains(&json!(["tracestate", "a=1"])), "{imported}");

    if is_installed("mosquitto_pub", &[]) {
        // A client of MQTT tells its trace as a property of the user.
        let trace = TRACE.replace('4', "9");
        let of = ["-V", "mqttv5", "-q", "1", "-t", "site/berlin/temp", "-m", "22", "-D", "publish", "user-property", "traceparent"];
        let sent = mosquitto("mosquitto_pub", &one, &[&of[..], &[&traceparent(&trace)]].concat());
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        receiver.chain(&trace, &handled).await;
    }
}

#[tokio::test]
async fn a_node_and_its_hub_export_what_they_measure() {
    let receiver = Receiver::start(0);
    let (fleet, node) = fleet(&receiver).await;
    fleet.hub().done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    for _ in 0..3 {
        assert_eq!(node.get_function("/fn/hello/").await.status(), 200);
    }
    let counted = |metric: &Option<Value>| metric.as_ref().is_some_and(|metric| metric["points"][0]["value"] == 3);
    until("the invocations", async || counted(&receiver.metric("faas.invocations", "edge-01"))).await;
    let invocations = receiver.metric("faas.invocations", "edge-01").expect("there");
    let point = &invocations["points"][0];
    assert_eq!(
        (&invocations["kind"], &invocations["unit"], &invocations["is_monotonic"], &invocations["temporality"]),
        (&json!("sum"), &json!("{invocation}"), &json!(true), &json!(2))
    );
    assert_eq!(point["attributes"], json!({ "faas.name": "hello", "edgeward.node.id": "edge-01" }));
    assert!(point["began"].as_u64() > Some(0) && point["at"].as_u64() >= point["began"].as_u64());
    let duration = receiver.metric("faas.invoke_duration", "edge-01").expect("there");
    assert_eq!((&duration["kind"], &duration["unit"], &duration["points"][0]["count"]), (&json!("histogram"), &json!("s"), &json!(3)));
    assert!(duration["points"][0]["sum"].as_f64() > Some(0.0));
    let is_online = |metric: &Value| {
        let points = metric["points"].as_array().expect("points");
        points.iter().any(|point| point["attributes"]["edgeward.node.status"] == "online" && point["value"] == 1)
    };
    until("the nodes of the hub", async || receiver.metric("edgeward.fleet.nodes", "hub-1").as_ref().is_some_and(is_online)).await;
    let nodes = receiver.metric("edgeward.fleet.nodes", "hub-1").expect("there");
    assert_eq!((&nodes["kind"], &nodes["is_monotonic"]), (&json!("sum"), &json!(false)));
    let uptime = receiver.metric("process.uptime", "hub-1").expect("there");
    assert_eq!((&uptime["kind"], &uptime["unit"]), (&json!("gauge"), &json!("s")));

    // All that there is, under the names of the table; what never had a number is not sent.
    let documented = documented();
    for (instance, places) in [("edge-01", ["both", "node", "member"]), ("hub-1", ["both", "hub", "hub"])] {
        let sent = || -> BTreeSet<_> {
            let metrics = receiver.all("metrics").into_iter().filter(|metric| metric["resource"]["service.instance.id"] == instance);
            metrics.map(|metric| metric["name"].as_str().expect("a name").to_owned()).collect()
        };
        let all: BTreeSet<_> = edgeward::telemetry::INSTRUMENTS
            .iter()
            .filter(|instrument| places.contains(&documented[&instrument.prometheus_name()].1.as_str()))
            .map(|instrument| instrument.name.to_owned())
            .collect();
        let text = {
            let process = if instance == "edge-01" { &node } else { fleet.hub() };
            String::from_utf8(process.ask(Method::GET, "/metrics", &[], "").await.body().to_vec()).expect("text")
        };
        let has_number = |instrument: &&&edgeward::telemetry::Instrument| {
            let name = instrument.prometheus_name();
            text.lines().any(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' ', '_'])))
        };
        let shown: BTreeSet<_> =
            edgeward::telemetry::INSTRUMENTS.iter().filter(has_number).map(|instrument| instrument.name.to_owned()).collect();
        until(&format!("{instance} sends what it shows, {shown:?}"), async || shown.is_subset(&sent())).await;
        assert!(sent().is_subset(&all), "{instance} sends what nobody knows: {:?}", sent().difference(&all));
    }

    // Which node is how, by its name.
    let of_node = |status: &str| format!("edgeward_node_status{{edgeward_node_id=\"edge-01\",edgeward_node_status=\"{status}\"}}");
    assert_eq!(series(fleet.hub(), &of_node("online")).await, 1);
    let age = async || real(fleet.hub(), "edgeward_node_heartbeat_age_seconds{edgeward_node_id=\"edge-01\"}").await;
    assert!((0.0..10.0).contains(&age().await.expect("it was heard")));
    node.kill();
    fleet.is("edge-01", "offline").await;
    assert_eq!(series(fleet.hub(), &of_node("offline")).await, 1);
    until("nobody hears it", async || age().await > Some(1.0)).await;
}

/// The number of a series of the metrics of a process, if it is there.
async fn real(process: &Node, name: &str) -> Option<f64> {
    let text = String::from_utf8(process.ask(Method::GET, "/metrics", &[], "").await.body().to_vec()).expect("text");
    text.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.trim().parse().expect("a number"))
}

/// The value of a series of the metrics of a process.
pub(crate) async fn series(process: &Node, name: &str) -> u64 {
    let text = String::from_utf8(process.ask(Method::GET, "/metrics", &[], "").await.body().to_vec()).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.trim().parse().expect("a number")
}

#[tokio::test]
async fn while_the_receiver_is_away_spans_are_bounded_and_they_come_when_it_is_back() {
    const CALLS: u64 = 3000;
    let port = {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        taken.local_addr().expect("bound").port()
    };
    let (_folder, data) = data_dir();
    let mut node = Node::launch_as("up", &data, &["--otlp-endpoint", &format!("http://127.0.0.1:{port}")], &SOON);
    until("the node is ready", async || node.ask(Method::GET, "/readyz", &[], "").await.status() == 200).await;
    node.deploy("f", "hello", &[]);
    let address = node.functions;
    let calls = (0..8).map(|_| {
        tokio::spawn(async move {
            for _ in 0..CALLS / 8 {
                let request = crate::support::request(Method::GET, "/fn/f/").body(http_body_util::Full::default()).expect("valid");
                assert_eq!(crate::support::try_send(address, request).await.expect("an answer").status(), 200);
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("every call is answered");
    }
    // A batch is on its way, and the queue is full.
    let (waiting, dropped) = ("edgeward_otlp_spans_waiting", "edgeward_otlp_spans_total{edgeward_outcome=\"dropped\"}");
    until("the queue is full", async || series(&node, waiting).await >= 2048).await;
    let lost = series(&node, dropped).await;
    assert!((1..=952).contains(&lost), "{lost} were dropped");
    assert!(node.stderr().contains("the receiver of OTLP does not take telemetry"), "{}", node.stderr());
    let receiver = Receiver::start(port);
    let arrived = || receiver.all("spans").len() as u64;
    until("what waited arrives", async || arrived() + series(&node, dropped).await >= CALLS).await;
    assert_eq!(series(&node, waiting).await, 0);
    until("it is told", async || node.stderr().contains("takes telemetry again")).await;
    assert!(["mill 1", "mill%201"].iter().all(|secret| !node.stderr().contains(secret)), "what the headers say is a secret");

    // What waits at a stop still goes out.
    let before = receiver.all("spans").len();
    assert_eq!(node.get_function("/fn/f/").await.status(), 200);
    node.terminate();
    assert_eq!(node.ended().await.code(), Some(0), "{}", node.stderr());
    until("the last span", async || receiver.all("spans").len() > before).await;
}

#[tokio::test]
async fn what_waits_at_a_stop_goes_out_also_when_the_receiver_was_away_a_moment_before() {
    let port = {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        taken.local_addr().expect("bound").port()
    };
    let (_folder, data) = data_dir();
    let traces = format!("http://127.0.0.1:{port}/v1/traces");
    let variables: Vec<_> = SOON.into_iter().chain([("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", traces.as_str())]).collect();
    let mut node = Node::launch_as("up", &data, &[], &variables);
    until("the node is ready", async || node.ask(Method::GET, "/readyz", &[], "").await.status() == 200).await;
    node.deploy("f", "hello", &[]);
    assert_eq!(node.get_function("/fn/f/").await.status(), 200);
    // The pauses grow: by the third there is time to come back within one.
    let failed = "edgeward_otlp_requests_total{edgeward_signal=\"traces\",edgeward_outcome=\"failed\"}";
    until("it was tried", async || series(&node, failed).await >= 3).await;
    let receiver = Receiver::start(port);
    node.terminate();
    assert_eq!(node.ended().await.code(), Some(0), "{}", node.stderr());
    assert_eq!(receiver.all("spans").len(), 1, "{}", node.stderr());
}

#[tokio::test]
async fn who_exports_metrics_alone_traces_nothing() {
    let receiver = Receiver::start(0);
    let (_folder, data) = data_dir();
    let metrics = format!("{}/v1/metrics", receiver.url());
    let variables: Vec<_> = SOON.into_iter().chain([("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", metrics.as_str())]).collect();
    let node = Node::launch_as("up", &data, &[], &variables);
    until("the node is ready", async || node.ask(Method::GET, "/readyz", &[], "").await.status() == 200).await;
    node.deploy("echo", "hostile", &[]);
    let caller = traceparent(TRACE);
    let answer = node.ask(Method::POST, "/v1/functions/echo/invoke", &[("traceparent", &caller)], "").await;
    let seen = serde_json::from_slice::<Value>(answer.body()).expect("JSON")["headers"].as_array().expect("pairs").clone();
    assert!(seen.contains(&json!(["traceparent", caller])), "it passes as it came: {seen:?}");
    until("the metrics", async || receiver.metric("process.uptime", "edge-test").is_some()).await;
    assert_eq!(series(&node, "edgeward_otlp_spans_waiting").await, 0, "nobody would ever take them");
}

#[tokio::test]
async fn telemetry_goes_over_tls_to_a_receiver_that_is_trusted_and_to_no_other() {
    let (certificate, stranger) = (Certificate::new(), Certificate::new());
    let receiver = Receiver::start_with(0, &[certificate.text("chain.pem"), certificate.text("key.pem")]);
    let url = format!("https://localhost:{}", receiver.port);
    let (_folder, data) = data_dir();
    let launch = |authority: &Certificate| {
        let authority = authority.text("ca.pem");
        let variables: Vec<_> = SOON.into_iter().chain([("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.as_str())]).collect();
        Node::launch_as("up", &data, &["--otlp-endpoint", &url], &variables)
    };
    let node = launch(&stranger);
    let failed = "edgeward_otlp_requests_total{edgeward_signal=\"metrics\",edgeward_outcome=\"failed\"}";
    until("a request failed", async || series(&node, failed).await > 0).await;
    assert!(node.stderr().contains("does not take telemetry") && node.stderr().contains("invalid peer certificate"), "{}", node.stderr());
    node.kill();
    assert!(receiver.requests.lock().is_empty());
    let _node = launch(&certificate);
    until("the metrics", async || receiver.metric("process.uptime", "edge-test").is_some()).await;
}

#[tokio::test]
async fn an_endpoint_that_would_show_secrets_or_that_is_none_is_refused_at_the_start() {
    let (_folder, data) = data_dir();
    for (options, why) in [
        (&["--otlp-endpoint", "127.0.0.1:4318"][..], "must be"),
        (&["--otlp-endpoint", "ftp://collector"], "must begin with"),
        (&["--otlp-endpoint", "http://127.0.0.1:4318", "--otlp-sample-ratio", "7"], "must be from 0 to 1"),
    ] {
        let (code, told) = refused_up(&data, options).await;
        assert!(code.is_some_and(|code| code > 0) && told.contains(why), "{code:?} {told}");
    }
    assert!(!data.exists(), "nothing was touched");
}

/// A metric of the documentation: type, unit and labels.
type Documented = (String, String, Vec<String>);

/// The rows of the tables of metrics, by the name that Prometheus sees, with where they are.
fn documented() -> BTreeMap<String, (Documented, String)> {
    let mut rows = BTreeMap::new();
    for line in include_str!("../../../../docs/metrics.md").lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [otlp, name, kind, unit, labels, place, _] = cells[..] else { continue };
        let (Some(otlp), Some(name)) = (otlp.strip_prefix('`'), name.strip_prefix('`')) else { continue };
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(|label| label.trim_matches('`').to_owned()).collect();
        let row = (kind.to_owned(), format!("{} {}", otlp.trim_end_matches('`'), unit.trim_matches('`')), labels);
        assert!(rows.insert(name.trim_end_matches('`').to_owned(), (row, place.to_owned())).is_none(), "{name} is there twice");
    }
    rows
}

/// The families of a process by name, each with its type and the labels that its series have.
async fn families(process: &Node) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = String::from_utf8(process.ask(Method::GET, "/metrics", &[], "").await.body().to_vec()).expect("text");
    let mut families = BTreeMap::<_, (String, BTreeSet<String>)>::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').expect("a type");
            name.clone_into(&mut family);
            assert!(families.insert(family.clone(), (kind.to_owned(), BTreeSet::new())).is_none(), "{name} is there twice");
        } else if let Some((name, labels)) = line.split_once('{') {
            assert!(name.starts_with(&family), "{line} is not of {family}");
            let labels =
                labels.rsplit_once('}').expect("an end").0.split("\",").filter_map(|label| label.split_once('=')).map(|(key, _)| key);
            families.get_mut(&family).expect("typed").1.extend(labels.filter(|label| *label != "le").map(str::to_owned));
        }
    }
    families
}

#[tokio::test]
async fn the_documented_metrics_are_those_of_a_node_and_a_hub_and_no_others() {
    let fleet = Fleet::start().await;
    let node = fleet.join("edge-01").await;
    fleet.hub().done(&["deploy", &artifact("hello"), "--id", "hello", "--all"]);
    fleet.serves("hello", 1).await;
    fleet.hub().done(&["invoke", "hello", "--node", "edge-01"]);
    let (_folder, data) = data_dir();
    let alone = Node::start(&data).await;
    let documented = documented();
    for (process, place, of) in [(&node, "node", "a member"), (&alone, "node alone", "a node alone"), (fleet.hub(), "hub", "the hub")] {
        let found = families(process).await;
        let is_here = |row: &str| match row {
            "both" => true,
            "member" => place == "node",
            row => place.starts_with(row),
        };
        let expected: BTreeSet<_> = documented.iter().filter(|(_, (_, row))| is_here(row)).map(|(name, _)| name.clone()).collect();
        let named: BTreeSet<_> = found.keys().cloned().collect();
        assert_eq!(named, expected, "what {of} shows, and what docs/metrics.md says");
        for (name, (kind, labels)) in found {
            let ((documented_kind, _, documented_labels), _) = &documented[&name];
            assert_eq!(&kind, documented_kind, "{name}");
            if !labels.is_empty() {
                assert_eq!(labels, documented_labels.iter().cloned().collect(), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_command_tells_all_that_a_node_measures() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    node.deploy("hello", "hello", &[]);
    assert_eq!(node.get_function("/fn/hello/").await.status(), 200);
    let text = String::from_utf8(node.done(&["metrics", "--all"])).expect("text");
    assert!(text.contains("# TYPE edgeward_functions gauge\n"), "{text}");
    let series: Vec<Value> = serde_json::from_slice(&node.done(&["metrics", "--all", "--json"])).expect("a list");
    let of_hello = json!({ "faas_name": "hello", "edgeward_node_id": "edge-test" });
    assert!(series.contains(&json!({ "name": "faas_invocations_total", "labels": of_hello, "value": 1 })), "{series:?}");
    assert_eq!(series.len(), text.lines().filter(|line| !line.starts_with('#')).count());
    assert_eq!(node.run(&["metrics", "--all", "--function", "hello"]).status.code(), Some(2));
}

#[test]
fn the_documented_metrics_have_the_names_units_and_labels_of_their_instruments() {
    let documented = documented();
    assert_eq!(documented.len(), edgeward::telemetry::INSTRUMENTS.len());
    for instrument in edgeward::telemetry::INSTRUMENTS {
        let name = instrument.prometheus_name();
        let ((_, otlp, labels), _) = documented.get(&name).unwrap_or_else(|| panic!("{name} is not documented"));
        assert_eq!(otlp, &format!("{} {}", instrument.name, instrument.unit));
        assert_eq!(*labels, instrument.attributes.iter().map(|key| key.replace('.', "_")).collect::<Vec<_>>(), "{name}");
    }
}
