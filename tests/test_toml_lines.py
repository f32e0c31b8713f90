"""Lines of keys in TOML: every form a key may have, and texts made at random."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liter_llm.toml_lines import Path, line_of, lines, parse

TEXT = '''# [deployment] in a comment
title = "a [table] = \\"x\\" # no"

[router]
policy = 'priority' # [cache]
regions = [
    "eu", # ]
    "us",
]
[router.budget]
"quoted key" = 1
"with.dot" = """
[deployments]
modle = 1
"""

[[deployments]]
model = "a"
hedge = { after_seconds = 2, budget = 0.1 }
circuit.probes = 3

[[deployments]]
modle = "b"
  [deployments.headers]
  x-a = "1"
[deployments.extra.deep]
list = [{ a = 1 }, { b = [1, 2] }]

[providers."my.host"]
adapter = \'\'\'
openai_chat\'\'\'
base_ulr = 1979-05-27T07:32:00Z
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("title", 2),
        ("router", 4),
        ("router.policy", 5),
        ("router.regions[1]", 8),
        ("router.budget", 10),
        ('router.budget."quoted key"', 11),
        ('router.budget."with.dot"', 12),
        ("deployments", 17),
        ("deployments[0]", 17),
        ("deployments[0].hedge.after", 19),
        ("deployments[0].hedge.budget", 19),
        ("deployments[0].circuit.probes", 20),
        ("deployments[1]", 22),
        ("deployments[1].modle", 23),
        ("deployments[1].headers.x-a", 25),
        ("deployments[1].extra.deep.list[1].b[0]", 27),
        ('providers."my.host".base_ulr', 32),
        # What is not there is looked for in the table around it.
        ("deployments[1].api_key", 22),
        ("router.nothing.at.all", 4),
        ("nowhere", None),
        ("", None),
    ],
)
def test_every_form_of_key(path: str, line: int | None) -> None:
    tomllib.loads(TEXT)
    assert line_of(lines(TEXT), parse(path)) == line


def test_line_ends_of_windows() -> None:
    text = "[a]\r\nb = 1\r\n# c\r\nc = [\r\n1,\r\n2]\r\nd = 1\r\n"
    assert line_of(lines(text), ("d",)) is None
    assert line_of(lines(text), ("a", "d")) == 7


KEYS = st.text(st.sampled_from("ab-_1. \"'\\é"), min_size=1, max_size=4)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.integers(-9, 9), st.booleans(), st.text(st.sampled_from("ab#[]{}=,.'\"\\\n"), max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)
TABLES = st.lists(
    st.tuples(
        KEYS, st.booleans(), st.dictionaries(KEYS, VALUES, max_size=3), st.sampled_from(["", "#x\n", "\n"])
    ),
    max_size=5,
    unique_by=lambda table: table[0],
)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def written(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            if "'''" not in value and not value.startswith("\n") and not value.endswith("'"):
                return f"'''{value}'''"
            return quoted(value)
        case list():
            return "[" + "".join(f"\n{written(item)}, # ]\n" for item in value) + "]"  # pyright: ignore[reportUnknownVariableType]
        case dict():
            pairs = (f"{quoted(name)} = {written(item)}" for name, item in value.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            return "{" + ", ".join(pairs) + "}"
        case _:
            return str(value)


@settings(max_examples=150, deadline=None)
@given(TABLES)
def test_tables_made_at_random(tables: list[tuple[str, bool, dict[str, Any], str]]) -> None:
    text = ""
    expected: dict[Path, int] = {}
    for name, repeated, values, between in tables:
        for element in range(2 if repeated else 1):
            begin: Path = (name, element) if repeated else (name,)
            text += between
            expected[begin] = text.count("\n") + 1
            text += f"[[ {quoted(name)} ]]\n" if repeated else f"[{quoted(name)}] # x\n"
            for key, value in values.items():
                expected[(*begin, key)] = text.count("\n") + 1
                text += f"{quoted(key)} = {written(value)}\n"
    tomllib.loads(text)
    found = lines(text)
    assert {path: found.get(path) for path in expected} == expected
