"""Real model servers behind the gateway: a client cannot tell that it is there."""

from __future__ import annotations

import pytest

from tests.clients.conftest import results
from tests.integration.process.node import Node

pytestmark = pytest.mark.process

# What the pairs of client and server can do without a gateway: MLServer knows no binary tensors and no deflate,
# KServe's server no coded bodies and no versions.
JSON = ("model_ready", "infer_json", "infer_chosen_output", "wrong_shape")
PAIRS = {
    ("triton_sync", "ml"): (*JSON, "model_metadata", "infer_gzip_json"),
    ("kserve_rest", "ml"): (*JSON, "infer_large"),
    ("triton_sync", "ks"): ("model_metadata", "infer_binary", "infer_one_output_of_each_kind"),
    ("triton_asyncio", "ks"): ("model_metadata", "infer_binary", "infer_one_output_of_each_kind"),
    ("kserve_rest", "ks"): (*JSON, "infer_binary", "infer_one_output_of_each_kind", "infer_large"),
}


@pytest.mark.parametrize(("client", "model"), PAIRS)
def test_the_answers_are_those_of_the_server_itself(
    node: Node, mlserver: str, kserver: str, client: str, model: str
) -> None:
    scenarios = PAIRS[client, model]
    server = (mlserver if model == "ml" else kserver).removeprefix("http://")
    direct = results(client, server, model, scenarios)
    through = results(client, node.addresses["data"], model, scenarios)
    assert through == direct
    assert all(direct[name]["smallest"]["values"] == [-2.0] for name in scenarios if name.startswith("infer"))


def test_each_of_the_variants_was_asked(node: Node) -> None:
    for model in ("ml", "ks"):
        for _ in range(40):  # one variant gets none of 40 once in 10^12 times
            body = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 16], "data": [1] * 16}]}
            node.client.post(node.url("data", f"/v2/models/{model}/infer"), json=body).raise_for_status()
        for variant in ("a", "b"):
            labels = f'endpoint="{model}",experiment="",result="ok",variant="{variant}"'
            assert node.total(f"gateway_completions_total{{{labels}}}") > 0, sorted(node.metrics())
