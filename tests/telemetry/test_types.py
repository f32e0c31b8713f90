"""Every attribute of docs/tracing.md comes over the wire, on the span and with the type that it says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.sdk.trace import TracerProvider

from liter_llm import LiterLLM, LiterLlmError, Telemetry
from liter_llm.experiments import Canary
from liter_llm.router import ProviderRouter
from liter_llm.telemetry import names
from liter_llm.testing import Simulator

from . import documented
from .receiver import Receiver

TOOL = {"name": "weather", "parameters": {"type": "object"}}
BUSY = {"status": 503, "headers": {"retry-after-ms": "1"}}


def parameters(sim: Simulator, telemetry: Telemetry) -> None:
    openai = LiterLLM(sim.config("openai", model="gpt-4o-mini", region="eu", api="chat"), telemetry=telemetry)
    openai.generate(
        "Hello",
        system="Be brief, in JSON.",
        max_tokens=9,
        seed=7,
        temperature=1,
        top_p=1,
        frequency_penalty=1,
        presence_penalty=1,
        stop=["END"],
        tools=[TOOL],
        response_format="json",
        service_tier="default",
        extra={"n": 2},
    )
    responses = LiterLLM(sim.config("openai", model="gpt-5-mini", api="responses"), telemetry=telemetry)
    responses.generate("Hello", reasoning_effort="low", extra={"conversation": "conv_1"})
    anthropic = LiterLLM(sim.config("anthropic", model="claude-sonnet-4-5"), telemetry=telemetry)
    for _ in range(2):
        # Written to the provider's cache, and read from it.
        block = {"type": "text", "text": "word " * 2000, "cache_control": {"type": "ephemeral"}}
        anthropic.stream(
            messages=[{"role": "user", "content": [block]}], top_k=5, service_tier="auto", max_tokens=9
        ).until_done()
    anthropic.generate("Hello", seed=1, on_unsupported="adjust", max_tokens=9)


def ways(sim: Simulator, telemetry: Telemetry) -> None:
    sim.rules = [{"match": {"times": 2}, "fault": BUSY}]
    first = sim.config("openai", model="gpt-4o-mini", name="one", cache=True)
    LiterLLM(first, telemetry=telemetry).generate("Hello")
    sim.rules = [{"match": {"provider": "openai"}, "fault": BUSY}]
    router = ProviderRouter(
        [first, sim.config("anthropic", model="claude-sonnet-4-5", name="two")],
        canary=Canary("one", percent=100),
        telemetry=telemetry,
    )
    router.generate("Hello")
    sim.rules = []
    cached = LiterLLM(first, telemetry=telemetry)
    cached.generate("Hello again")
    cached.generate("Hello again")
    # One waits in line for the other.
    sim.rules = [{"match": {}, "fault": {"delay_ms": 100}}]
    narrow = LiterLLM(sim.config("openai", model="gpt-4o-mini", concurrency=1), telemetry=telemetry)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(narrow.generate, ["a", "b"]))
    sim.rules = [{"match": {}, "fault": {"status": 400}}]
    with pytest.raises(LiterLlmError):
        narrow.generate("Hello")


def test_every_attribute_is_seen(sim: Simulator, receiver: Receiver, tracers: TracerProvider) -> None:
    telemetry = Telemetry(tracer_provider=tracers, content=True, max_content_bytes=200)
    parameters(sim, telemetry)
    ways(sim, telemetry)
    of_calls: set[str] = set()
    of_attempts: set[str] = set()
    for span in receiver.spans():
        seen = of_attempts if span.name in {names.POST, names.ATTEMPT_SPAN} else of_calls
        seen.update(span.attributes)
    # What has another type than the page's, or is not on it, the receiver's fixture has noticed.
    assert (documented.CALL.keys() | documented.CONTENT.keys()) - of_calls == set()
    assert documented.ATTEMPT.keys() - of_attempts == set()
