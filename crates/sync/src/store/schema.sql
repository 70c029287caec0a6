-- Version 2 of the store; docs/on-disk-format.md says what each column holds.

CREATE TABLE replica (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    node TEXT NOT NULL,
    clock INTEGER NOT NULL,
    feed INTEGER NOT NULL,
    link BLOB NOT NULL
) STRICT;

CREATE TABLE epochs (
    epoch INTEGER PRIMARY KEY,
    opening INTEGER NOT NULL UNIQUE,
    counter INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL,
    chain INTEGER NOT NULL
) STRICT;

CREATE TABLE documents (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    confirmed INTEGER NOT NULL,
    covered INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE INDEX uncovered ON documents (name) WHERE covered = 0;

CREATE TABLE rows (
    document INTEGER NOT NULL REFERENCES documents,
    key TEXT NOT NULL,
    slot BLOB NOT NULL,
    seq INTEGER,
    value TEXT,
    state BLOB NOT NULL,
    PRIMARY KEY (document, key, slot)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX feed ON rows (seq) WHERE seq IS NOT NULL;

CREATE TABLE changes (
    number INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    version INTEGER NOT NULL,
    keys INTEGER NOT NULL,
    timestamp TEXT NOT NULL,
    coalesced INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    data TEXT NOT NULL
) STRICT;

CREATE TABLE shadows (
    opening INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    document INTEGER NOT NULL REFERENCES documents,
    key TEXT NOT NULL,
    slot BLOB NOT NULL,
    value TEXT,
    state BLOB NOT NULL,
    PRIMARY KEY (opening, counter)
) STRICT, WITHOUT ROWID;

CREATE TABLE writers (
    node TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL,
    chain INTEGER NOT NULL,
    before INTEGER NOT NULL,
    answer BLOB NOT NULL,
    taken INTEGER NOT NULL,
    ancestors BLOB NOT NULL,
    seen_at INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (node, epoch)
) STRICT, WITHOUT ROWID;

CREATE INDEX changed ON writers (number);
