"""`liter-llm providers`: the providers that need no configuration but a key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec

from .deployment import provider_rows


def first_set(names: Sequence[str]) -> str | None:
    """The first of these environment variables that is set and not empty."""
    return next((name for name in names if os.environ.get(name)), None)


def key_status(row: Mapping[str, Any]) -> str:
    """`yes` or `no`: whether a key is in the environment; `not needed` where there may be none."""
    if first_set(row["api_key_env"]):
        return "yes"
    return "not needed" if row["auth"] in ("none", "optional") else "no"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lines with aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


@click.command(
    epilog="""\b
Examples:
  liter-llm providers
  liter-llm providers --json | jq -r 'keys[]'
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print all that is known of each provider as JSON.")
def providers(*, as_json: bool) -> None:
    """List the providers.

    Shown are name, base URL, the variable the key is taken from, and whether it is set.
    """
    rows = provider_rows()
    if as_json:
        facts = {
            name: {**row, "key_set": first_set(row["api_key_env"]) is not None} for name, row in rows.items()
        }
        click.echo(msgspec.json.format(msgspec.json.encode(facts), indent=2))
        return
    lines = [("NAME", "BASE URL", "KEY VARIABLE", "KEY SET")]
    for name, row in rows.items():
        base_url = row["base_url"] or f"(set {' or '.join(row['base_url_env'])})"
        lines.append((name, base_url, " or ".join(row["api_key_env"]) or "-", key_status(row)))
    click.echo(table(lines))
