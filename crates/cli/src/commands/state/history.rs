//! `edgeward state history`: how a document came to be what it is.

use edgeward::DocumentName;

use super::{changes, path};
use crate::{
    client::{Client, History},
    terminal::{self, Palette},
};

const EXAMPLES: &str = "\
Examples:
  edgeward state history cellar
  edgeward state history cellar --json | jq -c '.history[] | select(.data.door)'

Oldest first. What was made here has the type `update` (the whole document) or `patch` (a JSON
merge patch), what came from elsewhere `remote` (the whole document) or `merge` (members). Of
changes that are confirmed, or came from elsewhere, the last 100 to 200 are kept,
of large ones fewer.";

/// List the changes of a document
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The document
    name: DocumentName,
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let answer = client.get(format!("{}/history", path(&args.name, None))).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        terminal::write(changes::table(answer.read::<History>()?.history, Palette::stdout()))?;
    }
    Ok(())
}
