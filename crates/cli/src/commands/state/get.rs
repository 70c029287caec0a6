//! `edgeward state get`: a document, or the value of one key. Standard output gets JSON, indented.

use edgeward::{DocumentName, Value};

use super::{Key, path, pretty, tag};
use crate::{
    client::{Client, DocumentState},
    terminal,
};

const EXAMPLES: &str = "\
Examples:
  edgeward state get cellar
  edgeward state get cellar door
  edgeward state get cellar > cellar.json
  edgeward state get cellar --json | jq -r '\"\\(.version)-\\(.checksum)\"'    # its ETag, for --if-match

With --json a document comes with its version, its checksum and the time of its last change.";

/// Show a document, or one of its keys
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The document
    name: DocumentName,
    /// Only this key
    key: Option<Key>,
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let answer = client.get(path(&args.name, args.key.as_ref())).await?;
    let tag = tag(&answer);
    let answer = answer.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
        return Ok(());
    }
    let value: Value = match &args.key {
        Some(_) => answer.read()?,
        None => answer.read::<DocumentState>()?.data.unwrap_or_default().into(),
    };
    terminal::write(pretty::lines(&value))?;
    if let Some(tag) = tag {
        terminal::note(&format!("ETag {tag}"));
    }
    Ok(())
}
