"""The exact span tree of each kind of call, sync and async, as it comes over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypedDict

import pytest
from opentelemetry.sdk.trace import TracerProvider

from liter_llm import AsyncLiterLLM, LiterLLM, LiterLlmError, LlmMessage, LlmProvider, Telemetry
from liter_llm.router import ProviderRouter
from liter_llm.telemetry import names
from liter_llm.testing import Simulator

from .receiver import CLIENT, ERROR, INTERNAL, UNSET, Receiver, Span, until

BUSY = {"status": 503, "headers": {"retry-after-ms": "20"}}
#: What differs from run to run.
VARYING = {
    names.ATTEMPT_CONNECT,
    names.ATTEMPT_FIRST_BYTE,
    names.ATTEMPT_WAIT,
    names.RESPONSE_ID,
    names.REQUEST_ID,
    names.RESPONSE_TIME_TO_FIRST_CHUNK,
    names.ATTEMPT_REASON,
}


def steady(span: Span) -> dict[str, Any]:
    return {name: value for name, value in span.attributes.items() if name not in VARYING}


def in_order(span: Span) -> None:
    """A span holds its children, which begin one after the other."""
    assert span.start <= span.end
    assert [child.start for child in span.children] == sorted(child.start for child in span.children)
    for child in span.children:
        # A record's times are known to a quarter of a microsecond.
        assert span.start - 500 <= child.start, span.name
        assert child.end <= span.end + 500, span.name
        assert child.trace == span.trace
        in_order(child)


class Face:
    """A client of either kind behind one set of methods."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def call(self, config: Any, telemetry: Telemetry, **request: Any) -> Any:
        if self.kind == "sync":
            return LiterLLM(config, telemetry=telemetry).generate(**request)

        async def run() -> Any:
            return await AsyncLiterLLM(config, telemetry=telemetry).generate(**request)

        return asyncio.run(run())

    def read(self, config: Any, telemetry: Telemetry, most: int = 1_000_000, **request: Any) -> int:
        """Reads so many chunks of a stream and leaves it; how many it had."""
        count = 0
        if self.kind == "sync":
            for count, _ in enumerate(LiterLLM(config, telemetry=telemetry).stream(**request), 1):
                if count == most:
                    break
            return count

        async def run() -> int:
            count = 0
            async for _ in AsyncLiterLLM(config, telemetry=telemetry).stream(**request):
                count += 1
                if count == most:
                    break
            return count

        return asyncio.run(run())


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    return Face(request.param)


def test_a_plain_call(sim: Simulator, receiver: Receiver, traced: Telemetry, face: Face) -> None:
    config = sim.config("openai", model="gpt-4o-mini", region="eu")
    face.call(
        config,
        traced,
        prompt="Hello",
        max_tokens=9,
        temperature=0,
        top_p=1,
        seed=7,
        stop=["END"],
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        service_tier="default",
        response_format="text",
        extra={"n": 1},
    )
    root = receiver.root()
    in_order(root)
    host, port = sim.address.rsplit(":", 1)
    assert root.tree() == ("chat gpt-4o-mini", [("POST", [])])
    assert (root.kind, root.status, root.message, root.events) == (CLIENT, UNSET, "", 0)
    assert (root.scope, root.schema) == (names.SCOPE, names.SCHEMA_URL)
    expected: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ["END"],
        "gen_ai.request.frequency_penalty": 0.5,
        "gen_ai.request.presence_penalty": -0.5,
        "gen_ai.output.type": "text",
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": root.attributes["gen_ai.usage.input_tokens"],
        "gen_ai.usage.output_tokens": 9,
        "openai.request.service_tier": "default",
        "openai.response.service_tier": "default",
        "server.address": host,
        "server.port": int(port),
        "liter_llm.deployment": "openai/gpt-4o-mini",
        "liter_llm.region": "eu",
        "liter_llm.cost.usd": pytest.approx(
            root.attributes["gen_ai.usage.input_tokens"] * 0.15e-6 + 9 * 0.6e-6
        ),
        "liter_llm.request.messages": 1,
        "liter_llm.request.prompt_bytes": 5,
        "liter_llm.retries": 0,
        "liter_llm.fallbacks": 0,
    }
    assert steady(root) == expected
    for name, value in root.attributes.items():
        assert type(value) is type(expected.get(name, "")) or name == names.COST, name
    assert root.attributes[names.RESPONSE_ID].startswith("chatcmpl-")
    (attempt,) = root.children
    assert (attempt.kind, attempt.status) == (CLIENT, UNSET)
    assert steady(attempt) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": host,
        "server.port": int(port),
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "liter_llm.deployment": "openai/gpt-4o-mini",
        "liter_llm.region": "eu",
    }
    assert 0 < attempt.attributes[names.ATTEMPT_FIRST_BYTE] < 10


def test_a_stream(sim: Simulator, receiver: Receiver, traced: Telemetry, face: Face) -> None:
    config = sim.config("anthropic", model="claude-sonnet-4-5")
    face.read(config, traced, prompt="Hello", max_tokens=20, top_k=5)
    root = receiver.root()
    in_order(root)
    assert root.tree() == ("chat claude-sonnet-4-5", [("POST", [])])
    assert (root.status, root.children[0].status) == (UNSET, UNSET)
    said = root.attributes
    assert said["gen_ai.request.stream"] is True
    assert (said["gen_ai.provider.name"], said["gen_ai.request.top_k"]) == ("anthropic", 5)
    assert said["liter_llm.chunks"] > 1
    assert 0 < said["gen_ai.response.time_to_first_chunk"] <= (root.end - root.start) / 1e9
    assert said["gen_ai.usage.output_tokens"] == 20
    # The request goes on until the stream is read.
    assert abs(root.children[0].end - root.end) <= 500


def test_a_retry(sim: Simulator, receiver: Receiver, traced: Telemetry, face: Face) -> None:
    sim.rules = [{"match": {"times": 2}, "fault": BUSY}]
    face.call(sim.config("openai", model="gpt-4o-mini"), traced, prompt="Hello")
    root = receiver.root()
    in_order(root)
    assert root.tree() == ("chat gpt-4o-mini", [("POST", []), ("POST", []), ("POST", [])])
    assert root.status == UNSET
    assert root.attributes["liter_llm.retries"] == 2
    assert root.attributes["liter_llm.retry.reasons"] == ["overloaded", "overloaded"]
    assert [child.status for child in root.children] == [ERROR, ERROR, UNSET]
    asked = (
        "http.response.status_code",
        "error.type",
        "http.request.resend_count",
        "liter_llm.attempt.cause",
    )
    assert [[child.attributes.get(name) for name in asked] for child in root.children] == [
        [503, "overloaded", None, None],
        [503, "overloaded", 1, "retry"],
        [200, None, 2, "retry"],
    ]
    assert root.children[1].attributes["liter_llm.attempt.wait"] >= 0.02


def test_a_fallback(sim: Simulator, receiver: Receiver, traced: Telemetry, face: Face) -> None:
    sim.rules = [{"match": {"provider": "openai"}, "fault": {"status": 529}}]
    router = ProviderRouter(
        [sim.config("openai", model="gpt-4o-mini"), sim.config("anthropic", model="claude-sonnet-4-5")],
        telemetry=traced,
    )
    face.call(router, router.telemetry, prompt="Hello")
    root = receiver.root()
    in_order(root)
    assert root.tree() == ("chat claude-sonnet-4-5", [("POST", []), ("POST", [])])
    first, second = root.children
    assert (first.status, first.attributes["error.type"]) == (ERROR, "overloaded")
    assert (second.status, second.attributes["liter_llm.attempt.cause"]) == (UNSET, "fallback")
    assert second.attributes["gen_ai.provider.name"] == "anthropic"
    assert root.attributes["gen_ai.provider.name"] == "anthropic"
    assert root.attributes["liter_llm.policy"] == "priority"
    assert (root.attributes["liter_llm.retries"], root.attributes["liter_llm.fallbacks"]) == (0, 1)
    assert root.attributes["liter_llm.fallback.reasons"] == ["overloaded"]


def test_a_cancelled_stream(sim: Simulator, receiver: Receiver, traced: Telemetry, face: Face) -> None:
    sim.rules = [{"match": {}, "fault": {"hang_after": 5}}]
    assert face.read(sim.config("openai", model="gpt-4o-mini"), traced, most=2, prompt="Hello") == 2
    root = receiver.root()
    in_order(root)
    assert root.tree() == ("chat gpt-4o-mini", [("POST", [])])
    assert (root.status, root.attributes["error.type"]) == (ERROR, "cancelled")
    assert (root.children[0].status, root.children[0].attributes["error.type"]) == (ERROR, "cancelled")


def test_an_error_inside_a_stream(sim: Simulator, receiver: Receiver, traced: Telemetry, face: Face) -> None:
    error = {"type": "server_error", "message": "canary-of-the-provider"}
    sim.rules = [{"match": {}, "fault": {"error_after": 5, "error": error}}]
    with pytest.raises(LiterLlmError, match="canary-of-the-provider"):
        face.read(sim.config("openai", model="gpt-4o-mini"), traced, prompt="Hello")
    root = receiver.root()
    in_order(root)
    assert root.tree() == ("chat gpt-4o-mini", [("POST", [])])
    assert (root.status, root.message, root.attributes["error.type"]) == (ERROR, "", "provider_error")
    assert root.children[0].attributes["http.response.status_code"] == 200
    assert root.children[0].attributes["error.type"] == "provider_error"
    # What a provider says may quote the prompt.
    assert not any(b"canary-of-the-provider" in body for body in receiver.bodies)


def test_a_failed_call(sim: Simulator, receiver: Receiver, traced: Telemetry, face: Face) -> None:
    sim.rules = [{"match": {}, "fault": {"status": 400}}]
    with pytest.raises(LiterLlmError):
        face.call(sim.config("openai", model="gpt-4o-mini"), traced, prompt="Hello")
    root = receiver.root()
    assert root.tree() == ("chat gpt-4o-mini", [("POST", [])])
    assert (root.status, root.attributes["error.type"]) == (ERROR, "invalid_request")


def test_one_that_is_refused_has_no_attempt(receiver: Receiver, traced: Telemetry, sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=traced)
    for ask in (
        lambda: client.generate("Hello", temperature=7),
        lambda: client.stream("Hello", temperature=7).until_done(),
    ):
        receiver.clear()
        with pytest.raises(ValueError, match="temperature"):
            ask()
        root = receiver.root()
        assert root.tree() == ("chat gpt-4o-mini", [])
        assert (root.status, root.attributes["error.type"]) == (ERROR, "invalid_request")


def test_a_tool_loop(sim: Simulator, receiver: Receiver, tracers: TracerProvider, face: Face) -> None:
    """A loop of one's own: with a span around it, calls and tools are its children, in order."""
    telemetry = Telemetry(tracer_provider=tracers)
    tool = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    config = sim.config("openai", model="gpt-4o-mini")
    tracer = tracers.get_tracer("app")
    messages: list[Any] = [LlmMessage.user("The weather in Paris?")]
    with tracer.start_as_current_span("question"):
        answer = face.call(config, telemetry, messages=messages, tools=[tool], tool_choice="required")
        assert answer.tool_calls
        messages.append(answer.message)
        for call in answer.tool_calls:
            attributes = {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": call.name,
                "gen_ai.tool.call.id": call.id,
            }
            with tracer.start_as_current_span(f"execute_tool {call.name}", attributes=attributes):
                messages.append(call.result("sunny"))
        face.call(config, telemetry, messages=messages, tools=[tool])
    root = receiver.root()
    in_order(root)
    assert root.tree() == (
        "question",
        [
            ("chat gpt-4o-mini", [("POST", [])]),
            ("execute_tool weather", []),
            ("chat gpt-4o-mini", [("POST", [])]),
        ],
    )
    assert [child.kind for child in root.children] == [CLIENT, INTERNAL, CLIENT]
    assert root.children[0].attributes["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert root.children[0].attributes["liter_llm.request.tools"] == 1


class Answer(TypedDict):
    """What is asked for."""

    colour: str


def test_structured_output(sim: Simulator, receiver: Receiver, traced: Telemetry, face: Face) -> None:
    face.call(sim.config("openai", model="gpt-4o-mini"), traced, prompt="Hello", output=Answer)
    root = receiver.root()
    assert root.tree() == ("chat gpt-4o-mini", [("POST", [])])
    assert root.attributes["gen_ai.output.type"] == "json"


def test_a_hedged_call(sim: Simulator, receiver: Receiver, traced: Telemetry, face: Face) -> None:
    sim.rules = [{"match": {"times": 1}, "fault": {"delay_ms": 30_000}}]
    config = sim.config("openai", model="gpt-4o-mini", hedge={"after": 0.05, "budget": 1.0})
    face.call(config, traced, prompt="Hello")
    root = receiver.root()
    in_order(root)
    assert root.tree() == ("chat gpt-4o-mini", [("POST", []), ("POST", [])])
    causes = [child.attributes.get("liter_llm.attempt.cause") for child in root.children]
    assert causes == [None, "hedge"]
    assert (root.status, [child.status for child in root.children]) == (UNSET, [ERROR, UNSET])
    slower, quicker = root.children
    assert slower.attributes["error.type"] == "cancelled"
    assert "http.response.status_code" not in slower.attributes
    assert quicker.attributes["http.response.status_code"] == 200
    # It was sent while the first was on its way, and that was given up when it was answered.
    assert slower.start < quicker.start < slower.end
    assert slower.end - slower.start < 25_000_000_000


def test_a_hedged_stream(sim: Simulator, receiver: Receiver, traced: Telemetry, face: Face) -> None:
    sim.rules = [{"match": {"times": 1}, "fault": {"delay_ms": 30_000}}]
    config = sim.config("openai", model="gpt-4o-mini", hedge={"after": 0.05, "budget": 1.0})
    assert face.read(config, traced, prompt="Hello") > 1
    root = receiver.root()
    in_order(root)
    assert root.tree() == ("chat gpt-4o-mini", [("POST", []), ("POST", [])])
    told = [
        (child.attributes.get("liter_llm.attempt.cause"), child.attributes.get("error.type"))
        for child in root.children
    ]
    assert told == [(None, "cancelled"), ("hedge", None)]
    # The stream goes on in the second one.
    slower, quicker = root.children
    assert slower.end < quicker.end == pytest.approx(root.end, abs=500)


@pytest.mark.parametrize("how", ["call", "read"])
def test_a_request_over_a_stale_connection(
    sim: Simulator, receiver: Receiver, traced: Telemetry, face: Face, how: str
) -> None:
    """A connection that rested and was closed: the request is sent again at once, in a span of its own."""
    config = sim.config("openai", model="gpt-4o-mini", max_retries=0)
    stale_once = [{"match": {"times": 1}, "fault": {"reset": True}}]
    if face.kind == "sync":
        client = LiterLLM(config, telemetry=traced)
        for rules in ([], stale_once):
            receiver.clear()
            sim.rules = rules
            if how == "call":
                client.generate("Hello")
            else:
                client.stream("Hello").until_done()
    else:

        async def run() -> None:
            client = AsyncLiterLLM(config, telemetry=traced)
            for rules in ([], stale_once):
                receiver.clear()
                sim.rules = rules
                if how == "call":
                    await client.generate("Hello")
                else:
                    await client.stream("Hello").until_done()

        asyncio.run(run())
    root = receiver.root()
    in_order(root)
    assert root.tree() == ("chat gpt-4o-mini", [("POST", []), ("POST", [])])
    assert (root.status, [child.status for child in root.children]) == (UNSET, [ERROR, UNSET])
    asked = (
        "error.type",
        "http.response.status_code",
        "liter_llm.attempt.cause",
        "http.request.resend_count",
    )
    assert [[child.attributes.get(name) for name in asked] for child in root.children] == [
        ["connection", None, None, None],
        [None, 200, "resend", 1],
    ]
    stale, resent = root.children
    # Only the second needed a new connection, and it did not wait.
    assert names.ATTEMPT_CONNECT not in stale.attributes
    assert resent.attributes[names.ATTEMPT_CONNECT] > 0
    assert names.ATTEMPT_WAIT not in resent.attributes
    assert stale.end <= resent.start + 500
    assert root.attributes.get(names.REQUEST_STREAM) is (True if how == "read" else None)


class Echo(LlmProvider):
    """Answers at once, or fails."""

    name = "echo"

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def generate(self, request: Any) -> str:
        if self.fails:
            raise KeyError("canary-of-the-provider")
        return request.prompt_text

    def stream(self, request: Any) -> Any:
        yield "a"
        if self.fails:
            raise KeyError("canary-of-the-provider")
        yield "b"


@pytest.mark.parametrize("how", ["call", "read"])
def test_a_provider_written_in_python(receiver: Receiver, traced: Telemetry, face: Face, how: str) -> None:
    ask: Callable[..., Any] = getattr(face, how)
    ask(Echo(), traced, prompt="Hello", model="m-1")
    root = receiver.root()
    in_order(root)
    assert root.tree() == ("chat m-1", [("attempt", [])])
    assert root.attributes["gen_ai.provider.name"] == "echo"
    assert "http.request.method" not in root.children[0].attributes
    receiver.clear()
    with pytest.raises(LiterLlmError):
        ask(Echo(fails=True), traced, prompt="Hello")
    root = receiver.root()
    assert root.tree() == ("chat", [("attempt", [])])
    assert (root.status, root.attributes["error.type"]) == (ERROR, "provider_error")
    assert not any(b"canary-of-the-provider" in body for body in receiver.bodies)


def test_one_deployment_of_a_router(sim: Simulator, receiver: Receiver, traced: Telemetry) -> None:
    router = ProviderRouter([sim.config("openai", model="gpt-4o-mini")], telemetry=traced)
    endpoint = router.select("Hello")
    endpoint.generate("Hello")
    list(endpoint.stream("Hello"))
    router.generate("Hello")
    LiterLLM(endpoint).generate("Hello")
    roots = receiver.roots(4)
    assert [root.tree() for root in roots] == [("chat gpt-4o-mini", [("POST", [])])] * 4
    assert [root.attributes.get(names.REQUEST_STREAM) for root in roots] == [None, True, None, None]


def test_a_cancelled_task(sim: Simulator, receiver: Receiver, traced: Telemetry) -> None:
    sim.rules = [{"match": {}, "fault": {"hang": True}}]

    async def run() -> None:
        client = AsyncLiterLLM(sim.config("openai", model="gpt-4o-mini"), telemetry=traced)
        task = asyncio.create_task(client.generate("Hello"))
        await asyncio.get_running_loop().run_in_executor(None, until, lambda: sim.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    root = receiver.root()
    in_order(root)
    assert root.tree() == ("chat gpt-4o-mini", [("POST", [])])
    assert (root.status, root.attributes["error.type"]) == (ERROR, "cancelled")


def test_an_answer_from_the_cache(sim: Simulator, receiver: Receiver, traced: Telemetry, face: Face) -> None:
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini", cache=True), telemetry=traced)
    client.generate("Hello")
    client.generate("Hello")
    first, second = receiver.roots(2)
    assert (first.tree(), second.tree()) == (
        ("chat gpt-4o-mini", [("POST", [])]),
        ("chat gpt-4o-mini", []),
    )
    assert "liter_llm.cached" not in first.attributes
    assert second.attributes["liter_llm.cached"] is True
