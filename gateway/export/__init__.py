"""Getting the log out: files for a warehouse, frames for a notebook, events for a broker, another engine for all of it.

Whatever is here only reads, `migration` excepted, which writes a store that nobody serves from.
"""
