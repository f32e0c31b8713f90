"""Runs one library in a process of its own: a line of JSON in, a line of JSON out.

`python worker.py PEER URLS` with `URLS` a JSON object of the upstream's addresses. In, a line for each order:
`{"scenario": "sync_call", "n": 100}`. Out: `{"items": 100, "cpu_us": ..., "wall_s": ...}`, CPU being user and
system time of all threads of this process. Needs only the standard library and the library under test, so
that it runs in that library's own environment.
"""

from __future__ import annotations

import gc
import importlib
import json
import resource
import sys
import time
from pathlib import Path


def cpu_us() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e6


def rss_mb() -> float:
    """Resident memory now, in MB of a million bytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    peer = importlib.import_module(f"peers.{sys.argv[1]}").Peer(json.loads(sys.argv[2]))
    for line in sys.stdin:
        order = json.loads(line)
        scenario = getattr(peer, order["scenario"], None)
        if scenario is None:
            print(json.dumps({"absent": True}), flush=True)
            continue
        gc.collect()
        before_mb, before_us, start = rss_mb(), cpu_us(), time.perf_counter()
        try:
            items = scenario(order["n"])
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"[:400]}), flush=True)
            continue
        answer = {
            "items": items,
            "cpu_us": cpu_us() - before_us,
            "wall_s": time.perf_counter() - start,
            "rss_mb": rss_mb(),
            "grown_mb": max(peak_mb(), rss_mb()) - before_mb,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
