"""Checks what the crate `liter-llm` offers: examples for all of it, no break without a version that says so.

The API stands as text in `crates/liter-llm/api.txt` (written with `--write`). It must be what the compiler
sees, and is compared with the same file at the last tag: a line that is gone there may break a program, so
the version must have changed in its first number, or in its second while the first is 0.

What cannot be checked (another rustdoc, a clone in which the last tag cannot be read) is skipped by name;
where `CI` is set, it fails.
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

from rust_features import INTERNAL
from rust_listing import Api

ROOT = Path(__file__).resolve().parents[1]
FORMAT = 57
"""The version of rustdoc's JSON that `rust_listing.py` reads: Rust 1.95's."""
TAGS = "v[0-9]*"
"""What the tags of versions are called."""


class OtherFormatError(Exception):
    """This rustdoc writes another version of its JSON."""


def read(manifest: Path, target: Path) -> Api:
    """The API as the compiler sees it, with all that a user may switch on."""
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
        f"--features={','.join(sorted(set(package['features']) - INTERNAL))}",
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


def _told(command: list[str], folder: Path) -> str | None:
    """What a command says that may fail; nothing when it did."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout.strip()


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


class NotCheckedError(Exception):
    """A comparison could not be made; the words say why."""


def last_tag(root: Path) -> str | None:
    """The last version's tag; where the clone has none, the remote is asked, and its tag is fetched.

    Raises:
        NotCheckedError: The clone is cut short, and nobody can say whether there is a tag.
    """
    tag = _told(["git", "describe", "--tags", "--abbrev=0", "--match", TAGS], root)
    if tag:
        return tag
    tags = _told(["git", "tag", "--list", "--sort=-version:refname", TAGS], root)
    if tags:
        # In a clone without its history, which tag is an ancestor cannot be seen: the highest version then.
        return tags.split()[0]
    listed = _told(["git", "ls-remote", "--tags", "--refs", "--sort=-version:refname", "origin", TAGS], root)
    if listed is None and _told(["git", "rev-parse", "--is-shallow-repository"], root) == "true":
        raise NotCheckedError("the clone is cut short, and its remote does not say which tags there are")
    if not listed:
        return None
    name = listed.splitlines()[0].rpartition("/")[2]
    fetch = ["git", "fetch", "--quiet", "--depth=1", "origin", f"refs/tags/{name}:refs/tags/{name}"]
    if _told(fetch, root) is None:
        raise NotCheckedError(f"the remote has {name}, and does not give it")
    return name


def against_tag(root: Path, listing: str, version_file: str, lines: list[str]) -> list[str]:
    """Says how the API compares with the one at the last tag; gives what breaks it without leave.

    Raises:
        NotCheckedError: The last tag is not known, or cannot be read.
    """
    tag = last_tag(root)
    if tag is None:
        print("semver: there is no tag yet, so there is nothing to compare with")
        return []
    held = _told(["git", "ls-tree", "--name-only", "--full-tree", tag, "--", listing], root)
    if held is None:
        raise NotCheckedError(f"{tag} cannot be read")
    if not held:
        print(f"semver: {tag} has no {listing} yet, so there is nothing to compare with")
        return []
    before = _run(["git", "show", f"{tag}:{listing}"], root)
    old = version_of(_run(["git", "show", f"{tag}:{version_file}"], root))
    new = version_of((root / version_file).read_text())
    gone = sorted(set(before.splitlines()) - set(lines))
    added = sorted(set(lines) - set(before.splitlines()))
    print(f"semver: against {tag}: {len(gone)} lines gone, {len(added)} new; version {old} -> {new}")
    return [] if may_break(old, new) else gone


def not_checked(why: Exception) -> int:
    """Says what was not checked, which is a failure in continuous integration only; the exit code."""
    failed = bool(os.environ.get("CI"))
    print(f"{'FAILED' if failed else 'SKIPPED'}: {why}")
    return int(failed)


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
        return not_checked(error)
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
    unknown: NotCheckedError | None = None
    broken: list[str] = []
    try:
        broken = against_tag(root, listing.as_posix(), options.version_file, lines)
    except NotCheckedError as error:
        unknown = error
    if broken:
        problems.append(
            "these may break programs, so the version must say so (0.x: the second number, else the first):"
        )
        problems += [f"-{line}" for line in broken]
    for problem in problems:
        print(problem)
    print(f"{len(api.items)} items, {len(lines)} lines: {'FAILED' if problems else 'ok'}")
    if problems:
        return 1
    return not_checked(unknown) if unknown else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
