"""What telemetry costs: CPU a call and an event without it, with it, and with the bare SDK by hand.

`run.py [--rounds N] [--calls N] [--streams N] [--json]`. Every round visits every variant in a process of its
own; a figure is the median of the rounds. Our own share is what the SDK variant costs over calls without
telemetry, after each of which the bare SDK makes the same spans and measurements: what a program would pay
that knew them all beforehand; both take turns in one process. Simulator and OTLP receiver are processes of
their own, on another core where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from pinned import cores, pinned

CLIENT, UPSTREAM = cores()
VARIANTS = {
    "off": "off, OpenTelemetry not imported",
    "api": "`opentelemetry-api` imported, no provider",
    "null": "providers that do nothing",
    "sdk": "SDK, no-op exporter",
    "otlp": "SDK, OTLP to a receiver",
    "prometheus": "`PrometheusExporter`",
    "on_call": "`on_call` hook",
    "by_hand": "off, and the bare SDK making the same spans and records",
}
FIGURES = {
    "sync_call": "sync call",
    "async_call": "async call",
    "sync_event": "sync event",
    "async_event": "async event",
}
#: What is measured in turns within one process, as a difference: of two, the noise would be as large.
PAIRS = ("own", "alone")
#: us: our own share of a call and of an event, and what the API alone may add to a call.
GOAL_CALL, GOAL_EVENT, GOAL_API = 25.0, 0.5, 1.0

_SIMULATOR = """
import json, sys
from liter_llm.testing import Simulator
with Simulator(log_requests=False) as sim:
    print(sim.base_url("openai"), flush=True)
    sys.stdin.read()
"""
_RECEIVER = """
import sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(program: str) -> Iterator[str]:
    """Runs a program until the block ends; gives the line it prints at its start."""
    started = subprocess.Popen(
        [*pinned(UPSTREAM), sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdin is not None
    assert started.stdout is not None
    try:
        yield started.stdout.readline().strip()
    finally:
        started.stdin.close()
        started.wait(10)
        started.stdout.close()


def measure(rounds: int, calls: int, streams: int) -> dict[str, dict[str, list[float]]]:
    """Variant -> figure -> one value a round; of what is measured in pairs, the differences."""
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in (*VARIANTS, *PAIRS)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    with process(_SIMULATOR) as upstream, process(_RECEIVER) as receiver:
        for _ in range(rounds):
            for variant in (*VARIANTS, "paired"):
                command = [HERE / "worker.py", variant, upstream, receiver, str(calls), str(streams)]
                done = subprocess.run(
                    [*pinned(CLIENT), sys.executable, *command],
                    capture_output=True,
                    text=True,
                    timeout=300,
                    check=False,
                    env=environment,
                )
                if done.returncode:
                    raise SystemExit(f"{variant}: {done.stderr}")
                told = json.loads(done.stdout)
                for row, figures in (told if variant == "paired" else {variant: told}).items():
                    for name, value in figures.items():
                        found[row][name].append(value)
    return found


def shares(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Row -> figure -> median over the rounds; differences are taken within a round."""
    rows = {
        variant: {name: statistics.median(values) for name, values in figures.items()}
        for variant, figures in found.items()
    }
    off, api = found["off"], found["api"]
    rows["imported"] = {
        name: statistics.median(there - absent for there, absent in zip(api[name], off[name], strict=True))
        for name in FIGURES
    }
    return rows


def table(rows: dict[str, dict[str, float]]) -> str:
    """The rows as Markdown, us of CPU."""
    titles = {
        **VARIANTS,
        "own": f"our own share (goal {GOAL_CALL:g} a call, {GOAL_EVENT:g} an event)",
        "alone": "the same, as providers that do nothing over off",
        "imported": f"the API imported, over off (goal {GOAL_API:g})",
    }
    lines = [f"| us of CPU | {' | '.join(FIGURES.values())} |", "|" + " --- |" * (len(FIGURES) + 1)]
    for row, title in titles.items():
        cells = [f"{rows[row][name]:.{2 if 'event' in name else 1}f}" for name in FIGURES]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--streams", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    given = parser.parse_args()
    rows = shares(measure(given.rounds, given.calls, given.streams))
    print(json.dumps(rows) if given.json else table(rows))


if __name__ == "__main__":
    main()
