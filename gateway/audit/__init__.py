"""Afterwards: does what was decided follow from what happened? Reads a store and changes nothing."""
