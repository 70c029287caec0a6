//! `edgeward state conflicts`: writes of a document that did not know of each other.

use clap::builder::RangedU64ValueParser;
use edgeward::{
    DocumentName,
    limits::{CONFLICTS_MAX, CONFLICTS_PAGE_DEFAULT, CONFLICTS_PAGE_MAX},
};

use super::{escaped, path, pretty};
use crate::{
    client::{Client, Conflicts, Side},
    terminal::{self, Cell, Palette, Style, Table},
};

/// What is shown of one value.
const VALUE_CHARS_MAX: usize = 30;

const EXAMPLES: &str = "\
Examples:
  edgeward state conflicts cellar
  edgeward state conflicts cellar --json | jq -c '.conflicts[] | {id, key, lost: .loser.value}'
  edgeward state conflicts cellar --limit 20 --after 019b7d0a3f5e0f3a94c2
  edgeward state resolve cellar 019b7d0a3f5e0f3a94c2 --take

The value that LOST shows nowhere else, and the one that WON is what the key showed when the
conflict was listed. A write by someone who had seen the other is no conflict.";

/// List the conflicts of a document
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The document
    name: DocumentName,
    /// List at most so many
    #[arg(long, value_name = "N", default_value_t = CONFLICTS_PAGE_DEFAULT, value_parser = RangedU64ValueParser::<usize>::new().range(1..=CONFLICTS_PAGE_MAX as u64))]
    limit: usize,
    /// List only what comes after this one
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let (limit, after) = (args.limit, args.after.as_deref().map(|after| format!("&after={}", escaped(after))).unwrap_or_default());
    let answer = client.get(format!("{}/conflicts?limit={limit}{after}", path(&args.name, None))).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        terminal::write(shown(answer.read()?, &args.name, Palette::stdout()))?;
    }
    Ok(())
}

fn shown(Conflicts { conflicts, next, forgotten }: Conflicts, name: &DocumentName, palette: Palette) -> String {
    let mut notes = String::new();
    if let Some(next) = next {
        notes.push_str(&format!("there are more: edgeward state conflicts {name} --after {next}\n"));
    }
    if forgotten > 0 {
        notes.push_str(&format!("forgotten before anybody resolved them, of 30 days or of more than {CONFLICTS_MAX}: {forgotten}\n"));
    }
    if conflicts.is_empty() {
        return format!("there are no conflicts\n{notes}");
    }
    let mut table = Table::new(&["ID", "KEY", "WHY", "LOST", "BY", "TIME", "WON", "BY", "TIME"]);
    for conflict in conflicts {
        let mut row = vec![conflict.id.into(), conflict.key.into(), conflict.why.into()];
        for side in [Some(conflict.loser), conflict.winner] {
            row.extend(side.map_or_else(|| [Cell::new(Style::Faint, "(nothing)"), "".into(), "".into()], cells));
        }
        table.row(row);
    }
    table.render(palette) + &notes
}

/// What was written, by whom, and when.
fn cells(side: Side) -> [Cell; 3] {
    let value = match (&side.value, side.omitted_bytes) {
        (Some(value), _) => pretty::line(value, VALUE_CHARS_MAX).into(),
        (None, Some(bytes)) => Cell::new(Style::Note, &format!("({})", terminal::size(bytes))),
        (None, None) => Cell::new(Style::Warning, "(deleted)"),
    };
    [value, side.node.into(), format!("{:.0}", side.time).into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_listed_one_a_line() {
        let name = DocumentName::new("cellar").expect("a name");
        let shown = |json: &str| shown(serde_json::from_str(json).expect("of the API"), &name, Palette::plain());
        let side = |value: &str, node: &str| {
            format!(r#"{{{value}"node":"{node}","epoch":"0a","counter":1,"stamp":"1.0","time":"2026-01-02T03:04:05.678Z"}}"#)
        };
        let conflict = |loser: &str, winner: &str| {
            format!(r#"{{"id":"0a","key":"door","why":"concurrent","loser":{loser},"winner":{winner},"listed_at":"2026-01-02T03:04:05Z"}}"#)
        };
        let first = conflict(&side(r#""value":18446744073709551617,"#, "e1"), &side(r#""value":null,"#, "e2"));
        let second = conflict(&side("", "e1"), &side(r#""omitted_bytes":2048,"#, "e2"));
        let third = conflict(&side(r#""value":1,"#, "e1"), "null");
        let large = format!("({})", terminal::size(2048));
        assert_eq!(
            shown(&format!(r#"{{"conflicts":[{first},{second},{third}],"next":"0b","forgotten":3}}"#)),
            format!(
                "ID  KEY   WHY         LOST                  BY  TIME                  WON        BY  TIME\n\
                 0a  door  concurrent  18446744073709551617  e1  2026-01-02T03:04:05Z  null       e2  2026-01-02T03:04:05Z\n\
                 0a  door  concurrent  (deleted)             e1  2026-01-02T03:04:05Z  {large:9}  e2  2026-01-02T03:04:05Z\n\
                 0a  door  concurrent  1                     e1  2026-01-02T03:04:05Z  (nothing)\n\
                 there are more: edgeward state conflicts cellar --after 0b\n\
                 forgotten before anybody resolved them, of 30 days or of more than 1000: 3\n"
            )
        );
        assert_eq!(shown(r#"{"conflicts":[],"next":null,"forgotten":0}"#), "there are no conflicts\n");
    }
}
