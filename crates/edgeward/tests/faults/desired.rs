//! The functions' records: on their way from the file of an earlier release, and on a disk that fails for a while.

use std::{collections::BTreeSet, fs, path::Path};

use edgeward::{EdgeFunction, Handler, HandlerName, NativeHandler, Node, Precondition};

use crate::{
    child,
    support::{copied, count, killed_at, open},
};

const MOVING: &str = "desired::child_that_opens_the_node";
const CHANGING: &str = "desired::child_that_changes_what_is_desired";
const FILE: &str = r#"{"format": 1, "last_generation": 7, "functions": {
    "a": {"generation": 3, "id": "a", "name": "a", "handler": {"native": "h"}},
    "b": {"generation": 6, "id": "b", "name": "b", "handler": {"native": "h"}}}}"#;

#[test]
fn child_that_opens_the_node() {
    let Some(folder) = child::store() else { return };
    open(&folder.join("data")).expect("opens");
}

fn generations(node: &Node) -> Vec<(String, u64)> {
    node.functions().into_iter().map(|view| (view.record.function.id.to_string(), view.record.generation)).collect()
}

#[test]
fn records_that_move_into_the_documents_survive_a_kill_at_any_sync() {
    let template = tempfile::tempdir().expect("temp folder");
    fs::create_dir(template.path().join("data")).expect("made");
    fs::write(template.path().join("data/desired.json"), FILE).expect("written");
    let syncs = count(MOVING, template.path(), "fsync");
    let mut between = 0;
    for n in 1..=syncs {
        let (place, killed) = killed_at(MOVING, template.path(), "fsync", n);
        assert!(killed, "sync {n}");
        let file = copied(&place, "data/desired.json");
        let found = has_records(&copied(&place, "data"));
        between += usize::from(file.exists() && found);
        assert!(file.exists() || found, "killed at sync {n}: the records are in neither");
        let node = open(&copied(&place, "data")).unwrap_or_else(|error| panic!("killed at sync {n}: {}", error.chain()));
        assert_eq!(generations(&node), [("a".to_owned(), 3), ("b".to_owned(), 6)], "killed at sync {n}");
        assert!(!file.exists());
    }
    assert!(between > 0, "of {syncs} kills none came between the documents and the file");
}

/// Whether the store in this folder, opened without the file, has the records.
fn has_records(data_dir: &Path) -> bool {
    let (file, aside) = (data_dir.join("desired.json"), data_dir.join("aside"));
    let had_file = fs::rename(&file, &aside).is_ok();
    let found = !generations(&open(data_dir).expect("opens")).is_empty();
    if had_file {
        fs::rename(aside, file).expect("there");
    }
    found
}

/// Changes until it works, and looks at what is desired after each failure.
#[test]
fn child_that_changes_what_is_desired() {
    let Some(folder) = child::store() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // Each thread has its own count of calls, so opening fails too.
        let node = open(&folder).or_else(|_| open(&folder)).expect("opens");
        let handler = HandlerName::new("h").expect("valid");
        node.runtime().register(handler.clone(), NativeHandler::new(async |payload| Ok::<_, std::io::Error>(payload)));
        let mut given = BTreeSet::new();
        for n in 0..6 {
            let function = EdgeFunction::new(format!("f{}", n % 2), format!("{n}"), Handler::Native(handler.clone())).expect("valid");
            let generation = loop {
                let before = node.functions().len();
                match node.put_function(function.clone(), Precondition::None).await {
                    Ok(deployed) => break deployed.view.record.generation,
                    Err(error) => child::tell(&format!("fault {}", error.chain())),
                }
                assert_eq!(node.functions().len(), before, "what failed is not shown");
            };
            assert!(given.insert(generation), "generation {generation} was given twice");
            if n == 3 {
                while let Err(error) = node.delete_function(&function.id, Precondition::None).await {
                    child::tell(&format!("fault {}", error.chain()));
                }
            }
        }
        let before = generations(&node);
        assert_eq!(before.len(), 2);
        drop(node);
        // The fault may come now.
        let node = open(&folder).or_else(|_| open(&folder)).expect("opens");
        assert_eq!(generations(&node), before, "what was acknowledged is there");
    });
}

#[test]
fn a_change_of_what_is_desired_that_fails_is_not_acknowledged_and_works_again_later() {
    let syncs = child::count(CHANGING, "fsync");
    let mut heard = 0;
    for n in 1..=syncs {
        let place = tempfile::tempdir().expect("temp folder");
        let injection = format!("fsync,fdatasync:error=EIO:when={n}");
        let log = place.path().join("calls");
        let output = child::run(&mut child::traced(CHANGING, &place.path().join("store"), &log, Some(&injection)));
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{injection}: {told}{}", String::from_utf8_lossy(&output.stderr));
        heard += told.lines().filter_map(child::told).filter(|line| line.starts_with("fault ")).count();
    }
    assert!(heard >= 6, "{heard} of {syncs} failed syncs were heard of");
}
