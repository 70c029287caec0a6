//! A fixed list of changes, what a store shows after each prefix of it, and the numbers that must not come twice.

use std::{collections::BTreeMap, path::Path};

use edgeward_model::{EdgeError, Object, Value, python_json};
use edgeward_sync::EdgeSynchronizer;
use rusqlite::{Connection, OpenFlags};

/// One call that changes a store.
pub(crate) enum Change {
    Update(Object),
    Patch(Object),
    Confirm(u64),
}

/// All that a store shows, without its times.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) state: Option<(u64, Object)>,
    pub(crate) pending: Vec<(String, u64, Object)>,
}

/// A write: its epoch, its counter.
type Dot = (i64, u64);
/// What each write wrote: key and value.
pub(crate) type Dots = BTreeMap<Dot, (String, Option<String>)>;

impl Change {
    pub(crate) fn apply(&self, sync: &EdgeSynchronizer) -> Result<(), EdgeError> {
        match self {
            Self::Update(data) => sync.update_local(data.clone()).map(drop),
            Self::Patch(patch) => sync.patch_local(patch.clone()).map(drop),
            Self::Confirm(version) => sync.confirm_sync(*version),
        }
    }
}

pub(crate) fn object(text: &str) -> Object {
    match python_json::read(text).expect(text) {
        Value::Object(object) => object,
        other => panic!("{other:?} is no object"),
    }
}

/// Changes of every kind. Their values are so large that the log goes into the database while they are made, also after an opening in
/// the middle.
pub(crate) fn changes() -> Vec<Change> {
    changes_of(50_000)
}

/// The same with values of so many bytes.
pub(crate) fn changes_of(bytes: usize) -> Vec<Change> {
    let large = |n: usize| Value::from(format!("{n}").repeat(bytes));
    let mut changes = vec![
        Change::Update(object(r#"{"a": 1, "gone": {"x": 1}, "deep": {"x": 1, "y": 2}}"#)),
        Change::Patch(object(r#"{"gone": null, "deep": {"x": null, "z": 3}}"#)),
    ];
    changes.extend((0..5).map(|n| Change::Patch(Object::from_iter([(format!("k{}", n % 3), large(n))]))));
    changes.push(Change::Confirm(4));
    changes.push(Change::Patch(object(r#"{"a": 2, "gone": "again"}"#)));
    changes.extend((5..9).map(|n| Change::Update(Object::from_iter([("a", large(n)), ("b", Value::from(true))]))));
    changes.push(Change::Confirm(11));
    changes.push(Change::Patch(object(r#"{"last": [1, 2, 3]}"#)));
    changes
}

/// What a store shows before the first of these changes, and after each.
pub(crate) fn expected(changes: &[Change]) -> Vec<Seen> {
    let sync = EdgeSynchronizer::new();
    let mut all = vec![seen(&sync)];
    for change in changes {
        change.apply(&sync).expect("nothing fails in memory");
        all.push(seen(&sync));
    }
    all
}

pub(crate) fn seen(sync: &EdgeSynchronizer) -> Seen {
    try_seen(sync).expect("reads")
}

pub(crate) fn try_seen(sync: &EdgeSynchronizer) -> Result<Seen, EdgeError> {
    let state = sync.get_local_state()?.map(|state| (state.version, state.data));
    let pending = sync.get_pending_changes()?.into_iter().map(|change| (change.r#type, change.version, change.data)).collect();
    Ok(Seen { state, pending })
}

/// Whether two are the same, without printing their large values.
pub(crate) fn assert_same(found: &Seen, expected: &Seen, what: &str) {
    let versions = |seen: &Seen| (seen.state.as_ref().map(|state| state.0), seen.pending.iter().map(|each| each.1).collect::<Vec<_>>());
    assert!(found == expected, "{what}: found {:?}, expected {:?}", versions(found), versions(expected));
}

/// The writes in a store's rows. Fails when its tables do not agree about them.
pub(crate) fn dots(folder: &Path) -> Dots {
    let sql = Connection::open_with_flags(folder.join("documents.sqlite3"), OpenFlags::SQLITE_OPEN_READ_WRITE).expect("opens");
    let numbers = |query: &str| -> Vec<(i64, i64)> {
        let mut statement = sql.prepare(query).expect("a query");
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("reads").map(|row| row.expect("numbers")).collect()
    };
    let epochs: BTreeMap<i64, i64> = numbers("SELECT epoch, opening FROM epochs").into_iter().collect();
    let mut statement = sql.prepare("SELECT key, value, state, seq FROM rows ORDER BY seq").expect("a query");
    let rows = statement.query_map([], |row| {
        let state: Vec<u8> = row.get(2)?;
        // The version of the encoding, the stamp, then node, epoch and counter.
        let (stamp, _node, epoch, counter) = postcard::take_from_bytes::<(u64, String, u64, u64)>(&state[1..]).expect("an origin").0;
        Ok(((epoch.cast_signed(), counter), (row.get(0)?, row.get(1)?), (stamp, row.get::<_, i64>(3)?)))
    });
    let mut dots = Dots::new();
    let mut last = None;
    for (dot, row, (stamp, seq)) in rows.expect("reads").map(|row| row.expect("a row")) {
        // The row that is last in the feed tells the clock and the counter of its epoch.
        let order = (stamp, epochs[&dot.0], dot.1, seq);
        assert!(
            last.is_none_or(|last: (u64, i64, u64, i64)| last.0 < order.0 && (last.1, last.2) < (order.1, order.2)),
            "{last:?}, {order:?}"
        );
        last = Some(order);
        assert_eq!(dots.insert(dot, row), None, "two rows have the dot {dot:?}");
    }
    dots
}

/// Adds what a store holds now to what it held before: a dot never means two writes.
pub(crate) fn remember(history: &mut Dots, folder: &Path) {
    for (dot, row) in dots(folder) {
        let before = history.entry(dot).or_insert_with(|| row.clone());
        assert!(*before == row, "the dot {dot:?} was used twice, for keys `{}` and `{}`", before.0, row.0);
    }
}
