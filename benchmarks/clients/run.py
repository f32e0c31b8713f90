"""Prints what a call and an event cost with this package and with others, in one interleaved run.

`python run.py [--quick] [--rounds N] [--peers a,b] [--write]`. The simulator runs on one core, the client on
another; every round visits every library, and a figure is the median of the rounds. CPU is user and
system time of all threads of the client's process, per call or per event.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from pinned import Worker, cores, pinned

VENVS = ROOT / ".bench-venvs"
RESULTS = ROOT / "benchmarks" / "results"
REPORT = ROOT / "benchmarks" / "RESULTS.md"

SCENARIOS = ("sync_call", "async_call", "sync_stream", "async_stream", "paced_stream")
FIRST = {"sync_call": 20, "async_call": 64, "sync_stream": 3, "async_stream": 3, "paced_stream": 1}
"""How many to do before measuring, which also tells how many fit into a slice of time."""
SLICE = 0.4
"""Seconds of wall time one measurement should take."""
IN_FLIGHT = 1000
TIME_LIMIT = 14 * 60


@dataclass(frozen=True)
class Contender:
    """A library: its script, the distribution that counts as it, and what its users import."""

    name: str
    script: str
    distribution: str | None
    imports: str


CONTENDERS = (
    Contender("raw sockets + json (floor)", "raw_sockets", None, "import socket, selectors, json"),
    Contender("pycurl + json", "pycurl_json", "pycurl", "import pycurl, json"),
    Contender("aiohttp + json", "aiohttp_json", "aiohttp", "import aiohttp, json"),
    Contender("**this package**", "ours", "liter-llm", "from liter_llm import LiterLLM, AsyncLiterLLM"),
    Contender("public liter-llm", "public_liter_llm", "liter-llm", "import liter_llm"),
    Contender("anthropic", "anthropic_sdk", "anthropic", "from anthropic import Anthropic"),
    Contender("openai", "openai_sdk", "openai", "from openai import OpenAI"),
    Contender("litellm", "litellm_sdk", "litellm", "import litellm"),
)


@dataclass
class Figures:
    """What was measured of one library."""

    version: str = ""
    packages: int | None = None
    mb: float | None = None
    import_s: float | None = None
    rss_mb: float | None = None
    in_flight_mb: float | None = None
    us: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)

    def median(self, scenario: str) -> float | None:
        return statistics.median(self.us[scenario]) if self.us.get(scenario) else None


def worker_of(contender: Contender, python: Path, urls: str, cpu: int | None) -> Worker:
    """The library's process."""
    command = [str(python), str(HERE / "worker.py"), contender.script, urls]
    return Worker(command, {"PYTHONDONTWRITEBYTECODE": "1"}, cpu)


def environment_of(contender: Contender) -> Path:
    """The Python of the library's own environment, made at first use; this package and the floor use ours."""
    if contender.script in {"ours", "raw_sockets"}:
        return Path(sys.executable)
    folder = VENVS / contender.script
    python = folder / "bin" / "python"
    pins = HERE / "requirements" / f"{contender.script}.txt"
    stamp = folder / ".ready"
    if not stamp.exists() or stamp.read_text() != pins.read_text():
        print(f"making the environment of {contender.script}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(pins)], check=True)
        stamp.write_text(pins.read_text())
    return python


def measure_import(python: Path, statement: str, times: int, cpu: int | None) -> float:
    """Seconds the import takes over starting a bare interpreter: the median of the differences."""

    # What is installed comes with its bytecode; a package in the repository gets it in the first run.
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def once(code: str) -> float:
        start = time.perf_counter()
        subprocess.run(
            [*pinned(cpu), str(python), "-c", code],
            check=True,
            env=surroundings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.perf_counter() - start

    once(statement)
    return statistics.median(once(statement) - once("pass") for _ in range(times))


def measure_installed(contender: Contender, python: Path, figures: Figures) -> None:
    if contender.distribution is None:
        return
    folders = [str(ROOT / "python" / "liter_llm")] if contender.script == "ours" else []
    done = subprocess.run(
        [str(python), str(HERE / "installed.py"), contender.distribution, *folders],
        capture_output=True,
        text=True,
        check=True,
    )
    counted = json.loads(done.stdout)
    figures.packages, figures.mb = counted["packages"], counted["mb"]
    code = f"from importlib.metadata import version; print(version({contender.distribution!r}))"
    figures.version = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def measure_memory(
    contender: Contender, python: Path, urls: str, cpu: int | None, figures: Figures, *, n: int
) -> None:
    with worker_of(contender, python, urls, cpu) as worker:
        first = worker.order("sync_call", 1)
        if "rss_mb" in first:
            figures.rss_mb = first["rss_mb"]
        worker.order("async_call", 1)
        grown = worker.order("in_flight", n)
        if "grown_mb" in grown:
            figures.in_flight_mb = grown["grown_mb"]
        elif "error" in grown:
            figures.errors.append(f"in flight: {grown['error']}")


def warm_up(
    workers: dict[Contender, Worker], results: dict[Contender, Figures], slice_s: float
) -> dict[tuple[Contender, str], int]:
    """Runs everything once; returns how many of each fit into `slice_s` seconds."""
    sizes: dict[tuple[Contender, str], int] = {}
    for contender, worker in workers.items():
        for scenario in SCENARIOS:
            answer = worker.order(scenario, FIRST[scenario])
            if "error" in answer:
                results[contender].errors.append(f"{scenario}: {answer['error']}")
            elif "items" in answer:
                each = answer["wall_s"] / FIRST[scenario]
                sizes[contender, scenario] = max(1, min(5000, int(slice_s / each)))
    return sizes


def measure_rounds(
    workers: dict[Contender, Worker],
    results: dict[Contender, Figures],
    rounds: int,
    slice_s: float,
    deadline: float,
) -> int:
    """Visits every library in every round; returns how many rounds were done."""
    sizes = warm_up(workers, results, slice_s)
    done = 0
    for number in range(rounds):
        order = list(workers) if number % 2 == 0 else list(reversed(workers))
        for scenario in SCENARIOS:
            for contender in order:
                n = sizes.get((contender, scenario))
                if n is None:
                    continue
                answer = workers[contender].order(scenario, n)
                if "items" in answer:
                    results[contender].us[scenario].append(answer["cpu_us"] / answer["items"])
                else:
                    results[contender].errors.append(f"{scenario}: {answer.get('error')}")
                    del sizes[contender, scenario]
        done += 1
        if time.monotonic() > deadline:
            break
    return done


def table(results: dict[Contender, Figures]) -> str:
    """The results as Markdown, the columns those of the project's goals."""
    header = (
        "library (version)", "packages / MB", "import s", "RSS MB", "sync call us", "async call us (c=64)",
        "sync stream us/event", "async stream us/event", "paced stream us/event", "MB for 1,000 in flight",
    )  # fmt: skip
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for contender, figures in results.items():
        name = f"{contender.name} {figures.version}".strip()
        size = "-" if figures.packages is None else f"{figures.packages} / {figures.mb:.1f}"
        cells = [name, size, number(figures.import_s, 2), number(figures.rss_mb, 0)]
        cells += [number(figures.median(scenario)) for scenario in SCENARIOS]
        cells.append("-" if figures.in_flight_mb is None else f"+{figures.in_flight_mb:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return "-"
    if digits is None:
        digits = 0 if value >= 100 else 1
    return f"{value:,.{digits}f}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short round of this package and the floor")
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take the median of (default 7)")
    parser.add_argument(
        "--peers", default="", help="scripts of the libraries to measure, comma-separated (default: all)"
    )
    parser.add_argument(
        "--write", action="store_true", help="write the table into benchmarks/RESULTS.md as well"
    )
    return parser.parse_args()


def start_upstream(cpu: int | None) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "upstream.py"), *([] if cpu is None else [str(cpu)])]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def raise_file_limit() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    options = arguments()
    chosen = (
        {"ours", "raw_sockets"}
        if options.quick and not options.peers
        else set(filter(None, options.peers.split(",")))
    )
    unknown = chosen - {contender.script for contender in CONTENDERS}
    if unknown:
        print(f"no such library: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    contenders = [contender for contender in CONTENDERS if not chosen or contender.script in chosen]
    pythons = {contender: environment_of(contender) for contender in contenders}
    raise_file_limit()
    client_cpu, upstream_cpu = cores()
    deadline = time.monotonic() + TIME_LIMIT - 180
    results = {contender: Figures() for contender in contenders}
    upstream = start_upstream(upstream_cpu)
    assert upstream.stdin
    assert upstream.stdout
    try:
        urls = upstream.stdout.readline().strip()
        workers = {c: worker_of(c, pythons[c], urls, client_cpu) for c in contenders}
        try:
            rounds = measure_rounds(
                workers,
                results,
                1 if options.quick else options.rounds,
                0.05 if options.quick else SLICE,
                deadline,
            )
        finally:
            for worker in workers.values():
                worker.__exit__()
        for contender in contenders:
            figures = results[contender]
            measure_installed(contender, pythons[contender], figures)
            figures.import_s = measure_import(
                pythons[contender], contender.imports, 1 if options.quick else 7, client_cpu
            )
            n = 100 if options.quick else IN_FLIGHT
            measure_memory(contender, pythons[contender], urls, client_cpu, figures, n=n)
    finally:
        upstream.stdin.close()
        upstream.wait(10)
        upstream.stdout.close()
    report(results, rounds, client_cpu, write=options.write)
    return (
        1
        if any(figures.errors for c, figures in results.items() if c.script in {"ours", "raw_sockets"})
        else 0
    )


def report(results: dict[Contender, Figures], rounds: int, cpu: int | None, *, write: bool) -> None:
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    pins = "client and simulator on a core each" if cpu is not None else "not pinned to cores"
    text = f"{table(results)}\n\n{where}; {pins}; medians of {rounds} interleaved rounds.\n"
    print(text, flush=True)
    for contender, figures in results.items():
        for error in dict.fromkeys(figures.errors):
            print(f"{contender.name}: {error}", file=sys.stderr)
    now = datetime.now(UTC)
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"clients-{now:%Y%m%dT%H%M%S}.json"
    body = {
        contender.script: {
            name: getattr(figures, name)
            for name in ("version", "packages", "mb", "import_s", "rss_mb", "in_flight_mb", "us", "errors")
        }
        for contender, figures in results.items()
    }
    file.write_text(
        json.dumps({"when": now.isoformat(), "where": where, "rounds": rounds, "libraries": body}, indent=1)
    )
    if write:
        REPORT.write_text(
            f"# Client libraries side by side\n\nTaken {now:%Y-%m-%d} by `make bench`.\n\n{text}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
