"""Finds the deployment a command is about: option, environment, configuration file, in this order."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from liter_llm._native import providers as native_providers
from liter_llm.client import LiterLLM
from liter_llm.config import ConfigDocument, ProviderConfig
from liter_llm.config_file import DEFAULT_NAME, PATH_VARIABLE, Loaded, find, load
from liter_llm.errors import ConfigError

MODEL_VARIABLE = "LITER_LLM_MODEL"


def provider_rows() -> dict[str, dict[str, Any]]:
    """The rows of the providers known without configuration, in the order they are listed to users."""
    return msgspec.json.decode(native_providers(), type=dict[str, dict[str, Any]])


def config_file() -> str | None:
    """The configuration file that counts here; `None` when there is none.

    A file named by the environment counts even when it is missing, so that the mistake is seen.
    """
    return os.environ.get(PATH_VARIABLE) or find()


def choose(model: str | None) -> ConfigDocument | Loaded:
    """The deployment for `provider/model`, else for the environment, else the configuration file's.

    Raises:
        ConfigError: Nothing says which model; or what says it is wrong.
    """
    text = model or os.environ.get(MODEL_VARIABLE)
    place = config_file()
    if text:
        if not all(text.partition("/")):
            source = "`--model`" if model else MODEL_VARIABLE
            raise ConfigError(
                f"{source}: {text!r} is not `provider/model`, for instance `openai/gpt-4o-mini`",
                param="model",
            )
        config = ProviderConfig.from_string(text)
        # A name nobody knows may be a row of the file; for the others a broken file is no obstacle.
        own = place is not None and config.provider not in provider_rows()
        return ConfigDocument(config, load().providers if own else {})
    if place is not None:
        return load()
    raise ConfigError(
        "no model chosen: give `-m provider/model` (for instance `-m openai/gpt-4o-mini`), "
        f"set {MODEL_VARIABLE}, or write {DEFAULT_NAME}; `liter-llm providers` lists the providers",
        param="model",
    )


def changed(document: ConfigDocument | Loaded, changes: dict[str, Any]) -> ConfigDocument | Loaded:
    """The document with options of its deployments replaced; `None` changes nothing."""
    given = {name: value for name, value in changes.items() if value is not None}
    if isinstance(document, Loaded):
        return document.changed(given)
    return (
        msgspec.structs.replace(document, deployment=document.deployment.replace(**given))
        if given
        else document
    )


def client_for(document: ConfigDocument | Loaded) -> LiterLLM:
    """A client for the document.

    Raises:
        ConfigError, MissingKeyError: It cannot work.
    """
    if isinstance(document, Loaded):
        return LiterLLM._over_file(document, watch=False)  # pyright: ignore[reportPrivateUsage]
    client = LiterLLM.__new__(LiterLLM)
    client._set_up(document, None)  # pyright: ignore[reportPrivateUsage]
    return client
