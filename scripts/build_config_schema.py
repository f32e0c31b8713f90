"""Writes docs/liter-llm.schema.json, the schema editors use for `liter-llm.toml`."""

from __future__ import annotations

import json
from pathlib import Path

from liter_llm.config_schema import schema

TARGET = Path(__file__).resolve().parents[1] / "docs" / "liter-llm.schema.json"


def text() -> str:
    """The file's text."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
