"""Draws the results of range queries as SVG: what a panel showed, for documents, from recorded data.

The input is the `data.result` of Prometheus' `/api/v1/query_range`, as it came: to draw it again, nothing
needs to run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "dashboards"
# File name -> dashboard, title of the panel. Each panel has one query.
PANELS = {
    "latency-by-provider": ("overview", "Latency by provider, 95th percentile"),
    "error-rate": ("reliability", "Error rate by deployment"),
    "traffic-share": ("overview", "Traffic share"),
}
WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 40, 62
# Told apart also by readers who see no red and green.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")


@dataclass(frozen=True)
class Series:
    """One line of a picture: (seconds, value) in order of time; no point where there was no value."""

    name: str
    points: Sequence[tuple[float, float]]


def panel(dashboard: str, title: str) -> dict[str, Any]:
    """The panel of a committed dashboard.

    Raises:
        KeyError: There is no such panel.
    """
    for one in json.loads((FOLDER / f"{dashboard}.json").read_text(encoding="utf-8"))["panels"]:
        if one["title"] == title:
            return one
    raise KeyError(f"{dashboard}: {title}")


def query(name: str) -> str:
    """The query behind a picture of `PANELS`, with Grafana's variables still in it."""
    return panel(*PANELS[name])["targets"][0]["expr"]


def picture(name: str, result: Iterable[Mapping[str, Any]], marks: Mapping[float, str] | None = None) -> str:
    """A picture of `PANELS` as SVG, from the `data.result` of its range query.

    Args:
        name: A key of `PANELS`.
        result: The matrix that `/api/v1/query_range` gave.
        marks: Moments (Unix seconds) that get a line and these words.
    """
    of = panel(*PANELS[name])
    lines = series(result, of["targets"][0]["legendFormat"])
    return draw(of["title"], of["fieldConfig"]["defaults"]["unit"], lines, marks or {})


def series(result: Iterable[Mapping[str, Any]], legend: str) -> list[Series]:
    """Prometheus' matrix as lines, named by Grafana's template `{{label}}`."""
    lines: list[Series] = []
    for one in result:
        labels: Mapping[str, str] = one["metric"]
        name = re.sub(r"\{\{(\w+)\}\}", lambda found, of=labels: of.get(found[1], ""), legend)
        points = [(float(at), float(value)) for at, value in one["values"]]
        lines.append(Series(name, [point for point in points if math.isfinite(point[1])]))
    return sorted(lines, key=lambda line: line.name)


def draw(title: str, unit: str, lines: Sequence[Series], marks: Mapping[float, str]) -> str:
    """A line chart as SVG; time runs in seconds from the first point.

    Raises:
        ValueError: There is not a single point.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        raise ValueError(f"no point to draw for {title!r}")
    start, end = min(at for at, _ in points), max(at for at, _ in points)
    ticks = _ticks(max(value for _, value in points))
    top = ticks[-1]

    def x(at: float) -> float:
        return LEFT + (at - start) / max(end - start, 1e-9) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="12" role="img">'
    )
    parts = [
        head,
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    parts.extend(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#dddddd"/>'
        f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="#555555">'
        f"{escape(_label(tick, unit))}</text>"
        for tick in ticks
    )
    parts.extend(
        f'<text x="{x(start + tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" '
        f'fill="#555555">{tick:g} s</text>'
        for tick in _ticks(end - start)
        if start + tick <= end
    )
    parts.extend(
        f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#999999" '
        f'stroke-dasharray="4 3"/><text x="{x(at) + 4:.1f}" y="{TOP - 4}" fill="#555555">'
        f"{escape(words)}</text>"
        for at, words in sorted(marks.items())
        if start <= at <= end
    )
    place = LEFT
    for number, line in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line.points)
        parts.append(
            f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{path}"/>'
            f'<rect x="{place}" y="{HEIGHT - 24}" width="12" height="4" fill="{color}"/>'
            f'<text x="{place + 18}" y="{HEIGHT - 18}">{escape(line.name)}</text>'
        )
        place += 34 + 7 * len(line.name)
    return "\n".join([*parts, "</svg>"]) + "\n"


def waterfall(title: str, spans: Sequence[Mapping[str, Any]]) -> str:
    """A trace as SVG: a bar for each span, in the order given, with words of it below the bar.

    Args:
        title: The heading.
        spans: Of each span `name`, `start` and `end` in seconds from the trace's beginning, `failed`,
            `inside` (whether it is a child) and `words`: attributes to show.

    Raises:
        ValueError: There is no span.
    """
    if not spans:
        raise ValueError(f"no span to draw for {title!r}")
    row, left = 58, 24
    height = TOP + row * len(spans) + 30
    ticks = _ticks(max(span["end"] for span in spans))

    def x(seconds: float) -> float:
        return left + seconds / ticks[-1] * (WIDTH - left - 40)

    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="12" role="img">'
    )
    parts = [
        head,
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{left}" y="22" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    parts.extend(
        f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP - 6}" y2="{height - 26}" stroke="#dddddd"/>'
        f'<text x="{x(tick):.1f}" y="{height - 10}" text-anchor="middle" fill="#555555">'
        f"{escape(_label(round(tick, 9), 's'))}</text>"
        for tick in ticks
    )
    for number, span in enumerate(spans):
        top = TOP + row * number
        begin, end = x(span["start"]), x(span["end"])
        color = COLORS[1] if span["failed"] else COLORS[2] if span["inside"] else COLORS[0]
        # Words that do not fit to the right of a late beginning end where the picture ends.
        late = begin > WIDTH / 2
        place = f'x="{WIDTH - 16}" text-anchor="end"' if late else f'x="{begin:.1f}"'
        told = f"{span['name']}, {1000 * (span['end'] - span['start']):.0f} ms"
        words = "  ".join(
            f"{name.removeprefix('liter_llm.')}={_word(of)}" for name, of in span["words"].items()
        )
        parts.append(
            f'<rect x="{begin:.1f}" y="{top}" width="{max(end - begin, 1):.1f}" height="12" fill="{color}"/>'
            f'<text {place} y="{top + 27}">{escape(told)}</text>'
            f'<text {place} y="{top + 42}" font-size="11" fill="#555555">{escape(words)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _word(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _ticks(top: float) -> list[float]:
    """From 0 to the top or a little above, in four to eight round steps."""
    if top <= 0:
        return [0.0, 1.0]
    step = 10 ** math.floor(math.log10(top / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if top / (step * factor) <= 8)  # noqa: PLR2004 - see above
    return [number * step for number in range(math.ceil(round(top / step, 9)) + 1)]


def _label(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:g} %"
    return f"{value:g} {({'s': 's', 'ms': 'ms', 'currencyUSD': 'USD', 'reqps': '/s'}).get(unit, '')}".rstrip()
