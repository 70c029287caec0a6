//! Outgoing HTTP of guests: which hosts and addresses they reach, and for how long they wait.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use edgeward_model::{
    ErrorKind,
    limits::{OUTGOING_BETWEEN_BYTES_TIMEOUT, OUTGOING_CALLS_MAX, OUTGOING_CONNECT_TIMEOUT, OUTGOING_FIRST_BYTE_TIMEOUT},
};
use edgeward_runtime::EdgeRuntime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

use crate::support::{call, hostile, text};

/// Longest that a wait may last past its end.
const LATE: Duration = Duration::from_secs(2);

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

/// Reads a request, answers it with `answer`, and gives back the connection and the request's head.
fn serve(listener: TcpListener, answer: &'static str) -> JoinHandle<(TcpStream, String)> {
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("called");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut head).await.expect("asked");
        }
        stream.write_all(answer.as_bytes()).await.expect("answered");
        (stream, String::from_utf8(head).expect("text"))
    })
}

async fn allowing(hosts: &[&str], timeout_seconds: f64) -> EdgeRuntime {
    let hosts = hosts.iter().map(ToString::to_string).collect();
    hostile(|f| (f.allowed_hosts, f.timeout_seconds) = (hosts, timeout_seconds)).await
}

/// What the guest says of its call.
async fn fetch(runtime: &EdgeRuntime, url: &str) -> String {
    text(call(runtime, &format!("/fetch?url={url}")).await.expect("answers")).await
}

#[tokio::test]
async fn an_outgoing_call_is_denied_unless_listed() {
    let (listener, port) = listener().await;
    for hosts in [&[] as &[&str], &["http://127.0.0.1"], &["https://127.0.0.1:*"], &["http://127.0.0.2:*"], &["http://*.127.0.0.1:*"]] {
        let answer = fetch(&allowing(hosts, 10.0).await, &format!("http://127.0.0.1:{port}/")).await;
        assert!(answer.contains("HttpRequestDenied"), "{hosts:?}: {answer}");
    }
    assert!(futures::FutureExt::now_or_never(listener.accept()).is_none(), "it was connected");
}

#[tokio::test]
async fn a_pattern_for_any_host_opens_no_internal_address_by_number_or_by_name() {
    let (listener, port) = listener().await;
    let runtime = allowing(&["*://*:*"], 10.0).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "2130706433", "169.254.169.254"] {
        let answer = fetch(&runtime, &format!("http://{host}:{port}/")).await;
        assert!(answer.contains("DestinationIpProhibited"), "{host}: {answer}");
    }
    assert!(futures::FutureExt::now_or_never(listener.accept()).is_none(), "it was connected");
}

#[tokio::test]
async fn a_listed_host_is_called() {
    let (listener, port) = listener().await;
    let server = serve(listener, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npong");
    let answer = fetch(&allowing(&[&format!("http://127.0.0.1:{port}")], 10.0).await, &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(answer, "pong");
    assert!(server.await.expect("served").1.contains(&format!("host: 127.0.0.1:{port}\r\n")));
}

#[tokio::test]
async fn a_name_is_connected_at_the_address_that_is_listed() {
    let (listener, port) = listener().await;
    // Any name, but of the internal addresses only this one.
    let runtime = allowing(&[&format!("http://*:{port}"), &format!("http://127.0.0.1:{port}")], 10.0).await;
    let server = serve(listener, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npong");
    assert_eq!(fetch(&runtime, &format!("http://localhost:{port}/")).await, "pong");
    let (stream, head) = server.await.expect("served");
    assert_eq!(stream.local_addr().expect("connected").to_string(), format!("127.0.0.1:{port}"));
    assert!(head.contains(&format!("host: localhost:{port}\r\n")), "{head}");
    // The same name is not connected at an address that no pattern lists.
    let runtime = allowing(&[&format!("http://*:{port}"), &format!("http://127.0.0.2:{port}")], 10.0).await;
    let answer = fetch(&runtime, &format!("http://localhost:{port}/")).await;
    assert!(answer.contains("DestinationIpProhibited"), "{answer}");
}

#[tokio::test]
async fn a_redirect_to_a_host_that_is_not_listed_is_the_guests_to_follow() {
    let (listener, port) = listener().await;
    let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 5\r\n\r\nmoved";
    let server = serve(listener, answer);
    let runtime = allowing(&[&format!("http://127.0.0.1:{port}")], 10.0).await;
    let response = call(&runtime, &format!("/fetch?url=http://127.0.0.1:{port}/")).await.expect("answers");
    assert_eq!((response.status().as_u16(), text(response).await.as_str()), (302, "moved"));
    server.await.expect("served");
}

/// A port of this machine where a connection is neither accepted nor refused, for as long as the others live.
async fn port_without_answer() -> (u16, impl Sized) {
    let socket = TcpSocket::new_v4().expect("opens");
    socket.bind("127.0.0.1:0".parse().expect("address")).expect("binds");
    let listener = socket.listen(1).expect("listens");
    let address = listener.local_addr().expect("bound");
    let mut waiting = Vec::new();
    // Past the queue of the listener, the system drops what asks to be connected.
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        waiting.push(connected.expect("connects"));
        assert!(waiting.len() < 64, "the queue has no end");
    }
    (address.port(), (listener, waiting))
}

#[tokio::test]
async fn no_outgoing_wait_lasts_past_the_deadline_of_the_function() {
    let (full, _full) = port_without_answer().await;
    let (listener, silent) = listener().await;
    let _silent = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.push(stream);
        }
    });
    let (breaks_off, stalls) = self::listener().await;
    let _stalls = serve(breaks_off, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nand then");
    let timeout = Duration::from_millis(500);
    let runtime = allowing(&["http://127.0.0.1:*"], timeout.as_secs_f64()).await;
    for port in [full, silent, stalls] {
        let begun = Instant::now();
        let error = match call(&runtime, &format!("/fetch?url=http://127.0.0.1:{port}/")).await {
            Ok(response) => response.into_body().bytes().await.expect_err("cut"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!((timeout..timeout + LATE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }
    assert_eq!(runtime.running(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outgoing_calls_of_a_function_wait_their_turn() {
    let (listener, port) = listener().await;
    let hosts = vec!["http://127.0.0.1:*".to_owned()];
    let runtime = Arc::new(hostile(|f| (f.allowed_hosts, f.max_concurrency) = (hosts, 100)).await);
    let called = || {
        let (runtime, path) = (Arc::clone(&runtime), format!("/fetch?url=http://127.0.0.1:{port}/"));
        tokio::spawn(async move { call(&runtime, &path).await.map(drop) })
    };
    let calls: Vec<_> = (0..=OUTGOING_CALLS_MAX).map(|_| called()).collect();
    let mut connections = Vec::new();
    while let Ok(accepted) = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await {
        connections.push(accepted.expect("called"));
    }
    assert_eq!(connections.len(), OUTGOING_CALLS_MAX);
    connections.pop();
    listener.accept().await.expect("the next one has its turn");
    calls.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn long_an_outgoing_call_waits_five_seconds_for_a_connection() {
    let (port, _full) = port_without_answer().await;
    let runtime = allowing(&["http://127.0.0.1:*"], 60.0).await;
    let begun = Instant::now();
    let answer = fetch(&runtime, &format!("http://127.0.0.1:{port}/")).await;
    let (waited, bound) = (begun.elapsed(), OUTGOING_CONNECT_TIMEOUT);
    assert!(answer.contains("ConnectionTimeout") && (bound..bound + LATE).contains(&waited), "{waited:?}: {answer}");
}

#[tokio::test]
async fn long_an_outgoing_call_waits_fifteen_seconds_for_the_first_byte() {
    let (listener, port) = listener().await;
    let silent = serve(listener, "");
    let runtime = allowing(&["http://127.0.0.1:*"], 60.0).await;
    let begun = Instant::now();
    let answer = fetch(&runtime, &format!("http://127.0.0.1:{port}/")).await;
    let (waited, bound) = (begun.elapsed(), OUTGOING_FIRST_BYTE_TIMEOUT);
    assert!(answer.contains("ConnectionReadTimeout") && (bound..bound + LATE).contains(&waited), "{waited:?}: {answer}");
    drop(silent.await.expect("it was asked, and stayed open"));
}

#[tokio::test]
async fn long_an_outgoing_call_waits_fifteen_seconds_between_bytes() {
    let (listener, port) = listener().await;
    let stalls = serve(listener, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nand then");
    let runtime = allowing(&["http://127.0.0.1:*"], 60.0).await;
    let begun = Instant::now();
    let response = call(&runtime, &format!("/fetch?url=http://127.0.0.1:{port}/")).await.expect("answers");
    let error = response.into_body().bytes().await.expect_err("broken off");
    let (waited, bound) = (begun.elapsed(), OUTGOING_BETWEEN_BYTES_TIMEOUT);
    assert!(error.kind() == ErrorKind::ExecutionFailed && (bound..bound + LATE).contains(&waited), "{waited:?}: {error}");
    drop(stalls.await.expect("it was asked, and stayed open"));
}
