//! `edgeward state resolve`: says what becomes of a conflict.

use clap::builder::NonEmptyStringValueParser;
use edgeward::{DocumentName, limits::DOCUMENT_BODY_BYTES_MAX, python_json};
use http::{HeaderValue, Method, header::CONTENT_TYPE};

use super::{escaped, path};
use crate::{
    client::{Client, Request},
    input::Input,
    terminal,
};

const EXAMPLES: &str = "\
Examples:
  edgeward state conflicts cellar                                   # which there are
  edgeward state resolve cellar 019b7d0a3f5e0f3a94c2 --take
  edgeward state resolve cellar 019b7d0a3f5e0f3a94c2 --value '\"ajar\"'

The conflict is no longer listed, here and at every replica.";

/// Resolve a conflict of a document
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "edgeward state resolve [OPTIONS] NAME ID (--keep|--take|--value JSON|--delete)")]
pub(super) struct Args {
    /// The document
    name: DocumentName,
    /// The conflict, as `edgeward state conflicts` shows it
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    id: String,
    #[command(flatten)]
    resolution: Resolution,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Resolution {
    /// The key stays as it is
    #[arg(long)]
    keep: bool,
    /// The key gets the value that lost
    #[arg(long)]
    take: bool,
    /// The key gets this value
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    value: Option<String>,
    /// The key is deleted
    #[arg(long)]
    delete: bool,
}

impl Resolution {
    /// As the API takes it, and how it is told.
    fn into_body(self) -> anyhow::Result<(String, &'static str)> {
        Ok(match self.value {
            Some(text) => {
                // It is read here, so that it cannot end the object that it is put into.
                let text = Input::Text(text).read(DOCUMENT_BODY_BYTES_MAX)?;
                let value = python_json::read(std::str::from_utf8(&text)?)?;
                (format!("{{\"value\": {}}}", python_json::write(&value)?), "the key has the value given")
            }
            None if self.keep => (r#"{"keep": true}"#.to_owned(), "the key stays as it is"),
            None if self.take => (r#"{"take": true}"#.to_owned(), "the key has the value that lost"),
            None => (r#"{"delete": true}"#.to_owned(), "the key is deleted"),
        })
    }
}

pub(super) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let Args { name, id, resolution } = args;
    let (body, told) = resolution.into_body()?;
    let request = Request::new(Method::POST, format!("{}/conflicts/{}/resolve", path(&name, None), escaped(&id)))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .payload(body);
    client.send(request).await?;
    if json {
        terminal::write_json(serde_json::json!({ "name": name, "id": id, "resolved": true }).to_string().as_bytes())?;
    } else {
        terminal::write(format!("resolved conflict {} of {name}: {told}\n", terminal::printable(&id)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_say_more_than_itself() {
        let body = |value: &str| {
            let resolution = Resolution { keep: false, take: false, value: Some(value.to_owned()), delete: false };
            resolution.into_body().map(|(body, _)| body)
        };
        assert_eq!(body("18446744073709551617").expect("valid"), r#"{"value": 18446744073709551617}"#);
        assert!(body(r#"1, "keep": true"#).is_err() && body("").is_err());
    }
}
