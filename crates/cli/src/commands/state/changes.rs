//! Changes of a document as a table.

use edgeward::Value;

use super::pretty;
use crate::{
    client::Change,
    terminal::{Palette, Table},
};

/// What is shown of the data of one change.
const DATA_CHARS_MAX: usize = 60;

/// A line for each change.
pub(super) fn table(changes: Vec<Change>, palette: Palette) -> String {
    let mut table = Table::new(&[">VERSION", "TYPE", "TIME", ">COALESCED", "DATA"]);
    for change in changes {
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
        let json = r#"[{"type":"patch","version":12,"data":{"a": null},"timestamp":"2026-01-02T03:04:05.678Z","coalesced":2}]"#;
        assert_eq!(
            table(serde_json::from_str(json).expect("of the API"), Palette::plain()),
            "VERSION  TYPE   TIME                  COALESCED  DATA\n     12  patch  2026-01-02T03:04:05Z          2  {\"a\": null}\n"
        );
    }
}
