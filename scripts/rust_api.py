"""Checks what the crate `liter-llm` offers: examples for all of it, no break without a version that says so.

The API stands as text in `crates/liter-llm/api.txt` (written with `--write`). It must be what the compiler
sees, and is compared with the same file at the last tag: a line that is gone there may break a program, so
the version must have changed in its first number, or in its second while the first is 0.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from rust_listing import Api

ROOT = Path(__file__).resolve().parents[1]
FORMAT = 57
"""The version of rustdoc's JSON that `rust_listing.py` reads: Rust 1.95's."""


class OtherFormatError(Exception):
    """This rustdoc writes another version of its JSON."""


def read(manifest: Path, target: Path) -> Api:
    """The API as the compiler sees it."""
    library = json.loads(_run(["cargo", "metadata", "--no-deps", "--format-version=1"], manifest.parent))
    package = next(one for one in library["packages"] if Path(one["manifest_path"]) == manifest.resolve())
    environment = {"RUSTDOC": str(Path(__file__).with_name("rustdoc_json.sh")), "CARGO_INCREMENTAL": "0"}
    command = [
        "cargo",
        "rustdoc",
        "--quiet",
        "--lib",
        "--manifest-path",
        str(manifest),
        "--target-dir",
        str(target),
    ]
    command += [
        "--",
        "-Z",
        "unstable-options",
        "--output-format",
        "json",
        "--document-hidden-items",
        "-A",
        "warnings",
    ]
    _run(command, manifest.parent, environment)
    name = next(one["name"] for one in package["targets"] if "lib" in one["kind"]).replace("-", "_")
    document = json.loads((target / "doc" / f"{name}.json").read_text())
    if document["format_version"] != FORMAT:
        raise OtherFormatError(f"rustdoc writes format {document['format_version']}, {FORMAT} is expected")
    return Api(document)


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def _told(command: list[str], folder: Path) -> str:
    """What a command says that may fail; empty when it did."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return "" if done.returncode else done.stdout.strip()


def version_of(manifest_text: str) -> str:
    """The version in a manifest: the package's own or the workspace's."""
    found = re.search(r'^version = "([^"]+)"', manifest_text, re.MULTILINE)
    if found is None:
        raise ValueError("the manifest has no version")
    return found.group(1)


def may_break(old: str, new: str) -> bool:
    """Whether a version may break programs that use the one before."""
    before, after = ([int(part) for part in re.split(r"[.+-]", version)[:3]] for version in (old, new))
    return after[0] > before[0] or (before[0] == after[0] == 0 and after[1] > before[1])


def against_tag(root: Path, listing: str, version_file: str, lines: list[str]) -> list[str]:
    """Says how the API compares with the one at the last tag; gives what breaks it without leave."""
    tag = _told(["git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"], root)
    if not tag:
        print("semver: there is no tag yet, so there is nothing to compare with")
        return []
    before = _told(["git", "show", f"{tag}:{listing}"], root)
    if not before:
        print(f"semver: {tag} has no {listing} yet, so there is nothing to compare with")
        return []
    old = version_of(_run(["git", "show", f"{tag}:{version_file}"], root))
    new = version_of((root / version_file).read_text())
    gone = sorted(set(before.splitlines()) - set(lines))
    added = sorted(set(lines) - set(before.splitlines()))
    print(f"semver: against {tag}: {len(gone)} lines gone, {len(added)} new; version {old} -> {new}")
    return [] if may_break(old, new) else gone


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    parser.add_argument("--package", default="crates/liter-llm", help="the crate's folder in it")
    parser.add_argument("--version-file", default="Cargo.toml", help="the manifest that states the version")
    parser.add_argument("--write", action="store_true", help="write the listing")
    options = parser.parse_args(arguments)
    root: Path = options.root.resolve()
    listing = Path(options.package) / "api.txt"
    try:
        api = read(root / options.package / "Cargo.toml", root / "target")
    except OtherFormatError as error:
        print(f"SKIPPED: {error}")
        return 0
    lines = api.lines()
    problems = api.lacking_examples() + api.not_offered()
    if options.write:
        (root / listing).write_text("\n".join(lines) + "\n")
    committed = (root / listing).read_text().splitlines() if (root / listing).is_file() else []
    changes = [line for line in difflib.unified_diff(committed, lines, lineterm="", n=0) if line[:1] in "+-"][
        2:
    ]
    if changes:
        problems.append(
            f"{listing} is not what the crate offers; write it with `scripts/rust_api.py --write`:"
        )
        problems += changes
    broken = against_tag(root, listing.as_posix(), options.version_file, lines)
    if broken:
        problems.append(
            "these may break programs, so the version must say so (0.x: the second number, else the first):"
        )
        problems += [f"-{line}" for line in broken]
    for problem in problems:
        print(problem)
    print(f"{len(api.items)} items, {len(lines)} lines: {'FAILED' if problems else 'ok'}")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
