"""The words of a decision: what a person reads in the ledger and can check against the evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gateway.evidence.report import Estimate, Test
from gateway.plan import KeptPlan
from gateway.release.state import ReleaseState


def worse(test: Test, where: str = "") -> str:
    """Harm is said of the units so far, never of the future (rule R16)."""
    return f"{test.metric} is worse{where} on the units so far ({reached(test)})"


def better(estimate: Estimate, test: Test, kept: Sequence[KeptPlan]) -> str:
    """A promotion leads with the interval; the estimate at the moment of stopping is biased upwards (rule R17)."""
    low, high = sorted((abs(estimate.lower), abs(estimate.upper)))  # the interval lies on one side of zero
    text = (
        f"{test.metric} is better by [{low:.4f}, {high:.4f}] ({reached(test)}) and every guardrail passed;"
        f" the estimate at the moment of stopping, {abs(estimate.estimate):.4f}, tends to be too large"
    )
    return text + stays(kept)


def stays(kept: Sequence[KeptPlan]) -> str:
    """What a promotion leaves with the old champion, as the end of a sentence."""
    if not kept:
        return ""
    segments = ", ".join(f"{one.segment}={one.value}" for one in kept)
    return f"; {segments} {'stays' if len(kept) == 1 else 'stay'} with {kept[0].variant}"


def withdrawn(state: ReleaseState) -> str:
    """What ends because the config no longer has the experiment."""
    text = f"the config no longer has experiment {state.experiment}"
    if state.watching:
        text += f"; the watch ends, {state.former} keeps no holdback"
    return text + ("; no segment is kept any more" if state.kept else "")


def futile(test: Test, least: float) -> str:
    return f"an improvement of {least} or more in {test.metric} has become implausible ({reached(test)})"


def equivalent(test: Test, least: float) -> str:
    return f"{test.metric} is proved to be within ± {least} of the champion's ({reached(test)})"


def reached(test: Test) -> str:
    return f"E = {number(test.log_e)}, needed {number(test.needed)}"


def of(test: Test | None) -> str:
    """How far a test has come."""
    return "has no data" if test is None else f"E = {number(test.log_e)} of {number(test.needed)}"


def number(log: float) -> str:
    return f"{math.exp(min(log, 50.0)):.3g}"
