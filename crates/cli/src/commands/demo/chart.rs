//! A small chart of monthly values for the terminal: one line of blocks for each series, on one scale.

use crate::terminal::{Palette, Style};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Rows of a chart; each shows eight steps.
const ROWS: usize = 3;
const NAME_WIDTH: usize = 14;

/// The values of one line, January first.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    pub(super) style: Style,
    pub(super) values: Vec<f64>,
}

/// Draws all series on one scale, from the lowest value to the highest.
pub(super) fn months(title: &str, series: &[Series<'_>], palette: Palette) -> String {
    let values = || series.iter().flat_map(|series| series.values.iter().copied());
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let mut text = format!("  {}\n", palette.paint(Style::Faint, title));
    for series in series {
        let steps: Vec<usize> = series.values.iter().map(|value| step(*value, low, high)).collect();
        for row in (0..ROWS).rev() {
            let name = if row == 0 { series.name } else { "" };
            let blocks: String = steps.iter().map(|step| format!("{0}{0}{0} ", block(*step, row))).collect();
            text.push_str(&format!("  {name:<NAME_WIDTH$} {}\n", palette.paint(series.style, blocks.trim_end())));
        }
        let numbers: String = series.values.iter().map(|value| format!("{value:>3.0} ")).collect();
        text.push_str(&format!("  {:<NAME_WIDTH$} {}\n", "", numbers.trim_end()));
    }
    text.push_str(&format!("  {:<NAME_WIDTH$} {}\n", "", palette.paint(Style::Faint, &MONTHS.join(" "))));
    text
}

/// Height of a value in eighths of a row, at least one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a height between 0 and 24")]
fn step(value: f64, low: f64, high: f64) -> usize {
    let share = if high > low { (value - low) / (high - low) } else { 1.0 };
    1 + (share.clamp(0.0, 1.0) * (ROWS * BLOCKS.len() - 1) as f64).round() as usize
}

fn block(step: usize, row: usize) -> char {
    match step.saturating_sub(row * BLOCKS.len()) {
        0 => ' ',
        height => BLOCKS[height.min(BLOCKS.len()) - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_value_fills_its_column_and_the_lowest_is_still_seen() {
        let series = [Series { name: "a", style: Style::Note, values: vec![0.0, 5.0, 10.0] }];
        let text = months("t", &series, Palette::plain());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].trim(), "███");
        assert_eq!(lines[3], "  a              ▁▁▁ ███ ███");
        assert!(lines[4].ends_with("  0   5  10"));
    }
}
