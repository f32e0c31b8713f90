"""Programs that measure, each on a core of its own: how they are started, told what to do, and ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Self


def cores() -> tuple[int | None, int | None]:
    """(the client's core, the upstream's), where the system lets us choose and has two."""
    if hasattr(os, "sched_getaffinity"):
        free = sorted(os.sched_getaffinity(0))
        if len(free) >= 2:
            return free[0], free[1]
    return None, None


def pinned(cpu: int | None) -> list[str]:
    """What to put before a command so that it runs on this core."""
    if cpu is None:
        return []
    code = "import os,sys; os.sched_setaffinity(0,{int(sys.argv[1])}); os.execvp(sys.argv[2],sys.argv[2:])"
    return [sys.executable, "-S", "-E", "-c", code, str(cpu)]


class Worker:
    """A library's process: for each line of orders it writes one of figures. Closed, it ends."""

    def __init__(self, command: list[str], environment: Mapping[str, str], cpu: int | None) -> None:
        self._process = subprocess.Popen(
            [*pinned(cpu), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"NO_PROXY": "127.0.0.1"} | environment,
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
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
