"""How the cost of a call grows: with the body, the messages, the calls at a time, the events of a stream.

`run.py [--quick] [--out FILE]` starts the simulator on a core of its own, measures on another, and prints
tables in Markdown. CPU is user plus system time of all threads of this process, the median of interleaved
rounds; the floor is a bare socket with `json`, which does it without errors, types, pool or time limits.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "benchmarks" / "clients"
KEY, MODEL, SLOW_MODEL = "sk-benchmark", "gpt-4o-mini", "gpt-4o-mini-slow"
ANSWER = "[echo] " + "A service under load should answer quickly, fail loudly and never lose anything. " * 3
KB, MB = 1000, 1_000_000


def cpu_us() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e6


def entries(folder: str) -> int:
    """Open files (`fd`) or threads (`task`) of this process; 0 where the system does not say."""
    try:
        return sum(1 for _ in Path(f"/proc/self/{folder}").iterdir())
    except OSError:
        return 0


@dataclass
class Table:
    """A table being filled."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Adds a row and shows it at once."""
        row = tuple(number(cell) if isinstance(cell, float) else str(cell) for cell in cells)
        self.rows.append(row)
        print(f"{self.title}: {' | '.join(row)}", file=sys.stderr, flush=True)

    def markdown(self) -> str:
        """The table."""
        lines = [f"### {self.title}", "", "| " + " | ".join(self.head) + " |"]
        lines.append("|" + " --- |" * len(self.head))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines)


def number(value: float) -> str:
    """Three digits that count, thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class Bare:
    """One keep-alive connection, blocking: the floor."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = f"{parts.path}/chat/completions"
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _send(self, body: dict[str, Any]) -> None:
        data = json.dumps({"model": MODEL, "max_tokens": 64, **body}).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + data)

    def call(self, messages: list[dict[str, Any]]) -> None:
        """One whole answer."""
        self._send({"messages": messages})
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._socket.recv(65536)
        head, _, rest = data.partition(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(rest) < size:
            rest += self._socket.recv(65536)
        assert json.loads(rest)["choices"][0]["message"]["content"]

    def stream(self, events: int) -> None:
        """One streamed answer, cut into lines as it arrives."""
        self._send(
            {
                "messages": [{"role": "user", "content": f"[tokens={events}]"}],
                "max_tokens": 200_000,
                "stream": True,
            }
        )
        pending, pieces, tail = b"", [], b""
        # The end of the chunked body.
        while tail != b"0\r\n\r\n":
            block = self._socket.recv(65536)
            if not block:
                raise RuntimeError("the simulator closed the connection")
            tail = (tail + block)[-5:]
            *lines, pending = (pending + block).split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    choices = json.loads(line[6:])["choices"]
                    if choices and (piece := choices[0]["delta"].get("content")):
                        pieces.append(piece)
        assert len(pieces) >= events


def medians(rounds: int, jobs: dict[str, tuple[Callable[[], None], int]]) -> dict[str, float]:
    """CPU microseconds per item of each job; the rounds are interleaved, the first one warms up."""
    costs: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, (job, items) in jobs.items():
            gc.collect()
            before = cpu_us()
            job()
            if turn:
                costs[name].append((cpu_us() - before) / items)
    return {name: statistics.median(values) for name, values in costs.items()}


def repeated(times: int, job: Callable[[], object]) -> Callable[[], None]:
    """The job, several times."""

    def run() -> None:
        for _ in range(times):
            job()

    return run


class Growth:
    """All measurements of a run."""

    def __init__(self, url: str, *, quick: bool) -> None:
        from liter_llm import AsyncLiterLLM, LiterLLM, ProviderConfig

        config = ProviderConfig(provider="openai", model=MODEL, api_key=KEY, base_url=url)
        self.url, self.quick, self.rounds = url, quick, 1 if quick else 5
        self.client, self.asynchronous, self.bare = LiterLLM(config), AsyncLiterLLM(config), Bare(url)
        self.loop = asyncio.new_event_loop()

    def steps(self, *values: int) -> tuple[int, ...]:
        """The sizes to measure: with --quick only the first two."""
        return values[:2] if self.quick else values

    def _messages(self, messages: list[dict[str, Any]], times: int) -> dict[str, float]:
        return medians(
            self.rounds,
            {
                "ours": (
                    repeated(times, lambda: self.client.generate(messages=messages, max_tokens=64)),
                    times,
                ),
                "bare": (repeated(times, lambda: self.bare.call(messages)), times),
            },
        )

    def bodies(self) -> list[Table]:
        """One message of text, and one with an image, from 1 KB to 10 MB."""
        head = ("body", "us a call", "floor us", "ratio", "us per KB added")
        tables = [Table("Text of one message", head), Table("One image (base64) in a message", head)]
        for table, make in zip(tables, (_text, _image), strict=True):
            first: tuple[int, float] | None = None
            for size in self.steps(KB, 10 * KB, 100 * KB, MB, 10 * MB):
                times = max(4, min(400, 4 * MB // size)) // (4 if self.quick else 1)
                cost = self._messages(make(size), max(times, 1))
                first = first or (size, cost["ours"])
                added = (cost["ours"] - first[1]) / ((size - first[0]) / KB) if size > first[0] else 0.0
                ratio = f"{cost['ours'] / cost['bare']:.2f}"
                table.add(f"{size / KB:,.0f} KB", cost["ours"], cost["bare"], ratio, f"{added:.2f}")
        return tables

    def messages(self) -> Table:
        """Conversations of 1 to 1,000 messages of 80 bytes."""
        table = Table(
            "Messages in a conversation", ("messages", "us a call", "floor us", "us per message added")
        )
        first = 0.0
        for count in self.steps(1, 10, 100, 1000):
            text = ("A line of a talk that goes on. " * 3)[:80]
            talk = [
                {"role": "user" if turn % 2 == 0 else "assistant", "content": text}
                for turn in range(count - 1)
            ]
            times = 20 if self.quick else max(40, 400 // count)
            cost = self._messages([*talk, {"role": "user", "content": ANSWER}], times)
            first = first or cost["ours"]
            added = (cost["ours"] - first) / (count - 1) if count > 1 else 0.0
            table.add(f"{count:,}", cost["ours"], cost["bare"], f"{added:.2f}")
        return table

    async def _many(self, calls: int, concurrency: int, model: str) -> None:
        remaining = iter(range(calls))

        async def worker() -> None:
            for _ in remaining:
                answer = await self.asynchronous.generate(prompt=ANSWER, max_tokens=64, model=model)
                assert answer.text

        await asyncio.gather(*(worker() for _ in range(min(calls, concurrency))))

    def concurrency(self) -> Table:
        """Async calls, 1 to 10,000 at a time."""
        table = Table(
            "Calls at a time (asyncio)",
            ("at a time", "us a call", "calls a second", "sockets kept", "OS threads"),
        )
        for count in self.steps(1, 10, 100, 1000, 10_000):
            calls = 200 if self.quick else max(4000, 2 * count)
            costs, rates = [], []
            for turn in range(self.rounds + 1):
                gc.collect()
                before, begun = cpu_us(), time.perf_counter()
                self.loop.run_until_complete(self._many(calls, count, MODEL))
                if turn:
                    costs.append((cpu_us() - before) / calls)
                    rates.append(calls / (time.perf_counter() - begun))
            table.add(
                f"{count:,}",
                statistics.median(costs),
                statistics.median(rates),
                entries("fd"),
                entries("task"),
            )
        return table

    def in_flight(self) -> Table:
        """Threads and sockets while calls wait for slow answers."""
        table = Table(
            "Slow answers (1.5 s), all in flight", ("calls", "us a call", "OS threads", "sockets", "seconds")
        )
        for count in self.steps(100, 1000, 10_000):
            seen: list[tuple[int, int]] = []
            done = threading.Event()

            def watch(seen: list[tuple[int, int]] = seen, done: threading.Event = done) -> None:
                while not done.wait(0.2):
                    # Without this watching thread.
                    seen.append((entries("task") - 1, entries("fd")))

            watcher = threading.Thread(target=watch)
            before, begun = cpu_us(), time.perf_counter()
            watcher.start()
            self.loop.run_until_complete(self._many(count, count, SLOW_MODEL))
            took, cost = time.perf_counter() - begun, (cpu_us() - before) / count
            done.set()
            watcher.join()
            threads, files = max(threads for threads, _ in seen), max(files for _, files in seen)
            table.add(f"{count:,}", cost, threads, files, f"{took:.1f}")
        return table

    def streams(self) -> Table:
        """Streamed answers of 10 to 100,000 events that are all ready at once."""

        def ours(events: int) -> None:
            count = 0
            for chunk in self.client.stream(prompt=f"[tokens={events}]", max_tokens=200_000):
                count += bool(chunk.text)
            assert count >= events

        async def ours_async(events: int) -> None:
            count = 0
            async for chunk in self.asynchronous.stream(prompt=f"[tokens={events}]", max_tokens=200_000):
                count += bool(chunk.text)
            assert count >= events

        table = Table(
            "Events in a stream", ("events", "sync us an event", "async us an event", "floor us an event")
        )
        for events in self.steps(10, 100, 1000, 10_000, 100_000):
            times = 2 if self.quick else max(1, min(50, 20_000 // events))

            def run_async(events: int = events) -> None:
                self.loop.run_until_complete(ours_async(events))

            items = times * events
            cost = medians(
                min(self.rounds, 3),
                {
                    "sync": (repeated(times, lambda events=events: ours(events)), items),
                    "async": (repeated(times, run_async), items),
                    "bare": (repeated(times, lambda events=events: self.bare.stream(events)), items),
                },
            )
            table.add(f"{events:,}", cost["sync"], cost["async"], cost["bare"])
        return table

    def rates(self) -> Table:
        """What goes through one core for seconds on end: asyncio, Rust, bare HTTP clients."""
        table = Table("Sustained on one core", ("client", "calls a second", "us CPU a call", "sockets"))
        calls = 500 if self.quick else 60_000
        before, begun = cpu_us(), time.perf_counter()
        self.loop.run_until_complete(self._many(calls, 64, MODEL))
        took = time.perf_counter() - begun
        table.add("Python, asyncio, 64 at a time", calls / took, (cpu_us() - before) / calls, "")
        for line in _rust(self.url, calls=200 if self.quick else 20_000, rounds=1 if self.quick else 5):
            name = {"engine": "engine (Rust)", "engine_json": "engine, JSON in and out"}.get(
                line["client"], f"{line['client']}, bare"
            )
            table.add(f"{name}, 100 at a time", line["per_second"], line["cpu_us"], line["sockets"])
        return table


def _text(size: int) -> list[dict[str, Any]]:
    text = ("All work and no rest makes a log file long.\n" * (size // 44 + 1))[:size]
    return [{"role": "user", "content": text}, {"role": "user", "content": ANSWER}]


def _image(size: int) -> list[dict[str, Any]]:
    picture = base64.b64encode(bytes(range(256)) * (size * 3 // 4 // 256 + 1)).decode()[:size]
    url = "data:image/png;base64," + picture[: len(picture) // 4 * 4]
    part = {"type": "image_url", "image_url": {"url": url}}
    return [{"role": "user", "content": [part]}, {"role": "user", "content": ANSWER}]


def _rust(url: str, calls: int, rounds: int) -> list[dict[str, Any]]:
    """The Rust program's lines; it runs where this process runs."""
    command = ["cargo", "build", "--locked", "--quiet", "--profile", "counted", "-p", "liter-llm-bench"]
    subprocess.run([*command, "--bin", "calls"], cwd=ROOT, check=True)
    program = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "counted" / "calls"
    arguments = ["--url", url, "--calls", str(calls), "--rounds", str(rounds)]
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=True, timeout=600)
    return [json.loads(line) for line in done.stdout.splitlines()]


def upstream(core: int | None) -> tuple[subprocess.Popen[str], str]:
    """The simulator in a process of its own, and its address for OpenAI's API."""
    arguments = [] if core is None else [str(core)]
    process = subprocess.Popen(
        [sys.executable, str(CLIENTS / "upstream.py"), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["openai"]


def main(arguments: list[str]) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="the two smallest sizes, one round: does it work?"
    )
    parser.add_argument("--out", type=Path, help="write the tables into this file as well")
    parser.add_argument(
        "--only", help="comma-separated: bodies, messages, concurrency, in_flight, streams, rates"
    )
    options = parser.parse_args(arguments)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    process, url = upstream(cores[1] if len(cores) > 1 else None)
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[0]})
    try:
        growth = Growth(url, quick=options.quick)
        names = ("bodies", "messages", "concurrency", "in_flight", "streams", "rates")
        tables: list[Table] = []
        for name in names:
            if options.only is None or name in options.only.split(","):
                made = getattr(growth, name)()
                tables += made if isinstance(made, list) else [made]
        text = "\n\n".join(table.markdown() for table in tables) + "\n"
        print(text)
        if options.out is not None:
            options.out.write_text(text, encoding="utf-8")
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
