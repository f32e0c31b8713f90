"""The simulator as a process of its own: prints its addresses, answers until its standard input closes."""

from __future__ import annotations

import json
import os
import sys

from workload import RULES

from liter_llm import _native


def main() -> None:
    if len(sys.argv) > 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(sys.argv[1])})
    simulator = _native.Simulator(json.dumps({"log_requests": False, "rules": RULES}).encode())
    print(json.dumps({name: simulator.base_url(name) for name in ("openai", "anthropic")}), flush=True)
    sys.stdin.read()
    simulator.stop()


if __name__ == "__main__":
    main()
