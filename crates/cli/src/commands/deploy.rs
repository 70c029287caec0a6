//! `edgeward deploy`: uploads an artifact where needed, writes the desired state, and shows what came of it. What the command line does not
//! say, the project in the folder says.

mod fleet;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use edgeward::{
    ArtifactSignature, DocumentGrant, EdgeError, ErrorKind, FunctionId, Handler, Resilience, Strategy, Trigger, limits::ARTIFACT_BYTES_MAX,
    signing::SignedArtifact,
};
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use serde::Serialize;

use crate::{
    artifact::Artifact,
    client::{self, Client, NodesChanged, Payload, Record, Request, Status, Uploaded},
    commands::{schedules, sign, triggers},
    exit::Hinted,
    project::{Project, TopicPlan},
    resilience::ResilienceArgs,
    strategy::StrategyArgs,
    target::Targets,
    terminal::{self, Cell, Palette, Style, Table},
};

/// Longest wait for the node to compile: a Python component takes most of a minute on a small machine.
const COMPILE_TIMEOUT: Duration = Duration::from_mins(15);

const EXAMPLES: &str = "\
Examples:
  edgeward deploy                                       # the project in this folder, by its edgeward.toml
  edgeward deploy hello.wasm --id hello
  edgeward deploy resize.wasm --id resize --memory-mb 256 --timeout-seconds 2.5
  edgeward deploy report.wasm --id report --env UNIT=celsius --allow-host https://api.example.com
  edgeward deploy visits.wasm --id visits --document visits --document prices:ro
  edgeward deploy hello.wasm --id hello --if-generation 3
  edgeward deploy hello.wasm --id hello --all           # to every node of a fleet, by its hub
  edgeward deploy hello.wasm --id hello --node edge-01
  edgeward deploy hello.wasm --id hello --to site=berlin --strategy canary --batch 5% --bake 60
  edgeward deploy hello.wasm --id hello --to count=2,capability=gpu --dry-run
  edgeward deploy price.wasm --id price --to all --balance least_connections --idempotent --deadline-seconds 2 --attempts 4

Deploying an id again replaces the function. What is not given takes its default, not its last value.
What is given wins over the edgeward.toml of a project.";

/// Deploy a function, or replace it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The folder of a project, a WebAssembly file, `sha256:…` of one that the node has, or `native:NAME`
    #[arg(default_value = ".")]
    artifact: Artifact,
    /// Names the function; the last part of its URL. Needed without a project
    #[arg(long)]
    id: Option<FunctionId>,
    /// A name for people [default: the id]
    #[arg(long)]
    name: Option<String>,
    /// Memory of one invocation, in MiB [default: 128]
    #[arg(long, value_name = "M")]
    memory_mb: Option<u32>,
    /// Deadline of one invocation; fractions are allowed [default: 30]
    #[arg(long, value_name = "S")]
    timeout_seconds: Option<f64>,
    /// An environment variable; may be given again
    #[arg(long, value_name = "K=V")]
    env: Vec<String>,
    /// A host that the function may call, as `scheme://host[:port]`; may be given again [default: none]
    #[arg(long, value_name = "H")]
    allow_host: Vec<String>,
    /// A document that the function may read and change, or with `:ro` only read; may be given again [default: none]
    #[arg(long, value_name = "NAME[:ro]")]
    document: Vec<DocumentGrant>,
    /// Invocations that run at once [default: 128]
    #[arg(long, value_name = "N")]
    max_concurrency: Option<u32>,
    /// Invocations that wait for their turn [default: 256]
    #[arg(long, value_name = "N")]
    max_queue: Option<u32>,
    /// Invocations that one sandbox serves, one after the other [default: 1]
    #[arg(long, value_name = "N")]
    max_reuse: Option<u32>,
    /// File of the artifact's signature [default: ARTIFACT.sig, where there is one]
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Only replace this generation; 0 only creates
    #[arg(long, value_name = "N", conflicts_with_all = ["node", "all"])]
    if_generation: Option<u64>,
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    resilience: ResilienceArgs,
    #[command(flatten)]
    deployment: StrategyArgs,
    /// Say what would be done in the fleet, and do nothing
    #[arg(long, help_heading = "Deployment to a fleet", conflicts_with_all = ["node", "all"])]
    dry_run: bool,
    /// Return without waiting until the rollout has ended
    #[arg(long, help_heading = "Deployment to a fleet", conflicts_with_all = ["node", "all"])]
    no_wait: bool,
}

/// Reads each `NAME=VALUE`. A value may be a secret, so no message repeats it; a value parser of clap would.
fn variables(texts: &[String]) -> Result<BTreeMap<String, String>, EdgeError> {
    let variable = |(i, text): (usize, &String)| {
        let refused = |why: &str| Err(EdgeError::invalid(format!("number {} of --env has no {why}; write `--env NAME=VALUE`", i + 1)));
        match text.split_once('=') {
            None => refused("`=`"),
            Some(("", _)) => refused("name before its `=`"),
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        }
    };
    texts.iter().enumerate().map(variable).collect()
}

impl Args {
    /// Takes from a project what the command line does not say, and gives its strategy.
    fn fill(&mut self, project: Project, environment: &mut BTreeMap<String, String>) -> anyhow::Result<OfProject> {
        if let Artifact::File(path) = &project.source
            && !path.is_file()
        {
            let error = EdgeError::invalid(format!("the artifact `{}` of `{}` is not there", path.display(), project.file.display()));
            let hint = if project.build.is_some() { "`edgeward build` makes it" } else { "build it, and see that `source` names it" };
            return Err(Hinted::new(error, hint).into());
        }
        for (name, variable) in project.environment {
            if let Entry::Vacant(place) = environment.entry(name) {
                let value = variable.value(place.key(), |name| std::env::var_os(name))?;
                place.insert(value);
            }
        }
        self.artifact = project.source;
        self.id.get_or_insert(project.id);
        self.name = self.name.take().or(project.name);
        self.memory_mb = self.memory_mb.or(project.limits.memory_mb);
        self.timeout_seconds = self.timeout_seconds.or(project.limits.timeout_seconds);
        self.max_concurrency = self.max_concurrency.or(project.limits.max_concurrency);
        self.max_queue = self.max_queue.or(project.limits.max_queue);
        self.max_reuse = self.max_reuse.or(project.limits.max_reuse);
        if self.allow_host.is_empty() {
            self.allow_host = project.allowed_hosts;
        }
        if self.document.is_empty() {
            self.document = project.documents;
        }
        // A place on the command line wins, and `--node` and `--all` take no strategy.
        let plan = project.deployment.filter(|_| !self.targets.is_fleet());
        let strategy = plan.and_then(|plan| {
            self.deployment.to.get_or_insert(plan.target);
            plan.strategy
        });
        Ok(OfProject { strategy, triggers: project.triggers })
    }
}

/// What of a project no option says.
#[derive(Default)]
struct OfProject {
    strategy: Option<Strategy>,
    triggers: Vec<TopicPlan>,
}

/// Body of `PUT /v1/functions/{id}`. The node knows the defaults.
#[derive(Debug, Serialize)]
struct Desired {
    name: String,
    handler: Handler,
    environment: BTreeMap<String, String>,
    allowed_hosts: Vec<String>,
    documents: Vec<DocumentGrant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_mb: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrency: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_queue: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_reuse: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<ArtifactSignature>,
    #[serde(skip_serializing_if = "is_default")]
    resilience: Resilience,
}

fn is_default(resilience: &Resilience) -> bool {
    *resilience == Resilience::default()
}

/// Runs the command.
pub(crate) async fn run(mut args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let mut environment = variables(&args.env)?;
    let project = match &args.artifact {
        Artifact::File(path) => Project::at(path)?,
        Artifact::Known(_) => None,
    };
    let mut schedules = project.as_ref().map(|project| project.schedules.clone()).unwrap_or_default();
    let resilience = project.as_ref().map(|project| project.resilience.clone()).unwrap_or_default();
    let resilience = std::mem::take(&mut args.resilience).over(resilience)?;
    let OfProject { strategy, triggers } = project.map(|project| args.fill(project, &mut environment)).transpose()?.unwrap_or_default();
    let id = args.id.ok_or_else(|| EdgeError::invalid("say how the function is called: `--id ID`"))?;
    let triggers = triggers.iter().map(|plan| plan.of(&id)).collect::<Result<Vec<_>, _>>()?;
    // The command line may call it otherwise than the project.
    for schedule in &mut schedules {
        schedule.function = id.clone();
    }
    let signed = signed(args.signature, &args.artifact)?;
    let handler = match args.artifact {
        Artifact::File(path) => upload(&path, client).await?,
        Artifact::Known(handler) => handler,
    };
    let signature = match (signed, &handler) {
        (Some(signed), Handler::Artifact(digest)) => Some(signed.signature_of(&id, digest)?),
        (Some(_), Handler::Native(_)) => return Err(EdgeError::invalid("native code is not signed; leave out `--signature`").into()),
        (None, _) => None,
    };
    let desired = Desired {
        name: args.name.unwrap_or_else(|| id.to_string()),
        handler,
        environment,
        allowed_hosts: args.allow_host,
        documents: args.document,
        memory_mb: args.memory_mb,
        timeout_seconds: args.timeout_seconds,
        max_concurrency: args.max_concurrency,
        max_queue: args.max_queue,
        max_reuse: args.max_reuse,
        signature,
        resilience,
    };
    if args.deployment.is_given() || args.dry_run || args.no_wait {
        if args.targets.is_fleet() {
            let message = "`--node` and `--all` assign the function by itself; with a strategy, say where by `--to`";
            return Err(EdgeError::invalid(message).into());
        }
        let target = args.deployment.to.clone().ok_or_else(|| EdgeError::invalid("say which nodes it is for, as `--to all`"))?;
        let strategy = args.deployment.over(strategy)?;
        let wanted = fleet::Wanted {
            target: target.clone(),
            strategy,
            if_generation: args.if_generation,
            dry_run: args.dry_run,
            no_wait: args.no_wait,
        };
        fleet::deploy(&id, &desired, wanted, client, json).await?;
        if args.dry_run {
            return Ok(());
        }
        triggers::put_all(&triggers, &target, client, json).await?;
        return schedules::put_all(&schedules, client, json).await;
    }
    let mut request = Request::new(Method::PUT, format!("/v1/functions/{id}{}", args.targets.query()))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .payload(serde_json::to_vec(&desired)?)
        .answer_timeout(COMPILE_TIMEOUT);
    if let Some(generation) = args.if_generation {
        request = request.if_generation(generation);
    }
    let spinner = terminal::spinner("the node deploys");
    let answer = client.send(request).await;
    spinner.finish_and_clear();
    let answer = answer?.json().await?;

    if args.targets.is_fleet() {
        if json {
            terminal::write_json(answer.bytes())?;
        } else {
            let NodesChanged { nodes } = answer.read()?;
            let whom = args.targets.whom(nodes);
            terminal::write(format!("assigned {id} to {whom}; `edgeward functions show {id}` tells where it serves\n"))?;
        }
        triggers::put_all(&triggers, &args.targets.target(), client, json).await?;
        return schedules::put_all(&schedules, client, json).await;
    }
    let record: Record = answer.read()?;
    for trigger in &triggers {
        triggers::put(client, trigger.clone(), None).await?;
    }
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        // The deployment stands, also when the node cannot tell its address now.
        let functions_listen = functions_listen(client).await.ok();
        terminal::write(shown(&record, functions_listen.as_deref(), &triggers, Palette::stdout()))?;
    }
    if record.state == "failed" {
        let message = format!("function `{}` is deployed but failed to become ready: {}", record.id, record.message);
        return Err(EdgeError::new(ErrorKind::RefusedArtifact, message).into());
    }
    schedules::put_all(&schedules, client, json).await
}

async fn functions_listen(client: &Client) -> Result<String, client::Error> {
    let status: Status = client.get("/v1/status").await?.json().await?.read()?;
    Ok(status.functions_listen)
}

async fn upload(path: &Path, client: &Client) -> anyhow::Result<Handler> {
    let bytes = read(path)?;
    let bar = terminal::upload_bar(bytes.len() as u64);
    let progress = bar.clone();
    let total_bytes = bytes.len() as u64;
    let payload = Payload::with_progress(bytes, move |sent_bytes| {
        progress.inc(sent_bytes);
        if progress.position() >= total_bytes {
            terminal::spin(&progress, "the node compiles");
        }
    });
    let request = Request::new(Method::POST, "/v1/artifacts")
        .header(CONTENT_TYPE, HeaderValue::from_static("application/wasm"))
        .payload(payload)
        .answer_timeout(COMPILE_TIMEOUT);
    let answer = client.send(request).await;
    bar.finish_and_clear();
    let uploaded: Uploaded = answer?.json().await?.read()?;
    Ok(Handler::Artifact(uploaded.digest))
}

/// The signature that goes with an artifact: the one that is given, or the one beside its file.
fn signed(given: Option<PathBuf>, artifact: &Artifact) -> anyhow::Result<Option<SignedArtifact>> {
    let beside = match artifact {
        Artifact::File(path) => Some(sign::beside(path)).filter(|path| path.exists()),
        Artifact::Known(_) => None,
    };
    given.or(beside).map(|path| sign::read(&path)).transpose()
}

fn read(path: &Path) -> anyhow::Result<Bytes> {
    let failed = || format!("failed to read the artifact `{}`", path.display());
    let metadata = std::fs::metadata(path).with_context(failed)?;
    if metadata.len() > ARTIFACT_BYTES_MAX as u64 {
        let message = format!("the artifact `{}` is {} bytes, the most is {ARTIFACT_BYTES_MAX}", path.display(), metadata.len());
        return Err(EdgeError::new(ErrorKind::TooLarge, message).into());
    }
    Ok(std::fs::read(path).with_context(failed)?.into())
}

fn shown(record: &Record, functions_listen: Option<&str>, triggers: &[Trigger], palette: Palette) -> String {
    let id = &record.id;
    let style = super::functions::state_style(&record.state);
    let mut table = Table::of_fields();
    table.field("handler", record.handler.to_string());
    table.field("state", Cell::new(style, &record.state));
    table.field("generation", record.generation.to_string());
    if let Some(listen) = functions_listen {
        table.field("url", format!("http://{listen}/fn/{id}/"));
    }
    for trigger in triggers {
        let filters: Vec<_> = trigger.filters.iter().map(edgeward::TopicFilter::as_str).collect();
        table.field("topics", format!("{} by trigger {}", filters.join(" "), trigger.id));
    }
    table.field("try it", format!("edgeward invoke {id} --data 'text'"));
    format!("deployed {}\n{}", palette.paint(Style::Strong, id.as_str()), table.render(palette))
}

#[cfg(test)]
mod tests {
    use edgeward::HandlerName;

    use super::*;

    #[test]
    fn a_variable_is_split_at_its_first_equals_sign() {
        let read = variables(&["A=b=c".to_owned(), "B=".to_owned()]).expect("valid");
        assert_eq!(read, BTreeMap::from([("A".to_owned(), "b=c".to_owned()), ("B".to_owned(), String::new())]));
    }

    #[test]
    fn a_variable_without_a_name_or_value_is_refused_without_repeating_it() {
        for (text, why) in [("s3cret", "has no `=`"), ("=s3cret", "has no name"), ("", "has no `=`")] {
            let error = variables(&["A=b".to_owned(), text.to_owned()]).expect_err(text).to_string();
            assert!(error.contains(why) && error.contains("number 2") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn what_was_not_given_is_left_to_the_node() {
        let desired = Desired {
            name: "a".to_owned(),
            handler: Handler::Native(HandlerName::new("x").expect("valid")),
            environment: BTreeMap::new(),
            allowed_hosts: Vec::new(),
            documents: vec!["a:ro".parse().expect("valid")],
            memory_mb: Some(64),
            timeout_seconds: None,
            max_concurrency: None,
            max_queue: None,
            max_reuse: None,
            signature: None,
            resilience: Resilience::default(),
        };
        let json = serde_json::to_string(&desired).expect("json");
        let documents = r#"[{"document":"a","access":"read-only"}]"#;
        let expected = format!(
            r#"{{"name":"a","handler":{{"native":"x"}},"environment":{{}},"allowed_hosts":[],"documents":{documents},"memory_mb":64}}"#
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn an_artifact_past_the_bound_is_not_uploaded() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(ARTIFACT_BYTES_MAX as u64 + 1).expect("sparse");
        let error = read(file.path()).expect_err("too large");
        assert_eq!(error.downcast_ref::<EdgeError>().expect("ours").kind(), ErrorKind::TooLarge);
        assert!(read(Path::new("/nonexistent")).expect_err("absent").to_string().contains("`/nonexistent`"));
    }
}
