"""Canary and mirror from Python: what is refused when they are made, rollback, copies, reports."""

from __future__ import annotations

import pickle
import time
from typing import Any

import msgspec
import pytest

from liter_llm import (
    Canary,
    CanaryReport,
    ConfigError,
    Guard,
    LiterLLM,
    Mirror,
    MirrorReport,
    NoCandidateError,
    ProviderConfig,
    ProviderRouter,
)
from liter_llm.testing import Simulator


@pytest.mark.parametrize(
    ("make", "param"),
    [
        (lambda: Canary("", 5), "canary.model"),
        (lambda: Canary("m", 101), "canary.percent"),
        (lambda: Canary("m", True), "canary.percent"),
        (lambda: Canary("m", 5, guard=3), "canary.guard"),  # pyright: ignore[reportArgumentType]
        (lambda: Guard(latency=0.5), "canary.guard.latency"),
        (lambda: Guard(cost=float("nan")), "canary.guard.cost"),
        (lambda: Guard(window=0), "canary.guard.window"),
        (lambda: Guard(min_calls=0), "canary.guard.min_calls"),
        (lambda: Guard(alpha=0.9), "canary.guard.alpha"),
        (lambda: Guard(error_rate=1), "canary.guard.error_rate"),  # pyright: ignore[reportArgumentType]
        (lambda: Mirror("", 5), "mirror.to"),
        (lambda: Mirror("m", -1), "mirror.percent"),
    ],
)
def test_what_cannot_work_is_refused_at_once(make: Any, param: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.param == param
    assert f"`{param}`" in str(caught.value)


def test_they_are_immutable_and_picklable() -> None:
    canary = Canary("m", 5, guard=Guard(latency=False, window=60))
    assert pickle.loads(pickle.dumps(canary)) == canary
    with pytest.raises(AttributeError):
        canary.percent = 6  # pyright: ignore[reportAttributeAccessIssue]
    assert msgspec.json.decode(msgspec.json.encode(canary), type=Canary) == canary


def _two(sim: Simulator) -> list[ProviderConfig]:
    return [sim.config("openai", model=name, name=name) for name in ("old", "new")]


def test_a_failing_canary_is_rolled_back_and_no_caller_sees_it() -> None:
    with Simulator(rules=[{"match": {"model": "new", "percent": 40}, "fault": {"status": 503}}]) as sim:
        router = ProviderRouter(_two(sim), canary=Canary("openai/new", 50, guard=Guard(cost=False)))
        client = LiterLLM(router)
        report = router.canary()
        calls = 0
        while report is not None and report.state == "running" and calls < 1000:
            assert client.generate("[echo] hello").text == "hello"
            report = router.canary()
            calls += 1
        assert isinstance(report, CanaryReport)
        assert report.state == "rolled_back"
        assert report.reason is not None
        assert report.reason.startswith("error_rate: ")
        assert report.arms.canary.errors > 0 == report.arms.incumbent.errors
        assert [evidence.measure for evidence in report.evidence] == ["error_rate", "latency"]
        answer = client.generate("[echo] hello")
        assert answer.route is not None
        assert answer.route.notes == [f"canary rolled back: {report.reason}"]
        with pytest.raises(NoCandidateError, match="a canary that was rolled back"):
            client.generate("[echo] hello", model="new")
        assert router.mirror() is None
        again = pickle.loads(pickle.dumps(router))
        afresh = again.canary()
        assert afresh is not None
        assert afresh.state == "running", "a router made anew knows nothing of it"


def test_a_mirror_gets_copies() -> None:
    with Simulator(rules=[{"match": {"model": "new"}, "fault": {"status": 500}}]) as sim:
        router = ProviderRouter(_two(sim), mirror=Mirror("new", 100))
        client = LiterLLM(router)
        for call in range(20):
            answer = client.generate(f"[echo] call {call}")
            assert (answer.text, answer.model, len(answer.attempts)) == (f"call {call}", "old", 1)
        until = time.monotonic() + 10
        report = router.mirror()
        while report is not None and report.in_flight and time.monotonic() < until:
            time.sleep(0.01)
            report = router.mirror()
        assert isinstance(report, MirrorReport)
        assert (report.sent + report.dropped, report.in_flight) == (20, 0)
        assert report.errors == report.sent
        assert router.canary() is None


def test_what_is_no_deployment_is_named() -> None:
    with Simulator() as sim:
        with pytest.raises(ConfigError, match="no deployment is `c`; there are `old`, `new`"):
            ProviderRouter(_two(sim), canary=Canary("c", 5))
        with pytest.raises(ConfigError, match="`canary`: must be a Canary, not dict"):
            ProviderRouter(_two(sim), canary={"model": "new", "percent": 5})  # pyright: ignore[reportArgumentType]
        with pytest.raises(ConfigError, match="`mirror`: must be a Mirror, not str"):
            ProviderRouter(_two(sim), mirror="new")  # pyright: ignore[reportArgumentType]
