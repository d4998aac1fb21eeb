"""Spool → store → what we know: shipping, joining, folding, and the verdict on it."""
