"""`liter-llm config`: checks the configuration file, prints its schema."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from liter_llm.config_file import load
from liter_llm.config_schema import schema

from .deployment import client_for


@click.group(
    epilog="""\b
Examples:
  liter-llm config check
  liter-llm config schema > liter-llm.schema.json
"""
)
def config() -> None:
    """Check liter-llm.toml, or print its schema."""


@config.command(
    epilog="""\b
Examples:
  liter-llm config check
  liter-llm config check deploy/liter-llm.toml && echo fine
"""
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(*, file: Path | None) -> None:
    """Check a configuration file as a client would, without sending anything.

    Without FILE it is the one named by LITER_LLM_CONFIG, else the first liter-llm.toml in the working folder
    and those above it. What is wrong is named with file, line and the nearest key; exit code 2.
    """
    loaded = load(file)
    client_for(loaded).close()
    names = ", ".join(
        "/".join(part for part in (one.provider, one.model) if part) for one in loaded.deployments
    )
    click.echo(f"{loaded.path}: no fault found ({names})")


@config.command(
    name="schema",
    epilog="""\b
Examples:
  liter-llm config schema > liter-llm.schema.json
""",
)
def print_schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    click.echo(msgspec.json.format(msgspec.json.encode(schema()), indent=2))
