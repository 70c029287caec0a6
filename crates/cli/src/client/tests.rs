//! The client against a server that answers with fixed bytes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// Serves one connection: reads until the request holds `until`, answers, closes. Gives the address and the request.
async fn serve(until: &'static str, answer: &'static str) -> (Client, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("valid");
    let request = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut request = Vec::new();
        while !String::from_utf8_lossy(&request).contains(until) {
            assert_ne!(stream.read_buf(&mut request).await.expect("a request"), 0);
        }
        stream.write_all(answer.as_bytes()).await.expect("the client reads");
        String::from_utf8_lossy(&request).into_owned()
    });
    (Client::new(server, Trust::default()), request)
}

#[test]
fn a_server_that_is_no_address_is_refused_with_the_reason() {
    for (text, why) in [
        ("127.0.0.1:7700", "begin with `http://` or `https://`"),
        ("http://edge/v1", "end after the port"),
        ("http://u:p@edge", "password"),
        ("http://", "like `http://127.0.0.1:7700`"),
    ] {
        let error = text.parse::<ServerUrl>().expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    let server: ServerUrl = "http://[::1]:7700/".parse().expect("valid");
    assert_eq!((server.host.as_str(), server.port, server.is_loopback()), ("::1", 7700, true));
    assert_eq!(server.to_string(), "http://[::1]:7700");
    let server: ServerUrl = "https://edge.example".parse().expect("valid");
    assert_eq!((server.port, server.is_tls, server.to_string().as_str()), (443, true, "https://edge.example"));
    assert!(!"http://edge.example".parse::<ServerUrl>().expect("valid").is_loopback());
}

#[tokio::test]
async fn a_request_carries_its_condition_and_tells_its_progress() {
    let (client, request) = serve("payload", "HTTP/1.1 201 Created\r\ncontent-length: 4\r\n\r\n[1] ").await;
    let sent_bytes = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent_bytes);
    let payload = Payload::with_progress(Bytes::from_static(b"payload"), move |bytes| {
        counter.fetch_add(bytes, Ordering::Relaxed);
    });
    let answer = client.send(Request::new(Method::PUT, "/v1/functions/a").if_generation(3).payload(payload)).await.expect("success");
    assert_eq!(answer.json().await.expect("whole").read::<Vec<u32>>().expect("json"), [1]);
    assert_eq!(sent_bytes.load(Ordering::Relaxed), 7);
    let request = request.await.expect("served");
    for part in ["PUT /v1/functions/a HTTP/1.1\r\n", "if-match: \"3\"\r\n", "content-length: 7\r\n", "host: 127.0.0.1:"] {
        assert!(request.contains(part), "{part} in {request}");
    }
}

#[tokio::test]
async fn a_problem_is_kept_as_the_node_sent_it() {
    let answer = "HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\r\n\
                  {\"title\":\"not found\",\"status\":404,\"detail\":\"function not found: `a`\",\"kind\":\"not_found\"}";
    let (client, _request) = serve("\r\n\r\n", answer).await;
    let error = client.get("/v1/functions/a").await.expect_err("404");
    assert_eq!(error.to_string(), "function not found: `a`");
    let Error::Refused(problem) = error else { panic!("{error:?}") };
    assert_eq!(problem.kind, edgeward::ErrorKind::NotFound);
    assert!(answer.as_bytes().ends_with(&problem.bytes));
}

#[tokio::test]
async fn another_server_on_the_port_is_not_taken_for_a_node() {
    let (client, _request) = serve("\r\n\r\n", "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}").await;
    assert!(matches!(client.get("/v1/status").await, Err(Error::Foreign { .. })));
}

#[tokio::test]
async fn a_connection_that_breaks_inside_an_answer_is_an_error() {
    let (client, _request) = serve("\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{").await;
    let answer = client.get("/v1/status").await.expect("a head");
    assert!(matches!(answer.json().await, Err(Error::Broken { .. })));
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("valid");
    drop(listener);
    assert!(matches!(Client::new(server, Trust::default()).get("/").await, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn events_are_read_to_the_end_of_the_answer() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nid: 1\ndata: a\n\nid: 2\ndata: b\n\n";
    let (client, _request) = serve("\r\n\r\n", answer).await;
    let mut events = client.get("/v1/functions/a/logs").await.expect("a head").events();
    let mut data = Vec::new();
    while let Some(event) = events.next().await.expect("whole") {
        data.push(event.data);
    }
    assert_eq!(data, ["a", "b"]);
}
