//! `edgeward restore`: makes a data folder what a backup holds.

use std::path::PathBuf;

use edgeward::{EdgeError, ErrorKind, backup};
use jiff::Timestamp;

use crate::{data_dir::DataDir, exit::Hinted, terminal};

const EXAMPLES: &str = "\
Examples:
  edgeward restore /mnt/usb/edge-01-monday
  edgeward restore --data-dir /var/lib/edgeward --replace /mnt/usb/edge-01-monday

Stop the node or hub first. Afterwards start it as it was started before, with the id of the backup: edgeward up --id edge-01";

/// Make a data folder what a backup holds.
///
/// Every byte of the backup is checked first. The data folder must be missing or empty; with --replace, the data that is there is
/// moved aside, beside it. A crash at any moment leaves the old data folder or the new one, complete. Run it as the user who runs
/// the node or hub; the folder around the data folder must be writable.
///
/// A hub that was restored is the hub of its fleet: its nodes come back by themselves.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The folder that `edgeward backup` made
    dir: PathBuf,
    #[command(flatten)]
    data_dir: DataDir,
    /// Replace the data of a node or hub that is there
    #[arg(long)]
    replace: bool,
}

/// Runs the command.
pub(crate) async fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let Args { dir, data_dir, replace } = args;
    let data_dir = data_dir.path()?;
    let target = data_dir.clone();
    let copied = tokio::task::spawn_blocking(move || {
        let bar = terminal::CopyBar::new();
        backup::restore(&dir, &target, replace, Timestamp::now(), |progress| bar.show(progress))
    });
    let backup::Restored { manifest, replaced } = copied.await?.map_err(failed)?;
    let (node, time) = (&manifest.node, manifest.time);
    if json {
        let done = serde_json::json!({ "data_dir": data_dir, "node": node, "time": time, "replaced": replaced });
        terminal::write_json(done.to_string().as_bytes())?;
        return Ok(());
    }
    let mut text = format!("restored {node} as of {time:.0} to {}\n", data_dir.display());
    if let Some(replaced) = replaced {
        text += &format!("what was there lies in {}\n", replaced.display());
    }
    terminal::write(text)?;
    Ok(())
}

fn failed(error: EdgeError) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => Hinted::new(error, "give the folder that `edgeward backup` made").into(),
        ErrorKind::Conflict => Hinted::new(error, "stop the node or hub first; `--replace` moves the data that is there aside").into(),
        _ => error.into(),
    }
}
