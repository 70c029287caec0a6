//! `edgeward state put`: makes JSON the whole document, or the value of one key.

use bytes::Bytes;
use edgeward::{DocumentName, limits::DOCUMENT_BODY_BYTES_MAX};
use http::{
    HeaderValue, Method,
    header::{CONTENT_TYPE, IF_MATCH},
};

use super::{IfMatch, Key, changed, path, tag};
use crate::{
    client::{Client, Request},
    input::Input,
    terminal::{self, Palette},
};

const EXAMPLES: &str = "\
Examples:
  edgeward state put cellar cellar.json
  edgeward state put cellar --value '{\"temperature\": 21.5}'
  edgeward state put cellar door --value '\"shut\"'
  sensor | edgeward state put cellar readings -

The JSON of a document is an object, and keys that it does not have are deleted. That of a key is anything.";

/// Write a document, or one of its keys
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "edgeward state put [OPTIONS] NAME [KEY] (FILE|-|--value JSON)")]
pub(super) struct Args {
    /// The document; it is made when there is none
    name: DocumentName,
    /// Only this key, where a file or --value follows; else the file, or `-` for standard input
    #[arg(value_name = "KEY", required_unless_present = "value")]
    key_or_file: Option<String>,
    /// A file with the JSON, or `-` for standard input
    #[arg(value_name = "FILE", conflicts_with = "value")]
    file: Option<String>,
    /// The JSON itself
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    value: Option<String>,
    /// Only when the document is in this state; `*`: only when there is one
    #[arg(long, value_name = "ETAG")]
    if_match: Option<IfMatch>,
}

/// Which key is meant, and where its JSON or that of the document comes from.
fn target(key_or_file: Option<String>, file: Option<String>, value: Option<String>) -> anyhow::Result<(Option<Key>, Input)> {
    let key = |key: String| key.parse::<Key>();
    Ok(match (key_or_file, file, value) {
        (first, _, Some(value)) => (first.map(key).transpose()?, Input::Text(value)),
        (Some(first), Some(file), None) => (Some(key(first)?), Input::of_path(&file)?),
        (Some(file), None, None) => (None, Input::of_path(&file)?),
        (None, ..) => unreachable!("clap wants a file where there is no value"),
    })
}

pub(super) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let name = args.name;
    let (key, input) = target(args.key_or_file, args.file, args.value)?;
    let body: Bytes = input.read(DOCUMENT_BODY_BYTES_MAX)?;
    let mut request = Request::new(Method::PUT, path(&name, key.as_ref()))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .payload(body);
    if let Some(IfMatch(tag)) = args.if_match {
        request = request.header(IF_MATCH, tag);
    }
    let answer = client.send(request).await?;
    let tag = tag(&answer);
    match key {
        _ if !json => terminal::write(changed(&name, tag.as_deref(), Palette::stdout()))?,
        Some(Key(key)) => terminal::write_json(serde_json::json!({ "name": name, "key": key, "etag": tag }).to_string().as_bytes())?,
        None => terminal::write_json(answer.json().await?.bytes())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_and_where_is_told_by_what_is_given() {
        let target = |first: Option<&str>, file: Option<&str>, value: Option<&str>| {
            target(first.map(str::to_owned), file.map(str::to_owned), value.map(str::to_owned)).expect("valid")
        };
        let key = || Some(Key("door".to_owned()));
        assert_eq!(target(None, None, Some("1")), (None, Input::Text("1".to_owned())));
        assert_eq!(target(Some("door"), None, Some("1")), (key(), Input::Text("1".to_owned())));
        assert_eq!(target(Some("a.json"), None, None), (None, Input::File("a.json".into())));
        assert_eq!(target(Some("-"), None, None), (None, Input::Stdin));
        assert_eq!(target(Some("door"), Some("-"), None), (key(), Input::Stdin));
    }
}
