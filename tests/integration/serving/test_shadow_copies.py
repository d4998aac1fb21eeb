"""Shadow copies: every other variant sees the request, nobody waits for it, and nothing else hears of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.assignment.hashing import bucket, shadow_key
from gateway.backends.onnx import OnnxModel
from gateway.clock import FakeClock
from gateway.errors import OutOfDescriptors, SpoolError
from gateway.events import Assignment, Completion, Shadow
from gateway.plan import HASH_SPACE, CapturePlan, EndpointPlan
from gateway.serving import shadow
from gateway.serving.calls.open_inference import OipCall
from gateway.spool.writer import SpoolWriter
from gateway.worker import Worker
from tests.integration.backends.upstream import Peer, Upstream, answer, echoing, silent
from tests.integration.serving.local_worker import (
    LocalWorker,
    challenger,
    champion,
    endpoint,
    http,
    infer_body,
    onnx,
    plan,
    until,
)
from tests.unit.backends import tiny_onnx

pytestmark = pytest.mark.anyio
COPIES = "gateway_shadow_requests"
OK = echoing(answer(b'{"outputs":[{"name":"probability","datatype":"FP32","shape":[1,1],"data":[0.125]}]}'))
BAD = echoing(answer(b"broken", status=b"503 Service Unavailable"))
REFUSED = "http://127.0.0.1:1"  # nobody listens on port 1


def shadowed(*variants: object, share: float | str = 0, **more: Any) -> EndpointPlan:
    given: dict[str, Any] = {"shadow": HASH_SPACE, "capture": CapturePlan(output="probability")}
    return endpoint(*variants, share=share, **(given | more))  # type: ignore[arg-type]


def under_way(worker: LocalWorker) -> int:
    """Copies that have not ended, each of which holds on to its table."""
    return len(worker.worker._shadows._copies)


async def copied(worker: LocalWorker, count: int = 1) -> list[Shadow]:
    """What copies left, once there are so many."""
    await until(lambda: len(worker.facts(Shadow)) >= count and not under_way(worker))
    facts = worker.facts(Shadow)
    assert len(facts) == count
    return facts


async def test_who_did_not_answer_sees_the_request_whichever_way_round(worker: LocalWorker) -> None:
    await worker.publish(plan(shadowed(champion(), challenger(), share=0.5)))
    for name in ("logistic", "boosted"):
        assert (await worker.infer(worker.user_of(name))).status == 200
    first, second = await copied(worker, 2)
    completions = worker.facts(Completion)
    assert [fact.served for fact in completions] == ["logistic", "boosted"]
    assert [(fact.decision, fact.variant) for fact in (first, second)] == [
        (completions[0].decision, "boosted"),
        (completions[1].decision, "logistic"),
    ]
    # The same request, so either way the two say the same of it; and they are two models.
    assert (first.prediction, second.prediction) == (completions[1].prediction, completions[0].prediction)
    assert None not in (first.prediction, second.prediction)
    assert first.prediction != second.prediction
    assert (first.error, second.error) == ("", "")
    assert first.at == worker.clock.wall_us()
    for name in ("logistic", "boosted"):
        assert worker.count(COPIES, "flight", name, "ok") == 1


async def test_copies_are_no_requests_of_a_client(worker: LocalWorker) -> None:
    """Neither counters nor the breaker, from which the kill rule and the probe draw their conclusions."""
    await worker.publish(plan(shadowed(champion(), challenger("crashing"))))
    for number in range(5):
        assert (await worker.infer(str(number))).status == 200
    facts = await copied(worker, 5)
    assert {(fact.variant, fact.error, fact.prediction) for fact in facts} == {("crashing", "failed", None)}
    assert worker.count(COPIES, "flight", "crashing", "error") == 5
    assert len(worker.facts(Completion)) == len(worker.facts(Assignment)) == 5
    for result in ("ok", "error"):
        assert worker.count("gateway_completions", "flight", "exp-1", "crashing", result) == 0
    assert worker.count("gateway_attempt_errors", "flight", "crashing", "failed") == 0
    assert worker.count("gateway_unread_predictions", "flight", "crashing") == 0
    table = worker.worker.app.table
    assert table is not None
    assert table.in_flight == 0
    assert repr(table.endpoints["flight"].variants["crashing"].breaker) == "<Breaker closed, 0 failures, 0 out>"


async def test_units_are_drawn_by_a_hash_of_their_own(worker: LocalWorker) -> None:
    width = HASH_SPACE // 4
    await worker.publish(plan(shadowed(champion(), challenger(), share=0.5, shadow=width)))
    users = [f"user-{number}" for number in range(60)]
    drawn = {user for user in users if bucket(shadow_key("exp-1"), user.encode()) < width}
    assert 5 < len(drawn) < 30
    decisions = set()
    for user in users * 2:
        await worker.infer(user)
        if user in drawn:
            decisions.add(worker.facts(Assignment)[-1].decision)
    assert {fact.decision for fact in await copied(worker, 2 * len(drawn))} == decisions


async def test_of_several_challengers_all_others_see_it(worker: LocalWorker) -> None:
    """Also with no traffic of their own yet."""
    await worker.publish(plan(shadowed(champion(), challenger(), challenger("twin"), share=1)))
    await worker.infer("u")
    assert {fact.variant for fact in await copied(worker, 2)} == {"logistic", "twin"}


async def test_who_failed_is_not_asked_again_when_the_champion_answered_in_its_place(worker: LocalWorker) -> None:
    await worker.publish(plan(shadowed(champion(), challenger("crashing"), challenger("twin"), share=1)))
    await worker.infer("u")
    (completion,) = worker.facts(Completion)
    assert (completion.served, completion.error) == ("logistic", "failed")
    (fact,) = await copied(worker)
    assert fact.variant == "twin"


async def test_what_no_variant_was_asked_or_none_answered_is_not_copied(worker: LocalWorker, tmp_path: Path) -> None:
    bad = onnx("bad", "champion", tiny_onnx.logarithm(tmp_path / "bad.onnx"))
    await worker.publish(plan(shadowed(bad, challenger())))
    assert (await worker.request(body=b"{")).status == 400
    assert (await worker.request(body=infer_body(data=[-1.0] * 16))).status == 502
    assert not under_way(worker)


async def test_a_copy_begins_when_the_answer_has_left(worker: LocalWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    await worker.publish(plan(shadowed(champion(), challenger())))
    steps: list[str] = []
    infer = OnnxModel.infer

    async def watched(model: OnnxModel, *args: Any) -> Any:
        steps.append("infer")
        return await infer(model, *args)

    async def receive() -> Any:
        return {"type": "http.request", "body": infer_body(), "more_body": False}

    async def send(message: Any) -> None:
        for _ in range(5):
            await asyncio.sleep(0)  # a chance to begin too early
        steps.append(message["type"])

    monkeypatch.setattr(OnnxModel, "infer", watched)
    path = "/v2/models/flight/infer"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    await worker.worker.app(scope | {"headers": []}, receive, send)
    await copied(worker)
    assert steps == ["infer", "http.response.start", "http.response.body", "infer"]


async def test_clients_do_not_wait_for_a_shadow_that_hangs(worker: LocalWorker) -> None:
    async with Upstream(silent) as upstream:
        dead = http("dead", "challenger", f"http://{upstream.authority}", timeout=600, idempotent=True)
        await worker.publish(plan(shadowed(champion(), dead)))
        for number in range(10):
            async with asyncio.timeout(1):
                assert (await worker.infer(str(number))).status == 200
        await until(lambda: len(upstream.requests) == 10)
        assert under_way(worker) == 10
        assert not worker.facts(Shadow)
        assert len(worker.facts(Completion)) == 10


async def test_a_shadow_is_given_up_at_its_variants_deadline(worker: LocalWorker, tmp_path: Path) -> None:
    hang = onnx("hang", "challenger", tiny_onnx.hanging(tmp_path / "hang.onnx"), timeout=0.1)
    async with Upstream(silent) as upstream:
        dead = http("dead", "challenger", f"http://{upstream.authority}", timeout=0.05, idempotent=True)
        await worker.publish(plan(shadowed(champion(), hang, dead)))
        await worker.infer("u")
        facts = await copied(worker, 2)
    assert {(fact.variant, fact.error) for fact in facts} == {("hang", "deadline"), ("dead", "deadline")}


def gated(gate: asyncio.Event) -> Callable[[Peer], Awaitable[None]]:
    """An upstream that answers nobody before the gate opens."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await gate.wait()
            await peer.send(answer())

    return script


async def test_beyond_so_many_copies_the_next_are_dropped_and_counted(worker: LocalWorker) -> None:
    gate = asyncio.Event()
    async with Upstream(gated(gate)) as upstream:
        slow = http("slow", "challenger", f"http://{upstream.authority}", timeout=60, idempotent=True)
        await worker.publish(plan(shadowed(champion(), slow)))
        for number in range(shadow.MOST + 5):
            assert (await worker.infer(str(number))).status == 200
        await until(lambda: len(upstream.requests) == shadow.MOST)
        assert worker.count(COPIES, "flight", "slow", "dropped") == 5
        assert not worker.facts(Shadow)
        gate.set()
        facts = await copied(worker, shadow.MOST)
        assert [fact.decision for fact in worker.facts(Assignment)][: shadow.MOST] == sorted(f.decision for f in facts)
        await worker.infer("after")
        await copied(worker, shadow.MOST + 1)
    assert worker.count(COPIES, "flight", "slow", "ok") == shadow.MOST + 1
    assert worker.count(COPIES, "flight", "slow", "dropped") == 5
    # None of these answers holds a prediction: said, not silent.
    assert worker.count("gateway_unread_predictions", "flight", "slow") == shadow.MOST + 1


async def test_clients_of_a_model_wait_behind_one_copy_at_most(
    worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.publish(plan(shadowed(champion(), challenger())))
    gate, inside, most = asyncio.Event(), 0, 0
    copy = OipCall.copy

    async def slow(call: OipCall, *args: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await gate.wait()
        try:
            return await copy(call, *args)
        finally:
            inside -= 1

    monkeypatch.setattr(OipCall, "copy", slow)
    for number in range(6):
        await worker.infer(str(number))
    await until(lambda: inside == 1)
    assert under_way(worker) == 6
    gate.set()
    await copied(worker, 6)
    assert most == 1


async def test_a_copy_whose_turn_does_not_come_is_dropped_not_failed(worker: LocalWorker, tmp_path: Path) -> None:
    hang = onnx("hang", "challenger", tiny_onnx.hanging(tmp_path / "hang.onnx"), timeout=0.1)
    await worker.publish(plan(shadowed(champion(), hang)))
    table = worker.worker.app.table
    assert table is not None
    model = table.endpoints["flight"].variants["hang"].backend
    assert isinstance(model, OnnxModel)
    async with model.aside:
        await worker.infer("u")
        await until(lambda: not under_way(worker))
    assert worker.count(COPIES, "flight", "hang", "dropped") == 1
    assert not worker.facts(Shadow)


async def test_an_upstream_is_told_and_gets_what_the_client_sent(worker: LocalWorker) -> None:
    async with Upstream(OK) as first, Upstream(OK) as second:
        one = http("one", "champion", f"http://{first.authority}/a", idempotent=True)
        other = http("other", "challenger", f"http://{second.authority}/b", idempotent=True)
        await worker.publish(plan(shadowed(one, other)))
        await worker.infer("u")
        (fact,) = await copied(worker)
    assert (fact.variant, fact.error, fact.prediction) == ("other", "", 0.125)
    (asked,), (copy,) = first.requests, second.requests
    assert copy.line == asked.line.replace(b"/a/", b"/b/")
    assert copy.body == asked.body == infer_body()
    headers = [(name, value) for name, value in copy.headers if name not in (b"host", b"x-gateway-shadow")]
    assert headers == [(name, value) for name, value in asked.headers if name != b"host"]
    assert copy.headers.count((b"x-gateway-shadow", b"1")) == 1
    assert b"x-gateway-shadow" not in asked.names()


async def test_a_client_cannot_pass_for_a_shadow(worker: LocalWorker) -> None:
    async with Upstream(OK) as upstream:
        await worker.publish(plan(endpoint(http("one", "champion", f"http://{upstream.authority}"))))
        await worker.infer("u")
        await worker.request(body=infer_body(), headers=[("x-gateway-shadow", "1"), ("x_gateway_shadow", "1")])
    assert [request.names()[0] for request in upstream.requests] == [b"host"] * 2
    assert not any(b"shadow" in name for request in upstream.requests for name in request.names())


@pytest.mark.parametrize(
    ("method", "idempotent", "copies"),
    [("GET", False, 1), ("HEAD", False, 1), ("OPTIONS", False, 1), ("POST", True, 1), ("PUT", True, 1)]
    + [(method, False, 0) for method in ("POST", "PUT", "PATCH", "DELETE")],
)
async def test_an_upstream_is_asked_twice_only_where_that_is_declared_safe(
    worker: LocalWorker, method: str, idempotent: bool, copies: int
) -> None:
    async with Upstream(OK) as upstream:
        url = f"http://{upstream.authority}"
        variants = (http("a", "champion", url), http("b", "challenger", url, idempotent=idempotent))
        await worker.publish(plan(shadowed(*variants, name="plain", protocol="http", capture=None)))
        body = b"{}" if method == "POST" else b""
        assert (await worker.request(method, "/plain/x", body=body)).status == 200
        assert under_way(worker) == copies
        await copied(worker, copies)
    assert len(upstream.requests) == 1 + copies


@pytest.mark.parametrize(("script", "error"), [(BAD, "status"), (None, "connect")])
async def test_what_goes_wrong_is_in_the_fact(
    worker: LocalWorker, script: Callable[[Peer], Awaitable[None]] | None, error: str
) -> None:
    async with Upstream(script or silent) as upstream:
        url = f"http://{upstream.authority}" if script else REFUSED
        await worker.publish(plan(shadowed(champion(), http("b", "challenger", url, idempotent=True))))
        await worker.infer("u")
        (fact,) = await copied(worker)
    assert (fact.error, fact.prediction) == (error, None)
    assert worker.count(COPIES, "flight", "b", "error") == 1
    assert worker.count("gateway_unread_predictions", "flight", "b") == (script is not None)


async def test_our_own_fault_is_logged_and_ends_no_more_than_the_copy(
    worker: LocalWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ValueError("a line break inside a header")

    await worker.publish(plan(shadowed(champion(), challenger())))
    monkeypatch.setattr(OipCall, "copy", broken)
    assert (await worker.infer("u")).status == 200
    (fact,) = await copied(worker)
    assert fact.error == "internal"
    assert "shadow copy failed" in caplog.text


async def test_the_time_of_a_copy_is_its_own(worker: LocalWorker) -> None:
    gate = asyncio.Event()
    async with Upstream(gated(gate)) as upstream:
        slow = http("slow", "challenger", f"http://{upstream.authority}", idempotent=True)
        await worker.publish(plan(shadowed(champion(), slow)))
        await worker.infer("u")
        await until(lambda: upstream.requests)
        worker.clock.advance(1.5)
        gate.set()
        (fact,) = await copied(worker)
    assert fact.total_us == 1_500_000
    assert worker.facts(Completion)[0].total_us == 0


async def test_a_full_disk_loses_the_fact_in_view(worker: LocalWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    def full(*_: object) -> None:
        raise SpoolError("disk full")

    async with Upstream(gated(gate)) as upstream:
        slow = http("slow", "challenger", f"http://{upstream.authority}", idempotent=True)
        await worker.publish(plan(shadowed(champion(), slow)))
        await worker.infer("u")
        with monkeypatch.context() as patch:
            patch.setattr(SpoolWriter, "append", full)
            gate.set()
            await until(lambda: not under_way(worker))
    assert worker.count("gateway_spool_failures", "requests") == 1
    assert not worker.facts(Shadow)


async def test_a_plan_that_drops_a_variant_waits_for_its_copies(worker: LocalWorker) -> None:
    gate = asyncio.Event()
    async with Upstream(gated(gate)) as upstream:
        slow = http("slow", "challenger", f"http://{upstream.authority}", idempotent=True)
        await worker.publish(plan(shadowed(champion("twin"), slow), revision=1))
        await worker.infer("u")
        await until(lambda: upstream.requests)
        await worker.publish(plan(endpoint(champion()), revision=2))
        assert models() == {"onnx twin", "onnx logistic"}
        gate.set()
        (fact,) = await copied(worker)
        assert fact.error == ""
    await worker.worker.poll()
    await until(lambda: models() == {"onnx logistic"})


def models() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("onnx ")}


async def test_a_worker_that_leaves_leaves_no_copy_behind(tmp_path: Path) -> None:
    for folder in ("spool", "status"):
        (tmp_path / folder).mkdir()
    worker = Worker(tmp_path, 7, clock := FakeClock())
    local = LocalWorker(tmp_path, clock, worker)
    hang = onnx("hang", "challenger", tiny_onnx.hanging(tmp_path / "hang.onnx"), timeout=600)
    async with Upstream(silent) as upstream:
        dead = http("dead", "challenger", f"http://{upstream.authority}", timeout=600, idempotent=True)
        await local.publish(plan(shadowed(champion(), hang, dead)))
        for number in range(3):
            await local.infer(str(number))
        await until(lambda: len(upstream.requests) == 3)
        await local.infer("whose copies have not even begun")
        others = upstream._tasks | {asyncio.current_task()}
        async with asyncio.timeout(5):
            await worker.close()
        assert not [task for task in asyncio.all_tasks() if task not in others and "Shadows" in repr(task.get_coro())]
        await until(lambda: not models())  # the run in the process was told to end, too
        await until(lambda: upstream.open == 0)
    assert not local.facts(Shadow)
    assert len(local.facts(Completion)) == 4
    for name in ("hang", "dead"):
        assert local.count(COPIES, "flight", name, "dropped") == 4


async def test_nothing_is_copied_once_it_leaves(worker: LocalWorker) -> None:
    await worker.publish(plan(shadowed(champion(), challenger())))
    await worker.worker._shadows.close()
    assert (await worker.infer("u")).status == 200
    assert not under_way(worker)
    assert worker.count(COPIES, "flight", "boosted", "dropped") == 1


async def test_a_copy_for_which_there_is_no_room_is_dropped_and_no_error(
    worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Upstream(OK) as upstream:
        url = f"http://{upstream.authority}"
        variants = http("a", "champion", url), http("b", "challenger", url, idempotent=True)
        await worker.publish(plan(shadowed(*variants)))
        table = worker.worker.app.table
        assert table is not None

        async def full(*_: object, **__: object) -> None:
            raise OutOfDescriptors("no room")

        monkeypatch.setattr(table.endpoints["flight"].variants["b"].backend, "call", full)
        await worker.infer()
        await until(lambda: worker.count(COPIES, "flight", "b", "dropped") == 1)
    assert not worker.facts(Shadow)
