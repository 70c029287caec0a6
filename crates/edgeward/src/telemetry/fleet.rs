//! The metrics of a hub: the nodes of its fleet, what is rolled out, and the ways of calls.

use std::time::Instant;

use edgeward_cluster::{RouteView, rollout::RolloutState, routing::BreakerState};
use edgeward_runtime::blocking;
use edgeward_telemetry::{Instrument, Reading, instruments, otlp};
use edgeward_topics::LogState;

use super::{documents, optional, process, read, seconds_since};
use crate::{
    DeploymentView,
    fleet::{ClusterHealth, EdgeCluster},
    hub::{FleetHub, HubStanding},
};

/// What a hub measures.
pub async fn hub_readings(hub: &FleetHub, started: Instant) -> Vec<Reading> {
    let is_active = matches!(*hub.standing().borrow(), HubStanding::Active { .. });
    let mut readings = vec![Reading::of(&instruments::HUB_ACTIVE, is_active)];
    readings.extend(fleet(hub.cluster()).await);
    let deployments = read("the deployments", hub.cluster().deployments().list().await).unwrap_or_default();
    readings.extend(rollouts(&deployments));
    let schedules = read("the schedules of the fleet", hub.cluster().schedules().list().await);
    readings.push(optional(Reading::new(&instruments::FLEET_SCHEDULES), schedules.map(|schedules| schedules.len())));
    let triggers = read("the triggers of the fleet", hub.cluster().triggers().list().await);
    readings.push(optional(Reading::new(&instruments::FLEET_TRIGGERS), triggers.map(|triggers| triggers.len())));
    readings.extend(topics(hub.cluster()));
    let cluster = hub.cluster().clone();
    let routes = read("the routes", blocking(move || cluster.routes()).await).unwrap_or_default();
    readings.extend(by_function(&routes));
    readings.extend(by_node(&routes));
    readings.extend(documents(hub.cluster().documents().clone()).await);
    readings.extend(process(started));
    readings.extend(otlp::readings());
    readings
}

async fn fleet(cluster: &EdgeCluster) -> [Reading; 6] {
    let of = cluster.clone();
    let health = read("the nodes", blocking(move || Ok(of.health())).await).unwrap_or_default();
    let ClusterHealth { online, degraded, syncing, offline, assignments, dropped_events, .. } = health;
    let mut nodes = Reading::new(&instruments::FLEET_NODES);
    for (status, count) in [("online", online), ("degraded", degraded), ("syncing", syncing), ("offline", offline)] {
        nodes.push([status], count);
    }
    let (mut status, mut age) = (Reading::new(&instruments::NODE_STATUS), Reading::new(&instruments::HEARTBEAT_AGE));
    for (node, is, heard_at) in cluster.standings() {
        status.push([node.as_str(), is.as_str()], true);
        if let Some(at) = heard_at {
            age.push([node.as_str()], seconds_since(at));
        }
    }
    [
        nodes,
        status,
        age,
        Reading::of(&instruments::FLEET_ASSIGNMENTS, assignments),
        Reading::of(&instruments::FLEET_EVENTS_DROPPED, cluster.events().dropped()),
        Reading::of(&instruments::FLEET_OUTBOX_DROPPED, dropped_events),
    ]
}

fn topics(cluster: &EdgeCluster) -> [Reading; 3] {
    let state = cluster.topics().ok().map(|topics| topics.state());
    let read = |instrument, number: fn(LogState) -> u64| optional(Reading::new(instrument), state.map(number));
    [
        read(&instruments::FLEET_TOPICS_SENT, |state| state.head),
        read(&instruments::FLEET_TOPICS_MESSAGES, |state| state.head.saturating_sub(state.trimmed)),
        read(&instruments::FLEET_TOPICS_BYTES, |state| state.bytes),
    ]
}

fn rollouts(deployments: &[DeploymentView]) -> [Reading; 2] {
    let mut states = Reading::new(&instruments::ROLLOUTS);
    for state in RolloutState::ALL {
        let count = deployments.iter().filter(|view| view.deployment.rollout.state == state).count();
        states.push([state.as_str()], count);
    }
    let mut nodes = Reading::new(&instruments::DEPLOYMENT_NODES);
    for view in deployments {
        let counts = view.nodes;
        for (state, count) in [
            ("wanted", counts.wanted),
            ("updated", counts.updated),
            ("ready", counts.ready),
            ("failed", counts.failed),
            ("pending", counts.pending),
        ] {
            nodes.push([view.deployment.function.as_str(), state], count);
        }
    }
    [states, nodes]
}

fn by_function(routes: &[RouteView]) -> [Reading; 4] {
    let mut calls = Reading::new(&instruments::ROUTE_CALLS);
    let mut retries = Reading::new(&instruments::ROUTE_RETRIES);
    let mut refused = Reading::new(&instruments::ROUTE_REFUSED);
    let mut in_flight = Reading::new(&instruments::ROUTE_IN_FLIGHT);
    for route in routes {
        let function = route.function.as_str();
        calls.push([function], route.calls);
        retries.push([function], route.retries);
        for (reason, count) in [("full", route.refused_full), ("unavailable", route.refused_unavailable), ("budget", route.retries_denied)]
        {
            refused.push([function, reason], count);
        }
        in_flight.push([function], route.in_flight);
    }
    [calls, retries, refused, in_flight]
}

fn by_node(routes: &[RouteView]) -> [Reading; 5] {
    let read = |instrument: &'static Instrument| Reading::new(instrument);
    let (mut picks, mut ended) = (read(&instruments::ROUTE_PICKS), read(&instruments::ROUTE_ENDED));
    let (mut latency, mut breaker) = (read(&instruments::ROUTE_LATENCY), read(&instruments::BREAKER_STATE));
    let mut openings = read(&instruments::BREAKER_OPENINGS);
    for route in routes {
        for candidate in &route.candidates {
            let of = [route.function.as_str(), candidate.node.as_str()];
            picks.push(of, candidate.picks);
            let outcomes = [("succeeded", candidate.successes), ("failed", candidate.failures), ("cancelled", candidate.cancelled)];
            for (outcome, count) in outcomes {
                ended.push([of[0], of[1], outcome], count);
            }
            if let Some(millis) = candidate.latency_ms {
                latency.push(of, millis / 1e3);
            }
            let state: u32 = match candidate.breaker {
                BreakerState::Closed => 0,
                BreakerState::HalfOpen => 1,
                BreakerState::Open => 2,
            };
            breaker.push(of, state);
            openings.push(of, candidate.openings);
        }
    }
    [picks, ended, latency, breaker, openings]
}
