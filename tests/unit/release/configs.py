"""Configs of one endpoint with two upstreams, as a person would edit them; model files for those with models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gateway.config.load import LoadedConfig, load

MODELS = Path(__file__).parents[3] / "models" / "flight_delay"


def copied(folder: Path, variant: str, model: str) -> Path:
    """A model file that a test may change."""
    path = folder / f"{variant}.onnx"
    path.write_bytes((MODELS / f"{model}.onnx").read_bytes())
    return path


def fixed(**traffic: str) -> dict[str, Any]:
    """Endpoint `rank` with a fixed split; the first variant is the champion."""
    names = list(traffic)
    return {
        "protocol": "http",
        "variants": {
            name: {"role": "challenger" if name != names[0] else "champion", "url": f"http://127.0.0.1:900{n}"}
            for n, name in enumerate(names)
        },
        "traffic": traffic,
    }


def experiment(
    id: str = "one", champion: str = "a", challenger: str = "b", *rivals: str, **decision: Any
) -> dict[str, Any]:
    """Endpoint `rank` in an experiment over 1, 10 and 50 % (30 % each of several challengers)."""
    endpoint = fixed(**{champion: "100%", **dict.fromkeys((challenger, *rivals), "0%")})
    del endpoint["traffic"]
    return endpoint | {
        "metrics": {
            "score": {
                "type": "bounded",
                "bounds": [0, 1],
                "direction": "increase",
                "source": "outcome",
                "window": "1m",
            },
            "errors": {"type": "binary", "direction": "decrease", "source": "gateway"},
        },
        "experiment": {
            "id": id,
            "objective": {"metric": "score", "expected_effect": 0.2, "min_effect": 0.1},
            "guardrails": [{"metric": "errors", "margin": 0.05}],
            "stages": [
                {"traffic": "1%", "min_challenger_units": 5},
                {"traffic": "10%", "min_challenger_units": 5},
                {"traffic": "30%" if rivals else "50%", "min_challenger_units": 5},
            ],
            "decision": decision,
        },
    }


def write(folder: Path, **endpoints: dict[str, Any]) -> Path:
    """Writes gateway.yaml; names of endpoints with "_" for "-"."""
    document = {
        "version": 1,
        "data_dir": "data",
        "model_roots": [".."],
        "endpoints": {name.replace("_", "-"): endpoint for name, endpoint in endpoints.items()},
    }
    path = folder / "gateway.yaml"
    yaml = YAML(typ="safe", pure=True)
    yaml.width = 4096  # findings name lines, so a long path must not fill one of its own
    with path.open("w") as file:
        yaml.dump(document, file)
    return path


def loaded(folder: Path, **endpoints: dict[str, Any]) -> LoadedConfig:
    return load(write(folder, **endpoints))
