-- What assignments have in common is written once: half the bytes of a request, and a third of the time to write one.
-- `request` is a view now, with the columns that the table had. Copies every request: minutes for 10^8 of them.

CREATE TABLE draw (              -- one variant under one plan, for one combination of segment values
    id INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL,
    experiment TEXT NOT NULL,
    stage TEXT NOT NULL,
    variant TEXT NOT NULL,
    pi REAL NOT NULL,
    segments TEXT NOT NULL,      -- JSON list, in the order of the experiment's segments
    revision INTEGER NOT NULL,   -- of the plan
    flags INTEGER NOT NULL,
    UNIQUE (revision, endpoint, experiment, stage, variant, pi, segments, flags)
);

CREATE TABLE assignment (        -- a unit was given a variant with probability pi
    decision INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    draw INTEGER NOT NULL REFERENCES draw,
    bucket INTEGER NOT NULL,     -- the 64-bit assignment hash as a signed integer
    unit BLOB NOT NULL,          -- keyed hash of the unit id
    covariates TEXT NOT NULL,    -- JSON list of numbers known before the coin
    step INTEGER NOT NULL        -- the fold step that shipped the row
);

INSERT INTO draw (endpoint, experiment, stage, variant, pi, segments, revision, flags)
    SELECT DISTINCT endpoint, experiment, stage, variant, pi, segments, revision, flags FROM request;
INSERT INTO assignment
    SELECT r.decision, r.at, d.id, r.bucket, r.unit, r.covariates, r.step
    FROM request r JOIN draw d USING (revision, endpoint, experiment, stage, variant, pi, segments, flags)
    ORDER BY r.decision;

DROP VIEW exposure;
DROP TABLE request;

CREATE VIEW request AS
    SELECT a.decision, a.at, d.endpoint, d.experiment, d.stage, d.variant, d.pi, a.bucket, a.unit, d.segments,
           d.revision, d.flags, a.step, a.covariates
    FROM assignment a JOIN draw d ON d.id = a.draw;

CREATE VIEW exposure AS
    SELECT r.decision, r.at, r.endpoint, r.experiment, r.stage, r.variant, r.pi, r.segments,
           c.served, c.ended, c.status, c.first_byte_us, c.total_us, c.error
    FROM request r LEFT JOIN completion c USING (decision);
