"""Writes docs/wire.schema.json, the JSON Schema of what crosses between the engine and a language face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import msgspec

from liter_llm.errors import _Classes  # pyright: ignore[reportPrivateUsage]
from liter_llm.route import Route
from liter_llm.telemetry.record import CallRecord
from liter_llm.types import Attempt, LlmChunk, LlmRequest, LlmResponse

TARGET = Path(__file__).resolve().parents[1] / "docs" / "wire.schema.json"
HEAD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "What crosses the border between the engine and a language",
    "description": "wire.md says what the fields mean. There is a definition for each document: "
    "LlmRequest, LlmResponse, LlmChunk, LlmError, CallRecord. Fields that have their default are left out "
    "on the way. The engine refuses request fields it does not know; a face leaves alone what it does not "
    "know of the others.",
}
_NULL = {"type": "null"}
_WORDS = {"type": "array", "items": {"type": "string"}}
#: What callers may write in more than one way.
_GIVEN: dict[str, Any] = {
    "prompt": {"type": "string"},
    "messages": {
        "type": "array",
        "items": {"anyOf": [{"$ref": "#/$defs/LlmMessage"}, {"$ref": "#/$defs/VendorMessage"}]},
    },
    "system": {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "object", "required": ["type"]}},
        ]
    },
    "stop": {"anyOf": [{"type": "string"}, _WORDS]},
    "tools": {"type": "array", "items": {"type": "object"}},
    "tool_choice": {"type": ["string", "object"]},
    "response_format": {"type": ["string", "object"]},
    "metadata": {"type": "object"},
    "on_unsupported": {"enum": ["error", "adjust"]},
}
_VENDOR_MESSAGE = {
    "title": "VendorMessage",
    "description": "A message in the form of OpenAI chat, OpenAI Responses or Anthropic.",
    "type": "object",
    "anyOf": [{"required": ["role"]}, {"required": ["type"]}],
}
#: What stands first, in the order of the page.
DOCUMENTS = ("LlmRequest", "LlmResponse", "LlmChunk", "LlmError", "CallRecord")


class ErrorDetail(msgspec.Struct):
    """The facts of an error."""

    message: str = ""
    provider: str | None = None
    model: str | None = None
    status_code: int | None = None
    request_id: str | None = None
    retry_after: float | None = None
    retryable: bool | None = None
    code: str | None = None
    param: str | None = None
    body: str | None = None
    phase: (
        Literal["dns", "refused", "tls", "proxy", "reset", "connect", "first_byte", "idle", "total"] | None
    ) = None
    before_send: bool = False
    attempts: list[Attempt] = []
    partial: LlmResponse | None = None
    route: Route | None = None
    causes: list[str] = []


#: The closed table of kinds.
_Kind = Literal.__getitem__(tuple(sorted(_Classes.by_kind)))


class LlmError(msgspec.Struct):
    """A failure."""

    kind: _Kind
    text: str = ""
    retryable: bool = False
    detail: ErrorDetail = msgspec.field(default_factory=ErrorDetail)


def schema() -> dict[str, Any]:
    """The schema."""
    _, definitions = msgspec.json.schema_components(
        [LlmRequest, LlmResponse, LlmChunk, LlmError, CallRecord], ref_template="#/$defs/{name}"
    )
    definitions = {name: _plain(definition) for name, definition in definitions.items()}
    request = definitions["LlmRequest"]
    request["description"] = "What a caller asks."
    fields = {**request["properties"], **_GIVEN}
    request["properties"] = {name: _or_null(field) for name, field in fields.items()}
    request["additionalProperties"] = False
    # Told from a block's beginning by the face itself.
    del definitions["LlmChunk"]["properties"]["refusal"]
    definitions["VendorMessage"] = _VENDOR_MESSAGE
    first = {name: definitions.pop(name) for name in DOCUMENTS}
    return {**HEAD, "$defs": {**first, **dict(sorted(definitions.items()))}}


def _plain(part: Any) -> Any:
    """A part without what only Python has a use for, and without defaults, which the page states."""
    if isinstance(part, list):
        return [_plain(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = {
        # The names of a definition's fields are no words of the schema.
        name: {field: _plain(inner) for field, inner in value.items()}
        if name == "properties"
        else _plain(value)
        for name, value in part.items()
        if name not in {"default", "discriminator"}
    }
    if isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split("\n\n")[0].split())
    return kept


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    """`null` is the same as not given."""
    if field == {} or _NULL in field.get("anyOf", []):
        return field
    if "anyOf" in field:
        return {"anyOf": [*field["anyOf"], _NULL]}
    return {"anyOf": [field, _NULL]}


def text() -> str:
    """The file's text."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
