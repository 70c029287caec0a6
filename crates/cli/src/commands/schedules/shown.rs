//! Schedules and their runs as people see them.

use std::time::Duration;

use edgeward::{
    NodeId, ScheduleHistory, Source,
    cluster::schedule::{Outcome, Run, Totals},
};
use jiff::{SignedDuration, Timestamp};

use super::ScheduleRecord;
use crate::terminal::{Cell, Palette, Style, Table, latency, printable, uptime};

/// Bytes of a payload that are shown.
const PAYLOAD_SHOWN_CHARS: usize = 200;

/// How an outcome stands out.
fn style(outcome: Outcome) -> Style {
    match outcome {
        Outcome::Succeeded => Style::Good,
        Outcome::Failed => Style::Error,
        Outcome::Interrupted | Outcome::Missed => Style::Warning,
        Outcome::Skipped => Style::Faint,
    }
}

/// When something is due, seen from now.
fn due(record: &ScheduleRecord, now: Timestamp) -> Cell {
    match record.next_due_at {
        Some(at) => format!("in {}", between(now, at)).into(),
        None if record.enabled => "never again".into(),
        None => Cell::new(Style::Warning, "off"),
    }
}

fn between(from: Timestamp, to: Timestamp) -> String {
    uptime(Duration::try_from(to.duration_since(from).max(SignedDuration::ZERO)).unwrap_or_default())
}

fn times(record: &ScheduleRecord) -> String {
    match record.zone.name() {
        "UTC" => record.when.to_string(),
        zone => format!("{} {zone}", record.when),
    }
}

/// A line for each schedule.
pub(super) fn table(schedules: &[ScheduleRecord], now: Timestamp, palette: Palette) -> String {
    if schedules.is_empty() {
        return "nothing runs by itself; `edgeward schedules put beat hello --every 30s` has a function do so\n".to_owned();
    }
    if schedules.iter().any(|record| record.nodes.is_some()) {
        let mut table = Table::new(&["ID", "FUNCTION", "WHEN", "NEXT", "TARGET", "NODES"]);
        for record in schedules {
            let nodes = record.nodes.as_deref().unwrap_or_default();
            table.row(vec![
                Cell::new(Style::Strong, record.id.as_str()),
                record.function.as_str().into(),
                times(record).into(),
                due(record, now),
                record.target.to_string().into(),
                Cell::of_nodes(nodes),
            ]);
        }
        return table.render(palette);
    }
    let mut table = Table::new(&["ID", "FUNCTION", "WHEN", "NEXT", "LAST", ">SUCCEEDED", ">FAILED", ">OTHER"]);
    for record in schedules {
        let Totals { succeeded, failed, interrupted, skipped, missed } = record.totals;
        let last = match (&record.running, &record.last) {
            (Some(_), _) => Cell::new(Style::Note, "running"),
            (None, Some(last)) => Cell::new(style(last.outcome), last.outcome.as_str()),
            (None, None) => "-".into(),
        };
        table.row(vec![
            Cell::new(Style::Strong, record.id.as_str()),
            record.function.as_str().into(),
            times(record).into(),
            due(record, now),
            last,
            succeeded.to_string().into(),
            Cell::new(if failed > 0 { Style::Error } else { Style::Plain }, &failed.to_string()),
            (interrupted + skipped + missed).to_string().into(),
        ]);
    }
    table.render(palette)
}

/// What was put, in a line.
pub(super) fn put(record: &ScheduleRecord, palette: Palette) -> String {
    let next = match record.next_due_at {
        Some(at) => format!("next {at:.0}"),
        None => "off".to_owned(),
    };
    format!("schedule {}  {} at `{}`, {next}\n", palette.paint(Style::Strong, record.id.as_str()), record.function, times(record))
}

/// All of one.
pub(super) fn fields(record: &ScheduleRecord, palette: Palette) -> String {
    let mut table = Table::of_fields();
    table.field("schedule", Cell::new(Style::Strong, record.id.as_str()));
    table.field("function", record.function.as_str());
    table.field("when", record.when.to_string());
    table.field("zone", record.zone.name());
    match record.next_due_at {
        Some(at) => table.field("next", format!("{at:.0}")),
        None if record.enabled => table.field("next", "never again"),
        None => table.field("next", Cell::new(Style::Warning, "off")),
    }
    if let Some(nodes) = &record.nodes {
        table.field("target", record.target.to_string());
        let all: Vec<_> = nodes.iter().map(NodeId::as_str).collect();
        table.field("nodes", if all.is_empty() { "none yet".to_owned() } else { all.join(", ") });
    }
    if record.source == Some(Source::Fleet) {
        table.field("wanted by", "the hub of its fleet");
    }
    if !record.payload.is_empty() {
        let mut shown: String = record.payload.chars().take(PAYLOAD_SHOWN_CHARS).collect();
        if shown.len() < record.payload.len() {
            shown.push('…');
        }
        table.field("data", format!("{} ({})", printable(&shown), printable(&record.content_type)));
    }
    table.field("catch-up", record.catch_up.to_string());
    if record.jitter_seconds > 0 {
        table.field("jitter", format!("{} s", record.jitter_seconds));
    }
    table.field("attempts", record.attempts.to_string());
    if let Some(seconds) = record.timeout_seconds {
        table.field("timeout", format!("{seconds} s"));
    }
    if let Some(at) = record.starts_at {
        table.field("starts", format!("{at:.0}"));
    }
    if let Some(at) = record.ends_at {
        table.field("ends", format!("{at:.0}"));
    }
    table.field("generation", record.generation.to_string());
    if let Some(run) = &record.running {
        table.field("running", Cell::new(Style::Note, &format!("since {:.0}, try {}", run.started_at, run.attempt)));
    }
    if record.waiting > 0 {
        table.field("waiting", format!("{} due times are made up for", record.waiting));
    }
    if record.source.is_some() {
        if let Some(last) = &record.last {
            table.field("last", Cell::new(style(last.outcome), &format!("{} at {:.0}", last.outcome, last.due_at)));
        }
        table.field("runs", totals(record.totals));
    }
    table.render(palette)
}

fn totals(totals: Totals) -> String {
    let told = Outcome::ALL.into_iter().filter(|outcome| totals.of(*outcome) > 0);
    let told: Vec<_> = told.map(|outcome| format!("{} {outcome}", totals.of(outcome))).collect();
    if told.is_empty() { "none yet".to_owned() } else { told.join(", ") }
}

/// A line for each run.
pub(super) fn history(ScheduleHistory { runs, totals: all }: &ScheduleHistory, palette: Palette) -> String {
    let mut text = String::new();
    if !runs.is_empty() {
        let mut table = Table::new(&["DUE", "OUTCOME", ">TRY", ">TOOK", "WHY"]);
        for run in runs {
            let times = if run.count > 1 { format!("{} ×{}", run.outcome, run.count) } else { run.outcome.to_string() };
            table.row(vec![
                format!("{:.0}", run.due_at).into(),
                Cell::new(style(run.outcome), &times),
                if run.attempt == 0 { "-".into() } else { run.attempt.to_string().into() },
                took(run).into(),
                printable(&run.message).as_ref().into(),
            ]);
        }
        text.push_str(&table.render(palette));
        text.push('\n');
    }
    text.push_str(&format!("in all: {}\n", totals(*all)));
    text
}

fn took(run: &Run) -> String {
    match (run.started_at, run.ended_at) {
        (Some(started_at), Some(ended_at)) => latency(ended_at.duration_since(started_at).as_millis_f64()),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON_NODE: &str = r#"{"id":"nightly","function":"report","when":"30 2 * * *","zone":"Europe/Berlin","target":"one","content_type":"text/plain",
        "payload":"a\u001bb","catch_up":"once","attempts":3,"enabled":true,"generation":4,"source":"fleet","next_due_at":"2026-01-02T01:30:00Z",
        "running":null,"waiting":2,"last":{"due_at":"2026-01-01T01:30:00Z","count":1,"attempt":1,"outcome":"failed","message":"no"},
        "totals":{"succeeded":5,"failed":1,"interrupted":0,"skipped":1,"missed":2}}"#;
    const ON_HUB: &str = r#"{"id":"beat","function":"hello","when":"every 30s","zone":"UTC","target":"site=berlin","content_type":"application/json",
        "catch_up":"skip","attempts":1,"enabled":false,"generation":1,"next_due_at":null,"nodes":["a","b","c","d"]}"#;

    fn of(json: &str) -> ScheduleRecord {
        serde_json::from_str(json).expect("a schedule of the API")
    }

    #[test]
    fn a_schedule_of_a_node_is_a_line_with_its_next_time_and_its_outcomes() {
        let now = "2026-01-02T01:00:00Z".parse().expect("a time");
        let text = table(&[of(ON_NODE)], now, Palette::plain());
        for part in ["nightly", "30 2 * * * Europe/Berlin", "in 30 min 0 s", "failed", "         5       1      3"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(table(&[], now, Palette::plain()).contains("schedules put"));
    }

    #[test]
    fn a_schedule_of_a_hub_is_a_line_with_its_nodes() {
        let text = table(&[of(ON_HUB)], Timestamp::UNIX_EPOCH, Palette::plain());
        for part in ["beat", "every 30s", "off", "site=berlin", "4 (a, b, c, …)"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let text = fields(&of(ON_HUB), Palette::plain());
        assert!(text.contains("a, b, c, d") && text.contains("site=berlin"), "{text}");
    }

    #[test]
    fn one_schedule_is_shown_with_how_it_stands_and_cannot_steer_the_terminal() {
        let text = fields(&of(ON_NODE), Palette::plain());
        for part in [
            "a\\u{1b}b (text/plain)",
            "the hub of its fleet",
            "2 due times",
            "failed at 2026-01-01T01:30:00Z",
            "5 succeeded, 1 failed, 1 skipped, 2 missed",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn runs_are_lines_and_times_without_one_are_counted() {
        let told: ScheduleHistory = serde_json::from_str(
            r#"{"runs":[{"due_at":"2026-01-02T01:30:00Z","count":1,"attempt":2,"started_at":"2026-01-02T01:30:00Z","ended_at":"2026-01-02T01:30:00.25Z",
                "outcome":"succeeded"},{"due_at":"2026-01-01T01:30:00Z","count":7,"attempt":0,"outcome":"missed","message":"the node was not there"}],
                "totals":{"succeeded":1,"failed":0,"interrupted":0,"skipped":0,"missed":7}}"#,
        )
        .expect("a history of the API");
        let text = history(&told, Palette::plain());
        for part in ["250.00 ms", "missed ×7", "the node was not there", "in all: 1 succeeded, 7 missed"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(history(&ScheduleHistory::default(), Palette::plain()), "in all: none yet\n");
    }
}
