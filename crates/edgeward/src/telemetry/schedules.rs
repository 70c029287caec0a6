//! The metrics of the schedules of a node.

use edgeward_cluster::schedule::Outcome;
use edgeward_telemetry::{Reading, instruments};

use crate::schedules::Schedules;

pub(super) fn readings(schedules: &Schedules) -> [Reading; 5] {
    let now = schedules.now();
    let mut runs = Reading::new(&instruments::SCHEDULE_RUNS);
    let mut running = Reading::new(&instruments::SCHEDULE_RUNNING);
    let mut waiting = Reading::new(&instruments::SCHEDULE_WAITING);
    let mut lateness = Reading::new(&instruments::SCHEDULE_LATENESS);
    let mut next = Reading::new(&instruments::SCHEDULE_NEXT);
    for view in schedules.list() {
        let id = view.record.wanted.id.as_str();
        for outcome in Outcome::ALL {
            runs.push([id, outcome.as_str()], view.totals.of(outcome));
        }
        running.push([id], view.running.is_some());
        waiting.push([id], view.waiting);
        // The one that goes on, or else the last one that began.
        let begun = view.running.as_ref().map(|run| (run.due_at, run.started_at));
        let begun = begun.or_else(|| view.last.as_ref().and_then(|run| Some((run.due_at, run.started_at?))));
        if let Some((due_at, started_at)) = begun {
            lateness.push([id], started_at.duration_since(due_at).as_secs_f64().max(0.0));
        }
        if let Some(at) = view.next_due_at {
            next.push([id], at.duration_since(now).as_secs_f64());
        }
    }
    [runs, running, waiting, lateness, next]
}
