"""kill -9 at random moments under load: what was answered and what was acknowledged is in the store exactly once.

A node with an experiment answers users who return and takes in their outcomes, while a random process of it is killed
again and again: a worker, the control process, the supervisor, or all of them at once. Nobody waits for anybody to come
back before the next kill. At the end the node is left alone, stopped, and its store held against what clients know.

`python -m benchmarks.kills --kills 20 --seed 7` does it once; `python -m benchmarks.prove --only kills` keeps results.
"""

from __future__ import annotations

import json
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.accounts import Allowed, Known, audit, shipped
from benchmarks.calling import calling
from benchmarks.node_config import document
from benchmarks.nodes import CONTROL, WORKER, Node, running, settled, waited
from benchmarks.processes import BenchmarkError, prepare
from benchmarks.results_file import Case

CODE = ("gateway/**/*.py", "gateway/**/*.sql", "benchmarks/kills.py", "benchmarks/accounts.py", "benchmarks/callers.py")
KILLS, ROUNDS = 50, 4  # of a run of `prove`; runs
VICTIMS = {"worker": 10, "control": 7, "supervisor": 1, "everybody": 2}
LONGEST = 1.2  # seconds between two kills
SHIPPED = 60.0  # seconds within which everything must be in the store once nobody is killed any more


def measure(
    folder: Path, kills: int, seed: int, durability: str = "process", say: Callable[[str], None] = lambda _: None
) -> Case:
    """So many kills; `problems` says what must not be, and is empty if nothing was lost."""
    chance = random.Random(seed)
    node = Node(folder / "node", document(outcomes={"durability": durability}))
    killed: Counter[str] = Counter()
    with running(node):
        began = time.monotonic()
        with calling([node.port], seed) as callers:
            callers.more(100)
            for number in range(kills):
                time.sleep(chance.uniform(0.0, LONGEST))
                victim = _kill(node, chance)
                killed[victim] += 1
                say(f"kill {number + 1} of {kills}: {victim}, {len(callers.log.answered)} answered so far")
            back = settled(node.is_ready, "everybody was back")
            callers.more(100)
            log = callers.stop()
        seconds = time.monotonic() - began
        shipping = waited(lambda: shipped(Known.of(log), node), SHIPPED)
        code = node.stop()
    workers = killed["worker"] + int(node.document["data"]["workers"]) * killed["everybody"]
    result = audit(log, node, Allowed(uncompleted=workers))
    if code != 0:
        result["problems"]["the node ended with"] = [code]
    return {
        "seed": seed,
        "durability": durability,
        "kills": dict(sorted(killed.items())),
        "lives": node.lives,
        "seconds": round(seconds, 1),
        "back_s": round(back, 2),
        "shipped_s": round(shipping, 2),
        **result,
        "pass": not result["problems"],
    }


def _kill(node: Node, chance: random.Random) -> str:
    """Somebody who lives; returns who it was. A node without supervisor is begun again at once."""
    while True:
        (victim,) = chance.choices(list(VICTIMS), list(VICTIMS.values()))
        if victim == "everybody":
            node.kill_all()
            node.start()
        elif victim == "supervisor":
            node.kill_supervisor()
            node.start()
        else:
            living = node.processes(WORKER if victim == "worker" else CONTROL)
            if not living:
                time.sleep(0.01)  # all of that kind rest before they are started again
                continue
            node.signal(chance.choice(living), signal.SIGKILL)
        return victim


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--durability", default="process", show_default=True)
def main(kills: int, seed: int, durability: str) -> None:
    """Kill so often, and print what became of it."""
    prepare()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        try:
            case: dict[str, Any] = measure(
                Path(folder), kills, seed, durability, lambda line: click.echo(line, err=True)
            )
        except BenchmarkError as error:
            raise click.ClickException(f"seed {seed}: {error}") from error
    click.echo(json.dumps(case, indent=1))
    raise SystemExit(not case["pass"])


if __name__ == "__main__":
    main()
