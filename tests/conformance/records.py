"""Loads the recorded exchanges and says what each needs to be replayed."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

FILES = (
    "openai",
    "anthropic",
    "azure",
    "compat",
    "deepseek",
    "groq",
    "mistral",
    "ollama",
    "openrouter",
    "perplexity",
    "xai",
)
"""The provider families of this suite; a record keeps the provider's own name."""

WIRES = ("chat.completions", "responses", "messages")
"""The endpoints that answer a conversation."""


def folder() -> Path:
    """Where the recordings are: `LITER_LLM_RECORDED`, else beside the repository."""
    return Path(os.environ.get("LITER_LLM_RECORDED") or ROOT.parent / "shared" / "recorded")


@dataclass(frozen=True)
class Record:
    """One exchange: what was asked, what came back, and the facts the official SDKs read from it."""

    id: str
    family: str
    provider: str
    wire: str
    request: dict[str, Any] | None
    response: dict[str, Any]
    expected: dict[str, Any]

    @property
    def has_facts(self) -> bool:
        return self.expected.get("parser") is not None

    @property
    def is_stream(self) -> bool:
        return "sse_chunks" in self.response

    @property
    def is_failure(self) -> bool:
        """True when the provider refused, by its status or by an error object in place of the answer."""
        return int(self.response["status"]) >= 400 or self.holds_error

    @property
    def holds_error(self) -> bool:
        """True for an error object in a body that came with success."""
        body = self.response.get("body")
        return isinstance(body, dict) and isinstance(body.get("error"), dict) and not body.get("choices")

    @property
    def breaks(self) -> bool:
        """True for a stream the provider itself ended with an error event."""
        return self.expected.get("stream_error") is not None

    @property
    def body(self) -> bytes:
        """The recorded answer's bytes."""
        if self.is_stream:
            return "".join(self.response["sse_chunks"]).encode()
        if self.response.get("body_text"):
            return str(self.response["body_text"]).encode()
        return json.dumps(self.response["body"], ensure_ascii=False).encode()

    def final_items(self, kind: str) -> list[dict[str, Any]]:
        """The finished output items of a Responses stream, as its events told them."""
        datas = [
            line.removeprefix("data:").strip()
            for line in "".join(self.response["sse_chunks"]).splitlines()
            if line.startswith("data:")
        ]
        told = [json.loads(data) for data in datas if data.startswith("{")]
        done = [event["item"] for event in told if event.get("type") == "response.output_item.done"]
        return [item for item in done if item.get("type") == kind]

    @property
    def events(self) -> list[bytes]:
        """A stream's body cut after the blank line that ends each event."""
        return list(_events(self.body))


def _events(body: bytes) -> Iterator[bytes]:
    start = 0
    lines = body.splitlines(keepends=True)
    kept: list[bytes] = []
    for line in lines:
        kept.append(line)
        start += len(line)
        if not line.strip(b"\r\n") and any(part.strip() for part in kept):
            yield b"".join(kept)
            kept = []
    if any(part.strip() for part in kept):
        yield b"".join(kept)


@cache
def load() -> tuple[Record, ...]:
    """All records of this suite, in the order of the files; empty when there is no folder."""
    if not folder().is_dir():
        return ()
    return tuple(record for family in FILES for record in _read(folder() / f"{family}.jsonl", family))


def _read(path: Path, family: str) -> Iterator[Record]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            raw = json.loads(line)
            if raw["endpoint"] in WIRES:
                yield Record(
                    id=raw["id"],
                    family=family,
                    provider=raw["provider"],
                    wire=raw["endpoint"],
                    request=raw["request"],
                    response=raw["response"],
                    expected=raw["expected"],
                )


def groups() -> list[tuple[str, str]]:
    """Every (family, wire) there is, for one test each."""
    return list(dict.fromkeys((record.family, record.wire) for record in load()))


def of_group(family: str, wire: str) -> list[Record]:
    return [record for record in load() if (record.family, record.wire) == (family, wire)]


@cache
def exceptions() -> dict[str, str]:
    """Records known not to pass, each with its reason."""
    with (Path(__file__).parent / "exceptions.toml").open("rb") as file:
        return {str(key): str(value) for key, value in tomllib.load(file).items()}
