"""What `make test` runs: no Rust target that needs a feature is left out of it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")


def _commands() -> list[tuple[str, ...]]:
    spec = importlib.util.spec_from_file_location("check", ROOT / "scripts/check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclass looks for its module there.
    sys.modules["check"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["check"]
    return [check.command for check in module.GROUPS["all"]]


COMMANDS = _commands()


def _after(command: tuple[str, ...], option: str) -> list[str]:
    return [value for word, value in pairwise(command) if word == option]


def covers(command: tuple[str, ...], package: str, target: dict[str, Any]) -> bool:
    """Whether a `cargo` command takes this target of this package in, and switches on what it requires."""
    packages = _after(command, "-p")
    if package not in packages and ("--workspace" not in command or package in _after(command, "--exclude")):
        return False
    switched_on = {name for words in _after(command, "--features") for name in words.split(",")}
    for feature in target.get("required-features", []):
        if f"{package}/{feature}" not in switched_on and not (
            packages == [package] and feature in switched_on
        ):
            return False
    selected = {kind: _after(command, f"--{kind}") for kind in ("test", "bin", "example", "bench")}
    kind = target["kind"][0]
    return target["name"] in selected.get(kind, []) or not any(selected.values())


def gated() -> dict[str, tuple[str, dict[str, Any]]]:
    """Targets that are built with some feature only, with their packages, by name."""
    told = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--offline", "--format-version=1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {
        f"{target['kind'][0]} {target['name']}": (package["name"], target)
        for package in json.loads(told.stdout)["packages"]
        for target in package["targets"]
        if target.get("required-features")
    }


def test_every_gated_target_is_linted_and_every_test_among_them_run() -> None:
    found = gated()
    assert {"test spans", "test models", "bin routing_day"} <= found.keys()
    for name, (package, target) in found.items():
        lints = [command for command in COMMANDS if command[:2] == ("cargo", "clippy")]
        assert any(covers(command, package, target) for command in lints), f"nothing lints {name}"
        if target["test"] and target["kind"] == ["test"]:
            runs = [command for command in COMMANDS if command[:2] == ("cargo", "test")]
            assert any(covers(command, package, target) for command in runs), f"nothing runs {name}"


def test_one_that_is_left_out_would_be_seen() -> None:
    package, target = gated()["test spans"]
    plain = ("cargo", "test", "--workspace", "--exclude", "liter-llm-node", "--locked")
    assert not covers(plain, package, target)
    assert covers((*plain, "--features", "liter-llm/opentelemetry"), package, target)
    assert covers((*plain, "--features", "a/b,liter-llm/opentelemetry", "--test", "spans"), package, target)
    assert not covers((*plain, "--features", "liter-llm/opentelemetry", "--test", "models"), package, target)
    assert not covers(
        (*plain, "--exclude", package, "--features", "liter-llm/opentelemetry"), package, target
    )
    assert covers(("cargo", "test", "-p", package, "--features", "opentelemetry"), package, target)
