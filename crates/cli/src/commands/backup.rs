//! `edgeward backup`: copies the data folder of a node, which may run, into a new folder.

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
  edgeward backup monday --json | jq .bytes
  b3sum --check manifest.blake3           # inside a backup: is its manifest whole?";

/// Copy the data of a node into a new folder, while it runs.
///
/// A backup holds the documents of one moment, with every change that was acknowledged before it began, and the artifacts of
/// the functions. It is complete or absent; an interrupted one leaves DIR.unfinished, which the next one removes. It holds the
/// environment of the functions, so keep it like a secret. The node is not asked: run it as the user who runs the node.
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
        let done = serde_json::json!({ "backup": dir, "node": node, "time": manifest.time, "artifacts": artifacts, "bytes": bytes });
        terminal::write_json(done.to_string().as_bytes())?;
    } else {
        let s = if artifacts == 1 { "" } else { "s" };
        terminal::write(format!("backed up {node} to {}: {}, with {artifacts} artifact{s}\n", dir.display(), size(bytes)))?;
    }
    Ok(())
}

fn failed(error: EdgeError) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => Hinted::new(error, "`--data-dir` names the data folder of a node").into(),
        ErrorKind::Conflict => Hinted::new(error, "a backup is made in a new folder: give another one").into(),
        _ => error.into(),
    }
}
