//! `edgeward deploy --to`: wants a function deployed in a fleet, and waits until its rollout has ended.

use edgeward::{FunctionId, Strategy, Target, cluster::rollout::RolloutState, deployments::Difference};
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize};

use super::{COMPILE_TIMEOUT, Desired};
use crate::{
    client::{Client, Request},
    commands::deployments::DeploymentRecord,
    rollout::{self, RolloutRecord},
    terminal::{self, Cell, Palette, Style, Table, printable},
};

/// What is wanted beside the function.
pub(super) struct Wanted {
    pub(super) target: Target,
    pub(super) strategy: Strategy,
    pub(super) if_generation: Option<u64>,
    pub(super) dry_run: bool,
    /// Whether to return without waiting for the rollout.
    pub(super) no_wait: bool,
}

/// Body of `PUT /v1/deployments/{id}`.
#[derive(Serialize)]
struct Body<'a> {
    function: &'a Desired,
    target: &'a Target,
    strategy: &'a Strategy,
}

/// What applying a deployment would do, as the API answers.
#[derive(Debug, Deserialize)]
struct Plan {
    revision: u64,
    is_new: bool,
    from: Option<u64>,
    differences: Vec<Difference>,
    waves: Vec<Wave>,
    pending: std::collections::BTreeMap<String, String>,
    leaving: Vec<String>,
    #[serde(default)]
    missing: String,
}

#[derive(Debug, Deserialize)]
struct Wave {
    number: usize,
    of: String,
    nodes: Vec<String>,
    batches: Vec<usize>,
}

/// Deploys, or says what that would do.
pub(super) async fn deploy(id: &FunctionId, function: &Desired, wanted: Wanted, client: &Client, json: bool) -> anyhow::Result<()> {
    let Wanted { target, strategy, if_generation, dry_run, no_wait } = wanted;
    let query = if dry_run { "?dry_run=true" } else { "" };
    let mut request = Request::new(Method::PUT, format!("/v1/deployments/{id}{query}"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .payload(serde_json::to_vec(&Body { function, target: &target, strategy: &strategy })?)
        .answer_timeout(COMPILE_TIMEOUT);
    if let Some(generation) = if_generation {
        request = request.if_generation(generation);
    }
    let spinner = terminal::spinner("the hub looks at it");
    let answer = client.send(request).await;
    spinner.finish_and_clear();
    let answer = answer?.json().await?;
    if dry_run {
        if json {
            terminal::write_json(answer.bytes())?;
        } else {
            terminal::write(planned(id, &answer.read()?, Palette::stdout()))?;
        }
        return Ok(());
    }
    let record: DeploymentRecord = answer.read()?;
    if no_wait {
        if json {
            terminal::write_json(answer.bytes())?;
        } else {
            let revision = record.revision;
            terminal::write(format!(
                "revision {revision} of {id} is to run on {target}; `edgeward rollouts show {id} --follow` shows how it gets there\n"
            ))?;
        }
        return Ok(());
    }
    let (ended, answer) = ended(client, id, &record).await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        terminal::write(rollout::shown(&ended, Palette::stdout()))?;
        if ended.rollout.state == RolloutState::Paused {
            terminal::note("it is paused; `edgeward rollouts resume` or `abort` decides");
        }
    }
    Ok(rollout::outcome(&ended)?)
}

/// Waits for the rollout of this deployment; where nothing had to be rolled out, for the hub to have seen it.
async fn ended(client: &Client, id: &FunctionId, record: &DeploymentRecord) -> anyhow::Result<(RolloutRecord, crate::client::Json)> {
    let spinner = terminal::spinner("the rollout before it goes back first");
    loop {
        let present: DeploymentRecord = client.get(format!("/v1/deployments/{id}")).await?.json().await?.read()?;
        if present.observed_generation < record.generation {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            continue;
        }
        spinner.finish_and_clear();
        return rollout::follow(client, id.as_str(), present.rollout_generation()).await;
    }
}

fn planned(id: &FunctionId, plan: &Plan, palette: Palette) -> String {
    let kind = if plan.is_new { "a new one" } else { "one that is kept" };
    let from = plan.from.map_or_else(|| "nothing".to_owned(), |from| format!("revision {from}"));
    let mut text = format!("{}: revision {} ({kind}) in place of {from}\n", palette.paint(Style::Strong, id.as_str()), plan.revision);
    for Difference { field, from, to } in &plan.differences {
        let value = |value: &Option<serde_json::Value>| value.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        text.push_str(&printable(&format!("  {field}: {} -> {}", value(from), value(to))));
        text.push('\n');
    }
    let mut table = Table::new(&["WAVE", ">NODES", "BATCHES", "FIRST"]);
    for wave in &plan.waves {
        let steps: Vec<_> =
            wave.batches.iter().scan(0, |had, batch| Some(batch - std::mem::replace(had, *batch))).map(|n| n.to_string()).collect();
        let more = if steps.len() > 8 { format!(" … ({} batches)", steps.len()) } else { String::new() };
        let mut first = wave.nodes.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        if wave.nodes.len() > 3 {
            first.push_str(", …");
        }
        table.row(vec![
            format!("{} {}", wave.number + 1, printable(&wave.of)).into(),
            wave.nodes.len().to_string().into(),
            format!("{}{more}", steps.iter().take(8).cloned().collect::<Vec<_>>().join(" + ")).into(),
            first.into(),
        ]);
    }
    if plan.waves.is_empty() {
        text.push_str("no node is in its target\n");
    } else {
        text.push_str(&table.render(palette));
    }
    let mut fields = Table::of_fields();
    for (node, why) in &plan.pending {
        fields.field("waits", format!("{node}: {}", printable(why)));
    }
    for node in &plan.leaving {
        fields.field("leaves", node.as_str());
    }
    if !plan.missing.is_empty() {
        fields.field("missing", Cell::new(Style::Warning, &printable(&plan.missing)));
    }
    text.push_str(&fields.render(palette));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_shows_its_waves_and_who_has_to_wait() {
        let plan: Plan = serde_json::from_str(
            r#"{"revision": 3, "is_new": true, "from": 2, "differences": [{"field": "memory_mb", "from": 128, "to": 64}],
                "waves": [{"number": 1, "of": "site=a", "nodes": ["a1", "a2", "a3", "a4"], "batches": [1, 3, 4]}],
                "pending": {"a2": "offline since yesterday"}, "leaving": ["b9"], "missing": "1 could not be placed: no node has `gpu`"}"#,
        )
        .expect("a plan of the API");
        let text = planned(&FunctionId::new("f").expect("valid"), &plan, Palette::plain());
        for part in [
            "revision 3 (a new one) in place of revision 2",
            "memory_mb: 128 -> 64",
            "2 site=a",
            "1 + 2 + 1",
            "a1, a2, a3, …",
            "a2: offline",
            "b9",
            "no node has `gpu`",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
