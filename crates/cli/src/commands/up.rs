//! `edgeward up`: runs a node in this process until it is told to stop.

use crate::node_process::{self, NodeArgs};

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
    #[command(flatten)]
    node: NodeArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    node_process::run(args.node, None).await
}
