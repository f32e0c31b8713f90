"""Log lines: levels, facts, nothing secret; `LITER_LLM_LOG`."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys

import pytest

from liter_llm import AsyncLiterLLM, Budget, BudgetExceededError, LiterLLM, LiterLlmError
from liter_llm.router import ProviderRouter
from liter_llm.telemetry import logs
from liter_llm.testing import Simulator

PROMPT, KEY = "canary-of-the-prompt", "sk-canary-of-the-key"
BUSY = {"status": 503, "headers": {"retry-after-ms": "20"}}


@pytest.fixture(autouse=True)
def nothing_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests had logged holds no line back."""
    monkeypatch.setattr(logs, "_again_limited", logs.Limited(logs.AGAIN_QUIET_FOR, logs.AGAIN_AT_MOST))


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    found = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    return [line for line in found if line[0].startswith("liter_llm")]


async def test_debug_has_a_line_for_each_call_and_attempt(
    sim: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "liter_llm")
    body = json.dumps({"error": {"message": f"{PROMPT} {KEY}"}})
    sim.rules = [{"match": {"times": 1}, "fault": {**BUSY, "body": body}}]
    config = sim.config("openai", model="gpt-4o-mini", api_key=KEY)
    LiterLLM(config).generate(PROMPT, max_tokens=5)
    found = lines(caplog)
    assert [line[:2] for line in found] == [
        ("liter_llm.attempt", "DEBUG"),
        ("liter_llm.call", "INFO"),
        ("liter_llm.attempt", "DEBUG"),
        ("liter_llm.call", "DEBUG"),
    ]
    first, again, second, call = (line[2] for line in found)
    assert re.fullmatch(
        r"openai/gpt-4o-mini: overloaded \(at [\d.]+ ms, (connect [\d.]+ ms, )?"
        r"first byte [\d.]+ ms, total [\d.]+ ms\)",
        first,
    )
    assert re.fullmatch(r"retry to openai/gpt-4o-mini: overloaded, after 0\.\d+ s", again)
    assert second.startswith("openai/gpt-4o-mini: 200 (at ")
    assert re.fullmatch(r"chat openai/gpt-4o-mini: length, 2 sent, tokens \d+\+5 \(total [\d.]+ ms\)", call)
    facts = vars(caplog.records[-1])
    assert (facts["liter_llm.deployment"], facts["gen_ai.usage.output_tokens"]) == ("openai/gpt-4o-mini", 5)
    assert facts["gen_ai.client.operation.duration"] > 0
    caplog.clear()
    await AsyncLiterLLM(config).generate(PROMPT)
    async for _ in AsyncLiterLLM(config).stream(PROMPT):
        pass
    assert [line[:2] for line in lines(caplog)] == [
        ("liter_llm.attempt", "DEBUG"),
        ("liter_llm.call", "DEBUG"),
    ] * 2
    assert "first chunk" in lines(caplog)[-1][2]
    for record in caplog.records:
        assert "canary" not in str(vars(record))


def test_info_has_retries_and_fallbacks_only(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "liter_llm")
    sim.rules = [{"match": {"provider": "openai"}, "fault": {"status": 503}}]
    router = ProviderRouter(
        [sim.config("openai", model="gpt-4o-mini"), sim.config("anthropic", model="claude-sonnet-4-5")]
    )
    router.generate("Hello")
    assert lines(caplog) == [
        (
            "liter_llm.call",
            "INFO",
            "fallback from openai/gpt-4o-mini to anthropic/claude-sonnet-4-5: overloaded",
        )
    ]
    assert vars(caplog.records[-1])["liter_llm.to"] == "anthropic/claude-sonnet-4-5"


def test_a_provider_that_is_down_does_not_flood_the_log(
    sim: Simulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second request fails, so that each call but the first is sent twice."""
    clock = [0.0]
    limited = logs.Limited(logs.AGAIN_QUIET_FOR, logs.AGAIN_AT_MOST, lambda: clock[0])
    monkeypatch.setattr(logs, "_again_limited", limited)
    sim.rules = [{"match": {"every": 2}, "fault": {"status": 503, "headers": {"retry-after-ms": "1"}}}]
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"))
    caplog.set_level(logging.INFO, "liter_llm")
    for _ in range(100):
        client.generate("Hello", max_tokens=1)
    clock[0] += logs.AGAIN_QUIET_FOR
    for _ in range(100):
        client.generate("Hello", max_tokens=1)
    told = [line[2] for line in lines(caplog)]
    assert len(sim.requests) == 399
    assert len(told) == 20
    plain = re.compile(r"retry to openai/gpt-4o-mini: overloaded, after 0\.\d+ s")
    assert all(plain.fullmatch(line) for line in (*told[:10], *told[11:]))
    # Of the 99 in the first ten seconds ten were told.
    assert told[10].endswith(" s (89 more since the last time)")
    # Another error is another matter.
    sim.rules = [{"match": {"times": 1}, "fault": {"status": 429, "headers": {"retry-after-ms": "1"}}}]
    client.generate("Hello", max_tokens=1)
    assert lines(caplog)[-1][2].startswith("retry to openai/gpt-4o-mini: rate_limited")


def test_debug_leaves_no_line_out(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "liter_llm")
    sim.rules = [{"match": {"every": 2}, "fault": {"status": 503, "headers": {"retry-after-ms": "1"}}}]
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"))
    for _ in range(31):
        client.generate("Hello", max_tokens=1)
    assert sum(line[2].startswith("retry to ") for line in lines(caplog)) == 30


def test_nothing_is_said_of_good_calls_by_default(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "liter_llm")
    LiterLLM(sim.config("openai", model="gpt-4o-mini")).generate("Hello")
    assert lines(caplog) == []


def test_names_from_outside_stay_on_their_line() -> None:
    assert logs.clean("a\nWARNING root: forged\x1b[2J") == r"a\nWARNING root: forged\x1b[2J"
    assert logs.clean("gpt-4o") == "gpt-4o"


def test_the_same_warning_is_rare(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(50):
        logs.trouble("something of this test failed", ValueError(PROMPT))
    assert [line[2] for line in lines(caplog)] == ["something of this test failed: ValueError"]
    limited = logs.Limited(quiet_for=0.0)
    assert [limited.may("a"), limited.may("a")] == [0, 0]
    limited = logs.Limited(quiet_for=60.0)
    assert [limited.may("a"), limited.may("a"), limited.may("b")] == [0, None, 0]
    clock = [0.0]
    limited = logs.Limited(10.0, 2, lambda: clock[0])
    assert [limited.may("a") for _ in range(5)] == [0, 0, None, None, None]
    clock[0] = 10.0
    assert [limited.may("a") for _ in range(3)] == [3, 0, None]
    # Kinds without end take no memory without end.
    for kind in range(10_000):
        limited.may(kind)
    assert len(limited._kinds) <= 256


def test_circuits_are_told_of_without_any_telemetry(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "liter_llm")
    sim.rules = [{"match": {}, "fault": {"status": 500, "body": PROMPT}}]
    config = sim.config(
        "openai", model="gpt-4o-mini", circuit={"failures": 2, "open_time": 30}, max_retries=0
    )
    client = LiterLLM(config)
    for _ in range(5):
        with pytest.raises(LiterLlmError):
            client.generate(PROMPT)
    ((name, level, text),) = lines(caplog)
    assert (name, level) == ("liter_llm.circuit", "WARNING")
    assert text.startswith("circuit opened: openai/gpt-4o-mini")
    assert vars(caplog.records[-1])["liter_llm.notice"] == "circuit_opened"
    assert "canary" not in caplog.text


def test_a_reached_budget_is_told_of(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "liter_llm")
    router = ProviderRouter(
        [sim.config("openai", model="gpt-4o-mini")], budget=Budget(usd=0.000001, per="day")
    )
    router.generate("Hello", max_tokens=100)
    with pytest.raises(BudgetExceededError):
        router.generate("Hello", max_tokens=100)
    (line,) = lines(caplog)
    assert line[:2] == ("liter_llm", "WARNING")
    assert line[2].startswith("budget reached: ")


FORKS = """
import os, signal, threading
from liter_llm.telemetry import logs

held, done = threading.Event(), threading.Event()

def hold():
    with logs._limited._lock, logs._again_limited._lock:
        held.set()
        done.wait(30)

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    logs.trouble("something in the child failed", ValueError())
    os._exit(logs._again_limited.may("kind") or 0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
thread.join()
raise SystemExit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_forked_while_a_line_is_weighed_can_log() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "something in the child failed: ValueError" in done.stderr


PROGRAM = """
from liter_llm import LiterLLM
from liter_llm.testing import Simulator
with Simulator() as sim:
    for _ in range(2):
        LiterLLM(sim.config("openai", model="gpt-4o-mini")).generate("canary")
"""


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("INFO", 0), ("loud", 1), ("", 0)])
def test_the_variable_sets_level_and_handler(level: str, count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {logs.VARIABLE: level},
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert len(done.stderr.splitlines()) == count, done.stderr
    assert "canary" not in done.stderr
    if level == "loud":
        assert "LITER_LLM_LOG is none of debug, info, warning, error" in done.stderr
