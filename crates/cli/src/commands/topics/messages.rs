//! `edgeward topics messages`: the newest messages of a filter, or those that are retained.

use edgeward::TopicFilter;

use super::{path, shown};
use crate::{
    client::{Client, Messages},
    terminal::{self, Palette},
};

const EXAMPLES: &str = "\
Examples:
  edgeward topics messages 'site/#' --limit 20
  edgeward topics messages 'site/+/state' --retained
  edgeward topics messages '#' --before 4711 --json

A look goes back over 20,000 messages of whatever topic; --before goes on with older ones.";

/// Show the newest messages
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Topics of this filter
    filter: TopicFilter,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Messages before this position
    #[arg(long, value_name = "POSITION")]
    before: Option<u64>,
    /// The messages that are kept for who follows a topic later, the last of each
    #[arg(long, conflicts_with_all = ["limit", "before"])]
    retained: bool,
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let path = if args.retained {
        path(&args.filter, "retained")
    } else {
        let before = args.before.map_or_else(String::new, |before| format!("&before={before}"));
        format!("{}?limit={}{before}", path(&args.filter, "messages"), args.limit)
    };
    let answer = client.get(path).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
        return Ok(());
    }
    let Messages { messages, before } = answer.read()?;
    for message in &messages {
        terminal::write(shown(message, Palette::stdout()))?;
    }
    if messages.is_empty() {
        terminal::note("there are no such messages");
    }
    if let Some(before) = before {
        terminal::note(&format!("there may be older ones: --before {before}"));
    }
    Ok(())
}
