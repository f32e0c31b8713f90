"""The published schema: in step with the engine, its file up to date, right about documents."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from liter_llm.cli import program
from liter_llm.config_schema import TABLES, engine_options, schema

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED: dict[str, Any] = json.loads((ROOT / "docs/liter-llm.schema.json").read_text())
EXAMPLES = [
    pytest.param(text, id=f"{page.name}-{number}")
    for page in sorted((ROOT / "docs").glob("*.md"))
    for number, text in enumerate(
        re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    )
    if re.search(r"^\[+(deployments?|router|providers)\b", text, re.MULTILINE)
]


def test_the_engine_has_the_same_options() -> None:
    known = engine_options()
    assert {name: set(table.__struct_fields__) for name, table in TABLES.items()} == {
        # The catalogue itself is the package's own business.
        name: set(known[name]) - {"catalog_base"}
        for name in TABLES
    }
    assert {"round_robin", "priority"} <= set(known["policies"])
    assert "tools" in known["needs"]


def test_the_published_file_is_the_schema() -> None:
    assert schema() == PUBLISHED, "run scripts/build_config_schema.py"
    jsonschema.Draft202012Validator.check_schema(PUBLISHED)


def test_the_command_prints_it() -> None:
    done = CliRunner().invoke(program, ["config", "schema"])
    assert done.exit_code == 0
    assert json.loads(done.output) == PUBLISHED


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_fit(text: str) -> None:
    jsonschema.validate(tomllib.loads(text), PUBLISHED)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2


DEPLOYMENT = '[deployment]\nprovider = "openai/m"\napi_key = "k"\n'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[deployment]\n",
        '[deployment]\nprovider = "openai"\nmodle = "m"\n',
        DEPLOYMENT + 'rpm = "60"\n',
        DEPLOYMENT + "concurrency = 0\n",
        DEPLOYMENT + "timeout_seconds = 0\n",
        DEPLOYMENT + "circuit = { probe = 1 }\n",
        DEPLOYMENT + "supports = { flying = true }\n",
        DEPLOYMENT + 'api = "respones"\n',
        DEPLOYMENT + '[router]\npolicy = "best"\n',
        DEPLOYMENT + '[providers.x]\nbase_url = "http://x"\n',
        DEPLOYMENT + '[providers.x]\nadapter = "openai_chat"\nquirks = { top_q = true }\n',
        DEPLOYMENT + "[[deployments]]\nprovider = 'openai/m'\n",
        "deployments = []\n",
    ],
)
def test_what_the_engine_refuses_the_schema_refuses(text: str, tmp_path: Path) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(text), PUBLISHED)
    path = tmp_path / "liter-llm.toml"
    path.write_text(text)
    done = CliRunner().invoke(program, ["config", "check", str(path)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {path}")


@pytest.mark.parametrize(
    "text",
    [
        DEPLOYMENT,
        DEPLOYMENT + "timeout_seconds = 5\ncircuit = { open_time_seconds = 1.5 }\ncache = true\n",
        DEPLOYMENT
        + "supports = { tools = false }\nextra = { a = [1, { b = 2 }] }\n[cache]\nttl_seconds = 9\n",
        DEPLOYMENT.replace("[deployment]", "[[deployments]]") + '[router]\npolicy = "round_robin"\n',
    ],
)
def test_what_the_schema_takes_the_engine_takes(text: str, tmp_path: Path) -> None:
    jsonschema.validate(tomllib.loads(text), PUBLISHED)
    path = tmp_path / "liter-llm.toml"
    path.write_text(text)
    done = CliRunner().invoke(program, ["config", "check", str(path)])
    assert (done.exit_code, done.stderr) == (0, "")
    assert "no fault found (openai/m)" in done.stdout


def test_the_script_writes_the_file(tmp_path: Path) -> None:
    script = ROOT / "scripts/build_config_schema.py"
    code = f"import runpy; print(runpy.run_path({str(script)!r})['text'](), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == (ROOT / "docs/liter-llm.schema.json").read_text()
