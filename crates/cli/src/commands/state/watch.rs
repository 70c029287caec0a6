//! `edgeward state watch`: the states of a document as they come.

use anyhow::Context as _;
use edgeward::{DocumentName, Value};

use super::{path, pretty};
use crate::{
    client::{Client, DocumentState},
    terminal::{self, Palette, Style},
};

/// What is shown of the data of one state.
const DATA_CHARS_MAX: usize = 500;

const EXAMPLES: &str = "\
Examples:
  edgeward state watch cellar
  edgeward state watch cellar --json | jq --unbuffered .data.temperature

The first line is the present state; a document that does not exist yet is waited for. States that pass quickly are skipped, the
last one never is. It ends when the node stops. With --json each state is one JSON object; that of a large document has
`data_omitted` instead of its data. Times are UTC.";

/// Show a document whenever it changes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The document
    name: DocumentName,
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let mut events = client.get(format!("{}/watch", path(&args.name, None))).await?.events();
    while let Some(event) = events.next().await? {
        if json {
            terminal::write_json(event.data.as_bytes())?;
        } else {
            let state = serde_json::from_str(&event.data).context("failed to read a state of the node")?;
            terminal::write(shown(state, Palette::stdout()))?;
        }
    }
    Ok(())
}

fn shown(DocumentState { version, data, updated_at }: DocumentState, palette: Palette) -> String {
    let time = palette.paint(Style::Faint, &format!("{updated_at:.3}"));
    let version = palette.paint(Style::Strong, &format!("version {version}"));
    let data = match data {
        Some(data) => pretty::line(&Value::from(data), DATA_CHARS_MAX),
        None => palette.paint(Style::Note, "is large; `edgeward state get` shows it"),
    };
    format!("{time}  {version}  {data}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_one_line() {
        let shown = |json: &str| shown(serde_json::from_str(json).expect("of the API"), Palette::plain());
        assert_eq!(
            shown(r#"{"version":7,"data":{"a": 18446744073709551617},"checksum":"0a","updated_at":"2026-01-02T03:04:05.678901Z"}"#),
            "2026-01-02T03:04:05.678Z  version 7  {\"a\": 18446744073709551617}\n"
        );
        let large = shown(r#"{"version":7,"data_omitted":true,"checksum":"0a","updated_at":"2026-01-02T03:04:05Z"}"#);
        assert!(large.contains("version 7  is large"), "{large}");
    }
}
