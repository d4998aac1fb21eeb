"""A whole store into another engine, interrupted as often as may be: `gateway migrate`.

`tables` says what there is, `sides` who may not be in the way, `heads` how far each side has come. `copying` copies
chunk by chunk and remembers how far in the target itself, `verifying` compares both sides row by row. Until that has
been done the target is no store: of SQLite it has another name, and of PostgreSQL a table in it keeps everybody off.
"""
