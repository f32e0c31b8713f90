"""JSON number for number: a fraction that no `float` can hold becomes a decimal, and is written as it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

#: The most digits that a `float` is ever written with; one of so many reads back as the same `float`.
_DIGITS = 17


class ExactDecimal(Decimal):
    """A number that no `float` can hold: of more than 17 digits, too large or too small.

    Into JSON it goes as a number.
    """

    __slots__ = ()


def fraction(text: str) -> float | ExactDecimal:
    """A number with a fraction or an exponent: a `float` where one can hold it, else a decimal."""
    value = float(text)
    if len(text) <= _DIGITS and "e" not in text and "E" not in text:
        return value
    digits = text.lower().partition("e")[0].lstrip("-").replace(".", "").lstrip("0")
    if (len(digits) <= _DIGITS and math.isfinite(value) and (value or not digits)) or _same(value, text):
        return value
    return ExactDecimal(text)


def _same(value: float, text: str) -> bool:
    return Decimal(repr(value)) == Decimal(text)


def decoder(kind: type[T]) -> Callable[[bytes | str], T]:
    """What reads JSON of this type."""
    return msgspec.json.Decoder(kind, float_hook=fraction).decode


def _other(value: object) -> object:
    if isinstance(value, ExactDecimal):
        return written(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def written(value: ExactDecimal) -> msgspec.Raw:
    """The number as it goes into JSON."""
    return msgspec.Raw(str(value).encode())


decode: Callable[[bytes | str], Any] = decoder(Any)  # pyright: ignore[reportArgumentType]
encode: Callable[[object], bytes] = msgspec.json.Encoder(enc_hook=_other).encode
