"""Packs the Node package for the registry: one package without a library, and one for each library built.

    python scripts/pack_node.py FOLDER

Into FOLDER go `liter-llm-<version>.tgz`, which asks for the packages of all platforms as optional
dependencies, and `liter-llm-<platform>-<version>.tgz` for each library in `bindings/node/native`. npm
installs the one that fits.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bindings" / "node"
NPM = shutil.which("npm") or "npm"
#: Each platform with what npm asks of a machine for it.
PLATFORMS: dict[str, dict[str, list[str]]] = {
    "linux-x64-gnu": {"os": ["linux"], "cpu": ["x64"], "libc": ["glibc"]},
    "linux-arm64-gnu": {"os": ["linux"], "cpu": ["arm64"], "libc": ["glibc"]},
    "linux-x64-musl": {"os": ["linux"], "cpu": ["x64"], "libc": ["musl"]},
    "linux-arm64-musl": {"os": ["linux"], "cpu": ["arm64"], "libc": ["musl"]},
    "darwin-arm64": {"os": ["darwin"], "cpu": ["arm64"]},
    "darwin-x64": {"os": ["darwin"], "cpu": ["x64"]},
    "win32-x64": {"os": ["win32"], "cpu": ["x64"]},
    "win32-arm64": {"os": ["win32"], "cpu": ["arm64"]},
}
DROPPED = ("scripts", "devDependencies")
COPIED = ("license", "repository", "engines", "version")


def main_package(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of the package that users name."""
    kept = {name: value for name, value in manifest.items() if name not in DROPPED}
    kept["files"] = [name for name in manifest["files"] if name != "native"]
    kept["optionalDependencies"] = {f"@liter-llm/{name}": manifest["version"] for name in PLATFORMS}
    return kept


def platform_package(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """The manifest of a platform's package."""
    return {
        "name": f"@liter-llm/{name}",
        "description": f"The native library of liter-llm for {name}.",
        **{field: manifest[field] for field in COPIED},
        **PLATFORMS[name],
        "main": "liter-llm.node",
        "files": ["liter-llm.node"],
    }


def pack(manifest: dict[str, Any], files: dict[str, Path], folder: Path) -> None:
    """Packs these files with this manifest."""
    with tempfile.TemporaryDirectory() as place:
        stage = Path(place)
        (stage / "package.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for name, source in files.items():
            if source.is_dir():
                shutil.copytree(source, stage / name)
            else:
                shutil.copyfile(source, stage / name)
        command = [NPM, "pack", "--silent", "--pack-destination", str(folder)]
        subprocess.run(command, cwd=stage, check=True)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[0]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    license_file = {"LICENSE": ROOT / "LICENSE"}
    ours = {name: PACKAGE / name for name in ("dist", "data", "README.md")}
    pack(main_package(manifest), {**ours, **license_file}, folder)
    for library in sorted((PACKAGE / "native").glob("*.node")):
        pack(platform_package(manifest, library.stem), {"liter-llm.node": library, **license_file}, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
