//! `edgeward deployments`: what should run where in a fleet.

use edgeward::{EdgeFunction, FunctionId, NodeId, StrategyKind, deployments::NodeCounts};
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    client::{Client, Request},
    resilience,
    rollout::{self, RolloutRecord, doing, state_style},
    terminal::{self, Cell, Palette, Style, Table, bar, printable},
};

const EXAMPLES: &str = "\
Examples:
  edgeward deploy hello.wasm --id hello --to site=berlin --strategy canary
  edgeward deployments
  edgeward deployments show hello
  edgeward deployments diff hello --from 2 --to 3
  edgeward deployments rebalance --moves 10
  edgeward deployments remove hello

A deployment says which revision of a function runs on which nodes. Its rollout brings each new revision there; `edgeward rollouts` shows how.";

/// List the deployments of a fleet, show, compare or remove one
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the deployments
    List,
    /// Show a deployment with its revisions and its rollout
    Show {
        /// The function
        id: FunctionId,
    },
    /// Show in what two revisions differ
    Diff {
        /// The function
        id: FunctionId,
        /// The one revision [default: the one before]
        #[arg(long, value_name = "N")]
        from: Option<u64>,
        /// The other [default: the one that is wanted]
        #[arg(long, value_name = "N")]
        to: Option<u64>,
    },
    /// Move functions with a number of nodes from nodes with many functions to nodes with few
    Rebalance {
        /// Moves, at most
        #[arg(long, value_name = "N", default_value_t = 100)]
        moves: usize,
    },
    /// Remove a deployment: its function is taken from every node
    Remove {
        /// The function
        id: FunctionId,
    },
}

#[derive(Debug, Deserialize)]
struct Deployments {
    deployments: Vec<DeploymentRecord>,
}

/// A deployment, as the API answers.
#[derive(Debug, Deserialize)]
pub(crate) struct DeploymentRecord {
    pub(crate) function: FunctionId,
    pub(crate) generation: u64,
    pub(crate) observed_generation: u64,
    pub(crate) revision: u64,
    #[serde(default)]
    serving: u64,
    target: String,
    strategy: Kind,
    #[serde(default)]
    missing: String,
    #[serde(default)]
    lease: Option<NodeId>,
    updated_at: Timestamp,
    rollout: edgeward::cluster::rollout::Rollout,
    definition: EdgeFunction,
    nodes: NodeCounts,
    #[serde(default)]
    revisions: Vec<edgeward::Revision>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    #[serde(default)]
    kind: StrategyKind,
}

#[derive(Debug, Deserialize)]
struct Diff {
    from: u64,
    to: u64,
    differences: Vec<edgeward::deployments::Difference>,
}

#[derive(Debug, Deserialize)]
struct Moves {
    moves: Vec<Move>,
}

#[derive(Debug, Deserialize)]
struct Move {
    function: FunctionId,
    from: NodeId,
    to: NodeId,
}

impl DeploymentRecord {
    /// The generation of its present rollout, which may be an earlier one when nothing had to be rolled out.
    pub(crate) fn rollout_generation(&self) -> u64 {
        self.rollout.generation
    }

    /// Whether an earlier rollout must end before this generation is taken up.
    pub(crate) fn waits_for_another(&self) -> bool {
        self.observed_generation < self.generation && !self.rollout.state.is_over()
    }

    /// Whether its nodes are to serve another revision than the one that is wanted.
    fn went_back(&self) -> bool {
        self.serving != 0 && self.serving != self.revision
    }

    fn revisions_shown(&self) -> String {
        if self.went_back() { format!("{}, serves {}", self.revision, self.serving) } else { self.revision.to_string() }
    }
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let palette = Palette::stdout();
    match args.action {
        None | Some(Action::List) => {
            let answer = client.get("/v1/deployments").await?.json().await?;
            if json {
                return Ok(terminal::write_json(answer.bytes())?);
            }
            let Deployments { deployments } = answer.read()?;
            terminal::write(table(&deployments, palette))?;
        }
        Some(Action::Show { id }) => {
            let answer = client.get(format!("/v1/deployments/{id}")).await?.json().await?;
            if json {
                return Ok(terminal::write_json(answer.bytes())?);
            }
            let record: DeploymentRecord = answer.read()?;
            let rollout: RolloutRecord = client.get(format!("/v1/rollouts/{id}")).await?.json().await?.read()?;
            terminal::write(format!("{}\n{}", shown(&record, palette), rollout::shown(&rollout, palette)))?;
        }
        Some(Action::Diff { id, from, to }) => {
            let query: Vec<_> = [("from", from), ("to", to)].into_iter().filter_map(|(name, n)| Some(format!("{name}={}", n?))).collect();
            let answer = client.get(format!("/v1/deployments/{id}/diff?{}", query.join("&"))).await?.json().await?;
            if json {
                return Ok(terminal::write_json(answer.bytes())?);
            }
            terminal::write(compared(&answer.read()?, palette))?;
        }
        Some(Action::Rebalance { moves }) => {
            let answer = client.send(Request::new(Method::POST, format!("/v1/rebalance?moves={moves}"))).await?.json().await?;
            if json {
                return Ok(terminal::write_json(answer.bytes())?);
            }
            let Moves { moves } = answer.read()?;
            let mut text = format!("{} moves; each function is first there, and then gone here\n", moves.len());
            let lines = moves.iter().map(|Move { function, from, to }| format!("  {function}: {from} -> {to}\n"));
            text.extend(lines);
            terminal::write(if moves.is_empty() { "the fleet is balanced\n".to_owned() } else { text })?;
        }
        Some(Action::Remove { id }) => {
            client.send(Request::new(Method::DELETE, format!("/v1/deployments/{id}"))).await?;
            if json {
                return Ok(terminal::write_json(serde_json::json!({ "function": id, "removed": true }).to_string().as_bytes())?);
            }
            terminal::write(format!("removed the deployment of {id}; nodes that are away let go of it when they return\n"))?;
        }
    }
    Ok(())
}

fn table(deployments: &[DeploymentRecord], palette: Palette) -> String {
    if deployments.is_empty() {
        return "nothing is deployed by target; `edgeward deploy hello.wasm --id hello --to all` does\n".to_owned();
    }
    let mut table = Table::new(&["FUNCTION", ">REVISION", "TARGET", "STRATEGY", "READY", "ROLLOUT", "WHY"]);
    for record in deployments {
        let nodes = record.nodes;
        let share = if nodes.wanted == 0 { 0.0 } else { nodes.ready as f64 / nodes.wanted as f64 };
        let why = if record.missing.is_empty() { &record.rollout.reason } else { &record.missing };
        table.row(vec![
            Cell::new(Style::Strong, record.function.as_str()),
            Cell::new(if record.went_back() { Style::Warning } else { Style::Plain }, &record.revisions_shown()),
            printable(&record.target).as_ref().into(),
            record.strategy.kind.as_str().into(),
            format!("{} {}/{}", bar(share, 8), nodes.ready, nodes.wanted).into(),
            Cell::new(state_style(record.rollout.state), &doing(&record.rollout)),
            printable(why).as_ref().into(),
        ]);
    }
    table.render(palette)
}

fn shown(record: &DeploymentRecord, palette: Palette) -> String {
    let nodes = record.nodes;
    let mut table = Table::of_fields();
    table.field("deployment", Cell::new(Style::Strong, record.function.as_str()));
    table.field("revision", format!("{} ({})", record.revision, record.definition.handler));
    table.field("target", printable(&record.target).as_ref());
    let calls = resilience::shown(&record.definition.resilience);
    if !calls.is_empty() {
        table.field("calls", calls);
    }
    table.field("strategy", record.strategy.kind.as_str());
    table.field("generation", format!("{}, observed {}", record.generation, record.observed_generation));
    table.field("changed", format!("{:.0}", record.updated_at));
    if record.went_back() {
        table.field(
            "serves",
            Cell::new(Style::Warning, &format!("revision {}, as the rollout of {} went back", record.serving, record.revision)),
        );
    }
    table
        .field("nodes", format!("{} wanted, {} ready, {} failed, {} away or held", nodes.wanted, nodes.ready, nodes.failed, nodes.pending));
    if let Some(node) = &record.lease {
        table.field("lease", format!("node {node} runs it"));
    }
    if !record.missing.is_empty() {
        table.field("missing", Cell::new(Style::Warning, &printable(&record.missing)));
    }
    let mut text = table.render(palette);
    if !record.revisions.is_empty() {
        let mut revisions = Table::new(&[">REVISION", "MADE", "HANDLER"]);
        for revision in &record.revisions {
            let is_wanted = revision.revision == record.revision;
            revisions.row(vec![
                Cell::new(if is_wanted { Style::Strong } else { Style::Plain }, &revision.revision.to_string()),
                format!("{:.0}", revision.created_at).into(),
                revision.function.handler.to_string().into(),
            ]);
        }
        text.push('\n');
        text.push_str(&revisions.render(palette));
    }
    text
}

fn compared(diff: &Diff, palette: Palette) -> String {
    if diff.differences.is_empty() {
        return format!("revisions {} and {} are the same\n", diff.from, diff.to);
    }
    let value = |value: &Option<serde_json::Value>| match value {
        None => "-".to_owned(),
        Some(serde_json::Value::String(text)) => printable(text).into_owned(),
        Some(other) => printable(&other.to_string()).into_owned(),
    };
    let (from, to) = (format!("REVISION {}", diff.from), format!("REVISION {}", diff.to));
    let mut table = Table::new(&["FIELD", &from, &to]);
    for difference in &diff.differences {
        table.row(vec![
            printable(&difference.field).as_ref().into(),
            Cell::new(Style::Error, &value(&difference.from)),
            Cell::new(Style::Good, &value(&difference.to)),
        ]);
    }
    table.render(palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_a_line_for_each_field() {
        let diff: Diff = serde_json::from_str(
            r#"{"from": 1, "to": 2, "differences": [{"field": "memory_mb", "from": 128, "to": 64}, {"field": "environment.A", "from": null, "to": "[redacted]"}]}"#,
        )
        .expect("a difference of the API");
        let text = compared(&diff, Palette::plain());
        for part in ["REVISION 1", "REVISION 2", "memory_mb", "128", "64", "environment.A", "[redacted]"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(compared(&Diff { differences: Vec::new(), ..diff }, Palette::plain()), "revisions 1 and 2 are the same\n");
    }
}
