//! Where a test of the contract runs: members, and the ways to cut them off.

use std::{collections::HashMap, sync::Arc, time::Duration};

use edgeward_cluster::{Backbone, LocalNetwork, Name, NatsBackbone, NatsOptions, nats::TopicStream};
use edgeward_model::NodeId;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use crate::{cable::Cable, server::Server};

/// Runs each test of the suite in process and over NATS.
macro_rules! on_each {
    ($($part:ident: $($test:ident)*;)*) => {
        mod in_process {
            $(mod $part { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::$part::$test(crate::site::Site::in_process()).await;
                }
            )* })*
        }
        mod over_nats {
            $(mod $part { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::$part::$test(crate::site::Site::over_nats().await).await;
                }
            )* })*
        }
    };
}

pub(crate) const ECHO: Name = Name::new("echo");
pub(crate) const NEWS: Name = Name::new("news");
/// Longest wait for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Member = Arc<dyn Backbone>;

pub(crate) enum Site {
    InProcess(LocalNetwork),
    OverNats(Box<NatsSite>),
}

pub(crate) struct NatsSite {
    pub(crate) server: Mutex<Server>,
    pub(crate) cables: Mutex<HashMap<String, Cable>>,
    /// The stream of topics, as each member last reached it.
    pub(crate) streams: Mutex<HashMap<String, TopicStream>>,
}

impl Site {
    pub(crate) fn in_process() -> Self {
        Self::InProcess(LocalNetwork::new())
    }

    pub(crate) async fn over_nats() -> Self {
        Self::OverNats(Box::new(NatsSite {
            server: Mutex::new(Server::start("").await),
            cables: Mutex::default(),
            streams: Mutex::default(),
        }))
    }

    /// A member that is connected, by a cable of its own.
    pub(crate) async fn member(&self, id: &str) -> Member {
        let member: Member = match self {
            Self::InProcess(network) => Arc::new(network.member(node(id))),
            Self::OverNats(site) => {
                let cable = Cable::to(site.server.lock().await.port()).await;
                let options = NatsOptions::new(node(id), vec![cable.url()]);
                site.cables.lock().await.insert(id.to_owned(), cable);
                let backbone = NatsBackbone::connect(options).await.expect("the options are valid");
                site.streams.lock().await.insert(id.to_owned(), backbone.topic_stream());
                Arc::new(backbone)
            }
        };
        up(&member, 1).await;
        member
    }

    /// The stream of topics by the connection of this member; none in process.
    pub(crate) async fn topic_stream(&self, id: &str) -> Option<TopicStream> {
        match self {
            Self::InProcess(_) => None,
            Self::OverNats(site) => site.streams.lock().await.get(id).cloned(),
        }
    }

    pub(crate) async fn cut_off(&self, id: &str) {
        match self {
            Self::InProcess(network) => network.cut_off(&node(id)),
            Self::OverNats(site) => site.cables.lock().await[id].cut(),
        }
    }

    /// The same without anybody being told.
    pub(crate) async fn silence(&self, id: &str) {
        match self {
            Self::InProcess(network) => network.cut_off(&node(id)),
            Self::OverNats(site) => site.cables.lock().await[id].silence(),
        }
    }

    pub(crate) async fn bring_back(&self, id: &str) {
        match self {
            Self::InProcess(network) => network.bring_back(&node(id)),
            Self::OverNats(site) => site.cables.lock().await[id].mend(),
        }
    }
}

pub(crate) fn node(id: &str) -> NodeId {
    NodeId::new(id).expect(id)
}

/// Waits until a member is up for the `ups`th time at least.
pub(crate) async fn up(member: &Member, ups: u64) {
    let mut connection = member.connection();
    let is_up = connection.wait_for(|connection| connection.is_up && connection.ups >= ups);
    timeout(PATIENCE, is_up).await.expect("it connects in time").expect("it lives");
}

pub(crate) async fn down(member: &Member) {
    let mut connection = member.connection();
    let is_down = connection.wait_for(|connection| !connection.is_up);
    timeout(PATIENCE, is_down).await.expect("it notices in time").expect("it lives");
}

/// Asks until it holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "in time: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
