"""What the documentation shows works: its Python runs, its links resolve, its help is the program's.

Python runs against the simulator. A block that cannot run stands after an HTML comment that says why:
`<!-- not run: needs a Kubernetes cluster -->`.
"""

from __future__ import annotations

import builtins
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

import liter_llm
from liter_llm import errors
from liter_llm.testing import Simulator

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    {
        path
        for pattern in (
            "*.md",
            "docs/**/*.md",
            "crates/*/README.md",
            "bindings/*/README.md",
            "deploy/**/*.md",
            "benchmarks/*.md",
        )
        for path in ROOT.glob(pattern)
    }
)
FENCE = re.compile(
    r"^(?P<indent>[ ]*)(?P<fence>```+|~~~+)(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
NOT_RUN = re.compile(r"<!--\s*not run:\s*(?P<reason>\S[^>]*?)\s*-->\s*\Z")
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6}\s+(?P<title>.+?)\s*#*$", re.MULTILINE)

KEYS = {
    "OPENAI": "openai",
    "ANTHROPIC": "anthropic",
    "GROQ": "groq",
    "MISTRAL": "mistral",
    "DEEPSEEK": "deepseek",
    "XAI": "xai",
    "OPENROUTER": "openrouter",
}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    code: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        indent = len(found["indent"])
        code = "".join(
            line[indent:] if line.strip() else "\n" for line in found["code"].splitlines(keepends=True)
        )
        mark = NOT_RUN.search(text[: found.start()])
        language = found["info"].split()[0] if found["info"].split() else ""
        yield Block(page, text.count("\n", 0, found.start()) + 1, language, code, mark and mark["reason"])


PYTHON_BLOCKS = [block for page in PAGES for block in blocks(page) if block.language == "python"]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The variables under which every provider is the simulator."""
    with Simulator() as simulator:
        inherited = {
            name: value for name, value in os.environ.items() if not name.endswith(("_API_KEY", "_BASE_URL"))
        }
        ours = {f"{name}_API_KEY": "sk-simulated" for name in KEYS}
        ours |= {f"{name}_BASE_URL": simulator.base_url(provider) for name, provider in KEYS.items()}
        ours |= {
            "AZURE_OPENAI_API_KEY": "simulated",
            "AZURE_OPENAI_ENDPOINT": simulator.base_url("azure"),
            "PYTHONWARNINGS": "error",
        }
        yield inherited | ours


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=str)
def test_python_runs(block: Block, environment: dict[str, str], tmp_path: Path) -> None:
    if block.not_run:
        pytest.skip(block.not_run)
    script = tmp_path / "block.py"
    # The example shows a key; here it must reach the simulator, whose address is in the environment.
    script.write_text(block.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{block} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert not done.stderr, f"{block} wrote to stderr:\n{done.stderr}"


def test_python_is_strictly_typed(tmp_path: Path) -> None:
    """The examples pass the strict type check a user may run over them."""
    checked = [block for block in PYTHON_BLOCKS if not block.not_run]
    if not checked:
        pytest.skip("no page holds Python")
    for number, block in enumerate(checked):
        (tmp_path / f"block_{number}.py").write_text(f"# {block}\n{block.code}", encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text(
        '{"typeCheckingMode": "strict", "reportUnusedCoroutine": "error", "reportUnusedExpression": "none"}',
        encoding="utf-8",
    )
    tool = Path(sys.executable).with_name("basedpyright")
    done = subprocess.run(
        [str(tool), "--pythonpath", sys.executable, "--level", "error", "-p", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    names = {f"block_{number}.py": str(block) for number, block in enumerate(checked)}
    report = re.sub(r"\S*(block_\d+\.py)", lambda m: f"{m[0]} ({names[m[1]]})", done.stdout)
    assert done.returncode == 0, report


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken: list[str] = []
    for found in LINK.finditer(text):
        target = unquote(found["target"])
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists():
            broken.append(f"{target}: no such file")
        elif anchor and path.suffix == ".md" and anchor not in anchors(path):
            broken.append(f"{target}: no such heading")
    assert not broken, "\n".join(broken)


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = (re.sub(r"[`*_]", "", found["title"]).lower() for found in HEADING.finditer(text))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            yield from commands(inner, (*path, name))


def _program() -> click.Command:
    """The command line's root: what the installed script calls, or the group beside it."""
    (entry,) = entry_points(group="console_scripts", name="liter-llm")
    loaded = entry.load()
    if isinstance(loaded, click.Command):
        return loaded
    module = importlib.import_module(entry.module)
    found = module.program
    assert isinstance(found, click.Group)
    return found


def help_text(path: tuple[str, ...]) -> str:
    program = Path(sys.executable).with_name("liter-llm")
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(
        [str(program), *path, "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


@pytest.mark.parametrize("path", list(commands(_program())), ids=lambda path: " ".join(path) or "liter-llm")
def test_help(path: tuple[str, ...]) -> None:
    text = help_text(path)
    assert "Usage: liter-llm" in text
    if path:
        assert "Example" in text, f"`liter-llm {' '.join(path)} --help` shows no example"


def test_help_shown_in_the_documentation_is_current() -> None:
    """A console block that begins with `$ liter-llm ... --help` holds exactly what the program prints."""
    for page in PAGES:
        for block in blocks(page):
            first, _, rest = block.code.partition("\n")
            found = re.fullmatch(r"\$ liter-llm(?P<path>(?: [a-z-]+)*) --help", first.strip())
            if found:
                assert rest.strip() == help_text(tuple(found["path"].split())).strip(), str(block)


def test_the_demo_runs(environment: dict[str, str]) -> None:
    without_keys = {
        name: value
        for name, value in environment.items()
        if not name.endswith(("_API_KEY", "_BASE_URL", "_ENDPOINT"))
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py")],
        env=without_keys,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for provider in ("openai", "anthropic", "azure"):
        for mode in ("whole", "stream"):
            assert re.search(rf"^{provider} +simulator +{mode} ", done.stdout, re.MULTILINE), done.stdout
    # The router: one dies, the answers continue, and the table says who answered and why.
    calls = re.findall(r"^call (\d): (.*)$", done.stdout, re.MULTILINE)
    first, second = "openai/gpt-4o-mini", "azure/gpt-4o"
    assert [route for _, route in calls] == [
        *[f"{first} (answered)"] * 2,
        f"{first} (overloaded) -> {second} (answered)",
        *[f"{second} (answered)"] * 3,
    ]
    for line in (f"{first} +failed: overloaded .503.", f"{second} +chosen", "anthropic/.* stood by"):
        assert re.search(rf"^  {line}", done.stdout, re.MULTILINE), done.stdout


def table_names(page: Path) -> list[str]:
    """What stands in code marks in the first cells of the page's tables."""
    rows = re.findall(r"^\| (`[^|]+) \| *\S", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_the_python_page_has_every_public_name_once() -> None:
    assert sorted(table_names(ROOT / "docs/python.md")) == sorted(liter_llm.__all__)


def test_the_page_of_errors_has_every_class_and_kind() -> None:
    text = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    # The tables above the first heading: one by kind, one of the classes that share a kind.
    table = re.findall(r"^\| `(\w+)` \|(.*)\|$", text.partition("\n## ")[0], re.MULTILINE)
    kinds = {name: re.findall(r"`(\w+)`", rest)[0] for name, rest in table if name.islower()}
    assert {kind: cls.__name__ for kind, cls in errors._Classes.by_kind.items()} == kinds
    others = {name: re.findall(r"`(\w+)`", rest.split("|")[-1]) for name, rest in table if not name.islower()}
    assert {*kinds.values(), *others, "LiterLlmError"} == set(errors.__all__)
    for name, bases in others.items():
        for base in bases:
            if base[0].isupper():
                assert issubclass(
                    getattr(errors, name), getattr(errors, base, None) or getattr(builtins, base)
                )


def test_the_index_lists_every_page() -> None:
    index = ROOT / "docs/README.md"
    text = index.read_text(encoding="utf-8")
    linked = {(index.parent / found["target"]).resolve() for found in LINK.finditer(text)}
    assert {page for page in ROOT.glob("docs/**/*.md") if page != index} <= linked


def test_the_page_of_promises_names_every_test_of_a_row() -> None:
    text = (ROOT / "docs/promises.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|([^|]*)\|([^|]*)\|", text, re.MULTILINE)
    named: dict[int, set[str]] = {}
    for row, _, tests in rows:
        named.setdefault(int(row), set()).update(re.findall(r"`([\w/.]+)`", tests))
    wanted = {*range(1, 15), 16, 17, 26, 27, 29, 30, 31, 37, *range(40, 44)}
    assert set(named) == wanted
    rust, python = ROOT / "crates/liter-llm/tests", ROOT / "tests/promises"
    holding: dict[int, set[str]] = {}
    for folder, pattern in ((rust, r"\bfn row_(\d+)_"), (python, r"\bdef test_row_(\d+)_")):
        for path in (*folder.rglob("*.rs"), *folder.rglob("test_*.py")):
            for row in re.findall(pattern, path.read_text(encoding="utf-8")):
                holding.setdefault(int(row), set()).add(str(path.relative_to(folder)))
    for row, files in holding.items():
        assert files <= named[row], f"row {row}"
    for row, files in named.items():
        assert holding[row], f"row {row} has no function of its number"
        for file in files:
            assert (rust / file).is_file() or (python / file).is_file(), file
