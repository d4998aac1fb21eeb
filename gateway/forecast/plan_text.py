"""A plan as a person reads it in a terminal."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.forecast import chart
from gateway.forecast.guarding import Passing
from gateway.forecast.limits import Limit
from gateway.forecast.prospect import Prospect

_BECAUSE = {"min_duration": "duration", "min_units": "units", "min_challenger_units": "challenger units"}


def plan_view(found: Prospect) -> RenderableType:
    who = " and ".join(found.challengers)
    head = Text.assemble(
        (found.experiment, "bold"),
        f"  {who} at {found.endpoint}  ·  {found.traffic:,.0f} units a day  ·  effect {found.effect:g} on"
        f" {found.objective} ({'higher' if found.increase else 'lower'} is better)",
    )
    parts: list[RenderableType] = [head, *_guesses(found), "", _stages(found), "", _times(found), "", _ending(found)]
    parts += ["", _detectable(found)]
    drawn = chart.terminal(found)
    if drawn:
        parts += [Text(line, style="cyan" if "●" in line else "dim", no_wrap=True) for line in drawn]
    parts += ["", errors_table(found.limits)]
    parts += ["", *(Text(f"! {warning}", style="yellow") for warning in found.warnings)] if found.warnings else []
    return Group(*parts)


def days(value: float) -> str:
    """A time for people: hours below two days, days above."""
    if math.isinf(value):
        return "never"
    if value < 2.0:
        return f"{24.0 * value:.1f} h"
    return f"{value:.1f} days" if value < 100.0 else f"{value:,.0f} days"


def table(title: str, *columns: str, left: int = 1) -> Table:
    """A plain table; all columns but the first ones hold numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place < left else "right", no_wrap=column != "")
    return made


def errors_table(limits: tuple[Limit, ...]) -> RenderableType:
    made = table("how often it may be wrong at most, over the whole experiment, however often it looks", "", "")
    made.columns[1].justify = "left"
    for limit in limits:
        made.add_row(f"{100 * limit.at_most:.3g} %", Text.assemble(limit.what, (f"\n  = {limit.why}", "dim")))
    return made


def _guesses(found: Prospect) -> list[Text]:
    guessed = [f"{one.metric}: {one.guessed}" for one in found.assumptions if one.guessed]
    if not guessed:
        return []
    return [Text(f"guessed, as nothing was said of the champion's {'; '.join(guessed)}", style="yellow")]


def _stages(found: Prospect) -> Table:
    made = table("the stages, in units a day", "", "share", "challenger", "champion", "at least", "because of", "until")
    made.columns[5].justify = "left"
    for leg in found.stages:
        made.add_row(
            leg.name,
            f"{100 * leg.share:.4g} %",
            f"{leg.challenger_units:,.0f}",
            f"{leg.champion_units:,.0f}",
            days(leg.days),
            _BECAUSE[leg.binding] if leg.days else "",
            days(leg.ends),
        )
    return made


def _times(found: Prospect) -> Table:
    made = table("until promotion", "", "expected", "95 % within", "")
    made.columns[3].justify = "left"
    for name, passing in _steps(found).items():
        mark = Text("◄ decides how long it takes", style="bold") if name == found.binding else Text("")
        made.add_row(name, days(passing.typical), days(passing.high) if passing.high else "", mark)
    made.add_row(Text("promotion", style="bold"), Text(days(found.promotion_days), style="bold"), "", "")
    return made


def _steps(found: Prospect) -> dict[str, Passing]:
    steps = {
        "the stages": Passing(typical=found.ramp_days, high=0.0),
        f"evidence for {found.objective}": Passing(typical=found.evidence_days, high=0.0),
        **{f"guardrail {name}": passing for name, passing in found.guardrails.items()},
    }
    return steps | ({"a whole cycle": Passing(typical=found.cycle_days, high=0.0)} if found.cycle_days else {})


def _ending(found: Prospect) -> Text:
    """What becomes of a challenger that is as good as the champion."""
    how = {
        "futility": f"it is given up after about {days(found.end_days)}: an effect of {found.min_effect:g} or more"
        " has become implausible",
        "max_units": f"nothing is decided until max_units end it after {days(found.end_days)}",
        "max_duration": f"nothing is decided until max_duration ends it after {days(found.end_days)}",
    }
    return Text.assemble(("if there is no effect  ", "bold"), how[found.end])


def _detectable(found: Prospect) -> Table:
    made = table("effects proved by then, on average", *(f"{day} d" for day in found.detectable), left=0)
    made.add_row(*("none" if math.isinf(effect) else f"{effect:.3g}" for effect in found.detectable.values()))
    return made
