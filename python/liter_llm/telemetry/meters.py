"""Metrics made of what the engine tells of calls, with the host's meter. Imported at the first one."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from liter_llm import __version__
from liter_llm.errors import _Classes  # pyright: ignore[reportPrivateUsage]

from . import names
from .names import Metric
from .states import States
from .told import HIT, decode_where, decode_who, keep

if TYPE_CHECKING:
    from .told import Told, ToldAttempt

#: What stands for names that are one too many, and how many names a meter knows of each kind.
_OTHER = "other"
_MOST_MODELS, _MOST_DEPLOYMENTS, _MOST_BUDGETS = 256, 256, 64
_KINDS = frozenset(_Classes.by_kind)
#: The kinds of tokens, as the engine tells their numbers.
_TOKEN_KINDS = ("input", "output", "cache_read", "cache_creation", "reasoning")

Labels = dict[str, Any]


def _kind(error: str) -> str:
    """An error's kind as a label: what a provider of one's own says may be anything."""
    return error if error in _KINDS else _OTHER


class _Called(NamedTuple):
    """The labels of calls that have the same in common."""

    call: Labels
    asked: Labels
    spent: Labels
    input: Labels
    output: Labels
    tokens: tuple[Labels, ...]
    """For each kind of tokens."""
    folded: bool
    """Whether a model has not got a label of its own."""


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
        self._canary_calls = counter(names.CANARY_CALLS)
        self._canary_duration = histogram(names.CANARY_DURATION)
        self._folded = counter(names.LABELS_FOLDED)
        #: Labels by the engine's text.
        self._called: dict[bytes, _Called] = {}
        self._sent: dict[bytes, Labels] = {}
        self._models, self._answered = _Names(_MOST_MODELS), _Names(_MOST_MODELS)
        self._deployments = _Names(_MOST_DEPLOYMENTS)
        #: What is read of clients.
        self.states = States(meter, self._deployments.label, _Names(_MOST_BUDGETS).label)

    # ------------------------------------------------------------------------------------------------- calls

    def record(self, told: Told, context: Any) -> None:
        """Counts a call, in the context it was made in."""
        text = bytes(told.who)
        called = self._called.get(text) or self._learn(text)
        call = called.call
        seconds = told.seconds
        self._duration.record(seconds, call, context)
        self._latency.record(seconds * 1000, called.asked, context)
        if told.first_chunk is not None:
            self._first_chunk.record(told.first_chunk, call, context)
            per_chunk = self._per_chunk.record
            for gap in told.chunk_seconds:
                per_chunk(gap, call, context)
        cache = told.cache
        if cache:
            (self._hits if cache == HIT else self._misses).add(1, None, context)
        # What was answered from the cache has been used, and paid for, before.
        if cache != HIT and told.usage is not None:
            usage = told.usage
            self._usage.record(usage[0], called.input, context)
            self._usage.record(usage[1], called.output, context)
            add = self._tokens.add
            for count, labels in zip(usage, called.tokens, strict=True):
                if count:
                    add(count, labels, context)
            if told.cost:
                self._spend.add(told.cost, called.spent, context)
        attempts = told.attempts
        for attempt in attempts:
            text = bytes(attempt.where)
            self._attempt.record(attempt.seconds, self._sent.get(text) or self._learn_sent(text), context)
        if len(attempts) > 1 or called.folded or told.compared is not None:
            self._besides(told, called, context)

    def _besides(self, told: Told, called: _Called, context: Any) -> None:
        """What few calls have: repeats, names that are one too many, a canary that they compare."""
        self._again(told.attempts, context)
        if called.folded:
            self._folded.add(1, None, context)
        if told.compared is not None:
            # How the first request ended, as the canary's guard sees it.
            arm, seconds = told.compared
            error = decode_where(told.attempts[0].where).error
            labels = {names.ARM: arm} if error is None else {names.ARM: arm, names.ERROR_TYPE: _kind(error)}
            self._canary_calls.add(1, labels, context)
            self._canary_duration.record(seconds, labels, context)

    def _learn(self, text: bytes) -> _Called:
        who = decode_who(text)
        spent: Labels = {}
        if who.deployment:
            spent[names.DEPLOYMENT] = self._deployments.label(who.deployment)
        if who.provider:
            spent[names.PROVIDER_NAME] = who.provider
        if who.model_label:
            spent[names.REQUEST_MODEL] = self._models.label(who.model_label)
        asked = spent if who.error is None else {**spent, names.ERROR_TYPE: _kind(who.error)}
        call = {names.OPERATION_NAME: who.operation, **asked}
        if who.response_model_label:
            call[names.RESPONSE_MODEL] = self._answered.label(who.response_model_label)
        used = {name: value for name, value in spent.items() if name != names.PROVIDER_NAME}
        called = _Called(
            call,
            asked,
            spent,
            {**call, names.TOKEN_TYPE: "input"},
            {**call, names.TOKEN_TYPE: "output"},
            tuple({**used, names.TOKEN_KIND: kind} for kind in _TOKEN_KINDS),
            call.get(names.REQUEST_MODEL, who.model) != who.model
            or call.get(names.RESPONSE_MODEL, who.response_model) != who.response_model,
        )
        return keep(self._called, text, called)

    def _learn_sent(self, text: bytes) -> Labels:
        where = decode_where(text)
        labels: Labels = {names.DEPLOYMENT: self._deployments.label(where.deployment)}
        if where.provider:
            labels[names.PROVIDER_NAME] = where.provider
        if where.region:
            labels[names.REGION] = where.region
        if where.error is not None:
            labels[names.ERROR_TYPE] = _kind(where.error)
        return keep(self._sent, text, labels)

    def _again(self, attempts: list[ToldAttempt], context: Any) -> None:
        if len(attempts) <= 1:
            return
        name_of = self._deployments.label
        before = decode_where(attempts[0].where)
        for attempt in attempts:
            where = decode_where(attempt.where)
            why = {names.ERROR_TYPE: _kind(before.error)} if before.error else {}
            if attempt.cause in {"retry", "resend"}:
                self._retries.add(1, {names.DEPLOYMENT: name_of(where.deployment), **why}, context)
            elif attempt.cause == "fallback":
                ways = {names.FROM: name_of(before.deployment), names.TO: name_of(where.deployment)}
                self._fallbacks.add(1, {**ways, **why}, context)
            before = where


_made: weakref.WeakKeyDictionary[Any, Instruments] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def _forked() -> None:
    # A thread that is not in the child may have held them.
    global _making  # noqa: PLW0603
    _making = threading.Lock()
    for instruments in list(_made.values()):
        instruments.states.renew()


with suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=_forked)


def instruments_of(provider: Any) -> Instruments:
    """The instruments of a meter provider: made once for all clients, as OpenTelemetry wants it."""
    with _making:
        found = _made.get(provider)
        if found is None:
            found = _made[provider] = Instruments(provider)
        return found
