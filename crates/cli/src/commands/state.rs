//! `edgeward state`: the documents of the node.

mod changes;
mod confirm;
mod conflicts;
mod delete;
mod get;
mod history;
mod list;
mod patch;
mod pending;
mod policy;
mod pretty;
mod put;
mod resolve;
mod watch;

use std::str::FromStr;

use edgeward::{DocumentName, EdgeError, limits::KEY_BYTES_MAX};
use http::{HeaderValue, header::ETAG};

use crate::{
    client::{Answer, Client, escaped},
    terminal::{Palette, Style},
};

const EXAMPLES: &str = "\
Examples:
  edgeward state put cellar --value '{\"temperature\": 21.5, \"door\": \"shut\"}'
  edgeward state get cellar door
  edgeward state patch cellar --value '{\"door\": null}'
  edgeward state watch cellar

Every change is on the disk of the node when its command ends.";

/// Read, change and watch documents
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    List(list::Args),
    Get(get::Args),
    Put(put::Args),
    Patch(patch::Args),
    Delete(delete::Args),
    Watch(watch::Args),
    Pending(pending::Args),
    Confirm(confirm::Args),
    History(history::Args),
    Policy(policy::Args),
    Conflicts(conflicts::Args),
    Resolve(resolve::Args),
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    match args.action {
        Action::List(list::Args {}) => list::run(client, json).await,
        Action::Get(args) => get::run(&args, client, json).await,
        Action::Put(args) => put::run(args, client, json).await,
        Action::Patch(args) => patch::run(args, client, json).await,
        Action::Delete(args) => delete::run(&args, client, json).await,
        Action::Watch(args) => watch::run(&args, client, json).await,
        Action::Pending(args) => pending::run(&args, client, json).await,
        Action::Confirm(args) => confirm::run(&args, client, json).await,
        Action::History(args) => history::run(&args, client, json).await,
        Action::Policy(args) => policy::run(&args, client, json).await,
        Action::Conflicts(args) => conflicts::run(&args, client, json).await,
        Action::Resolve(args) => resolve::run(args, client, json).await,
    }
}

/// A key that a path can name.
#[derive(Clone, Debug, PartialEq)]
struct Key(String);

impl FromStr for Key {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        if text.is_empty() {
            return Err(EdgeError::invalid("the key is empty; `edgeward state patch` changes the one that is"));
        }
        if text.len() > KEY_BYTES_MAX {
            return Err(EdgeError::invalid(format!("the key is {} bytes long, the most is {KEY_BYTES_MAX}", text.len())));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The path of a document, or of one of its keys.
fn path(name: &DocumentName, key: Option<&Key>) -> String {
    let mut path = format!("/v1/documents/{name}");
    if let Some(Key(key)) = key {
        path.push_str("/keys/");
        path.push_str(&escaped(key));
    }
    path
}

/// The condition that a document is in this state: `VERSION-CHECKSUM`, with or without quotes, or `*`.
#[derive(Clone, Debug, PartialEq)]
struct IfMatch(HeaderValue);

impl FromStr for IfMatch {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let tag = if bare == "*" { bare.to_owned() } else { format!("\"{bare}\"") };
        let tag = HeaderValue::from_str(&tag).ok().filter(|_| bare == "*" || bare.contains('-'));
        tag.map(Self).ok_or_else(|| {
            EdgeError::invalid(format!("the ETag `{}` is not valid; it must be `VERSION-CHECKSUM` or `*`", text.escape_debug()))
        })
    }
}

/// The ETag of an answer, without its quotes.
fn tag(answer: &Answer) -> Option<String> {
    answer.header(ETAG).map(|tag| tag.trim_matches('"').to_owned())
}

/// What a change led to. Without a tag the document has changed again since.
fn changed(name: &DocumentName, tag: Option<&str>, palette: Palette) -> String {
    let name = palette.paint(Style::Strong, name.as_str());
    match tag.and_then(|tag| Some((tag.split_once('-')?.0, tag))) {
        Some((version, tag)) => format!("{name} is at version {version}, ETag {tag}\n"),
        None => format!("{name} is changed, and has changed again since\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_escaped_in_its_path() {
        let name = DocumentName::new("cellar").expect("valid");
        let path = |key: &str| path(&name, Some(&key.parse().expect("valid")));
        assert_eq!(super::path(&name, None), "/v1/documents/cellar");
        assert_eq!(path("a-Z_0~"), "/v1/documents/cellar/keys/a-Z_0~");
        assert_eq!(path("a/b ?é.%"), "/v1/documents/cellar/keys/a%2Fb%20%3F%C3%A9%2E%25");
        assert!("".parse::<Key>().is_err() && "k".repeat(KEY_BYTES_MAX + 1).parse::<Key>().is_err());
    }

    #[test]
    fn an_etag_may_come_with_or_without_its_quotes() {
        let read = |text: &str| text.parse::<IfMatch>().map(|IfMatch(value)| value);
        assert_eq!(read("3-0a").expect("valid"), "\"3-0a\"");
        assert_eq!(read("\"3-0a\"").expect("valid"), "\"3-0a\"");
        assert_eq!(read("*").expect("valid"), "*");
        assert!(read("3").is_err() && read("").is_err() && read("3-\n").is_err());
    }

    #[test]
    fn a_change_tells_its_version_and_its_etag() {
        let name = DocumentName::new("cellar").expect("valid");
        assert_eq!(changed(&name, Some("3-0a"), Palette::plain()), "cellar is at version 3, ETag 3-0a\n");
        assert!(changed(&name, None, Palette::plain()).contains("changed again"));
    }
}
