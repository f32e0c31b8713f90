"""What a call asks of routing, and the explanation why it went where it went."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

from .errors import InvalidArgumentError, LiterLlmError
from .value import Value


def words(param: str, value: object, refused: type[LiterLlmError] = InvalidArgumentError) -> tuple[str, ...]:
    """A list or set of words, as it is kept; `refused` is raised when it is something else."""
    if isinstance(value, str) or not isinstance(value, Collection):
        raise refused(f"`{param}`: must be a list or set of texts, not {type(value).__name__}", param=param)
    items: list[object] = list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    for item in items:
        if not isinstance(item, str) or not item or not item.isprintable():
            raise refused(f"`{param}`: {item!r} is not a word", param=param)
    known: list[str] = [item for item in items if isinstance(item, str)]
    return tuple(sorted(known) if isinstance(value, (set, frozenset)) else known)


class RouteOptions(Value, frozen=True):
    """What a call asks of routing: `generate(..., route=RouteOptions(regions=["eu"]))`, or as a dict.

    Never sent to a provider.
    """

    regions: Collection[str] = ()
    """Regions the call may go to; empty: all that the router allows."""
    require_tags: Collection[str] = ()
    """Tags a deployment must all have."""
    forbid_tags: Collection[str] = ()
    """Tags a deployment must not have."""
    sticky: str | None = None
    """Calls with the same word (a user, a session, a conversation) get the same share of weighted and canary
    traffic."""
    key: str | None = None
    """Whose budget the call is charged to: a label of the caller's."""
    content_filter_fallback: bool | None = None
    """Whether a call refused by a content filter may go elsewhere; default: as the router says."""

    def __post_init__(self) -> None:
        for name in ("regions", "require_tags", "forbid_tags"):
            value = getattr(self, name)
            if value != ():
                msgspec.structs.force_setattr(self, name, words(name, value))


class RouteCandidate(Value, frozen=True):
    """A deployment that was thought of for a call."""

    deployment: str
    """Its name."""
    ruled_out: str | None = None
    """Why it was ruled out; `None` for one that could be chosen."""
    failed: str | None = None
    """What came of it, for one that the call was sent to and that failed."""
    price: float | None = None
    """The estimated price of the call in USD."""
    latency: float | None = None
    """The latency the policy went by, in seconds."""
    circuit: Literal["closed", "open", "half_open"] = "closed"
    """The state of its circuit."""


class Route(Value, frozen=True):
    """Why a call went where it went. Printed, or shown in a notebook, it is a table."""

    policy: str = ""
    """The policy that put the candidates in order."""
    chosen: str = ""
    """The deployment whose answer or error it is; empty when none was asked."""
    candidates: list[RouteCandidate] = []
    """Those that could be chosen, best first, then those ruled out."""
    unlisted: int = 0
    """How many more candidates there were."""
    arm: Literal["canary", "rest"] | None = None
    """Whose call it is where a canary is compared with the others; `None` for calls that only one side could
    have taken, and without a canary."""
    notes: list[str] = []
    """Remarks: a canary's arm, a degraded budget, a policy that failed."""

    def _rows(self) -> list[list[str]]:
        from .tables import dollars, seconds

        return [
            [
                candidate.deployment,
                self._what_became_of(candidate),
                dollars(candidate.price),
                seconds(candidate.latency),
                candidate.circuit.replace("_", "-"),
            ]
            for candidate in self.candidates
        ]

    def _what_became_of(self, candidate: RouteCandidate) -> str:
        if candidate.ruled_out is not None:
            return f"ruled out: {candidate.ruled_out}"
        if candidate.failed is not None:
            return f"failed: {candidate.failed}"
        return "chosen" if candidate.deployment == self.chosen else "stood by"

    def _remarks(self) -> list[str]:
        more = [f"{self.unlisted} more not listed"] if self.unlisted else []
        return [*more, *self.notes]

    def _title(self) -> str:
        return f"{self.chosen or 'nobody'}, by {self.policy}"

    def __str__(self) -> str:
        from .tables import text_table

        table = text_table(_HEAD, self._rows(), right=frozenset({2, 3}))
        return "\n".join([self._title(), *(f"  {line}" for line in [*table.splitlines(), *self._remarks()])])

    def _repr_html_(self) -> str:
        from .tables import escaped, html_table

        remarks = "".join(f"<div>{escaped(remark)}</div>" for remark in self._remarks())
        return f"<b>{escaped(self._title())}</b>{html_table(_HEAD, self._rows())}{remarks}"


_HEAD = ("deployment", "what became of it", "price", "latency", "circuit")
