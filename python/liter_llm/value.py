"""The base of the package's types: immutable values with a JSON form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

import msgspec
from msgspec import Struct

from .errors import InvalidArgumentError
from .exact import ExactDecimal, decoder, encode

T = TypeVar("T")

_LONGEST_REPR = 60
#: Stays what it is among plain values.
_KEPT = (ExactDecimal,)


class once(Generic[T]):  # noqa: N801 - reads as a decorator
    """A property computed at its first use and then kept in the instance's dictionary."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> T | Self:
        if instance is None:
            return self
        value = self._compute(instance)
        instance.__dict__[self._name] = value
        return value


def short(value: object) -> str:
    """A value's `repr`, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= _LONGEST_REPR else f"{text[: _LONGEST_REPR - 3]}..."


class Value(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the types: immutable, comparable, picklable, with a JSON form."""

    def __repr__(self) -> str:
        given = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = ", ".join(f"{name}={short(value)}" for name, value in given if value or value is False)
        return f"{type(self).__name__}({shown})"

    def to_dict(self) -> dict[str, Any]:
        """The value as plain dicts and lists; fields at their default are left out."""
        data: dict[str, Any] = msgspec.to_builtins(self, builtin_types=_KEPT)
        return data

    def to_json(self) -> str:
        """The value as JSON text; fields at their default are left out."""
        return encode(self).decode()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The value that `to_dict()` gave.

        Raises:
            ValueError: A field is missing or of another type.
        """
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise InvalidArgumentError(f"{cls.__name__}: {error}") from error

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The value that `to_json()` gave.

        Raises:
            ValueError: The text is not JSON, or a field is missing or of another type.
        """
        try:
            return decoder(cls)(text)
        except msgspec.DecodeError as error:
            raise InvalidArgumentError(f"{cls.__name__}: {error}") from error

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        # Called by pydantic only, so that these types may stand in pydantic models.
        from ._pydantic import core_schema

        return core_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: object, handler: object) -> dict[str, Any]:
        from ._pydantic import json_schema

        return json_schema(cls)
