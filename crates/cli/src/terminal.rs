//! What people see: colour, tables, bars and progress.
//!
//! Colour only goes to a terminal and never when `NO_COLOR` is set. Text that a function or a node wrote is made
//! printable first, so that it cannot steer the terminal.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write as _},
    time::Duration,
};

use edgeward::{
    NodeId,
    backup::{Progress, Step},
};
use indicatif::{ProgressBar, ProgressStyle};
use unicode_width::UnicodeWidthStr;

/// How a piece of text stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Strong,
    Faint,
    Good,
    Warning,
    Error,
    Note,
}

/// Whether styles are shown on one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Palette {
    on: bool,
}

impl Palette {
    /// For standard output.
    pub(crate) fn stdout() -> Self {
        Self::of(&io::stdout())
    }

    /// For standard error.
    pub(crate) fn stderr() -> Self {
        Self::of(&io::stderr())
    }

    /// Shows no styles.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { on: false }
    }

    fn of(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { on: stream.is_terminal() && !refused && !dumb }
    }

    /// Whether styles are shown.
    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    /// `text` in this style.
    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Strong => "1",
            Style::Faint => "2",
            Style::Good => "32",
            Style::Warning => "33",
            Style::Error => "1;31",
            Style::Note => "36",
        };
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One piece of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// `text` in this style.
    pub(crate) fn new(style: Style, text: &str) -> Self {
        Self { text: printable(text).into_owned(), style }
    }

    /// How many nodes have something, and the first of them.
    pub(crate) fn of_nodes(nodes: &[NodeId]) -> Self {
        const SHOWN: usize = 3;
        if nodes.is_empty() {
            return Self::new(Style::Warning, "none yet");
        }
        let mut names: Vec<_> = nodes.iter().take(SHOWN).map(NodeId::as_str).collect();
        if nodes.len() > SHOWN {
            names.push("…");
        }
        format!("{} ({})", nodes.len(), names.join(", ")).into()
    }

    fn width(&self) -> usize {
        self.text.width()
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Style::Plain, text.as_ref())
    }
}

/// Rows in aligned columns, two spaces apart.
#[derive(Debug, Default)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    right: bool,
}

impl Table {
    /// A table with these headings; one that starts with `>` is a column of numbers, aligned to the right.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let columns = headings.iter().map(|heading| Column { right: heading.starts_with('>') }).collect();
        let heading = headings.iter().map(|heading| Cell::new(Style::Strong, heading.trim_start_matches('>'))).collect();
        Self { columns, rows: vec![heading] }
    }

    /// Names and values without headings.
    pub(crate) fn of_fields() -> Self {
        Self::of_columns(2)
    }

    /// A table without headings.
    pub(crate) fn of_columns(count: usize) -> Self {
        Self { columns: vec![Column { right: false }; count], rows: Vec::new() }
    }

    /// Adds a row with a cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Adds a name and its value.
    pub(crate) fn field(&mut self, name: &str, value: impl Into<Cell>) {
        self.row(vec![Cell::new(Style::Faint, name), value.into()]);
    }

    /// The table as lines, each ended.
    pub(crate) fn render(&self, palette: Palette) -> String {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|index| self.rows.iter().map(|row| row.get(index).map_or(0, Cell::width)).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(&widths) {
                let gap = " ".repeat(width - cell.width());
                let painted = palette.paint(cell.style, &cell.text);
                line.push_str(&if column.right { gap + &painted } else { painted + &gap });
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The first line of a part of what is shown, after an empty one.
pub(crate) fn heading(title: &str, text: &str, palette: Palette) -> String {
    format!("\n{}  {text}\n", palette.paint(Style::Strong, title))
}

/// A horizontal bar of `width` columns of which `share` (0 to 1) is filled, to an eighth of a column.
pub(crate) fn bar(share: f64, width: u16) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 8 × 65535")]
    let eighths = (share * f64::from(width) * 8.0).round() as usize;
    "█".repeat(eighths / 8) + PARTS[eighths % 8]
}

/// `text` with its control characters escaped, except for the tab.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(|c: char| c.is_control() && c != '\t') {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().map(|c| if c.is_control() && c != '\t' { c.escape_debug().to_string() } else { c.to_string() });
    Cow::Owned(escaped.collect())
}

/// A size as people read it.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// A latency as people read it.
pub(crate) fn latency(ms: f64) -> String {
    if ms <= 0.0 {
        "0 ms".to_owned()
    } else if ms < 1.0 {
        format!("{:.0} µs", ms * 1000.0)
    } else if ms < 1000.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{:.2} s", ms / 1000.0)
    }
}

/// A long time as people read it.
pub(crate) fn uptime(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days} d {hours} h")
    } else if hours > 0 {
        format!("{hours} h {minutes} min")
    } else if minutes > 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else {
        format!("{seconds} s")
    }
}

/// Shows how much of an upload is done; nothing when standard error is no terminal.
pub(crate) fn upload_bar(total_bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("uploading {bar:30} {bytes} of {total_bytes} ({bytes_per_sec})");
    ProgressBar::new(total_bytes).with_style(style.expect("the template is valid"))
}

/// Shows how much of a backup is copied; nothing when standard error is no terminal. It goes when it is dropped.
pub(crate) struct CopyBar(ProgressBar);

impl CopyBar {
    /// Nothing is copied yet.
    pub(crate) fn new() -> Self {
        let style = ProgressStyle::with_template("copying {msg} {bar:30} {bytes} of {total_bytes} ({bytes_per_sec})");
        Self(ProgressBar::new(0).with_style(style.expect("the template is valid")))
    }

    /// This much is.
    pub(crate) fn show(&self, progress: Progress) {
        self.0.set_message(match progress.step {
            Step::Documents => "documents",
            Step::Topics => "topics",
            Step::Artifacts => "artifacts",
        });
        self.0.set_length(progress.total_bytes);
        self.0.set_position(progress.done_bytes);
    }
}

impl Drop for CopyBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Shows that something is under way; nothing when standard error is no terminal.
pub(crate) fn spinner(what: &'static str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    spin(&spinner, what);
    spinner
}

/// Makes a bar that is full a spinner for what comes next.
pub(crate) fn spin(bar: &ProgressBar, what: &'static str) {
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
    bar.set_style(style.expect("the template is valid"));
    bar.set_message(what);
    bar.reset_elapsed();
    bar.enable_steady_tick(Duration::from_millis(100));
}

/// Writes to standard output, at once.
pub(crate) fn write(bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes.as_ref())?;
    stdout.flush()
}

/// Tells people something beside the output, on a line of standard error; nothing when that is no terminal.
pub(crate) fn note(text: &str) {
    let palette = Palette::stderr();
    if io::stderr().is_terminal() {
        // Nobody is left to tell when it is closed.
        let _ = writeln!(io::stderr(), "{}", palette.paint(Style::Faint, &printable(text)));
    }
}

/// Writes JSON to standard output, on a line that is ended.
pub(crate) fn write_json(json: &[u8]) -> io::Result<()> {
    write([json.trim_ascii_end(), b"\n"].concat())
}

/// Whether the reader of standard output went away. Errors of the network lie deeper, below a client error.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_its_columns_by_what_a_terminal_shows() {
        let mut table = Table::new(&["ID", ">MEMORY", "NAME"]);
        table.row(vec!["a".into(), "128".into(), "温度".into()]);
        table.row(vec!["longer".into(), "4096".into(), "".into()]);
        table.row(vec!["温度".into(), "1".into(), "x".into()]);
        assert_eq!(table.render(Palette::plain()), "ID      MEMORY  NAME\na          128  温度\nlonger    4096\n温度         1  x\n");
    }

    #[test]
    fn colour_does_not_change_the_alignment() {
        let mut table = Table::of_fields();
        table.field("state", Cell::new(Style::Good, "ready"));
        assert_eq!(table.render(Palette::plain()), "state  ready\n");
        assert_eq!(table.render(Palette { on: true }), "\x1b[2mstate\x1b[0m  \x1b[32mready\x1b[0m\n");
    }

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(printable("plain ü\t"), "plain ü\t");
        assert_eq!(printable("\x1b[2Ja\r\n\u{9b}1m"), "\\u{1b}[2Ja\\r\\n\\u{9b}1m");
        assert_eq!(Cell::from("\x1b[31m").text, "\\u{1b}[31m");
    }

    #[test]
    fn a_bar_fills_by_eighths_and_never_past_its_width() {
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(0.03125, 4), "▏");
        assert_eq!(bar(7.0, 2), "██");
        assert_eq!((bar(-1.0, 4), bar(f64::NAN, 4)), (String::new(), String::new()));
    }

    #[test]
    fn quantities_are_shown_in_a_unit_that_fits() {
        assert_eq!((size(1023), size(1024), size(18 << 20)), ("1023 B".to_owned(), "1.0 KiB".to_owned(), "18.0 MiB".to_owned()));
        assert_eq!([0.0, 0.0154, 2.5, 30_000.0].map(latency), ["0 ms", "15 µs", "2.50 ms", "30.00 s"]);
        let shown = [5, 65, 3660, 90_000].map(|seconds| uptime(Duration::from_secs(seconds)));
        assert_eq!(shown, ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
    }
}
