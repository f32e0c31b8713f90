"""Prints what a call and a stream event cost in Node with this package and with others, interleaved.

`python run.py [--quick] [--rounds N] [--write] [--check]`. The simulator runs on one core, the client on
another; every round visits every library, and a figure is the median of the rounds. CPU is user and system
time of all threads of the client's process, per call or per content event: streams have 1,000 events, paced
ones 100, and opening one is a part of that. Libraries are installed beside this file at the first run. With
`--check`, it fails where a goal is missed: less than every SDK, and at most 1.2 times undici.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import urllib.request
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from pinned import Worker, cores, pinned

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
HEADING = (
    "CPU microseconds in Node, median of the rounds (the range of the middle half in brackets). Streams have"
    " 1,000 events, those that come 5 ms apart 100; what opening one costs is in the figure."
)
RULES = [{"match": {"model": "*-paced"}, "fault": {"event_delay_ms": 5}}]


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


def worker_of(name: str, address: str, cpu: int | None) -> Worker:
    """A library's process."""
    urls = (f"{address}/openai/v1", f"{address}/anthropic")
    return Worker(["node", str(HERE / "worker.mjs"), name, *urls], {"NODE_ENV": "production"}, cpu)


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
        workers = {name: worker_of(name, simulator.address, client) for name, _, _ in CONTENDERS}
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


@dataclass(frozen=True)
class Verdict:
    """Whether this package keeps a goal in each column."""

    goal: str
    columns: tuple[tuple[str, str, bool], ...]
    """The column, what was found there, and whether that is within the goal."""

    @property
    def kept(self) -> bool:
        return all(kept for _, _, kept in self.columns)

    def line(self) -> str:
        found = "; ".join(
            f"{column}: {share}" + ("" if kept else " (missed)") for column, share, kept in self.columns
        )
        return f"{self.goal}: **{'yes' if self.kept else 'no'}** ({found})."


def verdicts(figures: dict[tuple[str, str], list[float]]) -> tuple[Verdict, Verdict]:
    """Compares this package's medians with those of every SDK and of undici; what is not there is missed."""
    sdks = [(name, package) for name, _, package in CONTENDERS if name not in {"ours", "undici"}]
    below: list[tuple[str, str, bool]] = []
    near: list[tuple[str, str, bool]] = []

    def median(name: str, scenario: str) -> float:
        return statistics.median(figures.get((name, scenario)) or [math.nan])

    for scenario, column, _ in SCENARIOS:
        ours = median("ours", scenario)
        shares = [(ours / median(name, scenario), package) for name, package in sdks]
        # A figure that is not there makes a share that is no number, and within no goal.
        missing = any(math.isnan(share) for share, _ in shares)
        share, package = (math.nan, "a library") if missing else max(shares)
        below.append((column, f"{share:.2f} x {package}", share < 1))
        share = ours / median("undici", scenario)
        near.append((column, f"{share:.2f}", share <= GOAL))
    return (
        Verdict("Less than every SDK", tuple(below)),
        Verdict(f"At most {GOAL} x undici", tuple(near)),
    )


def table(figures: dict[tuple[str, str], list[float]], errors: list[str], rounds: int) -> str:
    lines = [
        HEADING,
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
    lines += ["", *(line for verdict in verdicts(figures) for line in (verdict.line(), ""))][:-1]
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
    parser.add_argument("--check", action="store_true", help="fail where a goal is missed")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else arguments.rounds
    install()
    figures, errors = measure(rounds)
    text = table(figures, errors, rounds)
    sys.stdout.write(text)
    if arguments.write:
        how = "`make bench-node`; see [run.py](node/run.py) for how it is measured."
        REPORT.write_text(f"# Node\n\n{how}\n\n{text}")
    missed = arguments.check and not all(verdict.kept for verdict in verdicts(figures))
    return 1 if errors or missed else 0


if __name__ == "__main__":
    sys.exit(main())
