"""Users who return, and a node that knows them: what tests of its life are made of."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress

import httpx

from tests.integration.process.node import MODELS, Load, Node, infer_body

BY_USER = f"""\
  flight-delay:
    protocol: oip
    unit: {{from: "header:x-user-id", otherwise: request}}
    variants:
      logistic: {{role: champion, onnx: {MODELS}/logistic.onnx}}
      boosted: {{role: challenger, onnx: {MODELS}/boosted.onnx}}
    traffic: {{logistic: 50%, boosted: 50%}}
"""


class Users:
    """A load of 50 users who return, and the answers that each of them has got: the two models never agree."""

    def __init__(self, *nodes: Node) -> None:
        self._urls = [node.url("data", "/v2/models/flight-delay/infer") for node in nodes]
        self.answers: dict[str, set[float]] = defaultdict(set)
        self.load = Load(nodes[0], send=self._ask)

    def _ask(self, client: httpx.Client, name: str) -> httpx.Response:
        user = str(int(name.removeprefix("load-")) % 50)
        answer = self._first(client, {"x-user-id": user, "x-request-id": name})
        if answer.status_code == 200:
            self.answers[user].add(answer.json()["outputs"][0]["data"][0])
        return answer

    def _first(self, client: httpx.Client, headers: dict[str, str]) -> httpx.Response:
        """Of the first node that takes a connection."""
        for url in self._urls[:-1]:
            with suppress(httpx.ConnectError):
                return client.post(url, json=infer_body(), headers=headers)
        return client.post(self._urls[-1], json=infer_body(), headers=headers)

    def check_nobody_moved(self) -> None:
        assert len(self.answers) == 50
        assert all(len(answers) == 1 for answers in self.answers.values())
        assert len(set.union(*self.answers.values())) == 2
