"""New plans take over between two requests; whatever is wrong with one, the last good one serves on."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import plan as plans
from gateway.backends import tls
from gateway.backends.base import Request
from gateway.backends.onnx import ModelError, digest
from gateway.backends.onnx import load as onnx_load
from gateway.backends.upstream import Upstream
from gateway.events import Assignment, Heartbeat
from gateway.memory import resident
from gateway.plan import KeptPlan, Plan, PreparedPlan, Slot, VariantPlan
from gateway.serving.tables import loading
from gateway.serving.tables.table import Table
from gateway.telemetry.status_page import LOAD_FAILURES, Word
from tests.integration.serving.local_worker import (
    MODELS,
    LocalWorker,
    challenger,
    champion,
    endpoint,
    http,
    onnx,
    plan,
    until,
)
from tests.unit.backends import tiny_onnx

pytestmark = pytest.mark.anyio


def table_of(worker: LocalWorker) -> Table:
    table = worker.worker.app.table
    assert table is not None
    return table


def models() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("onnx ")}


async def test_a_new_plan_takes_over_between_two_requests(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion(), challenger(), share=0), revision=1))
    await worker.infer("u")
    await worker.publish(plan(endpoint(champion(), challenger(), share=1), revision=2))
    await worker.infer("u")
    assert [(a.variant, a.revision) for a in worker.facts(Assignment)] == [("logistic", 1), ("boosted", 2)]
    assert worker.page().word(Word.PLAN_REVISION) == 2


async def test_certificates_are_read_beside_the_loop_and_once(
    worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[threading.Thread] = []
    read = ssl.create_default_context

    def seen(**options: Any) -> ssl.SSLContext:
        readers.append(threading.current_thread())
        return read(**options)

    monkeypatch.setattr(ssl, "create_default_context", seen)
    tls._made.cache_clear()
    upstreams = http("a", "champion", "https://127.0.0.1:1"), http("b", "challenger", "https://127.0.0.1:2")
    await worker.publish(plan(endpoint(*upstreams, protocol="http")))
    assert list(table_of(worker).endpoints["flight"].variants) == ["a", "b"]
    assert len(readers) == 1
    assert readers[0] is not threading.main_thread()


async def test_what_did_not_change_is_taken_over(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion(), challenger("crashing"), share=1), revision=1))
    before = table_of(worker).endpoints["flight"]
    await worker.infer("u")
    await worker.publish(plan(endpoint(champion(), challenger("crashing"), share=0.5), revision=2))
    after = table_of(worker).endpoints["flight"]
    assert after is not before
    for name in ("logistic", "crashing"):
        assert after.variants[name].backend is before.variants[name].backend
        assert after.variants[name].breaker is before.variants[name].breaker
    assert repr(after.variants["crashing"].breaker) == "<Breaker closed, 1 failures, 0 out>"


async def test_an_upstream_that_may_be_asked_again_from_now_on_is_another(worker: LocalWorker) -> None:
    post = Request(b"POST", b"/", [])
    said = []
    for revision, idempotent in enumerate((False, True, True), 1):
        upstream = http("a", "champion", "http://127.0.0.1:1", idempotent=idempotent)
        await worker.publish(plan(endpoint(upstream, protocol="http"), revision=revision))
        backend = table_of(worker).endpoints["flight"].champion.backend
        assert isinstance(backend, Upstream)
        said.append(backend)
    assert [backend.may_repeat(post) for backend in said] == [False, True, True]
    assert said[1] is said[2]


async def test_a_promoted_challenger_keeps_its_model_and_loses_its_breaker(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion(), challenger(), share=0.5), revision=1))
    backend = table_of(worker).endpoints["flight"].variants["boosted"].backend
    await worker.publish(plan(endpoint(champion("boosted")), revision=2))
    promoted = table_of(worker).endpoints["flight"].champion
    assert promoted.backend is backend
    assert promoted.breaker is None
    await until(lambda: models() == {"onnx boosted"})


async def test_an_old_model_is_closed_only_after_its_last_request(worker: LocalWorker, tmp_path: Path) -> None:
    slow = onnx("slow", "champion", tiny_onnx.hanging(tmp_path / "slow.onnx"), timeout=0.4)
    await worker.publish(plan(endpoint(slow), revision=1))
    under_way = asyncio.ensure_future(worker.infer("u"))
    while not worker.facts(Assignment):
        await asyncio.sleep(0)
    old = table_of(worker)
    for revision in (2, 3):  # a row of plans must not make it forget the oldest
        await worker.publish(plan(endpoint(champion()), revision=revision))
        assert (await worker.infer("u")).status == 200
    assert old.in_flight == 1
    assert models() == {"onnx slow", "onnx logistic"}
    assert (await under_way).status == 504
    await worker.worker.poll()
    await until(lambda: models() == {"onnx logistic"})


async def test_old_tables_do_not_wait_for_each_other(worker: LocalWorker, tmp_path: Path) -> None:
    """Under steady traffic some table always has a request in flight; the others' models must still go."""
    slow = onnx("slow", "champion", tiny_onnx.hanging(tmp_path / "slow.onnx"), timeout=60)
    await worker.publish(plan(endpoint(champion("twin")), revision=1))
    await worker.publish(plan(endpoint(slow), revision=2))
    under_way = asyncio.ensure_future(worker.infer("u"))
    while not worker.facts(Assignment):
        await asyncio.sleep(0)
    await worker.publish(plan(endpoint(champion()), revision=3))
    await until(lambda: models() == {"onnx slow", "onnx logistic"})
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way


async def test_twenty_swaps_under_load_leave_one_model_its_memory_and_no_descriptor(
    worker: LocalWorker, tmp_path: Path
) -> None:
    size = 8 << 20
    others = models()  # of tests before this one, whose models hang

    async def swap_to(number: int) -> None:
        path = tiny_onnx.heavy(tmp_path / f"m{number}.onnx", size)
        under_way = [asyncio.ensure_future(worker.infer(f"u{n}")) for n in range(8)]
        await worker.publish(plan(endpoint(onnx(f"m{number}", "champion", path)), revision=2 + number))
        assert [(await answer).status for answer in under_way] == [200] * 8
        path.unlink()
        await worker.worker.poll()
        await until(lambda: models() - others == {f"onnx m{number}"})

    await worker.publish(plan(endpoint(champion()), revision=1))
    await swap_to(0)
    descriptors, memory = len(os.listdir("/proc/self/fd")), resident()
    for number in range(1, 21):
        await swap_to(number)
    await until(lambda: resident() < memory + 5 * size, "twenty models later there is little more than the first")
    assert len(os.listdir("/proc/self/fd")) == descriptors


def bad_model(tmp_path: Path) -> VariantPlan:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not a model")
    return onnx("bad", "challenger", path)


def other_digest(_: Path) -> VariantPlan:
    return VariantPlan(name="b", role="challenger", timeout=1, onnx=str(MODELS / "boosted.onnx"), digest="00" * 32)


def missing(_: Path) -> VariantPlan:
    return VariantPlan(name="b", role="challenger", timeout=1, onnx="/nowhere/m.onnx", digest="00" * 32)


def other_signature(tmp_path: Path) -> VariantPlan:
    return onnx("b", "challenger", tiny_onnx.largest(tmp_path / "m.onnx", features=3))


def bad_url(_: Path) -> VariantPlan:
    return http("b", "challenger", "ftp://x")


@pytest.mark.parametrize("build", [bad_model, other_digest, missing, other_signature, bad_url])
async def test_a_plan_that_cannot_be_served_is_refused_and_the_old_one_stays(
    worker: LocalWorker, tmp_path: Path, build: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await worker.publish(plan(endpoint(champion()), revision=1))
    old = table_of(worker)
    await worker.publish(plan(endpoint(champion(), build(tmp_path), share=1), revision=2))
    assert table_of(worker) is old
    assert (await worker.infer("u")).status == 200
    assert worker.page().word(Word.PLAN_REVISION) == 1
    assert worker.page().word(Word.PLAN_REFUSED) == 2
    assert "plan 2 was refused" in caplog.text
    await until(lambda: models() == {"onnx logistic"})
    await worker.publish(plan(endpoint(champion()), revision=3))
    assert worker.page().word(Word.PLAN_REVISION) == 3
    assert worker.page().word(Word.PLAN_REFUSED) == 0


async def test_a_refused_plan_is_tried_again_after_a_while(worker: LocalWorker, tmp_path: Path) -> None:
    path = tiny_onnx.largest(tmp_path / "m.onnx")
    late = onnx("late", "champion", path)
    content = path.read_bytes()
    path.unlink()
    await worker.publish(plan(endpoint(late), revision=1))
    assert worker.worker.app.table is None
    path.write_bytes(content)
    await worker.worker.poll()
    assert not worker.worker.loading  # not ten times a second
    worker.clock.advance(5)
    await worker.worker.poll()
    await worker.loaded()
    assert (await worker.infer("u")).status == 200


BROKEN = {
    "empty": b"",
    "half": plans.encode(plan(endpoint(champion())))[:-100],
    "not UTF-8": b'{"revision": 1, "config_digest": "\xff"}',
    "deep": b'{"revision":' + b"[" * 5000,
    "another schema": plans.encode(plan(endpoint(champion()), schema=plans.SCHEMA + 1)),
    "unknown key": b'{"extra": 1}',
    "no keys": plans.encode(plan(endpoint(champion()), keys=())),
}
SLOTS: dict[str, tuple[Slot, ...]] = {
    "no slots": (),
    "a gap at the start": (Slot(start=1, variant="logistic"),),
    "not ascending": (Slot(start=0, variant="logistic"), Slot(start=0, variant="logistic")),
    "beyond the space": (Slot(start=0, variant="logistic"), Slot(start=2**64, variant="logistic")),
    "a stranger": (Slot(start=0, variant="stranger"),),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_plan_file_keeps_the_old_plan(worker: LocalWorker, case: str) -> None:
    await worker.publish(plan(endpoint(champion()), revision=1))
    old = table_of(worker)
    (worker.data_dir / "plan.json").write_bytes(BROKEN[case])
    await worker.worker.poll()
    assert table_of(worker) is old
    assert (await worker.infer("u")).status == 200


@pytest.mark.parametrize("case", SLOTS)
async def test_a_split_that_cannot_be_drawn_from_keeps_the_old_plan(worker: LocalWorker, case: str) -> None:
    await worker.publish(plan(endpoint(champion()), revision=1))
    old = table_of(worker)
    bad = endpoint(champion())
    fields = {name: getattr(bad, name) for name in bad.__struct_fields__}
    await worker.publish(plan(plans.EndpointPlan(**fields | {"slots": SLOTS[case]}), revision=2))
    assert table_of(worker) is old


@pytest.mark.parametrize(
    "kept",
    [
        KeptPlan(segment="nothing", value="EWR", variant="logistic"),
        KeptPlan(segment="origin", value="EWR", variant="nobody"),
    ],
)
async def test_a_segment_cannot_be_kept_for_whom_or_by_what_is_not_there(
    worker: LocalWorker, kept: KeptPlan, caplog: pytest.LogCaptureFixture
) -> None:
    await worker.publish(plan(endpoint(champion()), revision=1))
    await worker.publish(plan(endpoint(champion(), kept=(kept,)), revision=2))
    assert table_of(worker).plan.revision == 1
    assert worker.page().word(Word.PLAN_REFUSED) == 2
    assert f"plan 2 was refused: flight: kept names '{'no' if kept.segment == 'origin' else 'not'}" in caplog.text


@pytest.mark.parametrize("roles", [(), ("challenger",), ("champion", "champion")])
async def test_a_plan_needs_exactly_one_champion(worker: LocalWorker, roles: Any) -> None:
    await worker.publish(plan(endpoint(champion()), revision=1))
    old = table_of(worker)
    bad = endpoint(champion())
    fields = {name: getattr(bad, name) for name in bad.__struct_fields__}
    variants = tuple(onnx(f"v{n}", role, MODELS / "twin.onnx") for n, role in enumerate(roles))
    await worker.publish(plan(plans.EndpointPlan(**fields | {"variants": variants}), revision=2))
    assert table_of(worker) is old


async def test_a_plan_file_that_goes_away_or_cannot_be_read_keeps_the_old_plan(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion()), revision=1))
    old = table_of(worker)
    path = worker.data_dir / "plan.json"
    path.unlink()
    await worker.worker.poll()
    path.mkdir()
    await worker.worker.poll()
    assert table_of(worker) is old
    path.rmdir()
    await worker.publish(plan(endpoint(champion()), revision=2))
    assert table_of(worker).plan.revision == 2


async def test_a_rewrite_with_the_same_size_and_time_is_noticed(worker: LocalWorker) -> None:
    path = worker.data_dir / "plan.json"
    await worker.publish(plan(endpoint(champion()), revision=1))
    before = path.stat()
    plans.write(path, plan(endpoint(champion()), revision=2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    await worker.worker.poll()
    assert table_of(worker).plan.revision == 2


async def test_an_unchanged_file_is_not_read_again(worker: LocalWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    await worker.publish(plan(endpoint(champion()), revision=1))
    old = table_of(worker)
    for _ in range(3):
        await worker.worker.poll()
    assert table_of(worker) is old


async def test_the_plan_file_is_for_its_owner_only(worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion())))
    assert (worker.data_dir / "plan.json").stat().st_mode & 0o777 == 0o600


class Gate:
    """Loads that wait until they are let through, by the name of the file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.begun: list[str] = []
        self._names = names  # the only ones that wait; all if there are none
        self._let = threading.Event()
        monkeypatch.setattr(loading, "load", self._load)

    def open(self) -> None:
        self._let.set()

    def _load(self, path: Path, *how: Any) -> Any:
        self.begun.append(path.stem)
        if not self._names or path.stem in self._names:
            assert self._let.wait(5)
        return onnx_load(path, *how)


@pytest.fixture
def gate(worker: LocalWorker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open()


async def put(worker: LocalWorker, plan: Plan) -> None:
    """A plan that arrives while something loads: nobody waits for that."""
    plans.write(worker.data_dir / "plan.json", plan)
    await worker.worker.follow()


def prepared(worker: LocalWorker, revision: int) -> tuple[int, int]:
    """Bit by bit: which models of that plan are loaded, which cannot be."""
    page = worker.page()
    return page.progress(Word.PREPARED, revision), page.progress(Word.PREPARE_FAILED, revision)


def prepare(*variants: VariantPlan) -> tuple[PreparedPlan, ...]:
    return tuple(PreparedPlan(endpoint="flight", variant=variant) for variant in variants)


async def test_while_a_model_loads_requests_are_answered_and_readers_hear_of_the_worker(
    worker: LocalWorker, gate: Gate
) -> None:
    await put(worker, plan(endpoint(champion()), revision=1))
    gate.open()
    await worker.loaded()
    gate._let.clear()
    await put(worker, plan(endpoint(champion(), challenger(), share=1), revision=2))
    beats = len(worker.facts(Heartbeat))
    worker.worker.beat()
    assert (await worker.infer("u")).status == 200
    assert len(worker.facts(Heartbeat)) == beats + 2  # one in each stream
    assert table_of(worker).plan.revision == 1
    gate.open()
    await worker.loaded()
    assert table_of(worker).plan.revision == 2


async def test_a_rollback_does_not_wait_for_a_load(worker: LocalWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    await worker.publish(plan(endpoint(champion(), challenger("twin"), share=0.5), revision=1))
    gate = Gate(monkeypatch)
    await put(worker, plan(endpoint(champion(), challenger(), share=0.5), revision=2))
    await put(worker, plan(endpoint(champion()), revision=3))
    assert table_of(worker).plan.revision == 3
    gate.open()
    await worker.loaded()
    assert table_of(worker).plan.revision == 3
    await until(lambda: models() == {"onnx logistic"}, "what nobody wants any more is closed")


async def test_a_model_is_prepared_beside_the_traffic_and_brought_in_without_a_wait(
    worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.publish(plan(endpoint(champion()), revision=1))
    gate = Gate(monkeypatch)
    await put(worker, plan(endpoint(champion()), revision=2, prepare=prepare(challenger())))
    assert (table_of(worker).plan.revision, prepared(worker, 2)) == (2, (0b0, 0b0))
    assert (await worker.infer("u")).status == 200
    gate.open()
    await worker.loaded()
    assert prepared(worker, 2) == (0b1, 0b0)
    await put(worker, plan(endpoint(champion(), challenger(), share=1), revision=3))
    assert table_of(worker).plan.revision == 3
    assert gate.begun == ["boosted"]


async def test_models_are_loaded_one_at_a_time_and_those_to_serve_from_first(worker: LocalWorker, gate: Gate) -> None:
    both = endpoint(champion(), challenger(), share=0.5)
    await put(worker, plan(both, prepare=prepare(challenger("twin"))))
    await until(lambda: gate.begun)
    assert gate.begun == ["logistic"]
    gate.open()
    await worker.loaded()
    assert gate.begun == ["logistic", "boosted", "twin"]


async def test_a_model_that_cannot_be_prepared_is_named_and_tried_again(worker: LocalWorker, tmp_path: Path) -> None:
    bad = bad_model(tmp_path)
    await worker.publish(plan(endpoint(champion()), revision=1))
    await worker.publish(plan(endpoint(champion()), revision=2, prepare=prepare(bad, challenger())))
    assert (table_of(worker).plan.revision, prepared(worker, 2)) == (2, (0b10, 0b01))
    ((name, labels),) = (key for key in worker.page().series if key[0] == LOAD_FAILURES)
    assert labels[:3] == ("flight", "bad", bad.digest)
    assert f"{bad.onnx}: cannot be loaded" in labels[3]
    assert worker.count(name, *labels) == 1
    worker.clock.advance(5)
    await worker.worker.follow()
    await worker.loaded()
    assert worker.count(name, *labels) == 2
    await worker.publish(plan(endpoint(champion()), revision=3, prepare=prepare(challenger())))
    assert (prepared(worker, 2), prepared(worker, 3)) == ((0, 0), (0b1, 0b0))


async def test_a_load_that_hangs_is_named_and_keeps_no_other_waiting(
    worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.publish(plan(endpoint(champion()), revision=1))
    gate = Gate(monkeypatch, "boosted")
    await put(worker, plan(endpoint(champion()), revision=2, prepare=prepare(challenger(), challenger("twin"))))
    await until(lambda: gate.begun)
    for _ in range(3):  # the clock passes each deadline and each rest
        worker.clock.advance(loading.DEADLINE)
        await worker.worker.follow()
        await worker.loaded()
    assert prepared(worker, 2) == (0b10, 0b01)
    ((_, labels),) = (key for key in worker.page().series if key[0] == LOAD_FAILURES)
    assert labels[1:] == ("boosted", challenger().digest, "not loaded within 600 s, and left to itself")
    assert gate.begun == ["boosted", "twin"], "while it hangs it is not begun anew"
    gate.open()
    await until(lambda: not [thread for thread in threading.enumerate() if thread.name == "load boosted"])
    await worker.worker.follow()
    await worker.loaded()
    assert prepared(worker, 2) == (0b11, 0b00)


async def test_the_reasons_of_one_model_do_not_use_up_the_status_page(
    worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.publish(plan(endpoint(champion()), revision=1))
    reasons = iter(range(9))

    def fails(*_: Any) -> Any:
        raise ModelError(f"reason {next(reasons)}")

    monkeypatch.setattr(loading, "load", fails)
    await worker.publish(plan(endpoint(champion()), revision=2, prepare=prepare(challenger())))
    for _ in range(5):
        worker.clock.advance(loading.RETRY)
        await worker.worker.follow()
        await worker.loaded()
    told = {labels[3]: counts[0] for (name, labels), counts in worker.page().series.items() if name == LOAD_FAILURES}
    assert told == {"reason 0": 1, "reason 1": 1, "reason 2": 1, loading.OTHERS: 3}


async def test_a_worker_that_cannot_serve_prepares_the_way_out(worker: LocalWorker, tmp_path: Path) -> None:
    bad = onnx("bad", "champion", Path(bad_model(tmp_path).onnx))
    await worker.publish(plan(endpoint(bad), revision=1))
    await worker.publish(plan(endpoint(bad), revision=2, prepare=prepare(champion())))
    assert worker.worker.app.table is None
    assert prepared(worker, 2) == (0b1, 0b0)


async def test_closing_waits_for_no_load(worker: LocalWorker, gate: Gate) -> None:
    await put(worker, plan(endpoint(champion())))
    await until(lambda: gate.begun)
    await worker.worker._follower.close()
    gate.open()
    await until(lambda: not [thread for thread in threading.enumerate() if thread.name == "load logistic"])
    await until(lambda: not models(), "a model that arrives too late is closed")


async def test_closing_ends_every_thread(tmp_path: Path, worker: LocalWorker) -> None:
    await worker.publish(plan(endpoint(champion(), challenger(), share=0.5)))
    assert models() == {"onnx logistic", "onnx boosted"}
    assert digest(MODELS / "twin.onnx") != digest(MODELS / "logistic.onnx")
    await worker.worker._registry.close()
    await until(lambda: not models())


async def test_authorities_that_cannot_be_read_are_told_with_their_place(
    worker: LocalWorker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing = http("a", "champion", "https://127.0.0.1:1", ca=str(tmp_path / "missing.pem"))
    await worker.publish(plan(endpoint(missing, protocol="http")))
    assert worker.worker.app.table is None
    assert f"flight/a: no authorities could be read from {tmp_path}/missing.pem" in caplog.text
