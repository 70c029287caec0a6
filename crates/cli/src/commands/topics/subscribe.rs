//! `edgeward topics subscribe`: messages as they come, over lost connections.

use std::time::Duration;

use anyhow::Context as _;
use edgeward::{ErrorKind, TopicFilter};
use serde::Deserialize;

use super::{path, shown};
use crate::{
    client::{Client, Error, Events, TopicMessage},
    terminal::{self, Palette},
};

/// Pause before the first try after a connection was lost; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// After such a silence a connection counts as lost: a node sends something every 15 seconds.
const SILENCE_MAX: Duration = Duration::from_mins(1);

const EXAMPLES: &str = "\
Examples:
  edgeward topics subscribe 'site/+/temp'
  edgeward topics subscribe '#' --from 1                # everything that the log holds, and what comes
  edgeward topics subscribe 'site/#' --count 10 --json | jq -r .data

Each message is a line: when it was published, its position, its topic, its payload. With --json it is a JSON object. After a lost
connection it goes on where it was, so nothing that the log keeps is missed.";

/// Show messages as they come
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Topics of this filter
    filter: TopicFilter,
    /// Begin with the message at this position; 1 is the oldest [default: with what is published from now on]
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// An event that is no message: up to where there was nothing at the begin, or how many are gone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
enum News {
    #[serde(rename = "after")]
    After(u64),
    #[serde(rename = "lost")]
    Lost(u64),
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let mut follower = Follower { args, json, next: args.from, shown: 0 };
    // The first connection must come about.
    let mut events = follower.open(client).await?;
    loop {
        let lost = match follower.follow(&mut events).await {
            Ok(Ended::Enough) => return Ok(()),
            Ok(Ended::Stopped) => "the node ended it".to_owned(),
            Err(error) => temporary(error)?,
        };
        terminal::note(&format!("the connection is lost ({lost}); it is tried again"));
        let mut pause = PAUSE_MIN;
        events = loop {
            tokio::time::sleep(pause).await;
            match follower.open(client).await {
                Ok(events) => break events,
                Err(error) => drop(temporary(error.into())?),
            }
            pause = PAUSE_MAX.min(pause * 2);
        };
    }
}

/// Why a connection is lost, when another may do; else the error.
fn temporary(error: anyhow::Error) -> anyhow::Result<String> {
    let is_temporary = match error.downcast_ref::<Error>() {
        Some(Error::Unreachable { .. } | Error::Silent { .. } | Error::Broken { .. }) => true,
        Some(Error::Refused(problem)) => matches!(problem.kind, ErrorKind::Overloaded | ErrorKind::Unavailable),
        _ => false,
    };
    if is_temporary { Ok(error.to_string()) } else { Err(error) }
}

enum Ended {
    Enough,
    Stopped,
}

struct Follower<'a> {
    args: &'a Args,
    json: bool,
    /// The position of the next message; none as long as it is not known.
    next: Option<u64>,
    shown: u64,
}

impl Follower<'_> {
    async fn open(&self, client: &Client) -> Result<Events, Error> {
        let from = self.next.map_or_else(String::new, |next| format!("?from={next}"));
        let answer = client.get(format!("{}{from}", path(&self.args.filter, "events"))).await?;
        Ok(answer.events().ending_after(SILENCE_MAX))
    }

    /// Shows messages until there are enough, or the connection ends.
    async fn follow(&mut self, events: &mut Events) -> anyhow::Result<Ended> {
        while let Some(event) = events.next().await? {
            match serde_json::from_str(&event.data) {
                Ok(News::After(position)) => {
                    self.next.get_or_insert(position + 1);
                    continue;
                }
                Ok(News::Lost(lost)) => {
                    terminal::note(&format!("{lost} messages, of whatever topic, are gone from the log"));
                    continue;
                }
                Err(_) => {}
            }
            let message: TopicMessage = serde_json::from_str(&event.data).context("failed to read a message of the node")?;
            if self.json {
                terminal::write_json(event.data.as_bytes())?;
            } else {
                terminal::write(shown(&message, Palette::stdout()))?;
            }
            self.next = message.position.map(|position| position + 1).or(self.next);
            self.shown += 1;
            if self.args.count == Some(self.shown) {
                return Ok(Ended::Enough);
            }
        }
        Ok(Ended::Stopped)
    }
}
