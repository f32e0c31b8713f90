"""`liter-llm models`: the catalogue of models, what they can do and what they cost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from decimal import Decimal

import click
import msgspec

from liter_llm.catalog import Catalog, ModelInfo, data_folder, update
from liter_llm.errors import ConfigError, unknown_name

from .deployment import config_file
from .providers import table

#: The options that ask for a feature, and the feature.
_FEATURES = {
    "tools": "tools",
    "parallel_tools": "parallel_tools",
    "json_schema": "json_schema",
    "reasoning": "reasoning",
    "vision": "image_input",
    "documents": "document_input",
    "audio": "audio_input",
    "caching": "prompt_caching",
}


def catalog() -> Catalog:
    """The catalogue with the rows of the configuration file that counts here."""
    own = None
    if config_file() is not None and not os.environ.get("LITER_LLM_CATALOG"):
        from liter_llm.config_file import load

        own = load().document.get("catalog")
    return Catalog(own)


def _number(value: int | None) -> str:
    if value is None:
        return "?"
    return f"{value:,}"


def _dollars(value: Decimal | None) -> str:
    return "?" if value is None else f"{value:f}"


def _can(info: ModelInfo) -> str:
    shown = [option for option, feature in _FEATURES.items() if info.supports(feature)]
    return " ".join(option.replace("_", "-") for option in shown) or "-"


def _fits(
    info: ModelInfo,
    search: Sequence[str],
    needs: Sequence[str],
    *,
    provider: str | None,
    min_context: int | None,
    max_price: Decimal | None,
) -> bool:
    price = info.price()
    return (
        (provider is None or info.provider == provider)
        and all(word.lower() in info.key for word in search)
        and all(info.supports(_FEATURES[need]) for need in needs)
        and (min_context is None or (info.limits.context or 0) >= min_context)
        and (max_price is None or (price is not None and price <= max_price))
    )


def _show_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def dollars(text: str) -> Decimal:
    """A price as it is typed.

    Raises:
        ValueError: It is no number from 0 up.
    """
    try:
        number = Decimal(text)
    except ArithmeticError:
        raise ValueError(text) from None
    if not number.is_finite() or number < 0:
        raise ValueError(text)
    return number


class _Models(click.Group):
    """A group that lists when no subcommand is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What begins with no subcommand is an option of `list` or a word it looks for."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=_Models,
    epilog="""\b
Examples:
  liter-llm models --provider openai --vision --max-price 1
  liter-llm models claude --min-context 500000 --json
  liter-llm models compare openai/gpt-4o-mini anthropic/claude-haiku-4-5
  liter-llm models update --from models.json
""",
)
def models() -> None:
    """List, filter and compare models; `list` is what happens when no command is named."""


@models.command(
    name="list",
    epilog="""\b
Examples:
  liter-llm models list --provider openai --vision --max-price 1
  liter-llm models claude --min-context 500000 --json
""",
)
@click.argument("words", nargs=-1)
@click.option("--provider", help="Only models of this provider.")
@click.option("--tools", is_flag=True, help="Only models that call tools.")
@click.option("--parallel-tools", is_flag=True, help="Only models that call several tools at once.")
@click.option("--json-schema", is_flag=True, help="Only models whose output keeps to a schema.")
@click.option("--reasoning", is_flag=True, help="Only models that reason.")
@click.option("--vision", is_flag=True, help="Only models that take pictures.")
@click.option("--documents", is_flag=True, help="Only models that take documents.")
@click.option("--audio", is_flag=True, help="Only models that take audio.")
@click.option("--caching", is_flag=True, help="Only models with a prompt cache.")
@click.option("--min-context", type=click.IntRange(min=1), help="Only models with so large a context window.")
@click.option("--max-price", type=dollars, help="The highest price of a million input tokens in US dollars.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known as JSON.")
def list_models(
    words: tuple[str, ...],
    *,
    provider: str | None,
    min_context: int | None,
    max_price: Decimal | None,
    as_json: bool,
    **features: bool,
) -> None:
    """List the models with all these words in their names.

    Prices are US dollars per million tokens; `?` is not known.
    """
    needs = [name for name, wanted in features.items() if wanted]
    rows = list(catalog())
    known = sorted({info.provider for info in rows})
    if provider is not None and provider not in known:
        raise ConfigError(f"`--provider`: `{provider}` has no models here{unknown_name(provider, known)}")
    found = [
        info
        for info in rows
        if _fits(info, words, needs, provider=provider, min_context=min_context, max_price=max_price)
    ]
    if as_json:
        _show_json(found)
        return
    if not found:
        click.echo("No model is known to fit.", err=True)
        return
    lines = [("MODEL", "CONTEXT", "INPUT $", "OUTPUT $", "CAN")]
    for info in found:
        prices = (_dollars(info.price("input")), _dollars(info.price("output")))
        lines.append((info.key, _number(info.limits.context), *prices, _can(info)))
    click.echo(table(lines))


def _facts(info: ModelInfo) -> dict[str, str]:
    facts = {
        "kind": info.kind or "?",
        "context": _number(info.limits.context),
        "most output": _number(info.limits.output),
        "input": " ".join(info.input) or "?",
        "retires": info.retires or "-",
    }
    for unit in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input"):
        facts[f"{unit} $"] = _dollars(info.price(unit))
    for option, feature in _FEATURES.items():
        known = info.supports(feature)
        facts[option.replace("_", " ")] = "?" if known is None else "yes" if known else "no"
    facts["prices from"] = info.sources.get("prices", "-")
    return facts


@models.command(
    epilog="""\b
Examples:
  liter-llm models compare openai/gpt-4o-mini anthropic/claude-haiku-4-5
""",
)
@click.argument("names", nargs=-1, required=True, metavar="MODEL...")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known as JSON.")
def compare(names: tuple[str, ...], *, as_json: bool) -> None:
    """Show models side by side, named as `provider/model`."""
    known = catalog()
    found: list[ModelInfo] = []
    for name in names:
        info = known.get(name)
        if info is None:
            every = [row.key for row in known]
            raise ConfigError(f"`{name}` is not in the catalogue{unknown_name(name, every)}", param="model")
        found.append(info)
    if as_json:
        _show_json(found)
        return
    columns = [_facts(info) for info in found]
    lines = [("", *(info.key for info in found))]
    lines += [(fact, *(column[fact] for column in columns)) for fact in columns[0]]
    click.echo(table(lines))


@models.command(
    name="update",
    epilog="""\b
Examples:
  liter-llm models update --from models.json
  liter-llm models update --from liter_llm-0.2.0-cp311-abi3-manylinux_2_28_x86_64.whl
""",
)
@click.option("--from", "source", required=True, help="A catalogue file, or a wheel of this package.")
def update_models(source: str) -> None:
    """Take a newer catalogue into the user's data folder.

    The file is checked as a whole first; a broken one leaves what is there in place.
    """
    path, count = update(source)
    click.echo(f"{path}: {count:,} models")


@models.command(
    epilog="""\b
Examples:
  liter-llm models where
""",
)
def where() -> None:
    """Show which catalogue counts, and where an updated one would stand."""
    known = catalog()
    click.echo(table([("catalogue", known.path), ("updates go to", data_folder())]))
