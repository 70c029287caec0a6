//! Projects, from `edgeward new` to the answer of the function, and what `edgeward.toml` and the command line say together.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::support::{Node, artifact, data_dir, edgeward, fails, told};

/// A project without a language: its artifact is a built guest, `manifest` follows the source.
fn project(folder: &Path, guest: &str, manifest: &str) -> String {
    fs::create_dir(folder).expect("made");
    fs::copy(artifact(guest), folder.join("guest.wasm")).expect("copied");
    let text = format!("edgeward_manifest_version = 1\n[component.from-file]\nsource = \"guest.wasm\"\n{manifest}");
    fs::write(folder.join("edgeward.toml"), text).expect("written");
    folder.display().to_string()
}

/// The environment of function `id`, as the guest `hostile` sees it.
async fn environment(node: &Node, id: &str) -> Value {
    let seen: Value = serde_json::from_slice(node.get_function(&format!("/fn/{id}/env")).await.body()).expect("json");
    seen["environment"].clone()
}

#[tokio::test]
async fn a_folder_is_deployed_as_its_file_says_and_the_command_line_wins() {
    let (temp, data) = data_dir();
    let node = Node::start(&data).await;
    let manifest = "allowed_outbound_hosts = [\"https://api.example.com\"]\nkey_value_stores = [\"visits\", \"prices:ro\"]\n\
        limits = { memory_mb = 64, timeout_seconds = 2.5, max_concurrency = 3, max_queue = 4, max_reuse = 5 }\n\
        environment = { UNIT = \"celsius\", TOKEN = { from_env = \"PROJECT_TOKEN\" } }\n[application]\nname = \"A guest\"\n";
    let folder = project(&temp.path().join("project"), "hostile", manifest);

    let output = node.command(&["deploy"]).current_dir(&folder).env("PROJECT_TOKEN", "s3cret").output().expect("starts");
    assert!(output.status.success(), "{}", told(&output));
    let function = node.json("/v1/functions/from-file").await;
    for (key, value) in [
        ("name", Value::from("A guest")),
        ("memory_mb", 64.into()),
        ("timeout_seconds", 2.5.into()),
        ("max_concurrency", 3.into()),
        ("max_queue", 4.into()),
        ("max_reuse", 5.into()),
        ("allowed_hosts", vec!["https://api.example.com"].into()),
    ] {
        assert_eq!(function[key], value, "{key}");
    }
    assert_eq!((&function["documents"][0]["document"], &function["documents"][1]["access"]), (&"visits".into(), &"read-only".into()));
    let seen = environment(&node, "from-file").await;
    assert_eq!((&seen["UNIT"], &seen["TOKEN"]), (&"celsius".into(), &"s3cret".into()));

    let flags = "--id other --name B --memory-mb 32 --timeout-seconds 1 --max-reuse 1 --max-queue 1 --max-concurrency 1 \
        --env TOKEN=mine --env MORE=1 --document prices --allow-host https://other.example";
    node.done(&["deploy", &folder].into_iter().chain(flags.split_whitespace()).collect::<Vec<_>>());
    let function = node.json("/v1/functions/other").await;
    assert_eq!((&function["name"], &function["memory_mb"], &function["timeout_seconds"]), (&"B".into(), &32.into(), &1.0.into()));
    assert_eq!((&function["max_reuse"], &function["max_queue"], &function["max_concurrency"]), (&1.into(), &1.into(), &1.into()));
    assert_eq!(function["allowed_hosts"], Value::from(vec!["https://other.example"]));
    assert_eq!(function["documents"], serde_json::json!([{ "document": "prices", "access": "read-write" }]));
    let seen = environment(&node, "other").await;
    assert_eq!((&seen["UNIT"], &seen["TOKEN"], &seen["MORE"]), (&"celsius".into(), &"mine".into(), &"1".into()));

    // Nothing is sent of a project whose values are not all there.
    let output = node.command(&["deploy", &folder, "--id", "third"]).env_remove("PROJECT_TOKEN").output().expect("starts");
    fails(&output, 9, "`PROJECT_TOKEN` of the shell, which is not set");
    fails(&node.run(&["functions", "show", "third"]), 3, "third");
}

#[tokio::test]
async fn a_project_that_cannot_be_deployed_says_what_is_missing() {
    let (temp, data) = data_dir();
    let node = Node::start(&data).await;
    let empty = temp.path().display().to_string();
    fails(&node.run(&["deploy", &empty]), 9, "has no `edgeward.toml`");
    fails(&node.run(&["deploy", &artifact("hello")]), 9, "`--id ID`");

    let folder = temp.path().join("project");
    let shown = project(&folder, "hello", "");
    fs::remove_file(folder.join("guest.wasm")).expect("there");
    let output = node.run(&["deploy", &shown]);
    fails(&output, 9, "guest.wasm` of `");
    assert!(told(&output).contains("hint: build it"), "{}", told(&output));
    fails(&node.run(&["build", &shown]), 9, "says not how the function is built");
    let manifest = fs::read_to_string(folder.join("edgeward.toml")).expect("there");
    fs::write(folder.join("edgeward.toml"), manifest + "build = { command = \"make\" }\n").expect("written");
    let output = node.run(&["deploy", &shown]);
    assert!(told(&output).contains("hint: `edgeward build` makes it"), "{}", told(&output));

    // A deployment to a fleet is asked of its hub, which this node is not; a place on the command line wins.
    let planned = project(&temp.path().join("planned"), "hello", "[deployment]\ntarget = \"site=berlin,count=2\"\n");
    assert!(!node.run(&["deploy", &planned]).status.success());
    fails(&node.run(&["functions", "show", "from-file"]), 3, "from-file");
    fails(&node.run(&["deploy", &planned, "--node", "edge-other"]), 3, "node not found: `edge-other`");
}

#[tokio::test]
async fn a_build_runs_its_commands_in_order_and_stops_at_the_first_that_fails() {
    let (temp, _) = data_dir();
    let folder = temp.path().join("project");
    let shown =
        project(&folder, "hello", "build = { command = [\"echo first\", \"mv ../other.wasm ../guest.wasm\"], workdir = \"src\" }\n");
    fs::create_dir(folder.join("src")).expect("made");
    fs::rename(folder.join("guest.wasm"), folder.join("other.wasm")).expect("there");
    let build = |folder: &str, options: &[&str]| edgeward(&[&["build", folder], options].concat()).output().expect("starts");
    let output = build(&shown, &["--json"]);
    assert!(output.status.success() && told(&output) == "first\n", "{}", told(&output));
    let told_built: Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(told_built["artifact"], format!("{shown}/guest.wasm"));
    assert_eq!(told_built["bytes"], fs::metadata(artifact("hello")).expect("there").len());

    let with = |name: &str, command: &str| {
        let folder = temp.path().join(name);
        project(&folder, "hello", &format!("build = {{ command = {command} }}\n"))
    };
    let stops = with("stops", "[\"exit 7\", \"touch reached\"]");
    fails(&build(&stops, &[]), 1, "failed to run `exit 7`");
    assert!(!Path::new(&stops).join("reached").exists());
    fails(&build(&with("nothing", "\"rm guest.wasm\""), &[]), 9, "the build ended well, and the `source`");
    let output =
        edgeward(&["build", &with("absent", "\"componentize-py componentize app\"")]).env("PATH", "/bin").output().expect("starts");
    fails(&output, 1, "a program that it needs is not there");
    assert!(told(&output).contains("pip install componentize-py"), "{}", told(&output));
}

#[test]
fn a_new_project_overwrites_nothing() {
    let (temp, _) = data_dir();
    let new = |args: &[&str]| edgeward(&[&["new"], args].concat()).current_dir(temp.path()).output().expect("starts");
    let output = new(&["hello", "--lang", "c"]);
    assert!(output.status.success(), "{}", told(&output));
    let told_made = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told_made.starts_with("made hello: .gitignore, edgeward.toml, README.md, build.sh, function.c\n"), "{told_made}");
    fails(&new(&["hello", "--lang", "rust"]), 12, "the folder `hello` is not empty");
    assert!(!temp.path().join("hello/Cargo.toml").exists());
    let made: Value = serde_json::from_slice(&new(&["b", "--lang", "js", "--path", "x/y", "--json"]).stdout).expect("json");
    assert_eq!((&made["folder"], &made["files"][4]), (&"x/y".into(), &"function.js".into()));
    fails(&new(&["a/b", "--lang", "c"]), 2, "`/` is not allowed");
    fails(&new(&["c", "--lang", "go"]), 2, "[possible values: rust, c, python, js]");
}

#[test]
fn the_help_names_the_file_and_the_languages() {
    let help = |command: &str| String::from_utf8(edgeward(&[command, "--help"]).output().expect("starts").stdout).expect("text");
    assert!(help("new").contains("[possible values: rust, c, python, js]"), "{}", help("new"));
    assert!(help("build").contains("edgeward.toml"));
    assert!(help("deploy").contains("What is given wins over the edgeward.toml of a project."));
}

/// Makes a project, builds it by its own command, deploys its folder as it is, and asks it.
async fn works_from_source(language: &str, tools: &[PathBuf]) {
    let (temp, data) = data_dir();
    let path = std::env::join_paths(tools.iter().cloned().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())));
    let path: OsString = path.expect("no folder has a colon");
    let node = Node::start(&data).await;
    let run = |command: &mut Command| {
        let output = command.env("PATH", &path).output().expect("starts");
        assert!(output.status.success(), "{}", told(&output));
        output.stdout
    };
    run(edgeward(&["new", "greeter", "--lang", language]).current_dir(temp.path()));
    let folder = temp.path().join("greeter");
    run(edgeward(&["build"]).current_dir(&folder));
    run(node.command(&["deploy"]).current_dir(&folder));
    assert_eq!(node.done(&["invoke", "greeter", "--data", "ada"]), b"hello, ada\n");
    assert_eq!(node.get_function("/fn/greeter/").await.body(), "hello, edge\n");
    let long = "x".repeat(1025);
    let refused = node.run(&["invoke", "greeter", "--data", &long]);
    fails(&refused, 5, "longer than 1024 bytes");
    assert_eq!(node.done(&["invoke", "greeter", "--data", &long[..1024]]).len(), "hello, \n".len() + 1024);
}

/// The folder of the tools that are Python packages, where set-up put them.
fn python_tools() -> PathBuf {
    let python = std::env::var_os("EDGEWARD_PYTHON").expect("EDGEWARD_PYTHON names a Python with the tools; see CONTRIBUTING.md");
    Path::new(&python).parent().expect("in a folder").to_path_buf()
}

/// A folder with a `cargo` that builds for `wasm32-wasip2`, where rustup has not installed that target: as `functions/build.sh` can without.
fn rust_tools(folder: &Path) -> Vec<PathBuf> {
    let libraries = Command::new("rustc").args(["--print", "target-libdir", "--target", "wasm32-wasip2"]).output();
    if libraries.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()) {
        return Vec::new();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../functions/build.sh");
    let cargo = folder.join("cargo");
    let text = format!(
        "#!/bin/sh\n[ \"$*\" = 'build --release --target wasm32-wasip2' ] || exit 2\nunset CARGO RUSTC\nexec '{script}' rust-project \"$PWD\"\n"
    );
    fs::write(&cargo, text).expect("written");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("ours");
    vec![folder.to_path_buf(), python_tools()]
}

#[tokio::test]
async fn from_source_a_new_project_in_rust_builds_and_deploys_as_it_is() {
    let tools = tempfile::tempdir().expect("a folder");
    works_from_source("rust", &rust_tools(tools.path())).await;
}

#[tokio::test]
async fn from_source_a_new_project_in_c_builds_and_deploys_as_it_is() {
    works_from_source("c", &[]).await;
}

#[tokio::test]
async fn from_source_a_new_project_in_python_builds_and_deploys_as_it_is() {
    works_from_source("python", &[python_tools()]).await;
}

#[tokio::test]
async fn long_from_source_a_new_project_in_javascript_builds_and_deploys_as_it_is() {
    works_from_source("js", &[]).await;
}
