//! `edgeward.toml` as it is written: its keys, and where in the file something is wrong.
//!
//! A message names the file, the line and the key. It repeats no value: one may be a secret.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use edgeward::{ContentMode, DocumentGrant, EdgeError, FunctionId, Redelivery, Resilience, Schedule, Strategy, Target};
use serde::{Deserialize, de};
use toml::Spanned;

use super::{DeploymentPlan, Project, TopicPlan};
use crate::artifact::Artifact;

/// The version of the format that is read.
const VERSION: i64 = 1;

/// What is looked at before anything else: keys of another version may have other names.
#[derive(Deserialize)]
struct Version {
    edgeward_manifest_version: Option<Spanned<i64>>,
    spin_manifest_version: Option<Spanned<de::IgnoredAny>>,
}

/// The whole file, and what it is called.
pub(super) struct Manifest<'a> {
    at: At<'a>,
    keys: Keys,
}

/// A file as messages name it, and its text.
#[derive(Clone, Copy)]
struct At<'a> {
    file: &'a str,
    text: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(rename = "edgeward_manifest_version")]
    _version: i64,
    #[serde(default)]
    application: Application,
    #[serde(default)]
    trigger: Triggers,
    component: Spanned<BTreeMap<FunctionId, Component>>,
    deployment: Option<Deployment>,
    #[serde(default)]
    schedule: Vec<Spanned<toml::Table>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
struct Application {
    name: Option<String>,
}

/// What calls the function, by kind.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
struct Triggers {
    #[serde(default)]
    http: Vec<Spanned<HttpTrigger>>,
    #[serde(default)]
    topic: Vec<Spanned<TopicTrigger>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
struct HttpTrigger {
    component: FunctionId,
    route: Option<String>,
}

/// Messages that call the function.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
struct TopicTrigger {
    component: FunctionId,
    name: Option<Spanned<String>>,
    topics: Vec<Spanned<String>>,
    #[serde(default)]
    mode: ContentMode,
    concurrency: Option<u32>,
    #[serde(default)]
    retry: Redelivery,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
struct Component {
    source: Spanned<String>,
    #[serde(default)]
    environment: BTreeMap<String, Variable>,
    #[serde(default)]
    allowed_outbound_hosts: Vec<String>,
    #[serde(default)]
    key_value_stores: Vec<Spanned<String>>,
    #[serde(default)]
    limits: Limits,
    resilience: Option<Spanned<Resilience>>,
    build: Option<Build>,
}

/// The value of an environment variable.
#[derive(PartialEq)]
pub(crate) enum Variable {
    /// It stands in the file.
    Text(String),
    /// It is in the shell's environment when the function is deployed.
    Shell(FromEnv),
}

/// A variable of the shell.
#[derive(PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FromEnv {
    /// Its name.
    pub(crate) from_env: String,
}

impl<'de> Deserialize<'de> for Variable {
    /// By hand, because a derived one would also take `["NAME"]`.
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Variable;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the value of a variable as a text, or `{ from_env = \"NAME\" }`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Variable, E> {
                Ok(Variable::Text(text.to_owned()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Variable, A::Error> {
                FromEnv::deserialize(de::value::MapAccessDeserializer::new(map)).map(Variable::Shell)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// Shows no value: one may be a secret.
impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("[redacted]"),
            Self::Shell(FromEnv { from_env }) => write!(f, "from {from_env:?}"),
        }
    }
}

/// Limits of the function; what is not said has the node's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub(crate) struct Limits {
    /// Memory of one invocation, in MiB.
    pub(crate) memory_mb: Option<u32>,
    /// Deadline of one invocation, in seconds.
    pub(crate) timeout_seconds: Option<f64>,
    /// Invocations that run at once.
    pub(crate) max_concurrency: Option<u32>,
    /// Invocations that wait.
    pub(crate) max_queue: Option<u32>,
    /// Invocations that one sandbox serves.
    pub(crate) max_reuse: Option<u32>,
}

/// What makes the artifact.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub(crate) struct Build {
    /// Command lines of the shell.
    #[serde(rename = "command")]
    pub(crate) commands: Commands,
    /// Where they run, from the folder of the file.
    pub(crate) workdir: Option<PathBuf>,
}

/// One command line, or several.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a command is a text, or a list of texts")]
pub(crate) enum Commands {
    /// One.
    One(String),
    /// Some, one after the other.
    Some(Vec<String>),
}

impl Commands {
    /// Each of them.
    pub(crate) fn each(&self) -> &[String] {
        match self {
            Self::One(command) => std::slice::from_ref(command),
            Self::Some(commands) => commands,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
struct Deployment {
    target: Target,
    strategy: Option<Spanned<Strategy>>,
}

edgeward::map_only!(Application, Triggers, HttpTrigger, TopicTrigger, Component, Limits, Build, Deployment);

impl<'a> Manifest<'a> {
    /// Reads `text`, which messages call `file`.
    pub(super) fn read(file: &'a str, text: &'a str) -> Result<Self, EdgeError> {
        let at = At { file, text };
        let Version { edgeward_manifest_version: version, spin_manifest_version } = at.parse()?;
        match (version, spin_manifest_version) {
            (Some(version), _) if *version.get_ref() == VERSION => {}
            (Some(version), _) => {
                let why = format!("`edgeward_manifest_version` is {}, and this release reads {VERSION}", version.get_ref());
                return Err(at.refused(Some(version.span()), &why));
            }
            (None, Some(spin)) => {
                let why = format!(
                    "this is a manifest of Spin; docs/edgeward-toml.md tells how it becomes one of `edgeward_manifest_version = {VERSION}`"
                );
                return Err(at.refused(Some(spin.span()), &why));
            }
            (None, None) => return Err(at.refused(None, &format!("it lacks `edgeward_manifest_version = {VERSION}`"))),
        }
        Ok(Self { at, keys: at.parse()? })
    }

    /// What it says of the function, with paths from where `file` was found.
    pub(super) fn into_project(self, file: &Path) -> Result<Project, EdgeError> {
        let Self { at, keys } = self;
        let (span, mut components) = (keys.component.span(), keys.component.into_inner());
        let count = components.len();
        let (id, component) = components.pop_first().filter(|_| count == 1).ok_or_else(|| {
            at.refused(Some(span), &format!("it has {count} components, and a project is one function; write one `[component.ID]`"))
        })?;
        check_http(at, &id, &keys.trigger.http)?;
        let triggers = topic_triggers(at, &id, keys.trigger.topic)?;
        let strategy = keys.deployment.as_ref().and_then(|deployment| deployment.strategy.as_ref());
        if let Some(strategy) = strategy {
            strategy.get_ref().validate().map_err(|error| at.refused(Some(strategy.span()), &error.to_string()))?;
        }
        if let Some(resilience) = &component.resilience {
            resilience.get_ref().validate().map_err(|error| at.refused(Some(resilience.span()), &error.to_string()))?;
        }
        let schedules = keys.schedule.into_iter().map(|schedule| read_schedule(at, &id, schedule)).collect::<Result<Vec<_>, _>>()?;
        if let Some(twice) = schedules.iter().enumerate().find(|(i, one)| schedules[..*i].iter().any(|other| other.id == one.id)) {
            return Err(at.refused(None, &format!("it has schedule `{}` twice", twice.1.id)));
        }
        let source = read_text(at, &component.source)?;
        let documents = component.key_value_stores.iter().map(|store| read_text(at, store)).collect::<Result<Vec<DocumentGrant>, _>>()?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
        Ok(Project {
            source: Artifact::below(source, &folder),
            file: file.to_path_buf(),
            folder,
            id,
            name: keys.application.name,
            environment: component.environment,
            allowed_hosts: component.allowed_outbound_hosts,
            documents,
            limits: component.limits,
            resilience: component.resilience.map(Spanned::into_inner).unwrap_or_default(),
            build: component.build,
            triggers,
            deployment: keys
                .deployment
                .map(|Deployment { target, strategy }| DeploymentPlan { target, strategy: strategy.map(Spanned::into_inner) }),
            schedules,
        })
    }
}

/// HTTP calls the function, below its own path and nowhere else; a trigger may say so.
fn check_http(at: At<'_>, id: &FunctionId, triggers: &[Spanned<HttpTrigger>]) -> Result<(), EdgeError> {
    for (index, trigger) in triggers.iter().enumerate() {
        let refused = |why: String| Err(at.refused(Some(trigger.span()), &why));
        let HttpTrigger { component, route } = trigger.get_ref();
        check_component(at, id, component, trigger.span())?;
        let served = format!("/fn/{id}/...");
        if route.as_ref().is_some_and(|route| *route != served) {
            return refused(format!("a function is served at its own route, `{served}`; write that, or leave `route` out"));
        }
        if index > 0 {
            return refused("there is a second trigger `http`, and one is enough".to_owned());
        }
    }
    Ok(())
}

/// The triggers by messages, each with its name.
fn topic_triggers(at: At<'_>, id: &FunctionId, triggers: Vec<Spanned<TopicTrigger>>) -> Result<Vec<TopicPlan>, EdgeError> {
    let mut plans: Vec<TopicPlan> = Vec::new();
    for trigger in triggers {
        let span = trigger.span();
        let TopicTrigger { component, name, topics, mode, concurrency, retry } = trigger.into_inner();
        check_component(at, id, &component, span.clone())?;
        let plan = TopicPlan {
            name: name.as_ref().map(|name| name.get_ref().clone()),
            filters: topics.iter().map(|topic| read_text(at, topic)).collect::<Result<_, _>>()?,
            mode,
            concurrency,
            retry,
        };
        if plans.iter().any(|other| other.name == plan.name) {
            let why = "there is another trigger `topic` of this name; give each a `name` of its own, and one may do without";
            return Err(at.refused(Some(span), why));
        }
        // What the node would refuse is told with its line.
        let whole = plan.of(id).and_then(|trigger| trigger.validate());
        whole.map_err(|error| at.refused(Some(name.map_or(span, |name| name.span())), &error.to_string()))?;
        plans.push(plan);
    }
    Ok(plans)
}

fn check_component(at: At<'_>, id: &FunctionId, component: &FunctionId, span: Range<usize>) -> Result<(), EdgeError> {
    if component == id {
        return Ok(());
    }
    Err(at.refused(Some(span), &format!("the trigger is of component `{component}`, and the function is `{id}`")))
}

/// A schedule of the function, by the words of the API.
fn read_schedule(at: At<'_>, id: &FunctionId, written: Spanned<toml::Table>) -> Result<Schedule, EdgeError> {
    let (span, mut table) = (written.span(), written.into_inner());
    let refused = |why: &str| at.refused(Some(span.clone()), why);
    if table.contains_key("function") {
        return Err(refused("a schedule is of the function that the file describes; leave `function` out"));
    }
    table.insert("function".to_owned(), id.as_str().into());
    let schedule = Schedule::deserialize(toml::Value::Table(table)).map_err(|error| refused(&without_value(error.message())))?;
    schedule.validate().map_err(|error| refused(&error.to_string()))?;
    Ok(schedule)
}

fn read_text<T: std::str::FromStr<Err = EdgeError>>(at: At<'_>, text: &Spanned<String>) -> Result<T, EdgeError> {
    text.get_ref().parse().map_err(|error: EdgeError| at.refused(Some(text.span()), &error.to_string()))
}

impl At<'_> {
    fn parse<T: de::DeserializeOwned>(self) -> Result<T, EdgeError> {
        toml::from_str(self.text).map_err(|error| self.refused(error.span(), &without_value(error.message())))
    }

    fn refused(self, span: Option<Range<usize>>, why: &str) -> EdgeError {
        let Self { file, text } = self;
        match span {
            Some(span) => {
                let line = text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1;
                EdgeError::invalid(format!("`{file}`, line {line}: {why}"))
            }
            None => EdgeError::invalid(format!("`{file}`: {why}")),
        }
    }
}

/// A message of the parser without the value that it may repeat.
fn without_value(message: &str) -> String {
    let is_about_value = message.starts_with("invalid type:") || message.starts_with("invalid value:");
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if is_about_value => format!("the value is not as it should be: expected {expected}"),
        _ => message.to_owned(),
    }
}
