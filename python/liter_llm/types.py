"""What comes out of a call: answers, chunks; and the request as a provider of one's own sees it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

import msgspec
from msgspec import field

from .content import (
    ContentBlock,
    LlmMessage,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCall,
    ToolCallBlock,
    markdown,
)
from .exact import decode
from .route import Route, RouteOptions
from .value import Value, once, short

T = TypeVar("T")

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "error", "other"]

# -----------------------------------------------------------------------------------------------------
# answers


class Usage(Value, frozen=True):
    """What a call consumed, in tokens."""

    input_tokens: int = 0
    """All input tokens, cached ones included."""
    output_tokens: int = 0
    """All output tokens, reasoning included."""
    cache_read_input_tokens: int = 0
    """Input tokens read from the provider's prompt cache."""
    cache_creation_input_tokens: int = 0
    """Input tokens written to the provider's prompt cache."""
    cache_creation_1h_input_tokens: int = 0
    """Of those, the ones that are kept for an hour."""
    audio_input_tokens: int = 0
    """Audio among the input tokens."""
    audio_output_tokens: int = 0
    """Audio among the output tokens."""
    web_search_requests: int = 0
    """Searches of the web that the provider made for the answer and bills apart."""
    reasoning_output_tokens: int = 0
    """Output tokens spent on reasoning."""
    extra: dict[str, Any] = {}
    """Other counts of the vendor's, under its own names."""

    @property
    def total_tokens(self) -> int:
        """Input and output tokens."""
        return self.input_tokens + self.output_tokens


class CostPart(Value, frozen=True):
    """One line of a bill."""

    what: str
    """What was counted: `input`, `output`, `cache_read`, `cache_write_5m`, `requests`, ..."""
    units: int
    """How many."""
    price: Decimal
    """US dollars per million; requests and searches: per thousand."""
    amount: Decimal
    """US dollars, exactly."""


class Cost(Value, frozen=True):
    """What an answer cost, by the catalogue's prices, in US dollars and exactly."""

    total: Decimal
    """The sum of the parts."""
    parts: list[CostPart] = []
    """What was used, one part for each price; empty when nothing was consumed (an answer from the cache)."""
    currency: str = ""
    """The currency."""
    price_source: str = ""
    """Where the prices come from, and the catalogue's row."""


class Adjustment(Value, frozen=True):
    """Something that was changed or left out of the request, with the caller's leave."""

    param: str
    reason: str


class Attempt(Value, frozen=True):
    """One request that was sent for a call, and what came of it. Durations are seconds."""

    deployment: str = ""
    """The deployment it went to."""
    status: int | None = None
    """The HTTP status, when an answer came."""
    duration: float = 0.0
    """From sending to the answer (of a stream: to its first chunk) or the failure."""
    wait: float | None = None
    """How long was waited before it was sent."""
    error: str | None = None
    """The error kind when it failed."""
    reason: str | None = None
    """Why it was sent, or why it was followed by another, or not."""
    started: float = 0.0
    """When it was sent, counted from the call's beginning."""
    cause: Literal["retry", "fallback", "resend", "hedge"] | None = None
    """Why it was sent beside or after another one."""
    queued: float | None = None
    """How long it waited in line for the deployment's limits before; `None` when there was no line."""
    connect: float | None = None
    """How long connecting took; `None` over a connection that was open, and through a proxy."""
    first_byte: float | None = None
    """From sending to the answer's headers."""


class Timing(Value, frozen=True):
    """When things happened to the request that was answered, in seconds since it was begun.

    A connection and a token for it count; earlier attempts and the waits between them do not: those are
    `response.attempts`, the waits together `sum(attempt.wait or 0 for attempt in response.attempts)`. An
    answer from the cache has `total` only, counted from the call's beginning.
    """

    queued: float | None = None
    """How long it waited in line for the deployment's limits before that; `None` when there was no line."""
    connect: float | None = None
    """How long connecting took; `None` over a connection that was open, and through a proxy."""
    first_byte: float | None = None
    """When the answer's headers were there."""
    first_chunk: float | None = None
    """When the first content was there (streams)."""
    total: float = 0.0
    """When all was there; of a stream, when its last piece was handed over to its reader. 0.0 until then: in
    the facts that begin a stream, and in a part of an answer."""


class DeploymentState(Value, frozen=True):
    """How a deployment is doing, as one key and region see it. Times are seconds."""

    deployment: str
    """The deployment's name."""
    key: str
    """A mark of the key, for telling keys apart; it differs from client to client and is not the key."""
    circuit: Literal["closed", "open", "half_open"]
    failures_in_row: int
    """Failures since the last success."""
    limited_in_row: int
    """`429`s since the last success."""
    in_flight: int
    """Calls sent that have not ended."""
    waiting: int
    """Calls in line before the deployment, whatever their key."""
    open_for: float | None = None
    """Until a probe may pass, when the circuit is open."""
    cooling_for: float | None = None
    """Until the cooldown after a `429` ends."""
    model: str | None = None
    """The model, when calls named another than the deployment's."""
    region: str | None = None


class LlmResponse(Value, frozen=True, dict=True):
    """An answer.

    Two answers are equal when what was answered is; how it came (`timing`, `attempts`, `route`,
    `request_id`, `rate_limits`, `raw`) and what it cost are ignored.
    """

    message: LlmMessage
    """The answer as a message; append it to the conversation as it is."""
    id: str = ""
    """The provider's id for the answer."""
    model: str = ""
    """The model that answered, in the provider's words."""
    provider: str = ""
    """The provider's name."""
    finish_reason: FinishReason = "other"
    """Why the model stopped."""
    raw_finish_reason: str | None = None
    """The vendor's own word for it."""
    usage: Usage = field(default_factory=Usage)
    """What the call consumed; all zero when the provider did not say."""
    cost: Cost | None = None
    """What it cost by the catalogue; `None` when the usage, the model or a price is not known."""
    request_id: str | None = None
    """The provider's id for the HTTP request."""
    rate_limits: dict[str, str] = {}
    """The provider's rate-limit headers, lower case."""
    service_tier: str | None = None
    """The service tier that was used."""
    logprobs: Any = None
    """Log probabilities, in the provider's form."""
    adjustments: list[Adjustment] = []
    """What was changed or left out of the request."""
    attempts: list[Attempt] = []
    """What was sent, oldest first."""
    timing: Timing | None = None
    """When things happened."""
    cached: bool = False
    """Whether the answer comes from the response cache or from an identical call that was in flight."""
    route: Route | None = None
    """Why the call went where it went; `None` where there was no choice."""
    extra: dict[str, Any] = {}
    """Vendor fields without a typed home."""

    @once
    def text(self) -> str:
        """The text of the answer; empty when there is none."""
        return self.message.text

    @once
    def reasoning(self) -> str:
        """The visible reasoning; empty when there is none."""
        return "".join([block.text for block in self.message.content if isinstance(block, ReasoningBlock)])

    @once
    def tool_calls(self) -> list[ToolCall]:
        """The tools the model wants called; empty when there are none."""
        return self.message.tool_calls

    @property
    def refusal(self) -> str | None:
        """What the model said when it declined."""
        return next((block.text for block in self.message.content if isinstance(block, RefusalBlock)), None)

    @property
    def parsed(self) -> Any:
        """The answer as the type given as `output=`; `None` without one, or when tools are called instead."""
        return self.__dict__.get("_parsed")

    @once
    def raw(self) -> Any:
        """The provider's own JSON, decoded at first use; `None` for streams."""
        data = self.raw_bytes
        return decode(data) if data else None

    @property
    def raw_bytes(self) -> bytes:
        """The provider's own bytes; empty for streams."""
        raw: bytes = self.__dict__.get("_raw", b"")
        return raw

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LlmResponse):
            return NotImplemented
        return (
            self.message == other.message
            and self.id == other.id
            and self.model == other.model
            and self.provider == other.provider
            and self.finish_reason == other.finish_reason
            and self.raw_finish_reason == other.raw_finish_reason
            and self.usage == other.usage
            and self.service_tier == other.service_tier
            and self.logprobs == other.logprobs
            and self.adjustments == other.adjustments
            and self.extra == other.extra
        )

    __hash__ = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        beside = {name: self.__dict__[name] for name in ("_raw", "_parsed") if name in self.__dict__}
        return (_restore, (type(self), fields, beside))

    def __copy__(self) -> Self:
        function, arguments = self.__reduce__()
        copied: Self = function(*arguments)
        return copied

    def __repr__(self) -> str:
        shown = [short(self.text)] if self.text or not self.tool_calls else []
        if self.tool_calls:
            shown.append(f"tool_calls=[{', '.join(call.name for call in self.tool_calls)}]")
        shown.append(f"finish_reason={self.finish_reason!r}")
        shown.append(f"model={f'{self.provider}/{self.model}'!r}")
        shown.append(f"tokens={self.usage.input_tokens}+{self.usage.output_tokens}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_markdown_(self) -> str:
        return markdown(self.message)


class ParsedResponse(LlmResponse, Generic[T], frozen=True, dict=True):
    """An answer to a call with `output=`: `.parsed` is an instance of that type."""

    if TYPE_CHECKING:

        @property
        def parsed(self) -> T:
            """The answer as the type given as `output=`."""
            ...


def _restore(cls: type[LlmResponse], fields: dict[str, Any], beside: dict[str, Any]) -> LlmResponse:
    response = cls(**fields)
    own: dict[str, Any] = response.__dict__  # pyright: ignore[reportAssignmentType]
    own.update(beside)
    return response


# -------------------------------------------------------------------------------------------------------
# chunks


class Facts(Value, frozen=True):
    """Facts about a whole streamed answer, as they become known."""

    id: str | None = None
    model: str | None = None
    provider: str | None = None
    request_id: str | None = None
    rate_limits: dict[str, str] = {}
    service_tier: str | None = None
    logprobs: Any = None
    adjustments: list[Adjustment] = []
    attempts: list[Attempt] = []
    timing: Timing | None = None
    cost: Cost | None = None
    cached: bool = False
    route: Route | None = None
    extra: dict[str, Any] = {}


class ToolCallDelta(Value, frozen=True):
    """A piece of a tool call: the first one has `id` and `name`, the others more text of the arguments."""

    index: int | None = None
    id: str = ""
    name: str = ""
    arguments: str = ""


class LlmChunk(Value, frozen=True):
    """One piece of a streamed answer. It adds to the block numbered `index`, or carries facts.

    A provider of your own makes them with `LlmChunk(text="...")`, `LlmChunk(start=ToolCall(...))`,
    `LlmChunk(finish_reason="stop")`.
    """

    text: str = ""
    """New text of the answer; empty when there is none."""
    reasoning: str = ""
    """New reasoning; empty when there is none."""
    index: int | None = None
    """The number of the content block; `None` continues the last block of the kind."""
    start: ContentBlock | None = None
    """A new block begins as this (often empty)."""
    arguments: str = ""
    """More JSON text of a tool call's arguments; see `tool_calls`."""
    signature: str | None = None
    """The signature of a reasoning block, or more of it."""
    citation: Any = None
    """One citation of a text block."""
    replace: ContentBlock | None = None
    """The block in its final form: replaces what was there."""
    refusal: str = ""
    """New text of the model's refusal; empty when there is none."""
    finish_reason: FinishReason | None = None
    """Why the model stopped, in the chunk that says so."""
    raw_finish_reason: str | None = None
    """The vendor's own word for it."""
    usage: Usage | None = None
    """What was consumed; the last one counts."""
    facts: Facts | None = None
    """Facts about the whole answer."""

    def __post_init__(self) -> None:
        # A block may come whole, or with its first words: they count as text like any other.
        start = self.start
        if start is not None:
            if isinstance(start, TextBlock):
                msgspec.structs.force_setattr(self, "text", start.text)
            elif isinstance(start, ReasoningBlock):
                msgspec.structs.force_setattr(self, "reasoning", start.text)
            elif isinstance(start, RefusalBlock):
                msgspec.structs.force_setattr(self, "refusal", start.text)

    @property
    def tool_calls(self) -> list[ToolCallDelta]:
        """The piece of a tool call in this chunk; empty when there is none."""
        start = self.start
        if isinstance(start, ToolCallBlock):
            return [
                ToolCallDelta(index=self.index, id=start.id, name=start.name, arguments=start.raw_arguments)
            ]
        if self.arguments:
            return [ToolCallDelta(index=self.index, arguments=self.arguments)]
        return []


# -----------------------------------------------------------------------------------------------------
# requests


class LlmRequest(Value, frozen=True):
    """A request as a provider written in Python gets it; fields not given are `None` or empty."""

    messages: list[LlmMessage] = []
    model: str | None = None
    system: list[ContentBlock] = []
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = []
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: Any = None
    reasoning_effort: str | None = None
    reasoning_budget: int | None = None
    reasoning_summary: str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    user: str | None = None
    metadata: Any = None
    service_tier: str | None = None
    previous_response_id: str | None = None
    on_unsupported: str | None = None
    timeout: float | None = None
    max_retries: int | None = None
    tenant: str | None = None
    cache: bool | None = None
    route: RouteOptions | None = None
    headers: dict[str, str] = {}
    extra: dict[str, Any] = {}

    @property
    def prompt_text(self) -> str:
        """The text of the last user message; empty when there is none."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")

    @property
    def system_text(self) -> str:
        """The instructions above the conversation, joined."""
        parts = [block.text for block in self.system if isinstance(block, TextBlock)]
        parts += [message.text for message in self.messages if message.role in {"system", "developer"}]
        return "\n".join(parts)
