//! `edgeward backup`: copies the data folder of a node or hub, which may run, into a new folder.

use std::path::PathBuf;

use edgeward::{EdgeError, ErrorKind, backup};
use jiff::Timestamp;

use crate::{
    data_dir::DataDir,
    exit::Hinted,
    terminal::{self, size},
};

const EXAMPLES: &str = "\
Examples:
  edgeward backup /mnt/usb/edge-01-monday
  edgeward backup --data-dir /var/lib/edgeward \"/mnt/usb/edge-01-$(date +%F)\"
  edgeward backup --data-dir /var/lib/edgeward-hub \"/mnt/usb/hub-$(date +%F)\"
  edgeward backup monday --json | jq .bytes
  b3sum --check manifest.blake3           # inside a backup: is its manifest whole?";

/// Copy the data of a node or hub into a new folder, while it runs.
///
/// A backup holds the documents of one moment, with every change that was acknowledged before it began, the artifacts of the
/// functions and assignments, and what makes a node a member of its fleet, or a hub the hub of it. It is complete or absent; an
/// interrupted one leaves DIR.unfinished, which the next one removes. The process is not asked: run it as the user who runs it.
///
/// It is made for that user alone, and stays a secret: it holds the environment of the functions, and THE KEYS. Who has the backup of
/// a node is that node to the fleet; who has that of a hub is the fleet.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The folder to make; it is missing or empty
    dir: PathBuf,
    #[command(flatten)]
    data_dir: DataDir,
}

/// Runs the command.
pub(crate) async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let (dir, data_dir) = (args.dir, args.data_dir.path()?);
    let target = dir.clone();
    let copied = tokio::task::spawn_blocking(move || {
        let bar = terminal::CopyBar::new();
        backup::create(&data_dir, &target, Timestamp::now(), |progress| bar.show(progress))
    });
    let manifest = copied.await?.map_err(failed)?;
    let (node, artifacts, bytes) = (&manifest.node, manifest.artifacts.len(), manifest.bytes());
    if json {
        let done = serde_json::json!({
            "backup": dir, "node": node, "time": manifest.time, "artifacts": artifacts, "missing_artifacts": manifest.missing_artifacts,
            "has_keys": !manifest.fleet.is_empty(), "bytes": bytes,
        });
        terminal::write_json(done.to_string().as_bytes())?;
        return Ok(());
    }
    let s = if artifacts == 1 { "" } else { "s" };
    let mut text = format!("backed up {node} to {}: {}, with {artifacts} artifact{s}", dir.display(), size(bytes));
    text += if manifest.fleet.is_empty() { "\n" } else { " and keys: keep it like them\n" };
    for digest in &manifest.missing_artifacts {
        text += &format!("not in it: artifact {digest}, which is assigned and was not there; deploy its function again\n");
    }
    terminal::write(text)?;
    Ok(())
}

fn failed(error: EdgeError) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => Hinted::new(error, "`--data-dir` names the data folder of a node or hub").into(),
        ErrorKind::Conflict => Hinted::new(error, "a backup is made in a new folder: give another one").into(),
        _ => error.into(),
    }
}
