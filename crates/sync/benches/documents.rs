//! What documents cost: one `name value` a line, times in nanoseconds and sizes in bytes, for `cargo xtask bench`.
//!
//! Arguments choose among `writes`, `writers`, `sizes`, `merge`, `reopen` and `reconnect`; none means all. Each peer takes turns with ours within
//! one run; `cargo xtask bench` repeats the run.

use std::{
    error::Error,
    io::{Read, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use edgeward_model::{DocumentName, NodeId, Value};
use edgeward_sync::{Document, Documents, Epoch, Hub, Precondition, ReplicaSession, Role, SessionState, Store};
use rusqlite::{Connection, params};
use yrs::{Doc, Map as _, ReadTxn as _, Transact as _, Update, updates::decoder::Decode as _};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Part = fn() -> Result<()>;

const TURNS: usize = 10;
const WRITES_PER_TURN: usize = 200;
const WRITERS: usize = 64;
const WRITES_PER_WRITER: usize = 20;
const EDITS: usize = 5_000;

fn main() -> Result<()> {
    // cargo passes `--bench`, which is no name of ours.
    let names: Vec<_> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let parts: [(&str, Part); 6] =
        [("writes", writes), ("writers", writers), ("sizes", sizes), ("merge", merge), ("reopen", reopen), ("reconnect", reconnect)];
    for (name, part) in parts {
        if names.is_empty() || names.iter().any(|each| each == name) {
            part()?;
        }
    }
    Ok(())
}

fn tell(name: &str, value: f64) {
    println!("{name} {value}");
}

fn nanoseconds(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e9 / count as f64
}

fn store(folder: &Path, node: &str, role: Role) -> Result<Arc<Store>> {
    Ok(Arc::new(Store::open_as(folder, NodeId::new(node)?, Epoch::draw()?, role)?))
}

fn document(store: &Arc<Store>, name: &str) -> Result<Document> {
    Ok(Documents::new(Arc::clone(store)).document(DocumentName::new(name)?))
}

/// A key of 16 bytes.
fn key(n: usize) -> String {
    format!("sensor-{n:09}")
}

/// A value of 8 bytes as JSON.
fn value(n: usize) -> Value {
    Value::from(format!("{:06}", n % 1_000_000))
}

fn put(document: &Document, n: usize, content: usize) -> Result<()> {
    let (key, value) = (key(n), value(content));
    document.edit(Precondition::None, move |draft| draft.set(&key, &value))?;
    Ok(())
}

/// The same row into the same table, by hand.
struct Bare {
    sql: Connection,
    seq: i64,
}

impl Bare {
    fn open(path: &Path) -> Result<Self> {
        let sql = Connection::open(path)?;
        sql.pragma_update(None, "journal_mode", "WAL")?;
        sql.pragma_update(None, "synchronous", "FULL")?;
        sql.execute_batch(
            "CREATE TABLE rows (document INTEGER NOT NULL, key TEXT NOT NULL, slot BLOB NOT NULL, seq INTEGER, value TEXT,
                state BLOB NOT NULL, PRIMARY KEY (document, key, slot)) STRICT, WITHOUT ROWID;
            CREATE UNIQUE INDEX feed ON rows (seq) WHERE seq IS NOT NULL;",
        )?;
        Ok(Self { sql, seq: 0 })
    }

    fn put(&mut self, n: usize, content: usize) -> Result<()> {
        self.seq += 1;
        let mut insert = self.sql.prepare_cached("INSERT OR REPLACE INTO rows VALUES (1, ?1, X'', ?2, ?3, ?4)")?;
        insert.execute(params![key(n), self.seq, format!("\"{:06}\"", content % 1_000_000), [7_u8; 40]])?;
        Ok(())
    }
}

/// A document of ours and the bare table beside it.
fn beside(folder: &Path) -> Result<(Document, Bare)> {
    let store = store(&folder.join("ours"), "edge-01", Role::Replica)?;
    Ok((document(&store, "cellar")?, Bare::open(&folder.join("bare.sqlite3"))?))
}

/// Durable writes of one key each, one after the other.
fn writes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (ours, mut bare) = beside(folder.path())?;
    let (mut our_time, mut bare_time) = (Duration::ZERO, Duration::ZERO);
    for turn in 0..TURNS {
        let started = Instant::now();
        (0..WRITES_PER_TURN).try_for_each(|n| put(&ours, n * 37 % 1000, turn + n))?;
        our_time += started.elapsed();
        let started = Instant::now();
        (0..WRITES_PER_TURN).try_for_each(|n| bare.put(n * 37 % 1000, turn + n))?;
        bare_time += started.elapsed();
    }
    tell("write_one", nanoseconds(our_time, TURNS * WRITES_PER_TURN));
    tell("bare_one", nanoseconds(bare_time, TURNS * WRITES_PER_TURN));
    Ok(())
}

/// Durable writes of one key each by many threads at once.
fn writers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (ours, mut bare) = beside(folder.path())?;
    let (mut our_time, mut bare_time) = (Duration::ZERO, Duration::ZERO);
    for turn in 0..TURNS {
        let started = Instant::now();
        thread::scope(|scope| {
            let write = |writer: usize| {
                let ours = &ours;
                move || (0..WRITES_PER_WRITER).try_for_each(|n| put(ours, (writer * 17 + n * 37) % 1000, turn + n))
            };
            let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(write(writer))).collect();
            writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
        })?;
        our_time += started.elapsed();
        let started = Instant::now();
        for n in 0..WRITES_PER_WRITER {
            bare.sql.execute_batch("BEGIN")?;
            (0..WRITERS).try_for_each(|writer| bare.put((writer * 17 + n * 37) % 1000, turn + n))?;
            bare.sql.execute_batch("COMMIT")?;
        }
        bare_time += started.elapsed();
    }
    tell("write_many", nanoseconds(our_time, TURNS * WRITERS * WRITES_PER_WRITER));
    tell("bare_many", nanoseconds(bare_time, TURNS * WRITERS * WRITES_PER_WRITER));
    Ok(())
}

/// The milliseconds since 1970.
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// Speaks until nothing is to be said; returns the bytes of all frames.
fn speak(session: &mut ReplicaSession, hub: &Hub) -> Result<usize> {
    let mut bytes = 0;
    while let Some(frame) = session.next_frame()? {
        let answer = hub.answer(&frame, now())?;
        bytes += frame.len() + answer.len();
        session.receive(&answer, now())?;
    }
    Ok(bytes)
}

/// One changed key on its way, and what many overwrites leave.
fn sizes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let replica = store(&folder.path().join("replica"), "edge-01", Role::Replica)?;
    let hub = Hub::new(store(&folder.path().join("hub"), "hub", Role::Hub)?)?;
    let mut session = ReplicaSession::new(Arc::clone(&replica));
    let cellar = document(&replica, "cellar")?;
    cellar.edit(Precondition::None, |draft| (0..10_000).try_for_each(|n| draft.set(&key(n), &value(n))))?;
    speak(&mut session, &hub)?;
    cellar.edit(Precondition::None, |draft| (0..2_000).try_for_each(|n| draft.set(&key(n * 7919 % 10_000), &value(n + 1))))?;
    speak(&mut session, &hub)?;
    put(&cellar, 4711, 42)?;
    tell("changed_key_bytes", speak(&mut session, &hub)? as f64);
    drop((session, hub, replica, cellar));

    let path = folder.path().join("overwritten");
    let overwritten = store(&path, "edge-01", Role::Replica)?;
    let cellar = document(&overwritten, "cellar")?;
    for turn in 0..1000 {
        cellar.edit(Precondition::None, move |draft| (0..100).try_for_each(|n| draft.set(&key(n), &value(turn * 100 + n))))?;
    }
    cellar.confirm(u64::MAX)?;
    drop((overwritten, cellar));
    let sql = Connection::open(path.join("documents.sqlite3"))?;
    let number = |query: &str| sql.query_row(query, [], |row| row.get::<_, i64>(0));
    tell(
        "overwritten_logical_bytes",
        number("SELECT sum(length(key) + length(slot) + coalesce(length(value), 0) + length(state)) FROM rows")? as f64,
    );
    let history =
        number("SELECT sum(pgsize) FROM dbstat WHERE name = 'changes'")? + number("PRAGMA freelist_count")? * number("PRAGMA page_size")?;
    let file = i64::try_from(std::fs::metadata(path.join("documents.sqlite3"))?.len())?;
    tell("overwritten_disk_bytes", (file - history) as f64);
    Ok(())
}

/// Two replicas that wrote apart, in memory, become the same.
fn merge() -> Result<()> {
    let memory = |node: &str, role| -> Result<Arc<Store>> { Ok(Arc::new(Store::in_memory_as(NodeId::new(node)?, Epoch::draw()?, role)?)) };
    let (mut ours, mut peer) = (Duration::ZERO, Duration::ZERO);
    for turn in 0..3 {
        let (left, right) = (memory("edge-01", Role::Replica)?, memory("hub", Role::Hub)?);
        for (store, first) in [(&left, 0), (&right, EDITS)] {
            let document = document(store, "cellar")?;
            document.edit(Precondition::None, move |draft| (0..EDITS).try_for_each(|n| draft.set(&key(first + n), &value(n + turn))))?;
        }
        let hub = Hub::new(right)?;
        let mut session = ReplicaSession::new(left);
        let started = Instant::now();
        speak(&mut session, &hub)?;
        ours += started.elapsed();
        assert_eq!(session.state(), SessionState::Synced);

        let docs = [Doc::new(), Doc::new()];
        for (index, doc) in docs.iter().enumerate() {
            let map = doc.get_or_insert_map("cellar");
            let mut transaction = doc.transact_mut();
            for n in 0..EDITS {
                map.insert(&mut transaction, key(index * EDITS + n), format!("{:06}", n + turn));
            }
        }
        let started = Instant::now();
        let states = docs.each_ref().map(|doc| doc.transact().state_vector());
        let updates = [docs[0].transact().encode_diff_v1(&states[1]), docs[1].transact().encode_diff_v1(&states[0])];
        docs[1].transact_mut().apply_update(Update::decode_v1(&updates[0])?)?;
        docs[0].transact_mut().apply_update(Update::decode_v1(&updates[1])?)?;
        peer += started.elapsed();
    }
    tell("merge", nanoseconds(ours, 3));
    tell("merge_yrs", nanoseconds(peer, 3));
    Ok(())
}

/// A store of many entries, to its first answer.
fn reopen() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let filled = store(folder.path(), "edge-01", Role::Replica)?;
    for name in ["a", "b", "c", "d", "e", "f"] {
        let document = document(&filled, name)?;
        document.edit(Precondition::None, |draft| (0..100_000).try_for_each(|n| draft.set(&key(n), &value(n))))?;
        document.confirm(u64::MAX)?;
    }
    drop(filled);
    let started = Instant::now();
    let opened = store(folder.path(), "edge-01", Role::Replica)?;
    assert!(document(&opened, "c")?.get(&key(77_777))?.is_some());
    tell("reopen", nanoseconds(started.elapsed(), 1));
    Ok(())
}

fn send(stream: &mut TcpStream, frame: &[u8]) -> Result<()> {
    stream.write_all(&u32::try_from(frame.len())?.to_be_bytes())?;
    Ok(stream.write_all(frame)?)
}

fn receive(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

/// A replica that wrote while it was away connects over loopback.
fn reconnect() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let replica = store(&folder.path().join("replica"), "edge-01", Role::Replica)?;
    let cellar = document(&replica, "cellar")?;
    for part in 0..100 {
        cellar.edit(Precondition::None, move |draft| (0..1000).try_for_each(|n| draft.set(&key(part * 1000 + n), &value(n))))?;
    }
    let hub = Hub::new(store(&folder.path().join("hub"), "hub", Role::Hub)?)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serving = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        while let Ok(frame) = receive(&mut stream) {
            send(&mut stream, &hub.answer(&frame, now())?)?;
        }
        Ok(())
    });
    let started = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut session = ReplicaSession::new(replica);
    while let Some(frame) = session.next_frame()? {
        send(&mut stream, &frame)?;
        session.receive(&receive(&mut stream)?, now())?;
    }
    assert_eq!(session.state(), SessionState::Synced);
    tell("reconnect", nanoseconds(started.elapsed(), 1));
    drop(stream);
    serving.join().expect("the hub does not panic")
}
