//! `edgeward up`: runs a node in this process until it is told to stop.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use edgeward::{
    DocumentName, EdgeError, EdgeNode, ErrorKind, Node, NodeOptions,
    access::{NODE_TOKENS, Tokens},
    limits::DRAIN_TIMEOUT,
    listener::{accept, is_loopback, serve_functions},
};
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    api,
    data_dir::DataDir,
    exit::Hinted,
    listen::{self, Address, TlsArgs},
    notify::Notify,
    signals::StopSignals,
    terminal,
};

/// Run a node: functions at --functions-listen, the API at --listen.
///
/// Everything lasting lies in one data folder. After a crash or a power cut the node comes back with every
/// acknowledged deployment and serves it again by itself. SIGTERM and Ctrl-C let running invocations end, for at
/// most 30 seconds; the same again stops at once.
///
/// On loopback, who is on this machine may call. An address that other machines can reach demands --tls-cert and --tls-key, and
/// the API there a token: `edgeward token create NAME --role admin --data-dir DIR` makes the first one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  edgeward up
  edgeward up --id edge-01 --name 'warehouse gateway' --location berlin --capability camera
  edgeward up --data-dir /var/lib/edgeward --functions-listen 127.0.0.1:80
  edgeward up --listen 0.0.0.0:7700 --tls-cert edge-01.pem --tls-key edge-01.key")]
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
    #[command(flatten)]
    data_dir: DataDir,
    /// Address of the API
    #[arg(long, default_value = "127.0.0.1:7700")]
    listen: SocketAddr,
    /// Address at which functions are served
    #[arg(long, default_value = "127.0.0.1:8080")]
    functions_listen: SocketAddr,
    #[command(flatten)]
    tls: TlsArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let notify = Notify::open(|variable| std::env::var_os(variable))?;
    let api_at = Address { option: "--listen", at: args.listen };
    let functions_at = Address { option: "--functions-listen", at: args.functions_listen };
    let tls = args.tls.open(&[api_at, functions_at])?;
    let data_dir = args.data_dir.path()?;
    let id = args.id.unwrap_or_else(host_name);
    let mut node = EdgeNode::new(&id, args.name.unwrap_or_else(|| id.clone()))?;
    (node.location, node.capabilities) = (args.location, args.capabilities);
    let node = Node::open(NodeOptions { node, data_dir }).map_err(opening_failed)?;
    let tokens = Arc::new(Tokens::open(node.documents(), DocumentName::new(NODE_TOKENS)?)?);
    listen::check_tokens(api_at, &tokens, node.data_dir())?;
    let api_listener = listen::bind(api_at, tls.as_ref()).await?;
    let functions_listener = listen::bind(functions_at, tls.as_ref()).await?;
    let (api_address, functions_address) = (api_listener.address(), functions_listener.address());
    let (api_scheme, functions_scheme) = (api_listener.scheme(), functions_listener.scheme());

    let stop = CancellationToken::new();
    let shared = api::Shared {
        documents: node.documents().clone(),
        tokens,
        door: if is_loopback(api_address) { api::Door::Loopback } else { api::Door::Guarded },
        audit: api::Audit::default(),
        listen: api_address.to_string(),
        started: Instant::now(),
        started_at: Timestamp::now(),
        stop: stop.clone(),
    };
    let router = api::node_router(shared, Arc::clone(&node), &functions_address.to_string());
    let mut signals = StopSignals::catch()?;
    let mut tasks = JoinSet::new();
    let reconciled = stop.clone().run_until_cancelled_owned(Arc::clone(&node).keep_reconciled());
    tasks.spawn(named("the reconciler", reconciled));
    tasks.spawn(named("the function listener", serve_functions(Arc::clone(node.runtime()), functions_listener, stop.clone())));
    if let Some(tls) = tls {
        tasks.spawn(named("the look at the certificate", stop.clone().run_until_cancelled_owned(tls.keep_current())));
    }
    let answer = move |request| {
        let router = router.clone();
        async move { router.oneshot(request).await.unwrap_or_else(|never| match never {}) }
    };
    tasks.spawn(named("the API", accept(api_listener, stop.clone(), answer)));
    terminal::write(format!(
        "edgeward {version} · node {id}\n  functions  {functions_scheme}://{functions_address}/fn/ID/\n  API        {api_scheme}://{api_address}/v1 (described at /openapi.json)\n  data       {data}\n",
        version = env!("CARGO_PKG_VERSION"),
        data = node.data_dir().display(),
    ))?;
    tracing::info!(%id, %api_address, %functions_address, "the node is up");
    let status = format!("node {id}: functions at {functions_scheme}://{functions_address}, API at {api_scheme}://{api_address}");
    let ready = Arc::clone(&node);
    let told = notify.tell(async move { ready.until_ready().await }, status, stop.clone());
    tasks.spawn(named("the word to the service manager", told));

    run_until_stopped(tasks, &stop, async || signals.next().await).await
}

fn opening_failed(error: EdgeError) -> anyhow::Error {
    match error.kind() {
        ErrorKind::Conflict => {
            let hint = "a data folder has one node and one process: give the node's own `--id`, or another folder with `--data-dir`";
            Hinted::new(error, hint).into()
        }
        _ => error.into(),
    }
}

/// Waits for a stop signal, then lets the tasks drain. A task that ends before is a failure: the rest drains too, so
/// that the process ends and can be started anew.
async fn run_until_stopped(
    mut tasks: JoinSet<&'static str>,
    stop: &CancellationToken,
    mut signal: impl AsyncFnMut(),
) -> anyhow::Result<()> {
    let outcome = tokio::select! {
        () = signal() => Ok(()),
        ended = tasks.join_next() => Err(match ended {
            Some(Err(error)) => anyhow::Error::new(error).context("a part of the node failed, so the node stops"),
            Some(Ok(name)) => anyhow::anyhow!("{name} ended by itself, so the node stops"),
            None => anyhow::anyhow!("the node has nothing to run"),
        }),
    };
    tracing::info!("stopping: running invocations may end");
    stop.cancel();
    tokio::select! {
        () = async { while tasks.join_next().await.is_some() {} } => tracing::info!("stopped"),
        () = signal() => tracing::warn!("stopped at once: running invocations were cut off"),
        () = tokio::time::sleep(DRAIN_TIMEOUT) => {
            tracing::warn!("stopped while invocations still ran: they took longer than {DRAIN_TIMEOUT:?}");
        }
    }
    outcome
}

async fn named(name: &'static str, task: impl Future) -> &'static str {
    task.await;
    name
}

/// The host name, as far as it is a valid id.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    if name.is_empty() { "edge-01".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(stop: CancellationToken) {
        stop.cancelled().await;
    }

    #[tokio::test]
    async fn a_part_that_fails_or_ends_stops_the_others_and_is_an_error() {
        for (part, why) in [("panics", "a part of the node failed"), ("ends", "ends ended by itself")] {
            let stop = CancellationToken::new();
            let mut tasks = JoinSet::new();
            tasks.spawn(named("listens", until(stop.clone())));
            tasks.spawn(named(part, async move { assert_eq!(part, "ends") }));
            let error = run_until_stopped(tasks, &stop, async || std::future::pending().await).await.expect_err("it failed");
            assert!(error.to_string().contains(why), "{error:#}");
            assert!(stop.is_cancelled());
        }
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_ends_at_once() {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(named("drains", until(stop.clone())));
        let mut signals = 0;
        let signal = async || {
            signals += 1;
            if signals > 1 {
                std::future::pending::<()>().await;
            }
        };
        run_until_stopped(tasks, &stop, signal).await.expect("it drains");

        let mut tasks = JoinSet::new();
        tasks.spawn(named("never drains", std::future::pending::<()>()));
        run_until_stopped(tasks, &CancellationToken::new(), async || ()).await.expect("it is cut off");
    }
}
