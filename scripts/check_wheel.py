"""Checks built wheels: size, no start-up hooks, the files of a typed package, one module for all Pythons."""

from __future__ import annotations

import re
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

MOST_MB = 9.0
"""A wheel's size, in MB of a million bytes."""
MOST_REQUIREMENTS = 3


def problems(path: Path) -> list[str]:
    """What is wrong with the wheel, a sentence each."""
    found: list[str] = []
    size = path.stat().st_size / 1e6
    if size > MOST_MB:
        found.append(f"{size:.1f} MB is more than {MOST_MB} MB")
    if "-abi3-" not in path.name:
        found.append("its tag is not abi3")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        fields = Parser().parsestr(wheel.read(metadata).decode())
    hooks = [name for name in names if name.endswith((".pth", "sitecustomize.py", "usercustomize.py"))]
    if hooks:
        found.append(f"start-up hooks: {', '.join(hooks)}")
    stray = [
        name
        for name in names
        if not re.match(r"(liter_llm/|liter_llm-[^/]+\.(dist-info|data)/|liter_llm\.libs/)", name)
    ]
    if stray:
        found.append(f"files outside the package: {', '.join(stray)}")
    needed = ("liter_llm/__init__.py", "liter_llm/py.typed", "liter_llm/_native.pyi", "liter_llm/models.json")
    found += [f"{name} is missing" for name in needed if name not in names]
    if sum(bool(re.match(r"liter_llm/_native.*\.(so|pyd)$", name)) for name in names) != 1:
        found.append("there must be one native module")
    required = [line for line in fields.get_all("Requires-Dist") or [] if "extra ==" not in line]
    if len(required) > MOST_REQUIREMENTS:
        found.append(f"{len(required)} requirements are more than {MOST_REQUIREMENTS}: {', '.join(required)}")
    if not fields.get_payload():
        found.append("the description is empty")
    return found


def main(paths: list[str]) -> int:
    if not paths:
        print("usage: check_wheel.py WHEEL...", file=sys.stderr)
        return 2
    failed = False
    for path in map(Path, paths):
        found = problems(path)
        failed = failed or bool(found)
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {'; '.join(found) or 'as it should be'}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
