//! MQTT on a node, spoken by a client of others, and over TLS byte by byte.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, str::FromStr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use edgeward::{
    ContentMode, DocumentName, Documents, Draft, EdgeError, Message, MqttOptions, Node, Received, Start, Subscription, TokenName,
    TopicFilter, Trigger,
    access::{NODE_TOKENS, Role, Token, Tokens},
    cluster::nats::CertificateAuthority,
    listener::{Listener, Tls, TlsFiles},
    serve_mqtt,
};
use jiff::Timestamp;
use rumqttc::{AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, Packet, QoS};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, crypto,
        pki_types::{CertificateDer, pem::PemObject},
    },
};
use tokio_util::sync::CancellationToken;

use super::support::{Bench, in_time, trigger, until};

/// MQTT on a node, until it is stopped.
struct Served {
    address: SocketAddr,
    tokens: Arc<Tokens>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

async fn serve(node: &Arc<Node>, at: &str, tls: Option<Arc<Tls>>) -> Served {
    let tcp = TcpListener::bind(at).await.expect("binds");
    let listener = Listener::new(tcp, tls).expect("may listen");
    let address = SocketAddr::from(([127, 0, 0, 1], listener.address().port()));
    let tokens = Arc::new(Tokens::open(node.documents(), DocumentName::new(NODE_TOKENS).expect("valid")).expect("opens"));
    let (stop, node) = (CancellationToken::new(), Arc::clone(node));
    let (until, options) = (stop.clone(), MqttOptions { tokens: Arc::clone(&tokens) });
    let serving = tokio::spawn(async move { serve_mqtt(&node, listener, options, until).await });
    Served { address, tokens, stop, serving }
}

impl Served {
    async fn stop(self) {
        self.stop.cancel();
        in_time("the broker ends", self.serving).await.expect("no panic");
    }

    /// The secret of a new token.
    fn secret(&self, name: &str, role: Role) -> String {
        let token =
            Token { name: TokenName::new(name).expect("valid"), role, created_at: Timestamp::now(), expires_at: None, topics: None };
        self.tokens.create(&token).expect("made").reveal().to_owned()
    }

    fn client(&self, id: &str, change: impl FnOnce(&mut rumqttc::MqttOptions)) -> (AsyncClient, EventLoop) {
        let mut options = rumqttc::MqttOptions::new(id, self.address.ip().to_string(), self.address.port());
        options.set_keep_alive(Duration::from_secs(30));
        change(&mut options);
        AsyncClient::new(options, 32)
    }

    /// What a client is answered that connects with this password.
    async fn answer(&self, password: &str) -> ConnectReturnCode {
        let (_client, mut events) = self.client("knocking", |options| {
            options.set_credentials("anybody", password);
        });
        match in_time("an answer", events.poll()).await {
            Ok(Event::Incoming(Packet::ConnAck(answer))) => answer.code,
            Err(ConnectionError::ConnectionRefused(code)) => code,
            other => panic!("no answer: {other:?}"),
        }
    }
}

/// Polls a client until this many of its messages are acknowledged.
async fn acknowledged(events: &mut EventLoop, mut count: usize) {
    while count > 0 {
        if let Event::Incoming(Packet::PubAck(_)) = in_time("an acknowledgement", events.poll()).await.expect("connected") {
            count -= 1;
        }
    }
}

async fn next(subscription: &mut Subscription) -> Arc<Message> {
    match in_time("a message", subscription.next()).await.expect("reads") {
        Received::Message(message) => message,
        Received::Lost(lost) => panic!("{lost} messages are lost"),
    }
}

fn follow(node: &Node, filter: &str) -> Subscription {
    node.topics().subscribe(&[TopicFilter::new(filter).expect("valid")], Start::At(1)).expect("subscribed")
}

/// Temperatures of a year, as its station wrote them; a row for each hour.
fn rows(file: &str, column: usize, count: usize) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../functions/data").join(file);
    let text = std::fs::read_to_string(path).expect("there");
    text.lines().skip(1).take(count).map(|line| line.split(',').nth(column).expect("two columns").to_owned()).collect()
}

/// What a document has under this key, as a number.
fn number<T: FromStr>(draft: &Draft<'_, '_>, key: &str) -> Result<Option<T>, EdgeError> {
    let json = draft.get(key)?.map(|value| edgeward::python_json::write(&value)).transpose()?;
    Ok(json.and_then(|json| json.parse().ok()))
}

/// Adds a temperature to the document of its site. What comes again is passed over, by its position.
async fn aggregate(documents: Documents, event: String) -> Result<(), String> {
    let event: serde_json::Value = serde_json::from_str(&event).map_err(|error| error.to_string())?;
    let part = |name: &str| event[name].as_str().ok_or(format!("the event has no {name}"));
    let (id, subject, data) = (part("id")?, part("subject")?, part("data_base64")?);
    let position: i64 = id.parse().map_err(|_| "its id is no position")?;
    // Sensors that speak MQTT 3.1.1 say no media type.
    let data = BASE64.decode(data).map_err(|error| error.to_string())?;
    let value: f64 = String::from_utf8_lossy(&data).parse().map_err(|_| "its data is no number")?;
    let site = subject.split('/').nth(1).ok_or("its topic has no site")?;
    let document = documents.document(DocumentName::new(format!("site.{site}")).map_err(|error| error.chain())?);
    let add = move |draft: &mut Draft<'_, '_>| {
        if number::<i64>(draft, "position")?.is_some_and(|last| last >= position) {
            return Ok(());
        }
        let (count, max) = (number::<i64>(draft, "count")?.unwrap_or(0), number::<f64>(draft, "max")?.unwrap_or(f64::MIN));
        draft.set("position", &position.into())?;
        draft.set("count", &(count + 1).into())?;
        draft.set("max", &value.max(max).into())
    };
    let done = edgeward::blocking(move || document.edit(edgeward::document::Precondition::None, add)).await;
    done.map(drop).map_err(|error| error.chain())
}

#[tokio::test]
async fn sensors_of_two_sites_reach_a_function_that_keeps_a_document_for_each() {
    let bench = Bench::new();
    let documents = bench.node.documents().clone();
    bench.deploy(move |event| aggregate(documents.clone(), event)).await;
    bench.put(Trigger { mode: ContentMode::Structured, ..trigger(&["site/+/temp"], 5, 4) }).await;
    let served = serve(&bench.node, "127.0.0.1:0", None).await;
    let sites = [("seattle", rows("seattle-temps.csv", 1, 200)), ("sf", rows("sf-temps.csv", 0, 200))];
    let sensors = sites.iter().map(|(site, rows)| {
        let (client, mut events) = served.client(site, |_| ());
        async move {
            let publishing = async {
                for row in rows {
                    client.publish(format!("site/{site}/temp"), QoS::AtLeastOnce, false, row.as_str()).await.expect("sent");
                }
            };
            tokio::join!(publishing, acknowledged(&mut events, rows.len()));
            client.disconnect().await.expect("sent");
            while events.poll().await.is_ok() {}
        }
    });
    futures::future::join_all(sensors).await;
    until("all are handled", async || bench.view().await.delivered >= 400).await;
    for (site, rows) in &sites {
        let data = bench.node.documents().document(DocumentName::new(format!("site.{site}")).expect("valid")).view();
        let data = data.expect("read").expect("there").data;
        let max = rows.iter().map(|row| row.parse::<f64>().expect("a number")).fold(f64::MIN, f64::max);
        assert_eq!((&data.0["count"], &data.0["max"]), (&200_i64.into(), &max.into()), "{site}");
    }
    served.stop().await;
    // What was acknowledged is in the log, whatever became of the process.
    let bench = bench.restart().await;
    let mut subscription = follow(&bench.node, "site/sf/temp");
    for row in &sites[1].1 {
        assert_eq!(next(&mut subscription).await.payload, row.as_bytes());
    }
}

#[tokio::test]
async fn a_password_is_a_token_and_its_role_says_what_a_client_may_do() {
    let bench = Bench::new();
    let served = serve(&bench.node, "127.0.0.1:0", None).await;
    let (viewer, deployer) = (served.secret("reader", Role::Viewer), served.secret("writer", Role::Deployer));
    assert_eq!(served.answer("edgeward_wrong").await, ConnectReturnCode::BadUserNamePassword);
    assert_eq!(served.answer(&viewer).await, ConnectReturnCode::Success);
    for (secret, payload) in [(&viewer, "of a viewer"), (&deployer, "of a deployer")] {
        let (client, mut events) = served.client(payload, |options| {
            options.set_credentials("anybody", secret);
        });
        client.publish("a", QoS::AtLeastOnce, false, payload).await.expect("sent");
        // A client of version 3.1.1 that may not publish is cut off.
        loop {
            match in_time("an answer", events.poll()).await {
                Ok(Event::Incoming(Packet::PubAck(_))) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }
    let mut subscription = follow(&bench.node, "a");
    assert_eq!(next(&mut subscription).await.payload, "of a deployer");
    served.tokens.revoke(&TokenName::new("reader").expect("valid")).expect("revoked");
    assert_eq!(served.answer(&viewer).await, ConnectReturnCode::BadUserNamePassword);
    served.stop().await;
}

#[tokio::test]
async fn a_client_whose_token_is_revoked_is_cut_off_and_the_others_stay() {
    let bench = Bench::new();
    let served = serve(&bench.node, "127.0.0.1:0", None).await;
    let [mut cut, mut stays] = ["revoked", "good"].map(|name| {
        let secret = served.secret(name, Role::Deployer);
        served.client(name, |options| {
            options.set_credentials("anybody", &secret);
        })
    });
    for (client, events) in [&mut cut, &mut stays] {
        client.publish("a", QoS::AtLeastOnce, false, "x").await.expect("sent");
        acknowledged(events, 1).await;
    }
    served.tokens.revoke(&TokenName::new("revoked").expect("valid")).expect("revoked");
    while in_time("its end", cut.1.poll()).await.is_ok() {}
    stays.0.publish("a", QoS::AtLeastOnce, false, "x").await.expect("sent");
    acknowledged(&mut stays.1, 1).await;
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_without_a_word_leaves_its_will_and_news_of_it() {
    let bench = Bench::new();
    bench.deploy(async |_| Ok(())).await;
    bench.put(trigger(&["$edgeward/clients/+"], 1, 1)).await;
    let served = serve(&bench.node, "127.0.0.1:0", None).await;
    let (client, mut events) = served.client("sensor-1", |options| {
        options.set_last_will(LastWill::new("status/sensor-1", "offline", QoS::AtLeastOnce, true));
    });
    client.publish("status/sensor-1", QoS::AtLeastOnce, true, "online").await.expect("sent");
    acknowledged(&mut events, 1).await;
    drop((client, events));
    until("the will is retained", async || {
        let retained = bench.node.topics().retained(&TopicFilter::new("status/+").expect("valid"), "").await.expect("read");
        retained.len() == 1 && retained[0].payload == "offline"
    })
    .await;
    until("the function was told", async || bench.given().len() == 2).await;
    let told: Vec<serde_json::Value> = bench.given().iter().map(|json| serde_json::from_str(json).expect("JSON")).collect();
    assert_eq!((&told[0]["state"], &told[0]["client"], &told[0]["user"]), (&"connected".into(), &"sensor-1".into(), &"local".into()));
    assert_eq!((&told[1]["state"], &told[1]["is_graceful"]), (&"disconnected".into(), &false.into()));
    served.stop().await;
}

/// A certificate of the name `edge`, and what a client needs to trust it.
fn certificate(folder: &Path) -> (Arc<Tls>, TlsConnector) {
    let now = Timestamp::now();
    let authority = CertificateAuthority::new(now).expect("made");
    let made = authority.server(&["edge".to_owned()], now, 30).expect("made");
    let files = TlsFiles { certificate: folder.join("chain.pem"), key: folder.join("key.pem") };
    std::fs::write(&files.certificate, &made.chain).expect("written");
    std::fs::write(&files.key, &made.key).expect("written");
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).expect("ours");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.certificate().as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("a certificate");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider())).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    (Tls::open(files).expect("fits"), TlsConnector::from(Arc::new(config)))
}

/// A packet of MQTT 3.1.1: its first byte, its length, and its parts, texts with theirs.
fn packet(first: u8, head: &[u8], texts: &[&str], rest: &[u8]) -> Vec<u8> {
    let mut body = head.to_vec();
    for text in texts {
        body.extend(u16::try_from(text.len()).expect("short").to_be_bytes());
        body.extend(text.as_bytes());
    }
    body.extend(rest);
    let length = u8::try_from(body.len()).expect("below 128");
    assert!(length < 128);
    [vec![first, length], body].concat()
}

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH_ONCE_AT_LEAST: u8 = 0x32;
const PUBACK: u8 = 0x40;
/// MQTT 3.1.1 with a clean session, a keep-alive of a minute, and what is said beside.
fn connect_head(flags: u8) -> Vec<u8> {
    [&[0, 4][..], b"MQTT", &[4, 0x02 | flags, 0, 60]].concat()
}

#[tokio::test]
async fn whom_others_can_reach_over_tls_takes_no_client_without_a_password() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().expect("temp folder");
    let (tls, connector) = certificate(folder.path());
    let served = serve(&bench.node, "0.0.0.0:0", Some(tls)).await;
    let secret = served.secret("writer", Role::Deployer);
    let connect = async |hello: Vec<u8>| {
        let tcp = TcpStream::connect(served.address).await.expect("connects");
        let mut stream = in_time("a handshake", connector.connect("edge".try_into().expect("a name"), tcp)).await.expect("trusted");
        stream.write_all(&hello).await.expect("sent");
        let mut answer = [0; 4];
        in_time("an answer", stream.read_exact(&mut answer)).await.expect("answered");
        (stream, answer)
    };
    // 4 is a wrong name or password, in version 3.1.1.
    let (_, answer) = connect(packet(CONNECT, &connect_head(0), &["a"], &[])).await;
    assert_eq!(answer, [CONNACK, 2, 0, 4], "no password");
    let (_, answer) = connect(packet(CONNECT, &connect_head(0xc0), &["a", "anybody", "edgeward_wrong"], &[])).await;
    assert_eq!(answer, [CONNACK, 2, 0, 4], "a wrong one");
    let (mut stream, answer) = connect(packet(CONNECT, &connect_head(0xc0), &["a", "anybody", &secret], &[])).await;
    assert_eq!(answer, [CONNACK, 2, 0, 0]);
    stream.write_all(&packet(PUBLISH_ONCE_AT_LEAST, &[], &["a/b"], &[0, 7, b'x'])).await.expect("sent");
    let mut answer = [0; 4];
    in_time("an acknowledgement", stream.read_exact(&mut answer)).await.expect("acknowledged");
    assert_eq!(answer, [PUBACK, 2, 0, 7]);
    assert_eq!(next(&mut follow(&bench.node, "a/b")).await.payload, "x");
    // Who speaks no TLS gets no answer.
    let mut plain = TcpStream::connect(served.address).await.expect("connects");
    plain.write_all(&packet(CONNECT, &connect_head(0), &["a"], &[])).await.expect("sent");
    let read = in_time("an end", plain.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    // One that is connected hears that the broker stops.
    served.stop().await;
    assert!(matches!(in_time("an end", stream.read(&mut [0; 1])).await, Ok(0) | Err(_)));
}
