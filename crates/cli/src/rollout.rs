//! A rollout as people see it, and as they wait for it.

use std::time::Duration;

use edgeward::{
    EdgeError, ErrorKind,
    cluster::rollout::{Approval, Phase, RolloutState},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio::time::sleep;

use crate::{
    client::{Client, Json},
    terminal::{self, Cell, Palette, Style, Table, bar, printable},
};

/// Time between two looks at a rollout.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Cells of the bar of a wave.
const BAR_CELLS: u16 = 24;

/// A rollout, as the API answers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct RolloutRecord {
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) rollout: edgeward::cluster::rollout::Rollout,
    #[serde(default)]
    pub(crate) waves: Vec<Wave>,
}

/// The nodes of one wave.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Wave {
    pub(crate) number: usize,
    pub(crate) of: String,
    pub(crate) nodes: edgeward::deployments::NodeCounts,
}

impl RolloutRecord {
    /// The wave that it has come to, or the last one before that which has nodes, and the last one of all.
    fn present_wave(&self) -> Option<(&Wave, &Wave)> {
        let wave = self.waves.iter().rev().find(|wave| wave.number <= self.rollout.wave).or_else(|| self.waves.first())?;
        Some((wave, self.waves.last()?))
    }
}

/// How a state stands out.
pub(crate) fn state_style(state: RolloutState) -> Style {
    match state {
        RolloutState::Completed => Style::Good,
        RolloutState::Pending | RolloutState::InProgress => Style::Strong,
        RolloutState::Paused => Style::Warning,
        RolloutState::RolledBack | RolloutState::Failed => Style::Error,
    }
}

/// What a rollout does, in words.
pub(crate) fn doing(rollout: &edgeward::cluster::rollout::Rollout) -> String {
    match (rollout.state, rollout.phase, rollout.approval) {
        (RolloutState::InProgress, Phase::Restoring, _) => "goes back".to_owned(),
        (RolloutState::InProgress, _, Approval::Awaited) => "awaits approval".to_owned(),
        (RolloutState::InProgress, Phase::Preparing, _) => "prepares".to_owned(),
        (state, ..) => state.as_str().replace('_', " "),
    }
}

/// A rollout with a line for each wave.
pub(crate) fn shown(record: &RolloutRecord, palette: Palette) -> String {
    let rollout = &record.rollout;
    let mut fields = Table::of_fields();
    fields.field("rollout", Cell::new(Style::Strong, &record.id));
    let from = rollout.from.map_or_else(|| "nothing".to_owned(), |from| format!("revision {from}"));
    fields.field("function", format!("{}, from {from} to revision {}", rollout.function, rollout.to));
    fields.field("state", Cell::new(state_style(rollout.state), &doing(rollout)));
    if !rollout.reason.is_empty() {
        fields.field("why", printable(&rollout.reason).as_ref());
    }
    fields.field("started", format!("{:.0}", rollout.started_at));
    if let Some(ended_at) = rollout.ended_at {
        fields.field("ended", format!("{ended_at:.0}"));
    }
    for (node, why) in &rollout.refused {
        fields.field("refused", format!("{node}: {}", printable(why)));
    }
    let mut text = fields.render(palette);
    if !record.waves.is_empty() {
        text.push('\n');
        text.push_str(&waves(record, palette));
    }
    text
}

fn waves(record: &RolloutRecord, palette: Palette) -> String {
    let mut table = Table::new(&["WAVE", "NODES", ">READY", ">ON THE WAY", ">FAILED", ">AWAY"]);
    for wave in &record.waves {
        let nodes = wave.nodes;
        let share = if nodes.wanted == 0 { 0.0 } else { nodes.ready as f64 / nodes.wanted as f64 };
        let failed = Cell::new(if nodes.failed > 0 { Style::Error } else { Style::Plain }, &nodes.failed.to_string());
        table.row(vec![
            format!("{} {}", wave.number + 1, printable(&wave.of)).into(),
            format!("{} {}", bar(share, BAR_CELLS), nodes.wanted).into(),
            nodes.ready.to_string().into(),
            nodes.updated.saturating_sub(nodes.ready + nodes.failed).to_string().into(),
            failed,
            nodes.pending.to_string().into(),
        ]);
    }
    table.render(palette)
}

/// Waits until the rollout of this generation of a function has ended, and shows how it gets on where somebody looks. Returns it as the API answered.
pub(crate) async fn follow(client: &Client, function: &str, generation: u64) -> anyhow::Result<(RolloutRecord, Json)> {
    let progress = ProgressBar::new(0);
    progress.set_style(ProgressStyle::with_template("{spinner} {msg} {bar:24} {pos} of {len} ({elapsed})").expect("the template is valid"));
    progress.enable_steady_tick(Duration::from_millis(100));
    let ended = wait(client, function, generation, &progress).await;
    progress.finish_and_clear();
    ended
}

async fn wait(client: &Client, function: &str, generation: u64, progress: &ProgressBar) -> anyhow::Result<(RolloutRecord, Json)> {
    let mut told = String::new();
    loop {
        let answer = client.get(format!("/v1/rollouts/{function}")).await?.json().await?;
        let record: RolloutRecord = answer.read()?;
        if record.rollout.generation > generation {
            let message = format!("the rollout of generation {generation} of function `{function}` was superseded by {}", record.id);
            return Err(EdgeError::new(ErrorKind::Conflict, message).into());
        }
        let rollout = &record.rollout;
        if rollout.generation == generation {
            if let Some((wave, last)) = record.present_wave() {
                progress.set_length(wave.nodes.wanted as u64);
                progress.set_position(wave.nodes.ready as u64);
                progress.set_message(format!("{}: wave {} of {}, {}", record.id, wave.number + 1, last.number + 1, doing(rollout)));
            }
            let line =
                format!("{}{}", doing(rollout), if rollout.reason.is_empty() { String::new() } else { format!(": {}", rollout.reason) });
            if line != told {
                progress.suspend(|| terminal::note(&line));
                told = line;
            }
            let needs_somebody = rollout.state == RolloutState::Paused || rollout.approval == Approval::Awaited;
            if rollout.state.is_over() || needs_somebody {
                return Ok((record, answer));
            }
        } else {
            progress.set_message(format!("{function}: the rollout before it goes back"));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What the state of a rollout means for who waited for it: an error unless the nodes run the revision, or somebody has to decide.
pub(crate) fn outcome(record: &RolloutRecord) -> Result<(), EdgeError> {
    let rollout = &record.rollout;
    let to = rollout.to;
    let why = &rollout.reason;
    match rollout.state {
        RolloutState::RolledBack => Err(EdgeError::new(
            ErrorKind::ExecutionFailed,
            format!("rollout `{}` was rolled back, and revision {to} serves nowhere: {why}", record.id),
        )),
        RolloutState::Failed => Err(EdgeError::new(ErrorKind::ExecutionFailed, format!("rollout `{}` failed: {why}", record.id))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: &str) -> RolloutRecord {
        serde_json::from_str(&format!(
            r#"{{"id": "f:7", "function": "f", "generation": 7, "from": 1, "to": 2, "state": "{state}", "phase": "updating", "wave": 0, "allowed": 1,
                "reason": "3 of 9 invocations failed", "started_at": "2026-01-02T03:04:05Z", "progressed_at": "2026-01-02T03:04:05Z",
                "waves": [{{"number": 0, "of": "site=a", "nodes": {{"wanted": 4, "updated": 3, "ready": 2, "failed": 1, "pending": 1}}}}]}}"#
        ))
        .expect("a rollout of the API")
    }

    #[test]
    fn a_rollout_is_shown_with_its_waves() {
        let text = shown(&record("in_progress"), Palette::plain());
        for part in ["f:7", "from revision 1 to revision 2", "in progress", "3 of 9 invocations failed", "1 site=a", "████████████"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_present_wave_is_found_though_waves_without_nodes_are_left_out() {
        let mut record = record("in_progress");
        record.waves[0].number = 1;
        record.waves.push(Wave { number: 3, of: "the rest".to_owned(), ..record.waves[0].clone() });
        for (at, present) in [(0, 1), (1, 1), (2, 1), (3, 3)] {
            record.rollout.wave = at;
            assert_eq!(record.present_wave().map(|(wave, last)| (wave.number, last.number)), Some((present, 3)));
        }
        let text = shown(&record, Palette::plain());
        assert!(text.contains("2 site=a") && text.contains("4 the rest"), "{text}");
    }

    #[test]
    fn who_waited_learns_by_the_error_that_it_went_back() {
        assert!(outcome(&record("completed")).is_ok() && outcome(&record("paused")).is_ok());
        let error = outcome(&record("rolled_back")).expect_err("it went back");
        assert_eq!(error.to_string(), "rollout `f:7` was rolled back, and revision 2 serves nowhere: 3 of 9 invocations failed");
        assert!(outcome(&record("failed")).is_err());
    }
}
