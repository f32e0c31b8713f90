"""The scripts and the workflow that build the Node package speak of the same platforms."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(ROOT / "scripts"))
build_node = importlib.import_module("build_node")
pack_node = importlib.import_module("pack_node")
sys.path.pop(0)
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "node.yml").read_text())


def jobs() -> Iterator[dict[str, Any]]:
    """The rows of the workflow, one for each platform."""
    for name in ("linux", "others"):
        yield from WORKFLOW["jobs"][name]["strategy"]["matrix"]["include"]


def test_the_workflow_builds_every_platform_for_its_target() -> None:
    assert {row["platform"]: row["target"] for row in jobs()} == build_node.PLATFORMS
    assert list(build_node.PLATFORMS) == list(pack_node.PLATFORMS)
    packed = next(step["run"] for step in WORKFLOW["jobs"]["packages"]["steps"] if step.get("name") == "Pack")
    assert f"-eq {len(build_node.PLATFORMS) + 1}" in packed
    for name in ("linux", "others"):
        steps = [step.get("run", "") for step in WORKFLOW["jobs"][name]["steps"]]
        assert any("build_node.py --release --platform ${{ matrix.platform }}" in step for step in steps)
        assert any("--target ${{ matrix.target }}" in step for step in steps)


@pytest.mark.parametrize(
    ("name", "file", "target"),
    [
        ("linux-x64-gnu", "libliter_llm_node.so", "x86_64-unknown-linux-gnu.2.28"),
        ("linux-arm64-musl", "libliter_llm_node.so", "aarch64-unknown-linux-musl"),
        ("darwin-x64", "libliter_llm_node.dylib", "x86_64-apple-darwin"),
        ("win32-arm64", "liter_llm_node.dll", "aarch64-pc-windows-msvc"),
    ],
)
def test_the_command_for_a_platform(name: str, file: str, target: str) -> None:
    command, environment, library = build_node.cargo(name, release=True)
    assert command[command.index("--target") + 1] == target
    assert library == ROOT / "target" / build_node.PLATFORMS[name] / "release" / file
    assert ("zigbuild" in command) == name.startswith("linux")
    assert ("RUSTFLAGS" in environment) == name.endswith("musl")


def test_this_machine_is_one_of_them() -> None:
    assert build_node.this_platform() in build_node.PLATFORMS


def test_an_unknown_platform_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_node.main(["--platform", "plan9-x64"])
    assert "darwin-x64" in capsys.readouterr().err
