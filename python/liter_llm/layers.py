"""Options of the layers around a deployment: circuit breaker, hedging, response cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from .errors import ConfigError, InvalidArgumentError, unknown_name

_LONGEST = 1e9
_HIGHEST = 1e6


class LayerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the layers' options share: immutable, and checked when they are made.

    Raises:
        InvalidArgumentError: A value is out of range; `param` names the field.
    """

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            wanted = self._wanted(field.name, value)
            if wanted is not None:
                default = "" if field.required else f"; the default is {field.default!r}"
                raise InvalidArgumentError(
                    f"`{field.name}` of {value!r} is not {wanted}{default}",
                    param=field.name,
                )

    @classmethod
    def read(cls, option: str, value: object) -> Self:
        """The options from an instance or a dict.

        Raises:
            ConfigError: A name is unknown or a value out of range; the message names it.
        """
        if isinstance(value, Mapping):
            given: dict[str, Any] = dict(value)  # pyright: ignore[reportUnknownArgumentType]
            known = list(cls.__struct_fields__)
            for name in given:
                if name not in known:
                    raise ConfigError(
                        f"`{option}`: `{name}` is unknown{unknown_name(name, known)}", param=option
                    )
            try:
                return cls(**given)
            except InvalidArgumentError as error:
                raise ConfigError(f"`{option}`: {error}", param=option) from error
            except TypeError as error:  # one that has no default is missing
                raise ConfigError(f"`{option}`: {error}", param=option) from error
        if not isinstance(value, cls):
            raise ConfigError(
                f"`{option}`: must be {cls.__name__}, a dict, True or False, not {type(value).__name__}",
                param=option,
            )
        return value

    def _wanted(self, name: str, value: object) -> str | None:
        """What the field must be where `value` is not it."""
        raise NotImplementedError


def _whole(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 63:
        return "a whole number of at least 1"
    return None


def _seconds(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _LONGEST:
        return "a positive number of seconds"
    return None


def _share(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        return "a share above 0 up to 1"
    return None


class CircuitOptions(LayerOptions, frozen=True, kw_only=True):
    """When a deployment's circuit opens and how it closes again.

    Raises:
        InvalidArgumentError: A value is out of range; `param` names the field.
    """

    failures: int = 5
    """Failures in a row that open it, and `429`s in a row."""
    open_time: float = 30.0
    """Seconds it stays open."""
    probes: int = 1
    """How many calls at once may try whether the deployment is well again."""

    def _wanted(self, name: str, value: object) -> str | None:
        return _seconds(value) if name == "open_time" else _whole(value)


class HedgeOptions(LayerOptions, frozen=True, kw_only=True):
    """A second request for a call that is slow to begin its answer; the slower one is cancelled.

    Raises:
        InvalidArgumentError: A value is out of range; `param` names the field.
    """

    after: float | None = None
    """Seconds without a first byte after which the second request is sent; `None`: the 95th percentile of
    this deployment's recent answers."""
    budget: float = 0.05
    """The share of calls that may be hedged."""

    def _wanted(self, name: str, value: object) -> str | None:
        if name == "budget":
            return _share(value)
        return None if value is None else _seconds(value)


class PriceOptions(LayerOptions, frozen=True, kw_only=True):
    """What a deployment charges, in US dollars for a million tokens: in place of the catalogue's prices."""

    input: float
    """Input."""
    output: float
    """Output, reasoning included."""
    cache_read: float | None = None
    """Input read from the provider's prompt cache; default as `input`."""
    cache_write: float | None = None
    """Input written to the provider's prompt cache; default as `input`."""

    def _wanted(self, name: str, value: object) -> str | None:
        if value is None and name.startswith("cache_"):
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _HIGHEST:
            return "a price in US dollars for a million tokens"
        return None


class CacheOptions(LayerOptions, frozen=True, kw_only=True):
    """Exact-match answers kept in memory.

    Raises:
        InvalidArgumentError: A value is out of range; `param` names the field.
    """

    max_bytes: int = 64 * 1024 * 1024
    """The most bytes kept."""
    ttl: float = 300.0
    """Seconds an answer is kept."""

    def _wanted(self, name: str, value: object) -> str | None:
        return _seconds(value) if name == "ttl" else _whole(value)
