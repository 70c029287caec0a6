-- Version 1 of the log; docs/on-disk-format.md says what each column holds.

CREATE TABLE log (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    trimmed INTEGER NOT NULL,
    trimmed_bytes INTEGER NOT NULL,
    clock INTEGER NOT NULL
) STRICT;

CREATE TABLE messages (
    position INTEGER PRIMARY KEY,
    ends INTEGER NOT NULL,
    clock INTEGER NOT NULL,
    topic TEXT NOT NULL,
    published_at INTEGER NOT NULL,
    head BLOB NOT NULL,
    payload BLOB NOT NULL
) STRICT;

CREATE TABLE retained (
    topic TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    expires_at INTEGER,
    published_at INTEGER NOT NULL,
    head BLOB NOT NULL,
    payload BLOB NOT NULL
) STRICT;

CREATE INDEX to_expire ON retained (expires_at, bytes) WHERE expires_at IS NOT NULL;

CREATE TABLE subscriptions (
    name TEXT PRIMARY KEY,
    filters TEXT NOT NULL,
    acknowledged INTEGER NOT NULL,
    data BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    used_clock INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    subscription TEXT NOT NULL,
    position INTEGER,
    bytes INTEGER NOT NULL,
    topic TEXT NOT NULL,
    published_at INTEGER NOT NULL,
    head BLOB NOT NULL,
    payload BLOB NOT NULL,
    why TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    at INTEGER NOT NULL,
    retry INTEGER NOT NULL,
    UNIQUE (subscription, position)
) STRICT;

CREATE INDEX to_retry ON dead_letters (subscription) WHERE retry = 1;

CREATE TABLE received (
    session TEXT NOT NULL,
    packet INTEGER NOT NULL,
    PRIMARY KEY (session, packet)
) STRICT, WITHOUT ROWID;

CREATE TABLE epochs (
    begins INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL
) STRICT;

CREATE TABLE origins (
    node TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    position INTEGER NOT NULL,
    used INTEGER NOT NULL,
    PRIMARY KEY (node, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE marks (
    name TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
