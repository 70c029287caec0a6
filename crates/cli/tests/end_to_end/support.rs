//! A node in a process of its own, which ends with its handle, and ways to talk to it.
//!
//! Both listeners take free ports, which the node prints. Every wait has a deadline.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// Longest wait for anything: a whole compilation on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
const POLL_EVERY: Duration = Duration::from_millis(10);

/// A node in a process of its own. Dropping it kills the process.
pub(crate) struct Node {
    child: Child,
    stderr: PathBuf,
    pub(crate) api: SocketAddr,
    pub(crate) functions: SocketAddr,
    /// Where it serves MQTT, when it was told to.
    pub(crate) mqtt: Option<SocketAddr>,
}

impl Node {
    /// Starts `edgeward up` on free ports and waits until it is ready.
    pub(crate) async fn start(data_dir: &Path) -> Self {
        let node = Self::launch(data_dir, &[], &[]);
        until("the node is ready", async || {
            let request = request(Method::GET, "/readyz").body(Full::default()).expect("valid");
            try_send(node.api, request).await.is_some_and(|response| response.status() == 200)
        })
        .await;
        node
    }

    /// Starts `edgeward up` with these options and variables, and waits until it has told where it listens.
    pub(crate) fn launch(data_dir: &Path, options: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::launch_as("up", data_dir, options, variables)
    }

    /// Starts `edgeward up`, `node` or `hub`, and waits until it has told where it listens. A hub serves no functions: they are at its API.
    pub(crate) fn launch_as(command: &str, data_dir: &Path, options: &[&str], variables: &[(&str, &str)]) -> Self {
        let (child, stderr) = spawn(command, data_dir, options, variables);
        let mut child = KillOnDrop(Some(child));
        let stdout = child.0.as_mut().and_then(|child| child.stdout.take()).expect("piped");
        let (sender, lines) = mpsc::channel();
        // Reads to the end, so that the node never blocks on a full pipe.
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let address = |name: &str| loop {
            let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no address: {}", read(&stderr)));
            if let Some(url) = line.trim().strip_prefix(name) {
                let (_, rest) = url.trim().split_once("://").expect("a URL");
                let mut address: SocketAddr = rest.split('/').next().and_then(|address| address.parse().ok()).expect("an address");
                if address.ip().is_unspecified() {
                    address.set_ip(Ipv4Addr::LOCALHOST.into());
                }
                break address;
            }
        };
        let functions = (command != "hub").then(|| address("functions"));
        let api = address("API");
        let functions = functions.unwrap_or(api);
        let mqtt = options.contains(&"--mqtt-listen").then(|| address("MQTT"));
        Self { child: child.0.take().expect("there"), stderr, api, functions, mqtt }
    }

    /// The id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Asks the process to stop.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        ended(&mut self.child).await
    }

    /// What the process wrote to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// A command that talks to this node.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = edgeward(args);
        command.env("EDGEWARD_SERVER", format!("http://{}", self.api));
        command
    }

    /// Runs a command that talks to this node.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("starts")
    }

    /// Runs a command that must succeed, and gives its standard output.
    pub(crate) fn done(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Deploys one of the built guests.
    pub(crate) fn deploy(&self, id: &str, guest: &str, options: &[&str]) {
        let artifact = artifact(guest);
        self.done(&[&["deploy", &artifact, "--id", id], options].concat());
    }

    /// Asks the API.
    pub(crate) async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Bytes> {
        let request = headers.iter().fold(request(method, path), |request, (name, value)| request.header(*name, *value));
        try_send(self.api, request.body(Full::new(body.into())).expect("valid")).await.expect("an answer")
    }

    /// Reads JSON from the API.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let response = self.ask(Method::GET, path, &[], "").await;
        assert_eq!(response.status(), 200, "{path}");
        json(&response)
    }

    /// Asks the function listener.
    pub(crate) async fn get_function(&self, path: &str) -> Response<Bytes> {
        try_send(self.functions, request(Method::GET, path).body(Full::default()).expect("valid")).await.expect("an answer")
    }

    /// Waits until so many invocations run.
    pub(crate) async fn until_running(&self, count: u64) {
        until("the invocations run", async || self.json("/v1/status").await["running"] == count).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kills a process whose handle is lost to a panic.
pub(crate) struct KillOnDrop(pub(crate) Option<Child>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs `edgeward up` where it must end by itself, and gives its exit code and standard error.
pub(crate) async fn refused_up(data_dir: &Path, options: &[&str]) -> (Option<i32>, String) {
    refused("up", data_dir, options).await
}

/// The same for any of the processes.
pub(crate) async fn refused(command: &str, data_dir: &Path, options: &[&str]) -> (Option<i32>, String) {
    let (child, stderr) = spawn(command, data_dir, options, &[]);
    let mut child = KillOnDrop(Some(child));
    let status = ended(child.0.as_mut().expect("there")).await;
    (status.code(), read(&stderr))
}

pub(crate) fn spawn(command: &str, data_dir: &Path, options: &[&str], variables: &[(&str, &str)]) -> (Child, PathBuf) {
    let has = |name: &str| options.contains(&name) || (name == "--functions-listen" && command == "hub");
    let mut command = edgeward(&[command, "--data-dir"]);
    command.arg(data_dir).args(options).envs(variables.iter().copied()).stdout(Stdio::piped());
    for (option, value) in [("--id", "edge-test"), ("--listen", "127.0.0.1:0"), ("--functions-listen", "127.0.0.1:0")] {
        if !has(option) {
            command.args([option, value]);
        }
    }
    // Beside the data folder, which belongs to the node.
    let stderr = data_dir.with_extension("stderr");
    let file = fs::File::options().create(true).append(true).open(&stderr).expect("opens");
    (command.stderr(file).spawn().expect("starts"), stderr)
}

pub(crate) async fn ended(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("ours") {
            return status;
        }
        assert!(Instant::now() < deadline, "the process did not end");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// The binary with these arguments and nothing of the environment that changes what it does.
pub(crate) fn edgeward(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgeward"));
    for variable in ["EDGEWARD_SERVER", "EDGEWARD_TOKEN", "EDGEWARD_CA", "EDGEWARD_LOG", "EDGEWARD_NODE_ID", "EDGEWARD_DATA_DIR"] {
        command.env_remove(variable);
    }
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("OTEL_"))) {
        command.env_remove(variable);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// A folder that goes away, and the data folder inside it.
pub(crate) fn data_dir() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("temp folder");
    let data_dir = folder.path().join("data");
    (folder, data_dir)
}

/// Path of a built guest.
pub(crate) fn artifact(guest: &str) -> String {
    format!("{}/../../functions/built/{guest}.wasm", env!("CARGO_MANIFEST_DIR"))
}

/// Polls a condition until it holds.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// A request from this machine.
pub(crate) fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header(header::HOST, "127.0.0.1")
}

/// Sends a request on a connection of its own; the body of the answer still comes.
pub(crate) async fn open(address: SocketAddr, request: Request<Full<Bytes>>) -> Option<Response<Incoming>> {
    send_over(TcpStream::connect(address).await.ok()?, request).await
}

/// Sends a request on this connection; the body of the answer still comes.
pub(crate) async fn send_over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Option<Response<Incoming>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("an answer in time").ok()
}

/// Sends a request and waits for the whole answer.
pub(crate) async fn try_send(address: SocketAddr, request: Request<Full<Bytes>>) -> Option<Response<Bytes>> {
    let (parts, body) = open(address, request).await?.into_parts();
    Some(Response::from_parts(parts, body.collect().await.ok()?.to_bytes()))
}

/// The body of an answer as JSON.
pub(crate) fn json(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or_else(|error| panic!("{error}: {:?}", response.body()))
}

/// Checks that an answer is a problem of this kind, with these words in its detail.
#[track_caller]
pub(crate) fn problem(response: &Response<Bytes>, status: u16, kind: &str, words: &str) {
    let body = String::from_utf8_lossy(response.body()).into_owned();
    assert_eq!(response.status(), status, "{body}");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let problem = json(response);
    assert_eq!((&problem["kind"], &problem["status"]), (&kind.into(), &status.into()), "{body}");
    assert_eq!(problem["type"], format!("urn:edgeward:error:{kind}"));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{body}");
}

/// What a command wrote to standard error.
pub(crate) fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks that a command failed with this exit code, and told these words.
#[track_caller]
pub(crate) fn fails(output: &Output, code: i32, words: &str) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(words), "{told}");
    assert!(output.stdout.is_empty(), "a failure writes nothing to standard output");
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("there")
}
