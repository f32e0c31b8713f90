"""Compiles the crate `liter-llm` without features and with each alone, and tests what is left out.

A warning counts as a failure: what nobody uses without a feature has to go with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INTERNAL = {"default", "model"}
"""Not for users: all the others, and what only the models in the tests need."""


def features() -> list[str]:
    """The features that a user may leave out."""
    command = ["cargo", "metadata", "--no-deps", "--format-version=1"]
    metadata = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    packages = json.loads(metadata.stdout)["packages"]
    return sorted(set(next(one for one in packages if one["name"] == "liter-llm")["features"]) - INTERNAL)


def compiles(chosen: list[str]) -> bool:
    """Whether the library compiles with these features alone, without a warning."""
    command = ["cargo", "check", "-p", "liter-llm", "--lib", "--locked", "--no-default-features"]
    command += ["--features", ",".join(chosen), "--message-format=json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    told = [
        one["message"]["rendered"]
        for one in messages
        if one["reason"] == "compiler-message" and "liter-llm" in one["package_id"]
    ]
    print(
        f"{'+'.join(chosen) or 'none':<12} {'ok' if not told and done.returncode == 0 else 'FAILED'}",
        flush=True,
    )
    print("".join(told) or (done.stderr if done.returncode else ""), end="")
    return not told and done.returncode == 0


def main() -> int:
    passed = [compiles(chosen) for chosen in ([], *([one] for one in features()))]
    tests = [
        "cargo",
        "test",
        "-p",
        "liter-llm",
        "--locked",
        "--quiet",
        "--no-default-features",
        "--test",
        "features",
    ]
    passed.append(subprocess.run(tests, cwd=ROOT, check=False).returncode == 0)
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
