"""An A/B-testing gateway for served models."""

__version__ = "0.1.0"
