//! `edgeward triggers`: which messages call which function.

use edgeward::{ContentMode, FunctionId, NodeId, Redelivery, Source, Target, TopicFilter, Trigger, TriggerId};
use http::{
    HeaderValue, Method,
    header::{CONTENT_TYPE, ETAG, IF_MATCH},
};

use super::missing;
use crate::{
    api::triggers::TriggerBody,
    client::{Client, Json, Request, TriggerRecord, Triggers},
    target::OneNode,
    terminal::{self, Cell, Palette, Style, Table},
};

const EXAMPLES: &str = "\
Examples:
  edgeward triggers put average --function average --topic 'site/+/temp'
  edgeward triggers put alarm --function alarm --topic 'site/#' --mode structured --attempts 10
  edgeward triggers put count --function count --topic 'site/#' --to site=berlin    # on nodes of a fleet, by its hub
  edgeward triggers list
  edgeward triggers list --node edge-01                             # how each does on that node; a hub is asked
  edgeward triggers show average
  edgeward triggers remove average

A function gets each message as a CloudEvent, at least once, in the order of the keys. What it cannot handle is tried again, and
then is a dead letter: `edgeward topics dead-letters`. A new trigger gets what is published from now on.
A hub puts a trigger on those nodes of its target that are to have the function. Each handles the messages that are published on it,
and those that it imports, also while the hub is away.";

/// Have functions called by messages
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Put(PutArgs),
    /// List the triggers, and how they do
    List {
        #[command(flatten)]
        target: OneNode,
    },
    /// Show everything about one trigger
    Show {
        /// The trigger
        id: TriggerId,
        #[command(flatten)]
        target: OneNode,
    },
    /// Remove a trigger, and how far it got; its dead letters stay
    Remove {
        /// The trigger
        id: TriggerId,
        /// Only what this ETag names
        #[arg(long, value_name = "ETAG")]
        if_match: Option<String>,
    },
}

/// Make a trigger, or change it; a changed one goes on where it was
#[derive(Debug, clap::Args)]
struct PutArgs {
    /// The trigger
    id: TriggerId,
    /// The function that is called; it need not be deployed yet
    #[arg(long, value_name = "ID")]
    function: FunctionId,
    /// Topics of this filter; may be given more than once, and a message that several match comes once
    #[arg(long = "topic", value_name = "FILTER", required = true)]
    topics: Vec<TopicFilter>,
    /// What the function gets: the payload as the body (binary), or one JSON object (structured)
    #[arg(long, default_value = "binary", value_parser = ["binary", "structured"])]
    mode: String,
    /// Messages that are handled at once, of different keys
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    concurrency: u32,
    /// How often a message is tried
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Pause after the first attempt, which doubles with each
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pause_min_ms: u64,
    /// Longest pause between two attempts
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    pause_max_ms: u64,
    /// Which nodes of a fleet have it, of those that are to have the function: `all`, `node=ID`, `site=berlin`, or `one` for any one of them; a hub is
    /// asked [default: all]
    #[arg(long, value_name = "TARGET")]
    to: Option<Target>,
    /// Only when it is what this ETag names; of a hub that is the generation
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    match args.action {
        Action::Put(args) => run_put(args, client, json).await,
        Action::List { target } => {
            let answer = client.get(format!("/v1/triggers{}", target.query('?'))).await?.json().await?;
            if json {
                terminal::write_json(answer.bytes())?;
            } else {
                terminal::write(listed(&answer.read()?, Palette::stdout()))?;
            }
            Ok(())
        }
        Action::Show { id, target } => {
            let answer = client.get(format!("/v1/triggers/{id}{}", target.query('?'))).await?;
            let tag = answer.header(ETAG).map(|tag| tag.trim_matches('"').to_owned());
            let answer = answer.json().await?;
            if json {
                terminal::write_json(answer.bytes())?;
            } else {
                terminal::write(fields(&answer.read()?, tag.as_deref(), Palette::stdout()))?;
            }
            Ok(())
        }
        Action::Remove { id, if_match } => {
            client.send(conditional(Request::new(Method::DELETE, format!("/v1/triggers/{id}")), if_match.as_deref())?).await?;
            if json {
                terminal::write_json(serde_json::json!({ "id": id, "removed": true }).to_string().as_bytes())?;
            } else {
                terminal::write(format!("removed trigger {id}\n"))?;
            }
            Ok(())
        }
    }
}

async fn run_put(args: PutArgs, client: &Client, json: bool) -> anyhow::Result<()> {
    let trigger = Trigger {
        id: args.id,
        function: args.function,
        filters: args.topics,
        retry: Redelivery { attempts: args.attempts, pause_min_ms: args.pause_min_ms, pause_max_ms: args.pause_max_ms },
        concurrency: args.concurrency,
        mode: if args.mode == "structured" { ContentMode::Structured } else { ContentMode::Binary },
        target: args.to.unwrap_or_else(Target::all),
    };
    let answer = put(client, trigger, args.if_match.as_deref()).await?;
    if json {
        terminal::write_json(answer.bytes())?;
        return Ok(());
    }
    let trigger = answer.read()?;
    terminal::write(told(&trigger))?;
    if let Some(note) = missing::told(client, &trigger.function, trigger.nodes.is_some()).await {
        terminal::write(note)?;
    }
    Ok(())
}

/// Puts the triggers of a project for nodes of a fleet; tells of each.
pub(super) async fn put_all(triggers: &[Trigger], target: &Target, client: &Client, json: bool) -> anyhow::Result<()> {
    for trigger in triggers {
        let answer = put(client, Trigger { target: target.clone(), ..trigger.clone() }, None).await?;
        if !json {
            terminal::write(told(&answer.read()?))?;
        }
    }
    Ok(())
}

/// What was put, in a line.
fn told(TriggerRecord { id, function, filters, nodes, target, .. }: &TriggerRecord) -> String {
    let whereabouts = if nodes.is_some() { format!(", on nodes of `{target}` that have it") } else { String::new() };
    terminal::printable(&format!("trigger {id} calls {function} for {}{whereabouts}", filters.join(" "))).into_owned() + "\n"
}

/// Has the node or the hub make a trigger, or change it.
pub(crate) async fn put(client: &Client, trigger: Trigger, if_match: Option<&str>) -> anyhow::Result<Json> {
    let path = format!("/v1/triggers/{}", trigger.id);
    let request = Request::new(Method::PUT, path)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .payload(serde_json::to_vec(&TriggerBody::from(trigger))?);
    Ok(client.send(conditional(request, if_match)?).await?.json().await?)
}

/// Adds the condition that the trigger is what an ETag names, which may come with or without its quotes.
fn conditional(request: Request, tag: Option<&str>) -> anyhow::Result<Request> {
    let Some(tag) = tag else { return Ok(request) };
    let bare = tag.trim_matches('"');
    let tag = if bare == "*" { bare.to_owned() } else { format!("\"{bare}\"") };
    Ok(request.header(IF_MATCH, HeaderValue::try_from(tag)?))
}

fn listed(Triggers { triggers }: &Triggers, palette: Palette) -> String {
    if triggers.is_empty() {
        return "there are no triggers; `edgeward triggers --help` shows how to make one\n".to_owned();
    }
    if triggers.iter().any(|trigger| trigger.nodes.is_some()) {
        let mut table = Table::new(&["ID", "FUNCTION", "TOPICS", "TARGET", "NODES"]);
        for trigger in triggers {
            let nodes = trigger.nodes.as_deref().unwrap_or_default();
            table.row(vec![
                Cell::new(Style::Strong, &trigger.id),
                trigger.function.as_str().into(),
                terminal::printable(&trigger.filters.join(" ")).as_ref().into(),
                trigger.target.to_string().into(),
                Cell::of_nodes(nodes),
            ]);
        }
        return table.render(palette);
    }
    let mut table = Table::new(&["ID", "FUNCTION", "TOPICS", ">DELIVERED", ">RETRIED", ">DEAD", ">BEHIND", "STATE"]);
    for trigger in triggers {
        let (style, state) = state(trigger);
        table.row(vec![
            Cell::new(Style::Strong, &trigger.id),
            trigger.function.as_str().into(),
            terminal::printable(&trigger.filters.join(" ")).as_ref().into(),
            trigger.delivered.to_string().into(),
            trigger.retried.to_string().into(),
            trigger.dead.to_string().into(),
            trigger.behind.to_string().into(),
            Cell::new(style, &state),
        ]);
    }
    table.render(palette)
}

fn state(trigger: &TriggerRecord) -> (Style, String) {
    match (&trigger.failure, trigger.waiting) {
        (Some(failure), _) => (Style::Error, terminal::printable(failure).into_owned()),
        (None, 0) => (Style::Good, "runs".to_owned()),
        (None, waiting) => (Style::Warning, format!("{waiting} wait for `{}` to be deployed", trigger.function)),
    }
}

fn fields(trigger: &TriggerRecord, tag: Option<&str>, palette: Palette) -> String {
    let mut table = Table::of_fields();
    table.field("trigger", trigger.id.as_str());
    table.field("function", trigger.function.as_str());
    table.field("topics", terminal::printable(&trigger.filters.join(" ")).as_ref());
    table.field("mode", trigger.mode.as_str());
    table.field("concurrency", trigger.concurrency.to_string().as_str());
    let retry = &trigger.retry;
    let retries = format!("{} attempts, {} to {} ms apart", retry.attempts, retry.pause_min_ms, retry.pause_max_ms);
    table.field("retry", retries.as_str());
    if let Some(nodes) = &trigger.nodes {
        table.field("target", trigger.target.to_string());
        let all: Vec<_> = nodes.iter().map(NodeId::as_str).collect();
        table.field("nodes", if all.is_empty() { "none yet".to_owned() } else { all.join(", ") });
    } else {
        if trigger.source == Some(Source::Fleet) {
            table.field("wanted by", "the hub of its fleet");
        }
        let (style, state) = state(trigger);
        table.field("state", Cell::new(style, &state));
        table.field("acknowledged", format!("position {}, {} behind", trigger.acknowledged, trigger.behind).as_str());
        let counts = format!(
            "{} delivered, {} retried, {} dead, {} lost, since the node started",
            trigger.delivered, trigger.retried, trigger.dead, trigger.lost
        );
        table.field("messages", counts.as_str());
    }
    if let Some(tag) = tag {
        table.field("ETag", tag);
    }
    table.render(palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AVERAGE: &str = r#"{"id":"average","function":"avg","filters":["site/+/temp","x"],
        "retry":{"attempts":5,"pause_min_ms":100,"pause_max_ms":30000},"concurrency":8,"mode":"binary",
        "acknowledged":40,"behind":2,"delivered":38,"retried":1,"dead":1,"dead_dropped":0,"lost":0,"waiting":0,"failure":null}"#;

    #[test]
    fn triggers_are_listed_one_a_line_with_how_they_do() {
        let listed_of =
            |json: &str| listed(&serde_json::from_str(&format!("{{\"triggers\":[{json}]}}")).expect("of the API"), Palette::plain());
        let table = listed_of(AVERAGE);
        assert!(table.ends_with("average  avg       site/+/temp x         38        1     1       2  runs\n"), "{table}");
        assert!(listed_of(&AVERAGE.replace("\"waiting\":0", "\"waiting\":3")).contains("3 wait for `avg` to be deployed"));
        assert!(listed_of(&AVERAGE.replace("null}", "\"the disk is full\"}")).contains("the disk is full"));
        assert!(listed(&Triggers { triggers: Vec::new() }, Palette::plain()).contains("no triggers"));
    }

    #[test]
    fn one_trigger_is_shown_with_its_etag() {
        let shown = fields(&serde_json::from_str(AVERAGE).expect("of the API"), Some("0a1b"), Palette::plain());
        for part in ["site/+/temp x", "5 attempts, 100 to 30000 ms apart", "position 40, 2 behind", "38 delivered", "0a1b"] {
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn a_trigger_of_a_hub_is_shown_with_its_nodes_and_one_of_a_node_says_who_wants_it() {
        let of_hub = r#"{"id":"count","function":"count","filters":["site/#"],"retry":{"attempts":5,"pause_min_ms":100,"pause_max_ms":30000},
            "concurrency":8,"mode":"binary","target":"site=berlin","generation":3,"nodes":["a","b","c","d"]}"#;
        let table = listed(&serde_json::from_str(&format!("{{\"triggers\":[{of_hub}]}}")).expect("of the API"), Palette::plain());
        assert!(table.ends_with("count  count     site/#  site=berlin  4 (a, b, c, …)\n"), "{table}");
        let shown = fields(&serde_json::from_str(of_hub).expect("of the API"), Some("3"), Palette::plain());
        assert!(shown.contains("a, b, c, d") && shown.contains("site=berlin") && !shown.contains("since the node started"), "{shown}");
        let of_fleet = AVERAGE.replace("null}", "null,\"source\":\"fleet\"}");
        let shown = fields(&serde_json::from_str(&of_fleet).expect("of the API"), None, Palette::plain());
        assert!(shown.contains("the hub of its fleet") && shown.contains("38 delivered"), "{shown}");
    }

    #[test]
    fn a_condition_takes_an_etag_with_or_without_its_quotes() {
        for (tag, header) in [("0a", "\"0a\""), ("\"0a\"", "\"0a\""), ("*", "*")] {
            let request = conditional(Request::new(Method::GET, "/"), Some(tag)).expect("valid").into_http();
            assert_eq!(request.headers()[IF_MATCH], header);
        }
        conditional(Request::new(Method::GET, "/"), Some("\n")).err().expect("refused");
    }
}
