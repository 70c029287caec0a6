//! `benches/RESULTS.md`: between two marks stands what was measured, and only that is replaced. Around it people
//! write what it means.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::bench::machine::Machine;
use crate::bench::row::Row;

const BEGIN: &str = "<!-- measured: begin (written by `cargo xtask bench`) -->\n";
const END: &str = "<!-- measured: end -->\n";

pub(crate) fn measured(rows: &[Row], machine: &Machine, command: &str) -> String {
    let mut text = machine.lines();
    text.push_str(&format!("- Repeat with: `{command}`\n\n"));
    text.push_str("Medians over the rounds, with the least and the most in brackets; ratios are taken pair by pair.\n\n");
    text.push_str("| what | target | ours | peer | ours to peer | met? |\n|---|---|---|---|---|---|\n");
    for row in rows {
        text.push_str(&row.markdown());
        text.push('\n');
    }
    text
}

pub(crate) fn write(path: &Path, measured: &str) -> Result<()> {
    let old = fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    let Some(new) = replaced(&old, measured) else {
        bail!("failed to find the marks of the measured part in `{}`", path.display());
    };
    fs::write(path, new).with_context(|| format!("failed to write `{}`", path.display()))
}

fn replaced(old: &str, measured: &str) -> Option<String> {
    let (before, rest) = old.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{measured}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_measured_part_is_replaced() {
        let old = format!("# Results\n\n{BEGIN}old\n{END}\nWhat it means.\n");
        assert_eq!(replaced(&old, "new\n"), Some(format!("# Results\n\n{BEGIN}new\n{END}\nWhat it means.\n")));
        assert_eq!(replaced("# Results\n", "new\n"), None);
    }
}
