//! Backups: what is in one, what is refused, and that a restored data folder serves as the old one did.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
};

use edgeward::{
    DocumentName, EdgeCluster, EdgeError, EdgeFunction, EdgeNode, ErrorKind, FunctionState, Handler, Message, Node, NodeId, NodeOptions,
    Precondition, TopicFilter, TopicName, Trigger, TriggerId, Value,
    backup::{Manifest, Restored, create, restore},
};
use edgeward_durable::{create_private_folder, write};
use jiff::Timestamp;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temp folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What lies beside each other here.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("there").map(|entry| entry.expect("readable").file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().expect("text")).collect();
        names.sort();
        names
    }

    fn create(&self) -> Result<Manifest, EdgeError> {
        create(&self.path("data"), &self.path("backup"), NOW, |_| {})
    }

    fn restore(&self, to: &str, replace: bool) -> Result<Restored, EdgeError> {
        restore(&self.path("backup"), &self.path(to), replace, NOW, |_| {})
    }
}

fn open(data_dir: &Path) -> Result<Arc<Node>, EdgeError> {
    let node = EdgeNode::new("edge-01", "test").expect("valid");
    Node::open(NodeOptions::new(node, data_dir))
}

/// A command that does nothing; `name` makes its digest another.
fn command(name: &str) -> Vec<u8> {
    wat::parse_str(format!(r#"(module ${name} (memory (export "memory") 1) (func (export "_start")))"#)).expect("valid")
}

/// Deploys a function with an artifact of its own.
async fn deploy(node: &Arc<Node>, id: &str) {
    let digest = node.add_artifact(command(id)).await.expect("runs here");
    let function = EdgeFunction::new(id, id, Handler::Artifact(digest)).expect("valid");
    node.put_function(function, Precondition::None).await.expect("put");
}

fn ids(node: &Node) -> Vec<String> {
    node.functions().into_iter().map(|view| view.record.function.id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_node_is_restored_and_serves() {
    let place = Place::new();
    let node = open(&place.path("data")).expect("opens");
    for id in ["gone", "a", "b"] {
        deploy(&node, id).await;
    }
    let gone = "gone".parse().expect("valid");
    node.delete_function(&gone, Precondition::None).await.expect("deleted");
    let manifest = place.create().expect("backs up");
    assert_eq!((manifest.node.as_str(), manifest.time, manifest.artifacts.len()), ("edge-01", NOW, 2));
    assert_eq!(Manifest::read(&place.path("backup")).expect("reads"), manifest);
    // The node goes on, and has its folder for itself.
    deploy(&node, "later").await;
    assert_eq!(place.restore("data", true).expect_err("in use").kind(), ErrorKind::Conflict);

    let restored = place.restore("nested/restored", false).expect("restores");
    assert_eq!((restored.manifest, restored.replaced), (manifest, None));
    let again = open(&place.path("nested/restored")).expect("opens");
    again.reconcile().await;
    assert_eq!(ids(&again), ["a", "b"]);
    for view in again.functions() {
        assert_eq!(view.state, FunctionState::Ready, "{}", view.message);
        again.runtime().invoke(view.record.function.id.as_str(), "").await.expect("serves");
        assert_eq!(view.record.generation, node.function(view.record.function.id.as_str()).expect("there").record.generation);
    }
    assert_eq!(place.names(), ["backup", "data", "nested"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_how_far_triggers_got_are_in_a_backup() {
    let place = Place::new();
    let node = open(&place.path("data")).expect("opens");
    let topic = || TopicName::new("site/berlin/temp").expect("valid");
    let filters = vec![TopicFilter::new("site/#").expect("valid")];
    let id = TriggerId::new("t").expect("valid");
    node.topics().put_trigger(Trigger::new(id.clone(), "f".parse().expect("valid"), filters)).await.expect("made");
    for n in 1..=3 {
        assert_eq!(node.topics().publish(Message::new(topic(), n.to_string(), NOW)).await.expect("published"), n);
    }
    let manifest = place.create().expect("backs up");
    assert!(manifest.topics.is_some());
    node.topics().publish(Message::new(topic(), "later", NOW)).await.expect("a backup stops no message");
    place.restore("restored", false).expect("restores");
    let again = open(&place.path("restored")).expect("opens");
    let latest = again.topics().latest(&TopicFilter::new("#").expect("valid"), None, 10).await.expect("reads");
    assert_eq!(latest.messages.iter().map(|message| message.payload.to_vec()).collect::<Vec<_>>(), [b"1", b"2", b"3"]);
    assert_eq!(again.topics().trigger(&id).await.expect("there").behind, 3);

    let log = place.path("backup/topics/topics.db");
    let mut bytes = fs::read(&log).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&log, bytes).expect("written");
    let error = place.restore("damaged", false).expect_err("refused");
    assert!(error.to_string().contains("topics.db"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_backup_began_is_in_it_while_everything_is_written() {
    const WRITERS: usize = 3;
    let place = Place::new();
    let node = open(&place.path("data")).expect("opens");
    let acknowledged: Arc<Vec<AtomicI64>> = Arc::new((0..WRITERS).map(|_| AtomicI64::new(0)).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let name = |n: usize| DocumentName::new(format!("d{n}")).expect("valid");
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let (document, acknowledged, stop) = (node.documents().document(name(n)), Arc::clone(&acknowledged), Arc::clone(&stop));
            thread::spawn(move || {
                for number in 1_i64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let edit = document.edit(edgeward_sync::Precondition::None, move |draft| {
                        draft.set("a", &number.into())?;
                        draft.set("b", &number.into())
                    });
                    edit.expect("a backup stops no write");
                    acknowledged[n].store(number, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 0..5 {
        // Deployed and undeployed all the time.
        deploy(&node, &format!("f{round}")).await;
        let before: Vec<_> = acknowledged.iter().map(|number| number.load(Ordering::SeqCst)).collect();
        place.create().expect("backs up");
        place.restore("restored", round > 0).expect("restores");
        let again = open(&place.path("restored")).expect("opens");
        assert_eq!(again.functions().len(), round + 1);
        for (n, before) in before.into_iter().enumerate() {
            let document = again.documents().document(name(n));
            let numbers = ["a", "b"].map(|key| document.get(key).expect("reads").unwrap_or(Value::from(0_i64)));
            let Value::Integer(number) = &numbers[0] else { panic!("{numbers:?}") };
            assert!(numbers[0] == numbers[1] && number.as_i64() >= Some(before), "round {round}: {numbers:?}, acknowledged {before}");
        }
        drop(again);
        fs::remove_dir_all(place.path("backup")).expect("there");
        let _ = fs::remove_dir_all(place.path("restored.replaced-19700101T000000Z"));
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().expect("no write failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_goes_with_its_artifact_meanwhile_is_not_missed() {
    let place = Place::new();
    let node = open(&place.path("data")).expect("opens");
    for id in ["gone", "stays"] {
        deploy(&node, id).await;
    }
    let gone = node.function("gone").expect("there").record.function;
    let artifact = gone.handler.artifact().expect("one").hex();
    let (data, backup, restored) = (place.path("data"), place.path("backup"), place.path("restored"));
    let (runtime, deleting) = (tokio::runtime::Handle::current(), Arc::clone(&node));
    let mut is_first = true;
    let manifest = tokio::task::spawn_blocking(move || {
        create(&data, &backup, NOW, |_| {
            // The copy is of the moment before.
            if std::mem::take(&mut is_first) {
                runtime.block_on(deleting.delete_function(&gone.id, Precondition::None)).expect("deleted");
                fs::remove_file(data.join("artifacts").join(&artifact).with_extension("wasm")).expect("collected");
            }
        })
    });
    assert_eq!(manifest.await.expect("joins").expect("backs up").artifacts.len(), 1);
    place.restore("restored", false).expect("restores");
    assert_eq!(ids(&open(&restored).expect("opens")), ["stays"]);
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("there").map(|entry| entry.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What a hub keeps of its fleet, and what its broker does.
fn keep_fleet(data_dir: &Path) {
    for (path, text) in [("fleet/authority.json", "keys"), ("fleet/joins.json", "uses"), ("fleet/broker/nats.conf", "made anew")] {
        create_private_folder(data_dir.join(path).parent().expect("one")).expect("made");
        write(&data_dir.join(path), text.as_bytes()).expect("written");
    }
    fs::write(data_dir.join("fleet/joins.7.unfinished"), "half").expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_is_backed_up_with_the_files_of_its_fleet_and_the_artifacts_that_it_assigned_for_its_owner_alone() {
    let place = Place::new();
    let data = place.path("data");
    create_private_folder(&data).expect("made");
    let cluster = EdgeCluster::open(&data).expect("opens");
    let node = NodeId::new("edge-01").expect("valid");
    cluster.admit(&node, None).expect("admitted");
    for id in ["a", "b"] {
        let digest = cluster.add_artifact(command(id)).await.expect("runs");
        let function = EdgeFunction::new(id, id, Handler::Artifact(digest)).expect("valid");
        cluster.deploy_to_node(node.as_str(), function).await.expect("assigned");
    }
    keep_fleet(&data);
    let manifest = place.create().expect("backs up");
    assert_eq!((manifest.node.as_str(), manifest.artifacts.len(), manifest.missing_artifacts.len()), ("hub", 2, 0));
    assert_eq!(manifest.fleet.keys().collect::<Vec<_>>(), ["authority.json", "joins.json"]);
    place.restore("restored", false).expect("restores");
    for folder in ["backup", "restored"] {
        for (path, mode) in modes(&place.path(folder)) {
            assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        }
    }
    assert_eq!(fs::read_to_string(place.path("restored/fleet/authority.json")).expect("there"), "keys");
    assert!(!place.path("restored/fleet/broker").exists());
    let again = EdgeCluster::open(place.path("restored")).expect("opens");
    assert_eq!(again.node_ids(), [node]);
    assert!(manifest.artifacts.keys().all(|digest| again.artifacts().contains(digest)));
    drop(again);

    // One that the hub has not got back itself stops no backup, and is named.
    let gone = *manifest.artifacts.keys().next().expect("two");
    fs::remove_file(data.join("artifacts").join(gone.hex()).with_extension("wasm")).expect("there");
    fs::remove_dir_all(place.path("backup")).expect("there");
    fs::remove_dir_all(place.path("restored")).expect("there");
    let manifest = place.create().expect("backs up");
    assert_eq!((manifest.artifacts.len(), manifest.missing_artifacts), (1, [gone].into()));
    place.restore("restored", false).expect("restores");
}

/// Every file and folder, with its permissions.
fn modes(path: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = vec![(path.to_owned(), fs::metadata(path).expect("there").permissions().mode() & 0o777)];
    if path.is_dir() {
        found.extend(fs::read_dir(path).expect("there").flat_map(|entry| modes(&entry.expect("readable").path())));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_refused_and_nothing_is_left() {
    let place = Place::new();
    deploy(&open(&place.path("data")).expect("opens"), "a").await;
    create_private_folder(&place.path("data/fleet")).expect("made");
    write(&place.path("data/fleet/authority.json"), &[b'k'; 100]).expect("written");
    place.create().expect("backs up");
    let files = files(&place.path("backup"));
    assert_eq!(files.len(), 6, "{files:?}");
    for file in files {
        let whole = fs::read(&file).expect("there");
        let last = whole.len() - 1;
        for position in [0, 17, whole.len() / 2, last - 20, last] {
            let mut damaged = whole.clone();
            damaged[position] ^= 1;
            fs::write(&file, &damaged).expect("written");
            let error = place.restore("restored", false).expect_err("damaged");
            assert!(error.to_string().contains("the backup is damaged"), "{}: {error}", file.display());
        }
        fs::write(&file, &whole[..last]).expect("written");
        place.restore("restored", false).expect_err("cut off");
        fs::remove_file(&file).expect("there");
        place.restore("restored", false).expect_err("gone");
        fs::write(&file, whole).expect("written");
    }
    assert_eq!(place.names(), ["backup", "data"]);
    place.restore("restored", false).expect("mended");
}

#[tokio::test]
async fn a_manifest_that_names_a_file_elsewhere_is_refused() {
    let place = Place::new();
    drop(open(&place.path("data")).expect("opens"));
    keep_fleet(&place.path("data"));
    place.create().expect("backs up");
    let json = fs::read_to_string(place.path("backup/manifest.json")).expect("there");
    for name in ["../joins.json", "/joins.json", "a/joins.json", "..", ""] {
        let json = json.replace("joins.json", name);
        fs::write(place.path("backup/manifest.json"), &json).expect("written");
        fs::write(place.path("backup/manifest.blake3"), format!("{}  manifest.json\n", blake3::hash(json.as_bytes()).to_hex()))
            .expect("written");
        let error = place.restore("restored", false).expect_err(name);
        assert!(error.to_string().contains("the backup is damaged"), "{name}: {error}");
    }
    assert_eq!(place.names(), ["backup", "data"]);
}

#[tokio::test]
async fn a_newer_backup_is_refused() {
    let place = Place::new();
    drop(open(&place.path("data")).expect("opens"));
    place.create().expect("backs up");
    let json = br#"{"format": 2, "what": "ever"}"#;
    fs::write(place.path("backup/manifest.json"), json).expect("written");
    fs::write(place.path("backup/manifest.blake3"), format!("{}  manifest.json\n", blake3::hash(json).to_hex())).expect("written");
    let error = place.restore("restored", false).expect_err("newer");
    assert!(error.to_string().contains("format 2, and this release knows 1; use a newer release"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_of_a_node_is_replaced_only_when_that_is_asked_for_and_then_lies_aside() {
    let place = Place::new();
    deploy(&open(&place.path("data")).expect("opens"), "a").await;
    place.create().expect("backs up");
    deploy(&open(&place.path("data")).expect("opens"), "later").await;
    let error = place.restore("data", false).expect_err("not asked for");
    assert_eq!((error.kind(), error.to_string().contains("is not empty")), (ErrorKind::Conflict, true), "{error}");

    let replaced = place.restore("data", true).expect("restores").replaced.expect("there was one");
    assert_eq!(replaced, place.path("data.replaced-19700101T000000Z"));
    assert_eq!(place.names(), ["backup", "data", "data.replaced-19700101T000000Z"]);
    assert_eq!(ids(&open(&place.path("data")).expect("opens")), ["a"]);
    assert_eq!(ids(&open(&replaced).expect("opens")), ["a", "later"]);
    // Never over what was replaced before.
    assert_eq!(place.restore("data", true).expect_err("it is there").kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn what_is_in_the_way_is_not_touched() {
    let place = Place::new();
    drop(open(&place.path("data")).expect("opens"));
    fs::create_dir(place.path("backup")).expect("made");
    place.create().expect("an empty folder is fine");
    assert_eq!(place.create().expect_err("there is one").kind(), ErrorKind::Conflict);

    fs::create_dir(place.path("photos")).expect("made");
    fs::write(place.path("photos/cat.jpg"), "cat").expect("written");
    let error = place.restore("photos", true).expect_err("no data folder");
    assert!(error.to_string().contains("holds no node's data"), "{error}");
    // Neither is a folder of that name that is no left-over.
    fs::rename(place.path("photos"), place.path("restored.unfinished")).expect("renamed");
    let error = place.restore("restored", false).expect_err("in the way");
    assert!(error.to_string().contains("is in the way"), "{error}");
    assert!(place.path("restored.unfinished/cat.jpg").exists() && !place.path("restored").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_backed_up_is_told_and_leaves_nothing() {
    let place = Place::new();
    assert_eq!(place.create().expect_err("no data").kind(), ErrorKind::NotFound);
    assert_eq!(place.restore("data", false).expect_err("no backup").kind(), ErrorKind::NotFound);
    deploy(&open(&place.path("data")).expect("opens"), "a").await;

    fs::write(place.path("data/desired.json"), "{}").expect("written");
    let error = place.create().expect_err("of an earlier release");
    assert!(error.to_string().contains("start the node once"), "{error}");
    fs::remove_file(place.path("data/desired.json")).expect("there");

    fs::remove_dir_all(place.path("data/artifacts")).expect("there");
    let error = place.create().expect_err("its artifact is gone");
    assert!(error.to_string().contains("function `a`") && error.chain().contains("artifact not found"), "{}", error.chain());
    assert_eq!(place.names(), ["data"]);
}
