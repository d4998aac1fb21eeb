"""The demo on a terminal: one screen that follows the release, and a last word in plain language."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from gateway.admin.text import bar, endpoint_view
from gateway.demo.story import Event

_VERDICTS = {
    "promote": ("PROMOTED", "green"),
    "rollback": ("ROLLED BACK", "red"),
    "inconclusive": ("NO DECISION FOR THE CHALLENGER", "yellow"),
}


class Screen:
    """Shows events as they come. On a pipe, where nothing can be redrawn, it prints a line per block."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live: Live | None = None
        self._start: Event = {}
        self._decision = ""
        self._last_stage = ""

    def show(self, event: Event) -> None:
        kind = event["event"]
        if kind == "start":
            self._begin(event)
        elif kind == "progress":
            self._progress(event)
        elif kind == "decision":
            self._decision = event["text"]
        elif kind == "result":
            self.close()
            self._console.print(self._last_word(event))

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _begin(self, event: Event) -> None:
        self._start = event
        self._console.print(
            f"[bold]gateway demo[/] {event['scenario']} (seed {event['seed']}): challenger "
            f"[bold]{event['challenger']}[/], {event['story']}.\n"
            f"A real gateway listens on {event['data']}; {event['flights']:,} real flights are on their way.",
            highlight=False,
        )
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()

    def _progress(self, event: Event) -> None:
        if self._live is not None:
            self._live.update(Panel(self._frame(event), title=self._start["scenario"]), refresh=True)
            return
        endpoint = event["endpoint"]
        stage = endpoint["experiment"]["stage"]
        self._console.print(
            f"{event['seconds']:6.1f} s  {event['sent']:6,} flights  {endpoint['status']:12} {stage}",
            highlight=False,
        )

    def _frame(self, event: Event) -> RenderableType:
        endpoint = event["endpoint"]
        experiment = endpoint["experiment"]
        limit = experiment["max_units"] or self._start["flights"]
        units = sum(experiment["report"]["assigned"])
        left = _time_left(experiment, units, limit)
        return Group(
            Text(f"{event['sent']:,} flights sent, {event['failed']} failed requests, {event['seconds']:.0f} s"),
            Text(f"{bar(units / limit, 40)} {units:,} of at most {limit:,} units, {left}"),
            "",
            endpoint_view("flight-delay", endpoint),
        )

    def _last_word(self, event: Event) -> RenderableType:
        title, colour = _VERDICTS[event["decision"]]
        units, challenger = event["units"], event["challenger_units"]
        split = ", ".join(f"{name} {share:.0%}" for name, share in event["split"].items())
        return Panel(
            Text(
                f"{self._decision}.\n\n"
                f"Decided in stage {event['stage']} after {units:,} flights and {event['seconds']:.0f} s. "
                f"{challenger:,} of them ({event['harmed_share']:.2%}) ever met the challenger.\n"
                f"Champion now: {event['champion']}; split: {split}. "
                f"Requests that failed for a client: {event['failed_requests']}."
            ),
            title=f"[bold {colour}]{title}: {self._start['challenger']}",
            border_style=colour,
        )


def _time_left(experiment: dict[str, Any], units: int, limit: int) -> str:
    """An estimate from the pace so far: the end by `max_units` or by `max_duration`, whichever is first."""
    running = experiment["running_seconds"]
    by_time = experiment["max_duration_seconds"] - running
    by_units = running / units * (limit - units) if units else by_time
    return f"at most {max(0.0, min(by_time, by_units)):.0f} s left"
