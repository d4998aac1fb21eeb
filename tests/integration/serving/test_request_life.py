"""The life of a request, with real models and a real spool: what the client gets and what is written down."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.assignment.hashing import bucket, salt_key, unit_digest
from gateway.assignment.ranges import owner
from gateway.assignment.token import Signer
from gateway.backends.onnx import OnnxModel
from gateway.errors import GatewayError, SpoolError
from gateway.events import Assignment, Completion
from gateway.plan import SigningKey
from gateway.serving.calls.open_inference import OipCall
from gateway.spool.writer import SpoolWriter
from gateway.telemetry.status_page import Word
from tests.integration.serving.local_worker import (
    KEY,
    PEPPER,
    LocalWorker,
    challenger,
    champion,
    endpoint,
    infer_body,
    onnx,
    plan,
)
from tests.unit.backends import tiny_onnx

pytestmark = pytest.mark.anyio
COMPLETIONS = "gateway_completions"


async def test_an_answer_its_facts_and_its_token(worker: LocalWorker) -> None:
    split = endpoint(champion(), challenger(), share=0.5)
    await worker.publish(plan(split, revision=4))
    headers = [("x-user-id", "user-1"), ("x-origin", "EWR"), ("x-request-id", "abc")]
    reply = await worker.request(body=infer_body(), headers=headers)
    assert reply.status == 200
    assert reply.headers["x-request-id"] == "abc"
    assert reply.json["model_name"] == "flight"
    (output,) = reply.json["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probability", "FP32", [1, 1])
    assert 0 < output["data"][0] < 1

    point = bucket(salt_key("exp-1"), b"user-1")
    (assignment,) = worker.facts(Assignment)
    assert assignment == Assignment(
        decision=7 << 40 | 1,
        at=worker.clock.wall_us(),
        endpoint="flight",
        experiment="exp-1",
        stage="half",
        variant=owner(split.slots, point),
        pi=0.5,
        bucket=point,
        unit=unit_digest(bytes.fromhex(PEPPER), b"user-1"),
        segments=("EWR",),
        revision=4,
    )
    (completion,) = worker.facts(Completion)
    assert (completion.decision, completion.served, completion.end) == (
        assignment.decision,
        assignment.variant,
        "answered",
    )
    assert (completion.status, completion.error) == (200, "")
    token = Signer([KEY]).verify(reply.headers["x-gateway-decision"])
    assert (token.endpoint, token.experiment, token.decision) == ("flight", "exp-1", assignment.decision)
    assert (token.assigned_at, token.bucket) == (assignment.at, point)
    assert worker.count(COMPLETIONS, "flight", "exp-1", assignment.variant, "ok") == 1
    assert worker.count("gateway_responses", "flight", "200") == 1


async def test_the_assignment_is_in_the_spool_before_the_backend_is_called(
    worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.publish(plan(endpoint(champion())))
    infer = OnnxModel.infer
    seen: list[tuple[int, int]] = []

    async def looking(model: OnnxModel, *args: Any) -> Any:
        seen.append((len(worker.facts(Assignment)), len(worker.facts(Completion))))
        return await infer(model, *args)

    monkeypatch.setattr(OnnxModel, "infer", looking)
    await worker.infer("u")
    await worker.infer("u")
    assert seen == [(1, 0), (2, 1)]
    assert len(worker.facts(Completion)) == 2


async def test_the_completion_follows_the_last_byte(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion())))
    at_send: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": infer_body(), "more_body": False}

    async def send(message: Any) -> None:
        at_send.append(len(worker.facts(Completion)))
        worker.clock.advance(0.5)

    path = "/v2/models/flight/infer"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    await worker.worker.app(scope | {"headers": []}, receive, send)
    assert at_send == [0, 0]
    (completion,) = worker.facts(Completion)
    assert (completion.first_byte_us, completion.total_us) == (0, 1_000_000)


async def test_a_unit_keeps_its_variant_and_units_split_as_planned(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion(), challenger(), share=0.3)))
    for user in range(400):
        await worker.infer(f"user-{user}")
        await worker.infer(f"user-{user}")
    assignments = worker.facts(Assignment)
    pairs = list(zip(assignments[::2], assignments[1::2], strict=True))
    assert all(first.variant == second.variant for first, second in pairs)
    drawn = sum(first.variant == "boosted" for first, _ in pairs)
    assert abs(drawn - 120) < 5 * (400 * 0.3 * 0.7) ** 0.5
    assert [a.decision for a in assignments] == [7 << 40 | n for n in range(1, 801)]
    assert {round(a.pi, 12) for a in assignments} == {0.3, 0.7}


async def test_without_a_unit_the_request_id_draws_so_a_retry_meets_the_same_variant(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion(), challenger(), share=0.5)))
    for number in range(20):
        for _ in range(2):
            await worker.request(body=infer_body(), headers=[("x-request-id", f"id-{number}")])
    assignments = worker.facts(Assignment)
    pairs = list(zip(assignments[::2], assignments[1::2], strict=True))
    assert all((a.bucket, a.variant, a.unit) == (b.bucket, b.variant, b.unit) for a, b in pairs)
    assert {a.variant for a in assignments} == {"logistic", "boosted"}


async def test_an_empty_unit_is_no_unit(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion())))
    for number in range(2):
        headers = [("x-user-id", ""), ("x-request-id", f"id-{number}")]
        await worker.request(body=infer_body(), headers=headers)
    assert len({a.bucket for a in worker.facts(Assignment)}) == 2


async def test_a_unit_of_any_bytes_is_hashed_as_it_came(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion())))
    reply = await worker.request(body=infer_body(), headers=[("x-user-id", b"j\xfcrgen\xff"), ("x-origin", b"\xff")])
    assert reply.status == 200
    (assignment,) = worker.facts(Assignment)
    assert assignment.bucket == bucket(salt_key("exp-1"), b"j\xfcrgen\xff")
    assert assignment.segments == ("other",)


async def test_unit_ids_are_written_nowhere(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion())))
    await worker.infer("secret-user-name")
    files = [path for path in worker.data_dir.rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not any(b"secret-user-name" in path.read_bytes() for path in files)


async def test_a_failing_challenger_is_answered_for_by_the_champion_in_view(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion(), challenger("crashing"), share=1)))
    reply = await worker.infer("u")
    assert reply.status == 200
    await worker.publish(plan(endpoint(champion()), revision=2))
    assert (await worker.infer("u")).json == reply.json
    assignment, _ = worker.facts(Assignment)
    completion, _ = worker.facts(Completion)
    assert assignment.variant == "crashing"
    assert (completion.served, completion.error, completion.status, completion.end) == (
        "logistic",
        "failed",
        200,
        "answered",
    )
    assert worker.count(COMPLETIONS, "flight", "exp-1", "crashing", "error") == 1
    assert worker.count("gateway_attempt_errors", "flight", "crashing", "failed") == 1
    assert worker.count("gateway_fallbacks", "flight", "crashing") == 1
    assert worker.count(COMPLETIONS, "flight", "exp-1", "logistic", "ok") == 1  # only the second request
    assert worker.count(COMPLETIONS, "flight", "exp-1", "logistic", "error") == 0


async def test_output_that_is_no_number_counts_against_the_challenger(worker: LocalWorker, tmp_path: Path) -> None:
    nan = onnx("nan", "challenger", tiny_onnx.logarithm(tmp_path / "nan.onnx"))
    await worker.publish(plan(endpoint(champion(), nan, share=1)))
    reply = await worker.request(body=infer_body(data=[-1.0] * 16))
    assert reply.status == 200
    (completion,) = worker.facts(Completion)
    assert (completion.served, completion.error) == ("logistic", "output")


async def test_a_hanging_challenger_is_given_up_at_its_deadline(worker: LocalWorker, tmp_path: Path) -> None:
    hang = onnx("hang", "challenger", tiny_onnx.hanging(tmp_path / "hang.onnx"), timeout=0.1)
    await worker.publish(plan(endpoint(champion(), hang, share=1)))
    started = asyncio.get_running_loop().time()
    reply = await worker.infer("u")
    assert 0.09 <= asyncio.get_running_loop().time() - started < 1.0
    assert reply.status == 200
    (completion,) = worker.facts(Completion)
    assert (completion.served, completion.error) == ("logistic", "deadline")


@pytest.mark.parametrize(
    ("build", "status", "kind"), [(tiny_onnx.hanging, 504, "deadline"), (tiny_onnx.logarithm, 502, "output")]
)
async def test_nobody_answers_for_the_champion(
    worker: LocalWorker, tmp_path: Path, build: Any, status: int, kind: str
) -> None:
    bad = onnx("bad", "champion", build(tmp_path / "bad.onnx"), timeout=0.05)
    await worker.publish(plan(endpoint(bad)))
    value = 1.0 if status == 504 else -1.0
    reply = await worker.request(body=infer_body(data=[value] * 16))
    assert reply.status == status
    assert reply.error
    (completion,) = worker.facts(Completion)
    assert (completion.end, completion.status, completion.error, completion.served) == ("failed", status, kind, "bad")
    assert worker.count("gateway_responses", "flight", str(status)) == 1
    assert worker.count(COMPLETIONS, "flight", "exp-1", "bad", "error") == 1


async def test_when_both_fail_the_challenger_is_charged_with_its_own_error(worker: LocalWorker, tmp_path: Path) -> None:
    hang = onnx("hang", "champion", tiny_onnx.hanging(tmp_path / "hang.onnx"), timeout=0.05)
    await worker.publish(plan(endpoint(hang, challenger("crashing"), share=1)))
    reply = await worker.infer("u")
    assert reply.status == 504
    (completion,) = worker.facts(Completion)
    assert (completion.status, completion.error, completion.served) == (504, "failed", "crashing")


async def test_the_breaker_opens_after_three_and_every_refusal_counts_against_the_assigned(
    worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.publish(plan(endpoint(champion(), challenger("crashing"), share=1)))
    asked: list[str] = []
    attempt = OipCall.attempt

    async def watched(call: OipCall, variant: Any, deadline: float) -> Any:
        asked.append(variant.name)
        return await attempt(call, variant, deadline)

    monkeypatch.setattr(OipCall, "attempt", watched)
    for number in range(5):
        assert (await worker.infer(str(number))).status == 200
    assert asked.count("crashing") == 3
    assert [c.error for c in worker.facts(Completion)] == ["failed"] * 3 + ["breaker"] * 2
    assert {c.served for c in worker.facts(Completion)} == {"logistic"}
    assert worker.count(COMPLETIONS, "flight", "exp-1", "crashing", "error") == 5
    assert worker.count("gateway_breaker_opened", "flight", "crashing") == 1
    worker.clock.advance(5)
    await worker.infer("probe")
    await worker.infer("after")
    assert asked.count("crashing") == 4
    assert worker.count("gateway_breaker_opened", "flight", "crashing") == 2


async def test_a_request_that_is_cancelled_leaves_a_completion_and_no_trace_else(
    worker: LocalWorker, tmp_path: Path
) -> None:
    hang = onnx("hang", "challenger", tiny_onnx.hanging(tmp_path / "hang.onnx"), timeout=60)
    await worker.publish(plan(endpoint(champion(), hang, share=1)))
    task = asyncio.ensure_future(worker.infer("u"))
    while not worker.facts(Assignment):
        await asyncio.sleep(0)
    worker.clock.advance(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (completion,) = worker.facts(Completion)
    assert (completion.end, completion.error, completion.served) == ("client_closed", "", "hang")
    assert completion.first_byte_us == completion.total_us == 2_000_000  # not a fast answer
    assert worker.page().word(Word.IN_FLIGHT) == 0
    table = worker.worker.app.table
    assert table is not None
    assert table.in_flight == 0
    breaker = table.endpoints["flight"].variants["hang"].breaker
    assert repr(breaker) == "<Breaker closed, 0 failures, 0 out>"


async def test_a_client_that_cannot_be_answered_any_more_is_not_answered_twice(
    worker: LocalWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """The server refuses our answer when its head is out: a second head would be worse than a cut."""
    await worker.publish(plan(endpoint(champion())))
    sent: list[str] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": infer_body(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message["type"])
        raise RuntimeError("Invalid HTTP header value.")

    path = "/v2/models/flight/infer"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    with pytest.raises(GatewayError):  # for the server to cut it
        await worker.worker.app(scope | {"headers": []}, receive, send)
    assert sent == ["http.response.start"]
    (completion,) = worker.facts(Completion)
    assert (completion.end, completion.error) == ("failed", "internal")
    assert worker.page().word(Word.IN_FLIGHT) == 0
    assert "request failed" in caplog.text


async def test_a_full_disk_loses_facts_in_view_but_no_request(
    worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.publish(plan(endpoint(champion())))
    append = SpoolWriter.append

    def full(*_: object) -> None:
        raise SpoolError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(SpoolWriter, "append", full)
        assert (await worker.infer("u")).status == 200
        await worker.worker.poll()  # heartbeats fail too
    assert SpoolWriter.append is append
    assert worker.count("gateway_spool_failures", "requests") == 2
    assert not worker.facts(Assignment)
    assert (await worker.infer("u")).status == 200
    assert len(worker.facts(Assignment)) == 1


async def test_tokens_are_signed_with_the_first_key(worker: LocalWorker) -> None:
    new = SigningKey(id=9, secret="33" * 32)
    await worker.publish(plan(endpoint(champion()), keys=(new, KEY)))
    token = (await worker.infer("u")).headers["x-gateway-decision"]
    assert Signer([new]).verify(token).decision == 7 << 40 | 1
