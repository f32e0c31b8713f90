"""How pydantic reads and writes the package's own types. Imported only when pydantic asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .value import Value


def core_schema(cls: type[Value]) -> Any:
    """Accepts an instance or its dict form, and serialises to the dict form."""
    from pydantic_core import core_schema as schemas

    def read(value: object) -> Value:
        if isinstance(value, cls):
            return value
        if isinstance(value, dict):
            return cls.from_dict(value)  # pyright: ignore[reportUnknownArgumentType]
        raise ValueError(f"must be {cls.__name__} or a dict, not {type(value).__name__}")

    return schemas.no_info_plain_validator_function(
        read, serialization=schemas.plain_serializer_function_ser_schema(cls.to_dict)
    )


def json_schema(cls: type[Value]) -> dict[str, Any]:
    """The JSON Schema: an object named like the type; its fields are checked by `from_dict`."""
    return {"type": "object", "title": cls.__name__, "description": (cls.__doc__ or "").partition("\n")[0]}
