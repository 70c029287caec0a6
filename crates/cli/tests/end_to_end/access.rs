//! A node that other machines can reach: it refuses to start without a certificate and a token, and nobody gets in without both.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeward::cluster::nats::CertificateAuthority;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, crypto,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::support::{Node, PATIENCE, data_dir, edgeward, fails, json, problem, refused_up, send_over, told, until};

/// A folder with a certificate for this machine, the key, and the authority that signed it.
pub(crate) struct Certificate {
    folder: TempDir,
    authority: String,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let (folder, now) = (tempfile::tempdir().expect("temp folder"), Timestamp::now());
        let authority = CertificateAuthority::new(now).expect("made");
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let server = authority.server(&names, now, 30).expect("made");
        let made = Self { folder, authority: authority.certificate().to_owned() };
        fs::write(made.path("chain.pem"), server.chain).expect("written");
        fs::write(made.path("key.pem"), server.key).expect("written");
        fs::set_permissions(made.path("key.pem"), fs::Permissions::from_mode(0o600)).expect("ours");
        fs::write(made.path("ca.pem"), &made.authority).expect("written");
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Connects with TLS, offering these protocols.
    async fn connect(&self, address: std::net::SocketAddr, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).expect("PEM")).expect("an authority");
        let mut config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("known")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
    }
}

/// A node whose API and functions other machines can reach.
struct Exposed {
    node: Node,
    certificate: Certificate,
    admin: String,
    folder: TempDir,
    data: PathBuf,
}

impl Exposed {
    fn start(variables: &[(&str, &str)]) -> Self {
        let ((folder, data), certificate) = (data_dir(), Certificate::new());
        let output = create_offline(&data, "first", &["--role", "admin", "--id", "edge-test"]);
        let admin = secret(&output);
        let (chain, key) = (certificate.text("chain.pem"), certificate.text("key.pem"));
        let options = ["--listen", "0.0.0.0:0", "--functions-listen", "0.0.0.0:0", "--tls-cert", &chain, "--tls-key", &key];
        let node = Node::launch(&data, &[&options[..], &["--mcp", "read-write"]].concat(), variables);
        Self { node, certificate, admin, folder, data }
    }

    /// A hub in its place, which serves.
    async fn start_hub(options: &[&str]) -> Self {
        let ((folder, data), certificate) = (data_dir(), Certificate::new());
        let (chain, key) = (certificate.text("chain.pem"), certificate.text("key.pem"));
        let of_hub = ["--id", "hub-1", "--broker-listen", "127.0.0.1:0"];
        let of_api = ["--listen", "0.0.0.0:0", "--tls-cert", &chain, "--tls-key", &key, "--mcp", "read-write"];
        // The first token is made where only this machine may call.
        let on_loopback = Node::launch_as("hub", &data, &of_hub, &[]);
        until("the hub serves", async || on_loopback.ask(Method::GET, "/readyz", &[], "").await.status() == 200).await;
        let admin = secret(&on_loopback.run(&["token", "create", "first", "--role", "admin"]));
        on_loopback.kill();
        let node = Node::launch_as("hub", &data, &[&of_hub[..], &of_api, options].concat(), &[]);
        let exposed = Self { node, certificate, admin, folder, data };
        until("the hub serves", async || exposed.ask(Method::GET, "/readyz", Some(&exposed.admin), "").await.status() == 200).await;
        exposed
    }

    async fn open(&self, method: Method, path: &str, token: Option<&str>, body: &str) -> Response<hyper::body::Incoming> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "edge.example:7700");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let stream = self.certificate.connect(self.node.api, &["http/1.1"]).await.expect("TLS");
        send_over(stream, request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("valid")).await.expect("an answer")
    }

    async fn ask(&self, method: Method, path: &str, token: Option<&str>, body: &str) -> Response<Bytes> {
        let (parts, body) = self.open(method, path, token, body).await.into_parts();
        Response::from_parts(parts, body.collect().await.expect("whole").to_bytes())
    }

    /// A command that talks to this node, trusts its authority and shows this token.
    fn command(&self, token: Option<&str>, args: &[&str]) -> Command {
        let mut command = edgeward(args);
        command.env("EDGEWARD_SERVER", format!("https://{}", self.node.api)).env("EDGEWARD_CA", self.certificate.path("ca.pem"));
        if let Some(token) = token {
            command.env("EDGEWARD_TOKEN", token);
        }
        command
    }

    fn run(&self, token: Option<&str>, args: &[&str]) -> Output {
        self.command(token, args).output().expect("starts")
    }

    /// Makes a token by the node, and gives its secret.
    fn create(&self, name: &str, role: &str, options: &[&str]) -> String {
        secret(&self.run(Some(&self.admin), &[&["token", "create", name, "--role", role], options].concat()))
    }
}

/// Makes a token while the node is stopped.
pub(crate) fn create_offline(data: &Path, name: &str, options: &[&str]) -> Output {
    let dir = data.display().to_string();
    edgeward(&[&["token", "create", name, "--data-dir", &dir], options].concat()).output().expect("starts")
}

/// The secret, which is alone on standard output.
#[track_caller]
pub(crate) fn secret(output: &Output) -> String {
    assert!(output.status.success(), "{}", told(output));
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    let secret = text.strip_suffix('\n').expect("a line").to_owned();
    assert!(secret.starts_with("edgeward_") && secret.len() == 52 && !secret.contains(char::is_whitespace), "{secret}");
    secret
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused_with_what_to_do() {
    let ((_folder, data), certificate) = (data_dir(), Certificate::new());
    for listener in ["--listen", "--functions-listen"] {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let (code, told) = refused_up(&data, &[listener, address]).await;
            assert_eq!(code, Some(9), "{told}");
            assert!(told.contains(&format!("{listener} {address} is refused")) && told.contains("`--tls-cert FILE`"), "{told}");
        }
    }
    assert!(!data.exists(), "nothing was touched");

    let (chain, key) = (certificate.text("chain.pem"), certificate.text("key.pem"));
    let tls = ["--tls-cert", &*chain, "--tls-key", &*key];
    let api = [&["--listen", "0.0.0.0:0"], &tls[..]].concat();
    let (code, without_token) = refused_up(&data, &api).await;
    assert_eq!(code, Some(9), "{without_token}");
    let command = format!("edgeward token create NAME --role admin --data-dir {}", data.display());
    assert!(without_token.contains("no token") && without_token.contains(&command), "{without_token}");
    // A token that lets nobody in any more is none.
    secret(&create_offline(&data, "short", &["--role", "admin", "--expires", "1s"]));
    until("the token has expired", async || {
        let listed = edgeward(&["token", "list", "--data-dir", &data.display().to_string()]).output().expect("starts");
        String::from_utf8_lossy(&listed.stdout).contains("has expired")
    })
    .await;
    let (code, told) = refused_up(&data, &api).await;
    assert!(code == Some(9) && told.rfind("no token") > Some(without_token.len()), "{told}");

    fs::set_permissions(certificate.path("key.pem"), fs::Permissions::from_mode(0o644)).expect("ours");
    let (code, told) = refused_up(&data, &api).await;
    assert!(code == Some(9) && told.contains("open to other users") && told.contains("chmod"), "{told}");
    let (code, told) = refused_up(&data, &tls).await;
    assert!(code == Some(9) && told.contains("has no use"), "{told}");
    let (code, told) = refused_up(&data, &tls[..2]).await;
    assert!(code == Some(2) && told.contains("--tls-key"), "{told}");
}

#[tokio::test]
async fn functions_are_served_to_everybody_over_tls_while_the_api_stays_on_loopback() {
    let ((_folder, data), certificate) = (data_dir(), Certificate::new());
    let (chain, key) = (certificate.text("chain.pem"), certificate.text("key.pem"));
    let node = Node::launch(&data, &["--functions-listen", "0.0.0.0:0", "--tls-cert", &chain, "--tls-key", &key], &[]);
    node.deploy("hello", "hello", &[]);
    let request = |uri: &str| Request::get(uri).header(header::HOST, "edge").body(Full::<Bytes>::default()).expect("valid");
    let stream = certificate.connect(node.functions, &["http/1.1"]).await.expect("TLS");
    let answer = send_over(stream, request("/fn/hello/")).await.expect("an answer");
    assert_eq!(answer.into_body().collect().await.expect("whole").to_bytes(), "hello from the edge\n");

    let stream = certificate.connect(node.functions, &["h2", "http/1.1"]).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("speaks");
    tokio::spawn(connection);
    let answer = sender.send_request(request("https://edge/fn/hello/")).await.expect("an answer");
    assert_eq!(answer.into_body().collect().await.expect("whole").to_bytes(), "hello from the edge\n");
}

/// What a deployer may change, beside documents and artifacts.
const DEPLOYERS: [&str; 7] = [
    "/v1/functions/{id}",
    "/v1/schedules/{id}",
    "/v1/triggers/",
    "/v1/dead-letters/",
    "/v1/deployments/{id}",
    "/v1/rollouts/{id}",
    "/v1/rebalance",
];

/// What each role may do, said once more and another way than in the code.
fn needed(method: &str, path: &str) -> &'static str {
    let of_documents = path.starts_with("/v1/documents") && !path.ends_with("/policy");
    match method {
        _ if path.starts_with("/v1/tokens") => "admin",
        _ if path.starts_with("/v1/topics/") => "client",
        "get" => "viewer",
        _ if of_documents || path == "/v1/artifacts" => "deployer",
        _ if DEPLOYERS.iter().any(|begin| path.starts_with(begin)) => "deployer",
        "patch" if path == "/v1/nodes/{id}" => "deployer",
        _ => "admin",
    }
}

#[tokio::test]
async fn on_every_route_each_role_may_do_what_it_says_and_no_more() {
    let walked = walk(&Exposed::start(&[])).await;
    assert!(walked.len() >= 32, "{walked:?}");
}

#[tokio::test]
async fn on_every_route_of_a_hub_each_role_may_do_what_it_says_and_no_more() {
    let hub = Exposed::start_hub(&["--allow-chaos"]).await;
    let walked = walk(&hub).await;
    for route in ["post /v1/chaos/experiments", "post /v1/chaos/experiments/{id}/stop", "post /v1/join-tokens", "delete /v1/nodes/{id}"] {
        assert!(walked.iter().any(|walked| walked == route), "{route} is not in {walked:?}");
    }
    // A tool may do no more than that.
    let deployer = hub.create("ships", "deployer", &[]);
    let run = serde_json::json!({ "scenario": "overload", "function_id": "hello" });
    let refused = json(&call_tool(&hub, Some(&deployer), "edge_run_experiment", &run).await);
    assert_eq!((&refused["result"]["isError"], &refused["result"]["structuredContent"]["kind"]), (&true.into(), &"forbidden".into()));
    assert!(refused.to_string().contains("this needs the role admin, and token `ships` has the role deployer"), "{refused}");
    let refused = json(&call_tool(&hub, Some(&hub.admin), "edge_run_experiment", &run).await);
    assert!(refused.to_string().contains("there is no function `hello`"), "who may is told what is wrong: {refused}");
}

/// Asks each route as nobody and as each role; returns what was asked.
async fn walk(exposed: &Exposed) -> Vec<String> {
    let roles = ["client", "viewer", "deployer", "admin"];
    let tokens = roles.map(|role| exposed.create(role, role, if role == "client" { &["--publish", "#", "--subscribe", "#"] } else { &[] }));
    let description = json(&exposed.ask(Method::GET, "/openapi.json", Some(&tokens[1]), "").await);
    let mut walked = Vec::new();
    for (path, operations) in description["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations").iter().filter(|(key, _)| *key != "parameters") {
            let (needed, route) = (needed(method, path), format!("{method} {path}"));
            assert_eq!(operation["x-required-role"], needed, "{method} {path}");
            let (method, path) = (method.to_uppercase().parse::<Method>().expect("a method"), path.replace(['{', '}'], ""));
            let refused = exposed.ask(method.clone(), &path, None, "").await;
            problem(&refused, 401, "unauthenticated", "a token is needed");
            assert!(refused.headers()[header::WWW_AUTHENTICATE].to_str().is_ok_and(|challenge| challenge.starts_with("Bearer")));
            let enough = roles.iter().position(|role| *role == needed).expect("a role");
            for (n, token) in tokens.iter().enumerate() {
                if path == "/v1/topics/topic" && roles[n] == "viewer" {
                    // A client has topics; a viewer publishes to none, unless its token names some.
                    problem(
                        &exposed.ask(method.clone(), &path, Some(token), "").await,
                        403,
                        "forbidden",
                        "may not publish to topic `topic`",
                    );
                } else if n < enough {
                    let refused = exposed.ask(method.clone(), &path, Some(token), "").await;
                    problem(&refused, 403, "forbidden", &format!("needs the role {needed}, and token `{0}` has the role {0}", roles[n]));
                    assert!(refused.headers().contains_key(header::WWW_AUTHENTICATE));
                } else {
                    // Some stream without an end.
                    let status = exposed.open(method.clone(), &path, Some(token), "").await.status();
                    assert!(status != 401 && status != 403, "{} {method} {path}: {status}", roles[n]);
                }
            }
            walked.push(route);
        }
    }
    problem(&exposed.ask(Method::GET, "/v2", Some(&tokens[0]), "").await, 404, "not_found", "/openapi.json");
    problem(&exposed.ask(Method::GET, "/v2", None, "").await, 401, "unauthenticated", "token");
    problem(&exposed.ask(Method::OPTIONS, "/v1/status", Some(&tokens[2]), "").await, 403, "forbidden", "admin");
    walked
}

/// Calls a tool of an assistant over HTTP, with this token.
async fn call_tool(exposed: &Exposed, token: Option<&str>, tool: &str, arguments: &Value) -> Response<Bytes> {
    let params = serde_json::json!({ "name": tool, "arguments": arguments });
    let message = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
    let mut request = Request::post("/mcp").header(header::HOST, "edge.example:7700").header(header::CONTENT_TYPE, "application/json");
    request = request.header(header::ACCEPT, "application/json, text/event-stream");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let stream = exposed.certificate.connect(exposed.node.api, &["http/1.1"]).await.expect("TLS");
    let answer = send_over(stream, request.body(Full::from(message)).expect("valid")).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    Response::from_parts(parts, body.collect().await.expect("whole").to_bytes())
}

#[tokio::test]
async fn a_wrong_expired_or_revoked_token_is_refused_and_told_to_the_audit_log() {
    let exposed = Exposed::start(&[("EDGEWARD_LOG", "trace")]);
    let status = async |token: &str| exposed.ask(Method::GET, "/v1/status", Some(token), "").await;
    assert_eq!(status(&exposed.admin).await.status(), 200);
    let mut wrong = exposed.admin.clone();
    wrong.replace_range(20..21, if &wrong[20..21] == "A" { "B" } else { "A" });
    for wrong in [&*wrong, "", "edgeward_", "first"] {
        let refused = status(wrong).await;
        assert_eq!(refused.status(), 401, "{wrong}");
    }
    let short = exposed.create("short", "viewer", &["--expires", "2s"]);
    until("it expires", async || {
        let answer = status(&short).await;
        answer.status() == 401 && String::from_utf8_lossy(answer.body()).contains("token `short` expired at")
    })
    .await;

    let guest = exposed.create("guest", "viewer", &[]);
    let put = exposed.ask(Method::PUT, "/v1/documents/d", Some(&exposed.admin), r#"{"a":1}"#).await;
    assert_eq!(put.status(), 201, "{put:?}");
    let mut watching = exposed.open(Method::GET, "/v1/documents/d/watch", Some(&guest), "").await.into_body();
    let mut next = async || tokio::time::timeout(PATIENCE, watching.frame()).await.expect("in time");
    assert!(next().await.expect("goes on").is_ok());
    assert!(exposed.run(Some(&exposed.admin), &["token", "revoke", "guest"]).status.success());
    problem(&status(&guest).await, 401, "unauthenticated", "revoked");
    // What is being answered to it ends before anything new is told.
    exposed.ask(Method::PUT, "/v1/documents/d", Some(&exposed.admin), r#"{"a":"news"}"#).await;
    while let Some(Ok(frame)) = next().await {
        assert!(!String::from_utf8_lossy(frame.data_ref().expect("no trailers")).contains("news"), "{frame:?}");
    }

    let log = exposed.node.stderr();
    let audited = |words: &[&str]| log.lines().any(|line| line.contains("audit") && words.iter().all(|words| line.contains(words)));
    assert!(audited(&["created a token", "short", "viewer", "first"]), "{log}");
    assert!(
        audited(&["revoked a token", "guest", "first"])
            && audited(&["refused a call", "127.0.0.1", "GET", "/v1/status", "unauthenticated"])
    );
    for secret in [&exposed.admin, &wrong, &short, &guest] {
        assert!(!log.contains(&secret[9..]), "a secret is in the log");
    }
}

#[tokio::test]
async fn commands_show_a_token_over_tls_to_whom_they_trust() {
    let exposed = Exposed::start(&[]);
    let admin = Some(&*exposed.admin);
    assert!(exposed.run(admin, &["status"]).status.success());
    let listed: Value = serde_json::from_slice(&exposed.run(admin, &["token", "list", "--json"]).stdout).expect("json");
    assert_eq!((&listed["tokens"][0]["name"], &listed["tokens"][0]["role"]), (&"first".into(), &"admin".into()));
    let created = exposed.run(admin, &["token", "create", "ci", "--role", "deployer", "--expires", "30d", "--json"]);
    let created: Value = serde_json::from_slice(&created.stdout).expect("json");
    let ci = created["token"].as_str().expect("a secret");
    assert!(created["expires_at"].is_string() && created["name"] == "ci");
    let all = exposed.run(admin, &["token", "list"]);
    assert!(String::from_utf8_lossy(&all.stdout).contains("deployer") && !String::from_utf8_lossy(&all.stdout).contains(&ci[9..]));
    fails(&exposed.run(admin, &["token", "create", "ci", "--role", "viewer"]), 12, "token `ci` exists already");
    fails(&exposed.run(admin, &["token", "revoke", "absent"]), 3, "`edgeward token list`");

    let artifact = crate::support::artifact("hello");
    let deploy = ["deploy", &*artifact, "--id", "hello"];
    assert!(exposed.run(Some(ci), &deploy).status.success());
    let viewer = exposed.create("viewer", "viewer", &[]);
    fails(&exposed.run(Some(&viewer), &deploy), 14, "needs the role deployer");
    fails(&exposed.run(None, &["status"]), 15, "EDGEWARD_TOKEN");
    fails(&exposed.run(Some(&ci.replace('_', "-")), &["status"]), 15, "not known here");
    fails(&exposed.run(Some("two words"), &["status"]), 9, "there is no token in `EDGEWARD_TOKEN`");

    // A file wins over the environment.
    let file = exposed.folder.path().join("token");
    fs::write(&file, format!("{viewer}\n")).expect("written");
    let file = file.display().to_string();
    assert!(exposed.run(Some("edgeward_other"), &["status", "--token-file", &file]).status.success());

    let stranger = Certificate::new();
    let untrusted = exposed.command(admin, &["status"]).env("EDGEWARD_CA", stranger.path("ca.pem")).output().expect("starts");
    fails(&untrusted, 10, "trust it with `--ca FILE`");
    let system = exposed.command(admin, &["status"]).env_remove("EDGEWARD_CA").output().expect("starts");
    fails(&system, 10, "trust it with `--ca FILE`");
    fails(&exposed.run(admin, &["status", "--ca", &exposed.certificate.text("key.pem")]), 9, "BEGIN CERTIFICATE");
    let other_name = format!("https://127.0.0.2:{}", exposed.node.api.port());
    fails(&exposed.run(admin, &["status", "--server", &other_name]), 10, "a name or address that its certificate is for");
    let plain = format!("http://{}", exposed.node.api);
    fails(&exposed.run(admin, &["status", "--server", &plain]), 10, "https://");
    fails(&exposed.run(admin, &["status", "--server", "http://edge.example:7700"]), 9, "is not sent");
    let doctor = exposed.run(None, &["doctor"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("EDGEWARD_TOKEN"), "{}", String::from_utf8_lossy(&doctor.stdout));
}

#[tokio::test]
async fn a_tool_of_an_assistant_may_do_what_the_token_of_its_caller_may() {
    let exposed = Exposed::start(&[]);
    let (viewer, deployer) = (exposed.create("looks", "viewer", &[]), exposed.create("ships", "deployer", &[]));
    let call = async |token: Option<&str>, tool: &str, arguments: Value| call_tool(&exposed, token, tool, &arguments).await;
    let edit = || serde_json::json!({ "document": "cellar", "patch": { "celsius": 12 } });
    problem(&call(None, "edge_list_nodes", serde_json::json!({})).await, 401, "unauthenticated", "a token is needed");
    assert_eq!(json(&call(Some(&viewer), "edge_list_nodes", serde_json::json!({})).await)["result"]["structuredContent"]["total"], 1);
    let refused = json(&call(Some(&viewer), "edge_edit_document", edit()).await);
    assert_eq!((&refused["result"]["isError"], &refused["result"]["structuredContent"]["kind"]), (&true.into(), &"forbidden".into()));
    assert!(refused.to_string().contains("this needs the role deployer, and token `looks` has the role viewer"), "{refused}");
    until("it is told to the audit log", async || exposed.node.stderr().contains("/v1/documents/cellar")).await;
    let edited = json(&call(Some(&deployer), "edge_edit_document", edit()).await);
    assert_eq!(edited["result"]["structuredContent"]["version"], 1, "{edited}");
}

#[tokio::test]
async fn the_tokens_of_a_node_that_runs_are_changed_by_the_node() {
    let exposed = Exposed::start(&[]);
    fails(&create_offline(&exposed.data, "second", &["--role", "admin"]), 12, "without `--data-dir`");
    let nowhere = exposed.folder.path().join("nowhere");
    fails(&create_offline(&nowhere, "first", &["--role", "admin"]), 3, "`--id ID`");
    assert!(!nowhere.exists());
    let Exposed { node, data, .. } = exposed;
    node.kill();
    secret(&create_offline(&data, "second", &["--role", "admin"]));
    fails(&create_offline(&data, "third", &["--role", "admin", "--id", "another"]), 12, "belongs to node `edge-test`");
    // On loopback nobody shows a token, and everybody on this machine may manage them.
    let node = Node::start(&data).await;
    assert!(String::from_utf8_lossy(&node.done(&["token", "list"])).contains("second"));
    node.done(&["token", "revoke", "second"]);
    assert!(node.stderr().contains("(loopback)"), "{}", node.stderr());
}

#[tokio::test]
async fn plain_http_at_a_tls_port_gets_no_data() {
    let exposed = Exposed::start(&[]);
    for address in [exposed.node.api, exposed.node.functions] {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.expect("taken");
        let mut read = Vec::new();
        // The end may be a reset.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("it ends");
        assert_eq!(read, b"", "{}", String::from_utf8_lossy(&read));
    }
}

#[tokio::test]
async fn slow_handshakes_hold_up_nobody_and_end() {
    let exposed = Exposed::start(&[]);
    let mut silent = Vec::new();
    for n in 0..400 {
        let mut stream = TcpStream::connect(exposed.node.api).await.expect("connects");
        // Some begin, and never go on.
        if n % 8 == 0 {
            stream.write_all(&[22, 3, 1]).await.expect("taken");
        }
        silent.push(stream);
    }
    let begun = Instant::now();
    assert_eq!(exposed.ask(Method::GET, "/v1/status", Some(&exposed.admin), "").await.status(), 200);
    assert!(begun.elapsed() < Duration::from_secs(5), "it waited {:?}", begun.elapsed());
    for mut stream in silent {
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("it is disconnected");
    }
}

#[tokio::test]
async fn who_shows_a_token_on_loopback_may_do_what_it_says_and_no_more() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let viewer = secret(&node.run(&["token", "create", "reader", "--role", "viewer"]));
    let publish = async |token: Option<&str>| {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        node.ask(Method::POST, "/v1/topics/a", &headers, "x").await.status().as_u16()
    };
    assert_eq!((publish(None).await, publish(Some(&viewer)).await, publish(Some("edgeward_wrong")).await), (201, 403, 401));
    assert!(node.stderr().contains("audit"), "who was refused is told");
}
