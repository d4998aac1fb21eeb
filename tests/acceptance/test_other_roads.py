"""Roads to a decision that the demo does not take: shadow pairs, several challengers, a watch after the promotion."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.demo.scenarios import ENDPOINT, assets
from gateway.store.base import LedgerRow
from tests.acceptance.driver import Node, label, release, squared_error

MODELS = assets() / "models" / "flight_delay"
ERRORS = {"type": "binary", "direction": "decrease", "source": "gateway"}
LATENCY = {"type": "latency", "limit": "250ms", "direction": "decrease", "source": "gateway"}
GUARDRAILS = [{"metric": "errors", "margin": 0.005}, {"metric": "latency", "margin": 0.02}]


def config(folder: Path, challengers: list[str], brier: dict[str, Any], **experiment: Any) -> Path:
    document = {
        "version": 1,
        "data_dir": str(folder / "data"),
        "model_roots": [str(MODELS)],
        "data": {"listen": "127.0.0.1:0"},
        "endpoints": {
            ENDPOINT: {
                "protocol": "oip",
                "unit": "request",
                "segments": {"origin": {"from": "header:x-origin", "values": ["EWR", "JFK", "LGA"]}},
                "variants": {
                    name: {
                        "role": "challenger" if name in challengers else "champion",
                        "onnx": str(MODELS / f"{name}.onnx"),
                    }
                    for name in ("logistic", *challengers)
                },
                "metrics": {"brier": brier, "errors": ERRORS, "latency": LATENCY},
                "experiment": {
                    "id": "road",
                    "objective": {"metric": "brier", "expected_effect": 0.02, "min_effect": 0.005},
                    "guardrails": GUARDRAILS,
                    **experiment,
                },
            }
        },
    }
    path = folder / "gateway.yaml"
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(document, file)
    return path


def told(path: Path, seed: int, look: Callable[[Node], Any], **how: Any) -> Any:
    """Run a release to its end and look at the node before it stops."""

    async def run() -> Any:
        node = await release(path, seed, **how)
        try:
            return look(node)
        finally:
            await node.stop()

    return asyncio.run(run())


def ledger(node: Node) -> list[LedgerRow]:
    return node.control.controller.ledger()


def kinds(rows: list[LedgerRow]) -> list[str]:
    return [row.kind for row in rows]


@pytest.mark.parametrize("seed", [1, 2])
def test_pairs_in_the_shadow_decide_before_anybody_is_exposed(tmp_path: Path, seed: int) -> None:
    brier = {"type": "score", "label_independent": True, "direction": "decrease", "source": "outcome", "window": "1s"}
    stages = [{"traffic": "1%", "min_units": 1200, "min_challenger_units": 1}, {"traffic": "50%"}]
    path = config(tmp_path, ["boosted"], brier, shadow="100%", stages=stages)
    rows: list[LedgerRow] = told(path, seed, ledger, posts=label)
    assert kinds(rows) == ["start", "advance", "promote"]
    evidence = rows[1].body["evidence"]  # when the stage of 1 % ended
    (proof,) = (
        test
        for test in evidence["tests"]
        if (test["metric"], test["name"], test["segment"]) == ("brier", "promote", "")
    )
    assert proof["log_e"] > proof["needed"], "the objective is proved by pairs"
    champion, challenger = evidence["assigned"]
    assert challenger < 0.03 * champion, "while hardly any flight has met the challenger"
    (pairs,) = (one for one in evidence["estimates"] if (one["metric"], one["segment"]) == ("brier", ""))
    assert pairs["units"][0] == pairs["units"][1] == champion + challenger


def test_of_several_the_harmful_one_is_dropped_and_the_better_one_is_watched(tmp_path: Path) -> None:
    brier = {"type": "bounded", "bounds": [0, 1], "direction": "decrease", "source": "outcome", "window": "1s"}
    stages = [{"traffic": "5%", "min_units": 2000}, {"traffic": "30%"}]
    holdback = {"traffic": "10%", "watch": "20s", "run_length": 100000}
    path = config(tmp_path, ["broken", "boosted"], brier, stages=stages, holdback=holdback)

    def look(node: Node) -> tuple[list[LedgerRow], dict[str, Any]]:
        return ledger(node), node.status

    rows, status = told(path, 3, look, posts=squared_error)
    assert [kind for kind in kinds(rows) if kind != "advance"] == ["start", "drop", "promote", "complete"]
    dropped, promoted, completed = (next(r for r in rows if r.kind == kind) for kind in ("drop", "promote", "complete"))
    assert (dropped.body["variant"], dropped.body["reason"]) == ("broken", "harm_brier")
    assert (promoted.body["variant"], promoted.body["to"]["stage"]) == ("boosted", "watch")
    watched = [test for test in completed.body["evidence"]["tests"] if test["segment"] == "watch"]
    assert {test["metric"] for test in watched} == {"brier", "errors", "latency"}
    assert all(test["log_e"] < test["needed"] for test in watched)
    assert status["champion"] == "boosted"
    assert status["split"] == {"boosted": 1.0}
