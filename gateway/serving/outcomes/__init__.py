"""Outcomes as they are posted: the first half of their life, up to the acknowledgement."""

from gateway.serving.outcomes.intake import MOST, Outcomes

__all__ = ["MOST", "Outcomes"]
