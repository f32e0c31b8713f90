"""Experiments of a router: a canary with its guard, mirrored traffic, and how they do."""

from __future__ import annotations

from typing import Literal

import msgspec

from .errors import ConfigError
from .value import Value

_ALL = 100
_MOST_FACTOR = 1000
_LONGEST = 1e9
_MOST_ALPHA = 0.5


def _bad(option: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(f"`{option}`: {value!r} is not {wanted}", param=option)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_share(option: str, percent: float) -> None:
    if not _is_number(percent) or not 0 <= percent <= _ALL:
        raise _bad(option, percent, "a number from 0 to 100")


def _check_deployment(option: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise _bad(option, name, "the name of a deployment, its model or `provider/model`")


class Guard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a canary is rolled back: when it fails more often, is slower or dearer than the others.

    Raises:
        ConfigError: A value is out of range; `param` names the option.
    """

    error_rate: bool = True
    """Whether failures are compared."""
    latency: float | bool = 2.0
    """So many times slower than the others is too slow; False: not compared."""
    cost: float | bool = 2.0
    """So many times as dear as the others is too dear; False: not compared."""
    window: float = 3600.0
    """Seconds a comparison lasts before the next begins; longer with fewer than 2,000 calls."""
    min_calls: int = 10
    """Calls of the canary, and of the others, before anything is decided."""
    alpha: float = 0.05
    """The chance that a canary as good as the others is ever rolled back is at most this."""

    def __post_init__(self) -> None:
        place = "canary.guard"
        if not isinstance(self.error_rate, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _bad(f"{place}.error_rate", self.error_rate, "True or False")
        for option in ("latency", "cost"):
            value: object = getattr(self, option)
            if isinstance(value, bool):
                continue
            if not isinstance(value, (int, float)) or not 1 <= value <= _MOST_FACTOR:
                raise _bad(f"{place}.{option}", value, "a factor from 1 to 1000; False switches it off")
        if not _is_number(self.window) or not 0 < self.window <= _LONGEST:
            raise _bad(f"{place}.window", self.window, "a positive number of seconds")
        whole = _is_number(self.min_calls) and not isinstance(self.min_calls, float)
        if not whole or not 1 <= self.min_calls < 1 << 63:
            raise _bad(f"{place}.min_calls", self.min_calls, "a whole number of at least 1")
        if not _is_number(self.alpha) or not 0 < self.alpha <= _MOST_ALPHA:
            raise _bad(f"{place}.alpha", self.alpha, "a probability above 0 up to 0.5")


class Canary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A deployment that gets a share of the calls, and none any more once it is worse than the others.

    Calls with the same `sticky` word in their route stay with it or without it. A call that fails at the
    canary goes to another deployment. Other calls go to it only when all others fail.

    Raises:
        ConfigError: A value is out of range; `param` names the option.
    """

    model: str
    """The deployment: its name, its model or `provider/model`. One of the router's."""
    percent: float
    """The share of the calls it gets, 0 to 100."""
    guard: Guard | bool = True
    """When it is rolled back. False: never."""

    def __post_init__(self) -> None:
        _check_deployment("canary.model", self.model)
        _check_share("canary.percent", self.percent)
        if not isinstance(self.guard, (bool, Guard)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _bad("canary.guard", self.guard, "a Guard, True or False")


class Mirror(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A deployment that gets copies of calls; nobody waits for its answers.

    Calls of its own go to it only when all others fail.

    Raises:
        ConfigError: A value is out of range; `param` names the option.
    """

    to: str
    """The deployment: its name, its model or `provider/model`. One of the router's."""
    percent: float
    """The share of the calls that are copied, 0 to 100."""

    def __post_init__(self) -> None:
        _check_deployment("mirror.to", self.to)
        _check_share("mirror.percent", self.percent)


class CanaryArm(Value, frozen=True):
    """What one side of a comparison has done since the canary began."""

    calls: int
    """Calls compared."""
    errors: int
    """Of these, those that failed through the deployment's fault."""
    latency: float | None = None
    """The mean seconds to an answer, or to a stream's first chunk."""
    cost: float | None = None
    """The mean cost of a call in US dollars; `None` while no price is known."""


class CanaryArms(Value, frozen=True):
    """Both sides of a comparison."""

    canary: CanaryArm
    """The canary."""
    incumbent: CanaryArm
    """The deployments it is compared with."""


class CanaryEvidence(Value, frozen=True):
    """What speaks against a canary in the window at hand, in one respect."""

    measure: Literal["error_rate", "latency", "cost"]
    """What is compared."""
    events: int
    """Failed, slow or dear calls."""
    canary: int
    """Of these, the canary's."""
    expected: float
    """How many of them are expected to be the canary's when it is as good as the others."""
    limit: int
    """With so many of the canary's it is rolled back."""
    p_value: float
    """The chance of at least so many in a single look."""


class CanaryReport(Value, frozen=True):
    """How a canary does."""

    model: str
    """The deployment, as the configuration names it."""
    deployment: str
    """The deployment's name."""
    percent: float
    """Its share of the calls, 0 to 100."""
    state: Literal["running", "rolled_back"]
    """Whether it gets calls."""
    arms: CanaryArms
    """What it and the others have done."""
    evidence: list[CanaryEvidence]
    """What speaks against it in the window at hand."""
    reason: str | None = None
    """Why it was rolled back."""


class MirrorReport(Value, frozen=True):
    """How the copies of calls do."""

    to: str
    """The deployment, as the configuration names it."""
    percent: float
    """The share of the calls that are copied, 0 to 100."""
    sent: int
    """Copies sent."""
    dropped: int
    """Copies not sent because too many were on their way."""
    errors: int
    """Of those sent, the ones that failed in whatever way."""
    in_flight: int
    """Copies on their way."""
    latency: float | None = None
    """The mean seconds to a whole answer."""
    cost: float | None = None
    """What the copies cost altogether in US dollars, as far as prices are known."""


def read_canary(value: object) -> Canary | None:
    """A canary as a router takes it.

    Raises:
        ConfigError: It is none.
    """
    if value is not None and not isinstance(value, Canary):
        raise ConfigError(f"`canary`: must be a Canary, not {type(value).__name__}", param="canary")
    return value


def read_mirror(value: object) -> Mirror | None:
    """A mirror as a router takes it.

    Raises:
        ConfigError: It is none.
    """
    if value is not None and not isinstance(value, Mirror):
        raise ConfigError(f"`mirror`: must be a Mirror, not {type(value).__name__}", param="mirror")
    return value
