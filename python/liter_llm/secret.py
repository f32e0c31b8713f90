"""A string that does not show itself."""

from __future__ import annotations

from typing import Any, final


@final
class Secret:
    """A key or token. `reveal()` gives it; `repr`, `str`, `format`, JSON and pickles never show it in clear.

    A pickle carries it encoded (not encrypted), so that a configuration can go to another process.
    """

    __slots__ = ("_value",)
    _value: str

    def __init__(self, value: str | Secret) -> None:
        object.__setattr__(self, "_value", value.reveal() if isinstance(value, Secret) else value)

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Secret cannot be changed")

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unwrap, (bytes(byte ^ 0x5A for byte in self._value.encode()),))


def _unwrap(data: bytes) -> Secret:
    return Secret(bytes(byte ^ 0x5A for byte in data).decode())
