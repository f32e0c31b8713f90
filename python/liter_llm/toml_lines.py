"""Where keys stand in a TOML text: `tomllib` reads values and forgets their lines."""

from __future__ import annotations

import re
from bisect import bisect_right

#: A key's way through tables and lists: names, and positions in lists.
Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_SKIPPED = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
#: A value without structure: number, date, switch.
_PLAIN = re.compile(r"[^,\]}#\n\r]*")
_BASIC = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_LITERAL = re.compile(r"'([^'\n]*)'")
_LONG_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}(?!")', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''.*?'{3,5}(?!')", re.DOTALL)
_SEGMENT = re.compile(r'\.?(?:(?P<bare>[^.\["]+)|"(?P<quoted>(?:[^"\\]|\\.)*)"|\[(?P<position>\d+)\])')


def parse(path: str) -> Path:
    """The parts of a path as errors write it: `deployments[1].model`, `providers."my.host".adapter`."""
    parts: list[str | int] = []
    for found in _SEGMENT.finditer(path):
        if found["position"] is not None:
            parts.append(int(found["position"]))
        else:
            parts.append(found["bare"] if found["bare"] is not None else _unescaped(found["quoted"]))
    return tuple(parts)


def lines(text: str) -> dict[Path, int]:
    """The line (from 1) of every key, table and list element. `text` must be TOML that `tomllib` takes."""
    return _Scanner(text).run()


def nearest(places: dict[Path, int], path: Path) -> Path:
    """As much of a path as stands there. A duration may stand there with its unit."""
    found: Path = ()
    for part in path:
        names = (part, f"{part}_seconds") if isinstance(part, str) else (part,)
        step = next(((*found, name) for name in names if (*found, name) in places), None)
        if step is None:
            break
        found = step
    return found


def line_of(places: dict[Path, int], path: Path) -> int | None:
    """The line of a key, else that of the nearest table around it."""
    return places.get(nearest(places, path))


def _within(path: Path, part: str | int) -> Path:
    return (*path, part)


class _Scanner:
    """One pass over a text that is known to be right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._places: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}

    def run(self) -> dict[Path, int]:
        table: Path = ()
        self._skip(_SKIPPED)
        while self._at < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
            self._skip(_SKIPPED)
        return self._places

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()

    def _note(self, path: Path) -> None:
        self._places.setdefault(path, bisect_right(self._starts, self._at))

    def _header(self) -> Path:
        repeated = self._text.startswith("[[", self._at)
        begin = self._at
        self._at += 2 if repeated else 1
        names = self._key()
        self._at, end = begin, self._at
        path: Path = ()
        for position, name in enumerate(names):
            path = _within(path, name)
            self._note(path)
            last = position == len(names) - 1
            if repeated and last:
                self._counts[path] = self._counts.get(path, 0) + 1
            if path in self._counts:
                path = _within(path, self._counts[path] - 1)
                self._note(path)
        self._at = self._text.index("]", end) + (2 if repeated else 1)
        return path

    def _key(self) -> list[str]:
        """The parts of a dotted key; stands behind it afterwards."""
        names: list[str] = []
        while True:
            self._skip(_BLANK)
            if found := _BASIC.match(self._text, self._at):
                names.append(_unescaped(found[1]))
            elif found := _LITERAL.match(self._text, self._at):
                names.append(found[1])
            else:
                found = _BARE.match(self._text, self._at)
                names.append("" if found is None else found[0])
            self._at = self._at if found is None else found.end()
            self._skip(_BLANK)
            if not self._text.startswith(".", self._at):
                return names
            self._at += 1

    def _pair(self, table: Path) -> None:
        begin = self._at
        names = self._key()
        self._at, end = begin, self._at
        path = table
        for name in names:
            path = (*path, name)
            self._note(path)
        self._at = self._text.index("=", end) + 1
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        mark = self._text[self._at : self._at + 1]
        if mark in {'"', "'"}:
            self._string()
        elif mark == "[":
            self._list(path)
        elif mark == "{":
            self._inline(path)
        else:
            self._skip(_PLAIN)

    def _string(self) -> None:
        for pattern in (_LONG_BASIC, _LONG_LITERAL, _BASIC, _LITERAL):
            if found := pattern.match(self._text, self._at):
                self._at = found.end()
                return
        self._at += 1

    def _list(self, path: Path) -> None:
        self._at += 1
        position = 0
        while True:
            self._skip(_SKIPPED)
            if self._at >= len(self._text) or self._text[self._at] == "]":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._note((*path, position))
            self._value((*path, position))
            position += 1

    def _inline(self, path: Path) -> None:
        self._at += 1
        while True:
            self._skip(_SKIPPED)
            if self._at >= len(self._text) or self._text[self._at] == "}":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._pair(path)


_ESCAPES = {
    "b": "\b",
    "t": "\t",
    "n": "\n",
    "f": "\f",
    "r": "\r",
    "e": "\x1b",
    '"': '"',
    "\\": "\\",
    "/": "/",
}
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|(.))")


def _unescaped(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        code = found[1] or found[2] or found[3]
        return chr(int(code, 16)) if code else _ESCAPES.get(found[4], found[4])

    return _ESCAPE.sub(one, text)
