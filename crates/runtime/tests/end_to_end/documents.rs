//! Documents as functions see them: real guests that make every call of `wasi:keyvalue`, in both drafts.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use edgeward_model::{
    DocumentGrant, DocumentName, EdgeError, EdgeFunction, EdgeNode, ErrorKind,
    limits::{BATCH_BYTES_MAX, BATCH_KEYS_MAX, BUCKETS_MAX, CURSORS_MAX, KEY_BYTES_MAX, LISTED_KEYS_MAX, SWAPS_MAX, VALUE_BYTES_MAX},
};
use edgeward_runtime::{ArtifactStore, DocumentAccess, EdgeRuntime, RuntimeOptions, Swapped};
use parking_lot::Mutex;

use crate::support::{deploy, from_source, guest, request, runtime, text};

const DRAFTS: [&str; 2] = ["draft", "draft2"];

type Keys = BTreeMap<String, Vec<u8>>;

/// Documents in memory. While somebody holds them every call waits, as it does for a slow disk.
#[derive(Debug, Default)]
struct Memory(Mutex<BTreeMap<DocumentName, Keys>>);

impl Memory {
    /// Does something with the keys of one document, with no other call in between.
    fn with<T>(&self, document: &DocumentName, work: impl FnOnce(&mut Keys) -> T) -> T {
        work(self.0.lock().entry(document.clone()).or_default())
    }

    /// Makes every call wait until the answer is called.
    fn stall(self: &Arc<Self>) -> impl FnOnce() + use<> {
        let memory = Arc::clone(self);
        let ((stalled, stalls), (release, released)) = (mpsc::channel(), mpsc::channel::<()>());
        let thread = std::thread::spawn(move || {
            let _held = memory.0.lock();
            stalled.send(()).expect("awaited");
            let _ = released.recv();
        });
        stalls.recv().expect("it stalls");
        move || {
            drop(release);
            thread.join().expect("joins");
        }
    }

    fn value(&self, document: &str, key: &str) -> Option<Vec<u8>> {
        self.0.lock().get(document)?.get(key).cloned()
    }
}

impl DocumentAccess for Memory {
    fn get(&self, document: &DocumentName, key: &str) -> Result<Option<Vec<u8>>, EdgeError> {
        Ok(self.with(document, |keys| keys.get(key).cloned()))
    }

    fn keys(&self, document: &DocumentName, after: Option<&str>, limit: usize) -> Result<Vec<String>, EdgeError> {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        Ok(self.with(document, |keys| keys.range::<str, _>(range).take(limit).map(|(key, _)| key.clone()).collect()))
    }

    fn write(&self, document: &DocumentName, writes: Vec<(String, Option<Vec<u8>>)>) -> Result<(), EdgeError> {
        self.with(document, |keys| {
            for (key, value) in writes {
                match value {
                    Some(value) => drop(keys.insert(key, value)),
                    None => drop(keys.remove(&key)),
                }
            }
        });
        Ok(())
    }

    fn increment(&self, document: &DocumentName, key: String, by: i64) -> Result<i64, EdgeError> {
        self.with(document, |keys| {
            let number = keys.get(&key).map_or(Some(0), |value| std::str::from_utf8(value).ok()?.parse::<i64>().ok());
            let number = number.ok_or_else(|| EdgeError::invalid(format!("key `{key}` has no integer")))?;
            let sum = number.checked_add(by).ok_or_else(|| EdgeError::invalid(format!("key `{key}` would pass 64 bits")))?;
            keys.insert(key, sum.to_string().into_bytes());
            Ok(sum)
        })
    }

    fn swap(&self, document: &DocumentName, key: String, expected: Option<Vec<u8>>, value: Vec<u8>) -> Result<Swapped, EdgeError> {
        Ok(self.with(document, |keys| {
            let found = keys.get(&key).cloned();
            if found != expected {
                return Swapped::Found(found);
            }
            keys.insert(key, value);
            Swapped::Done
        }))
    }
}

/// A runtime with these documents, and the function `f` that makes the calls of its payload.
async fn with_documents(memory: &Arc<Memory>, grants: &[&str]) -> EdgeRuntime {
    let options = RuntimeOptions { artifacts: Arc::new(ArtifactStore::in_memory()), documents: Some(Arc::<Memory>::clone(memory)) };
    let runtime = EdgeRuntime::with_options(EdgeNode::new("edge-01", "test").expect("valid"), options);
    deploy(&runtime, "f", guest("keyvalue"), |f| f.documents = granted(grants)).await;
    runtime
}

fn granted(grants: &[&str]) -> Vec<DocumentGrant> {
    grants.iter().map(|grant| grant.parse().expect("valid")).collect()
}

/// What the guest tells of each call.
async fn told(runtime: &EdgeRuntime, draft: &str, calls: &[&str]) -> Vec<String> {
    let output = runtime.invoke("f", format!("{draft}\n{}", calls.join("\n"))).await.expect("it answers");
    std::str::from_utf8(&output).expect("text").lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn what_was_set_is_there_byte_for_byte_until_it_is_deleted() {
    for draft in DRAFTS {
        let memory = Arc::default();
        let runtime = with_documents(&memory, &["cellar"]).await;
        // JSON with odd spacing, bytes that are no text, and none at all.
        for value in ["%7B%20%22a%22%20%3A%0A1.0%20%7D", "%FF%00%80", "", "7"] {
            let set = format!("set door {value}");
            let calls =
                ["open cellar", "get door", "exists door", &set, "get door", "exists door", "delete door", "get door", "delete door"];
            assert_eq!(told(&runtime, draft, &calls).await, ["ok", "-", "false", "ok", value, "true", "ok", "-", "ok"], "{draft} {value}");
        }
        told(&runtime, draft, &["open cellar", "set door %FF%00"]).await;
        assert_eq!(memory.value("cellar", "door"), Some(vec![255, 0]));
        assert_eq!(told(&runtime, draft, &["open cellar", "get door"]).await[1], "%FF%00", "it outlives the sandbox");
    }
}

#[tokio::test]
async fn keys_are_listed_in_order_page_by_page() {
    let memory: Arc<Memory> = Arc::default();
    let count = 2 * LISTED_KEYS_MAX + 500;
    let writes = (0..count).map(|n| (format!("k{n:05}"), Some(Vec::new()))).collect();
    memory.write(&DocumentName::new("cellar").expect("valid"), writes).expect("written");
    let runtime = with_documents(&memory, &["cellar"]).await;
    // One numbers its cursors, the other gives the last key.
    for (draft, cursors) in [("draft", ["1", "2"]), ("draft2", ["k00999", "k01999"])] {
        let pages = ["open cellar", "keys", &format!("keys {}", cursors[0]), &format!("keys {}", cursors[1])];
        let told = told(&runtime, draft, &pages).await;
        let pages: Vec<_> = told[1..].iter().map(|page| page.split_once(" | ").expect("keys and a cursor")).collect();
        assert_eq!(pages.iter().map(|(_, cursor)| *cursor).collect::<Vec<_>>(), [cursors[0], cursors[1], "-"], "{draft}");
        let keys: Vec<_> = pages.iter().flat_map(|(keys, _)| keys.split(' ')).collect();
        assert!(keys.len() == count && keys.iter().enumerate().all(|(n, key)| *key == format!("k{n:05}")), "{draft}");
    }
    let mut calls = vec!["open cellar"];
    calls.extend(std::iter::repeat_n("keys", CURSORS_MAX + 1));
    calls.extend(["keys 2", "keys 1", "keys 99"]);
    let told = told(&runtime, "draft", &calls).await;
    let last = &told[told.len() - 3..];
    assert!(last[0].starts_with("k01000 "), "the oldest cursor that is kept");
    assert!(last[1..].iter().all(|told| told.contains("list from the beginning")), "{:?}", &last[1..]);
    assert_eq!(self::told(&runtime, "draft2", &["open cellar", "keys z"]).await[1], " | -");
}

#[tokio::test]
async fn an_increment_makes_a_number_and_adds_to_one() {
    let memory = Arc::default();
    let runtime = with_documents(&memory, &["cellar"]).await;
    let calls = ["open cellar", "increment n 2", "increment n 40", "get n", "set t hello", "increment t 1", "get t"];
    for draft in DRAFTS {
        let told = told(&runtime, draft, &[&calls[..], &["delete n"]].concat()).await;
        assert_eq!(told, ["ok", "2", "42", "42", "ok", "error: key `t` has no integer", "hello", "ok"], "{draft}");
    }
    let signed = told(&runtime, "draft2", &["open cellar", "increment n -3", "increment n 9223372036854775807"]).await;
    assert_eq!(signed, ["ok", "-3", "9223372036854775804"]);
    let calls = ["open cellar", "increment n 9223372036854775808", "increment n 4", "set n -9", "increment n 4"];
    let unsigned = told(&runtime, "draft", &calls).await;
    assert!(unsigned[1].contains("9223372036854775808 is too large"), "{unsigned:?}");
    assert!(unsigned[2].contains("would pass 64 bits"), "{unsigned:?}");
    assert!(unsigned[4].contains("is -5, which this interface cannot say"), "{unsigned:?}");
}

#[tokio::test]
async fn a_swap_succeeds_once_and_tells_the_loser_what_it_found() {
    let memory = Arc::default();
    let runtime = with_documents(&memory, &["cellar"]).await;
    let calls = ["open cellar", "cas k a", "cas k b", "race k between c", "get k"];
    assert_eq!(told(&runtime, "draft2", &calls).await, ["ok", "- done", "a done", "b between done", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_of_one_key_all_count() {
    let memory = Arc::default();
    let runtime = with_documents(&memory, &["cellar"]).await;
    let calls = ["open cellar", "add swapped 25", &["increment counted 1"; 25].join("\n")];
    let runs = futures::future::join_all((0..8).map(|_| told(&runtime, "draft2", &calls))).await;
    assert!(runs.iter().all(|told| told[1] == "done"));
    for key in ["swapped", "counted"] {
        assert_eq!(memory.value("cellar", key), Some(b"200".to_vec()), "{key}");
    }
}

#[tokio::test]
async fn a_batch_is_one_change_within_its_bounds() {
    let memory: Arc<Memory> = Arc::default();
    let runtime = with_documents(&memory, &["cellar"]).await;
    for draft in DRAFTS {
        let calls = ["open cellar", "set-many a 1 b %FF a 2", "get-many a x b", "delete-many a x", "get-many a b", "delete-many b"];
        assert_eq!(told(&runtime, draft, &calls).await, ["ok", "ok", "2 - %FF", "ok", "- %FF", "ok"], "{draft}");

        let too_many = format!("fill-many {} 1", BATCH_KEYS_MAX + 1);
        let too_large = format!("fill-many 5 {}", BATCH_BYTES_MAX / 5);
        let one_too_large = format!("fill-many 1 {}", VALUE_BYTES_MAX + 1);
        let told = told(&runtime, draft, &["open cellar", &too_many, &too_large, &one_too_large, "keys"]).await;
        assert!(told[1].contains("1001 keys, the most is 1000"), "{told:?}");
        assert!(told[2].contains("bytes long, the most is 1048576"), "{told:?}");
        assert!(told[3].contains("key `k0000` is 262145 bytes long"), "{told:?}");
        assert_eq!(told[4], " | -", "nothing of it was written");

        let most = format!("fill-many {BATCH_KEYS_MAX} 1000");
        let told = self::told(&runtime, draft, &["open cellar", &most, &format!("get-filled {BATCH_KEYS_MAX}")]).await;
        assert_eq!(told, ["ok", "ok", "1000000"]);
        let large: Vec<String> = (0..5).map(|n| format!("fill k000{n} {VALUE_BYTES_MAX}")).collect();
        let large: Vec<&str> = ["open cellar"].into_iter().chain(large.iter().map(String::as_str)).chain(["get-filled 5"]).collect();
        assert!(self::told(&runtime, draft, &large).await[6].contains("ask for fewer keys"), "{draft}");
        memory.0.lock().clear();
    }
}

#[tokio::test]
async fn a_document_that_was_not_granted_cannot_be_opened() {
    let memory = Arc::default();
    let runtime = with_documents(&memory, &["cellar"]).await;
    let calls = ["open cellar", "open attic", "open edgeward.nodes", "open ", "open %20", "open a/b", "get k"];
    let denied = ["ok", "access-denied", "access-denied", "no-such-store", "no-such-store", "no-such-store", "-"];
    for draft in DRAFTS {
        assert_eq!(told(&runtime, draft, &calls).await, denied, "{draft}");
    }
    // A deployment without the grant takes it away.
    deploy(&runtime, "f", guest("keyvalue"), |_| ()).await;
    for draft in DRAFTS {
        assert_eq!(told(&runtime, draft, &["open cellar"]).await, ["access-denied"], "{draft}");
    }
}

#[tokio::test]
async fn a_runtime_without_documents_has_no_such_store() {
    let runtime = runtime();
    deploy(&runtime, "f", guest("keyvalue"), |f| f.documents = granted(&["cellar"])).await;
    for draft in DRAFTS {
        assert_eq!(told(&runtime, draft, &["open cellar", "open attic"]).await, ["no-such-store", "access-denied"], "{draft}");
    }
}

#[tokio::test]
async fn a_grant_for_reading_changes_nothing() {
    let memory = Arc::<Memory>::default();
    memory.write(&DocumentName::new("cellar").expect("valid"), vec![("n".to_owned(), Some(b"1".to_vec()))]).expect("written");
    let runtime = with_documents(&memory, &["cellar:ro"]).await;
    let reads = ["open cellar", "get n", "exists n", "keys", "get-many n"];
    let writes = ["set n 2", "delete n", "increment n 1", "set-many n 2 m 3", "delete-many n"];
    for draft in DRAFTS {
        let told = told(&runtime, draft, &[&reads[..], &writes[..]].concat()).await;
        assert_eq!(told[..5], ["ok", "1", "true", "n | -", "1"], "{draft}");
        assert!(told[5..].iter().all(|told| told == "access-denied"), "{draft}: {told:?}");
    }
    assert_eq!(told(&runtime, "draft2", &["open cellar", "cas n 2"]).await[1], "access-denied");
    assert_eq!(memory.value("cellar", "n"), Some(b"1".to_vec()));
}

#[tokio::test]
async fn what_passes_a_bound_is_refused_and_the_guest_goes_on() {
    let memory = Arc::default();
    let runtime = with_documents(&memory, &["cellar"]).await;
    let (key, longer) = ("k".repeat(KEY_BYTES_MAX), "k".repeat(KEY_BYTES_MAX + 1));
    for draft in DRAFTS {
        let (most, more) = (format!("fill a {VALUE_BYTES_MAX}"), format!("fill b {}", VALUE_BYTES_MAX + 1));
        let (set, set_longer, get_longer) = (format!("set {key} 1"), format!("set {longer} 1"), format!("get {longer}"));
        let told = told(&runtime, draft, &["open cellar", &most, &more, &set, &set_longer, &get_longer, "hold cellar", "exists b"]).await;
        assert_eq!([&told[1], &told[3], &told[7]], ["ok", "ok", "false"], "{draft}");
        assert!(told[2].contains("value of key `b` is 262145 bytes long, the most is 262144"), "{told:?}");
        assert!(told[4].contains("is 1025 bytes long, the most is 1024") && told[5] == told[4], "{told:?}");
        // One is open already. What was held is given back.
        assert!(told[6].starts_with(&format!("{} error: the function holds {BUCKETS_MAX} buckets", BUCKETS_MAX - 1)), "{told:?}");
        assert_eq!(self::told(&runtime, draft, &["open cellar", "hold cellar", "open cellar"]).await[2], "ok");
    }
    let told = told(&runtime, "draft2", &["open cellar", "hold-cas a", "cas n 1", "hold-cas a"]).await;
    assert!(told[1].starts_with(&format!("{SWAPS_MAX} error: the function holds {SWAPS_MAX} compare-and-swap handles")), "{told:?}");
    assert_eq!((&*told[2], &told[3]), ("- done", &told[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_holds_up_neither_the_deadline_nor_other_functions() {
    let memory = Arc::<Memory>::default();
    let runtime = with_documents(&memory, &["cellar"]).await;
    let slow = |f: &mut EdgeFunction| (f.documents, f.timeout_seconds) = (granted(&["cellar"]), 1.0);
    deploy(&runtime, "f", guest("keyvalue"), slow).await;
    deploy(&runtime, "hello", guest("hello"), |_| ()).await;
    let release = memory.stall();
    let started = Instant::now();
    // More than there are threads for guests.
    let calls = (0..16).map(|n| runtime.invoke("f", format!("draft\nopen cellar\nset k{n} 1")));
    let (stopped, ()) = tokio::join!(futures::future::join_all(calls), async {
        assert_eq!(runtime.invoke("hello", "").await.expect("answers"), "hello from the edge\n");
        assert!(started.elapsed() < Duration::from_millis(900), "it waited: {:?}", started.elapsed());
    });
    assert!(stopped.iter().all(|result| result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Timeout)), "{stopped:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(runtime.running(), 0);
    // What was under way when its guest was stopped is finished.
    release();
    let deadline = Instant::now() + Duration::from_secs(10);
    while (0..16).any(|n| memory.value("cellar", &format!("k{n}")).is_none()) {
        assert!(Instant::now() < deadline, "the writes were lost");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_the_disk_is_no_computing_and_does_not_end_the_guest() {
    let memory = Arc::<Memory>::default();
    let runtime = with_documents(&memory, &["cellar"]).await;
    let release = memory.stall();
    let released = tokio::spawn(async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        release();
    });
    assert_eq!(told(&runtime, "draft", &["open cellar", "set k 1", "get k"]).await, ["ok", "ok", "1"]);
    released.await.expect("joins");
}

#[tokio::test]
async fn the_example_counts_visits_and_says_what_it_lacks() {
    let memory = Arc::default();
    let runtime = with_documents(&memory, &[]).await;
    deploy(&runtime, "visits", guest("visits"), |f| f.documents = granted(&["visits"])).await;
    let visit = async |path: &str| text(runtime.serve("visits", request(path, "")).await.expect("answers")).await;
    assert_eq!(visit("/garden").await, "visit 1 of /garden\n");
    assert_eq!(visit("/garden?again").await, "visit 2 of /garden\n");
    assert_eq!(visit("/pond").await, "visit 1 of /pond\n");
    assert_eq!(memory.value("visits", "/garden"), Some(b"2".to_vec()));
    deploy(&runtime, "visits", guest("visits"), |_| ()).await;
    let error = runtime.invoke("visits", "").await.expect_err("denied");
    assert!(error.to_string().contains("--document visits"), "{error}");
}

#[tokio::test]
async fn from_source_a_guest_in_python_keeps_the_latest_reading_of_each_sensor() {
    let memory = Arc::default();
    let runtime = with_documents(&memory, &[]).await;
    deploy(&runtime, "f", from_source("latest-py"), |f| f.documents = granted(&["latest"])).await;
    let post = async |path: &str, payload: &'static str| {
        let response = runtime.serve("f", request(path, payload)).await.expect("answers");
        (response.status().as_u16(), text(response).await)
    };
    let (older, newer) = (r#"{"date": "2010/01/31 22:00", "temp": 40.1}"#, r#"{"date": "2010/01/31 23:00", "temp": 39.4}"#);
    for (sensor, reading, kept) in [("/cellar", older, true), ("/cellar", newer, true), ("/cellar", older, false), ("/attic", older, true)]
    {
        assert_eq!(post(sensor, reading).await, (200, format!("{{\"kept\": {kept}}}\n")), "{sensor} {reading}");
    }
    let get = http::Request::get("/").header("host", "localhost").body(edgeward_runtime::body::full("")).expect("valid");
    let all = text(runtime.serve("f", get).await.expect("answers")).await;
    assert_eq!(all, format!("{{\"attic\": {older}, \"cellar\": {newer}}}\n"));
    assert_eq!(post("/cellar", "{}").await.0, 400);
    deploy(&runtime, "f", from_source("latest-py"), |_| ()).await;
    let (status, told) = post("/cellar", newer).await;
    assert!(status == 500 && told.contains("--document latest"), "{status} {told}");
}
