//! What credentials let a member do, and how they end: a real nats-server with the configuration that the hub gives it.

use std::{collections::BTreeMap, fs, net::SocketAddr, sync::Arc, time::Duration};

use async_nats::ConnectOptions;
use edgeward_cluster::{
    BackboneError, Claim, Claimed, Credentials, Message, Name, NatsBackbone, NatsOptions, Subject, Subjects, Tls, handler,
    nats::{Authority, CertificateAuthority, Revoked, ServerConfig},
};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    server::Server,
    site::{ECHO, Member, NEWS, PATIENCE, down, eventually, node, up},
};

/// How long nothing must come for it to count as nothing.
const SILENCE: Duration = Duration::from_millis(500);

/// A server, and the authority that signs for its members.
struct Fleet {
    server: Server,
    authority: Arc<Authority>,
    folder: TempDir,
}

/// A member's secret and public key.
struct Key {
    seed: String,
    public: String,
}

impl Key {
    fn new() -> Self {
        let pair = nkeys::KeyPair::new_user();
        Self { seed: pair.seed().expect("it has one"), public: pair.public_key() }
    }
}

impl Fleet {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (ca, now) = (CertificateAuthority::new(Timestamp::now()).expect("made"), Timestamp::now());
        // Kept and read again, as a hub does.
        let ca = CertificateAuthority::from_pem(ca.certificate(), &ca.key()).expect("it is valid");
        let certificate = ca.server(&["127.0.0.1".to_owned()], now, 30).expect("made");
        let [ca_file, chain, key] = ["ca.pem", "chain.pem", "key.pem"].map(|name| folder.path().join(name));
        for (file, text) in [(&ca_file, ca.certificate()), (&chain, &certificate.chain), (&key, &certificate.key)] {
            fs::write(file, text).expect("the folder takes a file");
        }
        let authority = Arc::new(Authority::new());
        let signs = Arc::clone(&authority);
        let server = Server::start_with(move |port, data| {
            let listen = SocketAddr::from(([127, 0, 0, 1], port));
            let config = ServerConfig { name: "test", listen, data, tls: (&chain, &key) };
            config.text(&signs, &Revoked::new(), Timestamp::now()).expect("written")
        })
        .await;
        Self { server, authority, folder }
    }

    fn options(&self, id: &str, credentials: Option<Credentials>) -> NatsOptions {
        let servers = vec![format!("nats://127.0.0.1:{}", self.server.port())];
        NatsOptions { credentials, tls: Tls::Ca(self.folder.path().join("ca.pem")), ..NatsOptions::new(node(id), servers) }
    }

    fn token(&self, id: &str, key: &Key, lives: SignedDuration) -> String {
        let now = Timestamp::now();
        self.authority.node(&node(id), &key.public, now + lives, now).expect("signed")
    }

    async fn connect(&self, id: &str, credentials: Credentials) -> Member {
        Arc::new(NatsBackbone::connect(self.options(id, Some(credentials))).await.expect("the options are valid"))
    }

    async fn node(&self, id: &str) -> Member {
        let key = Key::new();
        let credentials = Credentials::new(&key.seed, self.token(id, &key, SignedDuration::from_hours(1))).expect("valid");
        let member = self.connect(id, credentials).await;
        up(&member, 1).await;
        member
    }

    async fn hub(&self, id: &str) -> Member {
        let (key, now) = (Key::new(), Timestamp::now());
        let token = self.authority.hub(&node(id), &key.public, now + SignedDuration::from_hours(1), now).expect("signed");
        let hub = self.connect(id, Credentials::new(&key.seed, token).expect("valid")).await;
        up(&hub, 1).await;
        hub
    }

    /// A client without our own care, with the credentials of a node.
    async fn bare(&self, id: &str) -> (async_nats::Client, tokio::sync::mpsc::Receiver<String>) {
        let key = Key::new();
        let token = self.token(id, &key, SignedDuration::from_hours(1));
        let pair = Arc::new(nkeys::KeyPair::from_seed(&key.seed).expect("valid"));
        let (events, received) = tokio::sync::mpsc::channel(64);
        let options = ConnectOptions::with_jwt(token, move |nonce| {
            let pair = Arc::clone(&pair);
            async move { pair.sign(&nonce).map_err(async_nats::AuthError::new) }
        });
        let options = options.require_tls(true).add_root_certificates(self.folder.path().join("ca.pem")).event_callback(move |event| {
            let _ = events.try_send(event.to_string());
            async {}
        });
        let client = options.connect(format!("127.0.0.1:{}", self.server.port())).await.expect("it may connect");
        (client, received)
    }
}

fn echo() -> edgeward_cluster::Handler {
    handler(async |call| Ok(call.message))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_and_a_hub_do_with_their_credentials_what_they_have_to() {
    let fleet = Fleet::new().await;
    let (hub, edge) = (fleet.hub("hub.1").await, fleet.node("edge.1").await);
    let _services = [
        hub.serve(&Subjects::to_hub(ECHO), 8, echo()).await.expect("served"),
        edge.serve(&Subjects::to_node(node("edge.1"), ECHO), 8, echo()).await.expect("served"),
    ];
    let mut at_hub = hub.subscribe(&Subjects::to_hub(NEWS)).await.expect("subscribed");
    let mut at_edge = edge.subscribe(&Subjects::to_node(node("edge.1"), NEWS)).await.expect("subscribed");
    // An answer is allowed once for each request, not once.
    for _ in 0..20 {
        edge.request(&Subject::to_hub(node("edge.1"), ECHO), Message::new("x"), PATIENCE).await.expect("answered");
        hub.request(&Subject::to_node(node("edge.1"), ECHO), Message::new("x"), PATIENCE).await.expect("answered");
    }
    edge.publish(&Subject::to_hub(node("edge.1"), NEWS), Message::new("up")).await.expect("sent");
    hub.publish(&Subject::to_node(node("edge.1"), NEWS), Message::new("down")).await.expect("sent");
    for (subscription, text) in [(&mut at_hub, "up"), (&mut at_edge, "down")] {
        let received = timeout(PATIENCE, subscription.next()).await.expect("it comes in time").expect("the backbone is there");
        assert_eq!(received.message.payload, text);
    }
    let claim = Claim { name: Name::new("hub"), holder: node("hub.1"), ttl: Duration::from_secs(2), seen_term: 0 };
    let Claimed::Held(lease) = hub.lease(claim.clone()).await.expect("asked") else { panic!("it is free") };
    sleep(Duration::from_secs(3)).await;
    assert!(lease.is_held());
    lease.release().await;
    edge.lease(claim).await.map(|_| ()).expect_err("a node has no lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_credentials_of_one_node_reach_nothing_of_another() {
    let fleet = Fleet::new().await;
    let (hub, thief, victim) = (fleet.hub("hub").await, fleet.node("thief").await, fleet.node("victim").await);
    let _service = hub.serve(&Subjects::to_hub(ECHO), 8, echo()).await.expect("served");
    let mut at_hub = hub.subscribe(&Subjects::to_hub(NEWS)).await.expect("subscribed");

    // As another.
    let start = Instant::now();
    let error = thief.request(&Subject::to_hub(node("victim"), ECHO), Message::default(), PATIENCE).await.expect_err("refused");
    assert!(matches!(error, BackboneError::Forbidden(_)), "{error:?}");
    assert!(start.elapsed() < PATIENCE / 2, "it is told, and need not wait");
    // To another node, as only the hub may.
    let error = thief.request(&Subject::to_node(node("victim"), ECHO), Message::default(), PATIENCE).await.expect_err("refused");
    assert!(matches!(error, BackboneError::Forbidden(_)), "{error:?}");
    thief.publish(&Subject::to_hub(node("victim"), NEWS), Message::new("forged")).await.expect("it is handed over, and refused there");

    // What is for another.
    let stolen = thief.serve(&Subjects::to_node(node("victim"), ECHO), 1, echo()).await.expect("it is asked for, and refused there");
    let mut overheard = thief.subscribe(&Subjects::to_node(node("victim"), NEWS)).await.expect("it is asked for, and refused there");
    let mut all = thief.subscribe(&Subjects::to_hub(NEWS)).await.expect("it is asked for, and refused there");
    let error = hub.request(&Subject::to_node(node("victim"), ECHO), Message::default(), PATIENCE).await.expect_err("nobody");
    assert!(matches!(error, BackboneError::NoResponder(_)), "{error:?}");
    hub.publish(&Subject::to_node(node("victim"), NEWS), Message::new("secret")).await.expect("sent");
    victim.publish(&Subject::to_hub(node("victim"), NEWS), Message::new("honest")).await.expect("sent");
    let received = timeout(PATIENCE, at_hub.next()).await.expect("it comes in time").expect("the backbone is there");
    assert_eq!(received.message.payload, "honest", "what was forged never came");
    assert!(timeout(SILENCE, overheard.next()).await.is_err() && timeout(SILENCE, all.next()).await.is_err());
    assert_eq!(stolen.refused(), 0);
    // It goes on with what is its own.
    thief.request(&Subject::to_hub(node("thief"), ECHO), Message::default(), PATIENCE).await.expect("answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_its_own_gets_no_further_than_the_credentials_say() {
    let fleet = Fleet::new().await;
    let (client, mut events) = fleet.bare("thief").await;
    let mut refused = async |what: &str| {
        let what = what.to_owned();
        let told = async {
            while let Some(event) = events.recv().await {
                if event.to_lowercase().contains("permissions violation") && event.contains(&what) {
                    return;
                }
            }
        };
        timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("`{what}` is not refused"));
    };
    let mut subscriptions = Vec::new();
    for subject in ["_INBOX_victim.>", "_INBOX.>", ">", "rpc.node.*.echo", "rpc.hub.>", "$JS.>", "$SYS.>", "$KV.>"] {
        subscriptions.push(client.subscribe(subject).await.expect("it is asked for"));
        refused(subject).await;
    }
    for subject in [
        "$JS.API.CONSUMER.CREATE.KV_edgeward_leases",
        "$JS.API.STREAM.CREATE.mine",
        "$KV.edgeward_leases.hub",
        "$SYS.REQ.CLAIMS.UPDATE",
        "_INBOX_victim.x",
        "edgeward.topics.thief.a",
        "rpc.hub.victim.echo",
        "rpc.node.thief.echo",
    ] {
        client.publish(subject, "x".into()).await.expect("it is handed over");
        refused(subject).await;
    }
    for mut subscription in subscriptions {
        assert!(timeout(Duration::from_millis(10), subscription.next()).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_keeps_the_topics_of_its_fleet() {
    let fleet = Fleet::new().await;
    let (key, now) = (Key::new(), Timestamp::now());
    let token = fleet.authority.hub(&node("hub.1"), &key.public, now + SignedDuration::from_hours(1), now).expect("signed");
    let credentials = Credentials::new(&key.seed, token).expect("valid");
    let hub = Arc::new(NatsBackbone::connect(fleet.options("hub.1", Some(credentials))).await.expect("the options are valid"));
    up(&(Arc::clone(&hub) as Member), 1).await;
    crate::topic_stream::works(&hub.topic_stream()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_credentials_are_refused_without_a_storm_and_new_ones_are_taken() {
    let fleet = Fleet::new().await;
    let key = Key::new();
    let credentials = Credentials::new(&key.seed, fleet.token("edge", &key, SignedDuration::from_secs(5))).expect("valid");
    let edge = fleet.connect("edge", credentials.clone()).await;
    up(&edge, 1).await;
    down(&edge).await;
    eventually("it says why", async || {
        let why = edge.connection().borrow().why_down.clone().unwrap_or_default().to_lowercase();
        why.contains("expired") || why.contains("authorization") || why.contains("authentication")
    })
    .await;
    sleep(Duration::from_secs(2)).await;
    assert!(!edge.connection().borrow().is_up);
    let refusals = fleet.server.log().matches("authentication error").count();
    assert!(refusals < 30, "{refusals} attempts in two seconds");
    credentials.renew(fleet.token("edge", &key, SignedDuration::from_hours(1)));
    up(&edge, 2).await;
    // Another's key does not help.
    let mixed = Credentials::new(&Key::new().seed, fleet.token("edge", &key, SignedDuration::from_hours(1))).expect("valid");
    let wrong = fleet.connect("edge", mixed).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!wrong.connection().borrow().is_up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_is_cut_off_at_once_and_stays_so() {
    let fleet = Fleet::new().await;
    let (hub, other) = (fleet.hub("hub").await, fleet.node("other").await);
    let _service = hub.serve(&Subjects::to_hub(ECHO), 8, echo()).await.expect("served");
    let key = Key::new();
    let credentials = Credentials::new(&key.seed, fleet.token("edge", &key, SignedDuration::from_hours(1))).expect("valid");
    let edge = fleet.connect("edge", credentials).await;
    up(&edge, 1).await;
    edge.request(&Subject::to_hub(node("edge"), ECHO), Message::default(), PATIENCE).await.expect("answered");

    let now = Timestamp::now();
    let start = Instant::now();
    fleet.authority.revoke(&fleet.options("hub", None), &BTreeMap::from([(key.public.clone(), now)]), now).await.expect("told");
    down(&edge).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    sleep(Duration::from_secs(2)).await;
    let error = edge.request(&Subject::to_hub(node("edge"), ECHO), Message::default(), PATIENCE).await.expect_err("it is out");
    assert!(matches!(error, BackboneError::Disconnected(_)), "{error:?}");
    other.request(&Subject::to_hub(node("other"), ECHO), Message::default(), PATIENCE).await.expect("the others stay");
    assert_eq!((other.connection().borrow().ups, hub.connection().borrow().ups), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_authority_is_refused_and_so_is_who_shows_nothing() {
    let fleet = Fleet::new().await;
    let key = Key::new();
    let token = fleet.token("edge", &key, SignedDuration::from_hours(1));
    let credentials = Credentials::new(&key.seed, token).expect("valid");
    let another = CertificateAuthority::new(Timestamp::now()).expect("made");
    let file = fleet.folder.path().join("another.pem");
    fs::write(&file, another.certificate()).expect("the folder takes a file");
    let wary = NatsOptions { tls: Tls::Ca(file), ..fleet.options("edge", Some(credentials)) };
    let members = [
        NatsBackbone::connect(wary).await.expect("the options are valid"),
        NatsBackbone::connect(fleet.options("edge", None)).await.expect("the options are valid"),
    ];
    for member in members {
        let member: Member = Arc::new(member);
        eventually("it says why", async || {
            member.connection().borrow().why_down.as_ref().is_some_and(|why| why != "it has not connected yet")
        })
        .await;
        assert_eq!(member.connection().borrow().ups, 0);
    }
}
