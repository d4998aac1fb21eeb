"""A simulation as a person reads it in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from gateway.forecast.plan_text import days, table
from gateway.forecast.simulation import Simulation
from gateway.forecast.summary import QUANTILES, Check, Row, Share


def simulation_view(found: Simulation) -> RenderableType:
    parts: list[RenderableType] = [_head(found), *_conditions(found), "", _endings(found), "", _times(found), ""]
    parts += [_reasons(row, found) for row in found.rows]
    checks = [_check(check, row, found) for row in found.rows for check in row.checks]
    return Group(*parts, *([""] if checks else []), *checks)


def _head(found: Simulation) -> Text:
    runs = sum(row.runs for row in found.rows)
    who = " and ".join(found.challengers)
    stages = " → ".join(f"{100 * share:.3g} %" for share in found.stages.values())
    tail = f"  {who} at {found.endpoint}  ·  {stages}  ·  {runs:,} runs in {found.seconds:.1f} s, seed {found.seed}"
    return Text.assemble((found.experiment, "bold"), tail)


def _conditions(found: Simulation) -> list[Text]:
    if found.source != "made_up":
        text = (
            f"the {found.log_units:,} units of the champion in {found.source} ({days(found.log_days)}) with new coins:"
            " nobody is better or worse, every verdict is a false one"
        )
        note = "each stage got an equal part of them; minimums, cycle and limits on time were left out"
        return [Text(text), Text(note, style="dim")]
    lines = [Text(f"{found.traffic:,.0f} units a day, a look every {_looks(found)} units")]
    if found.drift:
        lines.append(Text(f"{found.objective} of everybody moves by {found.drift:+g} until the longest possible end"))
    lines += [Text(f"every challenger is worse by {value:g} in {name}") for name, value in found.worse.items()]
    guessed = [f"{one.metric}: {one.guessed}" for one in found.assumptions if one.guessed]
    if guessed:
        lines.append(Text(f"guessed, as nothing was said of the champion's {'; '.join(guessed)}", style="yellow"))
    return lines


def _looks(found: Simulation) -> str:
    every = list(found.look_every.values())
    return f"{every[0]:,}" if len(set(every)) == 1 else ", ".join(f"{units:,}" for units in every)


def _endings(found: Simulation) -> RenderableType:
    names = ["promoted", "rolled back", "inconclusive"]
    names += ["log ended"] if any(row.unfinished.count for row in found.rows) else []
    title = "how it ends, with 95 % intervals of the simulation"
    made = table(title, "effect", *names, "evidence", "exposed")
    for row in found.rows:
        shares = [row.promoted, row.rolled_back, row.inconclusive, row.unfinished][: len(names)]
        shares.append(row.evidence_crossed)
        made.add_row(_effect(row), *map(_percent, shares), f"{100 * row.challenger_share:.1f} %")
        made.add_row("", *map(_interval, shares), "of all units", style="dim")
    return made


def _times(found: Simulation) -> RenderableType:
    marks = [f"{100 * level:.0f} %" for level in QUANTILES]
    made = table("when it ends: by then that share of the runs had", "effect", "", *marks, left=2)
    for row in found.rows:
        made.add_row(_effect(row), "units", *(f"{units:,.0f}" for units in row.units))
        made.add_row("", "time", *(days(value) for value in row.days), style="dim")
    return made


def _reasons(row: Row, found: Simulation) -> Text:
    reasons = ", ".join(f"{reason} {count}" for reason, count in row.reasons.items())
    stages = ", ".join(f"{stage} {count}" for stage, count in row.stages.items())
    return Text.assemble((f"effect {_effect(row)}: ", "bold"), reasons, (f"  in {stages}", "dim"))


def _check(check: Check, row: Row, found: Simulation) -> Text:
    effect = f"effect {_effect(row)}" if row.effect else "no effect"
    mark, style = ("✓", "green") if check.compatible else ("✗", "bold red")
    word = "compatible with" if check.compatible else "more than"
    share = f"{_percent(check.found)} {_interval(check.found)}"
    text = f"{mark} {check.what}, {effect}: {share}, {word} its limit of {100 * check.at_most:.3g} %"
    return Text(text, style=style)


def _effect(row: Row) -> str:
    return f"{row.effect:+g}" if row.effect else "none"


def _percent(share: Share) -> str:
    return f"{100 * share.share:.3g} %"


def _interval(share: Share) -> str:
    ends = (f"{100 * end:.2g}" if end < 0.995 else f"{100 * end:.0f}" for end in (share.low, share.high))
    return f"[{', '.join(ends)}]"
