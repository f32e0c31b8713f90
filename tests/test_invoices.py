"""Golden invoices: usage records and what they cost, to a billionth of a dollar.

Most are compared with genai-prices' own calculator, run here; the others carry their arithmetic, line by
line, and where their prices stand. `unknown` records have no cost, and why.
"""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage as GenaiUsage
from genai_prices import calc_price

from liter_llm import Catalog, Usage
from liter_llm.catalog import SHIPPED

RECORDS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("invoices.json").read_text())
EXACT = Decimal("1e-9")
THOUSAND = {"requests", "web_searches"}


def named(records: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(record, id=f"{record['model']} {record['name']}") for record in records]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(base=SHIPPED)


def price(catalog: Catalog, record: dict[str, Any]) -> Any:
    return catalog.cost(
        record["model"],
        Usage.from_dict(record["usage"]),
        at=datetime.fromisoformat(record["at"]),
        mode=record.get("mode"),
        service_tier=record.get("service_tier"),
    )


def by_genai(record: dict[str, Any]) -> Decimal:
    """The total by genai-prices, for the same usage in its words."""
    usage = Usage.from_dict(record["usage"])
    counts: dict[str, int] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    counts["cache_read_tokens"] = usage.cache_read_input_tokens
    counts["cache_write_tokens"] = usage.cache_creation_input_tokens
    counts["cache_write_1h_tokens"] = usage.cache_creation_1h_input_tokens
    counts["output_reasoning_tokens"] = usage.reasoning_output_tokens
    counts["web_searches"] = usage.web_search_requests
    calculated = calc_price(
        GenaiUsage(**counts),
        record["model"].partition("/")[2],
        provider_id=record["genai_prices"]["provider"],
        genai_request_timestamp=datetime.fromisoformat(record["at"]),
        price_context=record["genai_prices"].get("price_context"),
    )
    return calculated.total_price


def test_there_are_enough_of_each_kind() -> None:
    assert len(RECORDS) >= 60
    assert sum("genai_prices" in record for record in RECORDS) >= 40
    names = [(record["model"], record["name"]) for record in RECORDS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("record", named([record for record in RECORDS if "genai_prices" in record]))
def test_agrees_with_genai_prices(catalog: Catalog, record: dict[str, Any]) -> None:
    cost = price(catalog, record)
    assert cost is not None
    assert cost.total > 0
    assert abs(cost.total - by_genai(record)) < EXACT
    assert sum(part.amount for part in cost.parts) == cost.total


@pytest.mark.parametrize("record", named([record for record in RECORDS if "lines" in record]))
def test_agrees_with_the_written_arithmetic(catalog: Catalog, record: dict[str, Any]) -> None:
    assert record["source"].startswith("https://")
    cost = price(catalog, record)
    assert cost is not None
    assert [[part.what, part.units, str(part.price)] for part in cost.parts] == record["lines"]
    factor = Decimal(record.get("factor", "1"))
    expected = Decimal(0)
    for what, units, dollars in record["lines"]:
        amount = units * Decimal(dollars) / (1_000 if what in THOUSAND else 1_000_000)
        expected += amount if what in THOUSAND else amount * factor
    assert cost.total == expected
    assert cost.currency == "USD"


@pytest.mark.parametrize("record", named([record for record in RECORDS if "unknown" in record]))
def test_an_unknown_price_is_no_cost(catalog: Catalog, record: dict[str, Any]) -> None:
    assert price(catalog, record) is None
