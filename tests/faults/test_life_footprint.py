"""What a node leaves on disk, holds on to and says of itself. Real processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.telemetry.status_page import Word
from tests.faults.fifty import estimate_all, fifty_experiments
from tests.integration.process.conftest import FIXED, HEAD
from tests.integration.process.node import Load, Node, running, wait_for

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]
READ_ONLY = "mount -o remount,ro,bind /"
# Of the rights of root it keeps that to read, because a Python may lie in root's home.
_READS = "-all,+dac_read_search"
AS_NOBODY = (
    "setpriv --reuid 12345 --regid 12345 --clear-groups"
    f" --inh-caps={_READS} --ambient-caps={_READS} --bounding-set={_READS}"
)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; those of pytest are its user's."""
    with tempfile.TemporaryDirectory(prefix="gateway-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_l6_a_node_writes_to_its_data_directory_and_nowhere_else(open_folder: Path) -> None:
    """Everything else is read-only, it has a number for a user, no home, and none of root's rights to write."""
    if not _may_mount():
        pytest.skip("needs root, to mount the system read-only, and a Python that others may run")
    data = open_folder / "data"
    data.mkdir()
    shutil.chown(data, 12345, 12345)
    config = open_folder / "gateway.yaml"
    config.write_text(HEAD + FIXED)
    script = f'mount --bind {data} {data} && {READ_ONLY} && cd / && exec {AS_NOBODY} "$@"'
    apart = ("unshare", "--mount", "sh", "-c", script, "sh")
    nowhere = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "PYTHONPATH": str(ROOT)}
    with running(config, workers=2, prefix=apart, environment=nowhere) as node:
        assert os.stat(f"/proc/{node.process.pid}").st_uid == 12345
        for _ in range(20):
            assert node.infer().status_code == 200
        node.edit("logistic: 80%, twin: 20%", "logistic: 50%, twin: 50%")
        wait_for(lambda: node.status()["endpoints"]["flight-delay"]["split"]["twin"] == 0.5, "an edit is taken")
        assert node.metrics()["gateway_store_up"] == 1
        assert node.stop() == 0
        assert "Traceback" not in node.log
        lines = [json.loads(line) for line in node.log.splitlines()]  # no library says anything else
        assert not [line for line in lines if line["level"] in ("warning", "error")]


def _may_mount() -> bool:
    probe = ["unshare", "--mount", "sh", "-c", f"{READ_ONLY} && {AS_NOBODY} {sys.executable} -c 'import gateway'"]
    try:
        return subprocess.run(probe, capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        return False


def test_l8_what_has_been_served_leaves_neither_descriptors_nor_threads(node: Node) -> None:
    with Load(node) as load:
        load.more(300)
    before = {pid: _held(pid) for pid in _processes(node)}
    for _ in range(3):
        with Load(node) as load:
            load.more(300)
    wait_for(lambda: all(_no_more(_held(pid), held) for pid, held in before.items()), "all is given back")


def _processes(node: Node) -> list[int]:
    return node.child("gateway.worker") + node.child("gateway.control")


def _no_more(held: tuple[int, int], than: tuple[int, int]) -> bool:
    return all(now <= before for now, before in zip(held, than, strict=True))


def _held(pid: int) -> tuple[int, int]:
    """Descriptors, but for sockets, which a client keeps alive; and threads."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    return sum(not link.startswith("socket:") for link in links), len(os.listdir(f"/proc/{pid}/task"))


@pytest.mark.anyio
async def test_l7_metrics_of_fifty_experiments_fit_into_five_mebibytes(tmp_path: Path) -> None:
    """4 variants, 3 metrics and 20 segments each, of every one an estimate; and every counter of a worker."""
    async with fifty_experiments(tmp_path) as (plane, worker):
        estimate_all(plane)
        text, _ = plane.exposition("")
        assert worker.page.words[Word.OVERFLOW] == 0
        assert text.count(b"\ngateway_experiment_effect{") == 50 * 3 * 3 * 21 * 3
        assert len(text) < 5 << 20
