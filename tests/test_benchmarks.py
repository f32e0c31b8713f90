"""The benchmark runs and prints its table: one short round of this package beside the floor."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_a_quick_round_prints_the_table() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "clients" / "run.py"), "--quick"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len({len(row) for row in rows}) == 1
    assert "us/event" in done.stdout
    ours = next(row for row in rows if "this package" in row[0])
    assert all(re.search(r"\d", cell) for cell in ours), ours


def test_growth_prints_its_tables() -> None:
    program = ROOT / "benchmarks" / "growth" / "run.py"
    done = subprocess.run(
        [sys.executable, str(program), "--quick", "--only", "bodies,messages,concurrency,streams"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("### ") == 5
    rows = [line for line in done.stdout.splitlines() if line.startswith("| 1")]
    assert len(rows) == 10, done.stdout
    assert all(re.search(r"\d", cell) for row in rows for cell in row.split("|")[1:-1])


@pytest.fixture(scope="module")
def node() -> ModuleType:
    """The program that measures the Node package."""
    spec = util.spec_from_file_location("node_benchmark", ROOT / "benchmarks" / "node" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def figures(node: ModuleType, **own: float) -> dict[tuple[str, str], list[float]]:
    """10 us for undici, 30 for each SDK, 12 here, or what is given for a scenario."""
    usual = {"undici": 10.0, "ours": 12.0}
    found = {
        (name, scenario): [usual.get(name, 30.0), usual.get(name, 30.0), 1000.0]
        for name, _, _ in node.CONTENDERS
        for scenario, _, _ in node.SCENARIOS
    }
    return found | {("ours", scenario): [value] for scenario, value in own.items()}


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ({}, (True, True)),
        ({"stream": 12.1}, (True, False)),
        ({"paced_streams": 30.0}, (False, False)),
        ({"calls": 5.0}, (True, True)),
    ],
)
def test_the_goals_in_node_are_judged(
    node: ModuleType, own: dict[str, float], kept: tuple[bool, bool]
) -> None:
    verdicts = node.verdicts(figures(node, **own))
    assert tuple(verdict.kept for verdict in verdicts) == kept
    for verdict in verdicts:
        missed = [column for column, _, within in verdict.columns if not within]
        assert len(missed) == (0 if verdict.kept else 1)
        assert verdict.line().count("(missed)") == len(missed)
        assert ("**yes**" in verdict.line()) == verdict.kept


def test_a_goal_that_was_not_measured_is_missed(node: ModuleType) -> None:
    for name in ("undici", "ours", "openai"):
        some = {key: values for key, values in figures(node).items() if key != (name, "calls")}
        below, near = node.verdicts(some)
        assert below.kept == (name == "undici")
        assert near.kept == (name == "openai")


@pytest.mark.parametrize("missed", [False, True])
def test_the_check_fails_where_a_goal_is_missed(
    node: ModuleType, monkeypatch: pytest.MonkeyPatch, missed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = figures(node, stream=20.0) if missed else figures(node)
    monkeypatch.setattr(node, "install", lambda: None)
    monkeypatch.setattr(node, "version", lambda _: "1")
    monkeypatch.setattr(node, "measure", lambda _: (measured, []))
    for flags, code in (([], 0), (["--check"], int(missed))):
        monkeypatch.setattr(sys, "argv", ["run.py", *flags])
        assert node.main() == code
        assert capsys.readouterr().out.count("**no**") == int(missed)
