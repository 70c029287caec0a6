//! Trials, reports and the faults of a node by example, and what holds of any.

use std::{collections::BTreeSet, time::Duration};

use edgeward_model::{
    DocumentName, EdgeNode, ErrorKind, Experiment, FunctionId, NodeId,
    chaos::{Fault, Scenario},
    limits::FAULTS_MAX,
};
use proptest::prelude::*;

use super::*;
use crate::random::Random;

fn function() -> FunctionId {
    FunctionId::new("resize").expect("valid")
}

fn document() -> DocumentName {
    DocumentName::new("state").expect("valid")
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn fault(json: &str) -> Fault {
    serde_json::from_str(json).expect(json)
}

/// Before 10 s; errors from 15 to 45 s; until 70 s; a hundred calls a second.
fn experiment(parts: &str) -> Experiment {
    let text = format!(
        "name = \"small\"\nduration_seconds = 60\n[[load]]\nfunction = \"resize\"\nper_second = 100\n[[fault]]\nkind = \"error\"\nbegins_after_seconds = 5\nduration_seconds = 30\nfunction = \"resize\"\n{parts}"
    );
    Experiment::read("small", &text).expect("valid")
}

fn trial(experiment: Experiment) -> Trial {
    Trial::new(experiment, "2026-06-01T00:00:00Z".parse().expect("a time"), seconds(30))
}

const SUCCESS: &str = "[[steady_state]]\nprobe = \"success_rate\"\nfunction = \"resize\"\nat_least_percent = 99\n";
const FAST: &str = "[[steady_state]]\nprobe = \"p95\"\nfunction = \"resize\"\nat_most_ms = 50\n";
const ONLINE: &str = "[[steady_state]]\nprobe = \"nodes_online\"\nat_least = 3\n";
const SAME: &str = "[[steady_state]]\nprobe = \"converged\"\ndocument = \"state\"\ndemanded = \"recovered\"\n";
const ABORT: &str = "[[abort]]\nprobe = \"success_rate\"\nfunction = \"resize\"\nat_least_percent = 50\nfor_seconds = 3\n";

/// All is well: the hundred calls of the second before took 10 ms, three nodes, one state.
fn well(at: u64) -> Observation {
    calls(at, 0, 10.0)
}

/// The same, of which so many calls failed and took so long.
fn calls(at: u64, failed: u64, millis: f64) -> Observation {
    let calls = of_second(at.saturating_sub(1), 100, failed, millis);
    Observation { at: seconds(at), calls, nodes_online: 3, converged: [(document(), true)].into() }
}

/// So many calls that were due in a second, of which so many failed and took so long.
fn of_second(second: u64, count: u64, failed: u64, millis: f64) -> CallsByDue {
    let mut calls = Calls::default();
    (0..count).for_each(|number| calls.add(number >= failed, millis));
    [(second, [(function(), calls)].into())].into()
}

/// Runs it to its end, observed a little past each second; the seconds in which its fault was to be injected, and the report. Calls that did not end until
/// then never do.
fn run(experiment: Experiment, seen: impl Fn(u64) -> Observation) -> (Vec<u64>, Report) {
    let (injected, trial) = run_to_end(experiment, seen);
    (injected, settled(trial, CallsByDue::new()))
}

fn run_to_end(experiment: Experiment, seen: impl Fn(u64) -> Observation) -> (Vec<u64>, Trial) {
    let mut trial = trial(experiment);
    let mut injected = Vec::new();
    for second in 1..1000 {
        let seen = seen(second);
        match trial.observe(Observation { at: seen.at + Duration::from_millis(3), ..seen }) {
            Next::Inject(faults) => {
                injected.extend((!faults.is_empty()).then_some(second));
                for fault in faults {
                    trial.hit(fault, [NodeId::new("edge-01").expect("valid")].into());
                }
            }
            Next::End => break,
        }
    }
    assert!(trial.is_over());
    assert_eq!(trial.observe(well(2000)), Next::End, "what is over stays so");
    (injected, trial)
}

fn settled(mut trial: Trial, ended: CallsByDue) -> Report {
    trial.settle(ended, seconds(101));
    trial.report()
}

#[test]
fn a_fleet_that_bears_its_faults_holds_and_they_are_injected_in_their_time_only() {
    let (injected, report) = run(experiment(&[SUCCESS, FAST, ONLINE, SAME].concat()), well);
    assert_eq!((report.verdict, report.reason.as_str()), (Verdict::Held, "every hypothesis held"));
    assert_eq!(injected, (15..45).collect::<Vec<_>>());
    assert!((report.took_seconds - 70.0).abs() < 0.01, "{}", report.took_seconds);
    assert!(report.hypotheses.iter().all(|judged| judged.holds == Some(true) && judged.recovered_after_seconds == Some(1)), "{report:?}");
}

#[test]
fn a_hypothesis_that_does_not_hold_while_the_faults_last_is_broken() {
    let in_faults = |at: u64| (16..=45).contains(&at);
    for (parts, seen, why) in [
        (
            SUCCESS,
            Box::new(|at| calls(at, if in_faults(at) { 2 } else { 0 }, 10.0)) as Box<dyn Fn(u64) -> Observation>,
            "while the faults lasted it was 98.00%",
        ),
        (FAST, Box::new(|at| calls(at, 0, if in_faults(at) { 100.0 } else { 10.0 })), "while the faults lasted it was 99 ms"),
        (ONLINE, Box::new(|at| Observation { nodes_online: if at == 30 { 2 } else { 3 }, ..well(at) }), "while the faults lasted it was 2"),
    ] {
        let (_, report) = run(experiment(parts), seen);
        assert_eq!(report.verdict, Verdict::Broken, "{parts}");
        assert!(report.reason.contains(why), "{}", report.reason);
    }
    let (_, report) = run(experiment(SUCCESS), |at| calls(at, 1, 10.0));
    assert_eq!(report.verdict, Verdict::Held, "99 of 100 are 99 of 100");
    // A single bad second among thirty is not more than one of a hundred.
    let (_, report) = run(experiment(SUCCESS), |at| calls(at, if at == 30 { 29 } else { 0 }, 10.0));
    assert_eq!(report.verdict, Verdict::Held);
    // What is to hold before and after may fail meanwhile.
    let (_, report) = run(experiment(SAME), |at| Observation { converged: [(document(), !in_faults(at))].into(), ..well(at) });
    assert_eq!(report.verdict, Verdict::Held);
    assert_eq!((report.hypotheses[0].before.as_str(), report.hypotheses[0].during.as_str()), ("always", "0% of the time"));
}

#[test]
fn nodes_may_be_missing_for_as_long_as_is_tolerated() {
    for (away, expected) in [(5, Verdict::Held), (6, Verdict::Held), (7, Verdict::Broken)] {
        let tolerant = ONLINE.replace("at_least = 3", "at_least = 3\ntolerance_seconds = 5");
        let seen = move |at| Observation { nodes_online: if (20..20 + away).contains(&at) { 2 } else { 3 }, ..well(at) };
        assert_eq!(run(experiment(&tolerant), seen).1.verdict, expected, "{away} s");
    }
}

#[test]
fn what_has_not_recovered_at_the_end_is_broken_and_what_has_tells_when() {
    let until = |bad: u64| move |at: u64| Observation { nodes_online: if (16..=bad).contains(&at) { 2 } else { 3 }, ..well(at) };
    let recovered = ONLINE.replace("at_least = 3", "at_least = 3\ndemanded = \"recovered\"");
    let (_, report) = run(experiment(&recovered), until(55));
    assert_eq!((report.verdict, report.hypotheses[0].recovered_after_seconds), (Verdict::Held, Some(11)));
    let (_, report) = run(experiment(&recovered), until(70));
    assert_eq!((report.verdict, report.hypotheses[0].recovered_after_seconds), (Verdict::Broken, None));
    assert!(report.reason.contains("it had not recovered at the end: 2"), "{}", report.reason);
    let (_, report) = run(experiment(SUCCESS), |at| calls(at, if at > 45 { 50 } else { 0 }, 10.0));
    assert!(report.verdict == Verdict::Broken && report.reason.contains("50.00%"), "{}", report.reason);
}

/// A third of the calls hang while the faults last, for 30 seconds, and then fail.
fn hanging(at: u64) -> Observation {
    let hang = |second: u64| (15..45).contains(&second);
    let mut calls = of_second(at - 1, if hang(at - 1) { 67 } else { 100 }, 0, 10.0);
    if at > 30 && hang(at - 31) {
        calls.extend(of_second(at - 31, 33, 33, 30_000.0));
    }
    Observation { calls, ..well(at) }
}

#[test]
fn calls_are_judged_with_the_faults_that_met_them_however_late_they_end() {
    let broken = "while the faults lasted it was 67.00%";
    let (_, trial) = run_to_end(experiment(SUCCESS), hanging);
    assert_eq!(trial.report().reason, "it is not over", "some calls are under way");
    let late: CallsByDue = (40..45).flat_map(|second| of_second(second, 33, 33, 30_000.0)).collect();
    let report = settled(trial, late);
    assert_eq!((report.verdict, report.hypotheses[0].why.as_str()), (Verdict::Broken, broken));
    assert!(report.hypotheses[0].recovered_after_seconds == Some(1) && report.points[70 - 1].success_percent[&function()] >= 100.0);
    // Those that have not ended when nobody waits any longer.
    let (_, report) = run(experiment(SUCCESS), hanging);
    assert_eq!((report.verdict, report.hypotheses[0].why.as_str()), (Verdict::Broken, broken));
    let (_, report) =
        run(experiment(SUCCESS), |at| Observation { calls: of_second(at - 1, if at > 15 { 99 } else { 100 }, 0, 10.0), ..well(at) });
    assert_eq!((report.verdict, report.hypotheses[0].during.as_str()), (Verdict::Held, "99.00%"));
    // Calls that the faults met under way, of the seconds before.
    let (_, report) = run(experiment(SUCCESS), |at| {
        let (ended, lost) = if at == 15 { (80, 0) } else { (100, 0) };
        let mut calls = of_second(at - 1, ended, lost, 10.0);
        if at == 16 {
            calls.extend(of_second(14, 20, 20, 1500.0));
        }
        Observation { calls, ..well(at) }
    });
    assert_eq!((report.verdict, report.hypotheses[0].during.as_str()), (Verdict::Held, "99.34%"));
    let (_, report) = run(experiment(SUCCESS), |at| {
        let mut calls = if (5..15).contains(&(at - 1)) { of_second(at - 1, 90, 0, 10.0) } else { well(at).calls };
        if at == 20 {
            calls.extend((5..15).flat_map(|second| of_second(second, 10, 10, 5000.0)));
        }
        Observation { calls, ..well(at) }
    });
    assert_eq!((report.verdict, report.hypotheses[0].during.as_str()), (Verdict::Broken, "96.77%"));
}

#[test]
fn the_seconds_with_faults_are_those_between_the_look_that_begins_them_and_the_one_that_ends_them() {
    let short = |parts: &str| {
        let mut short = experiment(parts);
        short.faults[0].fault.duration_seconds = 1;
        short
    };
    // Injected with the look at 15 s, and removed with the one at 16 s.
    let (_, report) = run(short(SUCCESS), |at| calls(at, if at == 16 { 100 } else { 0 }, 10.0));
    assert_eq!((report.hypotheses[0].during.as_str(), report.hypotheses[0].recovered_after_seconds), ("0.00%", Some(1)));
    let (_, report) = run(short(ONLINE), |at| Observation { nodes_online: if at == 16 { 2 } else { 3 }, ..well(at) });
    assert_eq!((report.hypotheses[0].during.as_str(), report.hypotheses[0].recovered_after_seconds), ("2", Some(1)));
    for at in [15, 17] {
        let (_, report) = run(short(SUCCESS), |second| calls(second, if second == at { 100 } else { 0 }, 10.0));
        assert_eq!(report.hypotheses[0].during, "100.00%", "{at}");
    }
}

#[test]
fn an_abort_waits_for_calls_as_long_as_the_slowest_took_before_and_as_they_are_delayed() {
    let parts = [SUCCESS, ABORT].concat();
    // They take five seconds, and nothing is wrong.
    let slow = |at: u64, failed: u64| Observation { calls: of_second(at.saturating_sub(6), 100, failed, 4950.0), ..well(at) };
    let (_, report) = run(experiment(&parts), |at| if at < 6 { Observation { calls: [].into(), ..well(at) } } else { slow(at, 0) });
    assert_ne!(report.verdict, Verdict::Aborted, "{}", report.reason);
    let mut late = experiment(&parts);
    late.faults.push(late.faults[0].clone());
    late.faults[1].fault.kind = edgeward_model::FaultKind::Latency { delay_ms: 8000, jitter_ms: 1900 };
    let delayed = |at: u64| match at {
        ..16 => well(at),
        16..26 => Observation { calls: [].into(), ..well(at) },
        _ => Observation { calls: of_second(at - 11, 100, 0, 9900.0), ..well(at) },
    };
    assert_ne!(run(late, delayed).1.verdict, Verdict::Aborted);
    // What takes longer than it may is too slow, before it has ended.
    let fast = ABORT.replace("success_rate", "p95").replace("at_least_percent = 50", "at_most_ms = 1500");
    let (_, report) = run(experiment(&[SUCCESS, &fast].concat()), delayed);
    assert!(report.verdict == Verdict::Aborted && report.took_seconds < 23.0, "{}", report.reason);
}

#[test]
fn what_is_dead_at_the_end_has_not_recovered_however_long_it_was_well() {
    let mild = SUCCESS.replace("99", "50");
    for (from, parts, expected) in [
        (60, &mild, Verdict::Broken),
        (68, &mild, Verdict::Broken),
        (69, &mild, Verdict::Held),
        (70, &SUCCESS.replace("99", "95"), Verdict::Broken),
    ] {
        let (_, report) = run(experiment(parts), |at| calls(at, if at >= from { 100 } else { 0 }, 10.0));
        assert_eq!(report.verdict, expected, "{from}: {}", report.to_markdown());
    }
    // A call a second.
    let mut slow = experiment(&mild);
    slow.loads[0].per_second = 1;
    let rare = |at: u64| Observation { calls: of_second(at.saturating_sub(1), 1, u64::from(at >= 60), 10.0), ..well(at) };
    let (_, report) = run(slow, rare);
    assert_eq!(report.verdict, Verdict::Broken, "{}", report.to_markdown());
    // Back just in time, and one call that failed at last.
    let (_, report) = run(experiment(&SUCCESS.replace("99", "98")), |at| calls(at, if (46..69).contains(&at) { 100 } else { 0 }, 10.0));
    assert_eq!((report.verdict, report.hypotheses[0].recovered_after_seconds), (Verdict::Held, Some(24)));
    let (_, report) = run(experiment(&SUCCESS.replace("99", "99.9")), |at| calls(at, u64::from(at == 70), 10.0));
    assert_eq!(report.verdict, Verdict::Held, "{}", report.reason);
}

#[test]
fn what_was_not_injected_was_not_borne() {
    let mut twice = experiment(SUCCESS);
    twice.faults.push(twice.faults[0].clone());
    let (_, mut trial) = run_to_end(twice.clone(), well);
    trial.hit.remove(&1);
    let report = settled(trial.clone(), CallsByDue::new());
    assert_eq!((report.verdict, report.reason.as_str()), (Verdict::Inconclusive, "fault 2 was injected on no node"));
    trial.hit(1, [NodeId::new("edge-02").expect("valid")].into());
    assert_eq!(settled(trial, CallsByDue::new()).verdict, Verdict::Held);
    // What breaks does so without it.
    let (_, mut trial) = run_to_end(twice, |at| calls(at, if at == 30 { 100 } else { 0 }, 10.0));
    trial.hit.remove(&1);
    assert_eq!(settled(trial, CallsByDue::new()).verdict, Verdict::Broken);
}

#[test]
fn what_may_be_otherwise_for_a_while_may_be_so_before_the_faults_too() {
    for (tolerance, bad, expected) in [
        ("", 5..6, Verdict::NotSteady),
        ("tolerance_seconds = 2\n", 5..8, Verdict::Held),
        ("tolerance_seconds = 2\n", 5..9, Verdict::NotSteady),
    ] {
        let seen = |at| Observation { converged: [(document(), !bad.contains(&at))].into(), ..well(at) };
        let (_, report) = run(experiment(&[SAME, tolerance].concat()), seen);
        assert_eq!(report.verdict, expected, "{tolerance} {bad:?}: {}", report.reason);
    }
}

#[test]
fn nothing_is_injected_into_what_is_not_well() {
    let (injected, report) = run(experiment(&[ONLINE, SUCCESS].concat()), |at| calls(at, 2, 10.0));
    assert_eq!((report.verdict, injected.len(), report.took_seconds), (Verdict::NotSteady, 0, 10.003));
    assert!(
        report.reason.contains("`success rate of resize ≥ 99%` does not hold before anything is injected: 98.00%"),
        "{}",
        report.reason
    );
    let (injected, report) = run(experiment(SUCCESS), |at| Observation { calls: [].into(), ..well(at) });
    assert!(injected.is_empty() && report.verdict == Verdict::NotSteady && report.reason.contains("nothing is known"), "{report:?}");
}

#[test]
fn it_ends_once_it_is_too_bad_or_nobody_looks() {
    let parts = [SUCCESS, ABORT].concat();
    let (injected, report) = run(experiment(&parts), |at| calls(at, if at >= 20 { 60 } else { 0 }, 10.0));
    assert_eq!((report.verdict, injected.last(), report.took_seconds), (Verdict::Aborted, Some(&23), 24.003));
    assert_eq!(report.reason, "`success rate of resize ≥ 50%` has not held for 3 s: 40.00%");
    // A break in between counts anew.
    let (_, report) = run(experiment(&parts), |at| calls(at, if at > 20 && at % 3 != 0 { 60 } else { 0 }, 10.0));
    assert_eq!(report.verdict, Verdict::Broken);
    // While everything hangs no call ends.
    let (_, report) = run(experiment(&parts), |at| if at < 20 { well(at) } else { Observation { calls: [].into(), ..well(at) } });
    assert_eq!((report.verdict, report.took_seconds), (Verdict::Aborted, 24.003), "{}", report.reason);
    let (_, report) = run(experiment(&parts), |at| well(if at > 20 { at + 11 } else { at }));
    assert_eq!((report.verdict, report.reason.as_str()), (Verdict::Aborted, "nothing was seen for 12 s"));
    let mut trial = trial(experiment(SUCCESS));
    trial.observe(well(1));
    assert_eq!(trial.report().reason, "it is not over");
    trial.abort("somebody said so");
    assert_eq!(trial.observe(well(2)), Next::End);
    assert_eq!((trial.report().verdict, trial.report().reason.as_str()), (Verdict::Aborted, "somebody said so"));
}

#[test]
fn the_report_says_in_markdown_what_was_seen() {
    let (_, report) = run(experiment(&[SUCCESS, ONLINE].concat()), |at| {
        let bad = (16..=45).contains(&at);
        Observation { nodes_online: if bad { 2 } else { 3 }, ..calls(at, if bad { 40 } else { 0 }, if bad { 200.0 } else { 10.0 }) }
    });
    let text = report.to_markdown();
    for line in [
        "# Experiment small: broken",
        "**`success rate of resize ≥ 99%` did not hold: while the faults lasted it was 60.00%.** It began at 2026-06-01T00:00:00Z and took 70 s.",
        "| success rate of resize ≥ 99% | always | 100.00% | 60.00% | 1 s | **broken**: while the faults lasted it was 60.00% |",
        "| nodes online ≥ 3 | always | 3 | 2 | 1 s | **broken**: while the faults lasted it was 2 |",
        "| 1 | error execution_failed of resize, all, 1 of the nodes at most, 30 s | 15 s | 45 s | edge-01 |",
        "success of resize         █████████████▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄█████████████████████  60.0% at worst",
        "nodes online              █████████████▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅█████████████████████  2 at worst",
        "1 error                               ━━━━━━━━━━━━━━━━━━━━━━━━━━━",
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line}\nis not in\n{text}");
    }
    let json = report.to_json();
    assert_eq!(serde_json::from_str::<Report>(&json).expect("its own JSON"), report);
    assert!(json.contains("\"verdict\": \"broken\""));
}

#[test]
fn what_is_left_out_of_a_report_is_not_what_was_bad() {
    let (_, mut report) = run(experiment(&[SUCCESS, ONLINE].concat()), |at| Observation {
        nodes_online: if at == 30 { 1 } else { 3 },
        ..calls(at, if at == 31 { 70 } else { 0 }, if at == 32 { 500.0 } else { 10.0 })
    });
    for count in [35, 18, 9, 5, 3, 2, 1, 1] {
        report.halve_points();
        assert_eq!((report.points.len(), report.points.last().map(|last| last.at_seconds)), (count, Some(70.003)));
        let text = report.to_markdown();
        assert!(["1 at worst", "30.0% at worst", "49"].iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains('·'), "there is no time of which nothing is known\n{text}");
    }
}

#[test]
fn a_report_lists_so_many_nodes_and_says_since_when_and_until_when_they_were_hit() {
    let mut trial = trial(experiment(SUCCESS));
    (1..=20).for_each(|at| drop(trial.observe(well(at))));
    trial.hit(0, (0..60).map(|number| NodeId::new(format!("edge-{number:02}")).expect("valid")).collect());
    trial.observe(well(21));
    trial.abort("it is enough");
    trial.observe(well(22));
    let report = trial.report();
    let line = &report.faults[0];
    assert_eq!((line.from_seconds, line.to_seconds, line.nodes.len(), line.more_nodes), (20, 21, 50, 10));
    assert!(report.to_markdown().contains("| 20 s | 21 s | edge-00, edge-01,") && report.to_markdown().contains("edge-49, 10 more |"));
}

#[test]
fn nothing_that_was_seen_breaks_a_table_or_the_chart() {
    let mut odd = experiment(SUCCESS);
    odd.description = "a | b\n# c".to_owned();
    let text = trial(odd.clone()).report().to_markdown();
    assert!(text.contains("a \\| b # c") && text.contains("nothing was seen") && text.contains("not injected"), "{text}");
    let (_, report) = run(odd, |at| calls(at, 0, f64::NAN));
    assert!(report.to_json().len() > 100 && report.to_markdown().contains("ms at worst"));
}

#[test]
fn a_fault_hits_no_more_nodes_than_its_blast_radius_and_others_than_before() {
    let nodes: Vec<_> = (0..10)
        .map(|number| {
            let mut node = EdgeNode::new(format!("n{number}"), "node").expect("valid");
            node.labels.insert("site".to_owned(), if number < 8 { "berlin" } else { "oslo" }.to_owned());
            node
        })
        .collect();
    let none = BTreeSet::new();
    for (radius, nodes_of, expected) in [
        ("1", "all", 1),
        ("30%", "all", 3),
        ("39%", "all", 3),
        ("100%", "site=oslo", 2),
        ("5", "site=oslo", 2),
        ("1%", "all", 1),
        ("3", "site=rome", 0),
    ] {
        let fault = fault(&format!(r#"{{"kind":"crash","nodes":"{nodes_of}","blast_radius":"{radius}","duration_seconds":9}}"#));
        let hit = choose(&fault, &nodes, &none, "seed");
        assert_eq!(hit.len(), expected, "{radius} of {nodes_of}");
        assert_eq!(hit, choose(&fault, &nodes, &none, "seed"), "the same seed hits the same");
    }
    let crash = fault(r#"{"kind":"crash","blast_radius":"5","duration_seconds":9}"#);
    let first = choose(&crash, &nodes, &none, "a");
    assert!(choose(&crash, &nodes, &first, "b").is_disjoint(&first));
    let partition = fault(r#"{"kind":"partition","between":["hub","site=oslo"],"duration_seconds":9}"#);
    assert_eq!(partition.nodes.to_string(), "site=oslo", "the hub is the other side");
    let partition = fault(r#"{"kind":"partition","between":["site=berlin","site=oslo"],"duration_seconds":9}"#);
    assert!(resolve(&partition, &nodes).to_string().contains("between site=berlin and node=n8,node=n9"), "{}", resolve(&partition, &nodes));
}

#[test]
fn every_fault_of_a_node_ends_by_itself() {
    let mut faults = ActiveFaults::default();
    for (id, json) in [
        ("a", r#"{"kind":"crash","duration_seconds":10}"#),
        ("b", r#"{"kind":"disk_full","duration_seconds":20}"#),
        ("c", r#"{"kind":"clock_skew","skew_seconds":-30,"duration_seconds":30}"#),
        ("d", r#"{"kind":"resource_exhaustion","memory_mb":8,"function":"resize","duration_seconds":30}"#),
        ("e", r#"{"kind":"resource_exhaustion","concurrency":1,"duration_seconds":30}"#),
        ("f", r#"{"kind":"error","error":"overloaded","duration_seconds":30}"#),
    ] {
        faults.inject(id, fault(json), seconds(100)).expect(id);
    }
    faults.inject("a", fault(r#"{"kind":"crash","duration_seconds":3000}"#), seconds(105)).expect("asked for again");
    assert!(faults.is_crashed(seconds(109)) && !faults.is_crashed(seconds(110)), "asking again does not make it last longer");
    assert!(faults.is_disk_full(seconds(119)) && !faults.is_disk_full(seconds(120)));
    assert_eq!((faults.clock_skew_seconds(seconds(129)), faults.clock_skew_seconds(seconds(130))), (-30, 0));
    let other = FunctionId::new("other").expect("valid");
    assert_eq!((faults.memory_mb(&function(), seconds(120)), faults.memory_mb(&other, seconds(120))), (Some(8), None));
    assert_eq!((faults.concurrency(&other, seconds(120)), faults.concurrency(&other, seconds(130))), (Some(1), None));
    assert_eq!(faults.on_call(&other, seconds(129), || 0).failure, Some(ErrorKind::Overloaded));
    assert_eq!(faults.on_call(&other, seconds(130), || 0), CallFault::default());
    assert_eq!((faults.next_end(), faults.list(seconds(115)).count()), (Some(seconds(110)), 5));
    assert_eq!(faults.expire(seconds(120)).into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ["a", "b"]);
    assert!(faults.remove("c").is_some() && faults.remove("c").is_none());
    assert_eq!((faults.clear(), faults.is_empty()), (3, true));
}

#[test]
fn a_node_injects_so_many_faults_and_none_that_is_not_valid() {
    let mut faults = ActiveFaults::default();
    let timeout = fault(r#"{"kind":"timeout","duration_seconds":10}"#);
    for number in 0..FAULTS_MAX {
        faults.inject(&number.to_string(), timeout.clone(), seconds(0)).expect("there is room");
    }
    assert_eq!(faults.inject("more", timeout.clone(), seconds(9)).expect_err("too many").kind(), ErrorKind::Conflict);
    faults.inject("more", timeout.clone(), seconds(10)).expect("the others have ended");
    let for_ever = Fault { duration_seconds: u32::MAX, ..timeout };
    assert!(faults.inject("for ever", for_ever, seconds(10)).is_err());
}

#[test]
fn calls_and_messages_are_hit_as_often_as_is_said() {
    let mut faults = ActiveFaults::default();
    let now = seconds(1);
    faults
        .inject("late", fault(r#"{"kind":"latency","delay_ms":100,"jitter_ms":50,"probability":0.25,"duration_seconds":10}"#), now)
        .expect("valid");
    faults.inject("cut", fault(r#"{"kind":"partition","between":["node=a","node=b"],"duration_seconds":10}"#), now).expect("valid");
    let mut numbers = Random::new(1);
    let mut random = || numbers.next();
    let calls: Vec<_> = (0..10_000).map(|_| faults.on_call(&function(), now, &mut random).delay).collect();
    let late: Vec<_> = calls.iter().filter(|delay| **delay > Duration::ZERO).collect();
    assert!((2_300..2_700).contains(&late.len()), "{} of 10000", late.len());
    assert!(late.iter().all(|delay| (100..150).contains(&delay.as_millis())));
    let (b, c) = (NodeId::new("b").expect("valid"), NodeId::new("c").expect("valid"));
    assert_eq!(faults.on_message(Peer::Node(&b), now, || u64::MAX), Some(MessageFault::Lost));
    assert_eq!(faults.on_message(Peer::Node(&c), now, || u64::MAX), None);
    assert_eq!(faults.on_message(Peer::Hub, now, || 0), Some(MessageFault::Late(Duration::from_millis(100))));
    faults.remove("late");
    let of_calls = r#"{"kind":"latency","delay_ms":100,"function":"resize","duration_seconds":10}"#;
    faults.inject("of calls", fault(of_calls), now).expect("valid");
    assert_eq!(faults.on_message(Peer::Hub, now, || 0), None, "it is about calls of a function");
    faults.inject("hub", fault(r#"{"kind":"partition","between":["all","hub"],"duration_seconds":10}"#), now).expect("valid");
    assert_eq!(faults.on_message(Peer::Hub, now, || u64::MAX), Some(MessageFault::Lost), "what is certain happens with any number");
}

#[test]
fn every_scenario_runs_to_its_end_and_spares_most_of_the_fleet() {
    let nodes: Vec<_> = (0..4).map(|number| EdgeNode::new(format!("n{number}"), "node").expect("valid")).collect();
    for scenario in Scenario::ALL {
        let mut experiment = scenario.experiment(&function(), &document(), 3);
        experiment.loads[0].per_second = 100;
        for planned in &experiment.faults {
            assert!(choose(&planned.fault, &nodes, &BTreeSet::new(), "x").len() <= 2, "{scenario}");
        }
        let (injected, report) = run(experiment, well);
        assert_eq!(report.verdict, Verdict::Held, "{scenario}: {}", report.reason);
        assert!(injected.len() >= 30, "{scenario}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_seen_faults_are_asked_for_in_their_time_only_and_there_is_a_report(
        steps in prop::collection::vec((0_u64..12_000, 0_u64..100, 0_usize..20, any::<bool>()), 1..80),
    ) {
        let mut trial = trial(experiment(&[SUCCESS, FAST, ONLINE, SAME, ABORT].concat()));
        let (mut at, mut is_over) = (Duration::ZERO, false);
        for (millis, failed, missing, converged) in steps {
            let from = at.as_secs();
            at += Duration::from_millis(millis);
            let failed = if missing < 12 { 0 } else { failed };
            let nodes_online = if missing == 19 { 2 } else { 3 };
            let calls = (from..at.as_secs()).flat_map(|second| of_second(second, 100, failed, 10.0)).collect();
            let next = trial.observe(Observation { at, nodes_online, calls, converged: [(document(), converged || missing < 15)].into() });
            match next {
                Next::Inject(faults) => {
                    prop_assert!(!is_over, "it goes on after its end");
                    prop_assert_eq!(faults.contains(&0), at >= seconds(15) && at < seconds(45), "at {:?}", at);
                }
                Next::End => {
                    is_over = true;
                    trial.settle(CallsByDue::new(), at);
                }
            }
            let report = trial.report();
            prop_assert!(!report.to_markdown().is_empty());
            if report.verdict == Verdict::Held {
                prop_assert!(report.hypotheses.iter().all(|judged| judged.holds == Some(true)) && at >= seconds(70));
            }
        }
    }
}
