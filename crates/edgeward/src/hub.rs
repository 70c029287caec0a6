//! A hub as a process runs it: the fleet's keys and servers, the lease by which one hub is the active one, and what the active one serves.
//!
//! Who has the lease serves, in its term. Who has not, answers nobody.

mod following;
mod leading;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use edgeward_cluster::{
    Backbone,
    membership::Timing,
    nats::{
        Applicant, BrokerOptions, BrokerState, CredentialState, CredentialsTtl, FleetFolder, HubLink, HubOptions as LinkOptions, JoinToken,
        Refusal, Registry, Servers,
    },
};
use edgeward_durable::{FolderLock, create_private_folder, disk_error};
use edgeward_model::{EdgeError, ErrorKind, NodeId};
use edgeward_runtime::blocking;
use edgeward_topics::LogOptions;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::leading::Leading;
use crate::{
    events::{EventKind, FleetEvent},
    fleet::{ClusterOptions, EdgeCluster},
    node::{DOCUMENTS, FLEET, LOCK},
};

/// Where the servers of a hub are.
#[derive(Clone, Debug)]
pub enum HubServers {
    /// One that the hub starts and supervises.
    Own {
        /// The program; none for the one that is found.
        program: Option<PathBuf>,
        /// Where it listens.
        listen: SocketAddr,
        /// Hosts by which nodes reach it, each with the port when it is another; none for the address where it listens.
        advertise: Vec<String>,
    },
    /// The operator's, at these addresses.
    At(Vec<String>),
}

/// What a hub is started with.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Who it is among the members of its fleet. No two hubs have the same.
    pub id: NodeId,
    /// Where everything that must last lies; made when it is missing.
    pub data_dir: PathBuf,
    /// Where it stands, by the `site` of its nodes: those come first for calls that are made here. None for nowhere near a node.
    pub site: Option<String>,
    /// Ids of the other hubs of the fleet, which may stand by.
    pub peers: Vec<NodeId>,
    /// Where its servers are.
    pub servers: HubServers,
    /// How often nodes report.
    pub timing: Timing,
    /// How long a node may be silent before functions of which there are to be so many are placed elsewhere; none for 200 heartbeats.
    pub heal_after: Option<Duration>,
    /// How long the working tokens of members live.
    pub credentials_ttl: CredentialsTtl,
    /// How often a silent connection is tried.
    pub ping_interval: Duration,
    /// Servers that keep each lease: 1, or 3 where there are three.
    pub lease_replicas: usize,
    /// How much is kept of the fleet's topics, here and on the servers; none for what is usual, and on the servers as it is set there.
    pub topics: Option<LogOptions>,
}

/// What a hub is to its fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HubStanding {
    /// It does not reach its servers, or could not begin to serve.
    Waiting {
        /// Why, for people.
        why: String,
    },
    /// Another hub has the lease.
    Standby {
        /// Who.
        holder: NodeId,
        /// In which term.
        term: u64,
    },
    /// It has the lease and serves.
    Active {
        /// In which term.
        term: u64,
    },
}

/// A hub. Dropped, it ends.
pub struct FleetHub {
    leading: Option<AbortOnDropHandle<()>>,
    standing: watch::Receiver<HubStanding>,
    stop: CancellationToken,
    cluster: EdgeCluster,
    fleet: FleetFolder,
    link: Arc<HubLink>,
    servers: Vec<String>,
    data_dir: PathBuf,
    _lock: FolderLock,
}

impl FleetHub {
    /// Opens the data folder, starts the broker when the hub has one of its own, and begins to claim the lease.
    ///
    /// # Errors
    /// Those of [`HubLink::open`] and of the disk; [`ErrorKind::Conflict`] when another process has the data folder.
    pub async fn start(options: HubOptions) -> Result<Self, EdgeError> {
        let HubOptions { id, data_dir, site, peers, servers, timing, heal_after, credentials_ttl, ping_interval, lease_replicas, topics } =
            options;
        if peers.contains(&id) {
            return Err(EdgeError::invalid(format!("hub `{id}` cannot stand by for itself: each hub has an id of its own")));
        }
        let opening = (data_dir.clone(), id.clone());
        let (lock, fleet, cluster, is_new) = blocking(move || {
            let (data_dir, id) = opening;
            create_private_folder(&data_dir).map_err(|error| disk_error("open the data folder", &data_dir, error))?;
            let lock = FolderLock::take(&data_dir, LOCK)?;
            let fleet = FleetFolder::open_or_create(&data_dir.join(FLEET), Timestamp::now())?;
            let is_new = !data_dir.join(DOCUMENTS).exists();
            let topics = topics.unwrap_or_default();
            let options = ClusterOptions { id, timing, heal_after, site, topics, ..ClusterOptions::in_folder(data_dir) };
            let cluster = EdgeCluster::with_options(options)?;
            cluster.keep_topics_in_stream();
            Ok((lock, fleet, cluster, is_new))
        })
        .await?;
        let revoked = cluster.revoked_keys()?;
        let (servers, advertise) = match servers {
            HubServers::Own { program, listen, advertise } => {
                let names = advertise.iter().map(|host| parts_of(host).0.to_owned()).collect();
                let own = BrokerOptions { program, folder: fleet.broker(), name: id.to_string(), listen, names };
                (Servers::Own(own), Some(advertise))
            }
            HubServers::At(servers) => (Servers::At(servers), None),
        };
        let at = if let Servers::At(servers) = &servers { servers.clone() } else { Vec::new() };
        let link = LinkOptions { hub: id.clone(), servers, credentials_ttl, ping_interval, lease_replicas };
        let link = Arc::new(HubLink::open(fleet.keys(), link, revoked).await?);
        let servers = match (link.broker(), advertise) {
            (Some(broker), Some(advertise)) if advertise.is_empty() => vec![broker.local_url()],
            (Some(broker), Some(advertise)) => advertise.iter().map(|host| url_of(host, broker.address().port())).collect(),
            _ => at,
        };
        let kept = (fleet.clone(), servers.clone());
        blocking(move || kept.0.set_servers(&kept.1)).await?;
        let stop = CancellationToken::new();
        let (told, standing) = watch::channel(HubStanding::Waiting { why: "it connects".to_owned() });
        let leading = Leading {
            id,
            peers,
            data_dir: data_dir.clone(),
            is_new,
            cluster: cluster.clone(),
            fleet: fleet.clone(),
            link: Arc::clone(&link),
            credentials_ttl,
            topics,
            told,
            stop: stop.clone(),
        };
        let leading = Some(AbortOnDropHandle::new(tokio::spawn(leading.run())));
        Ok(Self { leading, standing, stop, cluster, fleet, link, servers, data_dir, _lock: lock })
    }

    /// The fleet.
    pub fn cluster(&self) -> &EdgeCluster {
        &self.cluster
    }

    /// What it is to its fleet, as it changes.
    pub fn standing(&self) -> watch::Receiver<HubStanding> {
        self.standing.clone()
    }

    /// What it talks over.
    pub fn backbone(&self) -> Arc<dyn Backbone> {
        self.link.backbone()
    }

    /// How its own credentials are.
    pub fn credentials(&self) -> CredentialState {
        self.link.credentials().borrow().clone()
    }

    /// The addresses of the servers that join tokens carry.
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// The process of its own broker, while that runs.
    pub fn broker_pid(&self) -> Option<u32> {
        match &*self.link.broker()?.state().borrow() {
            BrokerState::Running { pid, .. } => Some(*pid),
            _ => None,
        }
    }

    /// The folder with everything that lasts.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The fleet in the data folder of a hub, whether that runs or not.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none.
    pub fn fleet_in(data_dir: &Path) -> Result<FleetFolder, EdgeError> {
        FleetFolder::open(&data_dir.join(FLEET))
    }

    /// The fleet in the data folder of a hub, which is made when it is missing and nobody runs there.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when there is none, and another process has the data folder.
    pub fn fleet_in_or_new(data_dir: &Path, now: Timestamp) -> Result<FleetFolder, EdgeError> {
        match Self::fleet_in(data_dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create_private_folder(data_dir).map_err(|error| disk_error("open the data folder", data_dir, error))?;
                let _lock = FolderLock::take(data_dir, LOCK)?;
                FleetFolder::open_or_create(&data_dir.join(FLEET), now)
            }
            found => found,
        }
    }

    /// A token by which one node may join, at most for [`edgeward_model::limits::JOIN_TOKEN_TTL_MAX`]. With a node, only that one may, and it
    /// may take the place of the one that has its id.
    pub fn join_token(&self, node: Option<NodeId>, ttl: Duration) -> Result<JoinToken, EdgeError> {
        self.fleet.join_token(Vec::new(), node, ttl, Timestamp::now())
    }

    /// Removes a node: its credentials end, and it is refused from now on; false when there is none of this id.
    ///
    /// # Errors
    /// Those of the disk, and [`ErrorKind::Unavailable`] when it was removed, but the servers do not know it yet.
    pub async fn remove_node(&self, id: &str) -> Result<bool, EdgeError> {
        self.check_active()?;
        let (cluster, wanted) = (self.cluster.clone(), id.to_owned());
        if !blocking(move || cluster.deregister_node(&wanted)).await? {
            return Ok(false);
        }
        revoke(&self.cluster, &self.link).await?;
        Ok(true)
    }

    /// Refuses what only the active hub may do.
    pub fn check_active(&self) -> Result<(), EdgeError> {
        let why = match &*self.standing.borrow() {
            HubStanding::Active { .. } => return Ok(()),
            HubStanding::Standby { holder, .. } => format!("this hub stands by; ask the active one, `{holder}`"),
            HubStanding::Waiting { why } => format!("this hub is not active: {why}"),
        };
        Err(EdgeError::new(ErrorKind::Unavailable, why))
    }

    /// Gives the lease back, so that another hub can take it at once, and ends.
    pub async fn stop(mut self) {
        self.cluster.chaos().end().await;
        self.stop.cancel();
        if let Some(leading) = self.leading.take() {
            // It may have failed, which its end has said.
            let _ = leading.await;
        }
        if let Some(link) = Arc::into_inner(self.link) {
            link.stop().await;
        }
    }
}

/// Tells the servers which keys are no longer good.
async fn revoke(cluster: &EdgeCluster, link: &HubLink) -> Result<(), EdgeError> {
    let of = cluster.clone();
    let revoked = blocking(move || of.revoked_keys()).await?;
    link.revoke(revoked).await
}

/// Who may join, and who belongs to the fleet: its registry says.
fn registry(cluster: &EdgeCluster, link: &Arc<HubLink>, peers: &[NodeId]) -> Registry {
    let hubs: Arc<[NodeId]> = peers.iter().chain([cluster.id()]).cloned().collect();
    let (of, revoking, known) = (cluster.clone(), Arc::clone(link), cluster.clone());
    let admit = move |applicant: Applicant| {
        let (cluster, link, hubs) = (of.clone(), Arc::clone(&revoking), Arc::clone(&hubs));
        async move {
            if hubs.contains(&applicant.node) {
                return Err(EdgeError::new(ErrorKind::Conflict, format!("`{}` is a hub of the fleet; choose another id", applicant.node)));
            }
            let (at, node) = (cluster.clone(), applicant.node.clone());
            let replaced = blocking(move || {
                let replaced = cluster.key_of(&node)?.filter(|key| *key != applicant.public_key);
                if replaced.is_some() && !applicant.is_expected {
                    let message = format!("node `{node}` belongs to the fleet already; a token for it alone lets it join anew");
                    return Err(EdgeError::new(ErrorKind::Conflict, message));
                }
                cluster.admit(&node, Some(applicant.public_key))?;
                Ok(replaced)
            })
            .await?;
            if replaced.is_some()
                && let Err(error) = revoke(&at, &link).await
            {
                // They are told as soon as they are reached.
                tracing::warn!(error = error.chain(), "the earlier key of a node that joined anew is still known to the servers");
            }
            Ok(())
        }
    };
    let key_of = move |node| {
        let cluster = known.clone();
        async move { blocking(move || cluster.key_of(&node)).await }
    };
    let of = cluster.clone();
    Registry::new(admit, key_of).telling(move |Refusal { asked_as, is_node, why }| {
        let event = FleetEvent::new(EventKind::Refused, why.to_string());
        of.events().tell_refusal(asked_as, if is_node { event.on(asked_as) } else { event });
    })
}

/// The host and the port, if there is one, of `HOST[:PORT]`.
fn parts_of(text: &str) -> (&str, Option<u16>) {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, rest) = match (bracketed, text.split_once(':')) {
        (Some(parts), _) => parts,
        // More colons are an IPv6 address.
        (None, Some((host, port))) if !port.contains(':') => (host, &text[host.len()..]),
        _ => (text, ""),
    };
    (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()))
}

/// The address of a server at `HOST[:PORT]`, by this port when it names none.
fn url_of(text: &str, port: u16) -> String {
    let (host, own) = parts_of(text);
    let port = own.unwrap_or(port);
    if host.contains(':') { format!("nats://[{host}]:{port}") } else { format!("nats://{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_host_may_have_a_port() {
        for (text, host, url) in [
            ("hub.example", "hub.example", "nats://hub.example:4222"),
            ("hub.example:9", "hub.example", "nats://hub.example:9"),
            ("10.0.0.5", "10.0.0.5", "nats://10.0.0.5:4222"),
            ("10.0.0.5:9", "10.0.0.5", "nats://10.0.0.5:9"),
            ("[fd00::1]", "fd00::1", "nats://[fd00::1]:4222"),
            ("[fd00::1]:9", "fd00::1", "nats://[fd00::1]:9"),
            ("fd00::1", "fd00::1", "nats://[fd00::1]:4222"),
        ] {
            assert_eq!((parts_of(text).0, url_of(text, 4222).as_str()), (host, url), "{text}");
        }
    }
}
