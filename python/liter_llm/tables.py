"""Small tables for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

_CENT = 0.01
_SHORT = 0.01


def text_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()
) -> str:
    """Columns side by side, as wide as they need to be; those numbered in `right` end at the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def cell(line: Sequence[str], column: int) -> str:
        text = line[column]
        return text.rjust(widths[column]) if column in right else text.ljust(widths[column])

    return "\n".join("  ".join(cell(line, column) for column in range(len(head))).rstrip() for line in lines)


def html_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, styles: Sequence[Sequence[str]] = ()
) -> str:
    """The same for a notebook; `styles` are CSS for the cells of `rows`."""

    def cell(text: str, style: str) -> str:
        return f'<td style="{style}">{escaped(text)}</td>' if style else f"<td>{escaped(text)}</td>"

    parts = ["<table><thead><tr>", *(f"<th>{escaped(text)}</th>" for text in head), "</tr></thead><tbody>"]
    for number, row in enumerate(rows):
        style = styles[number] if styles else [""] * len(row)
        parts += ["<tr>", *(cell(text, style[column]) for column, text in enumerate(row)), "</tr>"]
    return "".join([*parts, "</tbody></table>"])


def escaped(text: str) -> str:
    """Text as it may stand in HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def seconds(value: float | None) -> str:
    """A time at a readable length; empty when it is not known."""
    if value is None:
        return ""
    if value < _SHORT:
        return f"{value * 1000:.1f} ms"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def dollars(value: float | None) -> str:
    """An amount of USD with what matters of it; empty when it is not known."""
    if value is None:
        return ""
    if 0 < abs(value) < _CENT:
        return f"${Decimal(f'{value:.1e}'):f}"
    return f"${value:.2f}"
