//! `edgeward topics list`: which topics have messages.

use edgeward::TopicFilter;

use crate::{
    client::{Client, Topics, escaped},
    terminal::{self, Palette, Table, printable, size},
};

const EXAMPLES: &str = "\
Examples:
  edgeward topics list
  edgeward topics list 'site/#' --json | jq -r '.topics[].topic'

A page has 1000 topics; --after goes on with the next.";

/// List the topics that have messages
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Topics of this filter
    #[arg(default_value = "#")]
    filter: TopicFilter,
    /// Topics whose names come after this one
    #[arg(long, value_name = "TOPIC", default_value = "")]
    after: String,
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let path = format!("/v1/topics?filter={}&after={}", escaped(args.filter.as_str()), escaped(&args.after));
    let answer = client.get(path).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
        return Ok(());
    }
    let topics: Topics = answer.read()?;
    terminal::write(shown(&topics, Palette::stdout()))?;
    if let Some(next) = &topics.next {
        terminal::note(&format!("there may be more: --after '{next}'"));
    }
    Ok(())
}

fn shown(Topics { page, head, trimmed, bytes, .. }: &Topics, palette: Palette) -> String {
    if page.is_empty() {
        return "there are no messages; `edgeward topics publish --help` shows how to publish one\n".to_owned();
    }
    let mut table = Table::new(&["TOPIC", ">MESSAGES", ">LAST POSITION", "LAST PUBLISHED"]);
    for topic in page {
        table.row(vec![
            printable(&topic.topic).as_ref().into(),
            topic.messages.to_string().into(),
            topic.last_position.to_string().into(),
            format!("{:.0}", topic.last_published_at).into(),
        ]);
    }
    let log = format!("\nThe log holds positions {} to {head}, {}.\n", trimmed + 1, size(*bytes));
    table.render(palette) + &log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_listed_one_a_line() {
        let json = r#"{"topics":[{"topic":"site/berlin/temp","messages":12,"last_position":40,"last_published_at":"2026-01-02T03:04:05.678Z"}],
            "next":null,"head":41,"trimmed":3,"bytes":2048,"followers":1}"#;
        assert_eq!(
            shown(&serde_json::from_str(json).expect("of the API"), Palette::plain()),
            "TOPIC             MESSAGES  LAST POSITION  LAST PUBLISHED\n\
             site/berlin/temp        12             40  2026-01-02T03:04:05Z\n\
             \nThe log holds positions 4 to 41, 2.0 KiB.\n"
        );
        let none = r#"{"topics":[],"next":null,"head":0,"trimmed":0,"bytes":0}"#;
        assert!(shown(&serde_json::from_str(none).expect("of the API"), Palette::plain()).contains("no messages"));
    }
}
