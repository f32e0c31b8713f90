"""Row 37: reload is atomic, a revoked key dies, what is known is kept.

200 reloads at 200 requests a second, 20 of them of files that cannot work: no error, and no call in which
two versions of the document are mixed, also when it goes to a second deployment. Each version has its key,
header, organization and vendor field, in both deployments; the simulator's log shows them together.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from liter_llm import (
    AsyncLiterLLM,
    CircuitOpenError,
    ConfigError,
    InternalServerError,
    LiterLLM,
    LiterLlmError,
    ProviderRouter,
)
from liter_llm.testing import RequestRecord, Simulator

from .conftest import Sized

#: Reloads, of which one in ten is of a file that cannot work.
FULL, SHORT = 200, 40
#: Calls a second, and reloads a second.
RATE, RELOADS = 200, 20
#: Seconds within which no call may use a revoked key.
REVOKED = 1.0


def document(sim: Simulator, version: int) -> str:
    """A document whose options all name its version; a third deployment that fails always stays the same."""
    url = sim.base_url("openai")
    one = f"""
[[deployments]]
name = "NAME"
provider = "openai/NAME"
base_url = "{url}"
api_key = "sk-{version}"
organization = "org-{version}"
max_retries = 0
headers = {{ x-version = "{version}" }}
extra = {{ version = {version} }}
"""
    failing = f"""
[[deployments]]
name = "failing"
provider = "openai/failing"
base_url = "{url}"
api_key = "sk-failing"
circuit = {{ failures = 1, open_time_seconds = 3600 }}
headers = {{ x-version = "{version}" }}
"""
    return (
        '[router]\npolicy = "round_robin"\n' + one.replace("NAME", "a") + one.replace("NAME", "b") + failing
    )


def broken(text: str, turn: int) -> str:
    """A document that cannot work, in one of several ways."""
    return [
        text.replace("organization", "organisation"),
        text.replace('provider = "openai/b"', 'provider = "opnai/b"'),
        text + "[[deployments]\n",
        text.replace('api_key = "sk-', 'api_key = "${NO_SUCH_KEY}sk-'),
    ][turn % 4]


def versions(seen: RequestRecord) -> set[str | None]:
    """The versions a request was made of."""
    key = (seen.header("authorization") or "").removeprefix("Bearer sk-")
    organization = (seen.header("openai-organization") or "").removeprefix("org-")
    return {seen.header("x-version"), key, organization, str(seen.body["version"])}


def judge(sim: Simulator, calls: int) -> int:
    """Holds the simulator's log against the promise; says how many calls went to a second deployment."""
    by_call: dict[str, set[str | None]] = {}
    for seen in sim.requests:
        found = re.search(r"call (\d+)", str(seen.body["messages"]))
        if found is None:
            continue
        assert seen.body["model"] != "failing", "a circuit was forgotten"
        by_call.setdefault(found[1], set()).update(versions(seen))
    assert len(by_call) == calls
    assert [made_of for made_of in by_call.values() if len(made_of) != 1] == []
    assert len(set.union(*by_call.values())) > 3
    return len(sim.requests) - calls


def reload_often(
    client: LiterLLM | AsyncLiterLLM | ProviderRouter, path: Path, sim: Simulator, reloads: int
) -> list[str]:
    """Reloads at the rate above; says what went wrong."""
    faults: list[str] = []
    refused = 0
    begun = time.monotonic()
    for turn in range(1, reloads + 1):
        time.sleep(max(0.0, begun + turn / RELOADS - time.monotonic()))
        text = document(sim, turn)
        bad = turn % 10 == 5
        path.write_text(broken(text, turn // 10) if bad else text)
        try:
            client.reload()
        except ConfigError as error:
            refused += 1
            if not bad or client.config_error is not error:
                faults.append(f"{turn}: {error}")
        else:
            if bad or client.config_error is not None:
                faults.append(f"{turn}: was taken")
    if refused != reloads // 10:
        faults.append(f"{refused} were refused")
    return faults


@pytest.fixture
def storm() -> Any:
    with Simulator(log_capacity=100_000, response_delay_ms=5) as sim:
        # Some calls go on to another deployment.
        sim.rules = [
            {"match": {"model": "failing"}, "fault": {"status": 500}},
            {"match": {"model": "a", "body_contains": "elsewhere"}, "fault": {"status": 503}},
        ]
        yield sim


def ask(number: int) -> str:
    # One in ten is refused by `a`; not so many that its circuit opens.
    return f"call {number} {'elsewhere' if number % 10 == 0 else ''}"


def prepare(client: LiterLLM, sim: Simulator) -> None:
    """Opens the circuit of the deployment that fails."""
    for _ in range(3):
        client.generate("hello")
    failing = next(state for state in client.state() if state.deployment == "failing")
    assert failing.circuit == "open"
    assert sum(seen.body["model"] == "failing" for seen in sim.requests) == 1


@pytest.mark.parametrize("by", ["client", "router"])
def test_row_37_reloads_under_load_async(storm: Simulator, tmp_path: Path, sized: Sized, by: str) -> None:
    reloads = sized(FULL, SHORT)
    path = tmp_path / "liter-llm.toml"
    path.write_text(document(storm, 0))
    with LiterLLM.from_config(path) as opener:
        prepare(opener, storm)
    router = ProviderRouter.from_config(path) if by == "router" else None
    client = AsyncLiterLLM.from_config(path) if router is None else AsyncLiterLLM(router)

    async def run() -> tuple[int, list[BaseException], list[str]]:
        for _ in range(3):
            await client.generate("hello")
        storm.clear_requests()
        reloading = asyncio.get_running_loop().run_in_executor(
            None, reload_often, router or client, path, storm, reloads
        )
        calls: list[asyncio.Task[Any]] = []
        begun = time.monotonic()
        while not reloading.done() and len(calls) < RATE * 60:
            calls.append(asyncio.create_task(one(len(calls))))
            await asyncio.sleep(max(0.0, begun + len(calls) / RATE - time.monotonic()))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        return len(calls), [each for each in outcomes if isinstance(each, BaseException)], await reloading

    async def one(number: int) -> None:
        if number % 3:
            await client.generate(ask(number))
        else:
            async with client.stream(ask(number)) as stream:
                async for _ in stream:
                    pass

    calls, errors, faults = asyncio.run(run())
    assert (errors[:3], faults) == ([], [])
    assert calls >= RATE * reloads / RELOADS * 0.5, "too few calls to mean anything"
    assert judge(storm, calls) > 0
    assert next(state for state in client.state() if state.deployment == "failing").circuit == "open"


def test_row_37_reloads_under_load_threads(storm: Simulator, tmp_path: Path, sized: Sized) -> None:
    """The same for threads, over one deployment: those calls run on the caller's own thread."""
    reloads = sized(FULL, SHORT)
    path = tmp_path / "liter-llm.toml"

    def single(version: int) -> str:
        text = document(storm, version)
        return text[text.index("[[") : text.index('[[deployments]]\nname = "b"')].replace(
            "[[deployments]]", "[deployment]"
        )

    path.write_text(single(0))
    client = LiterLLM.from_config(path)
    client.generate("hello")
    storm.clear_requests()
    done = threading.Event()
    errors: list[LiterLlmError] = []
    counts = [0] * 8

    def call(thread: int) -> None:
        begun = time.monotonic()
        while not done.is_set() and counts[thread] < RATE * 60:
            number = counts[thread] * 8 + thread
            counts[thread] += 1
            try:
                client.generate(f"call {number}")
            except LiterLlmError as error:
                errors.append(error)
            time.sleep(max(0.0, begun + counts[thread] * 8 / RATE - time.monotonic()))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    for turn in range(1, reloads + 1):
        time.sleep(max(0.0, begun + turn / RELOADS - time.monotonic()))
        text = single(turn)
        bad = turn % 10 == 5
        path.write_text(text.replace("organization", "organisation") if bad else text)
        if bad:
            with pytest.raises(ConfigError, match=r"liter-llm\.toml:6: .*did you mean `organization`"):
                client.reload()
        else:
            client.reload()
    done.set()
    for thread in threads:
        thread.join()
    assert errors[:3] == []
    assert sum(counts) >= RATE * reloads / RELOADS * 0.5, "too few calls to mean anything"
    judge(storm, sum(counts))


def test_row_37_a_revoked_key_dies(sim: Simulator, tmp_path: Path) -> None:
    """By `reload()` at once; for a watched file within a second of its writing."""
    path = tmp_path / "liter-llm.toml"
    text = f'[deployment]\nprovider = "openai/m"\nbase_url = "{sim.base_url("openai")}"\napi_key = "KEY"\n'
    path.write_text(text.replace("KEY", "sk-old"))
    client = LiterLLM.from_config(path)
    client.generate("hello")
    path.write_text(text.replace("KEY", "sk-new"))
    client.reload()
    client.generate("hello")
    assert [seen.header("authorization") for seen in sim.requests] == ["Bearer sk-old", "Bearer sk-new"]
    client.close()

    watched = LiterLLM.from_config(path, watch=True)
    slack: list[float] = []
    for turn in range(4):
        time.sleep(random.Random(turn).uniform(0, 0.5))
        sim.clear_requests()
        path.write_text(text.replace("KEY", f"sk-{turn}"))
        written = time.time()
        while time.time() < written + REVOKED + 0.3:
            watched.generate("hello")
            time.sleep(0.01)
        old = [seen.at for seen in sim.requests if seen.header("authorization") != f"Bearer sk-{turn}"]
        slack.append(max(old, default=written) - written)
    watched.close()
    assert max(slack) <= REVOKED, slack


def test_row_37_what_is_known_is_kept(sim: Simulator, tmp_path: Path) -> None:
    """An open circuit stays open through reloads, and is forgotten with the key that opened it."""
    path = tmp_path / "liter-llm.toml"
    text = (
        f'[deployment]\nprovider = "openai/m"\nbase_url = "{sim.base_url("openai")}"\napi_key = "KEY"\n'
        "max_retries = 0\ncircuit = { failures = 2, open_time_seconds = 3600 }\n"
    )
    path.write_text(text)
    client = LiterLLM.from_config(path)
    sim.rules = [{"fault": {"status": 500}}]
    for _ in range(2):
        with pytest.raises(InternalServerError):
            client.generate("hello")
    sim.rules.clear()
    for turn in range(10):
        path.write_text(f"{text}timeout_seconds = {turn + 1}\n")
        client.reload()
        with pytest.raises(CircuitOpenError):
            client.generate("hello")
    assert len(sim.requests) == 2
    path.write_text(text.replace("KEY", "OTHER"))
    client.reload()
    client.generate("hello")
    assert [state.circuit for state in client.state()] == ["closed"]
