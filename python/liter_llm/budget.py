"""Budgets of a router, and what its calls have cost."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Literal

import msgspec

from .errors import ConfigError, unknown_name
from .tables import escaped, html_table, text_table
from .value import Value

_WINDOWS = ("hour", "day", "month")


def _bad(option: str, what: str) -> ConfigError:
    return ConfigError(f"`budget.{option}`: {what}", param=f"budget.{option}")


def _number(option: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _bad(option, f"{value!r} is not a number")


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much calls may cost in an hour, a day or a month of the calendar (UTC).

    A call is reserved for before it is sent and settled when it ends: under any concurrency at most one
    call's worth is spent beyond the limit. Calls whose price is not known are refused under a hard budget.
    """

    usd: float
    """How much may be spent in a window, in US dollars."""
    per: Literal["hour", "day", "month"]
    """The window."""
    scope: str | None = None
    """Which calls count: `router` (all; the default), `tag:<tag>` (calls to deployments that have the tag),
    `key` (each caller's label has a budget of this size), `key:<label>` (that caller's, in place of it)."""
    degrade_to: str | None = None
    """The deployment that calls go to first from `degrade_at` on: its name, or `provider/model`."""
    degrade_at: float | None = None
    """The share of the limit, from 0 to 1, from which calls go to `degrade_to`."""
    hard: bool = True
    """Whether calls are refused at the limit. One that is not hard counts and degrades."""
    path: str | os.PathLike[str] | None = None
    """The SQLite file that keeps what was spent, for all processes that name it; default: in memory. A router
    has one for all its budgets."""

    def __post_init__(self) -> None:
        _number("usd", self.usd)
        if not 0 < self.usd < float("inf"):
            raise _bad("usd", f"{self.usd} is no limit: give US dollars above 0")
        if self.per not in _WINDOWS:
            hint = unknown_name(str(self.per), list(_WINDOWS))
            raise _bad("per", f"{self.per!r} is none of hour, day, month{hint}")
        for option in ("scope", "degrade_to"):
            value: object = getattr(self, option)
            if value is not None and (not isinstance(value, str) or not value):
                raise _bad(option, f"{value!r} is not a text")
        if self.degrade_at is not None:
            _number("degrade_at", self.degrade_at)
        if not isinstance(self.hard, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _bad("hard", f"{self.hard!r} is neither True nor False")
        if self.path is not None:
            path: object = self.path
            if not isinstance(path, (str, os.PathLike)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise _bad("path", f"must be text or a path, not {type(path).__name__}")
            msgspec.structs.force_setattr(self, "path", os.fsdecode(path))  # pyright: ignore[reportUnknownArgumentType]


class BudgetWindow(Value, frozen=True):
    """A window of time, in seconds since 1970: from `start` until before `end`."""

    start: int
    end: int


class BudgetSpend(Value, frozen=True):
    """A budget's window so far; amounts are US dollars."""

    scope: str
    """`router`, `tag:<tag>` or `key:<label>`; for budgets of each key one entry for each label with calls."""
    per: Literal["hour", "day", "month"]
    """The kind of window."""
    window: BudgetWindow
    """The window."""
    limit: Decimal
    """How much may be spent."""
    spent: Decimal
    """Spent by calls that have ended."""
    reserved: Decimal
    """The most that the running calls can cost."""
    calls: int
    """Calls that have ended and were charged."""
    running: int
    """Calls that run."""
    hard: bool
    """Whether calls are refused at the limit."""


class SpendOf(Value, frozen=True):
    """A deployment's or a caller's share."""

    name: str
    """The deployment, or the caller's label."""
    spent: Decimal
    """US dollars."""
    calls: int
    """Calls that were charged."""
    unpriced: int
    """Of these, those whose price is not known; they count as nothing in `spent`."""


class Spend(Value, frozen=True):
    """What a router's calls have cost: since it was made, or since its file was. Printed, it is a table."""

    budgets: list[BudgetSpend] = []
    """The budgets' present windows."""
    deployments: list[SpendOf] = []
    """By deployment, in order of name."""
    keys: list[SpendOf] = []
    """By caller, in order of label."""

    @property
    def total(self) -> Decimal:
        """What all deployments' calls have cost, in US dollars."""
        return sum((one.spent for one in self.deployments), Decimal(0))

    def _tables(self) -> list[tuple[tuple[str, ...], list[list[str]]]]:
        tables: list[tuple[tuple[str, ...], list[list[str]]]] = []
        if self.budgets:
            rows = [
                [one.scope, one.per, str(one.limit), str(one.spent), str(one.reserved), str(one.calls)]
                for one in self.budgets
            ]
            tables.append((("budget", "per", "limit", "spent", "reserved", "calls"), rows))
        for title, shares in (("deployment", self.deployments), ("key", self.keys)):
            if shares:
                rows = [[one.name, str(one.spent), str(one.calls), str(one.unpriced)] for one in shares]
                tables.append(((title, "USD", "calls", "price unknown"), rows))
        return tables

    def __str__(self) -> str:
        parts = [
            text_table(head, rows, right=frozenset(range(1, len(head)))) for head, rows in self._tables()
        ]
        return "\n\n".join([*parts, f"total: {self.total} USD"])

    def _repr_html_(self) -> str:
        parts = [html_table(head, rows) for head, rows in self._tables()]
        return "".join([*parts, f"<div>{escaped(f'total: {self.total} USD')}</div>"])
