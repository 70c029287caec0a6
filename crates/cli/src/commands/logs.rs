//! `edgeward logs`: what functions printed, once or as it comes.

use anyhow::Context as _;
use edgeward::{ErrorKind, FunctionId};
use futures::{Stream, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::{
    client::{self, Client, Events, Functions, LogLine},
    target::OneNode,
    terminal::{self, Palette, Style, printable},
};

const EXAMPLES: &str = "\
Examples:
  edgeward logs hello
  edgeward logs hello --follow
  edgeward logs --json | jq -r 'select(.stream == \"stderr\") | .text'

Without ID the lines of all functions are merged by time, each with its function. --follow without ID follows
the functions that are deployed now. With --json each line is one JSON object. Times are UTC.";

/// Show what functions printed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The function [default: all]
    id: Option<FunctionId>,
    /// Go on with new lines as they come
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    target: OneNode,
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let look = Look { json, palette: Palette::stdout(), id_width: 0 };
    match args.id {
        Some(id) => one(&id, args.follow, &args.target, client, look).await,
        None => all(args.follow, &args.target, client, look).await,
    }
}

async fn one(id: &FunctionId, follow: bool, target: &OneNode, client: &Client, look: Look) -> anyhow::Result<()> {
    let mut log = Log::new(None);
    let mut events = open(client, id, follow, target).await?;
    while let Some(event) = events.next().await? {
        terminal::write(log.show(&event.data, look)?.1)?;
    }
    Ok(())
}

async fn all(follow: bool, target: &OneNode, client: &Client, mut look: Look) -> anyhow::Result<()> {
    let Functions { functions } = client.get(format!("/v1/functions{}", target.query('?'))).await?.json().await?.read()?;
    look.id_width = functions.iter().map(|function| function.id.as_str().len()).max().unwrap_or(0);
    let mut logs = Vec::new();
    for function in functions {
        match open(client, &function.id, follow, target).await {
            Ok(events) => logs.push((Log::new(Some(function.id)), events)),
            // It was undeployed since the list was made, or never came to run.
            Err(client::Error::Refused(problem)) if problem.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut lines = stream::select_all(logs.into_iter().map(|(log, events)| Box::pin(lines(log, events, look))));
    if follow {
        while let Some((_, line)) = lines.try_next().await? {
            terminal::write(line)?;
        }
        return Ok(());
    }
    let mut merged: Vec<(Timestamp, String)> = lines.try_collect().await?;
    merged.sort_by_key(|(timestamp, _)| *timestamp);
    for (_, line) in merged {
        terminal::write(line)?;
    }
    Ok(())
}

async fn open(client: &Client, id: &FunctionId, follow: bool, target: &OneNode) -> Result<Events, client::Error> {
    let node = target.query('&');
    Ok(client.get(format!("/v1/functions/{id}/logs?follow={follow}{node}")).await?.events())
}

fn lines(log: Log, events: Events, look: Look) -> impl Stream<Item = anyhow::Result<(Timestamp, String)>> {
    stream::try_unfold((log, events), move |(mut log, mut events)| async move {
        let Some(event) = events.next().await? else { return Ok(None) };
        Ok(Some((log.show(&event.data, look)?, (log, events))))
    })
}

fn read<T: DeserializeOwned>(data: &str) -> anyhow::Result<T> {
    serde_json::from_str(data).context("failed to read a log line of the node")
}

/// How lines look.
#[derive(Clone, Copy, Debug)]
struct Look {
    json: bool,
    palette: Palette,
    id_width: usize,
}

/// The log of one function as far as it was shown.
#[derive(Debug)]
struct Log {
    /// The function, where lines of several are mixed.
    id: Option<FunctionId>,
    last_seq: Option<u64>,
}

impl Log {
    fn new(id: Option<FunctionId>) -> Self {
        Self { id, last_seq: None }
    }

    /// A line as it is shown, ended, and when it was printed. A gap before it is told to people.
    fn show(&mut self, data: &str, look: Look) -> anyhow::Result<(Timestamp, String)> {
        let LogLine { seq, timestamp, stream, text } = read(data)?;
        let dropped = self.last_seq.replace(seq).map_or(0, |last_seq| seq.saturating_sub(last_seq + 1));
        if look.json {
            return Ok((timestamp, self.json(data)?));
        }
        let style = match stream.as_str() {
            "stderr" => Style::Warning,
            "runtime" => Style::Note,
            _ => Style::Plain,
        };
        let id = self.id.as_ref().map_or_else(String::new, |id| {
            let padded = format!("{:1$}", id.as_str(), look.id_width);
            format!("{}  ", look.palette.paint(Style::Strong, &padded))
        });
        let time = look.palette.paint(Style::Faint, &format!("{timestamp:.3}"));
        let stream = look.palette.paint(style, &format!("{stream:7}"));
        let line = format!("{id}{time}  {stream}  {}\n", printable(&text));
        if dropped == 0 {
            return Ok((timestamp, line));
        }
        let gap = look.palette.paint(Style::Error, &format!("… {dropped} lines were dropped"));
        Ok((timestamp, format!("{id}{gap}\n{line}")))
    }

    fn json(&self, data: &str) -> anyhow::Result<String> {
        let Some(id) = &self.id else { return Ok(format!("{data}\n")) };
        let mut line: serde_json::Map<String, serde_json::Value> = read(data)?;
        line.insert("function_id".to_owned(), id.as_str().into());
        Ok(format!("{}\n", serde_json::Value::Object(line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"seq":7,"timestamp":"2026-01-02T03:04:05.123456Z","stream":"stderr","text":"a\u001b[2Jb"}"#;
    const SHOWN: &str = "2026-01-02T03:04:05.123Z  stderr   a\\u{1b}[2Jb\n";

    fn look(json: bool, id_width: usize) -> Look {
        Look { json, palette: Palette::plain(), id_width }
    }

    fn named() -> Log {
        Log::new(Some(FunctionId::new("fn-1").expect("valid")))
    }

    #[test]
    fn a_line_shows_its_function_its_time_and_its_stream() {
        assert_eq!(named().show(LINE, look(false, 6)).expect("valid").1, format!("fn-1    {SHOWN}"));
        assert_eq!(Log::new(None).show(LINE, look(false, 0)).expect("valid").1, SHOWN);
        assert!(Log::new(None).show("{}", look(false, 0)).is_err());
    }

    #[test]
    fn dropped_lines_are_counted_before_the_line_that_follows_them() {
        let mut log = Log { id: None, last_seq: Some(3) };
        assert_eq!(log.show(LINE, look(false, 0)).expect("valid").1, format!("… 3 lines were dropped\n{SHOWN}"));
        assert_eq!(log.show(&LINE.replace('7', "8"), look(false, 0)).expect("valid").1, SHOWN);
    }

    #[test]
    fn json_is_passed_on_and_gets_the_function_where_several_are_mixed() {
        assert_eq!(Log::new(None).show(LINE, look(true, 0)).expect("valid").1, format!("{LINE}\n"));
        let line = named().show(LINE, look(true, 0)).expect("valid").1;
        let line: serde_json::Value = serde_json::from_str(&line).expect("json");
        assert_eq!((&line["function_id"], &line["seq"]), (&"fn-1".into(), &7.into()));
    }
}
