//! Faults, experiments and scenarios: what is read, and what is refused with which words.

use proptest::prelude::*;

use super::*;
use crate::{
    deployment::{Amount, Target},
    error::ErrorKind,
    id::{DocumentName, FunctionId},
    node::EdgeNode,
};

fn function(id: &str) -> FunctionId {
    FunctionId::new(id).expect("valid")
}

fn document(name: &str) -> DocumentName {
    DocumentName::new(name).expect("valid")
}

fn fault(json: &str) -> Result<Fault, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

const SMALL: &str = r#"
name = "small"
duration_seconds = 60

[[load]]
function = "resize"
per_second = 10

[[fault]]
kind = "error"
begins_after_seconds = 5
duration_seconds = 30
function = "resize"
nodes = "site=berlin"
probability = 0.5
blast_radius = "25%"

[[steady_state]]
probe = "success_rate"
function = "resize"
at_least_percent = 99.5

[[abort]]
probe = "p95"
function = "resize"
at_most_ms = 500
"#;

#[test]
fn each_fault_is_read_and_comes_back() {
    for (json, shown) in [
        (
            r#"{"kind":"latency","delay_ms":300,"jitter_ms":100,"function":"f","probability":0.25,"duration_seconds":30}"#,
            "latency 300-400 ms of f, all, 1 of the nodes at most, 25%, 30 s",
        ),
        (
            r#"{"kind":"error","error":"overloaded","nodes":"site=berlin","blast_radius":"50%","duration_seconds":1}"#,
            "error overloaded, site=berlin, 50% of the nodes at most, 1 s",
        ),
        (r#"{"kind":"timeout","duration_seconds":30}"#, "timeout, all, 1 of the nodes at most, 30 s"),
        (
            r#"{"kind":"resource_exhaustion","memory_mb":8,"duration_seconds":30}"#,
            "resource_exhaustion 8 MiB, all, 1 of the nodes at most, 30 s",
        ),
        (
            r#"{"kind":"resource_exhaustion","concurrency":1,"duration_seconds":30}"#,
            "resource_exhaustion 1 at once, all, 1 of the nodes at most, 30 s",
        ),
        (r#"{"kind":"crash","nodes":"node=a","duration_seconds":3600}"#, "crash, node=a, 1 of the nodes at most, 3600 s"),
        (
            r#"{"kind":"partition","between":["site=berlin","hub"],"blast_radius":3,"duration_seconds":30}"#,
            "partition between site=berlin and hub, 3 of the nodes at most, 30 s",
        ),
        (r#"{"kind":"clock_skew","skew_seconds":-90,"duration_seconds":30}"#, "clock_skew -90 s, all, 1 of the nodes at most, 30 s"),
        (r#"{"kind":"disk_full","duration_seconds":30}"#, "disk_full, all, 1 of the nodes at most, 30 s"),
    ] {
        let read = fault(json).expect(json);
        assert_eq!(read.to_string(), shown);
        assert_eq!(fault(&serde_json::to_string(&read).expect("JSON")).expect("its own JSON"), read);
    }
    let partition = fault(r#"{"kind":"partition","between":["site=berlin","hub"],"duration_seconds":30}"#).expect("valid");
    assert_eq!(partition.nodes.to_string(), "site=berlin", "it is where its first side is");
    let turned = fault(r#"{"kind":"partition","between":["hub","site=berlin"],"duration_seconds":30}"#).expect("valid");
    assert_eq!(turned, partition, "the hub is the other side");
}

#[test]
fn a_fault_that_makes_no_sense_is_refused_with_the_reason() {
    for (json, why) in [
        (r#"{"kind":"gremlins","duration_seconds":30}"#, "there is no fault `gremlins`: write latency, error,"),
        (r#"{"kind":"timeout"}"#, "a fault `timeout` needs `duration_seconds`"),
        (r#"{"kind":"timeout","duration_seconds":0}"#, "duration_seconds of the fault `timeout` is 0; it must be from 1 to 3600"),
        (r#"{"kind":"timeout","duration_seconds":3601}"#, "from 1 to 3600"),
        (r#"{"kind":"timeout","delay_ms":1,"duration_seconds":1}"#, "a fault `timeout` takes no `delay_ms`"),
        (r#"{"kind":"timeout","begins_after_seconds":1,"duration_seconds":1}"#, "takes no `begins_after_seconds`"),
        (r#"{"kind":"timeout","lasts":1,"duration_seconds":1}"#, "unknown field `lasts`"),
        (r#"{"kind":"latency","duration_seconds":1}"#, "a fault `latency` needs `delay_ms`"),
        (r#"{"kind":"latency","delay_ms":0,"duration_seconds":1}"#, "does nothing"),
        (r#"{"kind":"latency","delay_ms":60001,"duration_seconds":1}"#, "from 0 to 60000"),
        (r#"{"kind":"timeout","probability":0,"duration_seconds":1}"#, "it must be above 0"),
        (r#"{"kind":"timeout","probability":1.5,"duration_seconds":1}"#, "1 at most"),
        (r#"{"kind":"crash","probability":0.5,"duration_seconds":1}"#, "takes no `probability`: it happens once"),
        (r#"{"kind":"crash","function":"f","duration_seconds":1}"#, "takes no `function`: it happens to a node as a whole"),
        (r#"{"kind":"crash","blast_radius":"0%","duration_seconds":1}"#, "is none"),
        (r#"{"kind":"crash","nodes":"count=2","duration_seconds":1}"#, "say by `blast_radius`"),
        (r#"{"kind":"resource_exhaustion","duration_seconds":1}"#, "needs `memory_mb` or `concurrency`"),
        (r#"{"kind":"resource_exhaustion","memory_mb":1,"concurrency":1,"duration_seconds":1}"#, "needs `memory_mb` or `concurrency`"),
        (r#"{"kind":"partition","between":["hub","hub"],"duration_seconds":1}"#, "both are `hub`"),
        (r#"{"kind":"partition","between":["all","hub"],"nodes":"all","duration_seconds":1}"#, "takes no `nodes`"),
        (r#"{"kind":"clock_skew","skew_seconds":86401,"duration_seconds":1}"#, "from -86400 to 86400"),
    ] {
        let error = fault(json).expect_err(json);
        assert!(error.contains(why), "{json}: {error}");
    }
}

#[test]
fn an_experiment_is_read_from_its_file() {
    let experiment = Experiment::read("experiment.toml", SMALL).expect("valid");
    let planned = &experiment.faults[0];
    assert_eq!((experiment.before_seconds, planned.begins_after_seconds), (10, 5));
    assert_eq!(planned.fault.kind, FaultKind::Error { error: ErrorKind::ExecutionFailed });
    assert_eq!((planned.fault.blast_radius, planned.fault.probability), (Amount::Percent(25), 0.5));
    assert_eq!(experiment.abort[0].for_seconds, 5);
    assert_eq!(experiment.faulty_span(), (std::time::Duration::from_secs(5), std::time::Duration::from_secs(35)));
    let json = serde_json::to_string(&experiment).expect("JSON");
    assert_eq!(serde_json::from_str::<Experiment>(&json).expect("its own JSON"), experiment);
}

#[test]
fn calls_of_a_load_may_run_twice_unless_it_says_otherwise() {
    let of = |said: &str| {
        let experiment = Experiment::read("e.toml", &SMALL.replacen("per_second = 10", said, 1)).expect("valid");
        let json = serde_json::to_string(&experiment).expect("JSON");
        assert_eq!(serde_json::from_str::<Experiment>(&json).expect("its own JSON"), experiment);
        experiment.loads[0].idempotent
    };
    assert!(of("per_second = 10") && of("per_second = 10\nidempotent = true"));
    assert!(!of("per_second = 10\nidempotent = false"));
}

#[test]
fn a_file_that_is_wrong_is_refused_with_its_line_and_why() {
    for (from, to, why) in [
        ("name = \"small\"\n", "", "missing field `name`"),
        ("\"small\"", "\"a b\"", "`e.toml`, line 2: the experiment name `a b` is not valid"),
        ("\"error\"", "\"eror\"", "`e.toml`, line 9: there is no fault `eror`"),
        ("probability = 0.5", "probability = 2", "probability of the fault `error` is 2"),
        ("duration_seconds = 30", "duration_seconds = 56", "its fault 1 would end after 61, with no time"),
        ("duration_seconds = 30", "duration_seconds = 55", "its fault 1 would end after 60, with no time to see what comes after it"),
        ("duration_seconds = 60", "duration_seconds = 99999", "must be from 1 to 7200"),
        ("duration_seconds = 60", "duration_seconds = 7200", "before_seconds and duration_seconds together of experiment `small` is 7210"),
        (
            "\"p95\"\nfunction = \"resize\"",
            "\"p95\"\nfunction = \"resize2\"",
            "has a probe `p95` of function `resize2`, which no `[[load]]` of it calls; it calls `resize`",
        ),
        (
            "function = \"resize\"\nat_least_percent",
            "function = \"x\"\nat_least_percent",
            "has a probe `success_rate` of function `x`, which",
        ),
        ("\"success_rate\"", "\"success\"", "`e.toml`, line 18: there is no probe `success`"),
        ("at_least_percent = 99.5", "", "the probe `success_rate` needs `at_least_percent`"),
        ("at_least_percent = 99.5", "at_least_percent = 101", "it must be from 0 to 100"),
        ("at_least_percent = 99.5", "at_least_percent = 99\ntolerance_seconds = 1", "calls are judged all together"),
        ("at_least_percent = 99.5", "at_least_percent = 99\nat_most_ms = 1", "takes no `at_most_ms` here"),
        ("at_most_ms = 500", "at_most_ms = 500\ndemanded = \"always\"", "takes no `demanded` here"),
        ("[[abort]]", "[[aborts]]", "unknown field `aborts`"),
        ("per_second = 10", "per_second = 10\nidempotence = true", "unknown field `idempotence`"),
        ("per_second = 10", "per_second = 10\nidempotent = \"no\"", "`e.toml`, line 8: invalid type: string \"no\", expected a boolean"),
        ("nodes = \"site=berlin\"", "nodes = \"berlin\"", "`berlin` says not which nodes"),
        ("[[fault]]", "[[fault]", "`e.toml`, line 9"),
    ] {
        let error = Experiment::read("e.toml", &SMALL.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(why), "{to}: {error}");
    }
    let many = format!("{SMALL}{}", "\n[[fault]]\nkind = \"timeout\"\nduration_seconds = 1\n".repeat(32));
    assert!(
        Experiment::read("e.toml", &many).expect_err("too many").to_string().contains("the number of faults of experiment `small` is 33")
    );
    assert!(Experiment::read("e.toml", &" ".repeat(65 * 1024)).expect_err("too large").to_string().contains("66560 bytes"));
}

#[test]
fn an_experiment_that_names_what_there_is_not_is_told_what_there_is() {
    let mut node = EdgeNode::new("edge-01", "edge-01").expect("valid");
    node.labels.insert("site".to_owned(), "berlin".to_owned());
    let known = Known { functions: [function("resize")].into(), nodes: vec![node], documents: [document("state")].into(), has_hub: true };
    let check = |from: &str, to: &str, known: &Known| {
        known.check(&Experiment::read("e.toml", &SMALL.replacen(from, to, 1)).expect("valid")).map_err(|error| error.to_string())
    };
    assert_eq!(check("", "", &known), Ok(()));
    for (from, to, why) in [
        (
            "duration_seconds = 30\nfunction = \"resize\"",
            "duration_seconds = 30\nfunction = \"resise\"",
            "experiment `small`, fault 1: there is no function `resise`; there are `resize`",
        ),
        ("site=berlin", "site=oslo", "experiment `small`, fault 1: no node meets `site=oslo`"),
        ("site=berlin", "node=edge-02", "fault 1: there is no node `edge-02`; there are `edge-01`"),
        ("per_second = 10", "per_second = 10\n[[load]]\nfunction = \"x\"\nper_second = 1", "load 2: there is no function `x`"),
        (
            "probe = \"p95\"\nfunction = \"resize\"\nat_most_ms = 500",
            "probe = \"nodes_online\"\nat_least = 2",
            "abort 1: 2 nodes cannot be online: there are 1",
        ),
        (
            "probe = \"p95\"\nfunction = \"resize\"\nat_most_ms = 500",
            "probe = \"converged\"\ndocument = \"y\"",
            "there is no document `y`; there are `state`",
        ),
    ] {
        let error = check(from, to, &known).expect_err(to);
        assert!(error.contains(why), "{to}: {error}");
    }
    let alone = Known { has_hub: false, ..known };
    let partition = Scenario::Partition.experiment(&function("resize"), &document("state"), 1);
    assert!(alone.check(&partition).expect_err("no hub").to_string().contains("there is no hub"));
    assert!(Known::default().check(&partition).expect_err("nothing").to_string().contains("no node meets `all`"));
}

#[test]
fn every_scenario_is_an_experiment_of_its_name_that_says_what_it_does() {
    for scenario in Scenario::ALL {
        let experiment = scenario.experiment(&function("resize.v2"), &document("state_1"), 3);
        assert_eq!(experiment.name.as_str(), scenario.as_str());
        assert_eq!(scenario.as_str().parse::<Scenario>().expect("its name"), scenario);
        assert!(scenario.description().ends_with('.'), "{scenario}");
        let (_, end) = experiment.faulty_span();
        assert!(experiment.before() + end + std::time::Duration::from_secs(10) <= experiment.total(), "{scenario} leaves time to recover");
        assert!(!scenario.text(&function("f"), &document("d"), 3).contains(['{', '}']), "{scenario}");
        for planned in &experiment.faults {
            assert_ne!(planned.fault.blast_radius, Amount::ALL, "{scenario} spares some nodes");
            assert_eq!(planned.fault.nodes, Target::all());
        }
    }
    assert!("flood".parse::<Scenario>().expect_err("none").to_string().contains("there are node-failure, partition"));
}

proptest! {
    #[test]
    fn any_text_is_an_experiment_or_an_error_that_names_the_file(cut in 0_usize..600, length in 0_usize..40, put in "[\\[\\]a-z0-9\"=. \n-]{0,12}") {
        let (start, end) = (cut.min(SMALL.len()), (cut + length).min(SMALL.len()));
        let text = format!("{}{put}{}", &SMALL[..start], &SMALL[end..]);
        match Experiment::read("e.toml", &text) {
            Ok(experiment) => {
                let json = serde_json::to_string(&experiment).expect("JSON");
                prop_assert_eq!(serde_json::from_str::<Experiment>(&json).expect("its own JSON"), experiment);
            }
            Err(error) => prop_assert!(error.to_string().starts_with("`e.toml`"), "{}", error),
        }
    }
}
