"""The check on instruction counts compares rightly, and notices work that is done twice."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "benchmarks" / "instructions" / "run.py"


@pytest.fixture(scope="module")
def counting() -> ModuleType:
    spec = importlib.util.spec_from_file_location("instruction_counts", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_rise_of_more_than_a_tenth_fails_and_names_the_scenario(counting: ModuleType) -> None:
    rows = counting.compare({"a": 1000, "b": 1000, "c": 1000}, {"a": 1100, "b": 1101, "c": 899})
    assert [row.verdict for row in rows] == ["ok", "ROSE", "fell"]
    (sentence,) = counting.failures(rows)
    assert sentence.startswith("b needs 1,101 instructions, +10.1% over")


def test_new_and_lost_scenarios_fail(counting: ModuleType) -> None:
    rows = counting.compare({"lost": 10}, {"new": 10})
    assert [(row.name, row.verdict) for row in rows] == [("new", "NEW"), ("lost", "GONE")]
    assert len(counting.failures(rows)) == 2
    assert "lost" in counting.table(rows)


def test_the_baseline_says_where_it_was_taken() -> None:
    baseline = json.loads((PROGRAM.parent / "baseline.json").read_text(encoding="utf-8"))
    assert baseline["rustc"]
    assert baseline["target"]
    assert all(count > 0 for count in baseline["instructions"].values())


def test_without_valgrind_the_check_is_skipped_here_and_fails_in_ci(tmp_path: Path) -> None:
    for ci, status in (("", 0), ("true", 1)):
        done = subprocess.run(
            [sys.executable, str(PROGRAM)],
            env={"PATH": str(tmp_path), "CI": ci},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert "skipped, valgrind is not installed" in done.stdout


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_a_doubled_hot_loop_is_refused() -> None:
    baseline = json.loads((PROGRAM.parent / "baseline.json").read_text(encoding="utf-8"))
    host = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    if f"host: {baseline['target']}" not in host:
        pytest.skip("the baseline is for another target")

    def check(**environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(PROGRAM), "--only", "encode_chat_small"],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    honest = check()
    assert honest.returncode == 0, honest.stdout + honest.stderr
    doubled = check(LITER_LLM_BENCH_DOUBLE="encode_chat_small")
    assert doubled.returncode == 1, doubled.stdout + doubled.stderr
    assert "FAILED: encode_chat_small needs" in doubled.stdout
