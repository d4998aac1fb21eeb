"""The config of a node on which "nothing is lost" is proved."""

from __future__ import annotations

from typing import Any

from benchmarks.processes import free_port
from benchmarks.results_file import ROOT

MODELS = ROOT / "models" / "flight_delay"
ENDPOINT, EXPERIMENT, METRIC = "score", "boosted-vs-logistic", "brier"
CHALLENGER_SHARE = 0.4
WINDOW = 2.0  # seconds for outcomes


def document(**more: Any) -> dict[str, Any]:
    """The config of a node: two models that never agree, in an experiment whose split stands still."""
    models = {"logistic": "champion", "boosted": "challenger"}
    metrics: dict[str, dict[str, Any]] = {
        METRIC: {"type": "bounded", "bounds": [0, 1], "direction": "decrease", "source": "outcome"},
        "errors": {"type": "binary", "direction": "decrease", "source": "gateway"},
    }
    metrics[METRIC]["window"] = f"{WINDOW:g}s"
    endpoint = {
        "protocol": "oip",
        "unit": {"from": "header:x-user-id", "otherwise": "request"},
        "segments": {"origin": {"from": "header:x-origin", "values": ["EWR", "JFK", "LGA"]}},
        "variants": {name: {"role": role, "onnx": str(MODELS / f"{name}.onnx")} for name, role in models.items()},
        "metrics": metrics,
        "experiment": {
            "id": EXPERIMENT,
            "objective": {"metric": METRIC, "min_effect": 0.01},
            "guardrails": [{"metric": "errors", "margin": 0.05}],
            "stages": [{"traffic": f"{CHALLENGER_SHARE:.0%}"}],
            "automation": "off",
        },
    }
    return {
        "version": 1,
        "data": {"listen": f"127.0.0.1:{free_port()}", "workers": 2},
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
        "metrics": {"listen": f"127.0.0.1:{free_port()}"},
        "data_dir": "data",
        "model_roots": [str(MODELS)],
        "endpoints": {ENDPOINT: endpoint},
        **more,
    }
