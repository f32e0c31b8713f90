"""Metrics: what they count, in which form, over which door, and after a reload or a fork."""

from __future__ import annotations

import asyncio
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from liter_llm import (
    AsyncLiterLLM,
    Budget,
    ConfigError,
    LiterLLM,
    LlmProvider,
    LlmRequest,
    OverloadedError,
    PriceOptions,
    PrometheusExporter,
    ProviderConfig,
    ProviderRouter,
)
from liter_llm._native import EngineError
from liter_llm.requests import encode_request
from liter_llm.testing import Simulator

SAMPLE = re.compile(r'^([a-z_:]+)(\{(?:[a-z_]+="[^"]*",?)*\})? (\S+)$')
CALLS = "gen_ai_client_operation_duration_seconds_count"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


def samples(text: str) -> dict[tuple[str, frozenset[str]], float]:
    """Every sample of a text by its name and labels; a line that is none fails."""
    found: dict[tuple[str, frozenset[str]], float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = SAMPLE.match(line)
        assert match, line
        labels = frozenset(re.findall(r'[a-z_]+="[^"]*"', match[2] or ""))
        assert (match[1], labels) not in found, f"twice: {line}"
        found[match[1], labels] = float(match[3])
    return found


def total(text: str, name: str, *labels: str) -> float:
    return sum(
        value for (known, of), value in samples(text).items() if known == name and of.issuperset(labels)
    )


def test_a_call_is_counted_with_tokens_and_spend(sim: Simulator) -> None:
    config = sim.config(
        "openai", model="gpt-4o-mini", name="main", price=PriceOptions(input=1000, output=2000)
    )
    client = LiterLLM(config)
    with PrometheusExporter(client, client) as exporter:
        answer = client.generate("never seen in metrics", max_tokens=20)
        list(client.stream("never seen in metrics", max_tokens=20))
        text = exporter.text()
    assert total(text, CALLS, 'liter_llm_deployment="main"', 'gen_ai_request_model="gpt-4o-mini"') == 2
    assert answer.usage is not None
    assert answer.cost is not None
    own = (answer.usage.input_tokens + 2 * answer.usage.output_tokens) / 1000
    assert float(answer.cost.total) == pytest.approx(own)
    assert answer.cost.price_source == "configuration"
    assert total(text, "liter_llm_spend_usd_total", 'liter_llm_deployment="main"') >= own
    used = total(text, "liter_llm_tokens_total", 'liter_llm_token_type="input"')
    assert used == total(text, "gen_ai_client_token_usage_sum", 'gen_ai_token_type="input"') > 0
    assert total(text, "gen_ai_client_operation_time_to_first_chunk_seconds_count") == 1
    assert total(text, "liter_llm_circuit_state", 'liter_llm_deployment="main"') == 0
    assert "never seen" not in text
    assert (answer.text or "?") not in text


def test_retries_and_failures(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    with PrometheusExporter(client) as exporter:
        sim.rules = [{"match": {"times": 1}, "fault": {"status": 503}}]
        client.generate("x", max_tokens=5)
        sim.rules = [{"fault": {"status": 503}}]
        with pytest.raises(OverloadedError):
            client.generate("x", max_tokens=5, max_retries=0)
        text = exporter.text()
    assert total(text, "liter_llm_retries_total", 'error_type="overloaded"') == 1
    assert total(text, CALLS, 'error_type="overloaded"') == 1
    assert total(text, "llm_request_latency_ms_count") == 2
    assert total(text, "liter_llm_attempt_duration_seconds_count", 'error_type="overloaded"') == 2


def test_a_router_its_budgets_and_its_clients(sim: Simulator) -> None:
    router = ProviderRouter(
        [sim.config("openai", model="gpt-4o-mini", name="a"), sim.config("anthropic", name="b")],
        budget=Budget(5, per="day"),
        cache=True,
    )
    with PrometheusExporter(router, LiterLLM(router), AsyncLiterLLM(router)) as exporter:
        for _ in range(2):
            router.generate("the same", max_tokens=5)
        asyncio.run(AsyncLiterLLM(router).generate("another", max_tokens=5))
        text = exporter.text()
    assert total(text, CALLS) == 3
    assert total(text, "liter_llm_cache_hits_total") == 1
    assert total(text, "liter_llm_cache_misses_total") == 2
    assert total(text, "liter_llm_budget_limit_usd", 'liter_llm_budget="router/day"') == 5
    spent = total(text, "liter_llm_budget_spent_usd", 'liter_llm_budget="router/day"')
    assert spent == pytest.approx(total(text, "liter_llm_spend_usd_total"), rel=0.01)
    assert spent > 0


def test_a_provider_written_in_python() -> None:
    class Own(LlmProvider):
        name = "own"

        def generate(self, request: LlmRequest) -> str:
            return "hello"

    client = LiterLLM(Own())
    exporter = PrometheusExporter(client)
    client.generate("x")
    exporter.close()
    client.generate("x")
    assert total(exporter.text(), CALLS, 'gen_ai_provider_name="own"') == 1


def test_both_forms(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    newer, older = PrometheusExporter(client), PrometheusExporter(client, plain=True)
    client.generate("x", max_tokens=5)
    assert newer.content_type.startswith("application/openmetrics-text")
    assert newer.text().endswith("# EOF\n")
    assert older.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert "EOF" not in older.text()
    assert samples(newer.text()).keys() == samples(older.text()).keys()


def test_from_a_server_of_its_own(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    exporter = PrometheusExporter(client)
    port = exporter.serve()
    client.generate("x", max_tokens=5)

    def get(path: str, accept: str | None = None, method: str = "GET") -> tuple[str, str]:
        headers = {"Accept": accept} if accept else {}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.headers["Content-Type"], answer.read().decode()

    kind, text = get("/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text")
    assert total(text, CALLS) == 1
    kind, text = get("/metrics?x=1")
    assert kind.startswith("text/plain; version=0.0.4")
    assert total(text, CALLS) == 1
    assert get("/", method="HEAD")[1] == ""
    for path, method, status in (("/other", "GET", 404), ("/metrics", "POST", 405)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(path, method=method)
        with refused.value as answer:
            assert answer.code == status
    with pytest.raises(ConfigError, match=str(port)):
        exporter.serve()
    exporter.close()
    with pytest.raises(OSError, match="refused"):
        get("/metrics")


def test_as_a_wsgi_app(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    exporter = PrometheusExporter(client)
    said: list[Any] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], _: object = None
    ) -> Callable[[bytes], object]:
        said.append((status, headers))
        return lambda _: None

    def asked(**more: str) -> bytes:
        environ: dict[str, Any] = {"QUERY_STRING": ""}
        setup_testing_defaults(environ)
        environ.update(more)
        # The standard library's own check of both sides.
        checked: Any = validator(exporter.wsgi)
        answer = checked(environ, start_response)
        body = b"".join(answer)
        answer.close()
        return body

    assert b"liter_llm_circuit_state" in asked()
    assert said[-1][0] == "200 OK"
    asked(HTTP_ACCEPT="application/openmetrics-text")
    assert dict(said[-1][1])["Content-Type"].startswith("application/openmetrics-text")
    asked(REQUEST_METHOD="PUT", CONTENT_LENGTH="0")
    assert said[-1][0].startswith("405")


def test_as_an_asgi_app(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    exporter = PrometheusExporter(client)

    async def run(scope: dict[str, Any], *steps: str) -> list[MutableMapping[str, Any]]:
        coming = [{"type": step} for step in steps]
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return coming.pop(0)

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await exporter.asgi(scope, receive, send)
        return sent

    http = {"type": "http", "method": "GET", "headers": [(b"accept", b"application/openmetrics-text")]}
    start, body = asyncio.run(run(http))
    assert start["status"] == 200
    assert dict(start["headers"])[b"content-type"].startswith(b"application/openmetrics-text")
    assert body["body"].endswith(b"# EOF\n")
    told = asyncio.run(run({"type": "lifespan"}, "lifespan.startup", "lifespan.shutdown"))
    assert [step["type"] for step in told] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(ValueError, match="websocket"):
        asyncio.run(run({"type": "websocket"}))


def test_a_reload_is_followed(sim: Simulator, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_URL", sim.base_url("openai"))
    file = tmp_path / "liter-llm.toml"
    text = (
        '[[deployments]]\nname = "{}"\nprovider = "openai"\nmodel = "m"\n'
        'api_key = "sk-1"\nbase_url = "${{METRICS_URL}}"\n'
    )
    file.write_text(text.format("first"))
    client = LiterLLM.from_config(file)
    exporter = PrometheusExporter(client)
    client.generate("x", max_tokens=5)
    file.write_text(text.format("second"))
    client.reload()
    client.generate("x", max_tokens=5)
    text = exporter.text()
    assert total(text, CALLS, 'liter_llm_deployment="first"') == 1
    assert total(text, CALLS, 'liter_llm_deployment="second"') == 1
    circuits = [labels for name, labels in samples(text) if name == "liter_llm_circuit_state"]
    assert circuits == [frozenset({'liter_llm_deployment="second"'})]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_counts_its_own_calls(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    exporter = PrometheusExporter(client)
    for _ in range(3):
        client.generate("x", max_tokens=5)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            before = total(exporter.text(), CALLS)
            client.generate("x", max_tokens=5)
            after = exporter.text()
            counted = total(after, CALLS)
            circuits = total(after, "liter_llm_in_flight") + len(
                [name for name, _ in samples(after) if name == "liter_llm_circuit_state"]
            )
            os.write(writing, f"{before} {counted} {circuits}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        assert told.read() == "0 1.0 1.0"
    os.waitpid(child, 0)
    client.generate("x", max_tokens=5)
    assert total(exporter.text(), CALLS) == 4


def test_what_has_no_metrics_is_refused() -> None:
    with pytest.raises(ConfigError, match="not ProviderConfig"):
        PrometheusExporter(ProviderConfig("openai"))  # pyright: ignore[reportArgumentType]


def test_the_engine_gives_notice_of_what_an_operator_should_hear(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai", name="main", max_retries=0))
    engine = client._engine  # pyright: ignore[reportPrivateUsage]
    assert engine.notices() is None
    sim.rules = [{"fault": {"status": 503, "body": {"error": {"message": "sesame"}}}}]
    for _ in range(6):
        # Past the client, which would hand them to `logging`.
        with pytest.raises(EngineError):
            engine.generate(encode_request("sesame", {"max_tokens": 5}))
    waiting = engine.notices()
    assert waiting is not None
    (notice,) = json.loads(waiting)
    assert (notice["kind"], notice["level"], notice["deployment"]) == ("circuit_opened", "warning", "main")
    assert b"sesame" not in waiting
    assert engine.notices() is None
