//! `edgeward state delete`: deletes every key of a document, or one.

use edgeward::DocumentName;
use http::{Method, header::IF_MATCH};

use super::{IfMatch, Key, changed, path, tag};
use crate::{
    client::{Client, Request},
    terminal::{self, Palette},
};

const EXAMPLES: &str = "\
Examples:
  edgeward state delete cellar
  edgeward state delete cellar door
  edgeward state delete cellar --if-match 3-99914b932bd37a50b983c5e7c90ae93b

A document without keys stays, a version on: its deletion has to reach the other replicas.";

/// Delete every key of a document, or one
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The document
    name: DocumentName,
    /// Only this key
    key: Option<Key>,
    /// Only when the document is in this state; `*`: only when there is one
    #[arg(long, value_name = "ETAG")]
    if_match: Option<IfMatch>,
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let Args { name, key, if_match } = args;
    let mut request = Request::new(Method::DELETE, path(name, key.as_ref()));
    if let Some(IfMatch(tag)) = if_match {
        request = request.header(IF_MATCH, tag.clone());
    }
    let answer = client.send(request).await?;
    let tag = tag(&answer);
    match key {
        Some(Key(key)) if json => {
            let told = serde_json::json!({ "name": name, "key": key, "deleted": true, "etag": tag });
            terminal::write_json(told.to_string().as_bytes())?;
        }
        None if json => terminal::write_json(serde_json::json!({ "name": name, "deleted": true }).to_string().as_bytes())?,
        Some(_) => terminal::write(changed(name, tag.as_deref(), Palette::stdout()))?,
        None => terminal::write(format!("deleted every key of {name}\n"))?,
    }
    Ok(())
}
