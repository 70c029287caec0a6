//! `edgeward routes`: which nodes the calls of each function go to. The hub is asked.

use edgeward::{
    FunctionId, RouteView,
    cluster::routing::{BreakerState, CandidateView, Nearness},
};
use serde::Deserialize;

use crate::{
    client::Client,
    commands::nodes::status_style,
    terminal::{self, Cell, Palette, Style, Table, latency, printable},
};

const EXAMPLES: &str = "\
Examples:
  edgeward routes
  edgeward routes hello
  edgeward routes --json | jq -r '.routes[].candidates[] | select(.breaker == \"open\").node'
  watch -n 1 edgeward routes hello

A call without a node, as `edgeward invoke hello`, goes to the first of these nodes that may be asked: those that are online before others, near ones before
far ones, and among equals as the function's policy says. A node that fails too often gets nothing while its breaker is open. Counts are since the hub began.";

/// Show which nodes the calls of each function go to, and how they do
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only this function
    function: Option<FunctionId>,
}

#[derive(Debug, Deserialize)]
struct Routes {
    routes: Vec<RouteView>,
}

/// Runs the command.
pub(crate) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let query = args.function.as_ref().map_or_else(String::new, |function| format!("?function={function}"));
    let answer = client.get(format!("/v1/routes{query}")).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        let Routes { routes } = answer.read()?;
        terminal::write(shown(&routes, Palette::stdout()))?;
    }
    Ok(())
}

fn shown(routes: &[RouteView], palette: Palette) -> String {
    if routes.is_empty() {
        return "no node is to have a function; `edgeward deploy hello.wasm --id hello --to all` deploys one\n".to_owned();
    }
    let mut functions =
        Table::new(&["FUNCTION", "BALANCE", "LOCALITY", ">CALLS", ">IN FLIGHT", ">RETRIES", ">DENIED", ">FULL", ">NO NODE"]);
    let mut nodes =
        Table::new(&["FUNCTION", "NODE", "NEAR", "STATUS", "BREAKER", ">IN FLIGHT", ">LATENCY", ">PICKS", ">FAILED", "WHY NOT"]);
    for route in routes {
        functions.row(vec![
            Cell::new(Style::Strong, route.function.as_str()),
            route.balance.as_str().into(),
            route.locality.as_str().into(),
            route.calls.to_string().into(),
            route.in_flight.to_string().into(),
            route.retries.to_string().into(),
            counted(route.retries_denied),
            counted(route.refused_full),
            counted(route.refused_unavailable),
        ]);
        for candidate in &route.candidates {
            nodes.row(row(route, candidate));
        }
    }
    format!("{}\n{}", functions.render(palette), nodes.render(palette))
}

/// A number of what should be none.
fn counted(count: u64) -> Cell {
    Cell::new(if count > 0 { Style::Warning } else { Style::Plain }, &count.to_string())
}

fn row(route: &RouteView, candidate: &CandidateView) -> Vec<Cell> {
    let (style, breaker) = match candidate.breaker {
        BreakerState::Closed => (Style::Good, "closed"),
        BreakerState::HalfOpen => (Style::Warning, "half open"),
        BreakerState::Open => (Style::Error, "open"),
    };
    let near = match candidate.nearness {
        Nearness::Here => "here",
        Nearness::SameSite => "site",
        Nearness::Elsewhere => "far",
    };
    let draining = if candidate.is_draining { ", draining" } else { "" };
    let failed = Cell::new(if candidate.failures > 0 { Style::Error } else { Style::Plain }, &candidate.failures.to_string());
    let why = match (&candidate.why_not, &candidate.last_error) {
        (Some(why), Some(error)) => format!("{why}: {}", error.message),
        (Some(why), None) => why.clone(),
        (None, _) => String::new(),
    };
    vec![
        route.function.as_str().into(),
        Cell::new(Style::Strong, candidate.node.as_str()),
        near.into(),
        Cell::new(status_style(candidate.status), &format!("{}{draining}", candidate.status)),
        Cell::new(style, breaker),
        candidate.in_flight.to_string().into(),
        candidate.latency_ms.map_or_else(|| "-".to_owned(), latency).into(),
        candidate.picks.to_string().into(),
        failed,
        printable(&why).as_ref().into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_line_with_its_counts_and_each_node_one_with_its_breaker() {
        let routes: Routes = serde_json::from_str(
            r#"{"routes": [{"function": "hello", "balance": "power_of_two", "locality": "nearest", "calls": 90, "retries": 7, "retries_denied": 1,
                "refused_full": 2, "refused_unavailable": 3, "in_flight": 4, "candidates": [
                {"node": "edge-01", "site": "berlin", "nearness": "elsewhere", "status": "online", "is_draining": true, "weight": 1, "breaker": "closed",
                 "openings": 0, "in_flight": 4, "latency_ms": 2.5, "cost": 1.0, "picks": 80, "successes": 76, "failures": 0, "cancelled": 0},
                {"node": "edge-02", "nearness": "elsewhere", "status": "offline", "is_draining": false, "weight": 1, "breaker": "open", "openings": 1,
                 "why_not": "is offline", "in_flight": 0, "cost": 1.0, "picks": 10, "successes": 0, "failures": 10, "cancelled": 0,
                 "last_error": {"kind": "unavailable", "message": "node `edge-02` is not connected", "seconds_ago": 1.5}}]}]}"#,
        )
        .expect("routes of the API");
        let text = shown(&routes.routes, Palette::plain());
        for part in [
            "hello     power_of_two  nearest      90          4        7       1     2        3",
            "edge-01  far   online, draining  closed",
            "2.50 ms",
            "edge-02  far   offline           open",
            "is offline: node `edge-02` is not connected",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(shown(&[], Palette::plain()).contains("edgeward deploy"));
    }
}
