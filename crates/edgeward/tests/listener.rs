//! The function listener over real connections: what reaches a function, what comes back, and how slow, large or
//! vanished clients and failing functions are handled.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeward::{
    EdgeFunction, EdgeNode, EdgeRuntime, Handler,
    limits::{CLIENT_STALL_TIMEOUT, REQUEST_BYTES_MAX, REQUEST_HEAD_TIMEOUT},
    listener::{self, serve_functions},
};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A listener with one function, `f`.
struct Listener {
    runtime: Arc<EdgeRuntime>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Listener {
    async fn start(guest: &str, change: impl FnOnce(&mut EdgeFunction)) -> Self {
        let runtime = Arc::new(EdgeRuntime::new(EdgeNode::new("edge-01", "test").expect("valid")));
        let path = format!("{}/../../functions/built/{guest}.wasm", env!("CARGO_MANIFEST_DIR"));
        let digest = runtime.add_artifact(std::fs::read(&path).expect("built")).await.expect("runs here");
        let mut function = EdgeFunction::new("f", "f", Handler::Artifact(digest)).expect("valid");
        change(&mut function);
        runtime.deploy(function).await.expect("deploys");
        let listener = listener::Listener::new(TcpListener::bind("127.0.0.1:0").await.expect("binds"), None).expect("loopback");
        let address = listener.address();
        let serving = tokio::spawn(serve_functions(Arc::clone(&runtime), listener, CancellationToken::new()));
        Self { runtime, address, serving }
    }

    async fn connect(&self) -> Wire {
        Wire { stream: TcpStream::connect(self.address).await.expect("connects"), read: Vec::new() }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.expect("connects");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("speaks");
        tokio::spawn(connection);
        in_time(sender.send_request(request)).await.expect("an answer")
    }

    async fn get(&self, path: &str) -> (http::response::Parts, String) {
        let request = Request::get(path).header(header::HOST, "edge").body(Full::default()).expect("valid");
        let (parts, body) = self.send(request).await.into_parts();
        let body = in_time(body.collect()).await.expect("whole").to_bytes();
        (parts, String::from_utf8_lossy(&body).into_owned())
    }

    async fn until_running(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.runtime.running() != count {
            assert!(Instant::now() < deadline, "{} invocations run, not {count}", self.runtime.running());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A connection, byte by byte.
struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        in_time(self.stream.write_all(bytes.as_ref())).await.expect("taken");
    }

    /// Reads until the text came, and gives all that was read.
    async fn until(&mut self, text: &str) -> String {
        loop {
            let read = String::from_utf8_lossy(&self.read);
            if read.contains(text) {
                return read.into_owned();
            }
            let bytes = in_time(self.stream.read_buf(&mut self.read)).await.expect("readable");
            assert!(bytes > 0, "`{text}` never came: {}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Reads to the end of the connection, also when it is reset.
    async fn read_to_end(mut self) -> String {
        while matches!(in_time(self.stream.read_buf(&mut self.read)).await, Ok(bytes) if bytes > 0) {}
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

fn problem(parts: &http::response::Parts, body: &str) -> serde_json::Value {
    assert_eq!(parts.headers[header::CONTENT_TYPE], "application/problem+json");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[tokio::test]
async fn method_path_headers_and_prefix_reach_the_function() {
    let listener = Listener::start("hostile", |_| ()).await;
    let request = Request::put("/fn/f/request?a=%20&b")
        .header(header::HOST, "edge.example")
        .header("x-twice", "one")
        .header("x-twice", "two")
        // A client cannot make up the prefix.
        .header("x-forwarded-prefix", "/made-up")
        .body(Full::from("x"))
        .expect("valid");
    let body = listener.send(request).await.into_body().collect().await.expect("whole").to_bytes();
    let seen: serde_json::Value = serde_json::from_slice(&body).expect("json");
    assert_eq!((&seen["method"], &seen["path_with_query"]), (&"PUT".into(), &"/request?a=%20&b".into()));
    assert_eq!(seen["authority"], "edge.example");
    let headers = |name: &str| -> Vec<_> {
        let pairs = seen["headers"].as_array().expect("pairs").iter();
        pairs.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(headers("x-twice"), ["one", "two"]);
    assert_eq!(headers("x-forwarded-prefix"), ["/fn/f"]);
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let listener = Listener::start("hostile", |_| ()).await;
    let mut wire = listener.connect().await;
    wire.write("POST /fn/f/echo HTTP/1.1\r\nhost: edge\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n").await;
    wire.write("5\r\nfirst\r\n").await;
    // The first part comes back although the request has not ended.
    wire.until("first").await;
    wire.write("6\r\nsecond\r\n").await;
    wire.until("second").await;
    wire.write("0\r\n\r\n").await;
    assert!(wire.read_to_end().await.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn trailers_are_kept() {
    let listener = Listener::start("hostile", |_| ()).await;
    let mut wire = listener.connect().await;
    wire.write("GET /fn/f/trailers HTTP/1.1\r\nhost: edge\r\nte: trailers\r\nconnection: close\r\n\r\n").await;
    let answer = wire.read_to_end().await;
    assert!(answer.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn the_status_and_answer_of_a_function_pass_as_they_are() {
    let listener = Listener::start("hostile", |_| ()).await;
    let (parts, body) = listener.get("/fn/f/absent").await;
    assert!(parts.status == 404 && body.contains("/slow-body"), "{body}");
    let (parts, body) = listener.get("/fn/f/exit500").await;
    assert_eq!((parts.status.as_u16(), body.as_str()), (500, "broken"));
    assert_eq!(parts.headers[header::CONTENT_TYPE], "text/plain");
    // What is not the function's own answer is a problem.
    let (parts, body) = listener.get("/fn/absent/").await;
    assert_eq!((parts.status.as_u16(), &problem(&parts, &body)["kind"]), (404, &"not_found".into()));
    let (parts, body) = listener.get("/other").await;
    assert_eq!((parts.status.as_u16(), &problem(&parts, &body)["kind"]), (404, &"not_found".into()));
}

#[tokio::test]
async fn an_overloaded_function_says_when_to_come_again() {
    let listener = Listener::start("hostile", |f| (f.max_concurrency, f.max_queue) = (1, 0)).await;
    let mut busy = listener.connect().await;
    busy.write("GET /fn/f/sleep?ms=60000 HTTP/1.1\r\nhost: edge\r\n\r\n").await;
    listener.until_running(1).await;
    let (parts, body) = listener.get("/fn/f/count").await;
    assert_eq!((parts.status.as_u16(), &problem(&parts, &body)["kind"]), (503, &"overloaded".into()));
    let seconds: u32 = parts.headers[header::RETRY_AFTER].to_str().expect("text").parse().expect("seconds");
    assert!(seconds > 0);
    drop(busy);
    listener.until_running(0).await;
    assert_eq!(listener.get("/fn/f/count").await.0.status, 200);
}

#[tokio::test]
async fn a_deadline_before_the_answer_is_a_problem_and_inside_it_breaks_the_connection() {
    let listener = Listener::start("hostile", |f| f.timeout_seconds = 0.4).await;
    for path in ["/fn/f/loop", "/fn/f/sleep?ms=60000"] {
        let (parts, body) = listener.get(path).await;
        assert_eq!((parts.status.as_u16(), &problem(&parts, &body)["kind"]), (504, &"timeout".into()), "{path}");
    }
    let mut wire = listener.connect().await;
    wire.write("GET /fn/f/slow-body HTTP/1.1\r\nhost: edge\r\n\r\n").await;
    let answer = wire.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\n.\r\n"), "{answer}");
    assert!(!answer.contains("0\r\n\r\n"), "it looks whole: {answer}");
}

#[tokio::test]
async fn the_inside_of_a_failing_function_is_not_shown() {
    let listener = Listener::start("hostile", |f| f.memory_mb = 16).await;
    for (path, kind) in [("/fn/f/stderr", "execution_failed"), ("/fn/f/trap", "execution_failed"), ("/fn/f/memory", "memory_limit")] {
        let (parts, body) = listener.get(path).await;
        assert_eq!((parts.status.as_u16(), &problem(&parts, &body)["kind"]), (500, &kind.into()), "{path}");
        for inside in ["stderr says hi", "unreachable", "wasm", "16 MiB", "hostile"] {
            assert!(!body.contains(inside), "{path} shows `{inside}`: {body}");
        }
    }
}

#[tokio::test]
async fn a_request_body_over_its_bound_is_too_large() {
    let listener = Listener::start("hostile-c", |f| f.environment = [("MODE", "echo")].into_iter().collect()).await;
    let told = format!("POST /fn/f/ HTTP/1.1\r\nhost: edge\r\ncontent-length: {}\r\n\r\n", REQUEST_BYTES_MAX + 1);
    let mut wire = listener.connect().await;
    wire.write(told).await;
    // Refused by what it says, before any of it is sent.
    let answer = wire.until("too_large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let mut wire = listener.connect().await;
    wire.write("POST /fn/f/ HTTP/1.1\r\nhost: edge\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..REQUEST_BYTES_MAX / chunk.len() {
        wire.write(format!("{:x}\r\n", chunk.len())).await;
        wire.write(&chunk).await;
        wire.write("\r\n").await;
    }
    wire.write("1\r\nx\r\n0\r\n\r\n").await;
    let answer = wire.until("too_large").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let listener = Listener::start("hello", |_| ()).await;
    let many = "x: y\r\n".repeat(200);
    let large = format!("x: {}\r\n", "y".repeat(100 * 1024));
    for fields in [many, large] {
        let mut wire = listener.connect().await;
        wire.write(format!("GET /fn/f/ HTTP/1.1\r\nhost: edge\r\n{fields}\r\n")).await;
        let answer = wire.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert_eq!(listener.get("/fn/f/").await.0.status, 200);
}

#[tokio::test]
async fn http_2_is_spoken_with_prior_knowledge_and_breaks_off_only_its_stream() {
    let listener = Listener::start("hostile", |f| f.timeout_seconds = 0.4).await;
    let stream = TcpStream::connect(listener.address).await.expect("connects");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("speaks");
    tokio::spawn(connection);
    let request = |path: &str| {
        let uri = format!("http://edge.example/fn/f{path}");
        Request::get(uri).version(http::Version::HTTP_2).header("te", "trailers").body(Full::<Bytes>::default()).expect("valid")
    };
    let broken = in_time(sender.send_request(request("/slow-body"))).await.expect("an answer");
    let answer = in_time(sender.send_request(request("/request?x"))).await.expect("an answer");
    assert_eq!(answer.version(), http::Version::HTTP_2);
    let seen: serde_json::Value = serde_json::from_slice(&answer.into_body().collect().await.expect("whole").to_bytes()).expect("json");
    assert_eq!((&seen["path_with_query"], &seen["authority"]), (&"/request?x".into(), &"edge.example".into()));
    in_time(broken.into_body().collect()).await.expect_err("the deadline cut it");
    let answer = in_time(sender.send_request(request("/trailers"))).await.expect("the connection goes on");
    let body = answer.into_body().collect().await.expect("whole");
    assert_eq!(body.trailers().expect("kept")["x-sum"], "42");
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_function() {
    let listener = Listener::start("hostile", |f| f.timeout_seconds = 600.0).await;
    for (path, begun) in [("slow-body", "\r\n.\r\n"), ("loop", ""), ("sleep?ms=600000", ""), ("big?bytes=60000000", "xxxx")] {
        let mut wire = listener.connect().await;
        wire.write(format!("GET /fn/f/{path} HTTP/1.1\r\nhost: edge\r\n\r\n")).await;
        wire.until(begun).await;
        listener.until_running(1).await;
        if path == "loop" {
            until_computing().await;
        }
        drop(wire);
        listener.until_running(0).await;
        until_idle().await;
    }
}

/// Processor time of this process so far, in ticks of 10 ms.
fn computed_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// Waits until this process has computed for 100 ms: a guest that does has moved to its own threads.
async fn until_computing() {
    let (deadline, begun) = (Instant::now() + PATIENCE, computed_ticks());
    while computed_ticks() < begun + 10 {
        assert!(Instant::now() < deadline, "nothing computes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until this process hardly computes: a guest that nobody counts any more may still run.
async fn until_idle() {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = computed_ticks();
        tokio::time::sleep(Duration::from_millis(200)).await;
        if computed_ticks() <= before + 4 {
            return;
        }
        assert!(Instant::now() < deadline, "something computes on");
    }
}

/// How far past the deadline answers come to 64 connections that ask all the time, one a little after the other: the
/// 99th percentile.
async fn over_the_deadline(listener: &Listener, path: &str, timeout: Duration) -> Duration {
    const CONNECTIONS: u32 = 64;
    const CALLS: usize = 3;
    let mut clients = JoinSet::new();
    let mut pace = tokio::time::interval(timeout / CONNECTIONS);
    for _ in 0..CONNECTIONS {
        pace.tick().await;
        // A body that never comes, for the path that reads it.
        let head = format!("POST /fn/f{path} HTTP/1.1\r\nhost: edge\r\ntransfer-encoding: chunked\r\n\r\n");
        let address = listener.address;
        clients.spawn(async move {
            let mut times = Vec::new();
            for _ in 0..CALLS {
                let mut wire = Wire { stream: TcpStream::connect(address).await.expect("connects"), read: Vec::new() };
                let asked = Instant::now();
                wire.write(&head).await;
                let answer = wire.until("\r\n\r\n").await;
                times.push(asked.elapsed().saturating_sub(timeout));
                assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
            }
            times
        });
    }
    let mut times = clients.join_all().await.concat();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// The best of a few rounds counts, because noise of the machine only ever adds.
#[tokio::test(flavor = "multi_thread")]
async fn alone_64_connections_get_their_answers_at_the_deadline() {
    const ROUNDS: usize = 5;
    let timeout = Duration::from_millis(400);
    let listener = Listener::start("hostile", |f| f.timeout_seconds = timeout.as_secs_f64()).await;
    for path in ["/loop", "/sleep?ms=60000", "/reads"] {
        let mut told = Vec::new();
        while told.len() < ROUNDS && told.last().is_none_or(|over| *over > Duration::from_millis(50)) {
            told.push(over_the_deadline(&listener, path, timeout).await);
        }
        assert!(told.last().is_some_and(|over| *over <= Duration::from_millis(50)), "{path} ran over: {told:?}");
    }
}

#[tokio::test]
async fn trailers_of_a_request_reach_the_function() {
    let listener = Listener::start("hostile", |_| ()).await;
    let mut wire = listener.connect().await;
    wire.write("POST /fn/f/request-trailers HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n").await;
    wire.write("trailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n").await;
    let answer = wire.read_to_end().await;
    assert!(answer.contains("x-sum: 42\n"), "{answer}");
}

#[tokio::test]
async fn long_a_head_that_trickles_is_cut_in_time() {
    let listener = Listener::start("hello", |_| ()).await;
    let mut wire = listener.connect().await;
    let begun = Instant::now();
    let head = "GET /fn/f/ HTTP/1.1\r\nhost: edge\r\nx-slow: ".chars().chain(std::iter::repeat('y'));
    for byte in head {
        if wire.stream.write_all(&[byte as u8]).await.is_err() {
            break;
        }
        // The pace of the client, which is what is tested; the end of the connection ends the wait.
        let mut buffer = [0; 1024];
        if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(Duration::from_secs(1), wire.stream.read(&mut buffer)).await {
            break;
        }
        assert!(begun.elapsed() < 3 * REQUEST_HEAD_TIMEOUT, "a trickle keeps the connection open");
    }
    let open = begun.elapsed();
    let late = Duration::from_secs(3);
    assert!((REQUEST_HEAD_TIMEOUT..REQUEST_HEAD_TIMEOUT + late).contains(&open), "{open:?}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_holds_the_function_until_the_deadline() {
    let listener = Listener::start("hostile", |f| f.timeout_seconds = 1.0).await;
    let mut wire = listener.connect().await;
    wire.write("GET /fn/f/big?bytes=60000000 HTTP/1.1\r\nhost: edge\r\n\r\n").await;
    wire.until("xxxx").await;
    let begun = Instant::now();
    listener.until_running(0).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_takes_its_answer_slowly_loses_the_rest_at_the_deadline() {
    let listener = Listener::start("hostile", |f| f.timeout_seconds = 1.0).await;
    let mut wire = listener.connect().await;
    wire.write("GET /fn/f/big?bytes=60000000 HTTP/1.1\r\nhost: edge\r\n\r\n").await;
    let (begun, mut read, mut buffer) = (Instant::now(), 0, vec![0; 100 << 10]);
    // The pace of the client, which is what is tested.
    while let Ok(bytes @ 1..) = in_time(wire.stream.read(&mut buffer)).await {
        read += bytes;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(begun.elapsed() < Duration::from_secs(20), "it goes on and on");
    }
    assert!(read < 60_000_000, "it came whole");
    listener.until_running(0).await;
}

#[tokio::test]
async fn a_request_that_names_no_host_is_refused() {
    let listener = Listener::start("hello", |_| ()).await;
    let mut wire = listener.connect().await;
    wire.write("GET /fn/f/ HTTP/1.0\r\n\r\n").await;
    let answer = wire.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.0 400") && answer.contains("no Host header"), "{answer}");
    assert_eq!(listener.runtime.metrics().total_invocations(edgeward::Filter::ALL), 0);
}

#[tokio::test]
async fn long_a_connection_that_asks_nothing_is_closed() {
    let listener = Listener::start("hello", |_| ()).await;
    let get = "GET /fn/f/ HTTP/1.1\r\nhost: edge\r\n\r\n";
    for asked in ["", "PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", get] {
        let mut wire = listener.connect().await;
        wire.write(asked).await;
        let begun = Instant::now();
        wire.read_to_end().await;
        let open = begun.elapsed();
        let (early, late) = (Duration::from_millis(100), Duration::from_secs(3));
        assert!((REQUEST_HEAD_TIMEOUT..REQUEST_HEAD_TIMEOUT + late).contains(&(open + early)), "{asked:?}: {open:?}");
    }
}

#[tokio::test]
async fn long_a_stalled_stream_of_http_2_gives_its_place_back() {
    // Its deadline is longer than the patience with its client.
    let listener = Listener::start("hostile", |f| f.timeout_seconds = 600.0).await;
    let stream = TcpStream::connect(listener.address).await.expect("connects");
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("speaks");
    tokio::spawn(connection);
    let request =
        Request::get("http://edge/fn/f/big?bytes=60000000").version(http::Version::HTTP_2).body(Full::<Bytes>::default()).expect("valid");
    let answer = in_time(sender.send_request(request)).await.expect("an answer");
    let begun = Instant::now();
    while listener.runtime.running() > 0 && begun.elapsed() < 2 * CLIENT_STALL_TIMEOUT {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(listener.runtime.running(), 0);
    drop(answer);
}
