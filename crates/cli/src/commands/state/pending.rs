//! `edgeward state pending`: the changes of a document that nobody has confirmed.

use edgeward::{DocumentName, Value};

use super::{path, pretty};
use crate::{
    client::{Client, Pending},
    terminal::{self, Palette, Table},
};

/// What is shown of the data of one change.
const DATA_CHARS_MAX: usize = 60;

const EXAMPLES: &str = "\
Examples:
  edgeward state pending cellar
  edgeward state pending cellar --json | jq -c '.pending[]'

A change of type `update` holds the whole document, one of type `patch` a JSON merge patch. Past 1000 changes neighbours become
one, and COALESCED tells how many others it stands for.";

/// List the changes of a document that are not confirmed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The document
    name: DocumentName,
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let answer = client.get(format!("{}/pending", path(&args.name, None))).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        terminal::write(shown(answer.read()?, Palette::stdout()))?;
    }
    Ok(())
}

fn shown(Pending { pending }: Pending, palette: Palette) -> String {
    if pending.is_empty() {
        return "every change is confirmed\n".to_owned();
    }
    let mut table = Table::new(&[">VERSION", "TYPE", "TIME", ">COALESCED", "DATA"]);
    for change in pending {
        table.row(vec![
            change.version.to_string().into(),
            change.r#type.into(),
            format!("{:.0}", change.timestamp).into(),
            change.coalesced.to_string().into(),
            pretty::line(&Value::from(change.data), DATA_CHARS_MAX).into(),
        ]);
    }
    table.render(palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_listed_one_a_line() {
        let json = r#"{"pending":[{"type":"patch","version":12,"data":{"a": null},"timestamp":"2026-01-02T03:04:05.678Z","coalesced":2}]}"#;
        assert_eq!(
            shown(serde_json::from_str(json).expect("of the API"), Palette::plain()),
            "VERSION  TYPE   TIME                  COALESCED  DATA\n     12  patch  2026-01-02T03:04:05Z          2  {\"a\": null}\n"
        );
        assert!(shown(Pending { pending: Vec::new() }, Palette::plain()).contains("every change is confirmed"));
    }
}
