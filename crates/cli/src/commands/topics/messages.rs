//! `edgeward topics messages`: the newest messages of a filter, those from a position on, or those that are retained.

use edgeward::TopicFilter;

use super::{path, shown};
use crate::{
    client::{Client, Messages, RetainedMessages},
    terminal::{self, Palette},
};

const EXAMPLES: &str = "\
Examples:
  edgeward topics messages 'site/#' --limit 20
  edgeward topics messages 'site/+/state' --retained
  edgeward topics messages '#' --before 4711 --json
  edgeward topics messages 'site/#' --from 1                 # the oldest that there are

A look is at 20,000 messages of whatever topic; --before goes on with older ones, and --from with newer ones.";

/// Show the newest messages, or those from a position on
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
    /// Messages from this position on
    #[arg(long, value_name = "POSITION", conflicts_with = "before")]
    from: Option<u64>,
    /// The messages that are kept for who follows a topic later, the last of each
    #[arg(long, conflicts_with_all = ["limit", "before", "from"])]
    retained: bool,
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let path = if args.retained {
        path(&args.filter, "retained")
    } else {
        let part = |name: &str, position: Option<u64>| position.map_or_else(String::new, |position| format!("&{name}={position}"));
        format!("{}?limit={}{}{}", path(&args.filter, "messages"), args.limit, part("before", args.before), part("from", args.from))
    };
    let answer = client.get(path).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
        return Ok(());
    }
    let Messages { page, before, next, lost } = if args.retained { answer.read::<RetainedMessages>()?.into() } else { answer.read()? };
    if let Some(lost @ 1..) = lost {
        terminal::note(&format!("{lost} messages of whatever topic are gone from there"));
    }
    for message in &page {
        terminal::write(shown(message, Palette::stdout()))?;
    }
    if page.is_empty() {
        terminal::note("there are no such messages");
    }
    if let Some(before) = before {
        terminal::note(&format!("there may be older ones: --before {before}"));
    }
    if let Some(next) = next.filter(|next| args.from.is_some_and(|from| *next > from)) {
        terminal::note(&format!("there may be newer ones: --from {next}"));
    }
    Ok(())
}
