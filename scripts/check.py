"""Runs the checks one after another, all of them even when one fails, and ends with one summary."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
BIN = Path(PYTHON).parent

NPM = ("npm", "--prefix", "bindings/node", "run", "--silent")
# The bindings are libraries for their languages and cannot be linked as programs; tests there cover them.
NO_BINDINGS = ("--exclude", "liter-llm-python", "--exclude", "liter-llm-node")
# With what is not on by default, so that the tests behind it run too, and nothing is built twice for that;
# scripts/rust_features.py compiles each feature alone. `model` replaces the locks: a build of its own.
SPANS = "liter-llm/opentelemetry"
MODELS = ("-p", "liter-llm", "--features", "model", "--test", "models", "--locked", "--quiet")


@dataclass(frozen=True)
class Check:
    """A command and what it stands for."""

    name: str
    command: tuple[str, ...]

    def run(self) -> bool:
        """Runs it with its output shown; true when it passed."""
        print(f"\n==> {self.name}: {' '.join(self.command)}", flush=True)
        return subprocess.run(self.command, cwd=ROOT, check=False).returncode == 0


LINT = (
    Check("Rust format", ("cargo", "fmt", "--all", "--check")),
    Check(
        "Rust lints",
        (
            "cargo",
            "clippy",
            "--workspace",
            "--all-targets",
            "--features",
            f"{SPANS},liter-llm-bench/virtual-time",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ),
    ),
    Check("models' lints", ("cargo", "clippy", *MODELS, "--", "-D", "warnings")),
    Check("Python format", (str(BIN / "ruff"), "format", "--check", ".")),
    Check("Python lints", (str(BIN / "ruff"), "check", ".")),
    Check("Python types", (str(BIN / "basedpyright"),)),
    Check("native stub", (PYTHON, "-m", "mypy.stubtest", "liter_llm._native")),
    Check("Node types", (*NPM, "types")),
    Check("Node lints", (*NPM, "lint")),
)
TESTS = (
    Check(
        "Rust tests",
        ("cargo", "test", "--workspace", *NO_BINDINGS, "--features", SPANS, "--locked", "--quiet"),
    ),
    Check("models", ("cargo", "test", *MODELS)),
    Check(
        "routing bench",
        # The same packages as the tests above: nothing is built twice.
        (
            "cargo",
            "test",
            "--workspace",
            *NO_BINDINGS,
            "--features",
            SPANS,
            "--locked",
            "--quiet",
            "--test",
            "routing_day",
        ),
    ),
    Check("Rust API: examples, semver", (PYTHON, "scripts/rust_api.py")),
    Check("Rust features", (PYTHON, "scripts/rust_features.py")),
    Check("instruction counts", (PYTHON, "benchmarks/instructions/run.py")),
    Check("Python tests, conformance, documentation", (PYTHON, "-m", "pytest", "-ra", "tests")),
    Check("Node tests", (*NPM, "test")),
    Check("Node tests on Node.js 22", (PYTHON, "scripts/node_22.py")),
)
GROUPS = {"all": LINT + TESTS, "lint": LINT, "tests": TESTS}


def main(arguments: list[str]) -> int:
    checks = GROUPS.get(arguments[0] if arguments else "all")
    if checks is None or len(arguments) > 1:
        print(f"usage: check.py [{'|'.join(GROUPS)}]", file=sys.stderr)
        return 2
    rows: list[tuple[Check, bool, float]] = []
    for check in checks:
        start = time.monotonic()
        rows.append((check, check.run(), time.monotonic() - start))
    failed = [check.name for check, passed, _ in rows if not passed]
    print("\n==> summary")
    for check, passed, seconds in rows:
        print(f"{'ok' if passed else 'FAILED':<8}{seconds:>7.1f} s  {check.name}")
    verdict = f"FAILED: {', '.join(failed)}" if failed else "all passed"
    print(f"{len(rows) - len(failed)} of {len(rows)} checks passed: {verdict}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
