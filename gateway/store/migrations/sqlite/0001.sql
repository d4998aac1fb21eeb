-- What has happened. One writing connection (the control process); everything else reads.
-- Times are microseconds since the Unix epoch. A decision id is (spool number << 40) | sequence.

CREATE TABLE stream (            -- how far each spool stream was shipped; commits with its rows
    spool INTEGER NOT NULL,
    stream TEXT NOT NULL,
    segment INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    through INTEGER NOT NULL,    -- time up to which the stream is complete
    admitted INTEGER NOT NULL,   -- last decision id of the spool that was admitted to (or refused) a vote
    finished INTEGER NOT NULL,   -- 1 once the writer is dead and everything was read
    PRIMARY KEY (spool, stream)
) WITHOUT ROWID;

CREATE TABLE fold_step (         -- in what order facts were folded
    step INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    watermark INTEGER NOT NULL,
    positions TEXT NOT NULL      -- JSON: {"spool.stream": [segment, offset]} of streams that moved
);

CREATE TABLE request (           -- assignments: a unit was given a variant with probability pi
    decision INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    experiment TEXT NOT NULL,
    stage TEXT NOT NULL,
    variant TEXT NOT NULL,
    pi REAL NOT NULL,
    bucket INTEGER NOT NULL,     -- the 64-bit assignment hash as a signed integer
    unit BLOB NOT NULL,          -- keyed hash of the unit id
    segments TEXT NOT NULL,      -- JSON list, in the order of the experiment's segments
    revision INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    step INTEGER NOT NULL        -- the fold step that shipped the row
);

CREATE TABLE completion (        -- how requests ended
    decision INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    served TEXT NOT NULL,
    ended TEXT NOT NULL,
    status INTEGER NOT NULL,
    first_byte_us INTEGER NOT NULL,
    total_us INTEGER NOT NULL,
    error TEXT NOT NULL,         -- failure of the assigned variant's own attempt, '' if none
    step INTEGER NOT NULL
);

CREATE TABLE outcome (           -- later facts about exposures; the first value of an id wins
    decision INTEGER NOT NULL,
    metric TEXT NOT NULL,
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    value REAL NOT NULL,
    step INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,    -- position within the step
    PRIMARY KEY (decision, metric, id)
) WITHOUT ROWID;

CREATE TABLE unit (              -- the first exposure of each unit: one vote
    experiment TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    unit BLOB NOT NULL,
    decision INTEGER NOT NULL,
    PRIMARY KEY (experiment, bucket, unit)
) WITHOUT ROWID;

CREATE TABLE vote (              -- units in the order of their coins: what the statistics fold
    experiment TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    decision INTEGER NOT NULL,
    at INTEGER NOT NULL,
    stage TEXT NOT NULL,
    variant TEXT NOT NULL,
    challenger INTEGER NOT NULL, -- 1 if the unit got the challenger
    pi REAL NOT NULL,            -- probability of the challenger among {challenger, champion}
    segments TEXT NOT NULL,
    PRIMARY KEY (experiment, ordinal)
) WITHOUT ROWID;

CREATE TABLE cursor (            -- how far each metric has folded the votes
    experiment TEXT NOT NULL,
    metric TEXT NOT NULL,
    ordinal INTEGER NOT NULL,
    PRIMARY KEY (experiment, metric)
) WITHOUT ROWID;

CREATE TABLE evidence (          -- folded statistics, replaced as they grow
    experiment TEXT NOT NULL,
    key TEXT NOT NULL,
    state BLOB NOT NULL,         -- msgpack
    step INTEGER NOT NULL,
    PRIMARY KEY (experiment, key)
) WITHOUT ROWID;

CREATE TABLE counter (           -- facts that never reach a verdict, visible per variant
    experiment TEXT NOT NULL,
    variant TEXT NOT NULL,
    name TEXT NOT NULL,          -- late, duplicate, conflict, rejected, orphan
    value INTEGER NOT NULL,
    PRIMARY KEY (experiment, variant, name)
) WITHOUT ROWID;

CREATE TABLE experiment (        -- the frozen statistical definition of every experiment that ever ran
    id TEXT PRIMARY KEY,
    endpoint TEXT NOT NULL,
    definition TEXT NOT NULL,    -- JSON
    started_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE release (           -- where each endpoint stands
    endpoint TEXT PRIMARY KEY,
    version INTEGER NOT NULL,    -- compare-and-set
    state TEXT NOT NULL          -- JSON
) WITHOUT ROWID;

CREATE TABLE ledger (            -- every decision with its evidence; each row hashes the one before
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    step INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    experiment TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,          -- JSON: from, to, actor, reason, evidence, config digest
    hash TEXT NOT NULL
);

CREATE TABLE plan (              -- every plan that was published
    revision INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    as_of INTEGER NOT NULL,
    config_digest TEXT NOT NULL,
    shares TEXT NOT NULL         -- JSON: {endpoint: {variant: share of 2**64 as a decimal string}}
);

CREATE TABLE quarantine (        -- artifacts that were rolled back
    endpoint TEXT NOT NULL,
    artifact TEXT NOT NULL,      -- digest of the file, or the URL
    experiment TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (endpoint, artifact)
) WITHOUT ROWID;

CREATE VIEW exposure AS
    SELECT r.decision, r.at, r.endpoint, r.experiment, r.stage, r.variant, r.pi, r.segments,
           c.served, c.ended, c.status, c.first_byte_us, c.total_us, c.error
    FROM request r LEFT JOIN completion c USING (decision);
