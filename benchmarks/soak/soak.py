"""An hour of mixed calls against a faulty simulator: nothing is lost, memory and open files do not grow.

`python benchmarks/soak/soak.py` runs 60 minutes, or `LITER_LLM_SOAK_MINUTES` (fractions allowed), and writes
its result as Markdown to standard output, progress to standard error. It ends with 1 when a call was lost or
answered wrongly, when open files grew, or when memory grew by 1 MiB an hour or more. A run under 20 minutes
is too short to tell growth from warming up; its slope is printed, not judged.

The simulator is a process of its own; what is measured is this process: the client.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from liter_llm import AsyncLiterLLM, CacheOptions, HedgeOptions, LiterLLM, LiterLlmError, ProviderConfig
from liter_llm.testing import Simulator

MINUTES = float(os.environ.get("LITER_LLM_SOAK_MINUTES", "60"))
#: Shorter runs do not judge the slope.
JUDGED_FROM_MINUTES = 20
SAMPLE_SECONDS = min(10.0, MINUTES * 60 / 30)
SLOPE_LIMIT = 1.0
FILES_LIMIT = 5
#: How long calls still in flight at the end may take; longer than the limit of every call.
PATIENCE = 60
#: 1 % of all requests, a fifth each. Of the streams that are cut or stall, half do so after some words.
FAULTS: list[tuple[str, dict[str, object], dict[str, object]]] = [
    ("429", {"percent": 0.2}, {"status": 429, "headers": {"retry-after": "0.05"}}),
    ("503", {"percent": 0.2}, {"status": 503}),
    ("reset", {"percent": 0.2}, {"reset": True}),
    ("cut", {"percent": 0.2, "streaming": False}, {"cut_after": 1}),
    ("cut", {"percent": 0.1, "streaming": True}, {"cut_after": 1}),
    ("cut", {"percent": 0.1, "streaming": True}, {"cut_after": 4}),
    ("stall", {"percent": 0.2, "streaming": False}, {"hang": True}),
    ("stall", {"percent": 0.1, "streaming": True}, {"hang": True}),
    ("stall", {"percent": 0.1, "streaming": True}, {"hang_after": 4}),
]
#: Workers of each kind and calls a second of each worker.
LOAD = {
    "sync": (4, 12.0),
    "sync stream": (2, 8.0),
    "async": (8, 8.0),
    "async stream": (4, 8.0),
    "async cached": (2, 8.0),
    "async cancelled": (4, 5.0),
    "stream left early": (2, 4.0),
}


def upstream() -> None:
    """The simulator: prints its address, answers until its standard input closes."""
    rules = [
        {"id": f"{name} {seed}", "match": {**match, "seed": seed}, "fault": fault}
        for seed, (name, match, fault) in enumerate(FAULTS)
    ]
    with Simulator(rules=rules, log_requests=False) as simulator:
        print(json.dumps({name: simulator.base_url(name) for name in ("openai", "anthropic")}), flush=True)
        sys.stdin.read()


@dataclass
class Tally:
    """What became of the calls. Shared by threads; every change is under the lock."""

    started: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    given_up: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    resent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, kind: str) -> None:
        with self.lock:
            self.started[kind] += 1

    def answer(self, kind: str, expected: str, text: str, attempts: int = 1) -> None:
        with self.lock:
            self.answered[kind] += 1
            self.resent += max(attempts - 1, 0)
            if text != expected and len(self.wrong) < 20:
                self.wrong.append(f"{kind}: {text!r} instead of {expected!r}")

    def fail(self, kind: str, error: BaseException) -> None:
        with self.lock:
            if isinstance(error, LiterLlmError):
                self.errors[kind, str(error.kind)] += 1
            else:
                self.wrong.append(f"{kind}: {type(error).__name__} instead of a LiterLlmError: {error}")

    def give_up(self, kind: str) -> None:
        with self.lock:
            self.given_up[kind] += 1

    def lost(self, kind: str) -> int:
        failed = sum(count for (of, _), count in self.errors.items() if of == kind)
        return self.started[kind] - self.answered[kind] - self.given_up[kind] - failed


@dataclass(frozen=True)
class Sample:
    """The process at one moment."""

    at: float
    rss_mib: float
    files: int
    threads: int


def sample(begun: float) -> Sample:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        time.monotonic() - begun,
        pages * resource.getpagesize() / 1024**2,
        len(list(Path("/proc/self/fd").iterdir())),
        len(list(Path("/proc/self/task").iterdir())),
    )


def slope(samples: list[Sample]) -> float:
    """MiB an hour: least squares over the last 80 %."""
    late = [one for one in samples if one.at >= samples[-1].at * 0.2]
    if len(late) < 2:
        return 0.0
    line = statistics.linear_regression([one.at for one in late], [one.rss_mib for one in late])
    return line.slope * 3600


def files_grown(samples: list[Sample]) -> float:
    """The median of the last fifth over that of the second one."""
    end = samples[-1].at
    early = [one.files for one in samples if end * 0.2 <= one.at < end * 0.4]
    late = [one.files for one in samples if one.at >= end * 0.8]
    return statistics.median(late) - statistics.median(early) if early and late else 0.0


def prompt(kind: str, number: int) -> tuple[str, str]:
    """What is asked and what must come back: a few words to a few kilobytes."""
    size = (3, 12, 60, 400)[number % 4]
    text = f"{kind} {number} " + " ".join(f"word{index}" for index in range(size))
    return f"[echo] {text}", text


def sync_call(client: LiterLLM, tally: Tally, kind: str, number: int) -> None:
    asked, expected = prompt(kind, number)
    answer = client.generate(asked, max_tokens=4000)
    tally.answer(kind, expected, answer.text, len(answer.attempts))


def sync_stream(client: LiterLLM, tally: Tally, kind: str, number: int) -> None:
    asked, expected = prompt(kind, number)
    stream = client.stream(asked, max_tokens=4000)
    text = "".join(chunk.text for chunk in stream)
    tally.answer(kind, expected, text, len(stream.response.attempts))


def sync_left_early(client: LiterLLM, tally: Tally, kind: str, number: int) -> None:
    with client.stream(prompt(kind, number)[0], max_tokens=4000) as stream:
        for _ in stream:
            break
    tally.give_up(kind)


async def async_call(client: AsyncLiterLLM, tally: Tally, kind: str, number: int) -> None:
    asked, expected = prompt(kind, number)
    answer = await client.generate(asked, max_tokens=4000)
    tally.answer(kind, expected, answer.text, len(answer.attempts))


async def async_cached(client: AsyncLiterLLM, tally: Tally, kind: str, number: int) -> None:
    # Three times the same question, of two tenants.
    asked, expected = prompt(kind, number // 3)
    answer = await client.generate(asked, max_tokens=4000, tenant=str(number % 2))
    tally.answer(kind, expected, answer.text, len(answer.attempts))


async def async_stream(client: AsyncLiterLLM, tally: Tally, kind: str, number: int) -> None:
    asked, expected = prompt(kind, number)
    stream = client.stream(asked, max_tokens=4000)
    text = "".join([chunk.text async for chunk in stream])
    tally.answer(kind, expected, text, len(stream.response.attempts))


async def async_cancelled(client: AsyncLiterLLM, tally: Tally, kind: str, number: int) -> None:
    asked, expected = prompt(kind, number)
    call = asyncio.ensure_future(client.generate(asked, max_tokens=4000))
    await asyncio.sleep(random.random() * 0.006)
    call.cancel()
    try:
        answer = await call
    except asyncio.CancelledError:
        tally.give_up(kind)
    else:
        tally.answer(kind, expected, answer.text, len(answer.attempts))


Sync = Callable[[LiterLLM, Tally, str, int], None]
Async = Callable[[AsyncLiterLLM, Tally, str, int], Awaitable[None]]
SYNC: dict[str, Sync] = {
    "sync": sync_call,
    "sync stream": sync_stream,
    "stream left early": sync_left_early,
}
ASYNC: dict[str, Async] = {
    "async": async_call,
    "async stream": async_stream,
    "async cached": async_cached,
    "async cancelled": async_cancelled,
}


def pause(rate: float) -> float:
    """Seconds to the next call: random around the mean, so that workers do not march in step."""
    return random.uniform(0.5, 1.5) / rate


def run_sync(client: LiterLLM, tally: Tally, kind: str, worker: int, until: float) -> None:
    workers, rate = LOAD[kind]
    number = worker
    while time.monotonic() < until:
        tally.start(kind)
        try:
            SYNC[kind](client, tally, kind, number)
        except Exception as error:
            tally.fail(kind, error)
        number += workers
        time.sleep(pause(rate))


async def run_async(client: AsyncLiterLLM, tally: Tally, kind: str, worker: int, until: float) -> None:
    workers, rate = LOAD[kind]
    number = worker
    while time.monotonic() < until:
        tally.start(kind)
        try:
            await ASYNC[kind](client, tally, kind, number)
        except Exception as error:
            tally.fail(kind, error)
        number += workers
        await asyncio.sleep(pause(rate))


async def drive(urls: dict[str, str], tally: Tally, samples: list[Sample]) -> None:
    """Runs all workers for the given time, and samples this process."""

    def config(provider: str, **options: object) -> ProviderConfig:
        return ProviderConfig(
            provider,
            "soak-model",
            api_key="sk-soak",
            base_url=urls[provider],
            timeout=30,
            first_byte_timeout=1,
            idle_timeout=1,
            **options,  # type: ignore[arg-type]
        )

    begun = time.monotonic()
    until = begun + MINUTES * 60
    sync_clients = [LiterLLM(config("openai")), LiterLLM(config("anthropic"))]
    async_clients = [AsyncLiterLLM(config("openai")), AsyncLiterLLM(config("anthropic"))]
    # Small enough to be full soon: a cache that fills up is no leak.
    cached = AsyncLiterLLM(
        config("openai", cache=CacheOptions(max_bytes=1024 * 1024, ttl=60), hedge=HedgeOptions(after=0.5))
    )
    threads = [
        threading.Thread(
            target=run_sync, args=(sync_clients[worker % 2], tally, kind, worker, until), daemon=True
        )
        for kind in SYNC
        for worker in range(LOAD[kind][0])
    ]
    for thread in threads:
        thread.start()
    tasks = [
        asyncio.ensure_future(
            run_async(
                cached if kind == "async cached" else async_clients[worker % 2], tally, kind, worker, until
            )
        )
        for kind in ASYNC
        for worker in range(LOAD[kind][0])
    ]
    told = begun
    while (now := time.monotonic()) < until:
        samples.append(sample(begun))
        if now - told >= 60:
            told = now
            last = samples[-1]
            print(
                f"{last.at / 60:5.1f} min  {sum(tally.started.values()):>8} calls  {last.rss_mib:6.1f} MiB  "
                f"{last.files} files",
                file=sys.stderr,
                flush=True,
            )
        await asyncio.sleep(min(SAMPLE_SECONDS, until - now))
    samples.append(sample(begun))
    _, unfinished = await asyncio.wait(tasks, timeout=PATIENCE)
    for task in unfinished:
        task.cancel()
    for thread in threads:
        await asyncio.to_thread(thread.join, PATIENCE)


def report(tally: Tally, samples: list[Sample]) -> bool:
    """Writes the result; true when all of it is as it must be."""
    late = [one for one in samples if one.at >= samples[-1].at * 0.2]
    growth, files = slope(samples), files_grown(samples)
    judged = MINUTES >= JUDGED_FROM_MINUTES
    lost = sum(tally.lost(kind) for kind in LOAD)
    calls, seconds = sum(tally.started.values()), samples[-1].at
    faults = ", ".join(dict.fromkeys(name for name, _, _ in FAULTS))
    verdict = "" if judged else f" (not judged: under {JUDGED_FROM_MINUTES} minutes)"
    print(
        f"# Soak\n\n"
        f"{seconds / 60:.1f} minutes, {calls} calls ({calls / seconds:.0f} a second), 1 % faults "
        f"({faults}), Python {platform.python_version()}, {platform.machine()}.\n\n"
        f"| | |\n| --- | --- |\n"
        f"| memory slope, last 80 % | {growth:+.2f} MiB an hour{verdict} |\n"
        f"| memory, least and most, last 80 % | {min(one.rss_mib for one in late):.1f} and "
        f"{max(one.rss_mib for one in late):.1f} MiB |\n"
        f"| open files, last fifth over second | {files:+.0f} |\n"
        f"| open files, most | {max(one.files for one in samples)} |\n"
        f"| threads, most | {max(one.threads for one in samples)} |\n"
        f"| requests sent again | {tally.resent} |\n"
        f"| lost calls | {lost} |\n"
        f"| wrong answers | {len(tally.wrong)} |\n"
    )
    print("| calls | made | answered | given up | errors | lost |\n| --- | --- | --- | --- | --- | --- |")
    for kind in LOAD:
        kinds = [f"{count} {name}" for (of, name), count in sorted(tally.errors.items()) if of == kind]
        print(
            f"| {kind} | {tally.started[kind]} | {tally.answered[kind]} | {tally.given_up[kind]} | "
            f"{', '.join(kinds) or '0'} | {tally.lost(kind)} |"
        )
    for line in tally.wrong:
        print(f"\nWrong: {line}")
    sys.stdout.flush()
    return not lost and not tally.wrong and files < FILES_LIMIT and (not judged or growth < SLOPE_LIMIT)


def main() -> int:
    if sys.argv[1:] == ["upstream"]:
        upstream()
        return 0
    if not Path("/proc/self/statm").exists():
        print("memory and open files are read from /proc, which this system does not have", file=sys.stderr)
        return 2
    simulator = subprocess.Popen(
        [sys.executable, __file__, "upstream"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert simulator.stdout is not None
        urls = json.loads(simulator.stdout.readline())
        tally, samples = Tally(), list[Sample]()
        asyncio.run(drive(urls, tally, samples))
    finally:
        assert simulator.stdin is not None
        simulator.stdin.close()
        simulator.wait(10)
    return 0 if report(tally, samples) else 1


if __name__ == "__main__":
    raise SystemExit(main())
