"""What of a client is read when the host collects its metrics: how it stands, and what its engine counts."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry.metrics import CallbackOptions, Observation

from liter_llm._native import EngineError
from liter_llm.budget import BudgetSpend, Spend
from liter_llm.experiments import CanaryReport, MirrorReport
from liter_llm.types import DeploymentState

from . import names
from .names import Metric

if TYPE_CHECKING:
    from .observer import Observer

_decode_states = msgspec.json.Decoder(list[DeploymentState]).decode
_decode_spend = msgspec.json.Decoder(Spend).decode
_decode_canary = msgspec.json.Decoder(CanaryReport | None).decode
_decode_mirror = msgspec.json.Decoder(MirrorReport | None).decode

Label = Callable[[str], str]
"""Gives a name as a label: itself, or `other` for one too many."""


def _circuit(state: DeploymentState) -> int:
    return names.CIRCUIT_STATES[state.circuit]


class _Totals:
    """Counts of clients, added up. They never go back: what a client has counted stays when it is gone."""

    def __init__(self, read: Callable[[Observer], Mapping[tuple[str, ...], int]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._seen: weakref.WeakKeyDictionary[Observer, dict[tuple[str, ...], int]] = (
            weakref.WeakKeyDictionary()
        )
        self._totals: dict[tuple[str, ...], int] = {}

    def add(self, observer: Observer) -> None:
        """Adds what a client has counted since the last look."""
        with suppress(EngineError), self._lock:  # closed
            seen = self._seen.setdefault(observer, {})
            for labels, count in self._read(observer).items():
                # Parts of a count are read one after the other, and may seem to go back by one.
                new = max(0, count - seen.get(labels, 0))
                seen[labels] = seen.get(labels, 0) + new
                self._totals[labels] = self._totals.get(labels, 0) + new

    def all(self, observers: Iterable[Observer]) -> dict[tuple[str, ...], int]:
        """Every count as it is now."""
        for observer in observers:
            self.add(observer)
        with self._lock:
            return dict(self._totals)

    def renew(self) -> None:
        """In a forked child: clients begin at zero, and nobody holds the lock."""
        self._lock = threading.Lock()
        self._seen = weakref.WeakKeyDictionary()


class States:
    """How the clients of one meter stand. They are held weakly, and one that is closed has no state."""

    def __init__(self, meter: Any, deployment: Label, budget: Label) -> None:
        self._deployment, self._budget = deployment, budget
        self._watched: weakref.WeakSet[Observer] = weakref.WeakSet()
        self._watching = threading.Lock()
        self._dropped, self._copies = _Totals(_dropped), _Totals(self._copied)

        def observed(metric: Metric, create: Callable[..., object], read: Callable[[], Any]) -> None:
            def observe(_options: CallbackOptions) -> Iterable[Observation]:
                return list(read())

            create(metric.name, [observe], metric.unit, metric.description)

        gauge, counter = meter.create_observable_gauge, meter.create_observable_counter
        observed(names.CIRCUIT_STATE, gauge, lambda: self._states(_circuit, max))
        observed(names.QUEUE_DEPTH, gauge, lambda: self._states(lambda state: state.waiting, max))
        observed(names.IN_FLIGHT, gauge, lambda: self._states(lambda state: state.in_flight, sum))
        observed(names.BUDGET_SPENT, gauge, lambda: self._budgets("spent"))
        observed(names.BUDGET_LIMIT, gauge, lambda: self._budgets("limit"))
        observed(names.CANARY_ROLLED_BACK, gauge, self._canaries)
        observed(names.MIRROR_CALLS, counter, self._mirrors)
        observed(names.RECORDS_DROPPED, counter, self._drops)
        _all.add(self)

    def watch(self, observer: Observer) -> None:
        """Its engine's state is read when metrics are collected, for as long as it lives."""
        with self._watching:
            self._watched.add(observer)

    def leave(self, observer: Observer) -> None:
        """It is about to be closed: what it has counted is read for the last time."""
        if observer in self._watchers():
            self._dropped.add(observer)
            self._copies.add(observer)

    def renew(self) -> None:
        """In a forked child: nobody holds a lock there."""
        self._watching = threading.Lock()
        self._dropped.renew()
        self._copies.renew()

    def _watchers(self) -> list[Observer]:
        with self._watching:
            return list(self._watched)

    def _states(
        self, read: Callable[[DeploymentState], int], within: Callable[[list[int]], int]
    ) -> Iterator[Observation]:
        """A number of each deployment; of several models or keys of one, what `within` makes of theirs."""
        found: dict[str, list[int]] = {}
        for observer in self._watchers():
            own: dict[str, list[int]] = {}
            with suppress(EngineError):  # closed
                for state in _decode_states(observer.engine.state()):
                    own.setdefault(state.deployment, []).append(read(state))
            for deployment, values in own.items():
                found.setdefault(deployment, []).append(within(values))
        # Clients of their own with a deployment of the same name: their calls add up, circuits do not.
        between = max if read is _circuit else sum
        folded: dict[str, list[int]] = {}
        for deployment, values in found.items():
            folded.setdefault(self._deployment(deployment), []).extend(values)
        for deployment, values in folded.items():
            yield Observation(between(values), {names.DEPLOYMENT: deployment})

    def _budgets(self, field: str) -> Iterator[Observation]:
        # Of callers' budgets there may be any number; of those without a name of their own, and of the same
        # budget in several clients, the one that is used up furthest is shown.
        fullest: dict[str, BudgetSpend] = {}
        for observer in self._watchers():
            with suppress(EngineError):  # closed, or the budgets' file cannot be read
                for budget in _decode_spend(observer.engine.spend()).budgets:
                    name = self._budget(f"{budget.scope}/{budget.per}")
                    known = fullest.get(name)
                    if known is None or budget.spent * known.limit > known.spent * budget.limit:
                        fullest[name] = budget
        for name, budget in fullest.items():
            yield Observation(float(getattr(budget, field)), {names.BUDGET: name})

    def _canaries(self) -> Iterator[Observation]:
        # Of several clients' canaries of one name it is enough that one was rolled back.
        found: dict[str, bool] = {}
        for observer in self._watchers():
            with suppress(EngineError):  # closed
                report = _decode_canary(observer.engine.canary())
                if report is not None:
                    name = self._deployment(report.deployment)
                    found[name] = found.get(name, False) or report.state == "rolled_back"
        for name, rolled_back in found.items():
            yield Observation(int(rolled_back), {names.DEPLOYMENT: name})

    def _copied(self, observer: Observer) -> dict[tuple[str, ...], int]:
        report = _decode_mirror(observer.engine.mirror())
        if report is None:
            return {}
        name = self._deployment(report.to)
        return {
            (name, "answered"): max(0, report.sent - report.errors - report.in_flight),
            (name, "failed"): report.errors,
            (name, "dropped"): report.dropped,
        }

    def _mirrors(self) -> Iterator[Observation]:
        for (name, outcome), count in self._copies.all(self._watchers()).items():
            yield Observation(count, {names.DEPLOYMENT: name, names.OUTCOME: outcome})

    def _drops(self) -> Iterator[Observation]:
        for count in self._dropped.all(self._watchers()).values():
            yield Observation(count)


def _dropped(observer: Observer) -> dict[tuple[str, ...], int]:
    return {(): observer.engine.dropped()}


_all: weakref.WeakSet[States] = weakref.WeakSet()


def leave(observer: Observer) -> None:
    """It is about to be closed: every meter that has it reads it for the last time."""
    for states in list(_all):
        states.leave(observer)
