//! A fleet with a broker of its own and a hub that lets nodes join and renew, with the least of a registry.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use edgeward_cluster::{
    Message, Service, Subject, Subjects, handler,
    nats::{
        Applicant, Broker, BrokerOptions, CredentialsTtl, Enrolment, FleetFolder, HubLink, HubOptions, JoinToken, NodeLink,
        PING_INTERVAL_DEFAULT, Reception, Registry, Revoked, Servers,
    },
};
use edgeward_model::{EdgeError, ErrorKind, NodeId};
use jiff::Timestamp;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::{
    audit,
    server::program,
    site::{ECHO, Member, PATIENCE, node, up},
};

/// The key of each node, and the revoked ones.
#[derive(Default)]
pub(crate) struct Records {
    pub(crate) nodes: HashMap<NodeId, String>,
    pub(crate) revoked: Revoked,
}

/// What a hub has when its process ends.
pub(crate) struct Fleet {
    pub(crate) folder: TempDir,
    pub(crate) records: Arc<Mutex<Records>>,
    pub(crate) hub: Hub,
    ttl: CredentialsTtl,
}

/// A running hub.
pub(crate) struct Hub {
    pub(crate) link: HubLink,
    pub(crate) member: Member,
    _reception: Reception,
    _echo: Service,
}

impl Records {
    fn admit(&mut self, applicant: Applicant) -> Result<(), EdgeError> {
        if applicant.node.as_str() == "unwanted" {
            return Err(EdgeError::new(ErrorKind::Conflict, "a node of this process has this id"));
        }
        self.nodes.insert(applicant.node, applicant.public_key);
        Ok(())
    }
}

pub(crate) fn broker_options(folder: &Path, port: u16) -> BrokerOptions {
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    BrokerOptions { program: Some(program()), folder: folder.join("broker"), name: "test".to_owned(), listen, names: Vec::new() }
}

pub(crate) fn hub_options(servers: Servers, lease_replicas: usize, ttl: CredentialsTtl) -> HubOptions {
    HubOptions { hub: node("hub"), servers, credentials_ttl: ttl, ping_interval: PING_INTERVAL_DEFAULT, lease_replicas }
}

impl Hub {
    pub(crate) async fn start(
        folder: &FleetFolder,
        servers: Servers,
        lease_replicas: usize,
        records: &Arc<Mutex<Records>>,
        ttl: CredentialsTtl,
    ) -> Self {
        let revoked = records.lock().revoked.clone();
        let link = HubLink::open(folder.keys(), hub_options(servers, lease_replicas, ttl), revoked).await.expect("it starts");
        let member = link.backbone();
        up(&member, 1).await;
        let (admits, knows) = (Arc::clone(records), Arc::clone(records));
        let registry = Registry::new(
            move |applicant| std::future::ready(admits.lock().admit(applicant)),
            move |id| std::future::ready(Ok(knows.lock().nodes.get(&id).cloned())),
        );
        let reception = Reception::open(Arc::clone(&member), folder, ttl, registry).await.expect("served");
        let echo = member.serve(&Subjects::to_hub(ECHO), 8, handler(async |call| Ok(call.message))).await.expect("served");
        Self { link, member, _reception: reception, _echo: echo }
    }
}

impl Fleet {
    /// Its tokens to work with live so long.
    pub(crate) async fn new(ttl: Duration) -> Self {
        audit::listen();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fleet = FleetFolder::open_or_create(folder.path(), Timestamp::now()).expect("made");
        let (ttl, records) = (CredentialsTtl::new(ttl).expect("in bounds"), Arc::<Mutex<Records>>::default());
        let hub = Hub::start(&fleet, Servers::Own(broker_options(folder.path(), 0)), 1, &records, ttl).await;
        fleet.set_servers(&[hub.link.broker().expect("its own").local_url()]).expect("kept");
        Self { folder, records, hub, ttl }
    }

    /// Ends the hub and its broker, and starts them again on what is on disk, after `meanwhile`.
    pub(crate) async fn restart(mut self, meanwhile: impl FnOnce(&Path)) -> Self {
        let port = self.broker().address().port();
        self.hub.link.stop().await;
        meanwhile(self.folder.path());
        let fleet = FleetFolder::open(self.folder.path()).expect("there");
        self.hub = Hub::start(&fleet, Servers::Own(broker_options(self.folder.path(), port)), 1, &self.records, self.ttl).await;
        self
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.hub.link.broker().expect("its own")
    }

    pub(crate) fn fleet(&self) -> FleetFolder {
        FleetFolder::open(self.folder.path()).expect("it was made")
    }

    /// Made as by another process, from what is on disk.
    pub(crate) fn token(&self) -> JoinToken {
        self.fleet().join_token(Vec::new(), None, Duration::from_mins(5), Timestamp::now()).expect("made")
    }

    pub(crate) async fn join(&self, token: &JoinToken, id: &str) -> Result<(), EdgeError> {
        join(token, id, &self.node_folder(id)).await
    }

    /// The folder of a node.
    pub(crate) fn node_folder(&self, id: &str) -> PathBuf {
        let folder = self.folder.path().join("nodes").join(id);
        std::fs::create_dir_all(&folder).expect("made");
        folder
    }

    /// The folder of a node that joined.
    pub(crate) async fn enrolled(&self, id: &str) -> PathBuf {
        self.join(&self.token(), id).await.expect("admitted");
        self.node_folder(id)
    }

    /// Removes a node, as a hub does.
    pub(crate) async fn remove(&self, id: &str) {
        let revoked = {
            let mut records = self.records.lock();
            let key = records.nodes.remove(&node(id)).expect("it joined");
            records.revoked.insert(key, Timestamp::now());
            records.revoked.clone()
        };
        self.hub.link.revoke(revoked).await.expect("told");
    }
}

pub(crate) async fn join(token: &JoinToken, id: &str, folder: &Path) -> Result<(), EdgeError> {
    Enrolment::open_or_join(folder, &node(id), Some(token), "a test".into(), Timestamp::now()).await.map(|_| ())
}

/// Starts a node on what its folder has.
pub(crate) async fn boot(folder: &Path) -> (Member, NodeLink) {
    let enrolment = Enrolment::load(folder).expect("readable").expect("it joined");
    let link = NodeLink::open(enrolment, folder, PING_INTERVAL_DEFAULT).await.expect("valid");
    (link.backbone(), link)
}

pub(crate) async fn echo(member: &Member, id: &str) -> Result<(), edgeward_cluster::BackboneError> {
    member.request(&Subject::to_hub(node(id), ECHO), Message::new("x"), PATIENCE).await.map(|_| ())
}
