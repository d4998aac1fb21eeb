"""The prediction that a metric scores is in the fact of the answer, or its absence is counted."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.events import Completion
from gateway.plan import CapturePlan
from gateway.serving.answers.capture import Capture
from gateway.serving.asgi import Headers
from tests.integration.backends.upstream import Upstream, answer, echoing
from tests.integration.serving.local_worker import (
    LocalWorker,
    challenger,
    champion,
    endpoint,
    http,
    infer_body,
    onnx,
    plan,
)
from tests.unit.backends import tiny_onnx

pytestmark = pytest.mark.anyio
UNREAD = "gateway_unread_predictions"
CAPTURE = CapturePlan()


def oip(*numbers: float, name: str = "probability") -> bytes:
    tensor = {"name": name, "datatype": "FP64", "shape": [len(numbers)], "data": numbers}
    return json.dumps({"model_name": "m", "outputs": [tensor]}).encode()


async def test_of_a_model_in_the_process(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion(), capture=CAPTURE)))
    reply = await worker.infer("u")
    (completion,) = worker.facts(Completion)
    assert completion.prediction == pytest.approx(reply.json["outputs"][0]["data"][0], rel=1e-6)
    assert worker.count(UNREAD, "flight", "logistic") == 0


async def test_of_the_row_that_is_named(worker: LocalWorker, tmp_path: Path) -> None:
    largest = onnx("largest", "champion", tiny_onnx.largest(tmp_path / "m.onnx"))
    rows = [[float(row)] * 16 for row in (3, 5)]
    for revision, index in enumerate((0, 1, -1, 2), start=1):
        named = CapturePlan(output="probability", index=index)
        await worker.publish(plan(endpoint(largest, capture=named), revision=revision))
        assert (await worker.request(body=infer_body(shape=[2, 16], data=rows))).status == 200
    assert [fact.prediction for fact in worker.facts(Completion)] == [3.0, 5.0, 5.0, None]
    assert worker.count(UNREAD, "flight", "largest") == 1


async def test_not_where_no_metric_scores_it(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion())))
    await worker.infer("u")
    (completion,) = worker.facts(Completion)
    assert completion.prediction is None
    assert worker.count(UNREAD, "flight", "logistic") == 0


async def test_of_an_output_that_the_model_does_not_have_there_is_none(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion(), capture=CapturePlan(output="elsewhere"))))
    assert (await worker.infer("u")).status == 200
    (completion,) = worker.facts(Completion)
    assert completion.prediction is None
    assert worker.count(UNREAD, "flight", "logistic") == 1


async def test_where_the_champion_answers_in_place_it_is_the_champions(worker: LocalWorker) -> None:
    split = endpoint(champion(), challenger("crashing"), share=1, capture=CAPTURE)
    await worker.publish(plan(split))
    reply = await worker.infer("u")
    (completion,) = worker.facts(Completion)
    assert completion.served == "logistic"
    assert completion.prediction == pytest.approx(reply.json["outputs"][0]["data"][0], rel=1e-6)
    assert worker.count(UNREAD, "flight", "crashing") == 0


async def test_of_an_answer_that_never_came_nothing_is_unread(worker: LocalWorker, tmp_path: Path) -> None:
    hang = onnx("hang", "champion", tiny_onnx.hanging(tmp_path / "hang.onnx"), timeout=0.05)
    await worker.publish(plan(endpoint(hang, capture=CAPTURE)))
    assert (await worker.infer("u")).status == 504
    (completion,) = worker.facts(Completion)
    assert completion.prediction is None
    assert worker.count(UNREAD, "flight", "hang") == 0


ANSWERS: dict[str, tuple[bytes, float | None]] = {
    "a number": (answer(oip(0.25, 0.75)), 0.75),
    "zipped": (answer(gzip.compress(oip(0.5)), b"Content-Encoding: gzip"), 0.5),
    "not JSON": (answer(b"<html>"), None),
    "another shape": (answer(oip(0.5).replace(b"[1]", b"[2]")), None),
    "another output": (answer(oip(0.5, name="label")), None),
    "not finite": (answer(oip(0.5).replace(b"0.5", b"NaN")), None),
    "no outputs": (answer(b'{"outputs":[]}'), None),
    "a client's error": (answer(oip(0.5), status=b"400 Bad Request"), None),
    "its own error": (answer(oip(0.5), status=b"500 Internal Server Error"), None),
    "a redirect": (answer(oip(0.5), b"Location: /", status=b"307 Temporary Redirect"), None),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_of_an_upstream(worker: LocalWorker, case: str) -> None:
    data, prediction = ANSWERS[case]
    async with Upstream(echoing(data)) as upstream:
        remote = http("remote", "challenger", f"http://{upstream.authority}")
        capture = CapturePlan(output="probability")
        await worker.publish(plan(endpoint(champion(), remote, share=1, capture=capture)))
        reply = await worker.infer("u")
    assert data.endswith(reply.body)  # as it came
    (completion,) = worker.facts(Completion)
    assert (completion.end, completion.status) == ("answered", reply.status)
    assert (completion.served, completion.prediction) == ("remote", prediction)
    assert worker.count(UNREAD, "flight", "remote") == (prediction is None)


async def test_a_plain_endpoint_has_no_tensors_to_read(worker: LocalWorker) -> None:
    async with Upstream(echoing(answer(oip(0.5)))) as upstream:
        variant = http("a", "champion", f"http://{upstream.authority}")
        await worker.publish(plan(endpoint(variant, name="plain", protocol="http", capture=CAPTURE)))
        assert (await worker.request("GET", "/plain/x")).status == 200
    (completion,) = worker.facts(Completion)
    assert completion.prediction is None
    assert worker.count(UNREAD, "plain", "a") == 0


async def test_the_answer_leaves_before_it_is_read(worker: LocalWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    from_json = Capture.from_json

    def reading(capture: Capture, headers: Headers, body: bytes) -> float | None:
        steps.append("read")
        return from_json(capture, headers, body)

    async def receive() -> Any:
        return {"type": "http.request", "body": infer_body(), "more_body": False}

    async def send(message: Any) -> None:
        steps.append(message["type"])

    async with Upstream(echoing(answer(oip(0.5)))) as upstream:
        variant = http("remote", "champion", f"http://{upstream.authority}")
        await worker.publish(plan(endpoint(variant, capture=CAPTURE)))
        monkeypatch.setattr(Capture, "from_json", reading)
        path = "/v2/models/flight/infer"
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        await worker.worker.app(scope | {"headers": []}, receive, send)
    assert steps == ["http.response.start", "http.response.body", "read"]
    assert worker.facts(Completion)[0].prediction == 0.5
