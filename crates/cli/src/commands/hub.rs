//! `edgeward hub`: runs the hub of a fleet.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use edgeward::{
    DocumentName, EdgeError, ErrorKind, FleetHub, HubOptions, HubServers, HubStanding, NodeId,
    access::{NODE_TOKENS, Tokens},
    cluster::nats::{CredentialsTtl, PING_INTERVAL_DEFAULT},
    telemetry,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    api,
    daemon::{host_name, named, run_until_stopped},
    data_dir::HubDataDir,
    exit::Hinted,
    heartbeat::Heartbeat,
    listen::{self, Address, TlsArgs},
    mcp::McpArgs,
    notify::Notify,
    otlp::{self, Export, OtlpArgs},
    signals::StopSignals,
    terminal,
    topics_kept::TopicsKept,
};

/// Run the hub of a fleet.
///
/// Without --nats it starts and supervises a `nats-server`, to which nodes connect by TLS with credentials of their own. With --nats it
/// uses servers that were set up with the files of `edgeward nats-config`. Of several hubs with the same servers one is active; another
/// takes over when that is gone.
///
/// On loopback, who is on this machine may call the API. An address that other machines can reach demands --tls-cert, --tls-key and
/// a token: `edgeward token create NAME --role admin --data-dir DIR --id ID` makes the first one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  edgeward hub
  edgeward hub --broker-listen 0.0.0.0:4222 --advertise hub.example
  edgeward hub --nats nats://nats-1.example:4222 --nats nats://nats-2.example:4222
  edgeward hub --listen 0.0.0.0:7700 --tls-cert hub.pem --tls-key hub.key")]
pub(crate) struct Args {
    /// Id of this hub among the members of its fleet [default: the host name]
    #[arg(long, env = "EDGEWARD_HUB_ID")]
    id: Option<String>,
    #[command(flatten)]
    data_dir: HubDataDir,
    /// Where this hub stands: calls that are made here go first to nodes with the same label `site` [default: nowhere near a node]
    #[arg(long)]
    site: Option<String>,
    /// Address of the API
    #[arg(long, default_value = "127.0.0.1:7700")]
    listen: SocketAddr,
    #[command(flatten)]
    tls: TlsArgs,
    /// Id of another hub of this fleet, with the same servers and keys, which may stand by; may be given more than once
    #[arg(long = "peer", value_name = "ID", requires = "nats")]
    peers: Vec<NodeId>,
    /// Address of a NATS server that trusts this fleet; may be given more than once [default: start one]
    #[arg(long, value_name = "URL")]
    nats: Vec<String>,
    /// How many of those servers keep the lease of the active hub: 1, or 3 of a cluster
    #[arg(long, value_name = "N", default_value_t = 1, requires = "nats", value_parser = clap::value_parser!(u8).range(1..=5))]
    nats_replicas: u8,
    /// The program of the NATS server to start [default: the one on the path]
    #[arg(long, value_name = "FILE", env = "EDGEWARD_NATS_SERVER")]
    nats_server: Option<PathBuf>,
    /// Address at which the started NATS server listens for nodes
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4222", conflicts_with = "nats")]
    broker_listen: SocketAddr,
    /// Host, or host and port, by which nodes reach the started NATS server; may be given more than once [default: --broker-listen]
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with = "nats")]
    advertise: Vec<String>,
    /// How long a node's credentials live before it must renew them
    #[arg(long, value_name = "S", default_value_t = 3600)]
    credentials_seconds: u64,
    /// How long a node may be silent before functions with a number of nodes start elsewhere [default: 200 heartbeats]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    heal_after_seconds: Option<u64>,
    /// Let admins run experiments, which inject faults on nodes that allow it too; see `edgeward chaos`
    #[arg(long)]
    allow_chaos: bool,
    #[command(flatten)]
    topics: TopicsKept,
    #[command(flatten)]
    heartbeat: Heartbeat,
    #[command(flatten)]
    mcp: McpArgs,
    #[command(flatten)]
    otlp: OtlpArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let notify = Notify::open(|variable| std::env::var_os(variable))?;
    let api_at = Address { option: "--listen", at: args.listen };
    let tls = args.tls.open(&[api_at])?;
    let otlp = args.otlp.read()?;
    let id = NodeId::new(args.id.unwrap_or_else(host_name))?;
    let data_dir = args.data_dir.path()?;
    if args.nats.is_empty() && args.advertise.is_empty() && args.broker_listen.ip().is_unspecified() {
        let why = format!("--broker-listen {} says where to listen, and not where nodes find it", args.broker_listen);
        return Err(Hinted::new(EdgeError::invalid(why), "give the host that nodes know with `--advertise HOST`").into());
    }
    let servers = if args.nats.is_empty() {
        HubServers::Own { program: args.nats_server, listen: args.broker_listen, advertise: args.advertise }
    } else {
        HubServers::At(args.nats)
    };
    let options = HubOptions {
        id: id.clone(),
        data_dir,
        site: args.site,
        peers: args.peers,
        servers,
        timing: args.heartbeat.timing()?,
        heal_after: args.heal_after_seconds.map(Duration::from_secs),
        credentials_ttl: CredentialsTtl::new(Duration::from_secs(args.credentials_seconds))?,
        ping_interval: PING_INTERVAL_DEFAULT,
        lease_replicas: args.nats_replicas.into(),
        topics: args.topics.read(),
    };
    let api_listener = listen::bind(api_at, tls.as_ref()).await?;
    let hub = Arc::new(FleetHub::start(options).await.map_err(starting_failed)?);
    if args.allow_chaos {
        tracing::warn!(target: "audit", "experiments may run on this hub");
        hub.cluster().allow_chaos();
    }
    let documents = hub.cluster().documents().clone();
    let tokens = Arc::new(Tokens::open(&documents, DocumentName::new(NODE_TOKENS)?)?);
    listen::check_tokens(api_at, &tokens, hub.data_dir())?;
    let (api_address, api_scheme) = (api_listener.address(), api_listener.scheme());

    let stop = CancellationToken::new();
    let router = api::hub::hub_router(api::Shared::new(documents, tokens, api_address, stop.clone(), args.mcp.access), Arc::clone(&hub));
    let exporter = otlp.map(|options| otlp::exporter(options, id.as_str())).transpose()?;
    let mut signals = StopSignals::catch()?;
    let mut tasks = JoinSet::new();
    if let Some(tls) = tls {
        tasks.spawn(named("the look at the certificate", stop.clone().run_until_cancelled_owned(tls.keep_current())));
    }
    tasks.spawn(named("the API", api::serve(router, api_listener, stop.clone())));
    let export = exporter.map(|exporter| {
        let (of, started) = (Arc::clone(&hub), Instant::now());
        let gather = move || {
            let hub = Arc::clone(&of);
            async move { telemetry::hub_readings(&hub, started).await }
        };
        Export::begin(exporter, gather)
    });
    terminal::write(format!(
        "edgeward {version} · hub {id}\n  nodes join at  {servers}\n  API            {api_scheme}://{api_address}/v1 (described at /openapi.json)\n  data           {data}\n  next           edgeward join-token\n",
        version = env!("CARGO_PKG_VERSION"),
        servers = hub.servers().join(", "),
        data = hub.data_dir().display(),
    ))?;
    tracing::info!(%id, %api_address, "the hub is up");
    let status = format!("hub {id}: nodes join at {}, API at {api_scheme}://{api_address}", hub.servers().join(", "));
    let mut standing = hub.standing();
    let until_active = async move {
        // It lives as long as the hub.
        let _ = standing.wait_for(|standing| !matches!(standing, HubStanding::Waiting { .. })).await;
    };
    tasks.spawn(named("the word to the service manager", notify.tell(until_active, status, stop.clone())));
    tasks.spawn(named("the look at the lease", stop.clone().run_until_cancelled_owned(tell_standing(Arc::clone(&hub)))));

    let ended = run_until_stopped(tasks, &stop, async || signals.next().await).await;
    if let Some(export) = export {
        export.end().await;
    }
    if let Some(hub) = Arc::into_inner(hub) {
        hub.stop().await;
    }
    ended
}

/// Logs what the hub becomes, for ever.
async fn tell_standing(hub: Arc<FleetHub>) {
    let mut standing = hub.standing();
    loop {
        match &*standing.borrow_and_update() {
            HubStanding::Active { term } => tracing::info!(term, "this hub is the active one"),
            HubStanding::Standby { holder, term } => tracing::info!(%holder, term, "this hub stands by"),
            HubStanding::Waiting { why } => tracing::info!(why, "this hub waits"),
        }
        if standing.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn starting_failed(error: EdgeError) -> anyhow::Error {
    if error.kind() == ErrorKind::Conflict {
        let hint = "a data folder has one hub and one process: stop the other, or give another folder with `--data-dir`";
        return Hinted::new(error, hint).into();
    }
    error.into()
}
