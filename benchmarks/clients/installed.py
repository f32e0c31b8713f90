"""How much a library brings: prints `{"packages": n, "mb": x}` for a distribution and what it requires."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path


def closure(name: str, found: dict[str, Distribution]) -> None:
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in found:
        return
    try:
        found[key] = distribution(name)
    except PackageNotFoundError:
        return  # required on another system or Python only
    for requirement in found[key].requires or ():
        if "extra ==" not in requirement:
            match = re.match(r"[A-Za-z0-9._-]+", requirement)
            if match:
                closure(match[0], found)


def size(item: Distribution) -> int:
    files = [Path(str(file.locate())) for file in item.files or () if "__pycache__" not in str(file)]
    return sum(path.stat().st_size for path in files if path.is_file())


def main() -> None:
    name, *folders = sys.argv[1:]
    found: dict[str, Distribution] = {}
    closure(name, found)
    total = sum(size(item) for item in found.values())
    # A package that is installed for development lies in the repository.
    for folder in folders:
        total += sum(
            path.stat().st_size
            for path in Path(folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        )
    print(json.dumps({"packages": len(found), "mb": total / 1e6}))


if __name__ == "__main__":
    main()
