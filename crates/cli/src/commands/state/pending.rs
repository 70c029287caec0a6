//! `edgeward state pending`: the changes of a document that nobody has confirmed.

use edgeward::DocumentName;

use super::{changes, path};
use crate::{
    client::{Client, Pending},
    terminal::{self, Palette},
};

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
    changes::table(pending, palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_changes_that_is_told() {
        assert_eq!(shown(Pending { pending: Vec::new() }, Palette::plain()), "every change is confirmed\n");
    }
}
