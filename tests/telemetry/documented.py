"""What docs/tracing.md says of attributes and metrics, and whether spans are like that."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from liter_llm.telemetry import names

from .receiver import Span

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs/tracing.md").read_text(encoding="utf-8")
#: The page's words for types, and what a value of that type is when it has come over the wire.
_KINDS: Final = {"string": str, "int": int, "double": float, "bool": bool}


def _types(introduction: str) -> dict[str, str]:
    """The table after these words: types by attribute."""
    table = PAGE.partition(introduction)[2].partition(":\n\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for row in table.splitlines()[2:]:
        attributes, types, _ = (cell.strip() for cell in row.strip("|").split(" | "))
        listed, kinds = re.findall(r"`([^`]+)`", attributes), types.split(", ")
        found |= zip(listed, kinds if len(kinds) > 1 else kinds * len(listed), strict=True)
    return found


_BOTH: Final = _types("Of both")
CALL: Final = _types("Of a call's span") | _BOTH
ATTEMPT: Final = (
    _types("Of an attempt's span, beside those")
    | _BOTH
    | {name: CALL[name] for name in (names.PROVIDER_NAME, names.REQUEST_MODEL)}
)
#: Texts in JSON, when they are switched on.
CONTENT: Final = {
    names.INPUT_MESSAGES: "string",
    names.OUTPUT_MESSAGES: "string",
    names.SYSTEM_INSTRUCTIONS: "string",
    names.TOOL_DEFINITIONS: "string",
}


def is_of(kind: str, value: Any) -> bool:
    """Whether a value is of one of the page's types: a `bool` is no `int`, and an `int` no `double`."""
    if kind.endswith("[]"):
        return type(value) is list and all(is_of(kind[:-2], item) for item in value)
    return type(value) is _KINDS[kind]


def faults(span: Span) -> list[str]:
    """What of a span of ours is not as the page says."""
    is_attempt = span.name in {names.POST, names.ATTEMPT_SPAN}
    types = ATTEMPT if is_attempt else CALL | CONTENT
    return [
        f"{span.name}: {name} = {value!r} is no {types.get(name, 'attribute of it')}"
        for name, value in span.attributes.items()
        if name not in types or not is_of(types[name], value)
    ]


def metrics() -> dict[str, tuple[str, str]]:
    """Kind and unit of each metric on the page."""
    found: dict[str, tuple[str, str]] = {}
    for row in re.findall(r"^\| (`[^|]+) \| ((?:histogram|counter|gauge)[^|]*) \|", PAGE, re.MULTILINE):
        kind, _, unit = row[1].strip().partition(", ")
        for name in re.findall(r"`([^`]+)`", row[0]):
            found[name] = kind, unit
    return found
