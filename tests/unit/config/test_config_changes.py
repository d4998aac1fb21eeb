"""What is said about the difference between two configs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config.changes import diff, needs_restart, removals

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.load import LoadedConfig

RANK, FLIGHT = "endpoints.search-rank", "endpoints.flight-delay"


def test_the_same_has_no_difference(accepted: Callable[[str], LoadedConfig], valid: str) -> None:
    old = accepted(valid).config
    new = accepted(f"# a comment\n{valid.replace('500ms', '0.5s').replace('16MiB', '16384KiB')}").config
    assert diff(old, new) == needs_restart(old, new) == removals(old, new) == []


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"a: 80%": "a: 70%", "b: 20%": "b: 30%"},
            [f"{RANK}.traffic.a: 80% -> 70%", f"{RANK}.traffic.b: 20% -> 30%"],
        ),
        ({"timeout: 500ms": "timeout: 1.5s"}, [f"{RANK}.variants.b.timeout: 500ms -> 1.5s"]),
        ({"idempotent: true": "idempotent: false"}, [f"{RANK}.variants.b.idempotent: true -> false"]),
        (
            {"[EWR, JFK, LGA]": "[EWR, JFK]"},
            [f"{RANK}.segments.origin.values: [EWR, JFK, LGA] -> [EWR, JFK]"],
        ),
        (
            {'{from: "header:X-User-Id", otherwise: request}': "request"},
            [f"{RANK}.unit: {{from: header:x-user-id, otherwise: request}} -> request"],
        ),
        (
            {"max_units: 16000": "max_units: null"},
            [f"{FLIGHT}.experiment.decision.max_units: 16000 -> (none)"],
        ),
        (
            {"{traffic: 10%}": "{traffic: 10%, min_duration: 2h}"},
            [f"{FLIGHT}.experiment.stages.traffic-10%.min_duration: 0s -> 2h"],
        ),
        (
            {"        - {traffic: 10%}\n": "        - {traffic: 5%}\n        - {traffic: 10%}\n"},
            [f"{FLIGHT}.experiment.stages.traffic-5%: added"],
        ),
        (
            {"        - {metric: errors, margin: 0.005}\n": ""},
            [f"{FLIGHT}.experiment.guardrails.errors: removed"],
        ),
        (
            {"      late:": "      delayed:"},
            [f"{FLIGHT}.metrics.late: removed", f"{FLIGHT}.metrics.delayed: added"],
        ),
        (
            {
                "{metric: errors, margin: 0.005}": "{metric: late, margin: 0.005}",
                "metric: latency": "metric: errors",
            },
            [
                f"{FLIGHT}.experiment.guardrails.errors.margin: 0.005 -> 0.02",
                f"{FLIGHT}.experiment.guardrails.latency: removed",
                f"{FLIGHT}.experiment.guardrails.late: added",
            ],
        ),
        ({"listen: 0.0.0.0:8080": 'listen: "[::]:8080"'}, ["data.listen: 0.0.0.0:8080 -> [::]:8080"]),
        ({"16MiB": "64KiB"}, ["data.max_body: 16MiB -> 64KiB"]),
    ],
)
def test_each_difference_is_a_line(
    accepted: Callable[[str], LoadedConfig], valid: str, changes: dict[str, str], lines: list[str]
) -> None:
    text = valid
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    assert diff(accepted(valid).config, accepted(text).config) == lines


def test_an_order_is_a_difference(accepted: Callable[[str], LoadedConfig], valid: str) -> None:
    first, second = (
        "        - {metric: errors, margin: 0.005}\n",
        "        - {metric: latency, margin: 0.02}\n",
    )
    old, new = accepted(valid).config, accepted(valid.replace(first + second, second + first)).config
    assert diff(old, new) == [f"{FLIGHT}.experiment.guardrails: order [errors, latency] -> [latency, errors]"]


def test_an_endpoint_comes_and_goes(accepted: Callable[[str], LoadedConfig], valid: str) -> None:
    both = accepted(valid).config
    one = accepted(valid[: valid.index("  flight-delay:")]).config
    assert diff(both, one) == [f"{FLIGHT}: removed"]
    assert diff(one, both) == [f"{FLIGHT}: added"]
    assert removals(one, both) == []
    assert removals(both, one) == [
        FLIGHT,
        f"{FLIGHT}.variants.logistic",
        f"{FLIGHT}.variants.boosted",
        *(f"{FLIGHT}.metrics.{name}" for name in ("brier", "late", "latency", "errors")),
        f"{FLIGHT}.experiment boosted-vs-logistic",
    ]


def test_another_experiment_takes_the_place_of_the_first(accepted: Callable[[str], LoadedConfig], valid: str) -> None:
    old, new = accepted(valid).config, accepted(valid.replace("id: boosted-vs-logistic", "id: again")).config
    assert removals(old, new) == [f"{FLIGHT}.experiment boosted-vs-logistic"]
    assert diff(old, new) == [f"{FLIGHT}.experiment.id: boosted-vs-logistic -> again"]


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ("0.0.0.0:8080", "0.0.0.0:8000", ["data.listen"]),
        ("workers: 4", "workers: auto", ["data.workers"]),
        ("16MiB", "1MiB", []),
        ("127.0.0.1:8081", "127.0.0.1:8091", ["admin.listen"]),
        ("127.0.0.1:9090", "127.0.0.1:9091", ["metrics.listen"]),
        ("var/gateway\n", "var/elsewhere\n", ["data_dir"]),
        ("var/other", "var/another", ["store"]),
        ("a: 80%\n      b: 20%", "a: 70%\n      b: 30%", []),
    ],
)
def test_what_needs_a_restart(
    accepted: Callable[[str], LoadedConfig], valid: str, old: str, new: str, keys: list[str]
) -> None:
    assert needs_restart(accepted(valid).config, accepted(valid.replace(old, new)).config) == keys


def test_the_value_of_a_header_that_is_set_stays_out_of_the_log(
    accepted: Callable[[str], LoadedConfig], valid: str
) -> None:
    old, new = (
        accepted(
            valid.replace("url: http://rank-b:8000", f"url: http://rank-b:8000\n        headers: {{x-key: {key}}}")
        )
        for key in ("one", "two")
    )
    assert diff(old.config, new.config) == ["endpoints.search-rank.variants.b.headers.x-key: *** -> ***"]
