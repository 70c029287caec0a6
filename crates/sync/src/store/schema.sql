-- Version 1 of the store; docs/on-disk-format.md says what each column holds.

CREATE TABLE replica (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    node TEXT NOT NULL,
    clock INTEGER NOT NULL,
    feed INTEGER NOT NULL
) STRICT;

CREATE TABLE epochs (
    epoch INTEGER PRIMARY KEY,
    opening INTEGER NOT NULL UNIQUE,
    counter INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL
) STRICT;

CREATE TABLE documents (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    keys INTEGER NOT NULL,
    pending INTEGER NOT NULL
) STRICT;

CREATE TABLE rows (
    document INTEGER NOT NULL REFERENCES documents,
    key TEXT NOT NULL,
    slot BLOB NOT NULL,
    seq INTEGER NOT NULL,
    value TEXT,
    origin BLOB NOT NULL,
    PRIMARY KEY (document, key, slot)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX feed ON rows (seq);

CREATE TABLE pending (
    document INTEGER NOT NULL REFERENCES documents,
    version INTEGER NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL,
    timestamp TEXT NOT NULL,
    coalesced INTEGER NOT NULL,
    PRIMARY KEY (document, version)
) STRICT, WITHOUT ROWID;
