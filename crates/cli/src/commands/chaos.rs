//! `edgeward chaos`: experiments that make parts of a fleet fail, and tell what came of it.

use std::time::Duration;

use edgeward::{
    DocumentName, EdgeError, ExperimentView, FunctionId,
    chaos::{Experiment, Phase, Report, Scenario, Verdict},
    limits::EXPERIMENT_BYTES_MAX,
};
use http::{HeaderValue, Method, header};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio::time::sleep;

use crate::{
    client::{Client, Request, escaped},
    exit::Exit,
    input::Input,
    terminal::{self, Cell, Palette, Style, Table, printable},
};

/// Time between two looks at an experiment.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the faults of an experiment to end.
const STOP_TIMEOUT: Duration = Duration::from_mins(1);

const EXAMPLES: &str = "\
Examples:
  edgeward chaos scenarios
  edgeward chaos scenarios node-failure --function resize > experiment.toml
  edgeward chaos run experiment.toml
  edgeward chaos run --scenario partition --function resize --document prices
  edgeward chaos run experiment.toml --detach
  edgeward chaos list
  edgeward chaos show slow-berlin:3          # its report, with a chart
  edgeward chaos stop slow-berlin:3

The hub, and every node that may be hit, must have been started with `--allow-chaos`. Every fault ends by itself, also when nobody is left to end it.
`run` ends with 0 when every hypothesis held, with 16 when one did not, and with 17 when the experiment does not tell.";

/// Make parts of a fleet fail for a while, and see what comes of it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Run an experiment and show its report
    Run {
        /// The file of the experiment; `-` reads it from standard input
        #[arg(required_unless_present = "scenario", conflicts_with = "scenario")]
        file: Option<String>,
        /// A ready-made experiment in place of a file
        #[arg(long, value_name = "NAME", requires = "function")]
        scenario: Option<Scenario>,
        /// The function that a ready-made experiment calls
        #[arg(long, value_name = "ID", requires = "scenario")]
        function: Option<FunctionId>,
        /// The document that it compares, where it does
        #[arg(long, value_name = "NAME", requires = "scenario")]
        document: Option<DocumentName>,
        /// Return as soon as it has begun
        #[arg(long)]
        detach: bool,
    },
    /// List the ready-made experiments, or print the file of one
    Scenarios {
        /// The one to print
        scenario: Option<Scenario>,
        /// The function that it calls
        #[arg(long, value_name = "ID", default_value = "FUNCTION", requires = "scenario")]
        function: FunctionId,
        /// The document that it compares
        #[arg(long, value_name = "NAME", default_value = "DOCUMENT", requires = "scenario")]
        document: DocumentName,
        /// How many nodes there are
        #[arg(long, value_name = "N", default_value_t = 3, requires = "scenario")]
        nodes: usize,
    },
    /// List the experiments, the newest first
    List,
    /// Show the report of an experiment
    Show {
        /// The run, as `list` shows it
        id: String,
    },
    /// End an experiment before its time
    Stop {
        /// The run, as `list` shows it
        id: String,
    },
}

#[derive(Debug, Deserialize)]
struct Experiments {
    experiments: Vec<ExperimentView>,
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<Exit> {
    match args.action {
        Action::Run { file, scenario, function, document, detach } => {
            let request = match (file, scenario, function) {
                (Some(file), ..) => of_file(&file)?,
                (None, Some(scenario), Some(function)) => {
                    let document = document.map(|document| format!("&document={document}")).unwrap_or_default();
                    Request::new(Method::POST, format!("/v1/chaos/experiments?scenario={scenario}&function={function}{document}"))
                }
                _ => unreachable!("clap asks for a file, or for a scenario with its function"),
            };
            return begin(request, detach, client, json).await;
        }
        Action::Scenarios { scenario: Some(scenario), function, document, nodes } => {
            terminal::write(scenario.text(&function, &document, nodes))?;
        }
        Action::Scenarios { scenario: None, .. } => scenarios(json)?,
        Action::List => {
            let answer = client.get("/v1/chaos/experiments").await?.json().await?;
            if json {
                terminal::write_json(answer.bytes())?;
            } else {
                let Experiments { experiments } = answer.read()?;
                terminal::write(table(&experiments, Palette::stdout()))?;
            }
        }
        Action::Show { id } => report(&id, client, json).await.map(drop)?,
        Action::Stop { id } => {
            let request = Request::new(Method::POST, format!("/v1/chaos/experiments/{}/stop", escaped(&id))).answer_timeout(STOP_TIMEOUT);
            let answer = client.send(request).await?.json().await?;
            if json {
                terminal::write_json(answer.bytes())?;
            } else {
                let view: ExperimentView = answer.read()?;
                terminal::write(table(&[view], Palette::stdout()))?;
            }
        }
    }
    Ok(Exit::Success)
}

fn of_file(file: &str) -> anyhow::Result<Request> {
    let bytes = Input::of_path(file)?.read(EXPERIMENT_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| EdgeError::invalid(format!("`{file}` is not text")))?;
    // Read here as well, so that a message names the file and its line.
    Experiment::read(file, text)?;
    Ok(Request::new(Method::POST, "/v1/chaos/experiments")
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/toml"))
        .payload(bytes))
}

/// Begins an experiment, shows how it gets on, and then its report.
async fn begin(request: Request, detach: bool, client: &Client, json: bool) -> anyhow::Result<Exit> {
    let answer = client.send(request).await?.json().await?;
    let view: ExperimentView = answer.read()?;
    if detach {
        if json {
            terminal::write_json(answer.bytes())?;
        } else {
            terminal::write(format!("experiment {id} has begun; `edgeward chaos show {id}` shows it\n", id = view.id))?;
        }
        return Ok(Exit::Success);
    }
    terminal::note(&format!(
        "experiment {id} has begun; it runs on without this command, `edgeward chaos stop {id}` ends it",
        id = view.id
    ));
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} s  {msg}").expect("the template is valid");
    let progress = ProgressBar::new(view.total_seconds).with_style(style);
    let ended = follow(view, &progress, client).await;
    progress.finish_and_clear();
    Ok(exit_of(report(&ended?.id, client, json).await?.verdict))
}

async fn follow(mut view: ExperimentView, progress: &ProgressBar, client: &Client) -> anyhow::Result<ExperimentView> {
    let mut told = String::new();
    while view.phase != Phase::Ended {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
        progress.set_position(view.took_seconds as u64);
        progress.set_message(seen(&view));
        let now = doing(&view);
        if now != told {
            progress.suspend(|| terminal::note(&now));
            told = now;
        }
        sleep(LOOK_EVERY).await;
        view = client.get(format!("/v1/chaos/experiments/{}", escaped(&view.id))).await?.json().await?.read()?;
    }
    Ok(view)
}

/// What it does, in words.
fn doing(view: &ExperimentView) -> String {
    match view.phase {
        Phase::Before => "before the faults".to_owned(),
        Phase::Faults if view.injected.is_empty() => "no fault is injected".to_owned(),
        Phase::Faults => format!("injected: {}", view.injected.join("; ")),
        Phase::After => "after the faults".to_owned(),
        Phase::Ended => "over".to_owned(),
    }
}

/// What was seen last, in words.
fn seen(view: &ExperimentView) -> String {
    let Some(last) = &view.last else { return String::new() };
    let mut seen = vec![format!("{} nodes online", last.nodes_online)];
    seen.extend(last.success_percent.iter().map(|(function, percent)| {
        let p95 = last.p95_ms.get(function).map(|p95| format!(", p95 {}", terminal::latency(*p95))).unwrap_or_default();
        format!("{function} {percent:.1}%{p95}")
    }));
    seen.join("  ")
}

/// Shows the report of an experiment.
async fn report(id: &str, client: &Client, json: bool) -> anyhow::Result<Report> {
    let answer = client.get(format!("/v1/chaos/experiments/{}/report", escaped(id))).await?.json().await?;
    let report: Report = answer.read()?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        terminal::write(report.to_markdown())?;
    }
    Ok(report)
}

fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Held => Exit::Success,
        Verdict::Broken => Exit::Broken,
        Verdict::NotSteady | Verdict::Aborted | Verdict::Inconclusive | Verdict::Running => Exit::Inconclusive,
    }
}

fn scenarios(json: bool) -> anyhow::Result<()> {
    if json {
        let scenarios: Vec<_> = Scenario::ALL
            .into_iter()
            .map(|scenario| {
                serde_json::json!({ "name": scenario.as_str(), "description": scenario.description(), "experiment": scenario.template() })
            })
            .collect();
        return Ok(terminal::write_json(serde_json::json!({ "scenarios": scenarios }).to_string().as_bytes())?);
    }
    let mut table = Table::new(&["SCENARIO", "WHAT HAPPENS"]);
    for scenario in Scenario::ALL {
        table.row(vec![Cell::new(Style::Strong, scenario.as_str()), scenario.description().as_str().into()]);
    }
    Ok(terminal::write(table.render(Palette::stdout()))?)
}

fn style_of(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Held => Style::Good,
        Verdict::Broken => Style::Error,
        Verdict::NotSteady | Verdict::Aborted | Verdict::Inconclusive | Verdict::Running => Style::Warning,
    }
}

fn table(experiments: &[ExperimentView], palette: Palette) -> String {
    if experiments.is_empty() {
        return "there were no experiments; `edgeward chaos run --scenario node-failure --function ID` runs one\n".to_owned();
    }
    let mut table = Table::new(&["ID", "STARTED", ">TOOK", "VERDICT", "WHY"]);
    for view in experiments {
        let verdict = match view.verdict {
            Some(verdict) => Cell::new(style_of(verdict), verdict.as_str()),
            None => Cell::new(Style::Strong, "runs"),
        };
        // Of one whose hub ended with it nobody knows.
        let took =
            if view.verdict.is_some() && view.took_seconds == 0.0 { "–".to_owned() } else { format!("{:.0} s", view.took_seconds) };
        let why = if view.verdict.is_some() { view.reason.clone() } else { doing(view) };
        table.row(vec![
            Cell::new(Style::Strong, &view.id),
            format!("{:.0}", view.started_at).into(),
            took.into(),
            verdict,
            printable(&why).as_ref().into(),
        ]);
    }
    table.render(palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_experiment_is_shown_with_what_came_of_it_or_what_it_does() {
        let view: ExperimentView = serde_json::from_value(serde_json::json!({
            "id": "slow:2", "name": "slow", "description": "", "phase": "faults", "started_at": "2026-01-02T03:04:05Z", "took_seconds": 12.3,
            "total_seconds": 70, "verdict": null, "reason": "", "injected": ["crash on edge-02"],
            "last": { "at_seconds": 12.0, "nodes_online": 2, "success_percent": { "f": 99.5 }, "p95_ms": { "f": 12.0 } }
        }))
        .expect("a view of the API");
        let text = table(std::slice::from_ref(&view), Palette::plain());
        for part in ["slow:2", "runs", "12 s", "injected: crash on edge-02"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(seen(&view), "2 nodes online  f 99.5%, p95 12.00 ms");
        let over = ExperimentView { phase: Phase::Ended, verdict: Some(Verdict::Broken), reason: "it was so".to_owned(), ..view };
        let text = table(&[over], Palette::plain());
        assert!(text.contains("broken") && text.contains("it was so"), "{text}");
    }

    #[test]
    fn only_what_held_is_a_success() {
        assert_eq!(exit_of(Verdict::Held), Exit::Success);
        for other in [Verdict::Broken, Verdict::NotSteady, Verdict::Aborted, Verdict::Inconclusive] {
            assert_ne!(exit_of(other), Exit::Success, "{other}");
        }
    }
}
