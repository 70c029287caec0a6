//! `edgeward topics dead-letters`: messages that functions could not handle.

use edgeward::TriggerId;
use http::Method;

use crate::{
    client::{Client, DeadLetters, Request},
    target::OneNode,
    terminal::{self, Palette, Table, printable},
};

const EXAMPLES: &str = "\
Examples:
  edgeward topics dead-letters
  edgeward topics dead-letters --trigger average --json | jq -r '.dead_letters[].why'
  edgeward topics dead-letters retry 7      # once its function is mended
  edgeward topics dead-letters discard 7
  edgeward topics dead-letters --node edge-01           # of a node of a fleet; its hub is asked
  edgeward topics dead-letters retry 7 --node edge-01";

/// List messages that functions could not handle, and try them again
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    /// Those of this trigger
    #[arg(long, value_name = "ID")]
    trigger: Option<TriggerId>,
    /// Those after this id
    #[arg(long, value_name = "ID", default_value_t = 0)]
    after: u64,
    #[command(flatten)]
    target: OneNode,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Have one tried again by its trigger, from the first attempt on
    Retry {
        /// The dead letter
        id: u64,
        #[command(flatten)]
        target: OneNode,
    },
    /// Remove one for good
    Discard {
        /// The dead letter
        id: u64,
        #[command(flatten)]
        target: OneNode,
    },
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    match &args.action {
        None => list(args, client, json).await,
        Some(Action::Retry { id, target }) => {
            client.send(Request::new(Method::POST, format!("/v1/dead-letters/{id}/retry{}", target.query('?')))).await?;
            told(json, *id, "retried", "is tried again")
        }
        Some(Action::Discard { id, target }) => {
            client.send(Request::new(Method::DELETE, format!("/v1/dead-letters/{id}{}", target.query('?')))).await?;
            told(json, *id, "discarded", "is discarded")
        }
    }
}

fn told(json: bool, id: u64, word: &str, what: &str) -> anyhow::Result<()> {
    if json {
        terminal::write_json(serde_json::json!({ "id": id, word: true }).to_string().as_bytes())?;
    } else {
        terminal::write(format!("dead letter {id} {what}\n"))?;
    }
    Ok(())
}

async fn list(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let trigger = args.trigger.as_ref().map_or_else(String::new, |trigger| format!("&trigger={trigger}"));
    let answer = client.get(format!("/v1/dead-letters?after={}{trigger}{}", args.after, args.target.query('&'))).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        terminal::write(shown(&answer.read()?, Palette::stdout()))?;
    }
    Ok(())
}

fn shown(DeadLetters { dead_letters }: &DeadLetters, palette: Palette) -> String {
    if dead_letters.is_empty() {
        return "there are no dead letters\n".to_owned();
    }
    let mut table = Table::new(&[">ID", "TRIGGER", "GIVEN UP", ">ATTEMPTS", "TOPIC", "WHY"]);
    for letter in dead_letters {
        let again = if letter.is_to_retry { " (is tried again)" } else { "" };
        table.row(vec![
            letter.id.to_string().into(),
            letter.trigger.as_str().into(),
            format!("{:.0}", letter.at).into(),
            letter.attempts.to_string().into(),
            printable(&letter.message.topic).as_ref().into(),
            format!("{}{again}", printable(&letter.why)).into(),
        ]);
    }
    table.render(palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_are_listed_one_a_line_with_the_reason() {
        let json = r#"{"dead_letters":[{"id":7,"trigger":"average","why":"function `average` answered 500","attempts":5,
            "at":"2026-01-02T03:04:05.6Z","is_to_retry":true,
            "message":{"position":3,"topic":"site/a","published_at":"2026-01-02T03:04:05Z","data":"x"}}],"next":7}"#;
        let letters = serde_json::from_str(json).expect("of the API");
        assert!(
            shown(&letters, Palette::plain())
                .ends_with(" 7  average  2026-01-02T03:04:05Z         5  site/a  function `average` answered 500 (is tried again)\n")
        );
        assert!(shown(&DeadLetters { dead_letters: Vec::new() }, Palette::plain()).contains("no dead letters"));
    }
}
