"""The curve of detectable effects, in a terminal and as a small SVG. Both axes are logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from gateway.forecast.prospect import HORIZONS, Prospect

Point = tuple[float, float]


class Line(NamedTuple):
    """A level that the curve is compared with."""

    name: str
    effect: float


class Frame(NamedTuple):
    """The part of the plane that is shown: days and effects."""

    left: float
    right: float
    bottom: float
    top: float

    def across(self, day: float) -> float:
        """0 at the left, 1 at the right."""
        return math.log(day / self.left) / math.log(self.right / self.left)

    def up(self, effect: float) -> float:
        return math.log(effect / self.bottom) / math.log(self.top / self.bottom)


def terminal(found: Prospect, width: int = 46, height: int = 12) -> list[str]:
    """Lines of text; empty if nothing can be detected at any time."""
    curve, lines = _finite(found.curve), _levels(found)
    if not curve:
        return []
    frame = _frame(curve, lines)
    grid = [[" "] * width for _ in range(height)]
    for line in lines:
        row = _row(frame, line.effect, height)
        grid[row] = ["·"] * width
    for column in range(width):
        day = frame.left * (frame.right / frame.left) ** (column / (width - 1))
        if (effect := _at(curve, day)) is not None:
            grid[_row(frame, effect, height)][column] = "●"
    names = {_row(frame, line.effect, height): f" {line.name} {line.effect:g}" for line in lines}
    edges = {0: frame.top, height - 1: frame.bottom}
    rows = [f"{edges[place]:>9.3g} ┤" if place in edges else " " * 10 + "│" for place in range(height)]
    drawn = [rows[place] + "".join(cells) + names.get(place, "") for place, cells in enumerate(grid)]
    return [*drawn, " " * 10 + "└" + "─" * width, _ticks(frame, width)]


def svg(found: Prospect) -> str:
    """A figure of 640 x 360 with the same curve; valid XML, no script, no font of its own."""
    curve, lines = _finite(found.curve), _levels(found)
    frame = _frame(curve or [(0.5, 1.0), (30.0, 0.1)], lines)
    left, top, width, height = 70, 40, 500, 260

    def x(day: float) -> float:
        return round(left + width * frame.across(day), 1)

    def y(effect: float) -> float:
        return round(top + height * (1.0 - frame.up(effect)), 1)

    title = f"{found.experiment}: effect on {found.objective} that can be detected, {found.traffic:,.0f} units a day"
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 360" width="640" height="360" role="img"'
        ' font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        '<rect width="640" height="360" fill="white"/>',
        f'<text x="{left}" y="22" font-size="13" font-weight="bold">{escape(title)}</text>',
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>',
    ]
    for day in HORIZONS:
        parts.append(f'<line x1="{x(day)}" x2="{x(day)}" y1="{top}" y2="{top + height}" stroke="#eee"/>')
        parts.append(f'<text x="{x(day)}" y="{top + height + 18}" text-anchor="middle">{day} d</text>')
    for effect in _decades(frame):
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y(effect)}" y2="{y(effect)}" stroke="#eee"/>')
        parts.append(f'<text x="{left - 6}" y="{y(effect) + 4}" text-anchor="end">{effect:g}</text>')
    for line in lines:
        place = y(line.effect)
        parts.append(
            f'<line x1="{left}" x2="{left + width}" y1="{place}" y2="{place}" stroke="#b5651d" stroke-dasharray="5 4"/>'
        )
        parts.append(
            f'<text x="{left + width - 4}" y="{place - 4}" text-anchor="end" fill="#b5651d">'
            f"{escape(line.name)} {line.effect:g}</text>"
        )
    points = " ".join(f"{x(day)},{y(effect)}" for day, effect in curve)
    parts.append(f'<polyline points="{points}" fill="none" stroke="#1f5fa8" stroke-width="2"/>')
    parts.append(
        f'<text x="{left + width / 2}" y="{top + height + 38}" text-anchor="middle">days since the start</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


def _finite(curve: Sequence[Point]) -> list[Point]:
    return [(day, effect) for day, effect in curve if math.isfinite(effect)]


def _levels(found: Prospect) -> list[Line]:
    levels = [Line("expected effect", found.expected_effect), Line("min. effect", found.min_effect)]
    if found.effect not in (found.expected_effect, found.min_effect):
        levels.append(Line("effect", found.effect))
    return [line for line in levels if line.effect > 0.0]


def _frame(curve: Sequence[Point], lines: Sequence[Line]) -> Frame:
    effects = [effect for _, effect in curve] + [line.effect for line in lines]
    low, high = min(effects), max(effects)
    return Frame(0.5, float(HORIZONS[-1]), low / 1.15, high * 1.15)


def _row(frame: Frame, effect: float, height: int) -> int:
    return min(height - 1, max(0, round((1.0 - frame.up(effect)) * (height - 1))))


def _at(curve: Sequence[Point], day: float) -> float | None:
    """The curve at a day, by the nearest of its points; None before it begins."""
    if day < curve[0][0] * 0.96:
        return None
    return min(curve, key=lambda point: abs(math.log(point[0] / day)))[1]


def _ticks(frame: Frame, width: int) -> str:
    text = [" "] * (width + 16)
    for day in HORIZONS:
        label = f"{day} d"
        start = 11 + round(frame.across(day) * (width - 1)) - len(label) // 2
        text[start : start + len(label)] = label
    return "".join(text).rstrip()


def _decades(frame: Frame) -> list[float]:
    """1, 2 and 5 times the powers of ten that lie in the frame."""
    first, last = math.floor(math.log10(frame.bottom)), math.ceil(math.log10(frame.top))
    steps = [float(f"{digit}e{power}") for power in range(first, last + 1) for digit in (1, 2, 5)]
    return [step for step in steps if frame.bottom <= step <= frame.top]
