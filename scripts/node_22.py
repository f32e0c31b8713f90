"""Runs the Node package's suite on Node.js 22, whatever Node.js this machine has.

The program comes from the npm registry, in the version and with the checksum that `tests/node-22` states,
into that folder. It is there for Linux; elsewhere this says so and fails where `CI` is set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "tests" / "node-22"
NPM = shutil.which("npm") or "npm"


def found() -> Path | None:
    """The program for this machine, if it was installed."""
    return next(HOME.glob("node_modules/node-*/bin/node"), None)


def install() -> Path | None:
    """Installs the program unless the one that is wanted is there."""
    done = HOME / "node_modules" / ".package-lock.json"
    if not done.exists() or done.stat().st_mtime < (HOME / "package-lock.json").stat().st_mtime:
        subprocess.run([NPM, "ci", "--silent"], cwd=HOME, check=True)
        done.touch()
    return found()


def main() -> int:
    node = install()
    if node is None:
        print(f"NOT RUN: there is no Node.js 22 for {sys.platform} in {HOME.relative_to(ROOT)}/package.json")
        return 1 if os.environ.get("CI") else 0
    environment = os.environ | {"PATH": f"{node.parent}{os.pathsep}{os.environ['PATH']}"}
    version = subprocess.check_output([node, "--version"], text=True).strip()
    print(f"Node.js {version}", flush=True)
    if not version.startswith("v22."):
        return 1
    command = [NPM, "--prefix", "bindings/node", "run", "--silent", "test"]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
