use std::fs;

use super::*;

/// What a project needs at least.
const LEAST: &str = "edgeward_manifest_version = 1\n[component.hello]\nsource = \"hello.wasm\"\n";

fn read(text: &str) -> Result<Project, EdgeError> {
    Manifest::read("a/edgeward.toml", text)?.into_project(Path::new("a/edgeward.toml"))
}

/// The message about `lines` after the least that a project needs, which are its fourth and following.
fn refused(lines: &str) -> String {
    read(&format!("{LEAST}{lines}")).expect_err(lines).to_string()
}

#[test]
fn the_least_project_leaves_all_else_to_the_node() {
    let project = read(LEAST).expect("valid");
    let expected = Project {
        file: "a/edgeward.toml".into(),
        folder: "a".into(),
        id: FunctionId::new("hello").expect("valid"),
        name: None,
        source: Artifact::File("a/hello.wasm".into()),
        environment: BTreeMap::new(),
        allowed_hosts: Vec::new(),
        documents: Vec::new(),
        limits: Limits::default(),
        resilience: Resilience::default(),
        build: None,
        triggers: Vec::new(),
        deployment: None,
        schedules: Vec::new(),
    };
    assert_eq!(project, expected);
}

#[test]
fn the_example_of_the_documentation_is_read_key_by_key() {
    let page = include_str!("../../../../docs/edgeward-toml.md");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let project = read(example).expect("valid");
    assert_eq!((project.id.as_str(), project.name.as_deref()), ("visits", Some("Visits of the garden")));
    assert_eq!(project.source, Artifact::File("a/target/wasm32-wasip2/release/function.wasm".into()));
    assert_eq!(project.allowed_hosts, ["https://api.example.com"]);
    assert_eq!(project.documents.iter().map(ToString::to_string).collect::<Vec<_>>(), ["visits", "prices:ro"]);
    let from_env = Variable::Shell(FromEnv { from_env: "VISITS_API_TOKEN".to_owned() });
    let environment = [("API_TOKEN".to_owned(), from_env), ("UNIT".to_owned(), Variable::Text("celsius".to_owned()))];
    assert_eq!(project.environment, environment.into());
    assert_eq!(project.limits, Limits { memory_mb: Some(64), timeout_seconds: Some(2.5), ..Limits::default() });
    let build = project.build.expect("built");
    assert_eq!((build.commands.each(), build.workdir), (&["cargo build --release --target wasm32-wasip2".to_owned()][..], None));
    assert_eq!(project.triggers, Vec::new());
    let plan = project.deployment.expect("deployed");
    assert_eq!(plan.target, "site=berlin,count=2".parse().expect("valid"));
    let strategy: Strategy = serde_json::from_str(r#"{"kind": "canary", "batch": "5%"}"#).expect("valid");
    assert_eq!(plan.strategy, Some(strategy));
    let expected = r#"{"idempotent": true, "deadline_seconds": 2, "retry": {"attempts": 4}}"#;
    assert_eq!(project.resilience, serde_json::from_str::<Resilience>(expected).expect("valid"));
    let [nightly] = &project.schedules[..] else { panic!("one schedule") };
    let written = (nightly.id.as_str(), nightly.function.as_str(), nightly.when.to_string(), nightly.zone.name());
    assert_eq!(written, ("visits-nightly", "visits", "30 2 * * *".to_owned(), "Europe/Berlin"));
    assert_eq!((nightly.attempts, nightly.payload.as_str()), (3, r#"{"job": "tidy"}"#));
}

#[test]
fn the_example_of_triggers_is_read_key_by_key() {
    let page = include_str!("../../../../docs/edgeward-toml.md");
    let example = page.split("```toml\n").nth(2).and_then(|rest| rest.split("```").next()).expect("an example");
    let project = read(example).expect("valid");
    let triggers: Vec<_> = project.triggers.iter().map(|plan| plan.of(&project.id).expect("valid")).collect();
    assert_eq!(triggers.iter().map(|trigger| trigger.id.as_str()).collect::<Vec<_>>(), ["visits", "visits.alarms"]);
    assert_eq!(triggers[0], Trigger::new(triggers[0].id.clone(), project.id.clone(), vec!["gates/+/opened".parse().expect("valid")]));
    let Trigger { mode, concurrency, retry, .. } = triggers[1].clone();
    assert_eq!((mode, concurrency, retry.attempts, retry.pause_min_ms), (ContentMode::Structured, 1, 10, 100));
}

#[test]
fn what_may_be_written_in_two_ways_is_read_in_both() {
    let build = |text: &str| read(&format!("{LEAST}build = {text}")).expect("valid").build.expect("built");
    let several = build(r#"{ command = ["a", "b"], workdir = "src" }"#);
    assert_eq!((several.commands.each(), several.workdir), (&["a".to_owned(), "b".to_owned()][..], Some("src".into())));
    let limits = read(&format!("{LEAST}limits = {{ timeout_seconds = 2, max_queue = 0 }}")).expect("valid").limits;
    assert_eq!((limits.timeout_seconds, limits.max_queue), (Some(2.0), Some(0)));
    let strategy = |text: &str| read(&format!("{LEAST}[deployment]\ntarget = \"all\"\nstrategy = {text}")).expect("valid").deployment;
    for batch in ["3", "\"3\""] {
        let plan = strategy(&format!("{{ kind = \"rolling\", batch = {batch}, gate = {{ probe = {{ path = \"/health\" }} }} }}"));
        let strategy = plan.and_then(|plan| plan.strategy).expect("a strategy");
        assert_eq!(strategy.batch().to_string(), "3");
    }
    let native = read(&LEAST.replace("hello.wasm", "native:echo")).expect("valid");
    assert_eq!(native.source, "native:echo".parse().expect("valid"));
    let route = "[[trigger.http]]\ncomponent = \"hello\"\nroute = \"/fn/hello/...\"\n";
    assert!(read(&format!("{LEAST}{route}")).is_ok());
}

#[test]
fn a_key_that_is_not_known_is_named_with_its_file_and_line() {
    for (lines, line, key) in [
        ("sources = 1", 4, "sources"),
        ("\nlimits = { memory = 1 }", 5, "memory"),
        ("[component.hello.limits]\nmemory_mb = 1\ntimeout = 1", 6, "timeout"),
        ("[component.hello.build]\ncommand = \"a\"\nwatch = []", 6, "watch"),
        ("[application]\nname = \"a\"\nversion = \"1\"", 6, "version"),
        ("[variables]\na = 1", 4, "variables"),
        ("[deployment]\ntarget = \"all\"\n[deployment.strategy]\nbath = 1", 7, "bath"),
        ("[deployment]\ntarget = \"all\"\n[deployment.strategy.gate]\np99_factor = 1", 7, "p99_factor"),
        ("[[trigger.http]]\ncomponent = \"hello\"\nbase = \"/\"", 6, "base"),
    ] {
        let message = refused(lines);
        assert!(message.starts_with(&format!("`a/edgeward.toml`, line {line}: ")), "{message}");
        assert!(message.contains(&format!("`{key}`")) && message.contains("expected"), "{message}");
    }
}

#[test]
fn a_value_that_is_wrong_is_told_with_its_line() {
    for (lines, line, words) in [
        ("limits = { memory_mb = -1 }", 4, "u32"),
        ("limits = { timeout_seconds = \"2\" }", 4, "expected"),
        ("key_value_stores = [\n\"a\",\n\"b:rw\"]", 6, "`b:ro` for reading only"),
        ("key_value_stores = [\"edgeward.x\"]", 4, "the node's own"),
        ("[deployment]\ntarget = \"berlin\"", 5, "says not which nodes"),
        ("[deployment]\nstrategy = {}", 4, "`target`"),
        ("[deployment]\ntarget = \"all\"\nstrategy = { kind = \"blue-green\", batch = 2 }", 6, "no batch"),
        ("[deployment]\ntarget = \"all\"\nstrategy = { batch = \"many\" }", 6, "`many` is no amount"),
        ("[deployment]\ntarget = \"all\"\nstrategy = { kind = \"fast\" }", 6, "`blue-green`"),
        ("environment = { A = 5 }", 4, "the value of a variable as a text, or `{ from_env = \"NAME\" }`"),
        ("environment = { A = { default = \"5\" } }", 4, "`from_env`"),
        ("build = { command = 1 }", 4, "a command is a text, or a list of texts"),
        ("build = [\"make\"]", 4, "fields with their names"),
        ("limits = [64]", 4, "fields with their names"),
        ("[deployment]\ntarget = \"all\"\nstrategy = [\"canary\", 2]", 6, "fields with their names"),
        ("[deployment]\ntarget = \"all\"\nstrategy = { gate = [50.0] }", 6, "fields with their names"),
        ("[deployment]\ntarget = \"all\"\nstrategy = { batch = [2] }", 6, "an amount is a number of nodes"),
        ("[component.other]\nsource = \"b\"", 2, "2 components"),
        ("[[trigger.redis]]\nchannel = \"a\"", 4, "unknown field `redis`, expected `http` or `topic`"),
        ("[[trigger.http]]\ncomponent = \"other\"", 4, "`other`, and the function is `hello`"),
        ("[[trigger.http]]\ncomponent = \"hello\"\nroute = \"/...\"", 4, "`/fn/hello/...`"),
        ("[[trigger.http]]\ncomponent = \"hello\"\n[[trigger.http]]\ncomponent = \"hello\"", 6, "second trigger"),
        ("[[trigger.topic]]\ncomponent = \"other\"\ntopics = [\"a\"]", 4, "`other`, and the function is `hello`"),
        ("[[trigger.topic]]\ncomponent = \"hello\"\ntopics = [\n\"a\",\n\"b/#/c\"]", 8, "last level"),
        ("[[trigger.topic]]\ncomponent = \"hello\"\ntopics = []", 4, "number of filters"),
        ("[[trigger.topic]]\ncomponent = \"hello\"\ntopics = [\"a\"]\nconcurrency = 0", 4, "must be from 1 to 256"),
        ("[[trigger.topic]]\ncomponent = \"hello\"\ntopics = [\"a\"]\nmode = \"batch\"", 7, "`structured`"),
        ("[[trigger.topic]]\ncomponent = \"hello\"\ntopics = [\"a\"]\nname = \"a b\"", 7, "`hello.a b`"),
        (
            "[[trigger.topic]]\ncomponent = \"hello\"\ntopics = [\"a\"]\n[[trigger.topic]]\ncomponent = \"hello\"\ntopics = [\"b\"]",
            7,
            "`name` of its own",
        ),
        ("source = \"twice\"", 4, "duplicate key"),
    ] {
        let message = refused(lines);
        assert!(message.starts_with(&format!("`a/edgeward.toml`, line {line}: ")) && message.contains(words), "{lines}\n{message}");
    }
    let error = read(&format!("application = [\"x\"]\n{LEAST}")).expect_err("a list").to_string();
    assert!(error.contains("line 1: ") && error.contains("fields with their names"), "{error}");
    assert!(read(&LEAST.replace("hello.wasm", "sha256:12")).expect_err("no digest").to_string().contains("line 3: "));
    assert!(read(&LEAST.replace("component.hello", "component.\"a/b\"")).expect_err("no id").to_string().contains("line 2: "));
}

#[test]
fn a_file_that_is_none_of_this_version_is_told_so_before_its_keys() {
    let message = |text: &str| read(text).expect_err(text).to_string();
    let least = |first: &str| message(&LEAST.replace("edgeward_manifest_version = 1", first));
    assert!(
        least("edgeward_manifest_version = 2\nnew_key = 1").contains("line 1: `edgeward_manifest_version` is 2, and this release reads 1")
    );
    assert!(least("# a comment\nspin_manifest_version = 2").contains("line 2: this is a manifest of Spin"));
    assert!(least("").contains("it lacks `edgeward_manifest_version = 1`"));
    assert!(message("edgeward_manifest_version = 1").contains("`component`"));
    assert!(message("edgeward_manifest_version = 1\n[component.a]").contains("`source`"));
    assert!(message("edgeward_manifest_version = 1\ncomponent = {}").contains("0 components"));
}

#[test]
fn no_message_repeats_a_value_that_may_be_a_secret() {
    for lines in [
        "environment = { TOKEN = 's3cret }",
        "environment = { TOKEN = s3cret }",
        "environment = { TOKEN = \"s3cret }",
        "environment = { TOKEN = \"s3cret\\q\" }",
        "environment = { TOKEN = 0x5_s3cret }",
        "environment = { TOKEN = [\"s3cret\"] }",
        "environment = { TOKEN = { from = \"s3cret\" } }",
        "environment = { TOKEN = { from_env = \"A\", default = \"s3cret\" } }",
        "environment = \"TOKEN=s3cret\"",
        "environment = [\"TOKEN=s3cret, expected nothing\"]",
        "environment = { TOKEN = \"s3cret\" } x",
        "[component.hello.environment]\nTOKEN = \"s3cret\" # \u{7f}",
        "[component.hello.limits]\nmemory_mb = \"s3cret\"",
    ] {
        let message = refused(lines);
        assert!(message.contains("line ") && !message.contains("s3cret"), "{lines}\n{message}");
    }
    let project = read(&format!("{LEAST}environment = {{ TOKEN = \"s3cret\" }}")).expect("valid");
    assert!(!format!("{project:?}").contains("s3cret"));
}

#[test]
fn a_value_comes_from_the_file_or_from_the_shell() {
    let from = |name: &str| Variable::Shell(FromEnv { from_env: name.to_owned() });
    let shell = |name: &str| match name {
        "SET" => Some("value".into()),
        "EMPTY" => Some(OsString::new()),
        "BROKEN" => Some(std::os::unix::ffi::OsStringExt::from_vec(vec![b's', 0xff])),
        _ => None,
    };
    assert_eq!(Variable::Text("text".to_owned()).value("A", shell).expect("there"), "text");
    assert_eq!(from("SET").value("A", shell).expect("set"), "value");
    assert_eq!(from("EMPTY").value("A", shell).expect("set"), "");
    let message = from("UNSET").value("A", shell).expect_err("not set").to_string();
    assert!(message.contains("variable `A`") && message.contains("`UNSET` of the shell, which is not set"), "{message}");
    assert!(from("BROKEN").value("A", shell).expect_err("no text").to_string().contains("no UTF-8"));
}

#[test]
fn a_project_is_named_by_its_folder_or_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, artifact) = (folder.path().join(FILE_NAME), folder.path().join("hello.wasm"));
    let error = Project::at(folder.path()).expect_err("empty").to_string();
    assert!(error.contains("has no `edgeward.toml`") && error.contains("`edgeward new`"), "{error}");
    fs::write(&file, LEAST).expect("written");
    fs::write(&artifact, "").expect("written");
    let project = Project::at(folder.path()).expect("valid").expect("a project");
    assert_eq!((&project.source, &project.folder), (&Artifact::File(artifact.clone()), &folder.path().to_path_buf()));
    assert_eq!(Project::at(&file).expect("valid"), Some(project));
    assert_eq!(Project::at(&artifact).expect("no project"), None);
    assert_eq!(Project::at(Path::new("/nonexistent.wasm")).expect("no project"), None);
    // A file without a folder before its name lies in the present one.
    let here = Manifest::read(FILE_NAME, LEAST).expect("valid").into_project(Path::new(FILE_NAME)).expect("valid");
    assert_eq!(here.folder, Path::new("."));
}

#[test]
fn a_file_past_its_bound_is_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let of_length = |bytes: usize| {
        fs::write(folder.path().join(FILE_NAME), format!("{LEAST}#{}", "x".repeat(bytes - LEAST.len() - 1))).expect("written");
        Project::at(folder.path())
    };
    assert!(of_length(PROJECT_FILE_BYTES_MAX).is_ok());
    let error = of_length(PROJECT_FILE_BYTES_MAX + 1).expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[test]
fn a_schedule_that_is_wrong_is_told_with_its_line() {
    for (lines, why) in [
        ("when = \"every 30s\"", "missing field `id`"),
        ("id = \"s\"", "missing field `when`"),
        ("id = \"s\"\nwhen = \"0 0 30 2 *\"", "never"),
        ("id = \"s\"\nwhen = \"@daily\"\nzone = \"Mars/Base\"", "there is no time zone `Mars/Base`"),
        ("id = \"s\"\nwhen = \"every 30s\"\njitter_seconds = -1", "expected u32"),
        ("id = \"s\"\nwhen = \"every 30s\"\nattempts = 11", "attempts of schedule `s` is 11"),
        ("id = \"s\"\nwhen = \"every 30s\"\njiter = 1", "unknown field `jiter`"),
        ("id = \"s\"\nwhen = \"every 30s\"\nfunction = \"other\"", "leave `function` out"),
    ] {
        let told = refused(&format!("[[schedule]]\n{lines}\n"));
        assert!(told.starts_with("`a/edgeward.toml`, line 4") && told.contains(why), "{told}");
    }
    let one = "[[schedule]]\nid = \"s\"\nwhen = \"every 30s\"\n";
    assert!(refused(&format!("{one}{one}")).contains("schedule `s` twice"));
}

#[test]
fn what_is_wrong_with_how_calls_are_routed_is_told_with_its_line() {
    for (lines, why) in [
        ("balance = \"fastest\"", "unknown variant `fastest`"),
        ("retries = 2", "unknown field `retries`"),
        ("retry = { attempts = -1 }", "expected u32"),
        ("retry = { attempts = 11 }", "attempts of the resilience is 11"),
        ("deadline_seconds = 0", "deadline_seconds of the resilience is 0"),
    ] {
        let told = refused(&format!("[component.hello.resilience]\n{lines}\n"));
        assert!(told.starts_with("`a/edgeward.toml`, line ") && told.contains(why), "{told}");
    }
}
