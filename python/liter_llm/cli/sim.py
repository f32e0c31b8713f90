"""`liter-llm sim`: the simulator in the foreground."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import Any

import click
import msgspec

from liter_llm.testing import TEST_KEY, Simulator

from .deployment import provider_rows
from .providers import table

# The vendors with formats of their own; all others speak OpenAI's below /NAME/v1.
_SHOWN = ("openai", "anthropic", "azure")
_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@click.command(
    epilog="""\b
Examples:
  liter-llm sim
  liter-llm sim --port 0 --token-interval-ms 20
  liter-llm sim --rules faults.toml

\b
A rule in faults.toml (the first OpenAI request is told to slow down):
  [[rules]]
  match = { provider = "openai", nth = 1 }
  fault = { status = 429, headers = { retry-after = "1" } }
"""
)
@click.option("--host", help="The address to listen on. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port; 0 takes a free one. Default: 8089.")
@click.option("--rules", metavar="FILE", type=_FILE, help="Fault rules, TOML or JSON.")
@click.option("--config", metavar="FILE", type=_FILE, help="All settings, TOML or JSON; options beat it.")
@click.option("--threads", type=click.IntRange(min=1), help="Event loops. Default: 1.")
@click.option(
    "--token-interval-ms", type=click.IntRange(min=0), help="Pause before each streamed token. Default: 0."
)
@click.option("--response-delay-ms", type=click.IntRange(min=0), help="Pause before each answer. Default: 0.")
@click.option("--no-log", is_flag=True, help="Do not keep the requests for /_sim/requests.")
def sim(
    *,
    host: str | None,
    port: int | None,
    rules: Path | None,
    config: Path | None,
    threads: int | None,
    token_interval_ms: int | None,
    response_delay_ms: int | None,
    no_log: bool,
) -> None:
    """Run a simulator of the providers.

    It speaks their formats without a key or a network, answers the same request always the same way, and
    makes the faults the rules ask for. Ctrl-C stops it, with exit code 0.
    """
    options: dict[str, Any] = {"port": 8089} | ({} if config is None else _settings(config))
    given = {
        "host": host,
        "port": port,
        "threads": threads,
        "token_interval_ms": token_interval_ms,
        "response_delay_ms": response_delay_ms,
        "log_requests": False if no_log else None,
    }
    options |= {name: value for name, value in given.items() if value is not None}
    if rules is not None:
        options["rules"] = _rules(rules)
    try:
        server = Simulator(**options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.ClickException(str(error)) from error
    with server:
        try:
            click.echo(_welcome(server))
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)


def _welcome(server: Simulator) -> str:
    known = provider_rows()
    urls = [(f"  {name}", server.base_url(name)) for name in _SHOWN]
    urls.append(("  any other", f"http://{server.address}/NAME/v1"))
    exports: list[str] = []
    for name in _SHOWN:
        row = known[name]
        exports += [f"  export {variable}={server.base_url(name)}" for variable in row["base_url_env"][:1]]
        exports += [f"  export {variable}={TEST_KEY}" for variable in row["api_key_env"][:1]]
    return "\n".join(
        [
            f"Simulator on http://{server.address} (Ctrl-C stops it)",
            "",
            "Base URLs:",
            table(urls),
            "",
            "Paste this where your program runs:",
            *exports,
        ]
    )


def _read(path: Path) -> object:
    """A TOML or JSON file, told by its name."""
    try:
        text = path.read_text(encoding="utf-8")
        return msgspec.json.decode(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
        raise click.UsageError(f"{path}: is not {kind}: {error}") from error


def _settings(path: Path) -> dict[str, Any]:
    try:
        return msgspec.convert(_read(path), dict[str, Any])
    except msgspec.ValidationError as error:
        raise click.UsageError(f"{path}: must be a table of settings") from error


def _rules(path: Path) -> list[dict[str, Any]]:
    found = _read(path)
    if isinstance(found, dict):
        table_of: dict[str, Any] = {str(key): value for key, value in found.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if table_of.keys() != {"rules"}:
            raise click.UsageError(f"{path}: must hold `rules` and nothing else (settings go into --config)")
        found = table_of["rules"]
    try:
        return msgspec.convert(found, list[dict[str, Any]])
    except msgspec.ValidationError as error:
        raise click.UsageError(f"{path}: `rules` must be a list of rules") from error
