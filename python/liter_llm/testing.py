"""A server that speaks the providers' formats, for tests of programs that use this package.

>>> from liter_llm import LiterLLM
>>> from liter_llm.testing import Simulator
>>> with Simulator() as sim:
...     client = LiterLLM(sim.config("openai", model="gpt-4o-mini"))
...     assert client.generate(prompt="Hello").text
...     assert len(sim.requests) == 1
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableSequence
from typing import TYPE_CHECKING, Any, Self, overload

import msgspec

from ._native import Simulator as _Server
from .config import ProviderConfig

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["RequestRecord", "Rules", "Simulator", "Stats"]

#: The key that `Simulator.config` gives; the simulator takes any that does not contain "wrong" or "invalid".
TEST_KEY = "sk-simulator"


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request the simulator has seen. Times are seconds since 1970."""

    sequence: int
    connection_id: int
    at: float
    method: str
    path: str
    query: str = ""
    headers: list[tuple[str, str]] = []
    #: The body as JSON; `None` when there was none or it was no JSON (then see `body_text`).
    body: Any = None
    body_text: str | None = None
    provider: str = ""
    #: The id of the fault rule that was applied.
    rule: str | None = None
    #: Whether the client went away before the answer was complete, and when.
    client_closed: bool = False
    client_closed_at: float | None = None
    answered_at: float | None = None

    def header(self, name: str) -> str | None:
        """The value of a header, whatever its case; `None` when it was not sent."""
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since the start."""

    requests: int
    connections_opened: int
    open_connections: int
    tokens_issued: int


_decode_requests = msgspec.json.Decoder(list[RequestRecord]).decode
_decode_stats = msgspec.json.Decoder(Stats).decode


class Rules(MutableSequence[dict[str, Any]]):
    """The fault rules, in order; every change holds from the next request on.

    A rule is `{"match": {...}, "fault": {...}}`; what may stand in them is in `docs/simulator.md`. Counting
    (`nth`, `times`) begins anew with every change.
    """

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._rules: list[dict[str, Any]] = []

    def _set(self, rules: list[dict[str, Any]]) -> None:
        self._server.set_rules(msgspec.json.encode(rules))
        self._rules = rules

    def replace(self, rules: Iterable[Mapping[str, Any]]) -> None:
        """Puts these rules in place of all others.

        Raises:
            ValueError: A rule is malformed; the message names the field.
        """
        self._set([dict(rule) for rule in rules])

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Rules: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | Rules:
        if isinstance(index, slice):
            raise TypeError("rules are read one at a time, or all with list(rules)")
        return self._rules[index]

    def __setitem__(self, index: int | slice, value: Any) -> None:
        changed = list(self._rules)
        changed[index] = value
        self._set(changed)

    def __delitem__(self, index: int | slice) -> None:
        changed = list(self._rules)
        del changed[index]
        self._set(changed)

    def insert(self, index: int, value: Mapping[str, Any]) -> None:
        """Puts a rule before position `index`."""
        changed = list(self._rules)
        changed.insert(index, dict(value))
        self._set(changed)

    def clear(self) -> None:
        """Takes all rules away."""
        self._set([])

    def __len__(self) -> int:
        return len(self._rules)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(list(self._rules))

    def __repr__(self) -> str:
        return f"Rules({self._rules!r})"


class Simulator:
    """A running simulator in this process, on a free port of 127.0.0.1 unless told otherwise.

    Args:
        rules: Fault rules to begin with.
        **options: See `docs/simulator.md`: `host`, `port`, `keys`, `token_interval_ms`, `response_delay_ms`,
            `token_lifetime_seconds`, `log_requests`, ...

    Raises:
        ValueError: An option or rule is malformed; the message names it.
        OSError: The port is taken.
    """

    def __init__(self, *, rules: Iterable[Mapping[str, Any]] = (), **options: Any) -> None:
        self._server = _Server(msgspec.json.encode(options))
        self._rules = Rules(self._server)
        rules = list(rules)
        if rules:
            self._rules.replace(rules)

    def base_url(self, provider: str) -> str:
        """What to give as `base_url` for this provider.

        Raises:
            ValueError: The simulator does not speak for it.
        """
        return self._server.base_url(provider)

    @property
    def address(self) -> str:
        """`host:port`."""
        return self._server.address()

    def config(self, provider: str, *, model: str = "test-model", **options: Any) -> ProviderConfig:
        """A configuration that points at the simulator, with a test key; `options` are `ProviderConfig`'s.

        Its calls pass by the proxies of the environment, which could not reach this machine.
        """
        options.setdefault("api_key", TEST_KEY)
        options.setdefault("base_url", self.base_url(provider))
        options.setdefault("proxy", "direct")
        return ProviderConfig(provider=provider, model=model, **options)

    @property
    def rules(self) -> Rules:
        """The fault rules; may be assigned to."""
        return self._rules

    @rules.setter
    def rules(self, rules: Iterable[Mapping[str, Any]]) -> None:
        self._rules.replace(rules)

    @property
    def requests(self) -> list[RequestRecord]:
        """The requests seen so far, oldest first."""
        return _decode_requests(self._server.requests())

    def clear_requests(self) -> None:
        """Forgets the requests seen so far."""
        self._server.clear()

    @property
    def stats(self) -> Stats:
        """Counters since the start."""
        return _decode_stats(self._server.stats())

    def stop(self) -> None:
        """Stops the server and closes its connections."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Simulator({self.address})"
