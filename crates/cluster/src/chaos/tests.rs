//! Trials, reports and the faults of a node by example, and what holds of any.

use std::{collections::BTreeSet, time::Duration};

use edgeward_model::{
    DocumentName, EdgeNode, ErrorKind, Experiment, FunctionId, NodeId,
    chaos::{Fault, Scenario},
    limits::FAULTS_MAX,
};
use jiff::Timestamp;
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

/// Before 10 s; errors from 15 to 45 s; until 70 s.
fn experiment(parts: &str) -> Experiment {
    let text = format!(
        "name = \"small\"\nduration_seconds = 60\n[[fault]]\nkind = \"error\"\nbegins_after_seconds = 5\nduration_seconds = 30\nfunction = \"resize\"\n{parts}"
    );
    Experiment::read("small", &text).expect("valid")
}

const SUCCESS: &str = "[[steady_state]]\nprobe = \"success_rate\"\nfunction = \"resize\"\nat_least_percent = 99\n";
const FAST: &str = "[[steady_state]]\nprobe = \"p95\"\nfunction = \"resize\"\nat_most_ms = 50\n";
const ONLINE: &str = "[[steady_state]]\nprobe = \"nodes_online\"\nat_least = 3\n";
const SAME: &str = "[[steady_state]]\nprobe = \"converged\"\ndocument = \"state\"\ndemanded = \"recovered\"\n";
const ABORT: &str = "[[abort]]\nprobe = \"success_rate\"\nfunction = \"resize\"\nat_least_percent = 50\nfor_seconds = 3\n";

/// All is well: a hundred calls of 10 ms, three nodes, one state.
fn well(at: u64) -> Observation {
    let mut calls = Calls::default();
    (0..100).for_each(|_| calls.add(true, 10.0));
    let (calls, converged) = ([(function(), calls)].into(), [(document(), true)].into());
    Observation { at: seconds(at), calls, nodes_online: 3, converged }
}

/// The same, of which so many calls failed and took so long.
fn calls(at: u64, failed: usize, millis: f64) -> Observation {
    let mut calls = Calls::default();
    (0..100).for_each(|number| calls.add(number >= failed, millis));
    Observation { calls: [(function(), calls)].into(), ..well(at) }
}

/// Runs it to its end, observed each second; the seconds in which its fault was to be injected, and the report.
fn run(experiment: Experiment, seen: impl Fn(u64) -> Observation) -> (Vec<u64>, Report) {
    let mut trial = Trial::new(experiment, "2026-06-01T00:00:00Z".parse().expect("a time"));
    let mut injected = Vec::new();
    for second in 1..1000 {
        match trial.observe(seen(second)) {
            Next::Inject(faults) => injected.extend((!faults.is_empty()).then_some(second)),
            Next::End => break,
        }
        if injected.len() == 1 {
            trial.hit(0, [NodeId::new("edge-01").expect("valid")].into());
        }
    }
    assert!(trial.is_over());
    assert_eq!(trial.observe(well(2000)), Next::End, "what is over stays so");
    (injected, trial.report())
}

#[test]
fn a_fleet_that_bears_its_faults_holds_and_they_are_injected_in_their_time_only() {
    let (injected, report) = run(experiment(&[SUCCESS, FAST, ONLINE, SAME].concat()), well);
    assert_eq!((report.verdict, report.reason.as_str()), (Verdict::Held, "every hypothesis held"));
    assert_eq!(injected, (15..45).collect::<Vec<_>>());
    assert!((report.took_seconds - 70.0).abs() < 0.001, "{}", report.took_seconds);
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

#[test]
fn nothing_is_injected_into_what_is_not_well() {
    let (injected, report) = run(experiment(&[ONLINE, SUCCESS].concat()), |at| calls(at, 2, 10.0));
    assert_eq!((report.verdict, injected.len(), report.took_seconds), (Verdict::NotSteady, 0, 10.0));
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
    assert_eq!((report.verdict, injected.last(), report.took_seconds), (Verdict::Aborted, Some(&22), 23.0));
    assert_eq!(report.reason, "`success rate of resize ≥ 50%` has not held for 3 s: 40.00%");
    // A break in between counts anew, and seconds without calls do not.
    let (_, report) = run(experiment(&parts), |at| calls(at, if at > 20 && at % 3 != 0 { 60 } else { 0 }, 10.0));
    assert_eq!(report.verdict, Verdict::Broken);
    let (_, report) = run(experiment(&parts), |at| if at < 20 { well(at) } else { Observation { calls: [].into(), ..well(at) } });
    assert_eq!(report.verdict, Verdict::Inconclusive, "{}", report.reason);
    let (_, report) = run(experiment(&parts), |at| well(if at > 20 { at + 11 } else { at }));
    assert_eq!((report.verdict, report.reason.as_str()), (Verdict::Aborted, "nothing was seen for 12 s"));
    let mut trial = Trial::new(experiment(SUCCESS), Timestamp::UNIX_EPOCH);
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
        "success of resize         █████████████▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄█████████████████████  60.0% at least",
        "nodes online              █████████████▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅▅█████████████████████  2 at least",
        "1 error                               ━━━━━━━━━━━━━━━━━━━━━━━━━━━",
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line}\nis not in\n{text}");
    }
    let json = report.to_json();
    assert_eq!(serde_json::from_str::<Report>(&json).expect("its own JSON"), report);
    assert!(json.contains("\"verdict\": \"broken\""));
}

#[test]
fn nothing_that_was_seen_breaks_a_table_or_the_chart() {
    let mut odd = experiment(SUCCESS);
    odd.description = "a | b\n# c".to_owned();
    let trial = Trial::new(odd.clone(), Timestamp::UNIX_EPOCH);
    let text = trial.report().to_markdown();
    assert!(text.contains("a \\| b # c") && text.contains("nothing was seen") && text.contains("not injected"), "{text}");
    let (_, report) = run(odd, |at| calls(at, 0, f64::NAN));
    assert!(report.to_json().len() > 100 && report.to_markdown().contains("ms at most"));
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
    assert!(resolve(&partition, &nodes).to_string().contains("and node=n8,node=n9"), "{}", resolve(&partition, &nodes));
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
        let experiment = scenario.experiment(&function(), &document(), 3);
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
        steps in prop::collection::vec((0_u64..12_000, 0_usize..100, 0_usize..20, any::<bool>()), 1..80),
    ) {
        let mut trial = Trial::new(experiment(&[SUCCESS, FAST, ONLINE, SAME, ABORT].concat()), Timestamp::UNIX_EPOCH);
        let (mut at, mut is_over) = (Duration::ZERO, false);
        for (millis, failed, missing, converged) in steps {
            at += Duration::from_millis(millis);
            let failed = if missing < 12 { 0 } else { failed };
            let nodes_online = if missing == 19 { 2 } else { 3 };
            let next = trial.observe(Observation { at, nodes_online, converged: [(document(), converged || missing < 15)].into(), ..calls(0, failed, 10.0) });
            match next {
                Next::Inject(faults) => {
                    prop_assert!(!is_over, "it goes on after its end");
                    prop_assert_eq!(faults.contains(&0), at >= seconds(15) && at < seconds(45), "at {:?}", at);
                }
                Next::End => is_over = true,
            }
            let report = trial.report();
            prop_assert!(!report.to_markdown().is_empty());
            if report.verdict == Verdict::Held {
                prop_assert!(report.hypotheses.iter().all(|judged| judged.holds == Some(true)) && at >= seconds(70));
            }
        }
    }
}
