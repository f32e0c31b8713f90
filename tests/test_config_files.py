"""The table of configuration files that every language reads: what comes of each, what is wrong with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from liter_llm import ConfigError, LiterLLM, LiterLlmError, MissingKeyError
from liter_llm.config_file import load

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "config_files.json").read_text("utf-8"))
CASES: list[dict[str, Any]] = TABLE["cases"]


def test_the_table_is_whole() -> None:
    assert len(CASES) == 53
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert all(("document" in case) != ("error" in case) for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_file(case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("OPENAI_", "AZURE_", "LITER_LLM_CONFIG")):
            monkeypatch.delenv(name)
    for name, value in case.get("env", {}).items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "liter-llm.toml"
    path.write_bytes(case["toml"].encode())
    monkeypatch.chdir(tmp_path)
    named = None if case.get("found") else path
    if "document" in case:
        expected = json.loads(json.dumps(case["document"]).replace("<folder>", str(tmp_path)))
        assert load(named).document == expected
        LiterLLM.from_config(named).close()
        return
    with pytest.raises(LiterLlmError) as caught:
        LiterLLM.from_config(named)
    assert isinstance(caught.value, ConfigError | MissingKeyError)
    text = str(caught.value)
    assert text.startswith(f"{path}:{case['error']['line']}: ")
    for words in case["error"]["says"]:
        assert words in text
    assert not any(value in text for value in case.get("env", {}).values() if len(value) > 5)
