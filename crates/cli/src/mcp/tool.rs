//! What a tool is: its parameters as a type that runs. The toolbox has all of them.

use futures::{FutureExt as _, future::BoxFuture};
use rmcp::{
    ErrorData,
    handler::server::tool::{schema_for_input, schema_for_output},
    model::{CallToolResponse, CallToolResult, JsonObject, ToolAnnotations},
};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    chaos, contract, deployments, documents, events, functions, observe, routes, schedules,
    session::{Session, ToolError},
    topics,
};

/// What a tool does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    Reads,
    /// It replaces or removes; a second call changes nothing more.
    Replaces,
    /// It changes something with every call.
    Changes,
    /// It runs what others wrote, which may do anything.
    Runs,
}

impl Effect {
    fn annotations(self) -> ToolAnnotations {
        let annotations = ToolAnnotations::new().read_only(self == Self::Reads).open_world(self == Self::Runs);
        annotations.destructive(self != Self::Reads).idempotent(matches!(self, Self::Reads | Self::Replaces))
    }
}

/// A tool: what it is called with.
pub(super) trait EdgeTool: DeserializeOwned + JsonSchema + Send + 'static {
    /// By what it is called.
    const NAME: &'static str;
    /// For people, in few words.
    const TITLE: &'static str;
    /// What it does, for who chooses a tool.
    const ABOUT: &'static str;
    /// What it does to the world.
    const EFFECT: Effect;
    /// What it gives.
    type Output: Serialize + JsonSchema + 'static;

    /// Runs it.
    fn run(self, session: &Session<'_>) -> impl Future<Output = Result<Self::Output, ToolError>> + Send;
}

struct Entry {
    tool: rmcp::model::Tool,
    run: for<'a> fn(&'a Session<'a>, JsonObject) -> BoxFuture<'a, Result<Value, ToolError>>,
}

fn entry<T: EdgeTool>() -> Entry {
    let input = schema_for_input::<T>().expect("parameters are an object");
    let tool = rmcp::model::Tool::new(T::NAME, T::ABOUT, input)
        .with_title(T::TITLE)
        .with_raw_output_schema(schema_for_output::<T::Output>())
        .with_annotations(T::EFFECT.annotations());
    Entry { tool, run: |session, arguments| run::<T>(session, arguments).boxed() }
}

async fn run<T: EdgeTool>(session: &Session<'_>, arguments: JsonObject) -> Result<Value, ToolError> {
    let tool: T = serde_json::from_value(Value::Object(arguments))
        .map_err(|error| ToolError::invalid(format!("the arguments of `{}` are not valid: {error}", T::NAME)))?;
    let output = tool.run(session).await?;
    Ok(serde_json::to_value(output).expect("outputs are objects with keys of text"))
}

/// Every tool, in the order in which they are listed.
pub(super) struct Toolbox(Vec<Entry>);

impl Toolbox {
    pub(super) fn all() -> Self {
        Self(vec![
            entry::<contract::DeployFunction>(),
            entry::<contract::NodeStatus>(),
            entry::<contract::Sync>(),
            entry::<contract::ListNodes>(),
            entry::<functions::ListFunctions>(),
            entry::<functions::DeployArtifact>(),
            entry::<functions::UndeployFunction>(),
            entry::<functions::InvokeFunction>(),
            entry::<routes::ListRoutes>(),
            entry::<schedules::ListSchedules>(),
            entry::<schedules::PutSchedule>(),
            entry::<schedules::RemoveSchedule>(),
            entry::<schedules::RunSchedule>(),
            entry::<schedules::ScheduleHistory>(),
            entry::<deployments::ListDeployments>(),
            entry::<deployments::ShowDeployment>(),
            entry::<deployments::RollOutArtifact>(),
            entry::<deployments::RemoveDeployment>(),
            entry::<deployments::ListRollouts>(),
            entry::<deployments::ShowRollout>(),
            entry::<deployments::ActOnRollout>(),
            entry::<deployments::ActOnNode>(),
            entry::<deployments::Rebalance>(),
            entry::<chaos::ListScenarios>(),
            entry::<chaos::RunExperiment>(),
            entry::<chaos::ListExperiments>(),
            entry::<chaos::ShowExperiment>(),
            entry::<chaos::StopExperiment>(),
            entry::<observe::FunctionLogs>(),
            entry::<observe::Metrics>(),
            entry::<events::WatchEvents>(),
            entry::<documents::ListDocuments>(),
            entry::<documents::ReadDocument>(),
            entry::<documents::EditDocument>(),
            entry::<documents::ListConflicts>(),
            entry::<documents::ResolveConflict>(),
            entry::<topics::PublishMessage>(),
            entry::<topics::ListTopics>(),
            entry::<topics::ReadMessages>(),
            entry::<topics::ListTriggers>(),
            entry::<topics::PutTrigger>(),
            entry::<topics::RemoveTrigger>(),
            entry::<topics::ListDeadLetters>(),
            entry::<topics::ActOnDeadLetter>(),
        ])
    }

    pub(super) fn list(&self) -> Vec<rmcp::model::Tool> {
        self.0.iter().map(|entry| entry.tool.clone()).collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&rmcp::model::Tool> {
        self.0.iter().map(|entry| &entry.tool).find(|tool| tool.name == name)
    }

    /// Runs a tool. What fails inside is a result that says so, for the assistant to read.
    pub(super) async fn call(&self, session: &Session<'_>, name: &str, arguments: JsonObject) -> Result<CallToolResponse, ErrorData> {
        let Some(entry) = self.0.iter().find(|entry| entry.tool.name == name) else {
            let shown: String = name.chars().take(SHOWN_CHARS_MAX).collect();
            return Err(ErrorData::invalid_params(format!("there is no tool `{}`", shown.escape_debug()), None));
        };
        let result = match (entry.run)(session, arguments).await {
            Ok(output) => CallToolResult::structured(output),
            Err(error) => CallToolResult::structured_error(error.json()),
        };
        Ok(result.into())
    }
}

/// What is shown of a name that nobody knows.
const SHOWN_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn tool(name: &str) -> rmcp::model::Tool {
        Toolbox::all().get(name).unwrap_or_else(|| panic!("there is `{name}`")).clone()
    }

    #[test]
    fn every_tool_says_what_it_takes_gives_and_does() {
        let tools = Toolbox::all().list();
        let names: BTreeSet<_> = tools.iter().map(|tool| tool.name.clone()).collect();
        assert_eq!(names.len(), tools.len());
        for tool in tools {
            assert!(tool.name.starts_with("edge_"), "{}", tool.name);
            assert!(tool.description.as_ref().is_some_and(|about| about.len() > 40), "{}", tool.name);
            assert_eq!(tool.input_schema["additionalProperties"], false, "{}", tool.name);
            assert_eq!(tool.output_schema.as_ref().expect("a schema")["type"], "object", "{}", tool.name);
            let properties = tool.input_schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
            for (name, property) in properties {
                assert!(property["description"].is_string(), "{}: {name}", tool.name);
            }
        }
    }

    #[test]
    fn the_four_of_the_contract_take_exactly_what_it_says() {
        let takes = |name| {
            let schema = tool(name).input_schema;
            let names = |value: Option<&Value>| -> BTreeSet<String> {
                match value {
                    Some(Value::Object(properties)) => properties.keys().cloned().collect(),
                    Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                    _ => BTreeSet::new(),
                }
            };
            (names(schema.get("properties")), names(schema.get("required")))
        };
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let deploy = set(&["function_id", "function_name", "node_id", "memory_mb", "timeout_seconds", "environment"]);
        assert_eq!(takes("edge_deploy_function"), (deploy, set(&["function_id", "function_name"])));
        assert_eq!(takes("edge_node_status"), (set(&["node_id", "include_functions"]), set(&[])));
        assert_eq!(takes("edge_sync"), (set(&["action", "node_id", "data", "version"]), set(&["action"])));
        assert_eq!(takes("edge_list_nodes"), (set(&["status_filter"]), set(&[])));
        let defaults = tool("edge_deploy_function").input_schema["properties"].clone();
        assert_eq!((&defaults["memory_mb"]["default"], &defaults["timeout_seconds"]["default"]), (&128.into(), &30.into()));
    }

    #[test]
    fn the_documentation_tells_the_effect_of_each_tool() {
        let mut told = BTreeSet::new();
        for row in include_str!("../../../../docs/mcp.md").lines() {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [tools, _, effects] = cells[..] else { continue };
            let names: Vec<_> = tools.split(", ").filter_map(|name| name.strip_prefix("`edge_")?.strip_suffix('`')).collect();
            let effects: Vec<_> = effects.split(", ").collect();
            for (number, name) in names.iter().enumerate() {
                let name = format!("edge_{name}");
                let hints = tool(&name).annotations.expect("hints");
                let hints =
                    [hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint].map(Option::unwrap);
                let means = match *effects.get(number).unwrap_or(&effects[0]) {
                    "reads" => [true, false, true, false],
                    "replaces" | "removes" => [false, true, true, false],
                    "changes" => [false, true, false, false],
                    "runs" => [false, true, false, true],
                    // The four of the specification have parameters there.
                    _ => continue,
                };
                assert_eq!(hints, means, "{name}");
                told.insert(name);
            }
        }
        let contract = ["edge_deploy_function", "edge_node_status", "edge_sync", "edge_list_nodes"];
        let all = Toolbox::all().list().into_iter().map(|tool| tool.name.to_string());
        assert_eq!(told, all.filter(|name| !contract.contains(&name.as_str())).collect());
    }

    #[test]
    fn annotations_tell_what_only_reads() {
        let reads = |name| tool(name).annotations.and_then(|hints| hints.read_only_hint).expect("told");
        for name in [
            "edge_node_status",
            "edge_list_nodes",
            "edge_read_document",
            "edge_watch_events",
            "edge_metrics",
            "edge_show_rollout",
            "edge_list_schedules",
            "edge_schedule_history",
            "edge_list_routes",
        ] {
            assert!(reads(name), "{name}");
        }
        for name in
            ["edge_deploy_function", "edge_sync", "edge_invoke_function", "edge_edit_document", "edge_act_on_rollout", "edge_run_schedule"]
        {
            assert!(!reads(name), "{name}");
        }
        let changes = |name| {
            let hints = tool(name).annotations.expect("hints");
            (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint)
        };
        for name in
            ["edge_undeploy_function", "edge_roll_out_artifact", "edge_remove_deployment", "edge_put_schedule", "edge_remove_schedule"]
        {
            assert_eq!(changes(name), (Some(false), Some(true), Some(true)), "{name}");
        }
        for name in ["edge_act_on_rollout", "edge_act_on_node", "edge_rebalance"] {
            assert_eq!(changes(name), (Some(false), Some(true), Some(false)), "{name}");
        }
    }
}
