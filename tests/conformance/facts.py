"""What a record says the answer holds, and how an answer read by the package differs from it.

Each fact has a small function of its own: it yields a sentence for every difference, or nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import liter_llm
from liter_llm import LiterLlmError, LlmResponse, ReasoningBlock

from .records import Record

Differences = Iterator[str]

CHAT_FINISH = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
ANTHROPIC_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
INCOMPLETE_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


def differences(record: Record, response: LlmResponse) -> list[str]:
    """Everything in which `response` departs from the facts of `record`."""
    checks: tuple[Callable[[Record, LlmResponse], Differences], ...] = (
        check_id,
        check_model,
        check_text,
        check_reasoning,
        check_refusal,
        check_tool_calls,
        check_finish,
        check_usage,
        check_signatures,
    )
    return [f"{check.__name__[6:]}: {text}" for check in checks for text in check(record, response)]


def error_differences(record: Record, error: Exception) -> list[str]:
    """Everything in which `error` departs from the failure recorded."""
    return [
        *check_error_class(record, error),
        *check_error_status(record, error),
        *check_error_text(record, error),
    ]


def _choice(record: Record) -> dict[str, Any]:
    choices: list[dict[str, Any]] = record.expected.get("choices") or [{}]
    return choices[0]


def _differ(expected: object, got: object) -> Differences:
    if expected != got:
        yield f"expected {_short(expected)}, got {_short(got)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:100]} ... {text[-50:]}"


def check_id(record: Record, response: LlmResponse) -> Differences:
    yield from _differ(record.expected.get("id") or "", response.id)


def check_model(record: Record, response: LlmResponse) -> Differences:
    # A few hosts leave the model out of the answer; the requested name is then the best there is.
    if record.expected.get("model"):
        yield from _differ(record.expected["model"], response.model)


def check_text(record: Record, response: LlmResponse) -> Differences:
    expected = (
        _choice(record).get("text") if record.wire == "chat.completions" else record.expected.get("text")
    )
    yield from _differ(expected or "", response.text)


def check_reasoning(record: Record, response: LlmResponse) -> Differences:
    if record.wire == "chat.completions":
        yield from _differ(_choice(record).get("reasoning") or "", response.reasoning)
    elif record.wire == "messages":
        yield from _differ(record.expected.get("thinking") or "", response.reasoning)
    else:
        # The parts of a summary may be set apart by blank lines, and raw reasoning may stand beside them.
        summary = record.expected.get("reasoning_summary") or ""
        if _squeezed(summary) not in _squeezed(response.reasoning):
            yield from _differ(summary, response.reasoning)


def _squeezed(text: str) -> str:
    return "".join(text.split())


def check_refusal(record: Record, response: LlmResponse) -> Differences:
    source = _choice(record) if record.wire == "chat.completions" else record.expected
    expected = source.get("refusal")
    if expected:
        yield from _differ(expected, response.refusal)


def _expected_calls(record: Record) -> list[dict[str, Any]]:
    source = _choice(record) if record.wire == "chat.completions" else record.expected
    calls: list[dict[str, Any]] = source.get("tool_calls") or []
    if not calls and record.is_stream and record.expected.get("output_types") == []:
        # The final event of these streams has an empty output: the calls stand in the events before it.
        items = record.final_items("function_call")
        return [{"id": i["call_id"], "name": i["name"], "arguments_raw": i["arguments"]} for i in items]
    return calls


def check_tool_calls(record: Record, response: LlmResponse) -> Differences:
    expected = _expected_calls(record)
    calls = list(response.tool_calls)
    yield from _differ([call.get("name") for call in expected], [call.name for call in calls])
    for want, call in zip(expected, calls, strict=False):
        # Some hosts send no id; the package may then make one up so that a result can name it.
        if want.get("id"):
            yield from _differ(want["id"], call.id)
        if isinstance(want.get("arguments"), dict):
            try:
                yield from _differ(want["arguments"], call.arguments)
            except LiterLlmError as error:
                yield f"arguments of {call.name}: {error}"
        elif want.get("arguments_raw") is not None:
            yield from _differ(want["arguments_raw"], call.raw_arguments)


def check_finish(record: Record, response: LlmResponse) -> Differences:
    calls = bool(response.tool_calls)
    if record.wire == "responses":
        status, reason = record.expected.get("status"), record.expected.get("incomplete_reason")
        if status == "completed":
            expected = {"tool_calls"} if calls else {"stop", "content_filter"}
        elif status == "incomplete":
            expected = {INCOMPLETE_FINISH.get(str(reason), "other")}
        else:
            return
    else:
        table, raw = (
            (CHAT_FINISH, _choice(record).get("finish_reason"))
            if record.wire == "chat.completions"
            else (ANTHROPIC_FINISH, record.expected.get("stop_reason"))
        )
        if raw is None:
            return
        yield from _differ(raw, response.raw_finish_reason)
        if raw not in table:
            return
        # Several hosts say `stop` although they call tools, and OpenAI says it beside a refusal.
        expected = {table[raw]} | ({"tool_calls"} if calls else set())
        expected |= {"content_filter"} if response.refusal else set()
    if str(response.finish_reason) not in expected:
        yield f"expected one of {sorted(expected)}, got {response.finish_reason!r}"


def check_usage(record: Record, response: LlmResponse) -> Differences:  # noqa: C901
    expected: dict[str, int | None] | None = record.expected.get("usage")
    if not expected:
        return
    usage = response.usage
    if usage is None:
        if any(expected.values()):
            yield f"expected {expected}, got none"
        return

    def count(name: str) -> int:
        return expected.get(name) or 0

    if record.wire == "messages":
        # Anthropic counts cached input beside the rest.
        cached, written = count("cache_read"), count("cache_write")
        wanted_input = {count("input") + cached + written}
        yield from _differ(written, usage.cache_creation_input_tokens)
    else:
        cached = count("cached")
        wanted_input = {count("input")}
    if usage.input_tokens not in wanted_input:
        yield f"expected {wanted_input} input tokens, got {usage.input_tokens}"
    # What the official client does not read (a count under the vendor's own name) is no fact about it.
    if expected.get("cached", cached) is not None:
        yield from _differ(cached, usage.cache_read_input_tokens)
    output, reasoning = count("output"), count("reasoning")
    wanted_output = {output}
    if record.wire == "chat.completions" and count("total") == count("input") + output + reasoning:
        # Hosts that count reasoning beside the output.
        wanted_output.add(output + reasoning)
    if usage.output_tokens not in wanted_output:
        yield f"expected {wanted_output} output tokens, got {usage.output_tokens}"
    if expected.get("reasoning") is not None:
        yield from _differ(reasoning, usage.reasoning_output_tokens)


def check_signatures(record: Record, response: LlmResponse) -> Differences:
    if record.wire != "messages":
        return
    got = sum(
        1 for block in response.message.content if isinstance(block, ReasoningBlock) and block.signature
    )
    yield from _differ(record.expected.get("signatures") or 0, got)


def check_error_class(record: Record, error: Exception) -> Differences:
    expected: dict[str, Any] = record.expected.get("error") or {}
    if not expected and not isinstance(error, LiterLlmError):
        yield f"error class: {type(error).__name__}"
    name = str(expected.get("sdk_exception", "")).rpartition(".")[2]
    wanted: type[Exception] | None = getattr(liter_llm, name, None)
    if wanted is not None and not isinstance(error, wanted):
        yield f"error class: expected {name}, got {type(error).__name__} ({error})"


def check_error_status(record: Record, error: Exception) -> Differences:
    status = int(record.response["status"])
    if status >= 400:
        for text in _differ(status, getattr(error, "status_code", None)):
            yield f"error status: {text}"


def check_error_text(record: Record, error: Exception) -> Differences:
    message = (record.expected.get("error") or {}).get("message")
    if isinstance(message, str) and message and _squeezed(message)[:200] not in _squeezed(str(error)):
        yield f"error text: expected {_short(message)}, got {_short(str(error))}"


def compact(value: object) -> str:
    """JSON in one spelling, the order of names kept: what two bodies are compared by."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
