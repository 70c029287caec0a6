//! A fleet with a broker of its own and a hub that lets nodes join and renew, with the least of records.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use edgeward_cluster::{
    Credentials, Message, NatsBackbone, NatsOptions, Service, Subject, Subjects, handler,
    nats::{
        Applicant, Broker, BrokerOptions, CredentialKeeper, CredentialsTtl, Enrolment, FleetKeys, JOIN, JoinRequest, JoinToken, RENEW,
        RenewRequest, Revoked,
    },
};
use edgeward_model::{EdgeError, ErrorKind, NodeId};
use jiff::Timestamp;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::{
    server::program,
    site::{ECHO, Member, PATIENCE, node, up},
};

pub(crate) struct Fleet {
    pub(crate) folder: TempDir,
    pub(crate) keys: Arc<FleetKeys>,
    pub(crate) broker: Broker,
    pub(crate) records: Arc<Mutex<Records>>,
    pub(crate) hub: Member,
    _keeper: CredentialKeeper,
    _services: Vec<Service>,
}

/// What a hub records of joins.
#[derive(Default)]
pub(crate) struct Records {
    uses: HashMap<NodeId, (NodeId, String)>,
    /// The key of each node.
    pub(crate) nodes: HashMap<NodeId, String>,
}

impl Records {
    fn take(&mut self, applicant: &Applicant) -> Result<(), EdgeError> {
        let joined = (applicant.node.clone(), applicant.public_key.clone());
        let first = self.uses.entry(applicant.join_id.clone()).or_insert_with(|| joined.clone());
        if *first != joined {
            return Err(EdgeError::new(ErrorKind::Forbidden, "the join token was used"));
        }
        self.nodes.insert(joined.0, joined.1);
        Ok(())
    }
}

pub(crate) fn broker_options(folder: &Path, port: u16) -> BrokerOptions {
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    BrokerOptions { program: Some(program()), folder: folder.join("broker"), name: "test".to_owned(), listen, names: Vec::new() }
}

impl Fleet {
    /// Its tokens to work with live so long.
    pub(crate) async fn new(ttl: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("authority.json");
        let keys = Arc::new(FleetKeys::open_or_create(&file, Timestamp::now()).expect("made"));
        let broker = Broker::start(broker_options(folder.path(), 0), Arc::clone(&keys), Revoked::new()).await.expect("it starts");
        let (ttl, records) = (CredentialsTtl::new(ttl).expect("in bounds"), Arc::<Mutex<Records>>::default());
        let credentials = CredentialKeeper::hub_credentials(&keys, &node("hub"), ttl, Timestamp::now()).expect("signed");
        let options = options(&broker, "hub", credentials);
        let hub = NatsBackbone::connect(options).await.expect("the options are valid");
        let keeper = CredentialKeeper::of_hub(Arc::clone(&keys), ttl, &hub).expect("it has credentials");
        let hub: Member = Arc::new(hub);
        up(&hub, 1).await;
        let services = vec![
            serve_joins(&hub, &keys, &records, ttl).await,
            serve_renewals(&hub, &keys, &records, ttl).await,
            hub.serve(&Subjects::to_hub(ECHO), 8, handler(async |call| Ok(call.message))).await.expect("served"),
        ];
        Self { folder, keys, broker, records, hub, _keeper: keeper, _services: services }
    }

    pub(crate) fn token(&self) -> JoinToken {
        JoinToken::new(&self.keys, vec![self.broker.local_url()], None, Duration::from_mins(5), Timestamp::now()).expect("made")
    }

    pub(crate) async fn join(&self, token: &JoinToken, id: &str) -> Result<Enrolment, EdgeError> {
        Enrolment::join(token, &node(id), "a test".into(), Timestamp::now()).await
    }

    /// A node that joined, and its folder.
    pub(crate) async fn enrolled(&self, id: &str) -> (Enrolment, PathBuf) {
        let enrolment = self.join(&self.token(), id).await.expect("admitted");
        let folder = self.folder.path().join(id);
        std::fs::create_dir(&folder).expect("made");
        enrolment.store(&folder).expect("stored");
        (enrolment, folder)
    }

    /// Removes a node, as a hub does.
    pub(crate) async fn remove(&self, id: &str) {
        let key = self.records.lock().nodes.remove(&node(id)).expect("it joined");
        let now = Timestamp::now();
        self.broker.revoke(BTreeMap::from([(key, now)]), now).await.expect("told");
    }
}

pub(crate) fn options(broker: &Broker, id: &str, credentials: Credentials) -> NatsOptions {
    NatsOptions { tls: broker.tls(), credentials: Some(credentials), ..NatsOptions::new(node(id), vec![broker.local_url()]) }
}

/// Starts a node on what its folder has.
pub(crate) async fn boot(folder: &Path) -> (Member, CredentialKeeper) {
    let enrolment = Enrolment::load(folder).expect("readable").expect("it joined");
    let member = NatsBackbone::connect(enrolment.options(folder).expect("valid")).await.expect("valid");
    let keeper = CredentialKeeper::of_node(enrolment, folder.to_owned(), &member).expect("it has credentials");
    (Arc::new(member), keeper)
}

pub(crate) async fn echo(member: &Member, id: &str) -> Result<(), edgeward_cluster::BackboneError> {
    member.request(&Subject::to_hub(node(id), ECHO), Message::new("x"), PATIENCE).await.map(|_| ())
}

async fn serve_joins(hub: &Member, keys: &Arc<FleetKeys>, records: &Arc<Mutex<Records>>, ttl: CredentialsTtl) -> Service {
    let (keys, records) = (Arc::clone(keys), Arc::clone(records));
    let join = handler(move |call| {
        let (keys, records) = (Arc::clone(&keys), Arc::clone(&records));
        async move {
            let now = Timestamp::now();
            let applicant = JoinRequest::read(&call.message.payload)?.verify(&call.subject.node, keys.authority(), now)?;
            records.lock().take(&applicant)?;
            Ok(Message::new(applicant.admit(&keys, ttl, now)?.to_payload()))
        }
    });
    hub.serve(&Subjects::to_hub(JOIN), 8, join).await.expect("served")
}

async fn serve_renewals(hub: &Member, keys: &Arc<FleetKeys>, records: &Arc<Mutex<Records>>, ttl: CredentialsTtl) -> Service {
    let (keys, records) = (Arc::clone(keys), Arc::clone(records));
    let renew = handler(move |call| {
        let (keys, records) = (Arc::clone(&keys), Arc::clone(&records));
        async move {
            let asked = RenewRequest::read(&call.message.payload)?;
            let recorded = records.lock().nodes.get(&call.subject.node).cloned();
            let answer = asked.answer(&call.subject.node, recorded.as_deref(), keys.authority(), ttl, Timestamp::now())?;
            Ok(Message::new(answer.to_payload()))
        }
    });
    hub.serve(&Subjects::to_hub(RENEW), 8, renew).await.expect("served")
}
