"""Structured output: a type given as `output=` becomes a JSON Schema, the answer an instance of the type."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from typing import Any

import msgspec

from .errors import InvalidArgumentError, OutputError
from .exact import decoder
from .schemas import is_pydantic, schema_of, strict
from .types import LlmResponse, ParsedResponse

_decode: Callable[[bytes], ParsedResponse[Any]] = decoder(ParsedResponse[Any])
_known: weakref.WeakKeyDictionary[Any, Output] = weakref.WeakKeyDictionary()
_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?```\s*\Z", re.DOTALL)
_NAME = re.compile(r"[^a-zA-Z0-9_-]+")


class Output:
    """One type: what is asked of the provider, and how the answer is read."""

    def __init__(self, cls: Any) -> None:
        schema = schema_of(cls, "output")
        tight = strict(schema)
        self.name = _NAME.sub("_", getattr(cls, "__name__", "answer"))[:64]
        form: dict[str, Any] = {"type": "json_schema", "name": self.name, "schema": tight or schema}
        if tight is not None:
            form["strict"] = True
        description = schema.get("description")
        if description:
            form["description"] = description
        self.response_format = form
        self._parse: Callable[[str], Any]
        if is_pydantic(cls):
            self._parse = cls.model_validate_json
        else:
            self._parse = msgspec.json.Decoder(cls, dec_hook=_model).decode

    def read(self, body: bytes, raw: bytes) -> ParsedResponse[Any]:
        """The response with `.parsed`; `None` where the model called tools or declined instead.

        Raises:
            OutputError: The answer does not fit the type; `response` has it.
        """
        response = _decode(body)
        beside: dict[str, Any] = response.__dict__  # pyright: ignore[reportAssignmentType]
        beside["_raw"] = raw
        text = response.text
        if text.strip() or not response.tool_calls:
            beside["_parsed"] = self._value(response, text)
        return response

    def _value(self, response: LlmResponse, text: str) -> Any:
        fenced = _FENCED.match(text)
        try:
            return self._parse(fenced[1] if fenced else text)
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            why = {
                "length": "the answer was cut at the token limit",
                "content_filter": f"the provider declined: {response.refusal or 'content filter'}",
            }.get(response.finish_reason, str(error))
            failure = OutputError(
                f"the answer is no `{self.name}`: {why}; `response` has the whole answer",
                provider=response.provider or None,
                model=response.model or None,
                request_id=response.request_id,
                attempts=response.attempts,
                param="output",
            )
            failure.response = response
            raise failure from error


def _model(cls: type, value: object) -> Any:
    if is_pydantic(cls):
        return cls.model_validate(value)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
    raise NotImplementedError(cls)


def output_for(cls: Any) -> Output:
    """What is known of a type given as `output=`.

    Raises:
        InvalidArgumentError: It is not a type whose values are JSON objects.
    """
    if not isinstance(cls, type) and not hasattr(cls, "__origin__"):
        raise InvalidArgumentError(
            f"`output`: must be a type (a pydantic model, dataclass, TypedDict or msgspec Struct), "
            f"not {type(cls).__name__}; a JSON Schema of your own goes into `response_format`",
            param="output",
        )
    try:
        found = _known.get(cls)
        if found is None:
            found = _known[cls] = Output(cls)
    except TypeError:
        return Output(cls)
    return found


def with_output(shape: Output, fields: dict[str, Any]) -> None:
    """Asks for the form in a call's arguments.

    Raises:
        InvalidArgumentError: Another form is asked for as well.
    """
    if fields.get("response_format") is not None:
        raise InvalidArgumentError(
            "`output`: give either `output` or `response_format`, not both", param="output"
        )
    fields["response_format"] = shape.response_format
