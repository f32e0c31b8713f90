"""What the engine tells of a call for its spans and metrics: lists by position, as `told.rs` writes them.

`who` and `where` are left as text: they are the same for many calls, and what was made of one is kept
under it.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec


class Who(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What many calls have in common."""

    operation: str
    provider: str
    model: str
    model_label: str
    """`model` as a label of a metric."""
    response_model: str | None
    response_model_label: str | None
    deployment: str
    region: str | None
    server_address: str | None
    server_port: int | None
    error: str | None
    """The error's kind."""


class Where(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What many attempts have in common."""

    deployment: str
    provider: str
    model: str
    region: str | None
    server_address: str | None
    server_port: int | None
    error: str | None
    """The error's kind."""


class ToldAttempt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request that was sent."""

    where: msgspec.Raw
    began: int
    """Nanoseconds since 1970."""
    ended: int
    seconds: float
    cause: str | None
    attributes: dict[str, Any]
    """What its span says beyond `where`."""


class Told(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One call."""

    who: msgspec.Raw
    began: int
    """Nanoseconds since 1970."""
    ended: int
    seconds: float
    attributes: dict[str, Any]
    """What its span says beyond `who`."""
    attempts: list[ToldAttempt]
    usage: tuple[int, int, int, int, int] | None
    """Tokens of input, of output, read from a cache, written to one, and of reasoning."""
    cost: float | None
    """US dollars."""
    cache: int
    """1 for an answer from the cache, 2 for one that was not there."""
    first_chunk: float | None = None
    chunk_seconds: list[float] = []
    compared: tuple[str, float] | None = None
    """Where a canary is compared: whose call it is, and the seconds that the guard sees."""


HIT, MISS = 1, 2

decode_told = msgspec.json.Decoder(Told).decode
decode_who = msgspec.json.Decoder(Who).decode
decode_where = msgspec.json.Decoder(Where).decode
_encode = msgspec.json.Encoder().encode


#: How many texts are kept of what calls, or attempts, have in common.
_MOST_KEPT = 512
T = TypeVar("T")


def keep(known: dict[bytes, T], text: bytes, made: T) -> T:
    """Remembers what was made of a `who` or `where`; of too many different ones all are forgotten."""
    if len(known) >= _MOST_KEPT:
        known.clear()
    known[text] = made
    return made


def unbegun(began: int, ended: int, operation: str, model: str, error: str) -> Told:
    """The same of a call that the engine refused, or that nobody began to read."""
    who = Who(operation, "", model, model, None, None, "", None, None, None, error)
    seconds = max(0, ended - began) / 1e9
    return Told(msgspec.Raw(_encode(who)), began, max(began, ended), seconds, {}, [], None, None, 0)
