"""A LightGBM booster as the attributes of ONNX's ``TreeEnsembleRegressor``.

The operator wants the nodes of all trees side by side, one list per property. Requests hold no NaN and
the booster is trained with missing-value handling off, so every split is a plain ``value <= threshold``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lightgbm as lgb


@dataclass(frozen=True, slots=True)
class Node:
    """One node of one tree; a leaf has a weight, a split has a column and two children."""

    number: int
    column: int = 0
    threshold: float = 0.0
    below: int = 0
    above: int = 0
    weight: float | None = None


def ensemble_attributes(booster: lgb.Booster) -> dict[str, Any]:
    """The attributes of the operator whose output is the booster's raw score."""
    trees = [
        (tree["tree_index"], node)
        for tree in booster.dump_model()["tree_info"]
        for node in _nodes(tree["tree_structure"])
    ]
    leaves = [(tree, node) for tree, node in trees if node.weight is not None]
    return {
        "n_targets": 1,
        "aggregate_function": "SUM",
        "post_transform": "NONE",
        "nodes_treeids": [tree for tree, _ in trees],
        "nodes_nodeids": [node.number for _, node in trees],
        "nodes_modes": ["BRANCH_LEQ" if node.weight is None else "LEAF" for _, node in trees],
        "nodes_featureids": [node.column for _, node in trees],
        "nodes_values": [_rounded_down(node.threshold) for _, node in trees],
        "nodes_truenodeids": [node.below for _, node in trees],
        "nodes_falsenodeids": [node.above for _, node in trees],
        "target_treeids": [tree for tree, _ in leaves],
        "target_nodeids": [node.number for _, node in leaves],
        "target_ids": [0 for _ in leaves],
        "target_weights": [node.weight for _, node in leaves],
    }


def _nodes(root: dict[str, Any]) -> Iterator[Node]:
    """The nodes of one tree, parents first, numbered from zero."""
    waiting = [root]
    for number, raw in enumerate(waiting):
        if "leaf_value" in raw:
            yield Node(number, weight=raw["leaf_value"])
            continue
        if raw["decision_type"] != "<=":
            raise ValueError(f"a split by {raw['decision_type']!r} has no counterpart here")
        children = len(waiting)
        waiting += [raw["left_child"], raw["right_child"]]
        yield Node(number, raw["split_feature"], raw["threshold"], below=children, above=children + 1)


def _rounded_down(threshold: float) -> float:
    """The largest float32 that is not above the threshold, so that no float32 value changes sides."""
    nearest = np.float32(threshold)
    return float(nearest if nearest <= threshold else np.nextafter(nearest, np.float32(-np.inf)))
