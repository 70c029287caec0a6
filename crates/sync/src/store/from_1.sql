-- From version 1 of the store to version 2: of every document, every row was wanted.

BEGIN;
ALTER TABLE documents ADD COLUMN covered INTEGER NOT NULL DEFAULT 1;
CREATE INDEX uncovered ON documents (name) WHERE covered = 0;
PRAGMA user_version = 2;
COMMIT;
