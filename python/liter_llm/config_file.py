"""Reads `liter-llm.toml`: a deployment and provider rows of one's own, strictly."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from .config import ConfigDocument, ProviderConfig
from .errors import ConfigError, unknown_name

DEFAULT_NAME = "liter-llm.toml"
PATH_VARIABLE = "LITER_LLM_CONFIG"
_TABLES = ["deployment", "providers"]
_DURATIONS = ("timeout", "connect_timeout", "first_byte_timeout", "idle_timeout")
#: The durations inside the options of a layer.
_LAYER_DURATIONS = {"circuit": "open_time", "hedge": "after", "cache": "ttl"}
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[^}:]*)(?::-(?P<default>[^}]*))?\})")


def read(path: str | os.PathLike[str] | None = None) -> ConfigDocument:
    """Reads a configuration file.

    Args:
        path: The file; without one, `LITER_LLM_CONFIG` names it, else it is `liter-llm.toml` in the working
            folder.

    Raises:
        ConfigError: There is no such file, it is not TOML, or a key is unknown or wrong; the message names
        file and key.
    """
    place = os.fspath(path) if path is not None else os.environ.get(PATH_VARIABLE) or DEFAULT_NAME
    try:
        with open(place, "rb") as file:  # noqa: PTH123
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{place}: cannot be read: {error.strerror or error}", param="path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: is not TOML: {error}", param="path") from error
    return _document(document, place)


def _document(document: dict[str, Any], place: str) -> ConfigDocument:
    for table in document:
        if table not in _TABLES:
            raise ConfigError(f"{place}: `{table}` is unknown{unknown_name(table, _TABLES)}", param=table)
    expanded = {table: _expand(value, place, table) for table, value in document.items()}
    deployment = expanded.get("deployment")
    if not isinstance(deployment, dict):
        raise ConfigError(f"{place}: the table [deployment] is missing", param="deployment")
    options = _without_units(deployment, place)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(options.get("provider"), str) and "model" not in options and "/" in options["provider"]:
        options["provider"], _, options["model"] = options["provider"].partition("/")
    try:
        options.setdefault("provider", None)
        config = ProviderConfig(**options)
    except ConfigError as error:
        raise ConfigError(f"{place}: [deployment] {error}", param=error.param) from error
    providers = expanded.get("providers", {})
    if not isinstance(providers, dict) or not all(isinstance(row, dict) for row in providers.values()):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        raise ConfigError(f"{place}: `providers` must be tables like [providers.my_host]", param="providers")
    return ConfigDocument(config, providers, place)  # pyright: ignore[reportUnknownArgumentType]


def _without_units(deployment: dict[str, Any], place: str) -> dict[str, Any]:
    """The options under their names in code: durations carry their unit in files."""
    options: dict[str, Any] = {}
    for key, value in deployment.items():
        option = key.removesuffix("_seconds") if key.removesuffix("_seconds") in _DURATIONS else key
        if option in options:
            raise ConfigError(
                f"{place}: [deployment] has both `{option}` and `{option}_seconds`", param=option
            )
        duration = _LAYER_DURATIONS.get(option)
        if duration is not None and isinstance(value, dict):
            layer: dict[str, Any] = {**value}
            if f"{duration}_seconds" in layer:
                layer[duration] = layer.pop(f"{duration}_seconds")
            options[option] = layer
            continue
        options[option] = value
    return options


def _expand(value: Any, place: str, key: str) -> Any:
    """`${NAME}` and `${NAME:-default}` become the environment's values; `$$` is a dollar sign."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _variable(match, place, key), value)
    if isinstance(value, Mapping):
        return {name: _expand(item, place, f"{key}.{name}") for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_expand(item, place, f"{key}[{index}]") for index, item in enumerate(value)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return value


def _variable(match: re.Match[str], place: str, key: str) -> str:
    if match.group() == "$$":
        return "$"
    name, default = match.group("name"), match.group("default")
    value = os.environ.get(name)
    if value:
        return value
    if default is not None:
        return default
    raise ConfigError(f"{place}: `{key}`: the environment variable `{name}` is not set", param=key)
