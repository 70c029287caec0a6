//! A node in this process, alone or as a member of a fleet, until it is told to stop.

use std::{collections::BTreeMap, net::SocketAddr, str::FromStr, sync::Arc, time::Instant};

use edgeward::{
    DocumentName, EdgeError, EdgeNode, ErrorKind, MqttOptions, Node, NodeOptions, Pattern, TopicSharing, UpdateHours, Uplink,
    UplinkOptions,
    access::{NODE_TOKENS, Tokens},
    cluster::{
        membership::Timing,
        nats::{Enrolment, JoinToken, NodeLink, PING_INTERVAL_DEFAULT},
    },
    listener::serve_functions,
    serve_mqtt,
};
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    api,
    crash::{self, Down},
    daemon::{host_name, named, run_until_stopped},
    data_dir::DataDir,
    exit::Hinted,
    listen::{self, Address, TlsArgs},
    mcp::McpArgs,
    notify::Notify,
    otlp::{self, Export, OtlpArgs},
    signals::StopSignals,
    terminal,
    topics_kept::TopicsKept,
    trusted_keys,
};

// No doc comment: it would become the description of each command that takes the options.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// Id of this node [default: the host name]
    #[arg(long, env = "EDGEWARD_NODE_ID")]
    id: Option<String>,
    /// Name of this node, for people [default: its id]
    #[arg(long)]
    name: Option<String>,
    /// Where it stands, for people
    #[arg(long, default_value = "")]
    location: String,
    /// What it can do, such as `gpu`; may be given more than once
    #[arg(long = "capability", value_name = "CAPABILITY")]
    capabilities: Vec<String>,
    /// By what it is chosen, such as `site=berlin`; may be given more than once
    #[arg(long = "label", value_name = "K=V")]
    labels: Vec<Label>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Address of the API
    #[arg(long, default_value = "127.0.0.1:7700")]
    listen: SocketAddr,
    /// Address at which functions are served
    #[arg(long, default_value = "127.0.0.1:8080")]
    functions_listen: SocketAddr,
    /// Address at which clients of MQTT connect, such as `127.0.0.1:1883` or `0.0.0.0:8883` [default: none may]
    #[arg(long, value_name = "ADDRESS")]
    mqtt_listen: Option<SocketAddr>,
    #[command(flatten)]
    topics: TopicsKept,
    /// A key to trust, as `edgeward sign keygen` prints it, or a file with one on each line; may be given more than once. With any, this node runs
    /// only artifacts that one of them signed, whatever its fleet trusts
    #[arg(long = "trusted-key", value_name = "KEY|FILE")]
    trusted_keys: Vec<String>,
    /// Let the admins of its hub inject faults on this node for experiments, up to the end of its process; see `edgeward chaos`
    #[arg(long)]
    allow_chaos: bool,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    mcp: McpArgs,
    #[command(flatten)]
    otlp: OtlpArgs,
}

/// A label as it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Label {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let (name, value) = text.split_once('=').ok_or_else(|| EdgeError::invalid("a label is `NAME=VALUE`"))?;
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// How a node belongs to a fleet.
pub(crate) struct Joining {
    /// The text of a join token, where there is one.
    pub(crate) token: Option<String>,
    /// How often it reports, and which documents it wants: patterns in which `{NAME}` stands for the value of its label.
    pub(crate) timing: Timing,
    pub(crate) documents: Vec<String>,
    /// When it takes what its hub deploys anew; none for always.
    pub(crate) update_hours: Option<UpdateHours>,
    /// Bytes a second with which it fetches artifacts; none for as many as can be.
    pub(crate) fetch_limit: Option<u64>,
    /// Which messages it shares with its fleet.
    pub(crate) topics: TopicSharing,
}

/// What ties a node to its fleet.
pub(crate) struct Membership {
    pub(crate) link: NodeLink,
    pub(crate) uplink: Uplink,
}

/// Runs a node; with `joining` as a member of a fleet.
pub(crate) async fn run(args: NodeArgs, joining: Option<Joining>) -> anyhow::Result<()> {
    let notify = Notify::open(|variable| std::env::var_os(variable))?;
    let caught = match crash::stay_down(&notify).await? {
        Down::Up(caught) => caught,
        Down::Stopped => return Ok(()),
    };
    let api_at = Address { option: "--listen", at: args.listen };
    let functions_at = Address { option: "--functions-listen", at: args.functions_listen };
    let mqtt_at = args.mqtt_listen.map(|at| Address { option: "--mqtt-listen", at });
    let addresses: Vec<_> = [api_at, functions_at].into_iter().chain(mqtt_at).collect();
    let tls = args.tls.open(&addresses)?;
    let otlp = args.otlp.read()?;
    let data_dir = args.data_dir.path()?;
    let id = args.id.unwrap_or_else(host_name);
    let mut described = EdgeNode::new(&id, args.name.unwrap_or_else(|| id.clone()))?;
    (described.location, described.capabilities) = (args.location, args.capabilities);
    described.labels = args.labels.into_iter().map(|label| (label.name, label.value)).collect::<BTreeMap<_, _>>();
    let update_hours = joining.as_ref().and_then(|joining| joining.update_hours);
    let trusted_keys = trusted_keys::read(&args.trusted_keys)?;
    let topics = args.topics.read().unwrap_or_default();
    let node = Node::open(NodeOptions { node: described.clone(), data_dir, update_hours, trusted_keys, topics }).map_err(opening_failed)?;
    if args.allow_chaos {
        tracing::warn!(target: "audit", "faults may be injected on this node");
        node.chaos().allow(Some(Arc::new(|down| match crash::crash(down) {})));
    }
    let tokens = Arc::new(Tokens::open(node.documents(), DocumentName::new(NODE_TOKENS)?)?);
    for demanding in [api_at].into_iter().chain(mqtt_at) {
        listen::check_tokens(demanding, &tokens, node.data_dir())?;
    }
    let api_listener = listen::bind(api_at, tls.as_ref()).await?;
    let functions_listener = listen::bind(functions_at, tls.as_ref()).await?;
    let mqtt_listener = match mqtt_at {
        Some(at) => Some(listen::bind(at, tls.as_ref()).await?),
        None => None,
    };
    let (api_address, functions_address) = (api_listener.address(), functions_listener.address());
    let (api_scheme, functions_scheme) = (api_listener.scheme(), functions_listener.scheme());
    // Only now: a token is used once, and what could not start shall not have used it.
    let membership = match joining {
        Some(joining) => Some(Arc::new(join(&node, joining).await?)),
        None => None,
    };

    let stop = CancellationToken::new();
    let shared = api::Shared::new(node.documents().clone(), Arc::clone(&tokens), api_address, stop.clone(), args.mcp.access);
    let router = api::node_router(shared, Arc::clone(&node), &functions_address.to_string(), membership.clone());
    let exporter = otlp.map(|options| otlp::exporter(options, &id)).transpose()?;
    let mut signals = caught.map_or_else(StopSignals::catch, Ok)?;
    let mut tasks = JoinSet::new();
    let reconciled = stop.clone().run_until_cancelled_owned(Arc::clone(&node).keep_reconciled());
    tasks.spawn(named("the reconciler", reconciled));
    tasks.spawn(named("the function listener", serve_functions(Arc::clone(node.runtime()), functions_listener, stop.clone())));
    let (triggering, stopped) = (Arc::clone(&node), stop.clone());
    tasks.spawn(named("the triggers", async move { triggering.topics().run_triggers(stopped).await }));
    let mut mqtt = String::new();
    if let Some(listener) = mqtt_listener {
        let scheme = if listener.scheme() == "https" { "mqtts" } else { "mqtt" };
        mqtt = format!("  MQTT       {scheme}://{}\n", listener.address());
        let (node, options, stopped) = (Arc::clone(&node), MqttOptions { tokens }, stop.clone());
        tasks.spawn(named("the MQTT listener", async move { serve_mqtt(&node, listener, options, stopped).await }));
    }
    tasks.spawn(named("the schedules", Arc::clone(&node).keep_scheduled(stop.clone())));
    if let Some(tls) = tls {
        tasks.spawn(named("the look at the certificate", stop.clone().run_until_cancelled_owned(tls.keep_current())));
    }
    tasks.spawn(named("the API", api::serve(router, api_listener, stop.clone())));
    let export = exporter.map(|exporter| {
        let (node, membership, started) = (Arc::clone(&node), membership.clone(), Instant::now());
        let gather = move || {
            let (node, membership) = (Arc::clone(&node), membership.clone());
            async move { api::readings(&node, membership.as_deref(), started).await }
        };
        Export::begin(exporter, gather)
    });
    terminal::write(format!(
        "edgeward {version} · node {id}\n  functions  {functions_scheme}://{functions_address}/fn/ID/\n  API        {api_scheme}://{api_address}/v1 (described at /openapi.json)\n{mqtt}  data       {data}\n",
        version = env!("CARGO_PKG_VERSION"),
        data = node.data_dir().display(),
    ))?;
    tracing::info!(%id, %api_address, %functions_address, is_member = membership.is_some(), "the node is up");
    let status = format!("node {id}: functions at {functions_scheme}://{functions_address}, API at {api_scheme}://{api_address}");
    let ready = Arc::clone(&node);
    let told = notify.tell(async move { ready.until_ready().await }, status, stop.clone());
    tasks.spawn(named("the word to the service manager", told));

    let ended = run_until_stopped(tasks, &stop, async || signals.next().await).await;
    if let Some(export) = export {
        export.end().await;
    }
    ended
}

/// Makes the node a member, once, and ties it to its fleet. A member needs nobody to be there.
async fn join(node: &Arc<Node>, joining: Joining) -> anyhow::Result<Membership> {
    let folder = node.fleet_folder()?;
    let token = joining
        .token
        .as_deref()
        .map(str::parse::<JoinToken>)
        .transpose()
        .map_err(|error| Hinted::new(error, "give the whole line that `edgeward join-token` printed on the hub"))?;
    let described = node.runtime().node();
    let description = serde_json::json!({ "name": described.name, "location": described.location });
    let spinner = terminal::spinner("the node joins its fleet");
    let enrolment = Enrolment::open_or_join(&folder, &described.id, token.as_ref(), description, Timestamp::now()).await;
    spinner.finish_and_clear();
    let link = NodeLink::open(enrolment.map_err(joining_failed)?, &folder, PING_INTERVAL_DEFAULT).await?;
    let documents = patterns(&joining.documents, &described.labels)?;
    let uplink = Uplink::start(
        Arc::clone(node),
        link.backbone(),
        UplinkOptions {
            timing: joining.timing,
            documents,
            fetch_limit: joining.fetch_limit,
            topics: joining.topics,
            credentials: Some(link.credentials()),
        },
    )
    .await?;
    Ok(Membership { link, uplink })
}

/// The documents that a node wants, with the values of its labels in their places.
fn patterns(texts: &[String], labels: &BTreeMap<String, String>) -> Result<Vec<Pattern>, EdgeError> {
    if texts.is_empty() {
        return Ok(vec![Pattern::all()]);
    }
    let filled = |text: &String| {
        let mut filled = text.clone();
        for (name, value) in labels {
            filled = filled.replace(&format!("{{{name}}}"), value);
        }
        if filled.contains('{') {
            return Err(EdgeError::invalid(format!("--documents `{}` names a label that this node has not", text.escape_debug())));
        }
        filled.parse()
    };
    texts.iter().map(filled).collect()
}

fn joining_failed(error: EdgeError) -> anyhow::Error {
    let hint = match error.kind() {
        ErrorKind::NotFound => "run it once with `--join TOKEN`",
        ErrorKind::Forbidden => "make a new token on the hub with `edgeward join-token`: each is good once, for at most 15 minutes",
        ErrorKind::Conflict => "a token made with `edgeward join-token --node ID` lets the node of that id join anew",
        ErrorKind::Unavailable => "the hub must run, and this machine must reach the address that the token carries",
        _ => return error.into(),
    };
    Hinted::new(error, hint).into()
}

fn opening_failed(error: EdgeError) -> anyhow::Error {
    match error.kind() {
        ErrorKind::Conflict => {
            let hint = "a data folder has one node and one process: give the node's own `--id`, stop the other process, or give another folder with `--data-dir`";
            Hinted::new(error, hint).into()
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_wanted_by_name_by_how_the_name_begins_and_by_label() {
        let labels = BTreeMap::from([("site".to_owned(), "berlin".to_owned())]);
        let wanted = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            patterns(&texts, &labels).map(|patterns| patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(wanted(&[]).expect("all"), ["*"]);
        assert_eq!(wanted(&["prices", "sites.{site}.*"]).expect("valid"), ["prices", "sites.berlin.*"]);
        assert!(wanted(&["sites.{region}.*"]).expect_err("no such label").to_string().contains("{region}"));
    }

    #[test]
    fn a_label_is_split_at_its_first_equals_sign() {
        let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
        assert_eq!("site=berlin".parse::<Label>().expect("valid"), label("site", "berlin"));
        assert_eq!("a=b=c".parse::<Label>().expect("valid"), label("a", "b=c"));
        assert!("site".parse::<Label>().is_err());
    }
}
