"""The part of the config that says what is measured."""

# No postponed annotations here: pydantic evaluates them.
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_validator

from gateway.config import kinds
from gateway.config.kinds import Section

MetricType = Literal["binary", "bounded", "count", "unbounded", "ratio", "score", "latency"]

MISSING_IS_ZERO = ("binary", "count", "unbounded", "ratio")  # nothing came, so nothing happened
POSTED = ("binary", "bounded", "count", "unbounded")  # clients post values of these types as they are
_LOSSES = {"brier": (0.0, 1.0), "log_loss": (0.0, 10.0)}  # nats


def _default_window(data: dict[str, Any]) -> str | None:
    return "1m" if data["source"] == "answer" else None


def _default_missing(data: dict[str, Any]) -> str | None:
    if data["source"] == "gateway":
        return None
    return "zero" if data["type"] in MISSING_IS_ZERO else "exclude"


def _default_max_missing(data: dict[str, Any]) -> str | None:
    return "5%" if data["missing"] in ("exclude", "bounds") else None


def _default_grace(data: dict[str, Any]) -> str | None:
    return "0s" if data["source"] != "gateway" and data["type"] != "ratio" else None


def _default_aggregate(data: dict[str, Any]) -> str | None:
    if data["source"] == "gateway" or data["type"] not in POSTED:
        return None
    return "sum" if data["type"] == "count" else "first"


def _only_for(type: MetricType, default: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda data: default if data["type"] == type else None


class Metric(Section):
    """A number for every unit, by which variants are compared."""

    type: MetricType
    """What kind of number it is. binary: 0 or 1. bounded: a number within `bounds`. count: 0 or more, up to `cap`.
    unbounded: any number, such as revenue, judged by its `scale`. ratio: one count divided by another. score: how
    wrong the logged prediction was, by its `loss`, once the label is posted. latency: 1 if an answer took longer than
    `limit`."""
    source: Literal["gateway", "outcome", "answer"]
    """outcome: posted by clients later. answer: read by the gateway from every answer, see `from`; of type binary,
    bounded, count or unbounded. gateway: known to it, namely type latency and the binary `errors`."""
    direction: Literal["increase", "decrease"]
    """What is better: an increase or a decrease."""
    reading: kinds.Reading | None = Field(None, alias="from")
    """For source answer, where the number is. header:<name>: a number, true or false in a header. json:<pointer>: in
    the JSON of the answer (RFC 6901), such as json:/usage/completion_tokens; in an event stream, in the last event that
    has it. stream:<word>, for event streams alone: first_token and longest_gap, the seconds up to the first content and
    the longest pause after it; duration, in seconds; tokens, as the usage says or else the events with content;
    aborted, 1 if the client left before the end. Of a stream, what lies beyond the bounds counts as the bound; of one
    that the upstream breaks off only first_token and aborted are read."""
    bounds: kinds.Bounds | None = None
    """For type bounded, and for a score with loss absolute_error, where they are those of label and prediction: the
    least and the greatest value; outcomes outside are rejected."""
    limit: kinds.Period | None = None
    """For type latency: the time that an answer should not exceed, such as 250ms."""
    cap: kinds.Positive | None = None
    """For type count: a unit's values above it count as the cap. Effects and margins are in units of the count."""
    scale: Literal["rank", "winsorised"] | None = Field(
        default_factory=_only_for("unbounded", "rank"), validate_default=True
    )
    """For type unbounded, how a value becomes a score between 0 and 1. rank: its rank among past values (default).
    winsorised: its place between a low and a high quantile of past values. Effects and margins are in units of that
    score."""
    numerator: kinds.Name | None = None
    """For type ratio: the metric of type count that is divided. The ratio has the window and grace of its counts;
    its effects and margins are in units of a score between 0 and 1, into which the caps map it."""
    denominator: kinds.Name | None = None
    """For type ratio: the metric of type count that divides, with the window and grace of the numerator."""
    loss: Literal["brier", "log_loss", "absolute_error"] | None = Field(
        default_factory=_only_for("score", "brier"), validate_default=True
    )
    """For type score, which compares the logged prediction with the posted label. brier: squared error of a
    probability (default). log_loss: in nats, at most 10. absolute_error: of a number within `bounds`."""
    label_independent: bool | None = Field(default_factory=_only_for("score", False), validate_default=True)
    """For type score: true if the label does not depend on the answer, as a flight is late whatever was predicted; or
    false. Only then can predictions that no client has seen be scored (see shadow)."""
    prediction: kinds.Prediction | None = None
    """For type score, the number of the answer that is scored: an output, an element of its flat data, or both, such
    as probability, probability[1] or "[1]". By default the last element of the first output. One for each endpoint."""
    window: kinds.Period | None = Field(default_factory=_default_window, validate_default=True)
    """How long after the request an outcome still counts, such as 6h; for source answer, the end of the answer: 1m by
    default, and a stream that ends later is missing. Not for a ratio, nor for source gateway."""
    aggregate: Literal["first", "sum", "count", "max"] | None = Field(
        default_factory=_default_aggregate, validate_default=True
    )
    """For source outcome and answer, what several outcomes of a unit within the window make: the first value (default),
    the sum (default of count), the number of outcomes, or the greatest value. For binary and bounded: first or max."""
    missing: Literal["exclude", "bounds", "zero"] | None = Field(
        default_factory=_default_missing, validate_default=True
    )
    """What a unit without outcome is. exclude: left out (default of bounded and score); a promotion must then also hold
    if every missing outcome had been the worst. bounds: the same, but with the champion's missing outcomes the best, so
    that no pattern of losses can promote; it costs units. zero: nothing happened, so 0 (default of all others)."""
    max_missing: kinds.Percent | None = Field(default_factory=_default_max_missing, validate_default=True)
    """With missing: exclude or bounds, the share of units without outcome above which nothing is promoted; or 5%."""
    grace: kinds.Duration | None = Field(default_factory=_default_grace, validate_default=True)
    """For source outcome and answer: how long to wait for stragglers when the window has passed; or 0s. Not for a
    ratio."""

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, raw: Any) -> Any:
        """null is what is not written: most defaults depend on the type, and none of them is nothing."""
        return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw

    @property
    def extent(self) -> tuple[float, float]:
        """The ends of the scale on which effects and margins are measured."""
        if self.cap is not None:
            return 0.0, self.cap
        if self.loss == "absolute_error" and self.bounds is not None:
            return 0.0, self.bounds[1] - self.bounds[0]
        return self.bounds or _LOSSES.get(self.loss or "", (0.0, 1.0))

    @property
    def span(self) -> float:
        low, high = self.extent
        return high - low

    @property
    def posted(self) -> tuple[float | None, float | None]:
        """The bounds of what clients post; None where there is none."""
        if self.type == "unbounded":
            return None, None
        return (0.0, None) if self.type == "count" else self.bounds or (0.0, 1.0)
