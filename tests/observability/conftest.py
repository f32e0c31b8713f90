"""Debian's Prometheus for the tests: found, started with a folder of its own, asked, stopped."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest
import yaml

from tests.stalls import Stalls

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy" / "observability"


def tool(name: str) -> str:
    """The path of a program of Debian's package `prometheus`; without it tests skip, or fail in CI."""
    path = shutil.which(name)
    if path is None:
        missing = f"{name} is not installed (Debian package prometheus)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return path


def program(name: str) -> ModuleType:
    """A module of deploy/observability, which is a folder of programs and no package."""
    sys.path.insert(0, str(DEPLOY))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DEPLOY))


def load(path: Path) -> Any:
    """A YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **arguments: Any) -> Any:
        query = urllib.parse.urlencode(arguments)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{arguments}: {error.read().decode()}") from error

    def query(self, expr: str, at: float) -> list[dict[str, Any]]:
        """The result of an instant query: always a vector."""
        data = self.get("query", query=expr, time=f"{at:.3f}")
        assert data["resultType"] == "vector", f"{expr} gives a {data['resultType']}"
        return data["result"]

    def wait(self) -> None:
        """Until it answers, at most 20 seconds."""
        end = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                    return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


#: A scene in which the machine stood still for so many seconds is played again, at most so often in all: a
#: Prometheus with windows of seconds sees the machine then and not the program.
STOOD_STILL, PLAYS = 0.4, 3


@contextmanager
def steady(play: Callable[[int], AbstractContextManager[tuple[T, Stalls]]]) -> Iterator[T]:
    """Plays a scene, of this number, until one was not disturbed; gives that one, or the last."""
    for number in range(1, PLAYS + 1):
        with play(number) as (scene, stalls):
            if stalls.worst < STOOD_STILL or number == PLAYS:
                yield scene
                return


@contextmanager
def prometheus(folder: Path, targets: list[str], rules: list[dict[str, Any]]) -> Iterator[Prometheus]:
    """Starts a Prometheus that scrapes the targets once a second as the job `liter-llm`."""
    binary = tool("prometheus")
    for number, rule in enumerate(rules):
        (folder / f"rules-{number}.yml").write_text(yaml.safe_dump(rule), encoding="utf-8")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules-*.yml")],
        "scrape_configs": [{"job_name": "liter-llm", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        running = Prometheus(f"http://{address}")
        try:
            running.wait()
        except OSError as error:
            raise AssertionError((folder / "log").read_text(encoding="utf-8")) from error
        yield running
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
