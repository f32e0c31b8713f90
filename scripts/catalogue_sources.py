"""Reads the two public price sources out of their wheels, without running their code.

`genai-prices` keeps its data as Python constructor calls, which are read as syntax; `litellm` keeps JSON.
Both come out as plain rows: a name, limits, features and price entries in USD per million tokens.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

# The unit keys of genai-prices that this catalogue prices, under their names here.
UNITS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write_5m",
    "cache_write_5m_mtok": "cache_write_5m",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
    "cache_audio_read_mtok": "audio_cache_read",
    "input_image_mtok": "image_input",
    "output_image_mtok": "image_output",
    "cache_image_read_mtok": "image_cache_read",
    "output_reasoning_mtok": "reasoning_output",
    "requests_kcount": "requests",
    "web_searches_kcount": "web_searches",
}

# litellm's columns, without the endings for tiers and for ways of processing.
COLUMNS = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write_5m",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "input_cost_per_image_token": "image_input",
    "output_cost_per_reasoning_token": "reasoning_output",
    "input_cost_per_request": "requests",
}
COLUMN = re.compile(
    r"^(?P<base>[a-z_]*?_(?:token|request|cost)(?:_above_1hr)?)"
    r"(?:_above_(?P<above>\d+)k_tokens)?(?:_(?P<mode>batches|flex|priority))?$"
)
MODES = {"batches": "batch", "flex": "flex", "priority": "priority"}
# What is counted by the thousand in the catalogue; everything else is counted by the million.
BY_THOUSAND = {"requests", "web_searches"}

Prices = dict[str, Any]


@dataclass
class Node:
    """One constructor call of genai-prices' data: its name and its keyword arguments."""

    kind: str
    values: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """An argument, or the default when it was not given."""
        value = self.values.get(name)
        return default if value is None else value


def wheel(folder: Path, package: str) -> tuple[Path, str]:
    """The wheel of a package in a folder, and its version."""
    found = sorted(folder.glob(f"{package.replace('-', '_')}-*.whl"))
    if len(found) != 1:
        raise SystemExit(f"expected one wheel of {package} in {folder}, found {len(found)}")
    return found[0], found[0].name.split("-")[1]


def member(path: Path, ending: str) -> str:
    """The text of the one file in a wheel whose name ends so."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(ending)]
        if len(names) != 1:
            raise SystemExit(f"{path.name}: expected one file *{ending}, found {names}")
        return archive.read(names[0]).decode()


def evaluate(node: ast.expr) -> Any:
    """The value of a literal or of a constructor call."""
    match node:
        case ast.Constant():
            return node.value
        case ast.List():
            return [evaluate(item) for item in node.elts]
        case ast.Dict():
            return {
                evaluate(key): evaluate(value)
                for key, value in zip(node.keys, node.values, strict=True)
                if key
            }
        case ast.Call():
            name = ast.unparse(node.func)
            if name == "Decimal":
                return Decimal(evaluate(node.args[0]))
            if name in {"datetime.date", "datetime.time"}:
                return tuple(evaluate(argument) for argument in node.args)
            if node.args:
                raise SystemExit(f"genai-prices: `{name}` with positional arguments is new")
            return Node(name, {item.arg: evaluate(item.value) for item in node.keywords if item.arg})
        case _:
            raise SystemExit(f"genai-prices: unknown form `{ast.unparse(node)[:80]}`")


def genai_providers(path: Path) -> dict[str, Node]:
    """The providers of genai-prices, by id."""
    tree = ast.parse(member(path, "genai_prices/data.py"))
    for statement in tree.body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "providers":
            found = evaluate(statement.value) if statement.value else []
            return {provider.get("id"): provider for provider in found}
    raise SystemExit("genai-prices: no list of providers in its data")


def matches(clause: Node, name: str) -> bool:
    """Whether a matching rule of genai-prices takes a model name, given in lower case."""
    value = next(iter(clause.values.values()))
    match clause.kind:
        case "ClauseEquals":
            return name == value.lower()
        case "ClauseStartsWith":
            return name.startswith(value.lower())
        case "ClauseEndsWith":
            return name.endswith(value.lower())
        case "ClauseContains":
            return value.lower() in name
        case "ClauseRegex":
            return re.search(value, name) is not None
        case "ClauseOr":
            return any(matches(item, name) for item in value)
        case "ClauseAnd":
            return all(matches(item, name) for item in value)
        case _:
            raise SystemExit(f"genai-prices: `{clause.kind}` is new")


def literals(clause: Node) -> list[str]:
    """The names a matching rule spells out."""
    value = next(iter(clause.values.values()))
    if clause.kind in {"ClauseOr", "ClauseAnd"}:
        return [name for item in value for name in literals(item)]
    if clause.kind == "ClauseStartsWith" and not value[-1].isalnum():
        # The beginning of a name, not one.
        return []
    return [value] if clause.kind in {"ClauseEquals", "ClauseStartsWith"} else []


def find(provider: Node, name: str) -> Node | None:
    """The model of a provider that a name means: the first whose rule takes it."""
    return next(
        (model for model in provider.get("models", []) if matches(model.get("match"), name.lower())), None
    )


def _put(prices: Prices, key: str, value: Any) -> None:
    if isinstance(value, Node):
        prices[key] = value.get("base")
        tiers: dict[int, Prices] = prices.setdefault("tiers", {})
        for tier in value.get("tiers", []):
            tiers.setdefault(tier.get("start"), {})[key] = tier.get("price")
    else:
        prices[key] = value


def _genai_prices(node: Node) -> Prices:
    prices: Prices = {}
    # The more specific name for the 5-minute price comes later and wins.
    for unit, value in sorted(node.values.items(), key=lambda item: item[0] == "cache_write_5m_mtok"):
        if unit in UNITS:
            _put(prices, UNITS[unit], value)
    return prices


def _date(constraint: Node | None) -> str | None:
    if constraint is None or constraint.kind != "StartDateConstraint":
        return None
    year, month, day = constraint.get("start_date")
    return f"{year:04}-{month:02}-{day:02}"


def _hours(constraint: Node | None) -> list[str] | None:
    if constraint is None or constraint.kind != "TimeOfDateConstraint":
        return None
    return ["{:02}:{:02}".format(*constraint.get(name)[:2]) for name in ("start_time", "end_time")]


def _modes(variants: list[Node], day: str | None) -> dict[str, Prices]:
    """The prices of other ways of processing on a day. The first variant in force wins, key by key."""
    modes: dict[str, Prices] = {}
    for variant in variants:
        when, start = variant.get("when"), _date(variant.get("constraint"))
        if len(when) != 1 or (start and (day is None or day < start)):
            continue
        name, value = next(iter(when.items()))
        if name not in {"processing", "service_tier", "speed"}:
            continue
        target = modes.setdefault(value, {})
        for key, price in _genai_prices(variant.get("prices")).items():
            target.setdefault(key, price)
    return {name: prices for name, prices in modes.items() if prices}


def genai_entries(model: Node) -> list[Prices]:
    """The price entries of a model, oldest first; of those in force the last one counts."""
    prices, variants = model.get("prices", []), model.get("price_variants", [])
    listed = prices if isinstance(prices, list) else [Node("ConditionalPrice", {"prices": prices})]
    entries: list[Prices] = []
    if any(_hours(item.get("constraint")) for item in listed):
        for item in listed:
            constraint = item.get("constraint")
            entry: Prices = {"from": _date(constraint), "hours": _hours(constraint)}
            entries.append(entry | _genai_prices(item.get("prices")))
        return entries
    starts = [_date(item.get("constraint")) for item in [*listed, *variants]]
    for day in [None, *sorted({start for start in starts if start})]:
        current = [item for item in listed if _date(item.get("constraint")) is None or _before(item, day)]
        standard = _genai_prices((current or listed)[-1 if current else 0].get("prices"))
        entry = {"from": day} | standard | {"modes": _modes(variants, day)}
        if not entries or {**entries[-1], "from": None} != {**entry, "from": None}:
            entries.append(entry)
    return entries


def _before(item: Node, day: str | None) -> bool:
    start = _date(item.get("constraint"))
    return start is not None and day is not None and start <= day


def litellm_rows(path: Path) -> dict[str, dict[str, Any]]:
    """The table of litellm, numbers as exact decimals."""
    text = member(path, "model_prices_and_context_window_backup.json")
    rows = json.loads(text, parse_float=Decimal)
    return {name: row for name, row in rows.items() if name != "sample_spec"}


def litellm_entry(row: dict[str, Any]) -> Prices:
    """The price entry of a row."""
    entry: Prices = {"from": None}
    for column, value in row.items():
        found = COLUMN.match(column)
        if not found or found["base"] not in COLUMNS or isinstance(value, str | bool | dict | list):
            continue
        key = COLUMNS[found["base"]]
        price = Decimal(value) * (1000 if key in BY_THOUSAND else 1_000_000)
        target = entry
        if found["mode"]:
            target = entry.setdefault("modes", {}).setdefault(MODES[found["mode"]], {})
        if found["above"]:
            target = target.setdefault("tiers", {}).setdefault(int(found["above"]) * 1000, {})
        target[key] = price
    # Image tokens at the price of text need no price of their own.
    if entry.get("image_input") == entry.get("input"):
        entry.pop("image_input", None)
    return entry
