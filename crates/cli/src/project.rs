//! A function's project: a folder with an `edgeward.toml`, and what that says.
//!
//! `docs/edgeward-toml.md` is the format. What is out of its bounds the node refuses; here only what it could not see is checked.
//! A value may be a secret, so no message repeats one.

mod manifest;
pub(crate) mod template;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::Read,
    path::{Path, PathBuf},
};

use edgeward::{
    ContentMode, DocumentGrant, EdgeError, ErrorKind, FunctionId, Redelivery, Resilience, Schedule, Strategy, Target, TopicFilter, Trigger,
    TriggerId, limits::PROJECT_FILE_BYTES_MAX,
};

pub(crate) use self::manifest::{Build, Limits, Variable};
use self::manifest::{FromEnv, Manifest};
use crate::artifact::Artifact;

/// The file that makes a folder a project.
pub(crate) const FILE_NAME: &str = "edgeward.toml";

/// What an `edgeward.toml` says, with paths from where the command runs.
#[derive(Debug, PartialEq)]
pub(crate) struct Project {
    /// The file itself.
    pub(crate) file: PathBuf,
    /// The folder of the file.
    pub(crate) folder: PathBuf,
    /// Names the function.
    pub(crate) id: FunctionId,
    /// A name for people.
    pub(crate) name: Option<String>,
    /// What runs.
    pub(crate) source: Artifact,
    /// Environment variables, and where their values come from.
    pub(crate) environment: BTreeMap<String, Variable>,
    /// Hosts that the function may call.
    pub(crate) allowed_hosts: Vec<String>,
    /// Documents that the function may open.
    pub(crate) documents: Vec<DocumentGrant>,
    /// Its limits, where they are not the node's defaults.
    pub(crate) limits: Limits,
    /// How its calls find a node.
    pub(crate) resilience: Resilience,
    /// What makes the artifact.
    pub(crate) build: Option<Build>,
    /// Messages that call it.
    pub(crate) triggers: Vec<TopicPlan>,
    /// Where it goes in a fleet, and how.
    pub(crate) deployment: Option<DeploymentPlan>,
    /// When it runs by itself.
    pub(crate) schedules: Vec<Schedule>,
}

/// Messages that call the function of a project.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TopicPlan {
    /// Tells it from others of the function.
    pub(crate) name: Option<String>,
    /// The topics.
    pub(crate) filters: Vec<TopicFilter>,
    /// What the function gets.
    pub(crate) mode: ContentMode,
    /// Messages that are handled at once; the node has a default.
    pub(crate) concurrency: Option<u32>,
    /// What becomes of messages that fail.
    pub(crate) retry: Redelivery,
}

impl TopicPlan {
    /// The trigger of this function. Its id is the function's, with its name after a dot, so that no other function has it.
    pub(crate) fn of(&self, function: &FunctionId) -> Result<Trigger, EdgeError> {
        let id = match &self.name {
            Some(name) => TriggerId::new(format!("{function}.{name}"))?,
            None => TriggerId::new(function.as_str())?,
        };
        let mut trigger = Trigger::new(id, function.clone(), self.filters.clone());
        (trigger.mode, trigger.retry) = (self.mode, self.retry);
        trigger.concurrency = self.concurrency.unwrap_or(trigger.concurrency);
        Ok(trigger)
    }
}

/// Where a function goes in a fleet, and how a new revision gets there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DeploymentPlan {
    /// The nodes.
    pub(crate) target: Target,
    /// How; the hub has defaults.
    pub(crate) strategy: Option<Strategy>,
}

impl Project {
    /// The project that a path names: its folder, or its `edgeward.toml`. Any other file is none.
    pub(crate) fn at(path: &Path) -> Result<Option<Self>, EdgeError> {
        if path.is_dir() {
            let file = path.join(FILE_NAME);
            if !file.is_file() {
                let message = format!(
                    "`{}` has no `{FILE_NAME}`; name an artifact, or the folder of a project, which `edgeward new` makes",
                    path.display()
                );
                return Err(EdgeError::invalid(message));
            }
            return Self::read(&file).map(Some);
        }
        if path.file_name().is_some_and(|name| name == FILE_NAME) { Self::read(path).map(Some) } else { Ok(None) }
    }

    fn read(file: &Path) -> Result<Self, EdgeError> {
        let shown = file.display().to_string();
        let failed = |error: std::io::Error| EdgeError::invalid(format!("failed to read `{shown}`")).with_source(error);
        let mut text = String::new();
        let limit = PROJECT_FILE_BYTES_MAX as u64;
        let bytes = std::fs::File::open(file).and_then(|file| file.take(limit + 1).read_to_string(&mut text)).map_err(failed)?;
        if bytes as u64 > limit {
            return Err(EdgeError::new(ErrorKind::TooLarge, format!("`{shown}` has more than {limit} bytes")));
        }
        Manifest::read(&shown, &text)?.into_project(file)
    }
}

impl Variable {
    /// The value for variable `name`; `shell` is the environment that the command runs in.
    pub(crate) fn value(self, name: &str, shell: impl Fn(&str) -> Option<OsString>) -> Result<String, EdgeError> {
        let from = match self {
            Self::Text(text) => return Ok(text),
            Self::Shell(FromEnv { from_env }) => from_env,
        };
        let refused = |why: &str| {
            let (name, from) = (name.escape_debug(), from.escape_debug());
            EdgeError::invalid(format!("variable `{name}` of the project comes from `{from}` of the shell, {why}"))
        };
        let value = shell(&from).ok_or_else(|| refused("which is not set; set it, or give it by `--env`"))?;
        value.into_string().map_err(|_| refused("which is no UTF-8"))
    }
}

#[cfg(test)]
mod tests;
