"""Programs in C: compiled against the library as it is installed, and run, under valgrind too."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
C = ROOT / "bindings" / "c"
WARNINGS = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
#: Wrong reads and writes, and blocks that nothing points to any more, make it end with 9.
VALGRIND = (
    "valgrind",
    "--quiet",
    "--error-exitcode=9",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=definite",
)


def needs(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if not missing:
        return
    words = f"{' and '.join(missing)} is not installed"
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert not done.stderr, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Installed:
    """The library as `make install` leaves it, and the programs compiled against it."""

    prefix: Path

    def flags(self, *options: str) -> list[str]:
        folder = {"PKG_CONFIG_PATH": str(self.prefix / "lib" / "pkgconfig")}
        return run("pkg-config", *options, "liter_llm", env=folder).split()

    def program(
        self, source: Path, *, static: bool = False, compiler: tuple[str, ...] = ("cc", *WARNINGS)
    ) -> Path:
        program = self.prefix / f"{source.stem}{'-static' if static else ''}{source.suffix.replace('.', '-')}"
        if not program.exists():
            flags = self.flags("--cflags", "--libs", *(["--static"] if static else []))
            if static:
                archive = str(self.prefix / "lib" / "libliter_llm_c.a")
                flags = [archive if flag == "-lliter_llm_c" else flag for flag in flags]
                flags += ["-s", "-Wl,--gc-sections"]
            run(*compiler, "-g", source, "-o", program, *flags, "-pthread")
        return program

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.prefix / "lib")}


def checked(installed: Installed, name: str, *words: str | Path, valgrind: bool = True) -> str:
    program = installed.program(C / "tests" / f"{name}.c")
    if valgrind:
        needs("valgrind")
    return run(*(VALGRIND if valgrind else ()), program, *words, env=installed.environment).strip()
