"""Metrics made of calls' records, with the host's meter. Imported at the first call that is recorded."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry.metrics import CallbackOptions, Observation

from liter_llm import __version__
from liter_llm._native import EngineError
from liter_llm.budget import BudgetSpend, Spend
from liter_llm.errors import _Classes  # pyright: ignore[reportPrivateUsage]
from liter_llm.types import DeploymentState

from . import names
from .names import Metric

if TYPE_CHECKING:
    from liter_llm.types import Usage

    from .observer import Observer
    from .record import CallAttempt, CallRecord

_decode_states = msgspec.json.Decoder(list[DeploymentState]).decode
_decode_spend = msgspec.json.Decoder(Spend).decode
#: Labels of what a call cost, and of its attempts: fields of the record, where there is something.
_SPENT = (
    ("deployment", names.DEPLOYMENT),
    ("provider", names.PROVIDER_NAME),
    ("model_label", names.REQUEST_MODEL),
)
_SENT = (("deployment", names.DEPLOYMENT), ("provider", names.PROVIDER_NAME), ("region", names.REGION))
#: What stands for names that are one too many, and how many names a meter knows of each kind.
_OTHER = "other"
_MOST_MODELS, _MOST_DEPLOYMENTS, _MOST_BUDGETS = 256, 256, 64
_KINDS = frozenset(_Classes.by_kind)
#: The kinds of tokens and where a record has them.
_TOKENS = (
    ("input", "input_tokens"),
    ("output", "output_tokens"),
    ("cache_read", "cache_read_input_tokens"),
    ("cache_creation", "cache_creation_input_tokens"),
    ("reasoning", "reasoning_output_tokens"),
)


def _kind(error: str) -> str:
    """An error's kind as a label: what a provider of one's own says may be anything."""
    return error if error in _KINDS else _OTHER


def _reader(fields: tuple[tuple[str, str], ...]) -> Callable[[object], dict[str, Any]]:
    """What reads some fields as labels, where there is something."""
    read = attrgetter(*(field for field, _ in fields))
    labels = tuple(label for _, label in fields)

    def labelled(of: object) -> dict[str, Any]:
        found = dict(zip(labels, read(of), strict=False))
        return found if all(found.values()) else {label: value for label, value in found.items() if value}

    return labelled


_spent_labels, _sent_labels = _reader(_SPENT), _reader(_SENT)
_read_tokens = attrgetter(*(field for _, field in _TOKENS))
_token_kinds = tuple(kind for kind, _ in _TOKENS)


class _Names(set[str]):
    """The names that were seen first, up to a number: there is one for all clients of a meter."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def label(self, name: str) -> str:
        """The name, or `other` for one too many."""
        if name not in self:
            if len(self) >= self._most:
                return _OTHER
            self.add(name)
        return name


class Instruments:
    """Everything that calls add to, and what is read of clients when metrics are collected."""

    def __init__(self, provider: Any) -> None:
        meter = provider.get_meter(names.SCOPE, __version__, names.SCHEMA_URL)

        def histogram(metric: Metric) -> Any:
            return meter.create_histogram(
                metric.name,
                metric.unit,
                metric.description,
                explicit_bucket_boundaries_advisory=metric.buckets,
            )

        def counter(metric: Metric) -> Any:
            return meter.create_counter(metric.name, metric.unit, metric.description)

        def gauge(metric: Metric, read: Callable[[], Iterable[Observation]]) -> None:
            def observe(_options: CallbackOptions) -> Iterable[Observation]:
                return list(read())

            meter.create_observable_gauge(metric.name, [observe], metric.unit, metric.description)

        self._duration = histogram(names.OPERATION_DURATION)
        self._usage = histogram(names.TOKEN_USAGE)
        self._first_chunk = histogram(names.TIME_TO_FIRST_CHUNK)
        self._per_chunk = histogram(names.TIME_PER_OUTPUT_CHUNK)
        self._latency = histogram(names.REQUEST_LATENCY_MS)
        self._attempt = histogram(names.ATTEMPT_DURATION)
        self._retries = counter(names.RETRIES_COUNT)
        self._fallbacks = counter(names.FALLBACKS_COUNT)
        self._spend = counter(names.SPEND)
        self._tokens = counter(names.TOKENS)
        self._hits = counter(names.CACHE_HITS)
        self._misses = counter(names.CACHE_MISSES)
        self._watched: weakref.WeakSet[Observer] = weakref.WeakSet()
        self._watching = threading.Lock()
        self._models, self._answered = _Names(_MOST_MODELS), _Names(_MOST_MODELS)
        self._deployments, self._budget_names = _Names(_MOST_DEPLOYMENTS), _Names(_MOST_BUDGETS)
        gauge(names.CIRCUIT_STATE, lambda: self._states(_circuit, max))
        gauge(names.QUEUE_DEPTH, lambda: self._states(lambda state: state.waiting, max))
        gauge(names.IN_FLIGHT, lambda: self._states(lambda state: state.in_flight, sum))
        gauge(names.BUDGET_SPENT, lambda: self._budgets("spent"))
        gauge(names.BUDGET_LIMIT, lambda: self._budgets("limit"))

    def watch(self, observer: Observer) -> None:
        """Its engine's state is read when metrics are collected, for as long as it lives."""
        with self._watching:
            self._watched.add(observer)

    def _watchers(self) -> list[Observer]:
        with self._watching:
            return list(self._watched)

    def _bounded(self, labels: dict[str, Any]) -> dict[str, Any]:
        """The labels, with names that are one too many as `other`."""
        deployment, model = labels.get(names.DEPLOYMENT), labels.get(names.REQUEST_MODEL)
        if deployment is not None and deployment not in self._deployments:
            labels[names.DEPLOYMENT] = self._deployments.label(deployment)
        if model is not None and model not in self._models:
            labels[names.REQUEST_MODEL] = self._models.label(model)
        return labels

    # ------------------------------------------------------------------------------------------------- calls

    def record(self, record: CallRecord, context: Any) -> None:
        """Counts a call, in the context it was made in."""
        duration = record.duration
        spent = self._bounded(_spent_labels(record))
        asked = spent
        if record.error is not None:
            asked = {**spent, names.ERROR_TYPE: _kind(record.error.kind)}
        call = {names.OPERATION_NAME: record.operation, **asked}
        if record.response_model_label:
            call[names.RESPONSE_MODEL] = self._answered.label(record.response_model_label)
        self._duration.record(duration, call, context)
        self._latency.record(duration * 1000, asked, context)
        if record.first_chunk is not None:
            self._first_chunk.record(record.first_chunk, call, context)
        for seconds in record.chunk_seconds:
            self._per_chunk.record(seconds, call, context)
        if record.cached:
            self._hits.add(1, None, context)
        elif record.cache_missed:
            self._misses.add(1, None, context)
        # What was answered from the cache has been used, and paid for, before.
        if record.usage is not None and not record.cached:
            self._used(record.usage, call, spent, context)
            if record.cost:
                self._spend.add(record.cost, spent, context)
        self._sent(record.attempts, context)

    def _used(self, usage: Usage, call: dict[str, Any], spent: dict[str, Any], context: Any) -> None:
        self._usage.record(usage.input_tokens, {**call, names.TOKEN_TYPE: "input"}, context)
        self._usage.record(usage.output_tokens, {**call, names.TOKEN_TYPE: "output"}, context)
        labels = spent.copy()
        labels.pop(names.PROVIDER_NAME, None)
        for kind, count in zip(_token_kinds, _read_tokens(usage), strict=False):
            if count:
                self._tokens.add(count, {**labels, names.TOKEN_KIND: kind}, context)

    def _sent(self, attempts: list[CallAttempt], context: Any) -> None:
        for attempt in attempts:
            labels = self._bounded(_sent_labels(attempt))
            if attempt.error is not None:
                labels[names.ERROR_TYPE] = _kind(attempt.error)
            self._attempt.record(max(0.0, attempt.ended - attempt.started), labels, context)
        if len(attempts) > 1:
            self._again(attempts, context)

    def _again(self, attempts: list[CallAttempt], context: Any) -> None:
        before, name_of = attempts[0], self._deployments.label
        for attempt in attempts:
            why = {names.ERROR_TYPE: _kind(before.error)} if before.error else {}
            if attempt.cause in {"retry", "resend"}:
                self._retries.add(1, {names.DEPLOYMENT: name_of(attempt.deployment), **why}, context)
            elif attempt.cause == "fallback":
                ways = {names.FROM: name_of(before.deployment), names.TO: name_of(attempt.deployment)}
                self._fallbacks.add(1, {**ways, **why}, context)
            before = attempt

    # ------------------------------------------------------------------------------------------------ states

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
            folded.setdefault(self._deployments.label(deployment), []).extend(values)
        for deployment, values in folded.items():
            yield Observation(between(values), {names.DEPLOYMENT: deployment})

    def _budgets(self, field: str) -> Iterator[Observation]:
        # Of callers' budgets there may be any number; of those without a name of their own, and of the same
        # budget in several clients, the one that is used up furthest is shown.
        fullest: dict[str, BudgetSpend] = {}
        for observer in self._watchers():
            with suppress(EngineError):  # closed, or the budgets' file cannot be read
                for budget in _decode_spend(observer.engine.spend()).budgets:
                    name = self._budget_names.label(f"{budget.scope}/{budget.per}")
                    known = fullest.get(name)
                    if known is None or budget.spent * known.limit > known.spent * budget.limit:
                        fullest[name] = budget
        for name, budget in fullest.items():
            yield Observation(float(getattr(budget, field)), {names.BUDGET: name})


def _circuit(state: DeploymentState) -> int:
    return names.CIRCUIT_STATES[state.circuit]


_made: weakref.WeakKeyDictionary[Any, Instruments] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def instruments_of(provider: Any) -> Instruments:
    """The instruments of a meter provider: made once for all clients, as OpenTelemetry wants it."""
    with _making:
        found = _made.get(provider)
        if found is None:
            found = _made[provider] = Instruments(provider)
        return found
