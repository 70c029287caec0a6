//! `edgeward state patch`: changes a document by a JSON merge patch.

use edgeward::{DocumentName, limits::DOCUMENT_BODY_BYTES_MAX};
use http::{
    HeaderValue, Method,
    header::{CONTENT_TYPE, IF_MATCH},
};

use super::{IfMatch, changed, path, tag};
use crate::{
    client::{Client, Request},
    input::Input,
    terminal::{self, Palette},
};

const EXAMPLES: &str = "\
Examples:
  edgeward state patch cellar --value '{\"door\": \"open\", \"lamp\": {\"on\": true}}'
  edgeward state patch cellar --value '{\"lamp\": null}'
  edgeward state patch cellar change.json --if-match 3-99914b932bd37a50b983c5e7c90ae93b

A JSON merge patch (RFC 7396) is an object. Its members are set, objects in it are merged, and `null` deletes.";

/// Change some keys of a document
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "edgeward state patch [OPTIONS] NAME (FILE|-|--value JSON)")]
pub(super) struct Args {
    /// The document; it is made when there is none
    name: DocumentName,
    /// A file with the patch, or `-` for standard input
    #[arg(value_name = "FILE", required_unless_present = "value", value_parser = Input::of_path)]
    file: Option<Input>,
    /// The patch itself
    #[arg(long, value_name = "JSON", conflicts_with = "file")]
    value: Option<String>,
    /// Only when the document is in this state; `*`: only when there is one
    #[arg(long, value_name = "ETAG")]
    if_match: Option<IfMatch>,
}

pub(super) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let input = args.file.or(args.value.map(Input::Text)).expect("clap wants one of the two");
    let mut request = Request::new(Method::PATCH, path(&args.name, None))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/merge-patch+json"))
        .payload(input.read(DOCUMENT_BODY_BYTES_MAX)?);
    if let Some(IfMatch(tag)) = args.if_match {
        request = request.header(IF_MATCH, tag);
    }
    let answer = client.send(request).await?;
    if json {
        terminal::write_json(answer.json().await?.bytes())?;
    } else {
        terminal::write(changed(&args.name, tag(&answer).as_deref(), Palette::stdout()))?;
    }
    Ok(())
}
