"""Writes a call's arguments as the request's border form, in one encoding step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import msgspec

from .content import ContentBlock, LlmMessage, TextBlock
from .errors import InvalidArgumentError, unknown_name
from .exact import ExactDecimal, written
from .route import RouteOptions

#: Text, or texts and blocks that make up one user message.
Prompt = str | Sequence[str | ContentBlock]


class RequestFields(TypedDict, total=False):
    """The keyword arguments of `generate` and `stream`; `None` is the same as not given.

    Attributes:
        messages: The conversation: plain dicts in OpenAI's or Anthropic's shape, or `LlmMessage`, mixed as
            you like.
        system: Instructions above the conversation.
        model: The model, sent verbatim; beats the configuration's.
        max_tokens: The most tokens to generate, reasoning included.
        temperature: Sampling temperature; 0 to 2 at OpenAI, 0 to 1 at Anthropic.
        top_p: Nucleus sampling, 0 to 1.
        top_k: Sample from this many likeliest tokens.
        stop: Texts that end the answer.
        seed: Makes sampling repeatable where the provider can.
        frequency_penalty: -2 to 2; positive discourages repeating frequent tokens.
        presence_penalty: -2 to 2; positive discourages repeating any token.
        tools: Dicts in either vendor's shape, Python functions, pydantic models.
        tool_choice: `auto`, `none`, `required`, or `{"name": ...}`.
        parallel_tool_calls: Whether the model may call several tools at once.
        response_format: `text`, `json`, or a JSON schema in OpenAI's form; see also `output`.
        reasoning_effort: How hard to think: `none`, `minimal`, `low`, `medium`, `high`, ... as the provider
            has it.
        reasoning_budget: The most tokens to think with.
        reasoning_summary: `auto`, `concise` or `detailed`: ask for a summary of the reasoning.
        logprobs: Whether to return log probabilities.
        top_logprobs: How many alternatives to each token, 0 to 20.
        user: The end user's id.
        metadata: Labels stored with the answer.
        service_tier: The provider's service tier, for instance `flex`.
        previous_response_id: OpenAI Responses: continue from a stored answer.
        on_unsupported: `error` (the default) refuses what the provider cannot do; `adjust` leaves it out
            and lists it in `response.adjustments`.
        timeout: The limit for the whole call in seconds; beats the configuration's.
        max_retries: How often a failed call is sent again; beats the configuration's.
        tenant: Whose call this is: cached and shared answers never cross from one tenant to another.
        cache: False keeps this call away from the response cache; True refuses the call where the
            configuration has none.
        route: What this call asks of a router: `RouteOptions`, or the same as a dict.
        headers: More HTTP headers for this call.
        extra: Vendor fields, put into the body as they are.
    """

    messages: Sequence[Mapping[str, Any] | LlmMessage] | None
    system: str | Sequence[TextBlock | Mapping[str, Any]] | None
    model: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    tools: Sequence[Mapping[str, Any] | Callable[..., Any] | type[Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    response_format: str | Mapping[str, Any] | None
    reasoning_effort: str | None
    reasoning_budget: int | None
    reasoning_summary: str | None
    logprobs: bool | None
    top_logprobs: int | None
    user: str | None
    metadata: Mapping[str, Any] | None
    service_tier: str | None
    previous_response_id: str | None
    on_unsupported: Literal["error", "adjust"] | None
    timeout: float | None
    max_retries: int | None
    tenant: str | None
    cache: bool | None
    route: RouteOptions | Mapping[str, Any] | None
    headers: Mapping[str, str] | None
    extra: Mapping[str, Any] | None


FIELD_NAMES = frozenset({*RequestFields.__annotations__, "prompt"})


def _other_value(value: object) -> object:
    """What msgspec does not know: pydantic models (as other SDKs return them), numpy scalars, mappings."""
    if isinstance(value, ExactDecimal):
        return written(value)
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(value, Sequence):
        return list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "ndim", None) == 0:
        return item()
    raise TypeError(f"{type(value).__name__} has no JSON form")


_encode = msgspec.json.Encoder(enc_hook=_other_value).encode


def encode_request(prompt: Prompt | None, fields: dict[str, Any]) -> bytes:
    """The border form of a request.

    `fields` belongs to the caller's frame and may be changed; its values never are.

    Raises:
        InvalidArgumentError: An argument is unknown, holds NaN or infinity, or has no JSON form; `param`
        names it.
    """
    if prompt is not None:
        if prompt.__class__ is str:
            fields["prompt"] = prompt
        else:
            _prompt_parts(prompt, fields)
    if not fields.keys() <= FIELD_NAMES:
        _refuse_unknown(fields)
    tools = fields.get("tools")
    if tools:
        from .tools import tool_list

        fields["tools"] = tool_list(tools)
    try:
        request = _encode(fields)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise _unencodable(fields, error) from error
    # JSON has no NaN and no infinity: they are written as `null`, so that without one there is nothing to
    # look for. (`in` would try the text as a number first, and raise and catch an error each time.)
    if request.find(b"null") >= 0:
        for name, value in fields.items():
            _refuse_not_finite(name, value)
    return request


def encode_value(value: object, name: str) -> bytes:
    """Any value as JSON.

    Raises:
        InvalidArgumentError: It has no JSON form, or holds NaN or infinity.
    """
    try:
        text = _encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InvalidArgumentError(f"`{name}`: {error}", param=name) from error
    if text.find(b"null") >= 0:
        _refuse_not_finite(name, value)
    return text


def _prompt_parts(prompt: Prompt, fields: dict[str, Any]) -> None:
    if isinstance(prompt, str):
        fields["prompt"] = str(prompt)
        return
    if not isinstance(prompt, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgumentError(
            f"`prompt`: must be text, or a list of texts and blocks, not {type(prompt).__name__}",
            param="prompt",
        )
    if fields.get("messages") is not None:
        raise InvalidArgumentError("`prompt`: give either `prompt` or `messages`, not both", param="prompt")
    fields["messages"] = [LlmMessage.user(*prompt)]


def _refuse_unknown(fields: dict[str, Any]) -> None:
    name = next(name for name in fields if name not in FIELD_NAMES)
    hint = unknown_name(name, [*FIELD_NAMES, "output"]) or "; a vendor's own field goes into `extra`"
    raise InvalidArgumentError(f"`{name}` is unknown{hint}", param=name)


def _unencodable(fields: dict[str, Any], error: Exception) -> InvalidArgumentError:
    for name, value in fields.items():
        try:
            _encode(value)
        except (TypeError, ValueError, RecursionError, OverflowError) as cause:
            what = "is nested too deeply" if isinstance(cause, RecursionError) else str(cause)
            return InvalidArgumentError(f"`{name}`: cannot be written as JSON: {what}", param=name)
    return InvalidArgumentError(f"the request cannot be written as JSON: {error}")


def _refuse_not_finite(name: str, value: object) -> None:
    pending: list[tuple[str, object]] = [(name, value)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, float):
            if value != value or value in {float("inf"), float("-inf")}:  # noqa: PLR0124 - NaN is not itself
                raise InvalidArgumentError(f"`{path}`: {value} is not a finite number", param=path)
        elif isinstance(value, Mapping):
            pending += [(f"{path}.{key}", item) for key, item in value.items()]  # pyright: ignore[reportUnknownVariableType]
        elif isinstance(value, (list, tuple)):
            pending += [(f"{path}[{index}]", item) for index, item in enumerate(value)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        elif isinstance(value, msgspec.Struct):
            pending += [(f"{path}.{key}", getattr(value, key)) for key in value.__struct_fields__]
