-- The last decision of an experiment is found without reading what was decided about all others.

CREATE INDEX ledger_of_experiment ON ledger (experiment);
