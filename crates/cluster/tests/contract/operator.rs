//! Servers that somebody else runs, by the files that the fleet gives them.

use std::{collections::BTreeMap, fs, net::TcpListener, path::Path, sync::Arc, time::Duration};

use edgeward_cluster::{
    Claim, Claimed, Name,
    nats::{Authority, CredentialState, CredentialsTtl, FleetFolder, HubLink, ServerConfig, ServerFiles, Servers},
};
use edgeward_model::limits::LEASE_TTL_MAX;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    enrolment::is_refused,
    fleet::{Hub, Records, boot, echo, hub_options, join},
    server::Server,
    site::{down, eventually, node, up},
};

/// Starts a server of this name; `more` is added to its configuration.
pub(crate) async fn start(fleet: &FleetFolder, folder: &Path, name: &'static str, more: String) -> Server {
    let (keys, files) = (Arc::clone(fleet.keys()), folder.join(name));
    Server::start_with(move |port, _data| {
        let listen = ([127, 0, 0, 1], port).into();
        let server = ServerFiles { name: name.to_owned(), listen, names: vec!["127.0.0.1".to_owned()], installed_at: files.clone() };
        server.write(&keys, &BTreeMap::new(), &files, Timestamp::now()).expect("written");
        fs::read_to_string(files.join("nats.conf")).expect("it is there") + &more.replace("FILES", &files.to_string_lossy())
    })
    .await
}

pub(crate) fn urls<const N: usize>(servers: [&Server; N]) -> Vec<String> {
    servers.map(|server| format!("nats://127.0.0.1:{}", server.port())).into()
}

pub(crate) struct Operated {
    pub(crate) folder: TempDir,
    pub(crate) fleet: FleetFolder,
    records: Arc<parking_lot::Mutex<Records>>,
}

impl Operated {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fleet = FleetFolder::open_or_create(folder.path(), Timestamp::now()).expect("made");
        Self { folder, fleet, records: Arc::default() }
    }

    pub(crate) async fn hub(&self, servers: Vec<String>, lease_replicas: usize) -> Hub {
        self.fleet.set_servers(&servers).expect("kept");
        Hub::start(&self.fleet, Servers::At(servers), lease_replicas, &self.records, CredentialsTtl::default()).await
    }

    pub(crate) async fn revoke(&self, hub: &Hub, id: &str) {
        let key = self.records.lock().nodes.remove(&node(id)).expect("it joined");
        hub.link.revoke([(key, Timestamp::now())].into()).await.expect("told");
    }

    /// The folder of a node that joined.
    async fn enrolled(&self, id: &str) -> std::path::PathBuf {
        let folder = self.folder.path().join("nodes").join(id);
        fs::create_dir_all(&folder).expect("made");
        let token = self.fleet.join_token(Vec::new(), None, Duration::from_mins(5), Timestamp::now()).expect("made");
        join(&token, id, &folder).await.expect("admitted");
        folder
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_the_operator_works_by_the_files_that_the_fleet_gives_it() {
    let site = Operated::new();
    let server = start(&site.fleet, site.folder.path(), "n1", String::new()).await;
    let hub = site.hub(urls([&server]), 1).await;
    assert!(hub.link.broker().is_none());
    let (edge, link) = boot(&site.enrolled("edge").await).await;
    up(&edge, 1).await;
    echo(&edge, "edge").await.expect("answered");
    site.revoke(&hub, "edge").await;
    down(&edge).await;
    is_refused(&link).await;
    assert!(hub.member.connection().borrow().is_up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_whose_servers_do_not_trust_its_fleet_says_so() {
    let site = Operated::new();
    let (keys, files) = (Arc::clone(site.fleet.keys()), site.folder.path().join("n1"));
    let server = Server::start_with(move |port, data| {
        let listen = ([127, 0, 0, 1], port).into();
        let server = ServerFiles { name: "n1".to_owned(), listen, names: vec!["127.0.0.1".to_owned()], installed_at: files.clone() };
        server.write(&keys, &BTreeMap::new(), &files, Timestamp::now()).expect("written");
        let tls = (&*files.join("server.pem"), &*files.join("server.key"));
        let config = ServerConfig { name: "n1", listen, data, tls };
        config.text(&Authority::new(), &BTreeMap::new(), Timestamp::now()).expect("written")
    })
    .await;
    let options = hub_options(Servers::At(urls([&server])), 1, CredentialsTtl::default());
    let link = HubLink::open(site.fleet.keys(), options, BTreeMap::new()).await.expect("valid");
    let is_refused = async || matches!(&*link.credentials().borrow(), CredentialState::Refused { why } if why.contains("do they trust"));
    eventually("it says so", is_refused).await;
    let end = Instant::now() + Duration::from_secs(3);
    eventually("some time has passed", async || Instant::now() > end).await;
    assert!(is_refused().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_of_the_operator_work_as_one_and_one_of_them_may_go() {
    let site = Operated::new();
    let listeners = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    let ports = listeners.each_ref().map(|listener| listener.local_addr().expect("it is bound").port());
    drop(listeners);
    let routes = ports.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
    let cluster = |port| {
        let tls = "tls { cert_file: \"FILES/server.pem\", key_file: \"FILES/server.key\", ca_file: \"FILES/ca.pem\", verify: true }";
        format!("cluster {{ name: fleet, listen: \"127.0.0.1:{port}\", routes: [{routes}], {tls} }}\n")
    };
    let folder = site.folder.path();
    let (first, second, third) = tokio::join!(
        start(&site.fleet, folder, "n1", cluster(ports[0])),
        start(&site.fleet, folder, "n2", cluster(ports[1])),
        start(&site.fleet, folder, "n3", cluster(ports[2])),
    );
    let hub = site.hub(urls([&first, &second, &third]), 3).await;
    let claim = || Claim { name: Name::new("kept"), holder: node("hub"), ttl: LEASE_TTL_MAX, seen_term: 0 };
    eventually("the lease is held", async || matches!(hub.member.lease(claim()).await, Ok(Claimed::Held(_)))).await;
    let [stays, goes] = [site.enrolled("stays").await, site.enrolled("goes").await];
    let ((member, _link), (gone, refused)) = (boot(&stays).await, boot(&goes).await);
    up(&gone, 1).await;
    drop(first);
    eventually("they go on", async || echo(&member, "stays").await.is_ok()).await;
    eventually("the lease is held", async || matches!(hub.member.lease(claim()).await, Ok(Claimed::Held(lease)) if lease.term() > 1)).await;
    eventually("it is told", async || hub.member.connection().borrow().is_up).await;
    site.revoke(&hub, "goes").await;
    is_refused(&refused).await;
    assert!(!gone.connection().borrow().is_up);
    drop((second, third));
}
