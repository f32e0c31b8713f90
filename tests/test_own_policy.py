"""Policies of one's own: what they see, that they are heard, and what goes wrong in them is contained."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from liter_llm import (
    AsyncLiterLLM,
    Candidate,
    InvalidArgumentError,
    LiterLLM,
    PolicyRequest,
    ProviderRouter,
)
from liter_llm.testing import Simulator
from tests.stalls import on_time


class Own:
    """Does what it is told, and keeps what it saw."""

    def __init__(self, do: Callable[[PolicyRequest, list[Candidate]], Any]) -> None:
        self.do = do
        self.seen: list[tuple[PolicyRequest, list[Candidate]]] = []
        self.threads: set[str] = set()

    def select(self, request: PolicyRequest, candidates: list[Candidate]) -> Sequence[Candidate | str]:
        self.threads.add(threading.current_thread().name)
        self.seen.append((request, candidates))
        order: Sequence[Candidate | str] = self.do(request, candidates)
        return order


#: How often a test asks again: on a busy machine an answer may take more than its 5 ms.
TRIES = 20


def router(sim: Simulator, policy: Any) -> ProviderRouter:
    deployments = [
        sim.config("openai", model="a", name="a", region="us", tags={"fast"}, weight=2),
        sim.config("anthropic", model="b", name="b", region="eu", priority=3),
        sim.config("azure", model="c", name="c"),
    ]
    return ProviderRouter(deployments, policy=policy)


def chosen(response: Any) -> str:
    assert response.route is not None
    return str(response.route.chosen)


async def test_a_policy_is_heard_and_sees_everything(sim: Simulator) -> None:
    own = Own(lambda request, candidates: ["c"])
    client = LiterLLM(made := router(sim, own))
    own.seen.clear()  # the trial
    for _ in range(TRIES):
        response = client.generate("hello there", max_tokens=7, route={"sticky": "u", "key": "k"}, tenant="t")
        if chosen(response) == "c":
            break
    assert chosen(response) == "c"
    assert response.route is not None
    assert response.route.policy == "Own"
    # The one named first; the rest by priority.
    assert [candidate.deployment for candidate in response.route.candidates] == ["c", "a", "b"]
    request, candidates = own.seen[0]
    assert (request.model, request.streamed, request.output_tokens) == (None, False, 7)
    assert (request.sticky, request.key, request.tenant) == ("u", "k", "t")
    assert 0 < request.input_tokens < 20
    assert (request.prompt_text, request.max_tokens) == ("hello there", 7)
    assert [candidate.name for candidate in candidates] == ["a", "c", "b"]
    first, _, last = candidates
    assert (first.provider, first.model, first.region, first.tags) == ("openai", "a", "us", {"fast"})
    assert (first.weight, first.priority, last.priority, first.circuit) == (2.0, 0, 3, "closed")
    stream = AsyncLiterLLM(made).stream("x")
    await stream.until_done()
    request, candidates = own.seen[-1]
    assert request.streamed
    by_name = {candidate.name: candidate for candidate in candidates}
    assert by_name["c"].calls >= 1
    assert by_name["c"].latency_p50 is not None
    assert own.threads == {"liter-llm-policy"}


def test_candidates_may_be_returned_themselves(sim: Simulator) -> None:
    own = Own(lambda request, candidates: sorted(candidates, key=lambda candidate: -candidate.priority))
    made = router(sim, own)
    client = LiterLLM(made)
    for ask in (
        lambda: chosen(client.generate("x")),
        lambda: made.select("x").name,
        lambda: made.explain("x").chosen,
    ):
        assert "b" in [ask() for _ in range(TRIES)]


class Trouble(Own):
    """Well-behaved in the trial, and then no more."""

    def __init__(self, do: Callable[[PolicyRequest, list[Candidate]], Any]) -> None:
        super().__init__(lambda request, candidates: do(request, candidates) if self.begun else candidates)
        self.begun = False


def fails(*_: object) -> Any:
    raise KeyError("lost")


def exits(*_: object) -> Any:
    sys.exit(3)


def sleeps(*_: object) -> Any:
    time.sleep(0.05)
    return ["c"]


async def later() -> list[str]:
    return ["c"]


@pytest.mark.parametrize(
    ("do", "note"),
    [
        (fails, "failed, default order: KeyError: 'lost'"),
        (exits, "failed, default order: SystemExit: 3"),
        (sleeps, "took longer than 5 ms"),
        (lambda *_: ["nobody"], "named `nobody`, which is no candidate"),
        (lambda *_: ["c", "c"], "named `c` twice"),
        (lambda *_: [], "named no candidate"),
        (lambda *_: None, "select() returned NoneType"),
        (lambda *_: "c", "select() returned str"),
        (lambda *_: [3], "select() named int"),
        (lambda *_: later(), "select() returned coroutine"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_trouble_is_contained(sim: Simulator, do: Any, note: str) -> None:
    own = Trouble(do)
    made = router(sim, own)
    client, aclient = LiterLLM(made), AsyncLiterLLM(made)
    own.begun = True
    notes: list[str] = []
    # On a busy machine any answer may come too late now and then.
    while not any(note in one for one in notes):
        assert len(notes) < 2 * TRIES, notes
        for response in (client.generate("x"), await aclient.generate("x")):
            assert chosen(response) == "a", "the default order"
            assert response.route is not None
            (remark,) = response.route.notes
            assert remark in str(response.route)
            notes.append(remark)
    failures = made.statistics().policy_failures
    assert failures.late + failures.failed + failures.nonsense == len(notes)
    assert failures.late >= sum("took longer than 5 ms" in one for one in notes)
    assert made.statistics().policy == "Trouble"
    own.begun = False
    await asyncio.sleep(0.15)
    own.do = lambda request, candidates: ["b"]
    own.begun = True
    assert any(chosen(client.generate("x")) == "b" for _ in range(TRIES)), "the thread goes on"


@pytest.mark.keeps_time
async def test_a_hanging_policy_blocks_neither_loop_nor_calls(sim: Simulator) -> None:
    own = Trouble(lambda *_: time.sleep(0.6))
    client = AsyncLiterLLM(router(sim, own))
    await client.generate("warm")
    own.begun = True
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    begin = time.monotonic()
    responses = await asyncio.gather(*(client.generate("x") for _ in range(50)))
    took = time.monotonic() - begin
    ticking.cancel()
    assert {chosen(response) for response in responses} == {"a"}
    on_time(took < 0.5, "nobody waited for the policy")
    assert ticks > 2


class NoSelect:
    pass


class TooFew:
    def select(self, request: object) -> None: ...


class TooMany:
    def select(self, request: object, candidates: object, more: object) -> None: ...


class Keywords:
    def select(self, *, request: object, candidates: object) -> None: ...


class Asynchronous:
    async def select(self, request: object, candidates: object) -> list[str]:
        return []


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (NoSelect(), "NoSelect has none"),
        (7, "int has none"),
        (None, "NoneType has none"),
        (Own, "Own is a class: give an instance"),
        (TooFew(), r"TooFew.select\(request: object\) -> None|TooFew.select"),
        (TooMany(), "TooMany.select.*missing a required argument"),
        (Keywords(), "Keywords.select"),
        (Asynchronous(), "is asynchronous"),
        (Own(lambda *_: 7), "select\\(\\) returned int"),
        (Own(lambda *_: ["nobody"]), "named `nobody`, which is no candidate"),
        (Own(lambda *_: ["a", "a"]), "named `a` twice"),
        (Own(lambda *_: {"a": 1}.values()), "named int"),
    ],
)
def test_what_cannot_work_is_refused(sim: Simulator, policy: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words) as caught:
        router(sim, policy)
    assert caught.value.param == "policy"


@pytest.mark.keeps_time
def test_a_failing_trial_is_no_refusal(sim: Simulator) -> None:
    for do in (fails, exits, lambda *_: time.sleep(1)):
        begin = time.monotonic()
        router(sim, Own(do))
        on_time(time.monotonic() - begin < 0.9)


def test_its_thread_ends_with_the_router(sim: Simulator) -> None:
    before = set(threading.enumerate())
    made = router(sim, Own(lambda *_: ["a"]))
    client = LiterLLM(made)
    client.generate("x")
    new = [
        thread
        for thread in threading.enumerate()
        if thread not in before and thread.name == "liter-llm-policy" and thread.is_alive()
    ]
    assert len(new) == 1
    del made, client
    gc.collect()
    new[0].join(2)
    assert not new[0].is_alive()


PROGRAM = """
import asyncio, os, sys, threading, time
from liter_llm import AsyncLiterLLM, LiterLLM, ProviderConfig, ProviderRouter
class Own:
    def select(self, request, candidates): return ["b"]
class Slow(Own):
    def select(self, request, candidates):
        time.sleep(0.2)
        return ["b"]
def router(policy):
    return ProviderRouter([ProviderConfig("openai", "m", name=name, api_key="k", base_url=sys.argv[1])
                           for name in "ab"], policy=policy)
def heard(response): return response.route.chosen == "b" and not response.route.notes
def soon(ask): return any(heard(ask()) for _ in range(20))
made = router(Own())
client = LiterLLM(made)
assert soon(lambda: client.generate("x"))
"""

ENDS = {
    "idle": "",
    "hanging": "slow = LiterLLM(router(Slow())); slow.generate('x')",
    "asking": """
def work():
    while True: client.generate('x')
for _ in range(3): threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
""",
    "asking-async": """
async def main():
    aclient = AsyncLiterLLM(made)
    await asyncio.gather(*(aclient.generate('x') for _ in range(20)))
asyncio.run(main())
""",
    "fork": """
child = os.fork()
if not child:
    ok = soon(lambda: client.generate('x')) and soon(lambda: asyncio.run(AsyncLiterLLM(made).generate('x')))
    os._exit(0 if ok else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert soon(lambda: client.generate('x'))
""",
    "fork-exit": """
child = os.fork()
client.generate('x')
if not child: sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("end", ENDS)
def test_forks_and_exits_are_clean(sim: Simulator, end: str) -> None:
    for _ in range(3):
        done = subprocess.run(
            [
                sys.executable,
                "-W",
                "ignore::DeprecationWarning",
                "-c",
                PROGRAM + ENDS[end],
                sim.base_url("openai"),
            ],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
