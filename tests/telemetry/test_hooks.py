"""Hooks that hear of calls: they can neither slow nor break one."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import pytest

from liter_llm import CallCancelledError, CallRecord, InvalidArgumentError, LiterLLM, LiterLlmError
from liter_llm.router import ProviderRouter
from liter_llm.testing import Simulator

from .receiver import until

HOOKS = "liter-llm-calls"


def hook_threads() -> int:
    return sum(thread.name == HOOKS for thread in threading.enumerate())


def test_a_hook_hears_of_every_call(sim: Simulator) -> None:
    heard: list[CallRecord] = []
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini", region="eu"))
    client.generate("before")
    hook = client.on_call(heard.append)
    response = client.generate("canary-of-the-prompt", max_tokens=5, temperature=0)
    client.stream("Hello").until_done()
    sim.rules = [{"match": {}, "fault": {"status": 400, "body": "canary-of-the-prompt"}}]
    with pytest.raises(LiterLlmError):
        client.generate("Hello")
    until(lambda: len(heard) == 3)
    whole, streamed, failed = heard
    assert (whole.operation, whole.deployment, whole.region) == ("chat", "openai/gpt-4o-mini", "eu")
    assert (whole.usage, whole.response_id) == (response.usage, response.id)
    assert response.cost is not None
    assert whole.cost == pytest.approx(float(response.cost.total))
    assert (whole.parameters.max_tokens, whole.parameters.temperature) == (5, 0.0)
    assert whole.attempts[0].status == 200
    assert whole.timing == response.timing
    assert abs(whole.started - time.time()) < 60
    assert streamed.streamed
    assert len(streamed.chunk_seconds) == streamed.chunks - 1
    assert failed.error is not None
    assert (failed.error.kind, failed.error.status) == ("invalid_request", 400)
    assert "canary" not in "".join(record.to_json() for record in heard)
    assert CallRecord.from_json(whole.to_json()) == whole
    with pytest.raises(AttributeError):
        whole.cost = 0.0  # type: ignore[misc]
    hook.close()
    sim.rules.clear()
    client.generate("after")
    until(lambda: hook_threads() == 0)
    assert len(heard) == 3


def test_a_slow_hook_loses_records_and_slows_nobody(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"))
    goes_on, heard = threading.Event(), []

    def slow(record: CallRecord) -> None:
        goes_on.wait(30)
        heard.append(record)

    with client.on_call(slow, queue=2) as hook:
        client.generate("Hello")
        # The first one is with the hook, so that two more wait.
        until(lambda: hook.dropped == 0)
        time.sleep(0.1)
        before = time.monotonic()
        for _ in range(10):
            client.generate("Hello")
        assert time.monotonic() - before < 10
        until(lambda: hook.dropped == 8)
        goes_on.set()
        until(lambda: len(heard) == 3)
        assert hook.dropped == 8
    time.sleep(0.2)
    assert hook.dropped == 8, "also when it has ended"


def test_a_hook_that_fails_goes_on(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def broken(record: CallRecord) -> None:
        seen.append(1)
        if len(seen) < 4:
            raise KeyError
        raise SystemExit

    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"))
    with client.on_call(broken):
        for _ in range(6):
            client.generate("Hello")
        until(lambda: len(seen) == 6)
    assert caplog.text.count("a hook for calls failed") == 2
    assert caplog.text.count("raise KeyError") == 1


def test_wrong_arguments_are_refused(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai"))
    wrong: Any
    for wrong in (0, -1, True, 1.5, "many"):
        with pytest.raises(InvalidArgumentError, match="queue"):
            client.on_call(print, queue=wrong)
    wrong = "print"
    with pytest.raises(InvalidArgumentError, match="hook"):
        client.on_call(wrong)
    client.close()
    with pytest.raises(CallCancelledError):
        client.on_call(print)


def test_a_router_and_its_clients(sim: Simulator) -> None:
    router = ProviderRouter([sim.config("openai", model="gpt-4o-mini")])
    heard: list[CallRecord] = []
    with router.on_call(heard.append):
        LiterLLM(router).generate("Hello")
        router.generate("Hello")
        until(lambda: len(heard) == 2)


def test_it_ends_with_its_client(sim: Simulator) -> None:
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"))
    heard: list[CallRecord] = []
    client.on_call(heard.append)
    client.generate("Hello")
    gone = weakref.ref(client)
    client.close()
    until(lambda: hook_threads() == 0)
    assert len(heard) == 1, "what was in the queue is heard"
    del client
    other = LiterLLM(sim.config("openai", model="gpt-4o-mini"))
    other.on_call(heard.append)
    del other
    gc.collect()
    assert gone() is None
    until(lambda: hook_threads() == 0)


FORKED = """
import os, sys, time
from liter_llm import LiterLLM
from liter_llm.testing import Simulator
sim = Simulator()
client = LiterLLM(sim.config("openai", model="gpt-4o-mini"))
heard = []
hook = client.on_call(heard.append)
client.generate("Hello")
while not heard:
    time.sleep(0.005)
child = os.fork()
for _ in range(2):
    client.generate("Hello")
limit = time.monotonic() + 20
while len(heard) < 3 and time.monotonic() < limit:
    time.sleep(0.005)
assert len(heard) == 3, heard
hook.close()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""

AT_EXIT = """
from liter_llm import LiterLLM
from liter_llm.testing import Simulator
sim = Simulator()
client = LiterLLM(sim.config("openai", model="gpt-4o-mini"))
client.on_call(lambda record: print("heard", record.deployment))
for _ in range(3):
    client.generate("Hello")
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="cannot fork")
def test_it_goes_on_in_a_forked_child() -> None:
    run(FORKED)


def test_the_last_calls_are_heard_of_at_exit() -> None:
    assert run(AT_EXIT).splitlines() == ["heard openai/gpt-4o-mini"] * 3
