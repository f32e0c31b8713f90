"""JSON Schemas of Python types: by msgspec, or by pydantic where the type is one of its models."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import msgspec

from .errors import InvalidArgumentError

_REF = "#/$defs/"
# What OpenAI's strict mode knows; see its guide to structured outputs.
_STRICT_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
_NOT_STRICT = frozenset(
    {"prefixItems", "patternProperties", "not", "if", "then", "else", "dependentRequired", "uniqueItems"}
)


def is_pydantic(cls: object) -> bool:
    """Whether a class is a pydantic model, without importing pydantic."""
    return isinstance(cls, type) and hasattr(cls, "model_json_schema") and hasattr(cls, "model_validate_json")


def schemas_of(types: list[Any], param: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The schemas of some types and the definitions they share.

    Raises:
        InvalidArgumentError: A type has no JSON Schema.
    """

    def hook(cls: type) -> dict[str, Any]:
        if is_pydantic(cls):
            return cls.model_json_schema()  # type: ignore[attr-defined, no-any-return]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
        raise NotImplementedError(cls)

    try:
        schemas, definitions = msgspec.json.schema_components(
            types, schema_hook=hook, ref_template=_REF + "{name}"
        )
    except (TypeError, NotImplementedError, ValueError) as error:
        raise InvalidArgumentError(f"`{param}`: no JSON Schema: {error}", param=param) from error
    found = dict(definitions)
    result = [_hoist(schema, found) for schema in schemas]
    for name in list(found):
        found[name] = _hoist(found[name], found)
    return result, found


def schema_of(cls: Any, param: str) -> dict[str, Any]:
    """The schema of an object type, its definitions under `$defs`, its own properties at the top.

    Raises:
        InvalidArgumentError: The type has no JSON Schema, or is not an object.
    """
    (schema,), definitions = schemas_of([cls], param)
    reference = str(schema.get("$ref", ""))
    if reference.startswith(_REF):
        name = reference.removeprefix(_REF)
        schema = definitions[name]
        if not _mentions(schema, reference) and not any(
            _mentions(other, reference) for key, other in definitions.items() if key != name
        ):
            del definitions[name]
    if schema.get("type") != "object":
        raise InvalidArgumentError(
            f"`{param}`: {_name(cls)} is not an object type: use a pydantic model, dataclass, TypedDict or "
            "msgspec Struct with the value as a field",
            param=param,
        )
    return {**schema, "$defs": definitions} if definitions else dict(schema)


def strict(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema as OpenAI's strict mode wants it, or `None` when it cannot say the same.

    Every property is required, no others are allowed, defaults are left out, `oneOf` becomes `anyOf`.
    """
    copy = deepcopy(schema)
    return copy if _tighten(copy) else None


def _tighten(node: Any) -> bool:
    if isinstance(node, list):
        return all(_tighten(item) for item in node)  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(node, dict):
        return True
    schema: dict[str, Any] = node  # pyright: ignore[reportUnknownVariableType]
    if "$ref" in schema:
        # Nothing may stand beside a reference.
        reference, definitions = schema["$ref"], schema.get("$defs")
        schema.clear()
        schema["$ref"] = reference
        if definitions is not None:
            schema["$defs"] = definitions
    if _NOT_STRICT & schema.keys():
        return False
    schema.pop("default", None)
    schema.pop("discriminator", None)
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")
    if schema.get("format") not in _STRICT_FORMATS:
        schema.pop("format", None)
    if schema.get("type") == "object":
        properties = schema.get("properties")
        if properties is None or schema.get("additionalProperties"):
            return False
        schema["additionalProperties"] = False
        schema["required"] = list(properties)
    groups = (schema.get(name, {}) for name in ("properties", "$defs"))
    parts = [part for group in groups for part in group.values()]
    parts += [schema[name] for name in ("items", "anyOf", "allOf") if name in schema]
    return _tighten(parts)


def _hoist(schema: Any, definitions: dict[str, Any]) -> Any:
    """Moves definitions that stand inside a schema (pydantic's) to the common ones."""
    if isinstance(schema, list):
        return [_hoist(item, definitions) for item in schema]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(schema, dict):
        return schema
    rest: dict[str, Any] = dict(schema)  # pyright: ignore[reportUnknownArgumentType]
    own = rest.pop("$defs", None)
    if isinstance(own, dict):
        for name, definition in own.items():  # pyright: ignore[reportUnknownVariableType]
            definitions.setdefault(str(name), _hoist(definition, definitions))  # pyright: ignore[reportUnknownArgumentType]
    return {name: _hoist(item, definitions) for name, item in rest.items()}


def _mentions(schema: Any, reference: str) -> bool:
    if isinstance(schema, list):
        return any(_mentions(item, reference) for item in schema)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(schema, dict):
        return any(_mentions(item, reference) for item in schema.values())  # pyright: ignore[reportUnknownVariableType]
    return bool(schema == reference)


def _name(cls: object) -> str:
    return getattr(cls, "__name__", None) or repr(cls)
