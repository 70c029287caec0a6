//! `edgeward nats-config`: what an operator's NATS server needs to know of the fleet.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use edgeward::{EdgeError, FleetHub, cluster::nats::ServerFiles};
use jiff::Timestamp;

use crate::{data_dir::HubDataDir, terminal};

/// Write the files for a NATS server that an operator runs for the fleet.
///
/// They are `nats.conf`, `ca.pem`, `server.pem` and `server.key`, which is a secret: whose credentials the server takes, and a certificate of the
/// fleet's authority. A fleet that does not exist yet is made in the data folder. Hubs use the servers by `edgeward hub --nats URL`; a
/// second hub needs a copy of `fleet/authority.json` in its own data folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  edgeward nats-config --name n1 --host n1.example --out n1
  edgeward nats-config --name n1 --host n1.example --host 10.0.0.5 --listen 0.0.0.0:4222 --installed-at /etc/edgeward-nats --out n1
  nats-server --config /etc/edgeward-nats/nats.conf")]
pub(crate) struct Args {
    /// Names the server among those of its cluster
    #[arg(long)]
    name: String,
    /// Name or address by which members and other servers reach it; may be given more than once
    #[arg(long = "host", value_name = "HOST", required = true)]
    hosts: Vec<String>,
    /// Where it listens for members
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:4222")]
    listen: SocketAddr,
    /// Where the files will lie on its machine [default: --out]
    #[arg(long, value_name = "DIR")]
    installed_at: Option<PathBuf>,
    /// Folder that the files are written to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    data_dir: HubDataDir,
}

/// Runs the command.
pub(crate) fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let data_dir = args.data_dir.path()?;
    let absolute = std::path::absolute(&args.out)
        .map_err(|error| EdgeError::invalid(format!("the folder `{}` cannot be named", args.out.display())).with_source(error))?;
    let installed_at = args.installed_at.unwrap_or_else(|| absolute.clone());
    let files = ServerFiles { name: args.name, listen: args.listen, names: args.hosts, installed_at };
    let now = Timestamp::now();
    let fleet = FleetHub::fleet_in_or_new(&data_dir, now)?;
    // Which credentials are revoked the hub tells each server when it connects.
    files.write(fleet.keys(), &BTreeMap::new(), &args.out, now)?;
    if json {
        terminal::write_json(serde_json::json!({ "folder": absolute }).to_string().as_bytes())?;
    } else {
        terminal::write(format!(
            "wrote nats.conf, ca.pem, server.pem and server.key to {}\nstart it with: nats-server --config {}\n",
            absolute.display(),
            files.installed_at.join("nats.conf").display()
        ))?;
    }
    Ok(())
}
