"""Reads images, documents and sound from files, bytes and URLs, and tells their media type."""

from __future__ import annotations

import os
from base64 import b64encode

from .content import Base64Source, MediaSource, TextSource, UrlSource
from .errors import InvalidArgumentError

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypM4A", "audio/mp4"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"ID3", "audio/mp3"),
    (0, b"\xff\xfb", "audio/mp3"),
    (0, b"\xff\xf3", "audio/mp3"),
    (0, b"\xff\xf2", "audio/mp3"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"\xff\xf1", "audio/aac"),
    (0, b"\xff\xf9", "audio/aac"),
)
# Only what the first bytes do not tell: text has none, and office files are all zip archives.
_EXTENSIONS = {
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "htm": "text/html",
    "xml": "text/xml",
    "json": "application/json",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "pcm": "audio/pcm",
    "opus": "audio/opus",
    "webm": "audio/webm",
    "svg": "image/svg+xml",
}
_KINDS = {"image": "an image", "document": "a document", "audio": "sound"}


def detect(data: bytes, name: str = "") -> str | None:
    """The media type told by the first bytes, else by the name's extension, else `text/plain` for UTF-8."""
    for offset, magic, media_type in _MAGIC:
        if data.startswith(magic, offset):
            return media_type
    extension = name.rpartition(".")[2].lower() if "." in name else ""
    if extension in _EXTENSIONS:
        return _EXTENSIONS[extension]
    if b"\x00" in data[:1024]:
        return None
    try:
        data.decode()
    except UnicodeDecodeError:
        return None
    return "text/plain"


def kind_of(media_type: str) -> str:
    """Which block a media type goes into: `image`, `audio` or `document`."""
    family = media_type.partition("/")[0]
    return family if family in {"image", "audio"} else "document"


def file_name(path: str | os.PathLike[str]) -> str:
    """The last part of a path."""
    return os.path.basename(os.fspath(path))  # noqa: PTH119 - pathlib costs an import


def load(path: str | os.PathLike[str]) -> bytes:
    """A file's bytes.

    Raises:
        InvalidArgumentError: It does not exist or cannot be read.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidArgumentError(
            f"`path`: cannot read {os.fspath(path)!r}: {reason}", param="path"
        ) from error


def read_file(path: str | os.PathLike[str], kind: str, media_type: str | None) -> MediaSource:
    """A file as a source of the given kind."""
    return from_bytes(load(path), kind, media_type, name=file_name(path))


def from_bytes(data: bytes, kind: str, media_type: str | None, *, name: str = "") -> MediaSource:
    """Bytes as a source of the given kind.

    Raises:
        InvalidArgumentError: There are none, or their type is unknown or of another kind.
    """
    what = repr(name) if name else "the data"
    if not data:
        raise InvalidArgumentError(f"`data`: {what} is empty", param="data")
    if media_type is None:
        media_type = detect(bytes(data), name)
        if media_type is None or (kind != "document" and kind_of(media_type) != kind):
            found = "of an unknown type" if media_type is None else f"{media_type}"
            raise InvalidArgumentError(
                f"`media_type`: {what} is {found}, not {_KINDS[kind]}; give `media_type=` if it is",
                param="media_type",
            )
    if kind == "document" and (media_type.startswith("text/") or media_type == "application/json"):
        try:
            return TextSource(data=bytes(data).decode())
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(
                f"`data`: {what} is text, but not UTF-8: {error}", param="data"
            ) from error
    return Base64Source(media_type=media_type, data=b64encode(data).decode("ascii"))


def from_url(url: str) -> MediaSource:
    """A URL as a source; a base64 `data:` URL becomes its bytes.

    Raises:
        InvalidArgumentError: It is not a URL a provider could fetch.
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "data" and ";base64," in rest:
        media_type, _, data = rest.partition(";base64,")
        return Base64Source(media_type=media_type, data=data)
    if not colon or not rest.startswith("//") or any(char.isspace() for char in url):
        hint = "; for a file use from_path()" if not colon else ""
        raise InvalidArgumentError(f"`url`: {url[:100]!r} is not a URL{hint}", param="url")
    return UrlSource(url=url)
