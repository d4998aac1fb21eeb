"""Whatever is wrong with a request: a clear answer in the protocol's form, counted, and nothing in the spool."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest

from gateway.telemetry.status_page import Word
from tests.integration.serving.local_worker import (
    FLIGHT,
    INFER,
    LocalWorker,
    Reply,
    champion,
    endpoint,
    http,
    infer_body,
    plan,
)

pytestmark = pytest.mark.anyio
TENSOR = {"name": "features", "datatype": "FP32", "shape": [1, 16], "data": FLIGHT}
NESTED = b'{"inputs":[{"name":"features","datatype":%s,"shape":[1,16],"data":%s}]}'


def tensor(**changed: Any) -> bytes:
    return infer_body(**changed)


def document(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not valid JSON"),
    "malformed": (b'{"inputs": [,]}', "not valid JSON"),
    "truncated": (infer_body()[:-5], "not valid JSON"),
    "NaN": (infer_body().replace(b"1400", b"NaN"), "not valid JSON"),
    "Infinity": (infer_body().replace(b"1400", b"Infinity"), "not valid JSON"),
    "beyond a double": (infer_body().replace(b"1400", b"1e999"), "not valid JSON"),
    "beyond FP32": (infer_body().replace(b"1400", b"1e39"), "element 4 does not fit FP32"),
    "invalid UTF-8": (b'{"inputs": "\xff"}', "not valid JSON"),
    "UTF-16": (infer_body().decode().encode("utf-16"), "not valid JSON"),
    "byte order mark": (b"\xef\xbb\xbf" + infer_body(), "not valid JSON"),
    "lone surrogate": (b'{"inputs": "\\ud800"}', "not valid JSON"),
    "5000 digits": (infer_body().replace(b"1400", b"1" * 5000), "not valid JSON"),
    "50 000 levels": (b"[" * 50_000, "not valid JSON"),
    "100 000 levels": (b"[" * 100_000, "has 100000 lists and objects"),
    "no object": (b"[1]", "list `inputs`"),
    "no inputs": (b"{}", "list `inputs`"),
    "inputs no list": (document(inputs={}), "list `inputs`"),
    "no inputs at all": (document(inputs=[]), "expected the inputs ['features'], each once; got []"),
    "input no object": (document(inputs=[3]), "string `name`"),
    "input without a name": (document(inputs=[{}]), "string `name`"),
    "wrong name": (tensor(name="other"), "got ['other']"),
    "the same input twice": (document(inputs=[TENSOR, TENSOR]), "each once"),
    "one input too many": (document(inputs=[TENSOR, TENSOR | {"name": "more"}]), "each once"),
    "id no string": (document(inputs=[TENSOR], id=3), "`id`"),
    "wrong datatype": (tensor(datatype="FP64"), "expected datatype FP32, got 'FP64'"),
    "datatype nested to the limit": (NESTED % (b"[" * 1000 + b"]" * 1000, b"[]"), "expected datatype FP32"),
    "no shape": (tensor(shape=None), "positive integers"),
    "shape of strings": (tensor(shape=["1", 16]), "positive integers"),
    "shape of booleans": (tensor(shape=[True, 16]), "positive integers"),
    "negative shape": (tensor(shape=[-1, 16]), "positive integers"),
    "empty batch": (tensor(shape=[0, 16], data=[]), "positive integers"),
    "wrong rank": (tensor(shape=[16]), "expected shape [-1, 16], got [16]"),
    "wrong width": (tensor(shape=[1, 15], data=FLIGHT[:15]), "expected shape [-1, 16]"),
    "shape and data differ": (tensor(shape=[2, 16]), "holds 32 elements, `data` has 16"),
    "a billion declared": (tensor(shape=[10**9, 16]), "`data` has 16"),
    "data no list": (tensor(data=3), "must be a list"),
    "data of strings": (tensor(data=["1"] * 16), "must hold numbers"),
    "one long string among many short": (tensor(data=["x" * 10_000] + [""] * 50_000), "must hold numbers"),
    "data with null": (tensor(data=[*FLIGHT[:15], None]), "must hold numbers"),
    "data with a boolean": (tensor(data=[*FLIGHT[:15], True]), "must hold numbers"),
    "ragged rows": (tensor(data=[FLIGHT[:9], FLIGHT[9:]]), "differ in length"),
    "rows and numbers mixed": (tensor(data=[FLIGHT[:15], 1]), "must hold numbers"),
    "data nested to the limit": (NESTED % (b'"FP32"', b"[" * 1000 + b"1" + b"]" * 1000), "differ in length or depth"),
    "outputs no list": (document(inputs=[TENSOR], outputs={}), "`outputs` must be a list"),
    "a key twice": (b'{"inputs": 1, ' + tensor()[1:], "the key 'inputs' comes twice"),
    "unknown output": (document(inputs=[TENSOR], outputs=[{"name": "x"}]), "unknown outputs ['x']"),
}


@pytest.fixture
async def serving(worker: LocalWorker) -> LocalWorker:
    plain = endpoint(http("a", "champion", "http://127.0.0.1:9/prefix"), name="plain", protocol="http")
    await worker.publish(plan(endpoint(champion()), plain))
    return worker


def refused(worker: LocalWorker, reply: Reply, status: int, words: str, reason: str = "bad_request") -> None:
    assert reply.status == status, reply.body
    assert words in reply.error
    assert len(reply.error) <= 1000
    assert reply.headers["x-request-id"]
    assert worker.count("gateway_rejected_requests", reason) == 1
    worker.nothing_happened()


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_a_bad_body_is_refused(serving: LocalWorker, case: str) -> None:
    body, words = BAD_BODIES[case]
    reply = await serving.request(body=body, headers=[("x-request-id", "mine")])
    refused(serving, reply, 400, words)
    assert reply.headers["x-request-id"] == "mine"
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "body",
    [
        tensor(),
        tensor(data=[FLIGHT]),
        tensor(shape=[2, 16], data=[FLIGHT, FLIGHT]),
        tensor(shape=[2, 16], data=FLIGHT * 2),
        tensor(data=[float(x) for x in FLIGHT]),
        document(inputs=[TENSOR], outputs=[], id="x", parameters={"a": 1}, unknown=1),
        document(inputs=[TENSOR], outputs=[{"name": "probability"}]),
    ],
)
async def test_what_the_protocol_allows_is_answered(serving: LocalWorker, body: bytes) -> None:
    reply = await serving.request(body=body)
    assert reply.status == 200, reply.body
    rows = 2 if b"[2, 16]" in body else 1
    (output,) = reply.json["outputs"]
    assert output["shape"] == [rows, 1]
    assert len(output["data"]) == rows
    assert reply.json.get("id") == json.loads(body).get("id")


@pytest.mark.parametrize("length", ["abc", "+5", "-1", "1_0", "", "9" * 5000])
async def test_a_length_that_is_no_number_is_refused(serving: LocalWorker, length: str) -> None:
    reply = await serving.request(body=infer_body(), headers=[("content-length", length)], declare=False)
    refused(serving, reply, 400, "content-length")


async def test_a_body_too_large_is_refused_before_it_is_read(serving: LocalWorker) -> None:
    async def receive() -> Any:
        raise AssertionError("the body was read")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-length", b"%d" % ((1 << 20) + 1))]
    scope = {"type": "http", "method": "POST", "path": INFER, "raw_path": INFER.encode(), "query_string": b""}
    await serving.worker.app(scope | {"headers": headers}, receive, send)
    reply = Reply(sent[0]["status"], sent[0]["headers"], sent[1]["body"])
    refused(serving, reply, 413, "the limit is 1048576", "body_too_large")
    assert "connection" not in reply.headers  # the server discards what was declared


async def test_a_body_of_undeclared_length_is_cut_at_the_limit(serving: LocalWorker) -> None:
    reply = await serving.request(body=[b"x" * (1 << 19)] * 3, declare=False)
    refused(serving, reply, 413, "exceeds the limit", "body_too_large")
    assert reply.headers["connection"] == "close"


async def test_a_body_in_many_parts_is_one_body(serving: LocalWorker) -> None:
    body = infer_body()
    parts = [body[n : n + 7] for n in range(0, len(body), 7)]
    assert (await serving.request(body=parts)).status == 200


async def test_a_client_that_leaves_while_sending_is_counted_and_nothing_else(serving: LocalWorker) -> None:
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there to be answered")

    scope = {"type": "http", "method": "POST", "path": INFER, "raw_path": INFER.encode(), "query_string": b""}
    await serving.worker.app(scope | {"headers": []}, receive, send)
    assert serving.count("gateway_rejected_requests", "client_closed") == 1
    serving.nothing_happened()


@pytest.mark.parametrize("given", ["", "x" * 129, "tab\there", "ünïcode", "new\nline", "\x7f"])
async def test_an_odd_request_id_is_refused_under_a_fresh_one(serving: LocalWorker, given: str) -> None:
    reply = await serving.request(body=infer_body(), headers=[("x-request-id", given)])
    refused(serving, reply, 400, "x-request-id must be")
    assert len(reply.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    "name", ["x-user-id", "x-request-id", "content-length", "inference-header-content-length", "content-encoding"]
)
async def test_a_header_that_decides_must_not_come_twice(serving: LocalWorker, name: str) -> None:
    headers = [(name, "1"), (name.upper(), "2")]
    reply = await serving.request(body=infer_body(), headers=headers, declare=False)
    refused(serving, reply, 400, f"{name} must not be repeated")


async def test_other_headers_may_come_twice(serving: LocalWorker) -> None:
    assert (await serving.request(body=infer_body(), headers=[("accept", "a"), ("accept", "b")])).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", INFER, 405, "POST"),
        ("PUT", INFER, 405, "POST"),
        ("GET", "/v1/outcomes", 405, "POST"),
        ("POST", "/v2", 405, "GET, HEAD"),
        ("POST", "/v2/models/flight", 405, "GET, HEAD"),
        ("DELETE", "/v2/health/ready", 405, "GET, HEAD"),
        ("POST", "/v2/models/other/infer", 404, ""),
        ("POST", "/v2/models/plain/infer", 404, ""),
        ("GET", "/v2/models/other/ready", 404, ""),
        ("GET", "/v2/models/flight/versions/1/other", 404, ""),
        ("GET", "/v2/models/flight/versions/2", 404, ""),
        ("GET", "/v2/models/flight/versions/..", 400, ""),
        ("POST", "/v2/models/flight/versions/a%2f%2e%2e%2fb/infer", 400, ""),
        ("POST", "/v2/models/flight/versions/2/infer", 404, ""),
        ("GET", "/v2/models/plain/config", 404, ""),
        ("POST", "/v2/models/flight/config", 405, "GET, HEAD"),
        ("GET", "/v2/repository/index", 405, "POST"),
        ("GET", "/v2/models/stats", 501, ""),
        ("GET", "/v2/models/flight/stats", 501, ""),
        ("POST", "/v2/repository/models/flight/load", 501, ""),
        ("POST", "/v2/repository/models/flight/unload", 501, ""),
        ("GET", "/v2/health", 404, ""),
        ("GET", "/v2/" + "x" * 5000, 404, ""),
        ("GET", "/", 404, ""),
        ("GET", "//plain/x", 404, ""),
        ("GET", "/flight/x", 404, ""),
        ("GET", "/plain%2Fx", 404, ""),
        ("POST", "/v1/chat/completions", 400, ""),
        ("POST", "/v1/../chat", 400, ""),
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("GET", "/v1/models/flight", 404, ""),
        ("GET", "/nothing", 404, ""),
        ("GET", "/%00%0d%0a%ff", 404, ""),
        ("GET", "/plain/../x", 400, ""),
        ("GET", "/plain/a/%2e%2E/x", 400, ""),
        ("GET", "/plain/a%2f..%2fx", 400, ""),
        ("GET", "/plain/a\\..\\x", 400, ""),
        ("GET", "/plain/.", 400, ""),
        ("GET", "/plain/..;/x", 400, ""),
        ("GET", "/plain/%2e.%3bv=1/x", 400, ""),
    ],
)
async def test_what_is_not_served_is_said(
    serving: LocalWorker, method: str, path: str, status: int, allow: str
) -> None:
    reply = await serving.request(method, path)
    reason = {400: "bad_request", 404: "unknown_endpoint", 405: "method_not_allowed", 501: "not_supported"}[status]
    refused(serving, reply, status, "", reason)
    assert reply.headers.get("allow", "") == allow
    with_a_form_of_its_own = path.startswith(("/v2", "/v1")) and path != "/v1/outcomes"
    kind = "application/json" if with_a_form_of_its_own else "application/problem+json"
    assert reply.headers["content-type"] == kind


BINARY = {"name": "features", "datatype": "FP32", "shape": [1, 16], "parameters": {"binary_data_size": 64}}


def binary(row: bytes, **fields: Any) -> tuple[bytes, list[tuple[str, str]]]:
    text = document(inputs=[BINARY], **fields)
    return text + row, [("inference-header-content-length", str(len(text)))]


async def test_binary_tensors_are_answered_as_their_json_is(serving: LocalWorker) -> None:
    row = np.array(FLIGHT, "<f4").tobytes()
    (expected,) = (await serving.request(body=infer_body())).json["outputs"]
    body, headers = binary(row, parameters={"binary_data_output": True})
    for reply in [
        await serving.request(body=body, headers=headers),
        await serving.request(body=gzip.compress(body), headers=[*headers, ("content-encoding", "gzip")]),
        await serving.request(body=row, headers=[("inference-header-content-length", "0")]),
    ]:
        assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
        length = int(reply.headers["inference-header-content-length"])
        assert json.loads(reply.body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 4}
        assert np.frombuffer(reply.body[length:], "<f4").tolist() == pytest.approx(expected["data"])


async def test_a_large_answer_is_coded_if_the_client_asks(serving: LocalWorker) -> None:
    body = tensor(shape=[2000, 16], data=FLIGHT * 2000)
    plain = await serving.request(body=body)
    reply = await serving.request(body=body, headers=[("accept-encoding", "gzip")])
    assert reply.headers["content-encoding"] == "gzip"
    assert gzip.decompress(reply.body) == plain.body


async def test_what_is_not_finite_in_binary_data_is_refused_with_its_place(serving: LocalWorker) -> None:
    body, headers = binary(np.array([*FLIGHT[:3], np.nan, *FLIGHT[4:]], "<f4").tobytes())
    reply = await serving.request(body=body, headers=headers)
    refused(serving, reply, 422, "input 'features': element 3 is not finite", "value_rejected")


async def test_an_unknown_content_coding_is_refused_with_those_that_are_known(serving: LocalWorker) -> None:
    reply = await serving.request(body=infer_body(), headers=[("content-encoding", "br")])
    refused(serving, reply, 415, "'br' is not one of gzip, deflate", "unsupported_encoding")
    assert reply.headers["accept-encoding"] == "gzip, deflate"


async def test_a_coded_body_must_not_exceed_the_limit_when_decoded(serving: LocalWorker) -> None:
    body = gzip.compress(bytes((1 << 20) + 1))
    reply = await serving.request(body=body, headers=[("content-encoding", "gzip")])
    refused(serving, reply, 413, "exceeds 1048576 bytes when decoded", "body_too_large")


async def test_before_the_first_plan_everything_but_liveness_is_unavailable(worker: LocalWorker) -> None:
    for method, path in [
        ("POST", INFER),
        ("POST", "/v1/outcomes"),
        ("GET", "/plain/x"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/models/flight"),
    ]:
        reply = await worker.request(method, path)
        assert reply.status == 503
        assert reply.error
        assert reply.headers["retry-after"] == "1"
    assert (await worker.request("GET", "/v2/health/live")).status == 200
    assert worker.count("gateway_rejected_requests", "not_ready") == 5


EXTENSIONS = ["binary_tensor_data", "model_configuration"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2", {"name": "gateway", "version": "0.1.0", "extensions": EXTENSIONS}),
        ("/v2/", {"name": "gateway", "version": "0.1.0", "extensions": EXTENSIONS}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/flight/ready", {"name": "flight", "ready": True}),
        ("/v2/models/flight/versions/1/ready", {"name": "flight", "ready": True}),
        ("/v2/models/fl%69ght/ready", {"name": "flight", "ready": True}),
        (
            "/v2/models/flight",
            {
                "name": "flight",
                "versions": ["1"],
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 16]}],
                "outputs": [{"name": "probability", "datatype": "FP32", "shape": [-1, 1]}],
            },
        ),
        (
            "/v2/models/flight/config",
            {
                "name": "flight",
                "platform": "onnxruntime_onnx",
                "backend": "onnxruntime",
                "max_batch_size": 0,
                "input": [{"name": "features", "data_type": "TYPE_FP32", "dims": [-1, 16]}],
                "output": [{"name": "probability", "data_type": "TYPE_FP32", "dims": [-1, 1]}],
            },
        ),
    ],
)
async def test_health_and_metadata(serving: LocalWorker, path: str, body: dict[str, Any]) -> None:
    for method in ("GET", "HEAD"):
        reply = await serving.request(method, path)
        assert (reply.status, reply.json) == (200, body)
        assert "connection" not in reply.headers


@pytest.mark.parametrize(("body", "more"), [(b"", ["upstream"]), (b"{}", ["upstream"]), (b'{"ready": true}', [])])
async def test_the_repository_lists_models_and_not_plain_endpoints(
    serving: LocalWorker, body: bytes, more: list[str]
) -> None:
    plain = endpoint(http("a", "champion", "http://127.0.0.1:9"), name="plain", protocol="http")
    upstream = endpoint(http("a", "champion", "http://127.0.0.1:9"), name="upstream")
    await serving.publish(plan(endpoint(champion()), plain, upstream, revision=2))
    reply = await serving.request("POST", "/v2/repository/index", body)
    known = {"name": "flight", "version": "1", "state": "READY", "reason": ""}
    assert (reply.status, reply.json) == (200, [known, *({"name": name} for name in more)])


async def test_a_model_name_may_be_percent_encoded(serving: LocalWorker) -> None:
    assert (await serving.request(path="/v2/models/%66light/infer", body=infer_body())).status == 200
    assert (await serving.request(path="/v2/models/flight/versions/1/infer", body=infer_body())).status == 200


async def test_a_draining_worker_is_not_ready_but_answers_and_asks_for_new_connections(serving: LocalWorker) -> None:
    serving.worker.app.draining = True
    ready = await serving.request("GET", "/v2/health/ready")
    assert (ready.status, ready.error) == (503, "draining")
    for reply in [await serving.infer("u"), await serving.request("GET", "/v2/health/live")]:
        assert reply.status == 200
        assert reply.headers["connection"] == "close"
    assert (await serving.request("GET", "/v2/nothing")).headers["connection"] == "close"


async def test_a_request_that_was_under_way_when_draining_began_also_asks(
    serving: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its connection would stay open until the drain ends, and be cut then."""
    app = serving.worker.app
    body = infer_body()
    drained: list[bool] = []

    async def receive() -> Any:
        drained.append(app.draining)
        app.draining = True
        return {"type": "http.request", "body": body, "more_body": False}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": INFER, "raw_path": INFER.encode(), "query_string": b""}
    await app(scope | {"headers": []}, receive, send)
    assert drained == [False]
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_a_bug_of_ours_is_a_500_without_its_details(
    serving: LocalWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("gateway.serving.calls.open_inference.prepare", broken)
    reply = await serving.request(body=infer_body(), headers=[("x-request-id", "abc")])
    assert (reply.status, reply.error) == (500, "the gateway failed")
    assert "secret detail" in caplog.text
    assert serving.page().word(Word.IN_FLIGHT) == 0
