//! Tools about what runs by itself: schedules of a node, or of a fleet by its hub.

use edgeward::{FunctionId, ScheduleId};
use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    functions::of_node,
    session::{Session, ToolError},
    tool::{EdgeTool, Effect},
};
use crate::client::Request;

/// When which function runs by itself.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Schedule {
    id: String,
    /// The function that runs.
    function: String,
    /// `every 30s`, `at 2026-12-24T18:00:00Z`, or a cron expression.
    when: String,
    /// Whose local time a cron expression means.
    zone: String,
    /// Which nodes of a fleet run it, each for itself.
    target: String,
    /// What the function gets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    payload: String,
    /// What becomes of missed due times: `skip`, `once` or `all=N`.
    catch_up: String,
    /// Tries of one due time.
    attempts: u64,
    /// Whether it runs at all.
    enabled: bool,
    /// Grows with every change.
    generation: u64,
    /// When it is due next, RFC 3339 in UTC; `null` when it is off, or never will be.
    #[serde(default)]
    next_due_at: Option<String>,
    /// Of a hub: the nodes that have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<String>>,
    /// Of a node: `node`, or `fleet` for what its hub wants there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Of a node: the run that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running: Option<Map<String, Value>>,
    /// Of a node: the last run, with its `outcome`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Map<String, Value>>,
    /// Of a node: how often which outcome came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    totals: Option<Map<String, Value>>,
}

/// Parameters of `edge_list_schedules`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListSchedules {}

/// Schedules.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct ScheduleList {
    schedules: Vec<Schedule>,
}

impl EdgeTool for ListSchedules {
    const NAME: &'static str = "edge_list_schedules";
    const TITLE: &'static str = "Schedules";
    const ABOUT: &'static str = "Lists what runs by itself: each schedule's function and times, when it is due next, on a hub the nodes that have \
        it, on a node how it went.";
    const EFFECT: Effect = Effect::Reads;
    type Output = ScheduleList;

    async fn run(self, session: &Session<'_>) -> Result<ScheduleList, ToolError> {
        session.read("/v1/schedules").await
    }
}

/// Parameters of `edge_put_schedule`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutSchedule {
    /// The schedule's id. One that is there already is replaced.
    schedule_id: String,
    /// The function that runs.
    function_id: String,
    /// `every 30s` (whole seconds, as `1h30m` too), `at 2026-12-24T18:00:00Z` for once, or a cron expression of minute, hour, day of month, month and day of
    /// week, such as `30 2 * * MON-FRI` or `@daily`.
    when: String,
    /// Whose local time a cron expression means, such as `Europe/Berlin`; UTC when it is left out.
    #[serde(default)]
    zone: Option<String>,
    /// On a hub: which nodes run it, each for itself, as `all`, `node=ID`, `site=berlin`, `count=2`, or `one` for any one of them, which is the default.
    #[serde(default)]
    target: Option<String>,
    /// What the function gets, as text; JSON unless `content_type` says otherwise.
    #[serde(default)]
    payload: Option<String>,
    /// The type of the payload.
    #[serde(default)]
    content_type: Option<String>,
    /// What becomes of due times at which the node could not: `skip`, `once` for all together (the default), or `all=5` for up to 5.
    #[serde(default)]
    catch_up: Option<String>,
    /// By how much a run may begin later, in seconds.
    #[serde(default)]
    jitter_seconds: Option<u32>,
    /// Tries of a due time that fails, 1 to 10.
    #[serde(default)]
    attempts: Option<u32>,
    /// Deadline of one try, in seconds; the function's own when it is left out.
    #[serde(default)]
    timeout_seconds: Option<f64>,
    /// False: it is kept, and does not run.
    #[serde(default)]
    enabled: Option<bool>,
}

/// A schedule that was put.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Put {
    /// `scheduled`.
    status: &'static str,
    schedule: Schedule,
}

impl EdgeTool for PutSchedule {
    const NAME: &'static str = "edge_put_schedule";
    const TITLE: &'static str = "Put a schedule";
    const ABOUT: &'static str = "Has a function run by itself, over and over or once, on a node, or on nodes of a fleet by its hub, also while they are \
        offline. What is left out has its default; an id that is there already is replaced.";
    const EFFECT: Effect = Effect::Replaces;
    type Output = Put;

    async fn run(self, session: &Session<'_>) -> Result<Put, ToolError> {
        let id = ScheduleId::new(&self.schedule_id)?;
        let wanted = json!({
            "function": FunctionId::new(&self.function_id)?,
            "when": self.when,
            "zone": self.zone,
            "target": self.target,
            "payload": self.payload,
            "content_type": self.content_type,
            "catch_up": self.catch_up,
            "jitter_seconds": self.jitter_seconds,
            "attempts": self.attempts,
            "timeout_seconds": self.timeout_seconds,
            "enabled": self.enabled,
        });
        let request = Request::new(Method::PUT, format!("/v1/schedules/{id}")).payload(wanted.to_string());
        Ok(Put { status: "scheduled", schedule: session.change(request).await?.json()? })
    }
}

/// Parameters of `edge_remove_schedule`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveSchedule {
    /// The schedule.
    schedule_id: String,
}

/// A schedule that is gone.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Removed {
    /// `removed`.
    status: &'static str,
    schedule_id: String,
}

impl EdgeTool for RemoveSchedule {
    const NAME: &'static str = "edge_remove_schedule";
    const TITLE: &'static str = "Remove a schedule";
    const ABOUT: &'static str = "Removes a schedule with its history. A run of it that goes on ends by itself.";
    const EFFECT: Effect = Effect::Replaces;
    type Output = Removed;

    async fn run(self, session: &Session<'_>) -> Result<Removed, ToolError> {
        let id = ScheduleId::new(&self.schedule_id)?;
        session.change(Request::new(Method::DELETE, format!("/v1/schedules/{id}"))).await?;
        Ok(Removed { status: "removed", schedule_id: id.to_string() })
    }
}

/// Parameters of `edge_run_schedule`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunSchedule {
    /// The schedule.
    schedule_id: String,
    /// On this node; a hub needs it when several have the schedule.
    #[serde(default)]
    node_id: Option<String>,
}

/// A run that began.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Begun {
    /// `started`.
    status: &'static str,
    schedule_id: String,
    /// When, RFC 3339 in UTC.
    started_at: String,
}

/// What is read of a run.
#[derive(Debug, Deserialize)]
struct Run {
    started_at: String,
}

impl EdgeTool for RunSchedule {
    const NAME: &'static str = "edge_run_schedule";
    const TITLE: &'static str = "Run a schedule now";
    const ABOUT: &'static str =
        "Starts a run of a schedule now, beside its due times, and returns before it ends: `edge_schedule_history` tells how.";
    const EFFECT: Effect = Effect::Runs;
    type Output = Begun;

    async fn run(self, session: &Session<'_>) -> Result<Begun, ToolError> {
        let id = ScheduleId::new(&self.schedule_id)?;
        let query = of_node(self.node_id.as_deref())?;
        let Run { started_at } = session.change(Request::new(Method::POST, format!("/v1/schedules/{id}/run{query}"))).await?.json()?;
        Ok(Begun { status: "started", schedule_id: id.to_string(), started_at })
    }
}

/// Parameters of `edge_schedule_history`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleHistory {
    /// The schedule.
    schedule_id: String,
    /// On this node; a hub needs it when several have the schedule.
    #[serde(default)]
    node_id: Option<String>,
}

/// What ran of a schedule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct History {
    /// Newest first: `due_at`, `count` of due times that it tells of, `attempt` (0 where nothing ran), `started_at`, `ended_at`, `outcome` (`succeeded`, `failed`,
    /// `interrupted`, `skipped` or `missed`) and `message`.
    runs: Vec<Map<String, Value>>,
    /// How often which outcome came.
    totals: Map<String, Value>,
}

impl EdgeTool for ScheduleHistory {
    const NAME: &'static str = "edge_schedule_history";
    const TITLE: &'static str = "History of a schedule";
    const ABOUT: &'static str =
        "Tells what ran of a schedule on a node and what did not, and why: the last 50 runs, and how many of each outcome.";
    const EFFECT: Effect = Effect::Reads;
    type Output = History;

    async fn run(self, session: &Session<'_>) -> Result<History, ToolError> {
        let id = ScheduleId::new(&self.schedule_id)?;
        let query = of_node(self.node_id.as_deref())?;
        session.read(format!("/v1/schedules/{id}/history{query}")).await
    }
}
