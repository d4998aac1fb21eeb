-- Outcomes by unit, late facts, votes that outlive their requests, and what replay needs: how far each step folded.
-- What shipping writes and what folding writes are tables of their own, because they may be different nodes.

ALTER TABLE stream ADD COLUMN incarnation BLOB NOT NULL DEFAULT x'';   -- of the worker that writes it

CREATE TABLE admission (         -- last decision id of each spool that was admitted to (or refused) a vote
    spool INTEGER PRIMARY KEY,
    decision INTEGER NOT NULL
);
INSERT INTO admission SELECT spool, admitted FROM stream WHERE stream = 'requests';
ALTER TABLE stream DROP COLUMN admitted;

ALTER TABLE fold_step ADD COLUMN cursors TEXT NOT NULL DEFAULT '{}';   -- JSON: {experiment: {metric: ordinal}} as folded by this step, where it moved; votes admitted under ''

ALTER TABLE outcome ADD COLUMN happened_at INTEGER NOT NULL DEFAULT 0; -- as the client says, 0 if it says nothing

CREATE TABLE unit_outcome (      -- outcomes given by unit, until the votes of their time are admitted
    experiment TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    unit BLOB NOT NULL,
    metric TEXT NOT NULL,
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    value REAL NOT NULL,
    happened_at INTEGER NOT NULL,
    PRIMARY KEY (at, experiment, bucket, unit, metric, id)
) WITHOUT ROWID;

CREATE TABLE late_fact (         -- facts of a spool that had been given up: kept, never folded
    decision INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL           -- JSON
);

CREATE TABLE settled (           -- what a vote counts, where the facts behind it were erased or have expired
    experiment TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    metric TEXT NOT NULL,
    value REAL,
    denominator REAL,
    predictions TEXT NOT NULL,   -- JSON of what a scored metric reads beside its label: served, prediction, failed, shadows
    PRIMARY KEY (experiment, ordinal, metric)
) WITHOUT ROWID;

CREATE TABLE lag (               -- how long after their exposure outcomes came
    experiment TEXT NOT NULL,
    variant TEXT NOT NULL,       -- '' where the exposure was not known yet
    metric TEXT NOT NULL,
    bucket INTEGER NOT NULL,     -- of lags in [2^(bucket-1), 2^bucket) milliseconds
    node INTEGER NOT NULL,
    outcomes INTEGER NOT NULL,
    PRIMARY KEY (experiment, variant, metric, bucket, node)
) WITHOUT ROWID;

ALTER TABLE counter RENAME TO counter_of_one;
CREATE TABLE counter (           -- facts that never reach a verdict, visible per variant
    experiment TEXT NOT NULL,
    variant TEXT NOT NULL,
    name TEXT NOT NULL,          -- late, duplicate, conflict, rejected, orphan, unmatched
    node INTEGER NOT NULL,       -- who counts: nodes do not wait for one another
    value INTEGER NOT NULL,
    PRIMARY KEY (experiment, variant, name, node)
) WITHOUT ROWID;
INSERT INTO counter SELECT experiment, variant, name, 0, value FROM counter_of_one;
DROP TABLE counter_of_one;

CREATE TABLE erasure (           -- units to be forgotten, and those that were while some file may still hold them
    unit BLOB NOT NULL,          -- keyed hash of the unit id
    endpoint TEXT NOT NULL,      -- '' for all
    at INTEGER NOT NULL,         -- when it was asked for
    through INTEGER NOT NULL,    -- what the unit did before is forgotten, and refused when it comes; 0: to be done
    until INTEGER NOT NULL,      -- then no file holds anything of it, and this row goes
    buckets TEXT NOT NULL,       -- JSON: {experiment: assignment hash, signed}; '{}' once it is done
    PRIMARY KEY (unit, endpoint)
) WITHOUT ROWID;

CREATE TABLE erased (            -- decisions of such units: whatever else comes of them is refused
    decision INTEGER PRIMARY KEY,
    until INTEGER NOT NULL
);

CREATE TABLE expired (           -- days whose requests are deleted, or are being deleted
    day INTEGER PRIMARY KEY,     -- since the Unix epoch, UTC
    at INTEGER NOT NULL
);

CREATE TABLE settling (          -- up to this vote everything is settled, because its request goes or has gone
    experiment TEXT PRIMARY KEY,
    ordinal INTEGER NOT NULL
) WITHOUT ROWID;
