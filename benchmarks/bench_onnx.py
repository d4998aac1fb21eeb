"""What a model in the process costs behind this gateway, beside a bare ASGI callable, MLServer and BentoML.

All serve the same ONNX file with one onnxruntime thread and take the same body: one row, Open Inference Protocol JSON.
The gateway runs an experiment beside it, as in `bench_proxy`; the others answer and keep nothing.
Then a heavier model (Magika's file types, 3 MB, 2,048 integers in): one by one, and in opportunistic batches. On one
core these gain nothing: its convolutions take 7.0 ms for one row alone and 7.7 to 8.2 ms a row in batches of 8 to 32.

`make peers` first, then `python -m benchmarks.bench_onnx --json`: about six minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from benchmarks import servers
from benchmarks.bench_tables import onnx_table
from benchmarks.gateway_server import ORIGINS, experiment, gateway, settled
from benchmarks.load import Traffic, loaded, wrk
from benchmarks.processes import Tree
from benchmarks.results_file import ROOT
from benchmarks.rounds import Figures, Rounds, Subjects, command
from benchmarks.stats_common import Measured

NAME = "onnx"
ENDPOINT = "flight-delay"
PATH = f"/v2/models/{ENDPOINT}/infer"
LOGISTIC = ROOT / "models" / "flight_delay" / "logistic.onnx"
ROW = [17.0, 30.0, 4.0, 7.0, 762.0, 1.0, 0.0, 0.0, 12.0, 0.0, 21.5, 60.0, 1013.0, 8.5, 10.0, 1.0]
BARE_LIMIT, MLSERVER_TIMES, BENTOML_TIMES = 1.25, 5.0, 15.0
Started = Callable[[], AbstractContextManager[tuple[Tree, str]]]


def body(name: str, datatype: str, data: list[Any]) -> bytes:
    """One row as an Open Inference Protocol request."""
    return orjson.dumps({"inputs": [{"name": name, "shape": [1, len(data)], "datatype": datatype, "data": data}]})


FLIGHT = body("features", "FP32", ROW)
FILE = body("bytes", "INT32", [(37 * place) % 256 for place in range(2048)])


class Bench:
    """Every server in turn, with the same model and the same load."""

    def __init__(self, folder: Path, seconds: int) -> None:
        self._folder = folder
        self._seconds = seconds

    def subjects(self) -> Subjects:
        bare = partial(self._bare, LOGISTIC, FLIGHT)
        mlserver = partial(servers.mlserver, self._folder, LOGISTIC, PATH, FLIGHT)
        bentoml = partial(servers.bentoml, self._folder, LOGISTIC, "/infer", FLIGHT)
        file_types = servers.file_types()
        return {
            "bare": partial(self.peer, bare, PATH, FLIGHT),
            "gateway": partial(self.gateway, LOGISTIC, FLIGHT),
            "mlserver": partial(self.peer, mlserver, PATH, FLIGHT),
            "bentoml": partial(self.peer, bentoml, "/infer", FLIGHT),
            "heavy: bare": partial(self.peer, partial(self._bare, file_types, FILE), PATH, FILE),
            "heavy: gateway, one by one": partial(self.gateway, file_types, FILE, max_batch=1),
            "heavy: gateway, batches": partial(self.gateway, file_types, FILE),
        }

    def _bare(self, model: Path, sent: bytes) -> AbstractContextManager[tuple[Tree, str]]:
        return servers.under_uvicorn("bare_onnx", self._folder, PATH, sent, environment={"MODEL": str(model)})

    def peer(self, started: Started, path: str, sent: bytes) -> Figures:
        with started() as (tree, url):
            return self._measure(self._traffic(url, path, sent), partial(loaded, tree))

    def gateway(self, model: Path, sent: bytes, **how: Any) -> Figures:
        # Under 32 at once the heavier model's answers may take longer than a model's usual second.
        variant = {"onnx": str(model), "timeout": "10s", **how}
        served = {ENDPOINT: experiment("oip", variant, variant, aa=True)}
        with gateway(self._folder, served, PATH, sent, model_roots=[str(model.parent)]) as own:
            return self._measure(self._traffic(own.url, PATH, sent), partial(settled, own))

    def _traffic(self, url: str, path: str, sent: bytes) -> Traffic:
        return Traffic.write(self._folder, url, sent, [path], {"x-origin": ORIGINS})

    def _measure(self, traffic: Traffic, measured: Callable[[Callable[[], Any]], Figures]) -> Figures:
        wrk(traffic, 32, 2)  # warm
        figures: Figures = {}
        for name, connections in (("c32", 32), ("c1", 1)):
            case = measured(partial(wrk, traffic, connections, self._seconds))
            figures |= {f"{name}_{figure}": value for figure, value in case.items()}
        return figures


def goals(rounds: Rounds) -> Iterator[Measured]:
    """Cost against the bare server, requests per core against the model servers, in the same rounds."""
    count = len(rounds.of("gateway"))
    for part in ("cpu_us_workers", "cpu_us"):
        cost = rounds.ratio("gateway", f"c32_{part}", "bare", "c32_cpu_us")
        what = "workers'" if part == "cpu_us_workers" else "all processes'"
        yield Measured(NAME, f"{what} CPU per request over the bare server's, c=32", cost, BARE_LIMIT, count)
    for name, times in (("mlserver", MLSERVER_TIMES), ("bentoml", BENTOML_TIMES)):
        rate = rounds.ratio("gateway", "c32_rate", name)
        yield Measured(NAME, f"requests per core over {name}'s, c=32", rate, times, count, at_least=True)


@contextmanager
def subjects(folder: Path, seconds: int) -> Iterator[Subjects]:
    yield Bench(folder, seconds).subjects()


main = command(NAME, subjects, goals, onnx_table, compared=("gateway", "bare", "mlserver", "bentoml"))

if __name__ == "__main__":
    main()
