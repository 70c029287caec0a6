//! `edgeward node`: runs a node that belongs to a fleet.

use edgeward::{TopicFilter, TopicSharing, UpdateHours};

use crate::{
    heartbeat::Heartbeat,
    node_process::{self, Joining, NodeArgs},
};

/// Run a node that belongs to a fleet.
///
/// It joins once, by a token that `edgeward join-token` makes on the hub; the token may stay on the command line. From then on the node
/// needs nobody: it serves, takes writes and starts again without its hub for as long as it must, and catches up when the hub is
/// back. What the hub assigns runs beside what is deployed at the node itself. Nothing connects inwards to it for the fleet's sake.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  edgeward node --join \"$TOKEN\" --id edge-01 --label site=berlin --capability gpu
  edgeward node --id edge-01                      # it joined before
  EDGEWARD_JOIN_TOKEN=… edgeward node --id edge-01
  edgeward node --id edge-01 --heartbeat-seconds 60   # on a metered link; give the hub the same
  edgeward node --id edge-01 --update-hours 02:00-04:30 --fetch-limit 100000
  edgeward node --id edge-01 --topics-forward 'site/berlin/#' --topics-import 'prices/#'")]
pub(crate) struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// The join token; needed once
    #[arg(long, value_name = "TOKEN", env = "EDGEWARD_JOIN_TOKEN", hide_env_values = true)]
    join: Option<String>,
    /// Documents that this node wants, by name or by how the name begins, as `prices` or `sites.{site}.*` with the value of its label `site`;
    /// may be given more than once. What it holds it keeps in step anyway [default: all]
    #[arg(long, value_name = "PATTERN")]
    documents: Vec<String>,
    /// Hours of the day in which it takes what its hub deploys anew, by its own clock and time zone; what it runs goes on [default: always]
    #[arg(long, value_name = "HH:MM-HH:MM")]
    update_hours: Option<UpdateHours>,
    /// Bytes a second at most with which it fetches artifacts [default: as fast as can be]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1024..))]
    fetch_limit: Option<u64>,
    /// Messages that are published on this node and go to the fleet, by a filter of topics such as `site/+/temp` or `alarms/#`; may be given more than
    /// once. They wait on its disk while the hub is away [default: none]
    #[arg(long = "topics-forward", value_name = "FILTER")]
    topics_forward: Vec<TopicFilter>,
    /// Messages of the fleet that come to this node, by a filter of topics; may be given more than once [default: none]
    #[arg(long = "topics-import", value_name = "FILTER")]
    topics_import: Vec<TopicFilter>,
    #[command(flatten)]
    heartbeat: Heartbeat,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let timing = args.heartbeat.timing()?;
    let token = args.join.clone().filter(|token| !token.is_empty());
    let Args { node, documents, update_hours, fetch_limit, topics_forward, topics_import, .. } = args;
    let topics = TopicSharing { forward: topics_forward, import: topics_import };
    node_process::run(node, Some(Joining { token, timing, documents, update_hours, fetch_limit, topics })).await
}
