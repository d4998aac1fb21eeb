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

-- What follows is for people with an SQL tool or a notebook; the gateway itself reads none of it. README.md beside
-- this folder says what each column is.

CREATE VIEW exposure_outcome AS  -- one row for each outcome of an exposure, and one without metric where there is none
    SELECT e.decision, e.at, strftime('%Y-%m-%dT%H:%M:%fZ', e.at / 1000 / 1000.0, 'unixepoch') AS time,
           e.endpoint, e.experiment, e.stage, e.variant, e.pi, e.segments,
           e.served, e.ended, e.status, e.first_byte_us, e.total_us, e.error,
           o.metric, o.value, o.id AS outcome_id, o.at AS outcome_at,
           strftime('%Y-%m-%dT%H:%M:%fZ', o.at / 1000 / 1000.0, 'unixepoch') AS outcome_time
    FROM exposure e LEFT JOIN outcome o ON o.decision = e.decision;

CREATE VIEW decision AS          -- the ledger in words
    SELECT l.id, l.at, strftime('%Y-%m-%dT%H:%M:%fZ', l.at / 1000 / 1000.0, 'unixepoch') AS time,
           l.endpoint, l.experiment, l.kind, json_extract(l.body, '$.variant') AS variant,
           json_extract(l.body, '$.from.stage') AS from_stage, json_extract(l.body, '$.to.stage') AS to_stage,
           json_extract(l.body, '$.actor') AS actor, json_extract(l.body, '$.reason') AS reason,
           json_extract(l.body, '$.text') AS text, json_extract(l.body, '$.config_digest') AS config_digest, l.step
    FROM ledger l;

CREATE VIEW metric_definition AS -- the metrics of every experiment, as they were frozen when it started
    SELECT e.id AS experiment, json_extract(m.value, '$.name') AS metric, json_extract(m.value, '$.type') AS type,
           json_extract(m.value, '$.source') AS source,
           coalesce(json_extract(m.value, '$.aggregate'), 'first') AS aggregate,
           coalesce(json_extract(m.value, '$.missing'), 'exclude') AS missing,
           coalesce(json_extract(m.value, '$.loss'), 'brier') AS loss,
           coalesce(json_extract(m.value, '$.numerator'), '') AS numerator,
           coalesce(json_extract(m.value, '$.denominator'), '') AS denominator,
           CASE json_extract(m.value, '$.source') WHEN 'gateway' THEN json_extract(e.definition, '$.answer_within_us')
               ELSE coalesce(json_extract(m.value, '$.window_us'), 0) + coalesce(json_extract(m.value, '$.grace_us'), 0)
               END AS within_us
    FROM experiment e, json_each(e.definition, '$.metrics') m;

CREATE VIEW vote_value AS        -- what each vote counts in each metric that has folded it; ratios are made of two
    SELECT experiment, ordinal, decision, at,
           strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000 / 1000.0, 'unixepoch') AS time, stage, variant, segments, metric,
           CASE WHEN type = 'latency' THEN CASE WHEN known < 9e15 THEN known / 1000.0 END
                WHEN source = 'gateway' THEN coalesce(known, 1.0)
                WHEN type = 'score' AND loss = 'brier' THEN (prediction - known) * (prediction - known)
                WHEN type = 'score' AND loss = 'absolute_error' THEN abs(prediction - known)
                WHEN type <> 'score' THEN coalesce(known, CASE missing WHEN 'zero' THEN 0.0 END)
           END AS value
    FROM (
        SELECT v.experiment, v.ordinal, v.decision, v.at, v.stage, v.variant, v.segments,
               m.metric, m.type, m.source, m.missing, m.loss,
               CASE WHEN x.ordinal IS NULL THEN c.prediction
                    WHEN m.type = 'score' THEN json_extract(x.predictions, '$[1]') END AS prediction,
               CASE WHEN x.ordinal IS NOT NULL THEN x.value
                    WHEN m.type = 'latency' AND c.error = '' THEN coalesce(nullif(c.first_byte_us, 0), c.total_us)
                    WHEN m.source = 'gateway' AND c.error = '' THEN 0.0
                    WHEN m.source = 'gateway' THEN NULL
                    WHEN m.aggregate = 'sum' THEN (
                        SELECT sum(o.value) FROM outcome o WHERE o.metric = m.metric AND o.at < v.at + m.within_us
                            AND o.decision IN (SELECT v.decision UNION ALL SELECT r.decision FROM revisit r
                                               WHERE r.experiment = v.experiment AND r.vote = v.decision))
                    WHEN m.aggregate = 'max' THEN (
                        SELECT max(o.value) FROM outcome o WHERE o.metric = m.metric AND o.at < v.at + m.within_us
                            AND o.decision IN (SELECT v.decision UNION ALL SELECT r.decision FROM revisit r
                                               WHERE r.experiment = v.experiment AND r.vote = v.decision))
                    WHEN m.aggregate = 'count' THEN (
                        SELECT nullif(count(*), 0) FROM outcome o
                        WHERE o.metric = m.metric AND o.at < v.at + m.within_us
                            AND o.decision IN (SELECT v.decision UNION ALL SELECT r.decision FROM revisit r
                                               WHERE r.experiment = v.experiment AND r.vote = v.decision))
                    ELSE (
                        SELECT o.value FROM outcome o WHERE o.metric = m.metric AND o.at < v.at + m.within_us
                            AND o.decision IN (SELECT v.decision UNION ALL SELECT r.decision FROM revisit r
                                               WHERE r.experiment = v.experiment AND r.vote = v.decision)
                        ORDER BY o.at, o.decision, o.id LIMIT 1)
               END AS known
        FROM metric_definition m
        JOIN cursor k ON k.experiment = m.experiment AND k.metric = m.metric
        JOIN vote v ON v.experiment = m.experiment AND v.ordinal <= k.ordinal
        LEFT JOIN settled x ON x.experiment = v.experiment AND x.ordinal = v.ordinal AND x.metric = m.metric
        LEFT JOIN completion c ON c.decision = v.decision AND c.at < v.at + m.within_us
        WHERE m.type <> 'ratio' AND (v.complete = 1 OR m.source = 'gateway')
    );

CREATE VIEW result AS            -- units and means by variant: of all units, and of each value of each segment
    WITH counted AS (
        SELECT experiment, metric, '' AS segment, '' AS segment_value, variant, value FROM vote_value
        WHERE value IS NOT NULL
        UNION ALL
        SELECT u.experiment, u.metric, n.value, s.value, u.variant, u.value
        FROM vote_value u JOIN experiment e ON e.id = u.experiment, json_each(e.definition, '$.segments') n,
             json_each(u.segments) s
        WHERE s.key = n.key AND u.value IS NOT NULL
    ), plain AS (
        SELECT experiment, metric, segment, segment_value, variant, count(*) AS units, avg(value) AS mean
        FROM counted GROUP BY experiment, metric, segment, segment_value, variant
    )
    SELECT experiment, metric, segment, segment_value, variant, units, mean FROM plain
    UNION ALL
    SELECT n.experiment, m.metric, n.segment, n.segment_value, n.variant, n.units,
           n.units * n.mean / nullif(d.units * d.mean, 0)
    FROM metric_definition m JOIN plain n ON n.experiment = m.experiment AND n.metric = m.numerator
    JOIN plain d ON d.experiment = m.experiment AND d.metric = m.denominator AND d.segment = n.segment
        AND d.segment_value = n.segment_value AND d.variant = n.variant
    WHERE m.type = 'ratio';
