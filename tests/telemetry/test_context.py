"""Whose child a call's span is: across tasks, threads and readers; what the host's sampler decides."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
import trio
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)

from liter_llm import AsyncLiterLLM, LiterLLM, Telemetry
from liter_llm._native import Recorder
from liter_llm.telemetry import names, observed
from liter_llm.testing import Simulator

from .receiver import Receiver

CALL = ("chat gpt-4o-mini", [("POST", [])])


def test_tasks_keep_their_own_parents(sim: Simulator, receiver: Receiver, tracers: TracerProvider) -> None:
    tracer = tracers.get_tracer("app")

    async def run() -> None:
        config = sim.config("openai", model="gpt-4o-mini")
        client = AsyncLiterLLM(config, telemetry=Telemetry(tracer_provider=tracers))

        async def one(number: int) -> None:
            with tracer.start_as_current_span(f"task {number}"):
                await client.generate("Hello", seed=number)
                async with asyncio.TaskGroup() as group:
                    group.create_task(client.generate("Hello", seed=100 + number))

        await asyncio.gather(*(one(number) for number in range(8)))

    asyncio.run(run())
    roots = receiver.roots(8)
    assert sorted(root.name for root in roots) == [f"task {number}" for number in range(8)]
    for root in roots:
        number = int(root.name.split()[1])
        assert [child.tree() for child in root.children] == [CALL, CALL]
        assert [child.attributes[names.REQUEST_SEED] for child in root.children] == [number, 100 + number]


def test_threads_keep_their_own_parents(
    sim: Simulator, receiver: Receiver, tracers: TracerProvider, traced: Telemetry
) -> None:
    tracer = tracers.get_tracer("app")
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=traced)

    def work(number: int) -> None:
        with tracer.start_as_current_span(f"thread {number}"):
            client.generate("Hello", seed=number)
            client.stream("Hello", seed=number).until_done()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for root in receiver.roots(6):
        number = int(root.name.split()[1])
        assert [child.tree() for child in root.children] == [CALL, CALL]
        assert {child.attributes[names.REQUEST_SEED] for child in root.children} == {number}


def test_a_stream_belongs_to_who_asked_for_it(
    sim: Simulator, receiver: Receiver, tracers: TracerProvider, traced: Telemetry
) -> None:
    """Not to who reads it: another task, or another thread."""
    tracer = tracers.get_tracer("app")

    async def run() -> None:
        client = AsyncLiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=traced)
        with tracer.start_as_current_span("asks"):
            stream = client.stream("Hello")

        async def read() -> None:
            with tracer.start_as_current_span("reads"):
                async for _ in stream:
                    pass

        await asyncio.create_task(read())

    asyncio.run(run())
    # "asks" has ended before its child began to be read.
    trees = {root.name: root.tree() for root in receiver.roots(2)}
    assert trees == {"asks": ("asks", [CALL]), "reads": ("reads", [])}
    receiver.clear()
    with tracer.start_as_current_span("asks"):
        stream = LiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=traced).stream("Hello")

    def read_on() -> None:
        with tracer.start_as_current_span("reads"):
            stream.until_done()

    thread = threading.Thread(target=read_on)
    thread.start()
    thread.join()
    trees = {root.name: root.tree() for root in receiver.roots(2)}
    assert trees == {"asks": ("asks", [CALL]), "reads": ("reads", [])}


def test_under_trio(sim: Simulator, receiver: Receiver, tracers: TracerProvider, traced: Telemetry) -> None:
    tracer = tracers.get_tracer("app")

    async def run() -> None:
        client = AsyncLiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=traced)
        with tracer.start_as_current_span("trio"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.generate, "Hello")
            async for _ in client.stream("Hello"):
                pass

    trio.run(run)
    assert receiver.root().tree() == ("trio", [CALL, CALL])


def test_forgotten_streams_end_their_spans(sim: Simulator, receiver: Receiver, traced: Telemetry) -> None:
    sim.rules = [{"match": {}, "fault": {"hang_after": 5}}]
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=traced)
    stream = client.stream("Hello")
    next(stream)
    del stream
    (dropped,) = receiver.roots(1)
    cycle: list[Any] = [client.stream("Hello")]
    next(cycle[0])
    cycle.append(cycle)
    del cycle
    gc.collect()
    _, collected = receiver.roots(2)
    for root in (dropped, collected):
        assert root.tree() == CALL
        assert root.attributes["error.type"] == "cancelled"


def test_an_async_stream_that_nobody_reads_is_no_call(
    sim: Simulator, receiver: Receiver, traced: Telemetry
) -> None:
    async def run() -> None:
        client = AsyncLiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=traced)
        stream = client.stream("Hello")
        await stream.aclose()
        await client.generate("Hello")

    asyncio.run(run())
    assert receiver.root().tree() == CALL
    assert len(sim.requests) == 1


class Noting(Sampler):
    """Lets the calls to one model through, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def should_sample(  # noqa: PLR0917 - as OpenTelemetry has it
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        given = dict(attributes or {})
        self.asked.append((name, given))
        wanted = given.get(names.REQUEST_MODEL) != "noisy"
        return SamplingResult(Decision.RECORD_AND_SAMPLE if wanted else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "noting"


def provider_with(sampler: Sampler, receiver: Receiver) -> TracerProvider:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces")))
    return provider


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """The records that the engine was asked for."""
    made: list[Recorder] = []

    def make() -> Recorder:
        made.append(Recorder())
        return made[-1]

    monkeypatch.setattr(observed, "Recorder", make)
    return made


def test_what_is_not_sampled_is_neither_sent_nor_recorded(
    sim: Simulator, receiver: Receiver, recorders: list[Recorder]
) -> None:
    provider = provider_with(ALWAYS_OFF, receiver)
    config = sim.config("openai", model="gpt-4o-mini")
    client = LiterLLM(config, telemetry=Telemetry(tracer_provider=provider))
    client.generate("Hello")
    client.stream("Hello").until_done()
    asyncio.run(AsyncLiterLLM(config, telemetry=Telemetry(tracer_provider=provider)).generate("Hello"))
    provider.shutdown()
    assert (receiver.spans(), recorders) == ([], [])


def test_the_sampler_knows_what_the_conventions_give_it(
    sim: Simulator, receiver: Receiver, recorders: list[Recorder]
) -> None:
    sampler = Noting()
    provider = provider_with(sampler, receiver)
    config = sim.config("openai", model="gpt-4o-mini")
    client = LiterLLM(config, telemetry=Telemetry(tracer_provider=provider))
    client.generate("Hello")
    client.generate("Hello", model="noisy")
    host, port = sim.address.rsplit(":", 1)
    calls = [asked for asked in sampler.asked if asked[0] != "POST"]
    known = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "server.address": host,
        "server.port": int(port),
    }
    assert calls == [
        ("chat gpt-4o-mini", {**known, "gen_ai.request.model": "gpt-4o-mini"}),
        ("chat noisy", {**known, "gen_ai.request.model": "noisy"}),
    ]
    assert receiver.root().tree() == CALL
    assert len(recorders) == 1
    provider.shutdown()


@pytest.mark.parametrize("sampled", [True, False])
def test_a_parent_decides(sim: Simulator, receiver: Receiver, sampled: bool) -> None:
    provider = provider_with(ParentBased(ALWAYS_OFF if sampled else ALWAYS_ON), receiver)
    client = LiterLLM(
        sim.config("openai", model="gpt-4o-mini"), telemetry=Telemetry(tracer_provider=provider)
    )
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else 0)
    remote = trace.SpanContext(trace_id=0x1234, span_id=0x5678, is_remote=True, trace_flags=flags)
    with trace.use_span(trace.NonRecordingSpan(remote)):
        client.generate("Hello")
    spans = receiver.spans()
    assert [span.name for span in spans] == (["chat gpt-4o-mini", "POST"] if sampled else [])
    assert all(int.from_bytes(span.trace) == 0x1234 for span in spans)
    provider.shutdown()


def test_the_provider_gets_the_trace_only_when_asked(
    sim: Simulator, receiver: Receiver, tracers: TracerProvider
) -> None:
    config = sim.config("openai", model="gpt-4o-mini", cache=True)
    silent = LiterLLM(config, telemetry=Telemetry(tracer_provider=tracers))
    silent.generate("Hello")
    assert sim.requests[-1].header("traceparent") is None
    receiver.clear()
    telling = LiterLLM(config, telemetry=Telemetry(tracer_provider=tracers, propagate_trace=True))
    telling.generate("Hello", headers={"x-own": "1"})
    span = receiver.root()
    request = sim.requests[-1]
    assert (request.header("traceparent") or "").startswith(f"00-{span.trace.hex()}-{span.id.hex()}-0")
    assert request.header("x-own") == "1"
    # Another trace is not another question.
    assert telling.generate("Hello", headers={"x-own": "1"}).cached
    telling.stream("Hello there").until_done()
    assert sim.requests[-1].header("traceparent") is not None
    telling.generate("Bye", headers={"TraceParent": "own"})
    assert sim.requests[-1].header("traceparent") == "own"
