"""The check of the Rust crate's API: what it refuses, on a crate of a few lines with a history of its own."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = '[package]\nname = "tiny"\nversion = "{version}"\nedition = "2024"\n\n[workspace]\n'
LIBRARY = """//! A crate.

/// A sum.
///
/// ```
/// assert_eq!(tiny::sum(1, 2), 3);
/// ```
pub fn sum(a: u32, b: u32) -> u32 {
    a + u32::from(b)
}

/// A choice.
///
/// ```
/// assert!(tiny::Choice::Yes.is_yes());
/// ```
pub enum Choice {
    /// Yes.
    Yes,
}

impl Choice {
    /// Whether it is.
    pub fn is_yes(&self) -> bool {
        true
    }
}
"""

HIDDEN = """
#[doc(hidden)]
pub mod hidden {
    /// A number.
    pub struct Number(pub u32);

    impl From<Number> for u32 {
        fn from(number: Number) -> Self {
            number.0
        }
    }
}
"""

pytestmark = pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")


class Crate:
    """A scratch repository with one crate."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write(LIBRARY, "0.1.0")
        self.git("init", "--quiet")

    def write(self, library: str, version: str) -> None:
        (self.root / "src").mkdir(exist_ok=True)
        (self.root / "src/lib.rs").write_text(library)
        (self.root / "Cargo.toml").write_text(MANIFEST.format(version=version))

    def git(self, *arguments: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.invalid")
        subprocess.run(["git", *who, *arguments], cwd=self.root, check=True, capture_output=True)

    def tag(self, name: str) -> None:
        self.git("add", "src", "Cargo.toml", "api.txt")
        self.git("commit", "--quiet", "-m", name)
        self.git("tag", name)

    def check(self, *more: str, ci: bool | None = None) -> tuple[bool, str]:
        environment = dict(os.environ)
        if ci is not None:
            environment["CI"] = "true" if ci else ""
        command = [
            sys.executable,
            str(ROOT / "scripts/rust_api.py"),
            "--root",
            str(self.root),
            "--package",
            ".",
        ]
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False, env=environment)
        if "SKIPPED: rustdoc" in done.stdout:
            pytest.skip(done.stdout.strip())
        assert not done.stderr, done.stderr
        return done.returncode == 0, done.stdout


@pytest.fixture
def crate(tmp_path: Path) -> Crate:
    return Crate(tmp_path)


def test_without_a_tag_it_says_so_and_passes(crate: Crate) -> None:
    assert crate.check("--write")[0]
    passed, said = crate.check()
    assert passed
    assert "there is no tag yet" in said
    assert (crate.root / "api.txt").read_text().splitlines()[:2] == [
        "enum tiny::Choice is exactly [Yes]",
        "fn tiny::Choice::is_yes(&Self) -> bool",
    ]


BREAKS = {
    "a function is gone": ("pub fn sum", "fn sum", "-fn tiny::sum(u32, u32) -> u32"),
    "an argument is of another type": ("b: u32) -> u32 {", "b: u8) -> u32 {", "-fn tiny::sum(u32, u32)"),
    "a variant more where all were listed": (
        "    Yes,\n",
        "    Yes,\n    /// No.\n    No,\n",
        "-enum tiny::Choice is exactly [Yes]",
    ),
    "it can be sent to no other thread": (
        "    Yes,\n",
        "    Yes,\n    /// Shared.\n    Shared(std::rc::Rc<u32>),\n",
        "-impl Send for tiny::Choice",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_needs_a_version_that_says_so(crate: Crate, name: str) -> None:
    crate.check("--write")
    crate.tag("v0.1.0")
    before, after, line = BREAKS[name]
    changed = LIBRARY.replace(before, after)
    assert changed != LIBRARY
    for version in ("0.1.0", "0.1.1"):
        crate.write(changed, version)
        passed, said = crate.check("--write")
        assert not passed, said
        assert line in said
    crate.write(changed, "0.2.0")
    passed, said = crate.check("--write")
    assert passed, said
    assert "version 0.1.0 -> 0.2.0" in said


def test_from_1_on_the_first_number_says_it(crate: Crate) -> None:
    crate.write(LIBRARY, "1.2.0")
    crate.check("--write")
    crate.tag("v1.2.0")
    for version, expected in (("1.3.0", False), ("2.0.0", True)):
        crate.write(LIBRARY.replace("pub fn sum", "fn sum"), version)
        assert crate.check("--write")[0] is expected


def shallow(crate: Crate, folder: Path, *options: str) -> Crate:
    """A clone of it without history or tags."""
    clone = ["git", "clone", "--quiet", "--depth=1", "--no-tags", *options, crate.root.as_uri(), str(folder)]
    subprocess.run(clone, check=True)
    copy = object.__new__(Crate)
    copy.root = folder
    return copy


def test_in_a_shallow_clone_the_tag_is_fetched(crate: Crate, tmp_path: Path) -> None:
    crate.check("--write")
    crate.tag("v0.1.0")
    crate.write(LIBRARY.replace("pub fn sum", "fn sum"), "0.1.1")
    crate.check("--write")
    crate.git("commit", "--quiet", "--all", "-m", "break")
    passed, said = shallow(crate, tmp_path / "copy").check(ci=True)
    assert not passed
    assert "against v0.1.0: 1 lines gone" in said
    # The tags of other things are no versions.
    crate.git("tag", "--delete", "v0.1.0")
    crate.git("tag", "before-that")
    passed, said = shallow(crate, tmp_path / "other").check(ci=True)
    assert passed, said
    assert "there is no tag yet" in said


def test_what_cannot_be_known_fails_in_continuous_integration(crate: Crate, tmp_path: Path) -> None:
    crate.check("--write")
    crate.tag("v0.1.0")
    crate.write(LIBRARY, "0.1.1")
    crate.git("commit", "--quiet", "--all", "-m", "next")
    copy = shallow(crate, tmp_path / "copy")
    copy.git("remote", "set-url", "origin", str(tmp_path / "gone"))
    passed, said = copy.check(ci=True)
    assert not passed
    assert "FAILED: the clone is cut short" in said
    passed, said = copy.check(ci=False)
    assert passed
    assert "SKIPPED: the clone is cut short" in said


def test_another_rustdoc_fails_in_continuous_integration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    rust_api = importlib.import_module("rust_api")

    def other(*_: object) -> None:
        raise rust_api.OtherFormatError("another format")

    monkeypatch.setattr(rust_api, "read", other)
    monkeypatch.setenv("CI", "true")
    assert rust_api.main([]) == 1
    monkeypatch.setenv("CI", "")
    assert rust_api.main([]) == 0


def test_what_is_new_breaks_nothing(crate: Crate) -> None:
    crate.check("--write")
    crate.tag("v0.1.0")
    new = "\n/// More.\n///\n/// ```\n/// tiny::more();\n/// ```\npub fn more() {}\n"
    crate.write(LIBRARY + new, "0.1.1")
    passed, said = crate.check()
    assert not passed, "the listing was not written"
    assert "+fn tiny::more()" in said
    passed, said = crate.check("--write")
    assert passed, said
    assert "0 lines gone, 1 new" in said


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("/// ```\n/// assert_eq!(tiny::sum(1, 2), 3);\n/// ```\n", "", "tiny::sum has no example"),
        ("Choice::Yes.is_yes()", "matches!(tiny::Choice::Yes, _)", "tiny::Choice::is_yes is in no example"),
        ("b: u32) -> u32 {", "b: hidden::Number) -> u32 {", "tiny::sum speaks of tiny::hidden::Number"),
    ],
)
def test_examples_and_names_must_be_there(crate: Crate, before: str, after: str, message: str) -> None:
    changed = LIBRARY.replace(before, after)
    assert changed != LIBRARY
    crate.write(changed + HIDDEN, "0.1.0")
    passed, said = crate.check("--write")
    assert not passed
    assert message in said, said


def test_the_tool_sees_the_crate_itself() -> None:
    listing = (ROOT / "crates/liter-llm/api.txt").read_text().splitlines()
    assert "trait liter_llm::LlmProvider: Send + Sync needs [generate, name]" in listing
    assert "impl Send for liter_llm::ProviderRouter" in listing
    assert not [line for line in listing if "liter_llm::core::" in line or "liter_llm::routing::" in line]
