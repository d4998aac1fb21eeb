-- Several challengers, returning units, covariates, predictions of variants that answered nobody.
-- Evidence is folded anew from the votes, which stay: the cells have got more hypotheses.

ALTER TABLE request ADD COLUMN covariates TEXT NOT NULL DEFAULT '[]';  -- JSON list of numbers known before the coin
ALTER TABLE completion ADD COLUMN prediction REAL;                     -- of the variant that was served

CREATE TABLE shadow (            -- what variants that answered nobody said to a copy of the request
    decision INTEGER NOT NULL,
    variant TEXT NOT NULL,
    at INTEGER NOT NULL,
    total_us INTEGER NOT NULL,
    error TEXT NOT NULL,
    prediction REAL,
    step INTEGER NOT NULL,
    PRIMARY KEY (decision, variant)
) WITHOUT ROWID;

-- The latest complete vote of each unit, and where its hash is known to lie: "split:variant|..." for every split under
-- which the unit was seen (NULL where an earlier version did not write it down: such units vote no more).
ALTER TABLE unit ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE unit ADD COLUMN known TEXT;

CREATE TABLE revisit (           -- later requests of a unit whose window is open: their outcomes belong to the vote
    experiment TEXT NOT NULL,
    vote INTEGER NOT NULL,       -- decision of the vote
    decision INTEGER NOT NULL,
    PRIMARY KEY (experiment, vote, decision)
) WITHOUT ROWID;

ALTER TABLE vote RENAME COLUMN challenger TO arm;                      -- 0 the champion, then the challengers
ALTER TABLE vote ADD COLUMN odds TEXT NOT NULL DEFAULT '[]';           -- JSON: probability of each arm
ALTER TABLE vote ADD COLUMN complete INTEGER NOT NULL DEFAULT 1;       -- 0: counts for the gateway's own metrics only
ALTER TABLE vote ADD COLUMN covariates TEXT NOT NULL DEFAULT '[]';
UPDATE vote SET odds = json_array(1.0 - pi, pi);                       -- pi has 12 digits, the text keeps 15
ALTER TABLE vote DROP COLUMN pi;

ALTER TABLE plan ADD COLUMN slots TEXT NOT NULL DEFAULT '{}';          -- JSON: {endpoint: [[start, variant], ...]}

UPDATE experiment SET definition = json_set(
    json_remove(definition, '$.challenger', '$.champion_digest', '$.challenger_digest'),
    '$.challengers', json_array(json_extract(definition, '$.challenger')),
    '$.digests', json_array(json_extract(definition, '$.champion_digest'), json_extract(definition, '$.challenger_digest'))
);
DELETE FROM evidence WHERE key <> 'ratio/assigned';
UPDATE evidence SET key = 'coins/1';                                   -- counted at the coin, not with the votes
DELETE FROM cursor;
