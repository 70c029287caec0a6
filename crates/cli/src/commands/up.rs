//! `edgeward up`: runs a node in this process until it is told to stop.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Instant};

use anyhow::Context;
use edgeward::{
    EdgeError, EdgeNode, Node, NodeOptions,
    limits::DRAIN_TIMEOUT,
    listener::{accept, check_loopback, serve_functions},
};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{api, terminal};

/// Run a node: functions at --functions-listen, the API at --listen.
///
/// Everything lasting lies in one data folder. After a crash or a power cut the node comes back with every
/// acknowledged deployment and serves it again by itself. SIGTERM and Ctrl-C let running invocations end, for at
/// most 30 seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  edgeward up
  edgeward up --id edge-01 --name 'warehouse gateway' --location berlin --capability camera
  edgeward up --data-dir /var/lib/edgeward --functions-listen 127.0.0.1:80")]
pub(crate) struct Args {
    /// Id of this node [default: the host name]
    #[arg(long, env = "EDGEWARD_NODE_ID")]
    id: Option<String>,
    /// Name of this node, for people [default: its id]
    #[arg(long)]
    name: Option<String>,
    /// Where it stands, for people
    #[arg(long, default_value = "")]
    location: String,
    /// What it can do, such as `gpu`; may be given more than once
    #[arg(long = "capability", value_name = "CAPABILITY")]
    capabilities: Vec<String>,
    /// Folder for everything that lasts [default: `$XDG_DATA_HOME/edgeward` or `~/.local/share/edgeward`]
    #[arg(long, env = "EDGEWARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the API; a loopback address
    #[arg(long, default_value = "127.0.0.1:7700")]
    listen: SocketAddr,
    /// Address at which functions are served; a loopback address
    #[arg(long, default_value = "127.0.0.1:8080")]
    functions_listen: SocketAddr,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    check_loopback(args.listen, "--listen")?;
    check_loopback(args.functions_listen, "--functions-listen")?;
    let data_dir = args.data_dir.map_or_else(default_data_dir, Ok)?;
    let id = args.id.unwrap_or_else(host_name);
    let mut node = EdgeNode::new(&id, args.name.unwrap_or_else(|| id.clone()))?;
    (node.location, node.capabilities) = (args.location, args.capabilities);
    let node = Node::open(NodeOptions { node, data_dir })?;
    let api_listener = bind(args.listen, "--listen").await?;
    let functions_listener = bind(args.functions_listen, "--functions-listen").await?;
    let (api_address, functions_address) = (api_listener.local_addr()?, functions_listener.local_addr()?);

    let stop = CancellationToken::new();
    let router = api::router(api::Shared {
        node: Arc::clone(&node),
        listen: api_address.to_string(),
        functions_listen: functions_address.to_string(),
        started: Instant::now(),
        started_at: Timestamp::now(),
        stop: stop.clone(),
    });
    let reconciler = tokio::spawn(Arc::clone(&node).keep_reconciled());
    let functions = tokio::spawn(serve_functions(Arc::clone(node.runtime()), functions_listener, stop.clone()));
    let answer = move |request| {
        let router = router.clone();
        async move { router.oneshot(request).await.unwrap_or_else(|never| match never {}) }
    };
    let api = tokio::spawn(accept(api_listener, stop.clone(), answer));
    terminal::write(format!(
        "edgeward {version} · node {id}\n  functions  http://{functions_address}/fn/ID/\n  API        http://{api_address}/v1 (described at /openapi.json)\n  data       {data}\n",
        version = env!("CARGO_PKG_VERSION"),
        data = node.data_dir().display(),
    ))?;
    tracing::info!(%id, %api_address, %functions_address, "the node is up");

    stop_signal().await?;
    tracing::info!("stopping: running invocations may end");
    stop.cancel();
    let drained = tokio::time::timeout(DRAIN_TIMEOUT, async { (functions.await, api.await) }).await;
    reconciler.abort();
    match drained {
        Ok(_) => tracing::info!("stopped"),
        Err(_elapsed) => tracing::warn!("stopped while invocations still ran: they took longer than {DRAIN_TIMEOUT:?}"),
    }
    Ok(())
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("failed to listen on {address}: another program may use it, perhaps another node; choose another address with {option}")
    })
}

async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        pressed = tokio::signal::ctrl_c() => pressed.context("failed to listen for Ctrl-C"),
    }
}

/// The XDG base directory for data.
fn default_data_dir() -> Result<PathBuf, EdgeError> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("edgeward"))
        .ok_or_else(|| EdgeError::invalid("there is no home folder to keep data in; give --data-dir"))
}

/// The host name, as far as it is a valid id.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    if name.is_empty() { "edge-01".to_owned() } else { name }
}
