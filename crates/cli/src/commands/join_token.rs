//! `edgeward join-token`: makes the token by which a node joins the fleet.

use std::path::PathBuf;

use edgeward::{FleetHub, NodeId};
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use jiff::Timestamp;

use crate::{
    api::hub::join_tokens::{JoinTokenAnswer, JoinTokenBody},
    client::{Client, CreatedJoinToken, Request},
    terminal,
};

/// Make a token by which one node joins the fleet.
///
/// It is good once, for at most 15 minutes, and a secret until then. It carries where the fleet is and the fingerprint of its authority, so
/// that the node needs nothing else. The hub is asked; with --data-dir its folder is, whether the hub runs or not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  edgeward join-token
  edgeward join-token --node edge-01                      # only that one; also when it has to join anew
  edgeward join-token --data-dir /var/lib/edgeward-hub    # on the hub's machine
  edgeward node --id edge-01 --join \"$(edgeward join-token)\"")]
pub(crate) struct Args {
    /// Only this node may join by it, also in place of one of this id that belongs to the fleet
    #[arg(long, value_name = "ID")]
    node: Option<NodeId>,
    /// For how long it is good, in seconds [default: 900]
    #[arg(long, value_name = "S")]
    expires_seconds: Option<u64>,
    /// Do not ask the hub, but use its data folder
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of a server that the token carries, instead of those of the hub; may be given more than once
    #[arg(long = "at", value_name = "URL", requires = "data_dir")]
    servers: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let body = JoinTokenBody { node: args.node, expires_in_seconds: args.expires_seconds };
    let answer = if let Some(data_dir) = args.data_dir {
        let token = FleetHub::fleet_in(&data_dir)?.join_token(args.servers, body.node.clone(), body.ttl(), Timestamp::now())?;
        serde_json::to_vec(&JoinTokenAnswer::new(&token))?
    } else {
        let request = Request::new(Method::POST, "/v1/join-tokens")
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .payload(serde_json::to_vec(&body)?);
        client.send(request).await?.json().await?.bytes().to_vec()
    };
    if json {
        terminal::write_json(&answer)?;
        return Ok(());
    }
    let CreatedJoinToken { token, expires_at, servers } = serde_json::from_slice(&answer)?;
    terminal::write(format!("{token}\n"))?;
    terminal::note(&format!("good once, until {expires_at:.0}; the node will look for the fleet at {}", servers.join(", ")));
    Ok(())
}
