"""Builds the Node package where it stands: the native library, what it reads, and the JavaScript.

    python scripts/build_node.py [--release] [--platform linux-x64-musl]

With `--platform`, the library is built for that platform of Linux instead of this machine, and the simulator
is not built.

On Linux with the GNU C library, zig links the library, so that it runs with every GLIBC from 2.28 on,
whatever the machine has that builds it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bindings" / "node"
CARGO = shutil.which("cargo") or "cargo"
OLDEST_GLIBC = "2.28"
#: Python's names of processors, as Node calls them.
PROCESSORS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Platform:
    """What is built for."""

    name: str
    """As the package calls it."""
    library: str
    """The name cargo gives the library."""
    triple: str | None
    """The target to build for with zig; `None`: this machine, with its own linker."""


def this_platform() -> Platform:
    machine = platform.machine().lower()
    processor = PROCESSORS.get(machine, machine)
    if sys.platform == "darwin":
        return Platform(f"darwin-{processor}", "libliter_llm_node.dylib", None)
    if sys.platform == "win32":
        return Platform(f"win32-{processor}", "liter_llm_node.dll", None)
    if platform.libc_ver()[0] != "glibc":
        return Platform(f"linux-{processor}-musl", "libliter_llm_node.so", None)
    return Platform(f"linux-{processor}-gnu", "libliter_llm_node.so", f"{machine}-unknown-linux-gnu")


def linux(name: str) -> Platform:
    """A platform of Linux, to be built for with zig."""
    _, processor, libc = name.split("-")
    machine = {"x64": "x86_64", "arm64": "aarch64"}[processor]
    return Platform(name, "libliter_llm_node.so", f"{machine}-unknown-linux-{libc}")


def build_library(to: Platform, *, release: bool) -> Path:
    """Builds the library and gives its place."""
    command = [CARGO, "build", "--locked", "--quiet", "--package", "liter-llm-node"]
    place = ROOT / "target"
    environment = dict(os.environ)
    if to.triple is not None:
        # Not through cargo: that looks for the subcommand on the path only.
        zigbuild = str(Path(sys.executable).with_name("cargo-zigbuild"))
        if to.triple.endswith("-musl"):
            # A library that Node loads has to use the C library of the process.
            environment["RUSTFLAGS"] = "-C target-feature=-crt-static"
            target = to.triple
        else:
            target = f"{to.triple}.{OLDEST_GLIBC}"
        command = [zigbuild, "zigbuild", *command[2:], "--target", target]
        environment["CARGO_ZIGBUILD_PYTHON_PATH"] = sys.executable
        place /= to.triple
    if release:
        command.append("--release")
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return place / ("release" if release else "debug") / to.library


def put(source: Path, target: Path) -> None:
    """Copies a file into place at once: a program may have the old one loaded."""
    target.parent.mkdir(exist_ok=True)
    fresh = target.with_name(f"{target.name}.new")
    shutil.copyfile(source, fresh)
    fresh.replace(target)


def main(arguments: list[str]) -> int:
    elsewhere = arguments[arguments.index("--platform") + 1] if "--platform" in arguments else None
    to = this_platform() if elsewhere is None else linux(elsewhere)
    put(build_library(to, release="--release" in arguments), PACKAGE / "native" / f"{to.name}.node")
    put(ROOT / "data" / "models.json", PACKAGE / "data" / "models.json")
    put(ROOT / "LICENSE", PACKAGE / "LICENSE")
    if elsewhere is None:
        # The demo and the tests ask the simulator, a program of its own.
        command = [CARGO, "build", "--locked", "--quiet", "--package", "liter-llm-sim"]
        subprocess.run(command, cwd=ROOT, check=True)
    npm = shutil.which("npm") or "npm"
    return subprocess.run([npm, "--silent", "run", "build"], cwd=PACKAGE, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
