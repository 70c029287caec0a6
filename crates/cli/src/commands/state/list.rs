//! `edgeward state list`: which documents there are.

use crate::{
    client::{Client, Documents},
    terminal::{self, Palette, Table},
};

const EXAMPLES: &str = "\
Examples:
  edgeward state list
  edgeward state list --json | jq -r '.documents[].name'";

/// List the documents
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {}

pub(super) async fn run(client: &Client, json: bool) -> anyhow::Result<()> {
    let answer = client.get("/v1/documents").await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        terminal::write(shown(&answer.read()?, Palette::stdout()))?;
    }
    Ok(())
}

fn shown(Documents { documents }: &Documents, palette: Palette) -> String {
    if documents.is_empty() {
        return "there are no documents; `edgeward state put --help` shows how to make one\n".to_owned();
    }
    let mut table = Table::new(&["NAME", ">VERSION", ">KEYS", "UPDATED"]);
    for document in documents {
        table.row(vec![
            document.name.as_str().into(),
            document.version.to_string().into(),
            document.keys.to_string().into(),
            format!("{:.0}", document.updated_at).into(),
        ]);
    }
    table.render(palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_listed_one_a_line() {
        let json = r#"{"documents":[{"name":"cellar","version":12,"keys":3,"updated_at":"2026-01-02T03:04:05.678Z"}]}"#;
        assert_eq!(
            shown(&serde_json::from_str(json).expect("of the API"), Palette::plain()),
            "NAME    VERSION  KEYS  UPDATED\ncellar       12     3  2026-01-02T03:04:05Z\n"
        );
        assert!(shown(&Documents { documents: Vec::new() }, Palette::plain()).contains("no documents"));
    }
}
