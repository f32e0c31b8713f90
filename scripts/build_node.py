"""Builds the Node package where it stands: the native library, what it reads, and the JavaScript.

    python scripts/build_node.py [--release] [--platform darwin-x64]

With `--platform`, the library is built for that one of `PLATFORMS` instead of this machine, and the
simulator is not built. The platforms of Linux can be built on any Linux, those of macOS and of Windows on
their own system; the Rust target has to be installed.

On Linux, zig links the library: with the GNU C library so that it runs with every GLIBC from 2.28 on,
whatever the machine has that builds it.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bindings" / "node"
CARGO = shutil.which("cargo") or "cargo"
OLDEST_GLIBC = "2.28"
#: Python's names of processors, as Node calls them.
PROCESSORS = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


#: The platforms as the package calls them, each with the target it is compiled for.
PLATFORMS = {
    "linux-x64-gnu": "x86_64-unknown-linux-gnu",
    "linux-arm64-gnu": "aarch64-unknown-linux-gnu",
    "linux-x64-musl": "x86_64-unknown-linux-musl",
    "linux-arm64-musl": "aarch64-unknown-linux-musl",
    "darwin-arm64": "aarch64-apple-darwin",
    "darwin-x64": "x86_64-apple-darwin",
    "win32-x64": "x86_64-pc-windows-msvc",
    "win32-arm64": "aarch64-pc-windows-msvc",
}
#: The names cargo gives the library.
LIBRARIES = {
    "linux": "libliter_llm_node.so",
    "darwin": "libliter_llm_node.dylib",
    "win32": "liter_llm_node.dll",
}


def this_platform() -> str:
    """The platform of this machine."""
    machine = platform.machine().lower()
    name = f"{sys.platform}-{PROCESSORS.get(machine, machine)}"
    if sys.platform != "linux":
        return name
    return f"{name}-{'gnu' if platform.libc_ver()[0] == 'glibc' else 'musl'}"


def cargo(name: str, *, release: bool) -> tuple[list[str], dict[str, str], Path]:
    """The command that builds for a platform, what it needs in its environment, and the library it makes."""
    system, triple = name.split("-", maxsplit=1)[0], PLATFORMS[name]
    options = ["--locked", "--quiet", "--package", "liter-llm-node", *(["--release"] if release else [])]
    library = ROOT / "target" / triple / ("release" if release else "debug") / LIBRARIES[system]
    if system != "linux":
        return [CARGO, "build", *options, "--target", triple], {}, library
    environment = {"CARGO_ZIGBUILD_PYTHON_PATH": sys.executable}
    if name.endswith("-musl"):
        # A library that Node loads has to use the C library of the process.
        environment["RUSTFLAGS"] = "-C target-feature=-crt-static"
    else:
        triple = f"{triple}.{OLDEST_GLIBC}"
    # Not through cargo: that looks for the subcommand on the path only.
    zigbuild = str(Path(sys.executable).with_name("cargo-zigbuild"))
    return [zigbuild, "zigbuild", *options, "--target", triple], environment, library


def build_library(name: str, *, release: bool) -> Path:
    """Builds the library for a platform and gives its place."""
    command, environment, library = cargo(name, release=release)
    subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True)
    return library


def put(source: Path, target: Path) -> None:
    """Copies a file into place at once: a program may have the old one loaded."""
    target.parent.mkdir(exist_ok=True)
    fresh = target.with_name(f"{target.name}.new")
    shutil.copyfile(source, fresh)
    fresh.replace(target)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Builds the Node package where it stands.")
    parser.add_argument("--release", action="store_true", help="with all optimisations")
    parser.add_argument(
        "--platform", choices=PLATFORMS, help="build for this platform; without: this machine's"
    )
    options = parser.parse_args(arguments)
    elsewhere: str | None = options.platform
    name = elsewhere or this_platform()
    put(build_library(name, release=options.release), PACKAGE / "native" / f"{name}.node")
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
