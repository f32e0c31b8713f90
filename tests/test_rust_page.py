"""The page on the Rust crate: its table of features, and the lines that put the crate into a program."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/rust.md").read_text(encoding="utf-8")
#: What is no feature of a user's: the list of those that are on, and what only the models in the tests need.
INTERNAL = {"default", "model"}

pytestmark = pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")


def metadata(folder: Path, *more: str) -> dict[str, Any]:
    command = ["cargo", "metadata", "--offline", "--format-version=1", *more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def crate(told: dict[str, Any]) -> dict[str, Any]:
    return next(package for package in told["packages"] if package["name"] == "liter-llm")


def test_the_table_has_every_feature_and_says_which_are_on() -> None:
    features = crate(metadata(ROOT, "--no-deps"))["features"]
    table = PAGE.partition("\n## Features\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z]+)` \| (yes|no) \|", table, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    on = {name: "yes" if name in features["default"] else "no" for name in features if name not in INTERNAL}
    assert dict(rows) == on


def test_its_lines_put_the_crate_into_a_program(tmp_path: Path) -> None:
    block = re.search(r"^```toml\n(\[dependencies\]\n.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None
    lines = block[1].replace("<repository>", str(ROOT))
    assert lines != block[1]
    (tmp_path / "src").mkdir()
    (tmp_path / "src/main.rs").write_text("fn main() {}\n")
    (tmp_path / "Cargo.toml").write_text(
        f'[package]\nname = "program"\nversion = "0.1.0"\nedition = "2024"\n\n{lines}\n[workspace]\n'
    )
    # The versions that are here already.
    shutil.copy(ROOT / "Cargo.lock", tmp_path)
    told = metadata(tmp_path)
    ours = crate(told)
    assert Path(ours["manifest_path"]) == ROOT / "crates/liter-llm/Cargo.toml"
    (node,) = (node for node in told["resolve"]["nodes"] if node["id"] == ours["id"])
    assert {"default", *ours["features"]["default"]} <= set(node["features"])
