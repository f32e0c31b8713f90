"""Tools: dicts pass as they are; functions and models become name, description and JSON Schema."""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from .errors import InvalidArgumentError
from .schemas import schema_of, schemas_of

_known: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()
_NAME = re.compile(r"[^a-zA-Z0-9_-]+")


def tool_list(tools: Iterable[Any]) -> list[Any]:
    """The tools of a request in a form the engine reads. The given objects are never changed.

    Raises:
        InvalidArgumentError: Something is not a tool; `param` says which.
    """
    if isinstance(tools, (str, Mapping)) or not isinstance(tools, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgumentError("`tools`: must be a list of dicts, functions or models", param="tools")
    return [
        tool if isinstance(tool, Mapping) else tool_schema(tool, f"tools[{index}]")
        for index, tool in enumerate(tools)
    ]


def tool_schema(tool: Callable[..., Any] | type[Any], param: str = "tool") -> dict[str, Any]:
    """A function or model as a tool: `name`, `description` and `parameters` (a JSON Schema).

    A function's schema comes from its type hints (`Annotated[int, "what it is"]` describes a parameter) and
    its docstring in Google, NumPy or reST style. A model may be of pydantic, a dataclass, a TypedDict or a
    msgspec Struct.

    Raises:
        InvalidArgumentError: The function cannot be called with keyword arguments, or a type has no schema.
    """
    try:
        found = _known.get(tool)
    except TypeError:
        found = None
    if found is None:
        if not callable(tool):
            raise InvalidArgumentError(
                f"`{param}`: {type(tool).__name__} is neither a dict nor a function nor a model", param=param
            )
        found = _of_model(tool, param) if isinstance(tool, type) else _of_function(tool, param)
        try:
            # Bound methods are made anew at each access: they would only fill the memory.
            if not inspect.ismethod(tool):
                _known[tool] = found
        except TypeError:
            pass
    return found


def _of_model(cls: type[Any], param: str) -> dict[str, Any]:
    schema = schema_of(cls, param)
    schema.pop("title", None)
    description = schema.pop("description", None)
    return _tool(cls.__name__, description, schema)


def _tool(name: str, description: str | None, parameters: dict[str, Any]) -> dict[str, Any]:
    tool: dict[str, Any] = {"name": _NAME.sub("_", name)[:64]}
    if description:
        tool["description"] = description
    tool["parameters"] = parameters
    return tool


def _of_function(function: Callable[..., Any], param: str) -> dict[str, Any]:
    name = getattr(function, "__name__", None) or type(function).__name__
    target = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    while hasattr(target, "func") and not inspect.isroutine(target):  # functools.partial
        target = target.func  # pyright: ignore[reportFunctionMemberAccess, reportUnknownMemberType, reportUnknownVariableType]
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(target, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise InvalidArgumentError(
            f"`{param}`: the signature of {name} is unknown: {error}", param=param
        ) from error
    summary, described = read_docstring(inspect.getdoc(function) or "")
    parameters = list(_parameters(signature, f"`{param}`: {name}", param))
    types = [hints.get(parameter.name, Any) for parameter in parameters]
    schemas, definitions = schemas_of([_plain(hint) for hint in types], param)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter, hint, schema in zip(parameters, types, schemas, strict=True):
        noted = {**schema, **_notes(hint)}
        if "description" not in noted and parameter.name in described:
            noted["description"] = described[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        else:
            noted |= _default(parameter.default)
        properties[parameter.name] = noted
    result: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    result["additionalProperties"] = False
    if definitions:
        result["$defs"] = definitions
    return _tool(name, summary, result)


def _parameters(signature: inspect.Signature, what: str, param: str) -> Iterable[inspect.Parameter]:
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL}:
            raise InvalidArgumentError(
                f"{what} cannot be a tool: `{parameter.name}` cannot be given by name", param=param
            )
        yield parameter


def _plain(hint: Any) -> Any:
    """A hint without notes of others than msgspec, which it would refuse or ignore."""
    if get_origin(hint) is Annotated:
        base, *notes = get_args(hint)
        kept = [note for note in notes if isinstance(note, msgspec.Meta)]
        return Annotated[base, *kept] if kept else base
    return hint


_CONSTRAINTS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}


def _notes(hint: Any) -> dict[str, Any]:
    """What `Annotated` says: a text, `Doc`, or a pydantic `Field` with its limits."""
    found: dict[str, Any] = {}
    if get_origin(hint) is not Annotated:
        return found
    for note in get_args(hint)[1:]:
        if isinstance(note, msgspec.Meta):
            continue
        text = (
            note
            if isinstance(note, str)
            else getattr(note, "documentation", None) or getattr(note, "description", None)
        )
        if isinstance(text, str):
            found["description"] = text
        for part in (note, *(getattr(note, "metadata", None) or ())):
            for name, keyword in _CONSTRAINTS.items():
                limit = getattr(part, name, None)
                if isinstance(limit, (int, float, str)):
                    found[keyword] = limit
    return found


def _default(value: object) -> dict[str, Any]:
    try:
        return {"default": msgspec.to_builtins(value)}
    except TypeError:
        return {}


# ------------------------------------------------------------------------------------------ docstrings

_REST = re.compile(r"^:param\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)$")
_GOOGLE = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_NUMPY = re.compile(r"^\*{0,2}(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?$")
_ARGUMENT_SECTIONS = {"args", "arguments", "parameters", "params", "keyword args", "keyword arguments"}
_SHORTEST_UNDERLINE = 3
_SECTIONS = _ARGUMENT_SECTIONS | {
    "returns", "return", "raises", "yields", "yield", "example", "examples", "note", "notes", "attributes",
    "see also", "warning", "warnings", "references", "todo",
}  # fmt: skip


def read_docstring(text: str) -> tuple[str, dict[str, str]]:  # noqa: C901 - one pass over three styles
    """A docstring's description and what it says of each parameter (Google, NumPy or reST style)."""
    lines = text.expandtabs().splitlines()
    summary: list[str] = []
    described: dict[str, list[str]] = {}
    section = ""
    underlined = False
    current: list[str] | None = None
    depth: int | None = None
    for number, line in enumerate(lines):
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        following = lines[number + 1].strip() if number + 1 < len(lines) else ""
        heading = stripped.removesuffix(":").lower()
        is_underlined = len(following) >= _SHORTEST_UNDERLINE and set(following) <= {"-", "="}
        if indent == 0 and heading in _SECTIONS and (stripped.endswith(":") or is_underlined):
            section, underlined, current, depth = heading, is_underlined, None, None
        elif (match := _REST.match(stripped)) is not None:
            section = "args"
            current = described.setdefault(match[1], [])
            current.append(match[2])
            depth = indent
        elif stripped.startswith(":") and not section.startswith(("arg", "param")):
            section, current = "fields", None
        elif not section:
            summary.append(line.rstrip())
        elif section in _ARGUMENT_SECTIONS and stripped and not set(stripped) <= {"-", "="}:
            if stripped.startswith(":"):
                current = None
                continue
            depth = indent if depth is None else depth
            match = (_NUMPY if underlined else _GOOGLE).match(stripped) if indent <= depth else None
            if match is not None:
                current = []
                for name in match[1].split(","):
                    described[name.strip()] = current
                if not underlined:
                    current.append(match[2])
            elif current is not None:
                current.append(stripped)
    texts = {name: " ".join(part for part in parts if part) for name, parts in described.items()}
    return "\n".join(summary).strip(), {name: text for name, text in texts.items() if text}
