//! `edgeward topics`: messages of a node, or of a fleet by its hub.

mod dead_letters;
mod list;
mod messages;
mod publish;
mod subscribe;

use edgeward::TopicFilter;

use crate::{
    client::{Client, TopicMessage, escaped},
    terminal::{Palette, Style, printable},
};

const EXAMPLES: &str = "\
Examples:
  edgeward topics subscribe 'site/+/temp'
  edgeward topics publish site/berlin/temp 21.5
  edgeward topics list
  edgeward topics dead-letters

A topic has levels, separated by `/`. In a filter `+` stands for one level and a last `#` for the rest. `edgeward triggers` has
functions called by messages, and `edgeward up --mqtt-listen` lets sensors in that speak MQTT.";

/// Publish messages, follow topics, and see what failed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Publish(publish::Args),
    Subscribe(subscribe::Args),
    List(list::Args),
    Messages(messages::Args),
    DeadLetters(dead_letters::Args),
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    match args.action {
        Action::Publish(args) => publish::run(args, client, json).await,
        Action::Subscribe(args) => subscribe::run(&args, client, json).await,
        Action::List(args) => list::run(&args, client, json).await,
        Action::Messages(args) => messages::run(&args, client, json).await,
        Action::DeadLetters(args) => dead_letters::run(&args, client, json).await,
    }
}

/// The path of what is asked of a filter.
fn path(filter: &TopicFilter, what: &str) -> String {
    format!("/v1/topics/{}/{what}", escaped(filter.as_str()))
}

/// A message on one line.
fn shown(message: &TopicMessage, palette: Palette) -> String {
    let time = palette.paint(Style::Faint, &format!("{:.3}", message.published_at));
    let position = message.position.map_or_else(|| "-".to_owned(), |position| position.to_string());
    let topic = palette.paint(Style::Strong, &printable(&message.topic));
    format!("{time}  {position:>8}  {topic}  {}\n", printable(&message.payload()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_that_cannot_steer_the_terminal() {
        let shown = |json: &str| shown(&serde_json::from_str(json).expect("of the API"), Palette::plain());
        let head = r#""topic":"a/b","published_at":"2026-01-02T03:04:05.6789Z""#;
        assert_eq!(shown(&format!(r#"{{"position":7,{head},"data":"21.5"}}"#)), "2026-01-02T03:04:05.678Z         7  a/b  21.5\n");
        let line = shown(&format!(r#"{{{head},"data":{{"t":18446744073709551617}}}}"#));
        assert!(line.ends_with("       -  a/b  {\"t\":18446744073709551617}\n"), "{line}");
        let line = shown(&format!(r#"{{{head},"data":"a\nb\u001b[2J"}}"#));
        assert!(line.matches('\n').count() == 1 && !line.contains('\u{1b}'), "{line}");
        assert!(shown(&format!(r#"{{{head},"data_base64":"/wA="}}"#)).ends_with("base64:/wA=\n"));
    }

    #[test]
    fn a_filter_is_escaped_in_its_path() {
        assert_eq!(path(&TopicFilter::new("site/+/#").expect("valid"), "events"), "/v1/topics/site%2F%2B%2F%23/events");
    }
}
