-- From version 1 of the store to version 2: of every document, every row was wanted.

BEGIN;
ALTER TABLE documents ADD COLUMN covered INTEGER NOT NULL DEFAULT 1;
CREATE INDEX uncovered ON documents (name) WHERE covered = 0;
ALTER TABLE writers ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE writers SET number = (SELECT count(*) FROM writers AS others WHERE (others.node, others.epoch) <= (writers.node, writers.epoch));
CREATE INDEX changed ON writers (number);
PRAGMA user_version = 2;
COMMIT;
