//! `/v1/chaos`: experiments of chaos engineering, their reports, and those that are ready-made.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, Query, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use edgeward::{
    DocumentName, EdgeError, ExperimentView, FleetHub, FunctionId,
    access::Caller,
    chaos::{Experiment, Report, Scenario},
    limits::EXPERIMENT_BYTES_MAX,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{Refusal, audit, read_body, wire};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct ExperimentPath {
    /// The run: the name of the experiment, `:` and a number.
    id: String,
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct ScenarioQuery {
    /// A ready-made experiment, in place of a body.
    scenario: Option<String>,
    /// The function that a ready-made experiment calls.
    function: Option<String>,
    /// The document that it compares, where it does.
    document: Option<String>,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Markdown,
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct FormatQuery {
    /// `json`, or `markdown` for people, with a chart.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    format: Format,
}

/// Experiments, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExperimentsAnswer {
    /// `id`, `name`, `description`, `phase` (`before`, `faults`, `after` or `ended`), `started_at`, `took_seconds`, `total_seconds`, `verdict` and `reason` once
    /// it is over, `injected` and `last`, which is what was seen last.
    #[schema(value_type = Vec<Object>)]
    experiments: Vec<ExperimentView>,
}

/// A ready-made experiment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScenarioAnswer {
    name: &'static str,
    description: String,
    /// Its file, with `{function}`, `{document}` and `{nodes}` where what it is run with goes.
    experiment: String,
}

/// The ready-made experiments.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScenariosAnswer {
    scenarios: Vec<ScenarioAnswer>,
}

/// Begins an experiment, which then runs to its end, whoever asked for it. The body is the file of the experiment, as TOML, or as JSON with that content
/// type; or it is empty, and the query names a scenario. The hub and every node that could be hit must have been started with `--allow-chaos`.
#[utoipa::path(
    post, path = "/v1/chaos/experiments", operation_id = "start_experiment", tag = "chaos", params(ScenarioQuery),
    request_body(content((String = "application/toml"), (Object = "application/json"))),
    responses(
        (status = 202, description = "It has begun.", body = Object),
        (status = 400, description = "It is not valid, names what there is not, or cannot be done there.", body = wire::Problem),
        (status = 403, description = "The hub, or a node, lets nobody inject faults.", body = wire::Problem),
        (status = 412, description = "Another one runs.", body = wire::Problem),
        (status = 503, description = "This hub is not the active one, or a node is not there.", body = wire::Problem),
    )
)]
pub(crate) async fn start(
    State(hub): State<Arc<FleetHub>>,
    Query(query): Query<ScenarioQuery>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, Refusal> {
    let is_json = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let body = read_body(request, EXPERIMENT_BYTES_MAX).await?;
    hub.check_active()?;
    let chaos = hub.cluster().chaos();
    let experiment = match (query.scenario, body.bytes.is_empty()) {
        (Some(scenario), true) => {
            let scenario: Scenario = scenario.parse()?;
            let function =
                query.function.ok_or_else(|| EdgeError::invalid(format!("say which function the scenario `{scenario}` calls")))?;
            let document = query.document.map(DocumentName::new).transpose()?;
            chaos.scenario(scenario, &FunctionId::new(function)?, document.as_ref())?
        }
        (Some(_), false) => return Err(EdgeError::invalid("give an experiment or name a scenario, not both").into()),
        (None, true) => return Err(EdgeError::invalid("give an experiment as the body, or name a scenario").into()),
        (None, false) if query.function.is_some() || query.document.is_some() => {
            return Err(EdgeError::invalid("`function` and `document` go with a `scenario`; an experiment says its own").into());
        }
        (None, false) if is_json => serde_json::from_slice::<Experiment>(&body.bytes)
            .map_err(|error| EdgeError::invalid(format!("the experiment is not valid: {error}")))?,
        (None, false) => {
            let text = std::str::from_utf8(&body.bytes).map_err(|_| EdgeError::invalid("the experiment is not text"))?;
            Experiment::read("experiment", text)?
        }
    };
    let view = chaos.start(experiment).await?;
    audit::experiment("began", &view.id, caller.as_deref());
    let location = format!("/v1/chaos/experiments/{}", view.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(view)).into_response())
}

/// Every experiment that is known, the newest first.
#[utoipa::path(
    get, path = "/v1/chaos/experiments", operation_id = "list_experiments", tag = "chaos",
    responses((status = 200, body = ExperimentsAnswer))
)]
pub(crate) async fn list(State(hub): State<Arc<FleetHub>>) -> Result<Json<ExperimentsAnswer>, Refusal> {
    Ok(Json(ExperimentsAnswer { experiments: hub.cluster().chaos().list().await? }))
}

/// One experiment, as it is now.
#[utoipa::path(
    get, path = "/v1/chaos/experiments/{id}", operation_id = "show_experiment", tag = "chaos", params(ExperimentPath),
    responses((status = 200, body = Object), (status = 404, body = wire::Problem))
)]
pub(crate) async fn show(
    State(hub): State<Arc<FleetHub>>,
    Path(ExperimentPath { id }): Path<ExperimentPath>,
) -> Result<Json<ExperimentView>, Refusal> {
    Ok(Json(hub.cluster().chaos().get(&id).await?))
}

/// The report of an experiment; of one that runs, up to now.
#[utoipa::path(
    get, path = "/v1/chaos/experiments/{id}/report", operation_id = "report_experiment", tag = "chaos", params(ExperimentPath, FormatQuery),
    responses(
        (status = 200, content((Object = "application/json"), (String = "text/markdown"))),
        (status = 404, body = wire::Problem),
    )
)]
pub(crate) async fn report(
    State(hub): State<Arc<FleetHub>>,
    Path(ExperimentPath { id }): Path<ExperimentPath>,
    Query(FormatQuery { format }): Query<FormatQuery>,
) -> Result<Response, Refusal> {
    let report: Report = hub.cluster().chaos().report(&id).await?;
    Ok(match format {
        Format::Json => Json(report).into_response(),
        Format::Markdown => ([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], report.to_markdown()).into_response(),
    })
}

/// Ends an experiment before its time, and answers once its faults have ended. One that is over stays as it is.
#[utoipa::path(
    post, path = "/v1/chaos/experiments/{id}/stop", operation_id = "stop_experiment", tag = "chaos", params(ExperimentPath),
    responses(
        (status = 200, body = Object),
        (status = 404, body = wire::Problem),
        (status = 503, description = "This hub is not the active one.", body = wire::Problem),
    )
)]
pub(crate) async fn stop(
    State(hub): State<Arc<FleetHub>>,
    Path(ExperimentPath { id }): Path<ExperimentPath>,
    caller: Option<Extension<Caller>>,
) -> Result<Json<ExperimentView>, Refusal> {
    hub.check_active()?;
    let chaos = hub.cluster().chaos();
    chaos.get(&id).await?;
    audit::experiment("stopped", &id, caller.as_deref());
    Ok(Json(chaos.stop(&id, "somebody ended it").await?))
}

/// The ready-made experiments.
#[utoipa::path(
    get, path = "/v1/chaos/scenarios", operation_id = "list_scenarios", tag = "chaos",
    responses((status = 200, body = ScenariosAnswer))
)]
pub(crate) async fn scenarios() -> Json<ScenariosAnswer> {
    let scenarios = Scenario::ALL.into_iter().map(|scenario| ScenarioAnswer {
        name: scenario.as_str(),
        description: scenario.description(),
        experiment: scenario.template().to_owned(),
    });
    Json(ScenariosAnswer { scenarios: scenarios.collect() })
}
