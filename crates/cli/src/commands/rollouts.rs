//! `edgeward rollouts`: how revisions get to their nodes, and what somebody does about it.

use http::Method;
use serde::Deserialize;

use crate::{
    client::{Client, Request},
    rollout::{self, RolloutRecord, doing, state_style},
    terminal::{self, Cell, Palette, Style, Table, printable},
};

const EXAMPLES: &str = "\
Examples:
  edgeward rollouts
  edgeward rollouts show hello           # the present one of a function
  edgeward rollouts show hello:12 --follow
  edgeward rollouts pause hello
  edgeward rollouts resume hello
  edgeward rollouts approve hello
  edgeward rollouts abort hello
  edgeward rollouts rollback hello --revision 3

A rollout is pending, in progress, paused, completed, rolled back, or failed. Paused, no further node gets the revision; the nodes that have
it are still judged, and when it does badly, it goes back.";

/// List the rollouts of a fleet, show one, or decide about it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the rollouts, the newest of each function first
    List,
    /// Show a rollout with its nodes wave by wave
    Show {
        /// The rollout, or its function
        id: String,
        /// Show how it gets on until it ends, and fail when it goes back
        #[arg(long)]
        follow: bool,
    },
    /// Let no further node get the revision
    Pause {
        /// The rollout, or its function
        id: String,
    },
    /// Let a paused rollout go on
    Resume {
        /// The rollout, or its function
        id: String,
    },
    /// Agree to what a rollout waits for
    Approve {
        /// The rollout, or its function
        id: String,
    },
    /// End a rollout, and bring the former revision back
    Abort {
        /// The rollout, or its function
        id: String,
    },
    /// Go back to a former revision, on all nodes at once
    Rollback {
        /// The rollout, or its function
        id: String,
        /// The revision [default: the one before]
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
    },
}

/// Answer of `GET /v1/rollouts`.
#[derive(Debug, Deserialize)]
struct Rollouts {
    rollouts: Vec<RolloutRecord>,
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    match args.action {
        None | Some(Action::List) => list(client, json).await,
        Some(Action::Show { id, follow }) => show(&id, follow, client, json).await,
        Some(Action::Pause { id }) => act(&id, "pause", client, json).await,
        Some(Action::Resume { id }) => act(&id, "resume", client, json).await,
        Some(Action::Approve { id }) => act(&id, "approve", client, json).await,
        Some(Action::Abort { id }) => act(&id, "abort", client, json).await,
        Some(Action::Rollback { id, revision }) => {
            let query = revision.map_or_else(String::new, |revision| format!("?revision={revision}"));
            act(&id, &format!("rollback{query}"), client, json).await
        }
    }
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let answer = client.get("/v1/rollouts").await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        let Rollouts { rollouts } = answer.read()?;
        terminal::write(table(&rollouts, Palette::stdout()))?;
    }
    Ok(())
}

async fn show(id: &str, follow: bool, client: &Client, json: bool) -> anyhow::Result<()> {
    let mut answer = client.get(format!("/v1/rollouts/{}", path(id))).await?.json().await?;
    let mut record: RolloutRecord = answer.read()?;
    if follow && !record.rollout.state.is_over() {
        (record, answer) = rollout::follow(client, record.rollout.function.as_str(), record.rollout.generation).await?;
    }
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        terminal::write(rollout::shown(&record, Palette::stdout()))?;
    }
    if follow { Ok(rollout::outcome(&record)?) } else { Ok(()) }
}

async fn act(id: &str, action: &str, client: &Client, json: bool) -> anyhow::Result<()> {
    let request = Request::new(Method::POST, format!("/v1/rollouts/{}/{action}", path(id)));
    let answer = client.send(request).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        terminal::write(rollout::shown(&answer.read()?, Palette::stdout()))?;
    }
    Ok(())
}

/// The id as a part of a path: what is no id is none of a rollout either.
fn path(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.:".contains(c) { c } else { '_' }).collect()
}

fn table(rollouts: &[RolloutRecord], palette: Palette) -> String {
    if rollouts.is_empty() {
        return "there are no rollouts; `edgeward deploy --to all …` begins one\n".to_owned();
    }
    let mut table = Table::new(&["ID", "FROM", "TO", "STATE", "STARTED", "WHY"]);
    for record in rollouts {
        let rollout = &record.rollout;
        table.row(vec![
            Cell::new(Style::Strong, &record.id),
            rollout.from.map_or_else(|| "-".to_owned(), |from| from.to_string()).into(),
            rollout.to.to_string().into(),
            Cell::new(state_style(rollout.state), &doing(rollout)),
            format!("{:.0}", rollout.started_at).into(),
            printable(&rollout.reason).as_ref().into(),
        ]);
    }
    table.render(palette)
}
