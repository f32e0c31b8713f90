"""What a conversation is made of: messages of typed blocks."""

from __future__ import annotations

import os
from typing import Any, Literal, Self, Union

import msgspec
from msgspec import field

from .errors import ToolArgumentsError
from .exact import decode
from .value import Value, once

Role = Literal["system", "developer", "user", "assistant", "tool"]

# ---------------------------------------------------------------------------------------------- where bytes
# are


class UrlSource(Value, frozen=True, tag="url"):
    """Bytes the provider fetches itself."""

    url: str


class Base64Source(Value, frozen=True, tag="base64"):
    """Bytes sent along, base64."""

    media_type: str
    data: str

    def __repr__(self) -> str:
        return f"Base64Source(media_type={self.media_type!r}, {len(self.data) * 3 // 4} bytes)"


class TextSource(Value, frozen=True, tag="text"):
    """Plain text as a document."""

    data: str
    media_type: str = "text/plain"


class FileSource(Value, frozen=True, tag="file"):
    """A file uploaded to the provider before."""

    file_id: str


class OtherSource(Value, frozen=True, tag="other"):
    """A source in a vendor's own form."""

    json: Any


MediaSource = Union[UrlSource, Base64Source, TextSource, FileSource, OtherSource]

# -------------------------------------------------------------------------------------------------------
# blocks


class TextBlock(Value, frozen=True, tag="text"):
    """Text, with the citations or annotations the provider attached, in its own form."""

    text: str
    citations: list[Any] | None = None
    cache_control: dict[str, Any] | None = None
    extra: dict[str, Any] = {}


class ImageBlock(Value, frozen=True, tag="image"):
    """A picture. `detail` is OpenAI's `low`, `high` or `auto`."""

    source: MediaSource
    detail: str | None = None
    cache_control: dict[str, Any] | None = None
    extra: dict[str, Any] = {}

    @classmethod
    def from_path(
        cls, path: str | os.PathLike[str], *, media_type: str | None = None, detail: str | None = None
    ) -> Self:
        """A picture from a file; the media type is told from its first bytes, else its name.

        Raises:
            ValueError: There is no such file, it cannot be read, or its type is unknown.
        """
        from .media import read_file

        return cls(source=read_file(path, "image", media_type), detail=detail)

    @classmethod
    def from_bytes(cls, data: bytes, *, media_type: str | None = None, detail: str | None = None) -> Self:
        """A picture from its bytes; the media type is told from the first of them."""
        from .media import from_bytes

        return cls(source=from_bytes(data, "image", media_type), detail=detail)

    @classmethod
    def from_url(cls, url: str, *, detail: str | None = None) -> Self:
        """A picture the provider fetches itself, or a `data:` URL."""
        from .media import from_url

        return cls(source=from_url(url), detail=detail)


class DocumentBlock(Value, frozen=True, tag="document"):
    """A document such as a PDF."""

    source: MediaSource
    title: str | None = None
    cache_control: dict[str, Any] | None = None
    extra: dict[str, Any] = {}

    @classmethod
    def from_path(
        cls, path: str | os.PathLike[str], *, media_type: str | None = None, title: str | None = None
    ) -> Self:
        """A document from a file; `title` defaults to the file's name. Text files go as text.

        Raises:
            ValueError: There is no such file, it cannot be read, or its type is unknown.
        """
        from .media import file_name, read_file

        return cls(source=read_file(path, "document", media_type), title=title or file_name(path))

    @classmethod
    def from_bytes(cls, data: bytes, *, media_type: str | None = None, title: str | None = None) -> Self:
        """A document from its bytes."""
        from .media import from_bytes

        return cls(source=from_bytes(data, "document", media_type), title=title)

    @classmethod
    def from_url(cls, url: str, *, title: str | None = None) -> Self:
        """A document the provider fetches itself, or a `data:` URL."""
        from .media import from_url

        return cls(source=from_url(url), title=title)

    @classmethod
    def from_text(cls, text: str, *, title: str | None = None) -> Self:
        """A document of plain text."""
        return cls(source=TextSource(data=text), title=title)


class AudioBlock(Value, frozen=True, tag="audio"):
    """Sound."""

    source: MediaSource
    cache_control: dict[str, Any] | None = None
    extra: dict[str, Any] = {}

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], *, media_type: str | None = None) -> Self:
        """Sound from a file; the media type is told from its first bytes, else its name.

        Raises:
            ValueError: There is no such file, it cannot be read, or its type is unknown.
        """
        from .media import read_file

        return cls(source=read_file(path, "audio", media_type))

    @classmethod
    def from_bytes(cls, data: bytes, *, media_type: str | None = None) -> Self:
        """Sound from its bytes; the media type is told from the first of them."""
        from .media import from_bytes

        return cls(source=from_bytes(data, "audio", media_type))

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Sound the provider fetches itself, or a `data:` URL."""
        from .media import from_url

        return cls(source=from_url(url))


class ToolCallBlock(Value, frozen=True, dict=True, tag="tool_call"):
    """The model asks for a tool.

    `.arguments` is a dict, `.raw_arguments` the model's own text.
    """

    id: str
    name: str
    raw_arguments: str = field(name="arguments", default="")
    cache_control: dict[str, Any] | None = None
    extra: dict[str, Any] = {}

    @once
    def arguments(self) -> dict[str, Any]:
        """The arguments. Decoded once: the same dict every time.

        Raises:
            ToolArgumentsError: The model wrote something that is not a JSON object; see `raw_arguments`.
        """
        text = self.raw_arguments
        try:
            value: Any = decode(text) if text.strip() else {}
        except msgspec.DecodeError as error:
            raise _broken(self, f"are not JSON: {error}") from error
        except RecursionError as error:
            raise _broken(self, "are nested too deeply") from error
        if not isinstance(value, dict):
            raise _broken(self, f"are not a JSON object but {text[:40]!r}")
        return value  # pyright: ignore[reportUnknownVariableType]

    def result(self, content: str | list[ContentBlock] | object, *, is_error: bool = False) -> LlmMessage:
        """The message that answers this call: text, blocks, or any value that has a JSON form."""
        return LlmMessage.tool_result(self.id, content, is_error=is_error)


#: A tool call in an answer.
ToolCall = ToolCallBlock


def _broken(call: ToolCallBlock, what: str) -> ToolArgumentsError:
    return ToolArgumentsError(
        f"the arguments of tool call `{call.name}` ({call.id}) {what}; "
        "`raw_arguments` has the model's own text",
        param="arguments",
    )


class ToolResultBlock(Value, frozen=True, tag="tool_result"):
    """What a tool answered."""

    tool_call_id: str
    content: list[ContentBlock]
    is_error: bool = False
    cache_control: dict[str, Any] | None = None
    extra: dict[str, Any] = {}


class ReasoningBlock(Value, frozen=True, tag="reasoning"):
    """The model's reasoning.

    Signature, encrypted text and `json` prove it to the provider: leave them as they are.
    """

    text: str = ""
    signature: str | None = None
    encrypted: str | None = None
    origin: str | None = None
    json: str | None = None
    cache_control: dict[str, Any] | None = None
    extra: dict[str, Any] = {}


class RefusalBlock(Value, frozen=True, tag="refusal"):
    """The model declined, in its own words."""

    text: str
    cache_control: dict[str, Any] | None = None
    extra: dict[str, Any] = {}


class OpaqueBlock(Value, frozen=True, tag="opaque"):
    """A vendor block kept exactly; it is sent back only to the wire it came from."""

    origin: str
    json: str
    cache_control: dict[str, Any] | None = None
    extra: dict[str, Any] = {}


ContentBlock = Union[
    TextBlock,
    ImageBlock,
    DocumentBlock,
    AudioBlock,
    ToolCallBlock,
    ToolResultBlock,
    ReasoningBlock,
    RefusalBlock,
    OpaqueBlock,
]

# -----------------------------------------------------------------------------------------------------
# messages


def _blocks(content: tuple[str | ContentBlock, ...]) -> list[ContentBlock]:
    return [TextBlock(text=part) if isinstance(part, str) else part for part in content]


class LlmMessage(Value, frozen=True):
    """One turn of a conversation: a role and blocks."""

    role: Role
    content: list[ContentBlock]
    name: str | None = None
    extra: dict[str, Any] = {}

    @classmethod
    def user(cls, *content: str | ContentBlock) -> Self:
        """A message of the caller: texts and blocks in their order."""
        return cls(role="user", content=_blocks(content))

    @classmethod
    def assistant(cls, *content: str | ContentBlock) -> Self:
        """A message of the model."""
        return cls(role="assistant", content=_blocks(content))

    @classmethod
    def system(cls, *content: str | ContentBlock) -> Self:
        """Instructions above the conversation."""
        return cls(role="system", content=_blocks(content))

    @classmethod
    def tool_result(
        cls, tool_call_id: str, content: str | list[ContentBlock] | object, *, is_error: bool = False
    ) -> Self:
        """The answer to a tool call: text, blocks, or any value that has a JSON form."""
        blocks: list[ContentBlock]
        if isinstance(content, str):
            blocks = [TextBlock(text=content)]
        elif isinstance(content, list) and content and all(isinstance(part, Value) for part in content):  # pyright: ignore[reportUnknownVariableType]
            blocks = content  # pyright: ignore[reportUnknownVariableType]
        else:
            from .requests import encode_value

            blocks = [TextBlock(text=encode_value(content, "content").decode())]  # pyright: ignore[reportUnknownArgumentType]
        return cls(
            role="tool",
            content=[ToolResultBlock(tool_call_id=tool_call_id, content=blocks, is_error=is_error)],
        )

    @property
    def text(self) -> str:
        """The text blocks, joined; empty when there is none."""
        return "".join([block.text for block in self.content if isinstance(block, TextBlock)])

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tools the model wants called."""
        return [block for block in self.content if isinstance(block, ToolCallBlock)]

    def _repr_markdown_(self) -> str:
        return markdown(self)


def markdown(message: LlmMessage) -> str:
    """A message as notebooks show it."""
    parts: list[str] = []
    for block in message.content:
        if isinstance(block, (TextBlock, RefusalBlock)):
            parts.append(block.text)
        elif isinstance(block, ReasoningBlock) and block.text:
            parts.append("\n".join(f"> {line}" for line in block.text.splitlines()))
        elif isinstance(block, ToolCallBlock):
            parts.append(f"**{block.name}**\n```json\n{block.raw_arguments}\n```")
    return "\n\n".join(parts)
