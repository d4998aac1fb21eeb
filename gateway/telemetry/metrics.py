"""Every metric that the gateway exports, in one file: name, kind, labels, meaning.

Workers know only names and labels (they add to slots of their status page); the control process turns the sums into
the exposition format (`telemetry.exposition`). Labels are bounded: names from the config, words from the code.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    name: str  # without the _total that counters get
    kind: Literal["counter", "histogram", "gauge"]
    labels: tuple[str, ...]
    help: str


# Upper bounds in microseconds: what people watch lies between a local model and an upstream's deadline.
LATENCY_BOUNDS_US = (
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
)  # fmt: skip
HISTOGRAM_SLOTS = len(LATENCY_BOUNDS_US) + 2  # one per bound, one beyond the last, one for the sum


def latency_slot(microseconds: int) -> int:
    """Which of a histogram's slots an observation falls into."""
    return bisect_left(LATENCY_BOUNDS_US, microseconds)


RESPONSES = Metric(
    "gateway_responses",
    "counter",
    ("endpoint", "code"),
    "Answers sent to clients, by endpoint and status code.",
)
COMPLETIONS = Metric(
    "gateway_completions",
    "counter",
    ("endpoint", "experiment", "variant", "result"),
    "Finished requests by assigned variant; result is ok, or error if the variant's own attempt failed.",
)
ATTEMPT_ERRORS = Metric(
    "gateway_attempt_errors",
    "counter",
    ("endpoint", "variant", "kind"),
    "Failed attempts of a variant by kind, counted even where the champion answered in its place.",
)
FALLBACKS = Metric(
    "gateway_fallbacks",
    "counter",
    ("endpoint", "variant"),
    "Requests of a variant that the champion answered in its place.",
)
DURATION = Metric(
    "gateway_request_duration_seconds",
    "histogram",
    ("endpoint", "variant"),
    "Time from the request's head to the last byte of the answer, by assigned variant.",
)
REJECTED = Metric(
    "gateway_rejected_requests",
    "counter",
    ("reason",),
    "Requests refused, by reason: before assignment, or after it for an upload that turned out wrong while it came, or"
    " for want of descriptors.",
)
OUTCOMES = Metric(
    "gateway_outcomes",
    "counter",
    ("endpoint", "metric", "result"),
    "Outcomes received: accepted, or why not.",
)
UNREAD_PREDICTIONS = Metric(
    "gateway_unread_predictions",
    "counter",
    ("endpoint", "variant"),
    "Answers of a variant in which the prediction to be scored could not be read.",
)
UNREAD_ANSWERS = Metric(
    "gateway_unread_answers",
    "counter",
    ("endpoint", "variant", "metric"),
    "Answers in which the value of a metric was not found, or was none that the metric takes; without metric, events of"
    " streams that were too large to be read.",
)
FIRST_TOKEN = Metric(
    "gateway_time_to_first_token_seconds",
    "histogram",
    ("endpoint", "variant"),
    "Time from the request's head to the first content of an event stream, by the variant that answered.",
)
STREAM_TOKENS = Metric(
    "gateway_stream_tokens",
    "counter",
    ("endpoint", "variant"),
    "Tokens of event streams: as their usage says, or else the events with content.",
)
STREAMS_ABORTED = Metric(
    "gateway_streams_aborted",
    "counter",
    ("endpoint", "variant"),
    "Event streams that the client left before their end.",
)
SHADOW_REQUESTS = Metric(
    "gateway_shadow_requests",
    "counter",
    ("endpoint", "variant", "result"),
    "Copies of requests for a variant that did not answer them; result is ok, error, or dropped if too many wait.",
)
SPOOL_FAILURES = Metric(
    "gateway_spool_failures", "counter", ("stream",), "Facts that could not be appended to a spool."
)
SPOOL_SYNCS = Metric(
    "gateway_spool_sync_duration_seconds",
    "histogram",
    ("result",),
    "Time that outcomes took to the disk, where they are acknowledged only then; result is ok, or error if the disk"
    " refused.",
)
BREAKER_OPENED = Metric(
    "gateway_breaker_opened", "counter", ("endpoint", "variant"), "Times that a worker's breaker opened."
)
UPSTREAM_RETRIES = Metric(
    "gateway_upstream_retries",
    "counter",
    ("endpoint", "variant", "reason"),
    "Requests tried again on the same variant, by what the try before had come to.",
)
UPSTREAM_EJECTIONS = Metric(
    "gateway_upstream_ejections",
    "counter",
    ("endpoint", "variant", "upstream"),
    "Times that a worker left a replica of an upstream out of rotation because it kept failing.",
)
UPSTREAM_AVAILABLE = Metric(
    "gateway_upstream_available",
    "gauge",
    ("endpoint", "variant", "upstream"),
    "Workers that have a replica of an upstream in rotation; where none is, all are asked.",
)
DEATHS = Metric(
    "gateway_worker_deaths",
    "counter",
    ("signal",),
    "Workers that ended unasked, by the signal that ended them; exit if none did, unknown if nobody saw it.",
)
MODEL_CRASHES = Metric(
    "gateway_model_crashes",
    "counter",
    ("endpoint", "variant"),
    "Workers that crashed in native code while this model ran or was loaded; it need not have been the one to blame.",
)
RECYCLED = Metric(
    "gateway_workers_recycled", "counter", (), "Workers replaced because they had grown beyond data.max_memory."
)

WORKER_METRICS = {
    metric.name: metric
    for metric in (
        RESPONSES,
        COMPLETIONS,
        ATTEMPT_ERRORS,
        FALLBACKS,
        DURATION,
        REJECTED,
        OUTCOMES,
        UNREAD_PREDICTIONS,
        UNREAD_ANSWERS,
        FIRST_TOKEN,
        STREAM_TOKENS,
        STREAMS_ABORTED,
        SHADOW_REQUESTS,
        SPOOL_FAILURES,
        SPOOL_SYNCS,
        BREAKER_OPENED,
        UPSTREAM_RETRIES,
        UPSTREAM_EJECTIONS,
        UPSTREAM_AVAILABLE,
        DEATHS,
        MODEL_CRASHES,
        RECYCLED,
    )
}
MOMENTARY = frozenset(name for name, metric in WORKER_METRICS.items() if metric.kind == "gauge")  # the dead have none

BUILD_INFO = Metric("gateway_build_info", "gauge", ("version",), "Always 1; the version is a label.")
WORKERS = Metric("gateway_workers", "gauge", (), "Workers alive on this node.")
WORKER_PLAN = Metric("gateway_worker_plan_revision", "gauge", ("spool",), "Plan revision that a worker serves from.")
IN_FLIGHT = Metric("gateway_in_flight_requests", "gauge", (), "Requests being answered now.")
PLAN_REVISION = Metric("gateway_plan_revision", "gauge", (), "Plan revision last published on this node.")
SPLIT = Metric("gateway_split_ratio", "gauge", ("endpoint", "variant"), "Share of units that a variant is given.")
PREPARING = Metric(
    "gateway_preparing_workers",
    "gauge",
    ("endpoint", "variant", "state"),
    "Workers that a model still waits for before it gets traffic; state is loading, or failed if they cannot load it.",
)
STAGE = Metric(
    "gateway_experiment_stage_info", "gauge", ("endpoint", "experiment", "stage"), "1 for the present stage."
)
UNITS = Metric("gateway_experiment_units", "gauge", ("experiment", "variant"), "Units with a vote so far, by variant.")
LOG_EVIDENCE = Metric(
    "gateway_experiment_log_evidence",
    "gauge",
    ("experiment", "challenger", "metric", "test"),
    "Natural logarithm of an e-process; the threshold for a level alpha is log(1/alpha).",
)
EFFECT = Metric(
    "gateway_experiment_effect",
    "gauge",
    ("experiment", "challenger", "metric", "segment", "bound"),
    "Estimated effect, challenger minus champion, in units of the metric; bound is lower, estimate or upper.",
)
DECISIONS = Metric("gateway_decisions", "counter", ("experiment", "kind"), "Rows of the ledger, by kind.")
HOLD = Metric("gateway_experiment_hold", "gauge", ("experiment",), "1 while the experiment is held.")
RELOAD_OK = Metric(
    "gateway_config_last_reload_successful",
    "gauge",
    (),
    "1 if the config file on disk is the one served from.",
)
RELOAD_TIME = Metric(
    "gateway_config_last_reload_success_timestamp_seconds", "gauge", (), "When a config was last accepted."
)
CONFIG_INFO = Metric("gateway_config_info", "gauge", ("digest",), "1 for the digest of the config in use.")
FACTS = Metric("gateway_facts_shipped", "counter", ("kind",), "Facts moved from spools into the store.")
SPOOL_LAG = Metric("gateway_spool_lag_seconds", "gauge", (), "Age of the watermark up to which facts are shipped.")
STORE_UP = Metric("gateway_store_up", "gauge", (), "1 if the last step was committed.")
SPOOL_BYTES = Metric(
    "gateway_spool_bytes",
    "gauge",
    ("state",),
    "Size of the spools on disk; state is shipped, or waiting for what is not, or not wholly, in the store.",
)
SPOOL_DAMAGE = Metric(
    "gateway_spool_damaged_records", "counter", ("kind",), "Records torn by a kill, or streams quarantined."
)
SHIP_DELAY = Metric(
    "gateway_ship_delay_seconds",
    "histogram",
    (),
    "Age of the oldest fact of a shipment when the store had it.",
)
DECIDE_DELAY = Metric(
    "gateway_decide_delay_seconds",
    "histogram",
    (),
    "Time from a shipment in the store until the releases were judged by it.",
)
TAKE_DELAY = Metric(
    "gateway_take_delay_seconds",
    "histogram",
    (),
    "Time from a plan's file until every worker of the node served it.",
)
FOLLOW_DELAY = Metric(
    "gateway_follow_delay_seconds",
    "histogram",
    (),
    "Time from a decision of another node until this one's plan, by the clocks of both.",
)
OUTCOME_LAG = Metric(
    "gateway_outcome_lag_seconds",
    "gauge",
    ("experiment", "metric", "variant"),
    "Median time from an exposure to its outcome, rounded up to a power of two.",
)
OUTCOME_LAG_ALARM = Metric(
    "gateway_outcome_lag_differs",
    "gauge",
    ("experiment", "metric", "variant"),
    "1 if outcomes of the variant are proved to come sooner or later than another's.",
)
NODES = Metric("gateway_nodes", "gauge", ("state",), "Nodes on a shared store; state is living or silent.")
LEADS = Metric("gateway_leads", "gauge", (), "1 while this node folds and decides.")
CONFIG_DIFFERS = Metric(
    "gateway_config_differs", "gauge", (), "1 while a living node of a shared store has other endpoints than this one."
)
CLOCK_AHEAD = Metric(
    "gateway_clock_ahead_seconds", "gauge", (), "How far this node's clock is ahead of the shared store's, at least."
)
WAL = Metric(
    "gateway_store_wal_bytes", "gauge", (), "Size of SQLite's write-ahead log; a reader that stays makes it grow."
)
DAYS_DROPPED = Metric(
    "gateway_retention_days_dropped", "counter", (), "Days of requests that this process has deleted, by their age."
)
DAYS_OVERDUE = Metric(
    "gateway_retention_days_overdue", "gauge", (), "Days of requests that are there though they are older than wanted."
)
HALTS = Metric("gateway_halts", "gauge", (), "Challengers stopped on this node that no ledger knows of yet.")
CONTROL_METRICS = (
    BUILD_INFO, WORKERS, WORKER_PLAN, IN_FLIGHT, PLAN_REVISION, SPLIT, PREPARING, STAGE, UNITS, LOG_EVIDENCE,
    EFFECT, DECISIONS, HOLD, RELOAD_OK, RELOAD_TIME, CONFIG_INFO, FACTS, SPOOL_LAG, STORE_UP, SPOOL_BYTES,
    SPOOL_DAMAGE, SHIP_DELAY, DECIDE_DELAY, TAKE_DELAY, FOLLOW_DELAY, OUTCOME_LAG, OUTCOME_LAG_ALARM, NODES, LEADS,
    CONFIG_DIFFERS, CLOCK_AHEAD, HALTS, WAL, DAYS_DROPPED, DAYS_OVERDUE,
)  # fmt: skip
