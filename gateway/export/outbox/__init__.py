"""The outbox: what happened as events, one after the other, into a warehouse or a broker; a process of its own.

`feed` finds what is new behind a `position`, `events` says it, a sink of `sinks` takes it, and `pump` moves the
position when the sink has acknowledged. So every event arrives at least once, those of one kind in their order; what
arrives again has the same id.
"""
