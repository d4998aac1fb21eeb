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
from typing import TYPE_CHECKING, Any

import click

from benchmarks.accounts import Allowed, Known, audit, shipped
from benchmarks.calling import calling
from benchmarks.cluster_nodes import members
from benchmarks.node_config import document
from benchmarks.nodes import CONTROL, WORKER, Node, running, settled, waited
from benchmarks.processes import BenchmarkError, prepare
from benchmarks.results_file import Case

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

CODE = ("gateway/**/*.py", "gateway/**/*.sql", "benchmarks/kills.py", "benchmarks/accounts.py", "benchmarks/callers.py")
KILLS, ROUNDS = 50, 4  # of a run of `prove`; runs
VICTIMS = {"worker": 10, "control": 7, "supervisor": 1, "everybody": 2}
LONGEST = 1.2  # seconds between two kills
SHIPPED = 60.0  # seconds within which everything must be in the store once nobody is killed any more


Say = Callable[[str], None]


def measure(folder: Path, kills: int, seed: int, durability: str = "process", say: Say = lambda _: None) -> Case:
    """So many kills; `problems` says what must not be, and is empty if nothing was lost."""
    node = Node(folder / "node", document(outcomes={"durability": durability}))
    return {"durability": durability, **_killed([node], None, kills, seed, say)}


def measure_shared(folder: Path, kills: int, seed: int, say: Say = lambda _: None) -> Case:
    """The same of three nodes on one PostgreSQL, whose server may be the victim, too."""
    with members(folder) as (nodes, server):
        return _killed(nodes, server, kills, seed, say)


def _killed(nodes: list[Node], server: PostgresServer | None, kills: int, seed: int, say: Say) -> Case:
    chance = random.Random(seed)
    killed: Counter[str] = Counter()
    with running(*nodes):
        began = time.monotonic()
        with calling([node.port for node in nodes], seed) as callers:
            callers.more(100)
            for number in range(kills):
                time.sleep(chance.uniform(0.0, LONGEST))
                victim = _kill(chance.choice(nodes), server, chance)
                killed[victim] += 1
                say(f"kill {number + 1} of {kills}: {victim}, {len(callers.log.answered)} answered so far")
            back = settled(lambda: all(node.is_ready() for node in nodes), "everybody was back")
            callers.more(100)
            log = callers.stop()
        seconds = time.monotonic() - began
        shipping = waited(lambda: shipped(Known.of(log), nodes[0]), SHIPPED)
        codes = [node.stop() for node in nodes]
    workers = int(nodes[0].document["data"]["workers"])
    uncompleted = killed["worker"] + workers * killed["everybody"]
    result = audit(log, nodes[0], Allowed(uncompleted=uncompleted, several_nodes=len(nodes) > 1))
    if any(codes):
        result["problems"]["nodes ended with"] = codes
    return {
        "seed": seed,
        "kills": dict(sorted(killed.items())),
        "lives": [node.lives for node in nodes],
        "seconds": round(seconds, 1),
        "back_s": round(back, 2),
        "shipped_s": round(shipping, 2),
        **result,
        "pass": not result["problems"],
    }


def _kill(node: Node, server: PostgresServer | None, chance: random.Random) -> str:
    """Somebody who lives; returns who it was. A node without supervisor is begun again at once, and so is a server."""
    victims = VICTIMS | ({"store": 1} if server else {})
    while True:
        (victim,) = chance.choices(list(victims), list(victims.values()))
        if victim == "store" and server is not None:
            server.stop("immediate")
            server.start()
        elif victim == "everybody":
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
@click.option("--shared", is_flag=True, help="Three nodes on one PostgreSQL.")
def main(kills: int, seed: int, shared: bool) -> None:
    """Kill so often, and print what became of it."""
    prepare()

    def say(line: str) -> None:
        click.echo(line, err=True)

    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        try:
            run = measure_shared if shared else measure
            case: dict[str, Any] = run(Path(folder), kills, seed, say=say)
        except BenchmarkError as error:
            raise click.ClickException(f"seed {seed}: {error}") from error
    click.echo(json.dumps(case, indent=1))
    raise SystemExit(not case["pass"])


if __name__ == "__main__":
    main()
