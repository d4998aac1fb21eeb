-- How often a request was put to its variant.

ALTER TABLE completion ADD COLUMN tries INTEGER NOT NULL DEFAULT 1;    -- of the assigned variant; 0: its breaker was open

-- The last decision of an experiment is found without reading what was decided about all others.

CREATE INDEX ledger_of_experiment ON ledger (experiment);
