//! `edgeward state confirm`: takes changes of a document off the list of those that are pending.

use edgeward::DocumentName;
use http::{HeaderValue, Method, header::CONTENT_TYPE};

use super::path;
use crate::{
    client::{Client, Request},
    terminal,
};

const EXAMPLES: &str = "\
Examples:
  edgeward state confirm cellar 3

For those who carry changes elsewhere themselves: what has arrived there is confirmed here.";

/// Confirm the pending changes of a document up to a version
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The document
    name: DocumentName,
    /// The last version whose change has arrived
    up_to_version: u64,
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let Args { name, up_to_version } = args;
    let request = Request::new(Method::POST, format!("{}/confirm", path(name, None)))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .payload(serde_json::json!({ "up_to_version": up_to_version }).to_string());
    client.send(request).await?;
    if json {
        let told = serde_json::json!({ "name": name, "confirmed_up_to_version": up_to_version });
        terminal::write_json(told.to_string().as_bytes())?;
    } else {
        terminal::write(format!("confirmed the changes of {name} up to version {up_to_version}\n"))?;
    }
    Ok(())
}
