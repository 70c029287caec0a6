//! `edgeward functions`: what is deployed.

use edgeward::{ArtifactSignature, FunctionId};

use crate::{
    client::{Client, Functions, Record},
    resilience,
    target::OneNode,
    terminal::{self, Cell, Palette, Style, Table},
};

const EXAMPLES: &str = "\
Examples:
  edgeward functions
  edgeward functions show hello
  edgeward functions --json | jq -r '.functions[].id'";

/// List the functions, or show one
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    target: OneNode,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show everything about one function
    Show {
        /// The function
        id: FunctionId,
    },
}

/// Of one function a node answers with it, and a hub with it on each node.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Shown {
    Many(Functions),
    One(Box<Record>),
}

/// Runs the command.
pub(crate) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let node = args.target.query('?');
    let path = match &args.action {
        None => format!("/v1/functions{node}"),
        Some(Action::Show { id }) => format!("/v1/functions/{id}{node}"),
    };
    let answer = client.get(path).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        match answer.read()? {
            Shown::One(function) => terminal::write(fields(&function, Palette::stdout()))?,
            Shown::Many(Functions { functions }) => terminal::write(list(&functions, Palette::stdout()))?,
        }
    }
    Ok(())
}

/// How a state of a function stands out.
pub(crate) fn state_style(state: &str) -> Style {
    match state {
        "ready" => Style::Good,
        "failed" => Style::Error,
        _ => Style::Warning,
    }
}

/// The functions of a fleet: where each is, and how it is there.
fn on_nodes(functions: &[Record], palette: Palette) -> String {
    let mut table = Table::new(&["NODE", "ID", "HANDLER", ">GENERATION", ">OBSERVED", "STATE", "WHY"]);
    for function in functions {
        table.row(vec![
            Cell::new(Style::Strong, function.node.as_ref().map_or("", edgeward::NodeId::as_str)),
            function.id.as_str().into(),
            shortened(function).into(),
            function.generation.to_string().into(),
            function.observed_generation.to_string().into(),
            Cell::new(state_style(&function.state), &function.state),
            terminal::printable(&function.message).as_ref().into(),
        ]);
    }
    table.render(palette)
}

fn list(functions: &[Record], palette: Palette) -> String {
    if functions.is_empty() {
        return "nothing is deployed; `edgeward deploy --help` shows how\n".to_owned();
    }
    if functions.iter().any(|function| function.node.is_some()) {
        return on_nodes(functions, palette);
    }
    let mut table = Table::new(&["ID", "NAME", "HANDLER", ">MEMORY", ">TIMEOUT", ">GENERATION", "STATE"]);
    for function in functions {
        table.row(vec![
            function.id.as_str().into(),
            function.name.as_str().into(),
            shortened(function).into(),
            format!("{} MiB", function.memory_mb).into(),
            format!("{} s", function.timeout_seconds).into(),
            function.generation.to_string().into(),
            Cell::new(state_style(&function.state), &function.state),
        ]);
    }
    table.render(palette)
}

/// The handler with the first digits of its digest, which tell apart what one node has.
fn shortened(function: &Record) -> String {
    const SHOWN_BYTES: usize = "sha256:".len() + 12;
    let handler = function.handler.to_string();
    match handler.get(..SHOWN_BYTES).filter(|_| handler.starts_with("sha256:")) {
        Some(start) => start.to_owned(),
        None => handler,
    }
}

fn fields(function: &Record, palette: Palette) -> String {
    let mut table = Table::of_fields();
    table.field("id", Cell::new(Style::Strong, function.id.as_str()));
    table.field("name", &function.name);
    table.field("handler", function.handler.to_string());
    table.field("state", Cell::new(state_style(&function.state), &function.state));
    if !function.message.is_empty() {
        table.field("message", &function.message);
    }
    if let Some(ArtifactSignature { key, counter, .. }) = &function.signature {
        table.field("signed by", format!("{key} (counter {counter})"));
    }
    table.field("generation", format!("{} (observed {})", function.generation, function.observed_generation));
    table.field("memory", format!("{} MiB", function.memory_mb));
    table.field("timeout", format!("{} s", function.timeout_seconds));
    table.field("concurrency", format!("{} at once, {} waiting", function.max_concurrency, function.max_queue));
    table.field("sandbox reuse", format!("{} per sandbox", counted(function.max_reuse, "invocation")));
    let calls = resilience::shown(&function.resilience);
    if !calls.is_empty() {
        table.field("calls", calls);
    }
    table.field("environment", or_none(function.environment.0.keys()));
    table.field("allowed hosts", or_none(function.allowed_hosts.iter()));
    table.field("documents", or_none(function.documents.iter()));
    table.render(palette)
}

fn counted(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn or_none(items: impl Iterator<Item = impl ToString>) -> String {
    let texts: Vec<String> = items.map(|item| item.to_string()).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

#[cfg(test)]
mod tests {
    use edgeward::{PublicKey, SignatureBytes};

    use super::*;

    fn record() -> Record {
        serde_json::from_str(
            r#"{"id":"hello","name":"greets","handler":{"artifact":"sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"},
                "memory_mb":128,"timeout_seconds":2.5,"environment":{"TOKEN":"[redacted]"},"allowed_hosts":[],
                "documents":[{"document":"visits","access":"read-write"},{"document":"prices","access":"read-only"}],"max_concurrency":128,
                "max_queue":256,"max_reuse":1,"generation":3,"observed_generation":3,"state":"ready"}"#,
        )
        .expect("a record of the API")
    }

    #[test]
    fn functions_are_listed_one_a_line() {
        assert_eq!(
            list(&[record()], Palette::plain()),
            "ID     NAME    HANDLER               MEMORY  TIMEOUT  GENERATION  STATE\n\
             hello  greets  sha256:0a0a0a0a0a0a  128 MiB    2.5 s           3  ready\n"
        );
        assert!(list(&[], Palette::plain()).contains("nothing is deployed"));
    }

    #[test]
    fn one_function_is_shown_with_the_names_of_its_environment_only() {
        let shown = fields(&record(), Palette::plain());
        let lines = [
            "generation     3 (observed 3)\n",
            "environment    TOKEN\n",
            "allowed hosts  none\n",
            "documents      visits, prices:ro\n",
            "1 invocation per sandbox\n",
        ];
        assert!(!shown.contains("signed by"));
        let signature =
            ArtifactSignature { key: PublicKey::from_bytes([10; 32]), counter: 7, signature: SignatureBytes::from_bytes([0; 64]) };
        let signed = fields(&Record { signature: Some(signature), ..record() }, Palette::plain());
        assert!(signed.contains("(counter 7)\n") && signed.contains("signed by      ed25519:0a0a"), "{signed}");
        for line in lines {
            assert!(shown.contains(line), "{line} in {shown}");
        }
    }
}
