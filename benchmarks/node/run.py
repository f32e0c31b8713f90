"""Prints what a call and a stream event cost in Node with this package and with others, interleaved.

`python run.py [--quick] [--rounds N] [--write]`. The simulator runs on one core, the client on another;
every round visits every library, and a figure is the median of the rounds. CPU is user and system time of
all threads of the client's process, per call or per content event. Libraries are installed beside this
file at the first run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import urllib.request
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
REPORT = ROOT / "benchmarks" / "RESULTS-node.md"
SIMULATOR = os.environ.get("LITER_LLM_SIM") or str(ROOT / "target" / "debug" / "liter-llm-sim")
#: Name of the library's part of worker.mjs, what the table calls it, its package.
CONTENDERS = (
    ("undici", "undici + JSON.parse", "undici"),
    ("ours", "**this package**", None),
    ("anthropic", "@anthropic-ai/sdk", "@anthropic-ai/sdk"),
    ("openai", "openai", "openai"),
    ("ai", "ai + @ai-sdk/openai", "ai"),
)
#: Scenario, its column, and how many are done before measuring, which tells how many fit into a slice.
SCENARIOS = (
    ("one_call", "call, one by one", 100),
    ("calls", "call, 64 at once", 200),
    ("stream", "event, one stream", 10),
    ("streams", "event, 8 streams", 16),
    ("paced_streams", "event, 8 streams, 5 ms apart", 8),
)
SLICE = 0.6
"""Seconds that one measurement should take."""
GOAL = 1.2
RULES = [{"match": {"model": "*-paced"}, "fault": {"event_delay_ms": 5}}]


def cores() -> tuple[int | None, int | None]:
    """(the client's core, the simulator's), where the system lets us choose and has two."""
    if hasattr(os, "sched_getaffinity"):
        free = sorted(os.sched_getaffinity(0))
        if len(free) > 1:
            return free[0], free[1]
    return None, None


def pinned(cpu: int | None) -> list[str]:
    if cpu is None:
        return []
    code = "import os,sys; os.sched_setaffinity(0,{int(sys.argv[1])}); os.execvp(sys.argv[2],sys.argv[2:])"
    return [sys.executable, "-S", "-E", "-c", code, str(cpu)]


class Simulator:
    """The providers, played on a core of their own."""

    def __init__(self, cpu: int | None) -> None:
        self._process = subprocess.Popen(
            [*pinned(cpu), SIMULATOR, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout
        self.address = self._process.stdout.readline().split("listening on ")[-1].strip()
        request = urllib.request.Request(
            f"{self.address}/_sim/rules", data=json.dumps(RULES).encode(), method="PUT"
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10):
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)


class Worker:
    """A library's process."""

    def __init__(self, name: str, address: str, cpu: int | None) -> None:
        urls = (f"{address}/openai/v1", f"{address}/anthropic")
        self._process = subprocess.Popen(
            [*pinned(cpu), "node", str(HERE / "worker.mjs"), name, *urls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"NO_PROXY": "127.0.0.1", "NODE_ENV": "production"},
        )

    def order(self, scenario: str, n: int) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"scenario": scenario, "n": n}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": "the process ended"}

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def install() -> None:
    stamp, wanted = HERE / "node_modules" / ".package-lock.json", HERE / "package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < wanted.stat().st_mtime:
        subprocess.run(["npm", "ci", "--silent", "--ignore-scripts"], cwd=HERE, check=True)
        stamp.touch()


def version(package: str | None) -> str:
    folder = ROOT / "bindings" / "node" if package is None else HERE / "node_modules" / package
    return str(json.loads((folder / "package.json").read_text())["version"])


def measure(rounds: int) -> tuple[dict[tuple[str, str], list[float]], list[str]]:
    client, upstream = cores()
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    errors: list[str] = []
    with Simulator(upstream) as simulator:
        workers = {name: Worker(name, simulator.address, client) for name, _, _ in CONTENDERS}
        try:
            counts: dict[tuple[str, str], int] = {}
            for name, worker in workers.items():
                for scenario, _, first in SCENARIOS:
                    worker.order(scenario, first)  # the interpreter compiles what is used often
                    worker.order(scenario, first)
                    answer = worker.order(scenario, first)
                    if "error" in answer:
                        errors.append(f"{name}, {scenario}: {answer['error']}")
                    else:
                        counts[name, scenario] = max(
                            first, int(first * SLICE / max(answer["seconds"], 0.001))
                        )
            for number in range(rounds):
                for scenario, _, _ in SCENARIOS:
                    # Another order each round: nobody is always behind the same neighbour.
                    for name in sorted(workers, key=lambda name: hash((number, name))):
                        if (name, scenario) not in counts:
                            continue
                        answer = workers[name].order(scenario, counts[name, scenario])
                        if "error" in answer:
                            errors.append(f"{name}, {scenario}: {answer['error']}")
                        else:
                            figures[name, scenario].append(answer["us"])
        finally:
            for worker in workers.values():
                worker.close()
    return figures, errors


def table(figures: dict[tuple[str, str], list[float]], errors: list[str], rounds: int) -> str:
    lines = [
        "CPU microseconds in Node, median of the rounds (the range of the middle half in brackets)",
        "",
        "| library | version | " + " | ".join(column for _, column, _ in SCENARIOS) + " |",
        "| --- | --- |" + " --- |" * len(SCENARIOS),
    ]
    for name, shown, package in CONTENDERS:
        cells: list[str] = []
        for scenario, _, _ in SCENARIOS:
            values = figures.get((name, scenario), [])
            if len(values) > 1:
                low, _, high = statistics.quantiles(values, n=4)
                cells.append(f"{statistics.median(values):.1f} [{low:.1f}-{high:.1f}]")
            else:
                cells.append(f"{values[0]:.1f}" if values else "-")
        lines.append(f"| {shown} | {version(package)} | " + " | ".join(cells) + " |")
    shares: list[str] = []
    for scenario, column, _ in SCENARIOS:
        ours, floor = figures.get(("ours", scenario)), figures.get(("undici", scenario))
        if ours and floor:
            share = statistics.median(ours) / statistics.median(floor)
            shares.append(f"{column}: {share:.2f}" + ("" if share <= GOAL else f" (goal {GOAL})"))
    lines += ["", "This package over undici: " + "; ".join(shares) + "."]
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    lines += ["", f"Node {node}, {platform.machine()}, {os.cpu_count()} cores, {rounds} rounds, {now}."]
    return "\n".join([*lines, *(f"\nfailed: {error}" for error in errors)]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--write", action="store_true", help=f"write {REPORT.relative_to(ROOT)}")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else arguments.rounds
    install()
    figures, errors = measure(rounds)
    text = table(figures, errors, rounds)
    sys.stdout.write(text)
    if arguments.write:
        REPORT.write_text("# Node\n\n`make bench-node`; see [node](node) for how it is measured.\n\n" + text)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
