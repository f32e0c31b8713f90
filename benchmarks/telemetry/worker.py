"""One measurement: calls and streams under one kind of telemetry, or with the SDK used by hand beside them.

`worker.py VARIANT UPSTREAM RECEIVER CALLS STREAMS`; prints us of CPU (user and system, all threads) a call
and an event as JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from liter_llm import AsyncLiterLLM, LiterLLM, PrometheusExporter, ProviderConfig, Telemetry

#: Tokens of a short and a long stream: what the long one costs more is its events'.
SHORT, LONG = 10, 1010
CALLS_AT_A_TIME, STREAMS_AT_A_TIME = 64, 4
PROMPT = "How do I change my address?"


class Measurements:
    """A meter provider that notes what is measured, so that the bare SDK can be given the same."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {}
        self.noted: list[tuple[str, float, Any]] = []

    def get_meter(self, *_names: Any) -> Measurements:
        return self

    def create_histogram(self, name: str, *of: Any, **named: Any) -> Noting:
        self.made[name] = ("create_histogram", of, named)
        return Noting(self, name)

    def create_counter(self, name: str, *of: Any, **named: Any) -> Noting:
        self.made[name] = ("create_counter", of, named)
        return Noting(self, name)

    def create_observable_gauge(self, *_of: Any, **_named: Any) -> None:
        """Read at collections only: no cost of a call."""

    create_observable_counter = create_observable_gauge


class Noting:
    def __init__(self, to: Measurements, name: str) -> None:
        self._to, self._name = to, name

    def record(self, value: float, attributes: Any = None, _context: Any = None) -> None:
        self._to.noted.append((self._name, value, None if attributes is None else dict(attributes)))

    add = record


def sdk(exporter: Any, metric_exporter: Any) -> tuple[Any, Any]:
    """The host's providers, as their documentation sets them up."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    tracers = TracerProvider()
    # As many as are made: dropping them would be cheaper than exporting them.
    tracers.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=200_000))
    return tracers, MeterProvider([PeriodicExportingMetricReader(metric_exporter)])


def no_op() -> tuple[Any, Any]:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Spans(SpanExporter):
        def export(self, *_of: Any) -> Any:
            return SpanExportResult.SUCCESS

    class Metrics(MetricExporter):
        def export(self, *_of: Any, **_named: Any) -> Any:
            return MetricExportResult.SUCCESS

        def force_flush(self, *_of: Any, **_named: Any) -> bool:
            return True

        def shutdown(self, *_of: Any, **_named: Any) -> None:
            """Nothing."""

    return sdk(Spans(), Metrics())


class Nothing:
    """Instruments and a meter that do nothing."""

    def get_meter(self, *_of: Any) -> Nothing:
        return self

    def create_histogram(self, *_of: Any, **_named: Any) -> Nothing:
        return self

    create_counter = create_observable_gauge = create_observable_counter = create_histogram

    def record(self, *_of: Any) -> None:
        """Nothing."""

    add = record

    def force_flush(self) -> None:
        """Nothing."""


def nothing_behind() -> tuple[Any, Any]:
    """Providers that do next to nothing: what is left is our own work."""
    from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan

    class Recording(NonRecordingSpan):
        def is_recording(self) -> bool:
            return True

    span = Recording(INVALID_SPAN_CONTEXT)

    class Tracers(Nothing):
        def get_tracer(self, *_of: Any) -> Tracers:
            return self

        def start_span(self, *_of: Any, **_named: Any) -> Any:
            return span

    return Tracers(), Nothing()


def otlp(url: str) -> tuple[Any, Any]:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return sdk(OTLPSpanExporter(f"{url}/v1/traces"), OTLPMetricExporter(f"{url}/v1/metrics"))


def nothing(_tokens: int) -> None:
    """What is done after a call where nothing is."""


class Faces:
    """The four ways to call, each with one kind of telemetry.

    `after` is called with a stream's tokens, or 0, after each call.
    """

    def __init__(
        self, upstream: str, telemetry: Telemetry | None = None, after: Callable[[int], None] = nothing
    ) -> None:
        self.after = after
        config = ProviderConfig(
            provider="openai", model="gpt-4o-mini", api_key="sk-bench", base_url=upstream, proxy="direct"
        )
        self.sync = LiterLLM(config, telemetry=telemetry)
        self.asynchronous = AsyncLiterLLM(config, telemetry=telemetry)

    def call(self, count: int) -> None:
        for _ in range(count):
            self.sync.generate(PROMPT, max_tokens=20)
            self.after(0)

    def stream(self, count: int, tokens: int) -> None:
        for _ in range(count):
            for _chunk in self.sync.stream(f"[tokens={tokens}]"):
                pass
            self.after(tokens)

    async def acall(self, count: int) -> None:
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                await self.asynchronous.generate(PROMPT, max_tokens=20)
                self.after(0)

        await asyncio.gather(*(some() for _ in range(CALLS_AT_A_TIME)))

    async def astream(self, count: int, tokens: int) -> None:
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                async for _chunk in self.asynchronous.stream(f"[tokens={tokens}]"):
                    pass
                self.after(tokens)

        await asyncio.gather(*(some() for _ in range(STREAMS_AT_A_TIME)))


def by_hand(upstream: str, providers: tuple[Any, Any]) -> Callable[[int], None]:
    """Makes, with the SDK alone, the spans and measurements that a call or stream of ours makes."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import set_span_in_context

    from liter_llm.telemetry import names

    kept, noted, tracers = InMemorySpanExporter(), Measurements(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(kept))
    faces = Faces(upstream, Telemetry(tracer_provider=tracers, meter_provider=noted))
    tracer = providers[0].get_tracer(names.SCOPE, "0", names.SCHEMA_URL)
    meter = providers[1].get_meter(names.SCOPE, "0", names.SCHEMA_URL)
    known = {names.OPERATION_NAME, names.PROVIDER_NAME, names.REQUEST_MODEL, names.REQUEST_STREAM}
    known |= {names.SERVER_ADDRESS, names.SERVER_PORT}

    def like(make: Callable[[], None]) -> Callable[[], None]:
        # The first one opens a connection, and says so.
        make()
        noted.noted.clear()
        kept.clear()
        make()
        instruments = {
            name: getattr(meter, kind)(name, *of, **named) for name, (kind, of, named) in noted.made.items()
        }
        measured = [
            (getattr(instruments[name], "record", None) or instruments[name].add, value, attributes)
            for name, value, attributes in noted.noted
        ]
        *inner, root = kept.get_finished_spans()
        opening = {name: value for name, value in root.attributes.items() if name in known}
        closing = {name: value for name, value in root.attributes.items() if name not in known}
        children = [(span.name, span.kind, dict(span.attributes)) for span in inner]

        def again() -> None:
            span = tracer.start_span(root.name, None, root.kind, opening)
            context = set_span_in_context(span)
            began = time.time_ns()
            for name, kind, attributes in children:
                tracer.start_span(name, context, kind, attributes, start_time=began).end(began + 1000)
            span.set_attributes(closing)
            span.end(began + 1000)
            for record, value, attributes in measured:
                record(value, attributes, context)

        return again

    made = {tokens: like(lambda n=tokens: faces.stream(1, n)) for tokens in (SHORT, LONG)}
    made[0] = like(lambda: faces.call(1))
    return lambda tokens: made[tokens]()


def spent_on(make: Callable[[], object]) -> float:
    """us of CPU, user and system, of all threads."""
    before = time.process_time()
    make()
    return 1e6 * (time.process_time() - before)


def paired(upstream: str, calls: int, streams: int) -> dict[str, dict[str, float]]:
    """What telemetry costs, in one process and in turns, so that both sides have the same machine.

    `own`: calls with the SDK less calls without telemetry after which the SDK makes the same by hand;
    `alone`: calls with providers that do nothing less calls without. Medians of the turns.
    """
    providers, idle = no_op(), nothing_behind()
    with_sdk = Faces(upstream, Telemetry(tracer_provider=providers[0], meter_provider=providers[1]))
    hand_made = Faces(upstream, after=by_hand(upstream, providers))
    with_nothing = Faces(upstream, Telemetry(tracer_provider=idle[0], meter_provider=idle[1]))
    without = Faces(upstream)
    runner = asyncio.Runner()
    in_turn, at_once = min(100, calls), min(STREAMS_AT_A_TIME, streams)
    events = at_once * (LONG - SHORT)

    def turn(faces: Faces) -> dict[str, float]:
        found = {
            "sync_call": spent_on(lambda: faces.call(in_turn)) / in_turn,
            "async_call": spent_on(lambda: runner.run(faces.acall(in_turn))) / in_turn,
        }
        for name, stream in (
            ("sync_event", faces.stream),
            ("async_event", lambda count, tokens: runner.run(faces.astream(count, tokens))),
        ):
            long, short = (spent_on(lambda n=n, read=stream: read(at_once, n)) for n in (LONG, SHORT))
            found[name] = (long - short) / events
        return found

    pairs = {"own": (with_sdk, hand_made), "alone": (with_nothing, without)}
    for faces in (with_sdk, hand_made, with_nothing, without):
        turn(faces)
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in pairs}
    for number in range(max(1, calls // in_turn)):
        for name, (more, less) in pairs.items():
            # Who comes first has what the other one left in the caches.
            one, other = (more, less) if number % 2 else (less, more)
            first, second = turn(one), turn(other)
            difference, base = (first, second) if one is more else (second, first)
            turns[name].append({figure: difference[figure] - base[figure] for figure in difference})
    runner.close()
    return {
        name: {figure: statistics.median(turn[figure] for turn in found) for figure in found[0]}
        for name, found in turns.items()
    }


def main() -> None:  # noqa: C901, PLR0915 - a list of variants
    variant, upstream, receiver = sys.argv[1:4]
    calls, streams = map(int, sys.argv[4:6])
    if variant == "paired":
        print(json.dumps(paired(upstream, calls, streams)))
        return
    providers: tuple[Any, Any] | None = None
    heard = 0

    def hook(_record: object) -> None:
        nonlocal heard
        heard += 1

    if variant in {"sdk", "by_hand"}:
        providers = no_op()
    elif variant == "null":
        providers = nothing_behind()
    elif variant == "otlp":
        providers = otlp(receiver)
    elif variant == "api":
        import opentelemetry.metrics
        import opentelemetry.trace  # noqa: F401 - that it is there is the point
    telemetry, after = Telemetry(), nothing
    if variant == "by_hand" and providers is not None:
        after = by_hand(upstream, providers)
    elif providers is not None:
        telemetry = Telemetry(tracer_provider=providers[0], meter_provider=providers[1])
    faces = Faces(upstream, telemetry, after)
    if variant == "prometheus":
        exporter = PrometheusExporter(faces.sync, faces.asynchronous)
    if variant == "on_call":
        hooks = [face.on_call(hook, queue=100_000) for face in (faces.sync, faces.asynchronous)]

    def spent(make: Callable[[], None]) -> float:
        if providers is not None:
            providers[0].force_flush()
        before = time.process_time()
        make()
        if providers is not None:
            providers[0].force_flush()
            providers[1].force_flush()
        return 1e6 * (time.process_time() - before)

    runner = asyncio.Runner()
    many = LONG - SHORT
    faces.call(50)
    faces.stream(3, LONG)
    runner.run(faces.acall(200))
    runner.run(faces.astream(4, LONG))
    found = {
        "sync_call": spent(lambda: faces.call(calls)) / calls,
        "async_call": spent(lambda: runner.run(faces.acall(calls))) / calls,
        "sync_event": (
            spent(lambda: faces.stream(streams, LONG)) - spent(lambda: faces.stream(streams, SHORT))
        )
        / (streams * many),
        "async_event": (
            spent(lambda: runner.run(faces.astream(streams, LONG)))
            - spent(lambda: runner.run(faces.astream(streams, SHORT)))
        )
        / (streams * many),
    }
    runner.close()
    imported = "opentelemetry" in sys.modules
    if imported != (variant in {"api", "null", "sdk", "otlp", "by_hand"}):
        raise SystemExit(f"{variant}: opentelemetry imported: {imported}")
    if variant == "prometheus" and 'gen_ai_request_model="gpt-4o-mini"' not in exporter.text():
        raise SystemExit("the exporter has counted nothing")
    if variant == "on_call" and not heard + sum(one.dropped for one in hooks):
        raise SystemExit("the hook has heard nothing")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
