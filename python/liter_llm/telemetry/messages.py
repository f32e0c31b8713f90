"""Prompts and answers in the conventions' form, cut to size: only where recording them is switched on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from liter_llm._native import neutral_request
from liter_llm.content import (
    AudioBlock,
    Base64Source,
    ContentBlock,
    DocumentBlock,
    FileSource,
    ImageBlock,
    LlmMessage,
    OpaqueBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    TextSource,
    ToolCallBlock,
    ToolResultBlock,
    UrlSource,
)
from liter_llm.exact import decode, decoder, encode
from liter_llm.types import LlmRequest, LlmResponse

from . import names
from .logs import trouble

if TYPE_CHECKING:
    from .options import Telemetry

_decode_request = decoder(LlmRequest)
_decode_response = decoder(LlmResponse)
#: What stays whole when texts are cut: it says what a text is.
_KEPT = frozenset({"type", "role", "id", "name", "modality", "mime_type", "finish_reason"})
#: The end of a text that was cut.
_CUT = "…"
#: The conventions' word for a finish reason where it is not ours.
_REASONS = {"tool_calls": "tool_call"}

Part = dict[str, Any]


def content(
    request: bytes, answer: Callable[[], bytes | None] | None, telemetry: Telemetry
) -> dict[str, Any]:
    """The attributes that hold a call's prompts and answers."""
    asked = _decode_request(neutral_request(request))
    values: dict[str, list[Part]] = {
        names.SYSTEM_INSTRUCTIONS: parts(asked.system),
        names.INPUT_MESSAGES: [message_of(message) for message in asked.messages],
        names.TOOL_DEFINITIONS: [_tool(tool) for tool in asked.tools],
    }
    body = None if answer is None else answer()
    if body is not None:
        response = _decode_response(body)
        if response.message.content:
            reason = _REASONS.get(response.finish_reason, response.finish_reason)
            values[names.OUTPUT_MESSAGES] = [{**message_of(response.message), "finish_reason": reason}]
    written: dict[str, Any] = {}
    truncated = False
    for name, value in values.items():
        shown = redacted(name, value, telemetry) if value else None
        if shown:
            text, cut = fitted(shown, telemetry.max_content_bytes)
            truncated = truncated or cut
            if text:
                written[name] = text
    if truncated:
        written[names.CONTENT_TRUNCATED] = True
    return written


def redacted(name: str, value: list[Part], telemetry: Telemetry) -> list[Part] | None:
    """What the redaction hook leaves of a value."""
    if telemetry.redact is None:
        return value
    try:
        return telemetry.redact(name, value)
    except Exception as error:  # noqa: BLE001 - nothing unredacted is written, and the call goes on
        trouble("a redaction hook failed, and nothing was written", error)
        return None


def message_of(message: LlmMessage) -> Part:
    """A message: its role and parts."""
    return {"role": message.role, "parts": parts(message.content)}


def parts(blocks: list[ContentBlock]) -> list[Part]:
    """Blocks as parts of a message."""
    return [_part(block) for block in blocks]


def _part(block: ContentBlock) -> Part:
    match block:
        case TextBlock():
            return {"type": "text", "content": block.text}
        case ReasoningBlock():
            return {"type": "reasoning", "content": block.text}
        case RefusalBlock():
            return {"type": "refusal", "content": block.text}
        case ToolCallBlock():
            return {
                "type": "tool_call",
                "id": block.id,
                "name": block.name,
                "arguments": _parsed(block.raw_arguments),
            }
        case ToolResultBlock():
            inner = block.content
            plain = all(isinstance(one, TextBlock) for one in inner)
            response: Any = "".join(one.text for one in inner if isinstance(one, TextBlock))
            return {
                "type": "tool_call_response",
                "id": block.tool_call_id,
                "response": response if plain else parts(inner),
            }
        case ImageBlock() | AudioBlock() | DocumentBlock():
            return _media(block)
        case OpaqueBlock():
            return {"type": "opaque", "origin": block.origin}


def _media(block: ImageBlock | AudioBlock | DocumentBlock) -> Part:
    """Sounds, pictures and documents: what and where they are, never their bytes."""
    names_of: dict[type, str] = {ImageBlock: "image", AudioBlock: "audio", DocumentBlock: "document"}
    modality = names_of[type(block)]
    source = block.source
    if isinstance(source, TextSource):
        return {"type": "text", "content": source.data}
    if isinstance(source, UrlSource) and not source.url.startswith("data:"):
        return {"type": "uri", "modality": modality, "uri": source.url}
    if isinstance(source, FileSource):
        return {"type": "file", "modality": modality, "file_id": source.file_id}
    part: Part = {"type": "blob", "modality": modality, "content": ""}
    if isinstance(source, Base64Source):
        part["mime_type"] = source.media_type
        part["bytes"] = len(source.data) * 3 // 4
    return part


def _parsed(arguments: str) -> Any:
    try:
        return decode(arguments) if arguments.strip() else {}
    except (msgspec.DecodeError, RecursionError):
        return arguments


def _tool(tool: dict[str, Any]) -> Part:
    """A function; a vendor's own tool stays as it is."""
    return tool if "type" in tool else {"type": names.TOOL_IS_FUNCTION, **tool}


def fitted(value: list[Part], most: int) -> tuple[str, bool]:
    """A value as JSON of at most so many bytes, and whether it was cut: texts, then the oldest entries."""
    text = encode(value)
    if len(text) <= most:
        return text.decode(), False
    limit = most
    while limit:
        shorter: Any = _shortened(value, limit)
        text = encode(shorter)
        if len(text) <= most:
            return text.decode(), True
        limit //= 2
    bare: list[Part] = _shortened(value, 0)
    while bare:
        bare = bare[(len(bare) + 1) // 2 :]
        text = encode(bare)
        if bare and len(text) <= most:
            return text.decode(), True
    return "", True


def _shortened(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        data = value.encode()
        return value if len(data) <= limit else data[:limit].decode(errors="ignore") + _CUT
    if isinstance(value, dict):
        return {
            key: item if key in _KEPT and isinstance(item, str) else _shortened(item, limit)
            for key, item in value.items()  # pyright: ignore[reportUnknownVariableType]
        }
    if isinstance(value, (list, tuple)):
        return [_shortened(item, limit) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value
