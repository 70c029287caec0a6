//! The example `two_replicas` as a user runs it: three processes that converge.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Built with the tests, beside their folder.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("known");
    let example = test.parent().and_then(Path::parent).expect("a folder above").join("examples").join("two_replicas");
    assert!(example.is_file(), "`cargo test --test` does not build it: `cargo build -p edgeward-sync --example two_replicas` does");
    example
}

fn run(folder: Option<&Path>, temp: &Path) -> (Output, String) {
    let output = Command::new(example()).args(folder).env("TMPDIR", temp).output().expect("starts");
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    (output, text)
}

#[test]
fn two_replicas_and_their_hub_converge_and_leave_nothing() {
    let temp = tempfile::tempdir().expect("temp folder");
    let (output, text) = run(None, temp.path());
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let view = r#"{"boxes": 10, "door-north": "shut", "door-south": "open", "setpoint": 6}"#;
    let end = format!(
        "  hub    {view}\n  north  {view}\n  south  {view}\nConflicts\n  setpoint: 6 by south shows, 4 by north is kept\nconverged\n"
    );
    assert!(text.ends_with(&end), "{text}");
    assert!(std::fs::read_dir(temp.path()).expect("there").next().is_none(), "it left something");
}

#[test]
fn a_given_folder_stays_and_is_not_used_twice() {
    let temp = tempfile::tempdir().expect("temp folder");
    let folder = temp.path().join("fleet");
    let (output, text) = run(Some(&folder), temp.path());
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for name in ["hub", "north", "south"] {
        assert!(folder.join(name).join("documents.sqlite3").is_file(), "{name}");
    }
    let (output, text) = run(Some(&folder), temp.path());
    assert_eq!((output.status.code(), text.as_str()), (Some(1), ""));
}
