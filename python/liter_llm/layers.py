"""Options of the layers around a deployment: circuit breaker, hedging, response cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from .errors import ConfigError, unknown_name

_LONGEST = 1e9


class LayerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the layers' options share: immutable, checked when they are read into a `ProviderConfig`."""

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
            value = cls(**given)
        if not isinstance(value, cls):
            raise ConfigError(
                f"`{option}`: must be {cls.__name__}, a dict, True or False, not {type(value).__name__}",
                param=option,
            )
        for name in cls.__struct_fields__:
            value._check(option, name, getattr(value, name))
        return value

    def _check(self, option: str, name: str, value: object) -> None:
        raise NotImplementedError


def _whole(option: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 63:
        raise ConfigError(
            f"`{option}`: `{name}` of {value!r} is not a whole number of at least 1", param=option
        )


def _seconds(option: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _LONGEST:
        raise ConfigError(
            f"`{option}`: `{name}` of {value!r} is not a positive number of seconds", param=option
        )


class CircuitOptions(LayerOptions, frozen=True, kw_only=True):
    """When a deployment's circuit opens and how it closes again."""

    failures: int = 5
    """Failures in a row that open it, and `429`s in a row."""
    open_time: float = 30.0
    """Seconds it stays open."""
    probes: int = 1
    """How many calls at once may try whether the deployment is well again."""

    def _check(self, option: str, name: str, value: object) -> None:
        (_seconds if name == "open_time" else _whole)(option, name, value)


class HedgeOptions(LayerOptions, frozen=True, kw_only=True):
    """A second request for a call that is slow to begin its answer; the slower one is cancelled."""

    after: float | None = None
    """Seconds without a first byte after which the second request is sent; `None`: the 95th percentile of
    this deployment's recent answers."""
    budget: float = 0.05
    """The share of calls that may be hedged."""

    def _check(self, option: str, name: str, value: object) -> None:
        if name == "after":
            if value is not None:
                _seconds(option, name, value)
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            raise ConfigError(
                f"`{option}`: `budget` of {value!r} is not a share above 0 up to 1", param=option
            )


class CacheOptions(LayerOptions, frozen=True, kw_only=True):
    """Exact-match answers kept in memory."""

    max_bytes: int = 64 * 1024 * 1024
    """The most bytes kept."""
    ttl: float = 300.0
    """Seconds an answer is kept."""

    def _check(self, option: str, name: str, value: object) -> None:
        (_seconds if name == "ttl" else _whole)(option, name, value)
