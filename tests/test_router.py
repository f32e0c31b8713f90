"""The router from Python: who answers, why, and what is refused. Through real sockets to the simulator."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from liter_llm import (
    AsyncLiterLLM,
    BadRequestError,
    Budget,
    BudgetExceededError,
    CallCancelledError,
    ConfigError,
    InvalidArgumentError,
    LiterLLM,
    LiterLlmError,
    LlmProvider,
    LlmRequest,
    NoCandidateError,
    OverloadedError,
    ProviderConfig,
    ProviderRouter,
    RateLimitError,
    Route,
    RouteOptions,
    StreamInterruptedError,
)
from liter_llm.testing import Simulator


def three(sim: Simulator) -> list[ProviderConfig]:
    return [
        sim.config("openai", model="gpt-4o-mini", region="us", tags={"fast", "cheap"}),
        sim.config("azure", model="gpt-4o", deployment="prod-eu", region="eu"),
        sim.config("anthropic", model="claude-sonnet-4-5", region="us", tags=["careful"]),
    ]


OPENAI, AZURE, ANTHROPIC = "openai/gpt-4o-mini", "azure/gpt-4o", "anthropic/claude-sonnet-4-5"


def down(provider: str, **fault: Any) -> dict[str, Any]:
    return {"match": {"provider": provider}, "fault": fault or {"status": 503}}


class Echo(LlmProvider):
    """A provider written in Python that says in which task or thread it was asked."""

    def __init__(self, name: str = "echo", **about: Any) -> None:
        self.name = name
        self.error: Exception | None = None
        self.asked: RouteOptions | None = None
        for attribute, value in about.items():
            setattr(self, attribute, value)

    def generate(self, request: LlmRequest) -> str:
        self.asked = request.route
        if self.error is not None:
            raise self.error
        return f"{self.name}: {request.prompt_text}"


class Pieces(Echo):
    async def stream(self, request: LlmRequest) -> AsyncIterator[str]:  # type: ignore[override]
        if self.error is not None:
            raise self.error
        for piece in (self.name, ": ", request.prompt_text):
            await asyncio.sleep(0)
            yield piece


# ------------------------------------------------------------------------------------------------ who answers


async def test_keys_and_addresses_may_come_from_the_environment(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for vendor in ("OPENAI", "ANTHROPIC", "AZURE_OPENAI"):
        monkeypatch.setenv(f"{vendor}_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url("openai"))
    monkeypatch.setenv("ANTHROPIC_BASE_URL", sim.base_url("anthropic"))
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", sim.base_url("azure"))
    router = ProviderRouter(
        deployments=[
            ProviderConfig(provider="openai", model="gpt-4o-mini", region="us", tags={"fast"}),
            ProviderConfig(provider="azure", model="gpt-4o", deployment="prod-eu", region="eu"),
            ProviderConfig(provider="anthropic", model="claude-sonnet-4-5", region="us"),
        ],
        policy="latency",
        budget=Budget(usd=50, per="day", degrade_to="openai/gpt-4o-mini", degrade_at=0.8),
    )
    client = AsyncLiterLLM(router)
    answers = [await client.generate("Hello", max_tokens=20) for _ in range(12)]
    assert {answer.attempts[0].deployment for answer in answers} == {OPENAI, AZURE, ANTHROPIC}
    costs = [answer.cost.total for answer in answers if answer.cost is not None]
    assert len(costs) == 12
    assert router.spend().total == sum(costs)
    for shown in (router.heatmap(), router.spend(), router.statistics(), answers[0].route):
        assert shown is not None
        assert OPENAI in str(shown)
        assert OPENAI in shown._repr_html_()


def test_another_deployment_answers_and_the_route_says_why(sim: Simulator) -> None:
    sim.rules = [down("openai")]
    client = LiterLLM(ProviderRouter(three(sim)))
    response = client.generate("[echo] hello")
    assert response.text == "hello"
    assert response.route is not None
    assert (response.route.policy, response.route.chosen) == ("priority", AZURE)
    assert [candidate.failed for candidate in response.route.candidates] == ["overloaded (503)", None, None]
    assert [attempt.deployment for attempt in response.attempts] == [OPENAI, AZURE]
    lines = str(response.route).splitlines()
    assert lines[0] == f"{AZURE}, by priority"
    assert lines[2].split()[:4] == [OPENAI, "failed:", "overloaded", "(503)"]
    assert lines[3].split()[:2] == [AZURE, "chosen"]
    assert lines[4].split()[:3] == [ANTHROPIC, "stood", "by"]
    html = response.route._repr_html_()
    assert html.count("<tr>") == 4
    assert "failed: overloaded (503)" in html


async def test_streams_fail_over_before_their_first_chunk(sim: Simulator) -> None:
    sim.rules = [down("openai"), down("azure")]
    stream = AsyncLiterLLM(ProviderRouter(three(sim))).stream("[echo] hello")
    text = "".join([chunk.text async for chunk in stream])
    assert text == stream.response.text == "hello"
    assert stream.response.route is not None
    assert stream.response.route.chosen == ANTHROPIC
    sync = LiterLLM(ProviderRouter(three(sim))).stream("[echo] hello")
    facts = [chunk.facts for chunk in sync if chunk.facts is not None and chunk.facts.route is not None]
    assert facts[-1].route == sync.response.route


async def test_a_stream_that_breaks_off_carries_the_route(sim: Simulator) -> None:
    """Before the first chunk it goes elsewhere unseen; after it the error says where it was."""
    router = ProviderRouter(three(sim))
    sim.rules = [
        {"match": {"provider": "openai"}, "fault": {"status": 503}},
        {"match": {"provider": "azure"}, "fault": {"cut_after": 6}},
    ]
    stream = AsyncLiterLLM(router).stream("Tell me a story")
    with pytest.raises(StreamInterruptedError) as caught:
        await stream.until_done()
    assert stream.partial.text
    route = caught.value.route
    assert route is not None
    assert route.chosen == AZURE
    failed = next(one for one in route.candidates if one.failed)
    assert failed.deployment == OPENAI


def test_errors_carry_the_route(sim: Simulator) -> None:
    sim.rules = [{"fault": {"status": 529}}]
    client = LiterLLM(ProviderRouter(three(sim), max_retries=0))
    with pytest.raises(OverloadedError) as caught:
        client.generate("x")
    error = caught.value
    assert isinstance(error.route, Route)
    assert [candidate.failed for candidate in error.route.candidates] == ["overloaded (529)"] * 3
    assert len(error.attempts) == 3
    again = pickle.loads(pickle.dumps(error))
    assert again.route == error.route
    sim.rules = [{"fault": {"status": 400}}]
    with pytest.raises(BadRequestError) as refused:
        client.generate("x", route={"regions": ["eu"]})
    assert len(refused.value.attempts) == 1


def test_a_429_everywhere_says_when(sim: Simulator) -> None:
    sim.rules = [{"fault": {"status": 429, "headers": {"retry-after": "7"}}}]
    with pytest.raises(RateLimitError) as caught:
        LiterLLM(ProviderRouter(three(sim), max_retries=0)).generate("x")
    assert caught.value.retry_after == pytest.approx(7, abs=0.5)


@pytest.mark.parametrize(
    ("route", "answers"),
    [
        (RouteOptions(regions={"eu"}), AZURE),
        ({"require_tags": ["careful"]}, ANTHROPIC),
        (RouteOptions(forbid_tags=("fast",)), AZURE),
        (RouteOptions(sticky="u1", key="team", content_filter_fallback=True), OPENAI),
        (None, OPENAI),
    ],
)
def test_what_a_call_asks(sim: Simulator, route: Any, answers: str) -> None:
    client = LiterLLM(ProviderRouter(three(sim)))
    response = client.generate("x", route=route)
    assert response.route is not None
    assert response.route.chosen == answers
    # None of it is sent.
    (request,) = sim.requests
    assert set(request.body) <= {"model", "messages", "max_tokens", "max_completion_tokens", "system"}


def test_residency_is_never_crossed(sim: Simulator) -> None:
    sim.rules = [down("azure")]
    client = LiterLLM(ProviderRouter(three(sim), regions=["eu"]))
    with pytest.raises(OverloadedError):
        client.generate("x", max_retries=0)
    assert {request.provider for request in sim.requests} == {"azure"}


def test_who_is_known_to_be_able_comes_first(sim: Simulator) -> None:
    """The catalogue does not say whether gpt-4o-mini reasons; of a model not in it nothing is assumed."""
    reasoner = sim.config("anthropic", model="claude-sonnet-4-5")
    client = LiterLLM(ProviderRouter([sim.config("openai", model="gpt-4o-mini"), reasoner]))
    assert client.generate("x").model == "gpt-4o-mini"
    assert client.generate("x", reasoning_effort="low").model == "claude-sonnet-4-5"
    sim.rules.append({"match": {"provider": "anthropic"}, "fault": {"status": 503}})
    assert client.generate("x", reasoning_effort="low").model == "gpt-4o-mini"
    sim.rules.clear()
    for model, options in (("never-heard-of", {}), ("gpt-4o-mini", {"supports": {"reasoning": True}})):
        first = sim.config("openai", model=model, **options)
        client = LiterLLM(ProviderRouter([first, reasoner]))
        assert client.generate("x", reasoning_effort="low").model == model


def test_a_named_model_is_named_in_the_route(sim: Simulator) -> None:
    response = LiterLLM(ProviderRouter(three(sim))).generate("x", model="gpt-4o")
    assert response.route is not None
    assert response.route.chosen == AZURE
    out = [one.ruled_out for one in response.route.candidates if one.ruled_out]
    assert out == [f"`{OPENAI}` is not `gpt-4o`", f"`{ANTHROPIC}` is not `gpt-4o`"]


def test_nobody_can_take_the_call(sim: Simulator) -> None:
    client = LiterLLM(ProviderRouter(three(sim)))
    with pytest.raises(NoCandidateError, match=f"`{AZURE}` is in region `eu`") as caught:
        client.generate("x", route={"regions": ["us"], "forbid_tags": ["fast", "careful"]})
    error = caught.value
    assert error.message.startswith("no deployment can take this call")
    assert (error.attempts, error.retry_after, error.retryable) == ([], None, False)
    assert sim.requests == []


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ({"region": ["eu"]}, "`route`: `region` is unknown; did you mean `regions`"),
        ("eu", "route"),
        ({"regions": "eu"}, "sequence|list"),
        ({"sticky": 3}, "string"),
    ],
)
def test_a_malformed_route_is_refused(sim: Simulator, route: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        LiterLLM(ProviderRouter(three(sim))).generate("x", route=route)
    assert sim.requests == []


def test_malformed_route_options_are_refused() -> None:
    for wrong in ({"regions": "eu"}, {"require_tags": [1]}, {"forbid_tags": [""]}):
        with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
            RouteOptions(**wrong)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- providers in Python


@pytest.mark.parametrize("own", [Echo(), Pieces()], ids=["whole", "pieces"])
async def test_providers_in_python_stand_beside_others(sim: Simulator, own: Echo) -> None:
    sim.rules = [down("openai")]
    own.error = None
    router = ProviderRouter([sim.config("openai", model="a"), own, Echo("other"), "openai/gpt-4o-mini"][:3])
    client, aclient = LiterLLM(router), AsyncLiterLLM(router)
    assert client.generate("hi").text == "echo: hi"
    assert (await aclient.generate("hi")).text == "echo: hi"
    stream = client.stream("hi")
    assert "".join(chunk.text for chunk in stream) == "echo: hi"
    astream = aclient.stream("hi")
    assert "".join([chunk.text async for chunk in astream]) == "echo: hi"
    assert stream.response.route is not None
    assert stream.response.route.chosen == "echo"
    # And the other way round: when the one in Python fails, the next answers.
    own.error = KeyError("lost")
    for response in (client.generate("hi"), await aclient.generate("hi")):
        assert response.text == "other: hi"
    own.error = None


def test_providers_in_python_say_what_they_are() -> None:
    router = ProviderRouter([Echo("us", region="us", tags=["fast"]), Echo("eu", region="eu", priority=1)])
    client = LiterLLM(router)
    assert client.generate("hi").text == "us: hi"
    assert LiterLLM(own := Echo()).generate("hi", route={"key": "k"}).route is None
    assert own.asked == RouteOptions(key="k")
    assert client.generate("hi", route={"regions": ["eu"]}).text == "eu: hi"
    assert client.generate("hi", route={"require_tags": ["fast"]}).text == "us: hi"
    with pytest.raises(ConfigError, match=r"deployments\[0\].*`weight`"):
        ProviderRouter([Echo("a", weight=-1)])


# ------------------------------------------------------------------------------------------ the router itself


async def test_all_clients_share_one_engine(sim: Simulator) -> None:
    router = ProviderRouter(three(sim))
    sim.rules = [down("openai")]
    assert LiterLLM(router).generate("x").attempts[0].error is not None
    # The other client knows already.
    assert len((await AsyncLiterLLM(router).generate("x")).attempts) == 1
    assert [state.failures_in_row for state in router.state()] == [1, 0, 0]
    client = LiterLLM(router)
    client.close()
    with pytest.raises(CallCancelledError):
        client.generate("x")
    assert LiterLLM(router).generate("x").text
    other = LiterLLM(router)
    router.close()
    with pytest.raises(CallCancelledError):
        other.generate("x")


def test_a_router_is_a_provider(sim: Simulator) -> None:
    router = ProviderRouter(three(sim))
    request = LlmRequest.from_dict(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "[echo] a"}]}]}
    )
    assert isinstance(router, LlmProvider)
    assert router.generate(request).text == router.generate("[echo] a").text == "a"
    assert "".join(chunk.text for chunk in router.stream(request)) == "a"

    class Logged(LlmProvider):
        name = "logged"

        def generate(self, request: LlmRequest) -> Any:
            return router.generate(request)

    assert LiterLLM(Logged()).generate("[echo] b").text == "b"


def test_select_and_explain(sim: Simulator) -> None:
    router = ProviderRouter(three(sim))
    endpoint = router.select("x", route=RouteOptions(regions=["eu"]))
    assert endpoint.name == AZURE
    assert endpoint.generate("[echo] a").text == "a"
    sim.rules = [down("azure")]
    with pytest.raises(OverloadedError) as caught:
        LiterLLM(endpoint).generate("x", max_retries=0)
    assert len(caught.value.attempts) == 1
    seen = len(sim.requests)
    route = router.explain("x", route={"regions": ["us"]})
    assert route.chosen == OPENAI
    assert route.candidates[-1].ruled_out == f"`{AZURE}` is in region `eu`"
    assert len(sim.requests) == seen
    assert router.explain(LlmRequest(model="gpt-4o"), streamed=True).chosen == AZURE
    with pytest.raises(NoCandidateError):
        router.select(model="nobody's")
    with pytest.raises(TypeError, match="select it again"):
        pickle.dumps(endpoint)


@pytest.mark.parametrize(
    "ask",
    [
        "state",
        "describe",
        "statistics",
        "heatmap",
        "canary",
        "mirror",
        "spend",
        "clear_cache",
        "select",
        "explain",
    ],
)
def test_after_its_end_every_question_is_refused_alike(sim: Simulator, ask: str) -> None:
    router = ProviderRouter(three(sim))
    client = LiterLLM(router)
    router.close()
    for asked in (router, client):
        if hasattr(asked, ask):
            with pytest.raises(CallCancelledError, match="the client is closed"):
                getattr(asked, ask)()


def test_a_router_travels(sim: Simulator) -> None:
    router = ProviderRouter(three(sim), policy="round_robin", max_retries=1)
    again: ProviderRouter = pickle.loads(pickle.dumps(router))
    assert repr(again) == repr(router)
    assert again.describe() == router.describe()
    assert {LiterLLM(again).generate("x").model for _ in range(3)} == {
        "gpt-4o-mini",
        "prod-eu",
        "claude-sonnet-4-5",
    }
    client: LiterLLM = pickle.loads(pickle.dumps(LiterLLM(router)))
    assert client.generate("[echo] a").text == "a"
    assert "sk-" not in repr(client)


# ---------------------------------------------------------------------------------- budgets and statistics

DEAR = {"input": 1_000.0, "output": 1_000.0}


def test_a_budget_degrades_and_then_refuses(sim: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "spend.sqlite"
    deployments = [
        sim.config("openai", model="a", name="dear", price=DEAR),
        sim.config("openai", model="b", name="cheap", price={"input": 1.0, "output": 1.0}),
    ]
    # A call of the dear one costs a few cents.
    budget = Budget(0.1, "day", degrade_to="cheap", degrade_at=0.3, path=path)
    router = ProviderRouter(deployments, budget=budget)
    client = LiterLLM(router)
    first = client.generate("[echo] one two three", max_tokens=10)
    assert first.route is not None
    assert first.route.chosen == "dear"
    for _ in range(20):
        last = client.generate("[echo] one two three", max_tokens=10)
        assert last.route is not None
        if last.route.chosen == "cheap":
            break
    assert last.route is not None
    assert last.route.chosen == "cheap"
    assert "degraded to `cheap`" in last.route.notes[0]
    spend = router.spend()
    (window,) = spend.budgets
    assert (window.scope, window.per, window.limit, window.hard) == ("router", "day", Decimal("0.1"), True)
    assert window.window.start <= time.time() < window.window.end
    assert window.spent == spend.total > Decimal("0.03")
    assert [one.name for one in spend.deployments] == ["cheap", "dear"]
    assert f"total: {spend.total} USD" in str(spend)
    assert spend._repr_html_().count("<table>") == 2
    # Another router on the same file knows of it.
    other = ProviderRouter(deployments[:1], budget=Budget(0.01, "day", path=str(path)))
    with pytest.raises(BudgetExceededError, match="nothing was sent") as caught:
        LiterLLM(other).generate("x")
    error = caught.value
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 86_400
    assert error.attempts == []
    assert "0.01 USD a day" in error.message


@pytest.mark.parametrize("key", ["anna", None])
def test_what_callers_spend(sim: Simulator, key: str | None) -> None:
    router = ProviderRouter(
        [sim.config("openai", model="a", name="a", price=DEAR)], budget=Budget(5, "hour", scope="key")
    )
    LiterLLM(router).generate("[echo] x", max_tokens=5, route=RouteOptions(key=key))
    spend = router.spend()
    assert [budget.scope for budget in spend.budgets] == ([f"key:{key}"] if key else [])
    assert {one.name for one in spend.keys} <= {"anna"}


def test_malformed_budgets_are_refused() -> None:
    for wrong, words in (
        ((0, "day"), "`budget.usd`: 0 is no limit"),
        ((float("nan"), "day"), "is no limit"),
        (("5", "day"), "is not a number"),
        ((5, "dya"), "did you mean `day`"),
        ((5, "day", 3), "`budget.scope`: 3 is not a text"),
        ((5, "day", "router", "a", "b"), "`budget.degrade_at`"),
        ((5, "day", "router", "a", 0.5, "yes"), "neither True nor False"),
        ((5, "day", "router", "a", 0.5, True, 7), "must be text or a path"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            Budget(*wrong)  # type: ignore[arg-type]
        assert str(caught.value.param).startswith("budget.")


def test_statistics_and_heatmap(sim: Simulator) -> None:
    sim.rules = [down("openai")]
    router = ProviderRouter(three(sim))
    client = LiterLLM(router)
    assert str(router.heatmap()).startswith("p50: no answers yet")
    for _ in range(4):
        client.generate("x")
    list(client.stream("x"))
    statistics = router.statistics()
    assert (statistics.policy, statistics.policy_failures.late) == ("priority", 0)
    openai, azure, anthropic = statistics.deployments
    assert (openai.failures, openai.suspect, openai.latency_p50) == (1, True, None)
    assert (azure.calls, azure.failures, anthropic.calls) == (5, 0, 0)
    assert azure.share == pytest.approx(5 / 6)
    assert azure.latency_p95 is not None
    assert azure.first_chunk_p50 is not None
    assert str(statistics).splitlines()[2].split()[:4] == [OPENAI, "1", "17%", "1"]
    assert "<table>" in statistics._repr_html_()
    heatmap = router.heatmap(bucket=10, count=12)
    assert (heatmap.bucket, len(heatmap.began)) == (10, 12)
    assert [row.deployment for row in heatmap.rows] == [OPENAI, AZURE, ANTHROPIC]
    assert [sum(cell.count for cell in row.cells) for row in heatmap.rows] == [1, 5, 0]
    assert heatmap.to_dict()["rows"][1]["deployment"] == AZURE
    picture = str(heatmap).splitlines()
    assert "12 buckets of 10 s" in picture[0]
    assert picture[2].count("x") == 1
    assert any(shade in picture[3] for shade in "▁▂▃▄▅▆▇█")
    assert set(picture[4].split()[1]) == {"·"}
    html = heatmap._repr_html_()
    assert html.count("<tr>") == 4
    assert "hsl(" in html
    with pytest.raises(InvalidArgumentError, match="`bucket`"):
        router.heatmap(bucket=-1)


async def test_a_provider_in_python_that_failed_is_tried_and_comes_back() -> None:
    """The engine tries it with a call of its own, which no thread of the caller's waits for."""
    own = Echo("own")
    router = ProviderRouter([own, Echo("other")])
    client, aclient = LiterLLM(router), AsyncLiterLLM(router)
    own.error = OverloadedError("busy", retryable=True)
    assert client.generate("x").text == "other: x"
    assert (await aclient.generate("x")).text == "other: x"
    own.error = None
    end = time.monotonic() + 8
    while (await aclient.generate("x")).text == "other: x":
        assert time.monotonic() < end, router.statistics()
        await asyncio.sleep(0.05)


def test_what_a_deployment_cannot_do_is_not_asked_of_it(sim: Simulator) -> None:
    router = ProviderRouter(
        [
            sim.config("openai", model="plain", supports={"tools": False, "image_input": False}, context=50),
            sim.config("openai", model="able"),
        ]
    )
    client = LiterLLM(router)

    def tool(city: str) -> str:
        """The weather."""
        return city

    response = client.generate("x", tools=[tool])
    assert response.route is not None
    assert response.route.chosen == "openai/able"
    assert response.route.candidates[1].ruled_out == "`openai/plain` has no tools"
    long = client.generate("word " * 500)
    assert long.route is not None
    assert long.route.chosen == "openai/able"
    with pytest.raises(LiterLlmError, match="longer than the 50 tokens of `openai/plain`"):
        client.generate("word " * 500, model="plain")
