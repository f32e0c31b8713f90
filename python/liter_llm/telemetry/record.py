"""The record of a call: what operators see of it. No prompt, no answer, no secret."""

from __future__ import annotations

from typing import Literal

import msgspec

from liter_llm.types import Attempt, FinishReason, Timing, Usage
from liter_llm.value import Value


class CallParameters(Value, frozen=True, gc=False):
    """What a call asked for, as far as it is fit for telemetry."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] = []
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    previous_response_id: str | None = None
    output_type: str = "text"
    """`json` when the answer is to be JSON."""
    messages: int = 0
    """How many messages."""
    tools: int = 0
    """How many tools."""
    prompt_len: int = 0
    """Bytes of text in instructions and conversation."""


class CallAttempt(Attempt, frozen=True, gc=False):
    """A request that was sent for a call, and where to."""

    ended: float = 0.0
    """When it was over, counted from the call's beginning; of a stream, its end, not its first chunk."""
    provider: str = ""
    """Who hosts the deployment, as OpenTelemetry's `gen_ai.provider.name`."""
    model: str = ""
    """The model asked for."""
    region: str | None = None
    server_address: str | None = None
    server_port: int | None = None


class CallError(Value, frozen=True, gc=False):
    """Why a call failed. The provider's own words are not here: they may quote the prompt."""

    kind: str = ""
    """The error's kind; `cancelled` for a call that was given up, a stream not read to its end among them."""
    status: int | None = None
    """The HTTP status."""
    code: str | None = None
    """The provider's own error code."""
    before_send: bool = False
    """Whether nothing was sent."""


class CallRoute(Value, frozen=True, gc=False):
    """Why a call went where it went, in short."""

    policy: str = ""
    """The policy that put the candidates in order."""
    arm: Literal["canary", "rest"] | None = None
    """Whose call it is where a canary is compared with the others."""
    notes: list[str] = []
    """Remarks: a canary's arm, a degraded budget, a policy that failed."""


class CallGaps(Value, frozen=True, gc=False):
    """Times between pieces of a long stream: not each, but how many of which length."""

    buckets: list[int] = []
    """How many were at most 0.01, 0.02, 0.04, ... 81.92 seconds long, and longer than the bound before; the
    last number is of those that were longer than all."""
    seconds: float = 0.0
    """Their sum."""


class CallRecord(Value, frozen=True, gc=False):
    """One call, beginning to end: what traces, metrics and logs are made of. Times are in seconds."""

    operation: str = ""
    """What was done: `chat`, or the operation's name."""
    streamed: bool = False
    """Whether the answer was streamed."""
    started: float = 0.0
    """When the call began, in seconds since 1970-01-01 UTC."""
    duration: float = 0.0
    """From its beginning to its end; of a stream, to the end of its reading."""
    deployment: str = ""
    """The deployment that answered or failed last; empty when none was called."""
    provider: str = ""
    """Who hosts it, as OpenTelemetry's `gen_ai.provider.name`."""
    model: str = ""
    """The model asked for."""
    model_label: str = ""
    """`model` as a label of a metric: a name that is new when many are known is `other`."""
    region: str | None = None
    """The deployment's region."""
    server_address: str | None = None
    """The host's name or address."""
    server_port: int | None = None
    """The host's port."""
    parameters: CallParameters = CallParameters()
    """What was asked for."""
    key: str | None = None
    """Whose budget the call is charged to."""
    response_model: str | None = None
    """The model that answered, in the provider's words."""
    response_model_label: str | None = None
    """`response_model` as a label of a metric."""
    response_id: str | None = None
    """The provider's id for the answer."""
    request_id: str | None = None
    """The provider's id for the HTTP request."""
    finish_reason: FinishReason | None = None
    """Why the model stopped; `None` when it did not come to that."""
    service_tier: str | None = None
    """The service tier that was used."""
    usage: Usage | None = None
    """What was consumed."""
    cost: float | None = None
    """What it cost in US dollars; `None` when that is not known."""
    cached: bool = False
    """Whether the answer came from the response cache or from an identical call in flight."""
    cache_missed: bool = False
    """Whether the client has a response cache, and the answer did not come from it."""
    adjusted: list[str] = []
    """The request fields that were changed or left out."""
    error: CallError | None = None
    """Why it failed; `None` when it did not."""
    route: CallRoute | None = None
    """Why it went where it went; `None` where there was no choice."""
    timing: Timing | None = None
    """When things happened to the request that was answered."""
    first_chunk: float | None = None
    """From the call's beginning to the first piece of a streamed answer."""
    chunks: int = 0
    """How many pieces a streamed answer had."""
    chunk_seconds: list[float] = []
    """The time between one piece of a streamed answer and the next; of the first 1,024."""
    chunk_rest: CallGaps | None = None
    """Those after that, counted; `None` when there were none."""
    attempts: list[CallAttempt] = []
    """What was sent, oldest first."""


decode_record = msgspec.json.Decoder(CallRecord).decode
decode_records = msgspec.json.Decoder(list[CallRecord]).decode


def exported(name: str) -> object:
    """What the package shows under this name, for its late import."""
    return globals()[name]
