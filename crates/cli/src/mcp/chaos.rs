//! Tools about experiments of chaos engineering, which a hub runs.

use edgeward::{DocumentName, FunctionId};
use http::{HeaderValue, Method, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    deployments::hub_only,
    session::{Session, ToolError},
    tool::{EdgeTool, Effect},
};
use crate::client::Request;

/// Longest id of a run, in bytes: the name of an experiment, and a number.
const ID_BYTES_MAX: usize = 128;

/// An experiment that runs or ran.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Experiment {
    /// What names this run.
    id: String,
    /// The name of the experiment.
    name: String,
    /// What it is for.
    description: String,
    /// `before` the faults, with `faults`, `after` them, or `ended`.
    phase: String,
    /// RFC 3339 in UTC.
    started_at: String,
    took_seconds: f64,
    /// How long it takes when nothing ends it before.
    total_seconds: u64,
    /// `held`, `broken`, `not_steady`, `aborted` or `inconclusive`; `null` while it runs.
    verdict: Option<String>,
    /// Why.
    reason: String,
    /// The faults that are injected now, with their nodes.
    injected: Vec<String>,
    /// What was seen last: `at_seconds`, `nodes_online`, and of each function that was called `success_percent` and `p95_ms`.
    last: Option<Map<String, Value>>,
}

/// Parameters of `edge_list_scenarios`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListScenarios {}

/// Ready-made experiments.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct ScenarioList {
    scenarios: Vec<Scenario>,
}

/// A ready-made experiment.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Scenario {
    name: String,
    description: String,
    /// Its file, with `{function}`, `{document}` and `{nodes}` where what it is run with goes.
    experiment: String,
}

impl EdgeTool for ListScenarios {
    const NAME: &'static str = "edge_list_scenarios";
    const TITLE: &'static str = "Ready-made experiments";
    const ABOUT: &'static str = "Lists the ready-made experiments of chaos engineering with their files, which show how one is written: a node \
        that fails, a partition, a slow network, overload, a full disk, a cascading failure.";
    const EFFECT: Effect = Effect::Reads;
    type Output = ScenarioList;

    async fn run(self, session: &Session<'_>) -> Result<ScenarioList, ToolError> {
        hub_only(session).await?;
        session.read("/v1/chaos/scenarios").await
    }
}

/// Parameters of `edge_run_experiment`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunExperiment {
    /// The file of the experiment, as TOML; or leave it out and name a scenario.
    #[serde(default)]
    experiment: Option<String>,
    /// A ready-made experiment: `node-failure`, `partition`, `slow-network`, `overload`, `disk-full` or `cascading-failure`.
    #[serde(default)]
    scenario: Option<String>,
    /// The function that a scenario calls.
    #[serde(default)]
    function_id: Option<String>,
    /// The document that a scenario compares, where it does.
    #[serde(default)]
    document: Option<String>,
}

impl EdgeTool for RunExperiment {
    const NAME: &'static str = "edge_run_experiment";
    const TITLE: &'static str = "Run an experiment";
    const ABOUT: &'static str = "Begins an experiment of chaos engineering: parts of the fleet really fail for a while, and functions are called \
        meanwhile. It needs an admin, and a hub and nodes that were started with `--allow-chaos`. It runs on after this call: see \
        `edge_show_experiment`, and `edge_stop_experiment` to end it. One runs at a time.";
    const EFFECT: Effect = Effect::Changes;
    type Output = Experiment;

    async fn run(self, session: &Session<'_>) -> Result<Experiment, ToolError> {
        hub_only(session).await?;
        let begin = |query: &str| Request::new(Method::POST, format!("/v1/chaos/experiments{query}"));
        let request = match (self.experiment, self.scenario) {
            (Some(experiment), None) => {
                begin("").header(header::CONTENT_TYPE, HeaderValue::from_static("application/toml")).payload(experiment)
            }
            (None, Some(scenario)) => {
                let scenario: edgeward::chaos::Scenario = scenario.parse()?;
                let function =
                    self.function_id.ok_or_else(|| ToolError::invalid("say which function the scenario calls: `function_id`"))?;
                let mut query = format!("?scenario={scenario}&function={}", FunctionId::new(function)?);
                if let Some(document) = self.document {
                    query += &format!("&document={}", DocumentName::new(document)?);
                }
                begin(&query)
            }
            _ => return Err(ToolError::invalid("give either `experiment` or `scenario`")),
        };
        session.change(request).await?.json()
    }
}

/// Parameters of `edge_list_experiments`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListExperiments {}

/// Experiments.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct ExperimentList {
    /// The newest first.
    experiments: Vec<Experiment>,
}

impl EdgeTool for ListExperiments {
    const NAME: &'static str = "edge_list_experiments";
    const TITLE: &'static str = "Experiments";
    const ABOUT: &'static str = "Lists the experiments of chaos engineering that a hub runs or ran, with what came of them.";
    const EFFECT: Effect = Effect::Reads;
    type Output = ExperimentList;

    async fn run(self, session: &Session<'_>) -> Result<ExperimentList, ToolError> {
        hub_only(session).await?;
        session.read("/v1/chaos/experiments").await
    }
}

/// Parameters of `edge_show_experiment`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowExperiment {
    /// The run.
    experiment_id: String,
}

/// An experiment with its report.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Shown {
    #[serde(flatten)]
    experiment: Experiment,
    /// Its report as Markdown, with a chart; of one that runs, up to now.
    report: String,
}

impl EdgeTool for ShowExperiment {
    const NAME: &'static str = "edge_show_experiment";
    const TITLE: &'static str = "An experiment";
    const ABOUT: &'static str = "Shows one experiment of a hub: how far it is, what came of it, and its report as Markdown: each hypothesis before, \
        with and after the faults, which nodes were hit, and a chart.";
    const EFFECT: Effect = Effect::Reads;
    type Output = Shown;

    async fn run(self, session: &Session<'_>) -> Result<Shown, ToolError> {
        hub_only(session).await?;
        let path = experiment_path(&self.experiment_id)?;
        let experiment = session.read(path.clone()).await?;
        let report = session.get(format!("{path}/report?format=markdown")).await?;
        let report = String::from_utf8_lossy(&report.bytes).into_owned();
        Ok(Shown { experiment, report })
    }
}

/// Parameters of `edge_stop_experiment`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StopExperiment {
    /// The run.
    experiment_id: String,
}

impl EdgeTool for StopExperiment {
    const NAME: &'static str = "edge_stop_experiment";
    const TITLE: &'static str = "End an experiment";
    const ABOUT: &'static str = "Ends an experiment of a hub before its time, and with it every fault that it injects. It needs an admin. One that is \
        over stays as it is.";
    const EFFECT: Effect = Effect::Replaces;
    type Output = Experiment;

    async fn run(self, session: &Session<'_>) -> Result<Experiment, ToolError> {
        hub_only(session).await?;
        let path = experiment_path(&self.experiment_id)?;
        session.change(Request::new(Method::POST, format!("{path}/stop"))).await?.json()
    }
}

/// Where an experiment is. What can be no part of a path names none.
fn experiment_path(id: &str) -> Result<String, ToolError> {
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c)) {
        let shown: String = id.chars().take(ID_BYTES_MAX).collect();
        return Err(ToolError::not_found(format!("experiment not found: `{}`", shown.escape_debug())));
    }
    Ok(format!("/v1/chaos/experiments/{id}"))
}

#[cfg(test)]
mod tests {
    use edgeward::ErrorKind;

    use super::*;

    #[test]
    fn what_can_be_no_part_of_a_path_names_no_experiment() {
        assert_eq!(experiment_path("slow:1").expect("an id"), "/v1/chaos/experiments/slow:1");
        for bad in ["", "a/stop", "a?b", "a%2Fb", &"a".repeat(129)] {
            assert_eq!(experiment_path(bad).expect_err("refused").kind, ErrorKind::NotFound, "{bad}");
        }
    }
}
