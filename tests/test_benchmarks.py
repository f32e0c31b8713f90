"""The benchmark runs and prints its table: one short round of this package beside the floor."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
