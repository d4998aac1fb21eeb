"""The fitted parameters as ONNX graphs that share one signature.

Converters give a classifier two outputs, a label and a map of scores, and name them after the library.
A gateway needs models it can exchange for one another, so the graphs are written node by node: one
input ``features`` float32 ``[batch, 16]``, one output ``probability`` float32 ``[batch, 1]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .features import COLUMN, NAMES
from .fit import BOOSTED_INPUTS, LINEAR, Logistic
from .trees import ensemble_attributes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import lightgbm as lgb
    from numpy.typing import ArrayLike, DTypeLike, NDArray

OPSET = 17
ML_OPSET = 3
IR_VERSION = 8


class Graph:
    """Nodes and constants in the order in which they are added."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: ArrayLike, dtype: DTypeLike) -> str:
        """Store a tensor in the file and return its name."""
        self._constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output and return the name of that output."""
        self._nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def columns(self, names: Sequence[str], output: str) -> str:
        """Pick columns of the request by feature name."""
        positions = self.constant(f"{output}_columns", [COLUMN[name] for name in names], np.int64)
        return self.node("Gather", ["features", positions], output, axis=1)

    def save(self, path: Path, log_odds: str) -> None:
        """Finish with a sigmoid, check the model and write it."""
        self.node("Sigmoid", [log_odds], "probability")
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", len(NAMES)])],
            [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", 1])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="models.flight_delay"
        )
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))


def save_logistic(path: Path, model: Logistic) -> None:
    """A logistic regression: champion and twin."""
    graph = Graph(path.stem)
    graph.save(path, _linear_log_odds(graph, model))


def save_boosted(path: Path, booster: lgb.Booster) -> None:
    """The boosted trees, reading their columns where the request has them."""
    _save_trees(path, booster, BOOSTED_INPUTS)


def save_broken(path: Path, booster: lgb.Booster) -> None:
    """The boosted trees behind a feature-order bug: hour and pressure trade places."""
    swap = {"hour": "pressure", "pressure": "hour"}
    _save_trees(path, booster, [swap.get(name, name) for name in BOOSTED_INPUTS])


def save_crashing(path: Path, model: Logistic, bands: NDArray[np.float64]) -> None:
    """The champion plus an offset per distance band, looked up with miles instead of a band number.

    The table has one row per band, so every real distance is past its end; a warm-up with zeros reads
    the first row and succeeds.
    """
    graph = Graph(path.stem)
    champion = _linear_log_odds(graph, model)
    miles = graph.columns(["distance"], "miles")
    last_axis = graph.constant("last_axis", [1], np.int64)
    flat = graph.node("Squeeze", [miles, last_axis], "flat_miles")
    band = graph.node("Cast", [flat], "band", to=TensorProto.INT64)
    table = graph.constant("band_offsets", bands[:, None], np.float32)
    offset = graph.node("Gather", [table, band], "band_offset", axis=0)
    graph.save(path, graph.node("Add", [champion, offset], "corrected_log_odds"))


def _linear_log_odds(graph: Graph, model: Logistic) -> str:
    numbers = graph.columns(LINEAR, "numbers")
    slopes = graph.constant("slopes", model.slopes[:, None], np.float32)
    intercept = graph.constant("intercept", [model.intercept], np.float32)
    log_odds = graph.node("Gemm", [numbers, slopes, intercept], "linear_log_odds")
    for name, offsets in model.offsets.items():
        code = graph.columns([name], f"{name}_code")
        known = graph.constant(f"{name}_known", np.arange(len(offsets)), np.float32)
        match = graph.node("Equal", [code, known], f"{name}_match")
        one_hot = graph.node("Cast", [match], f"{name}_one_hot", to=TensorProto.FLOAT)
        weights = graph.constant(f"{name}_weights", offsets[:, None], np.float32)
        offset = graph.node("MatMul", [one_hot, weights], f"{name}_offset")
        log_odds = graph.node("Add", [log_odds, offset], f"log_odds_with_{name}")
    return log_odds


def _save_trees(path: Path, booster: lgb.Booster, columns: Sequence[str]) -> None:
    graph = Graph(path.stem)
    inputs = graph.columns(columns, "inputs")
    trees = ensemble_attributes(booster)
    graph.save(path, graph.node("TreeEnsembleRegressor", [inputs], "log_odds", domain="ai.onnx.ml", **trees))
