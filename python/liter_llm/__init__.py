"""One typed API for every LLM service: OpenAI, Anthropic, Azure OpenAI and compatible hosts.

>>> from liter_llm import LiterLLM, ProviderConfig
>>> config = ProviderConfig(provider="openai", api_key="sk-...", model="gpt-4o-mini")
>>> client = LiterLLM(config)
>>> client.generate(prompt="Explain the CAP theorem in 3 sentences.", max_tokens=150).text  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from . import forks
from ._native import __version__
from .catalog import Catalog, ModelInfo, ModelLimits
from .client import AsyncLiterLLM, LiterLLM
from .config import ProviderConfig
from .content import (
    AudioBlock,
    Base64Source,
    ContentBlock,
    DocumentBlock,
    FileSource,
    ImageBlock,
    LlmMessage,
    OpaqueBlock,
    OtherSource,
    ReasoningBlock,
    RefusalBlock,
    Role,
    TextBlock,
    TextSource,
    ToolCall,
    ToolCallBlock,
    ToolResultBlock,
    UrlSource,
)
from .errors import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    CallCancelledError,
    CircuitOpenError,
    ConfigError,
    ConflictError,
    ContentFilterError,
    ContextLengthError,
    DecodeError,
    InternalServerError,
    InvalidArgumentError,
    LiterLlmError,
    MissingKeyError,
    NoCandidateError,
    NotFoundError,
    OutputError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExhaustedError,
    RateLimitError,
    RequestTooLargeError,
    StreamInterruptedError,
    StreamNotFinishedError,
    ToolArgumentsError,
    UnprocessableEntityError,
    UnsupportedError,
)
from .layers import CacheOptions, CircuitOptions, HedgeOptions, PriceOptions
from .provider import LlmProvider
from .requests import RequestFields
from .retry import retry, retry_async
from .route import Route, RouteCandidate, RouteOptions
from .secret import Secret
from .streams import AsyncLlmStream, LlmStream
from .telemetry.options import Telemetry
from .types import (
    Adjustment,
    Attempt,
    Cost,
    CostPart,
    DeploymentState,
    Facts,
    FinishReason,
    LlmChunk,
    LlmRequest,
    LlmResponse,
    ParsedResponse,
    Timing,
    ToolCallDelta,
    Usage,
)

if TYPE_CHECKING:
    from .prometheus import PrometheusExporter
    from .router import (
        Budget,
        BudgetSpend,
        BudgetWindow,
        Canary,
        CanaryArm,
        CanaryArms,
        CanaryEvidence,
        CanaryReport,
        Candidate,
        DeploymentStatistics,
        Endpoint,
        Guard,
        Heatmap,
        HeatmapCell,
        HeatmapRow,
        Mirror,
        MirrorReport,
        Policy,
        PolicyFailures,
        PolicyRequest,
        ProviderRouter,
        RouterStatistics,
        Spend,
        SpendOf,
    )
    from .telemetry.hooks import CallHook
    from .telemetry.record import CallAttempt, CallError, CallGaps, CallParameters, CallRecord, CallRoute

__all__ = [
    "APIConnectionError",
    "APITimeoutError",
    "Adjustment",
    "AsyncLiterLLM",
    "AsyncLlmStream",
    "Attempt",
    "AudioBlock",
    "AuthenticationError",
    "BadRequestError",
    "Base64Source",
    "Budget",
    "BudgetExceededError",
    "BudgetSpend",
    "BudgetWindow",
    "CacheOptions",
    "CallAttempt",
    "CallCancelledError",
    "CallError",
    "CallGaps",
    "CallHook",
    "CallParameters",
    "CallRecord",
    "CallRoute",
    "Canary",
    "CanaryArm",
    "CanaryArms",
    "CanaryEvidence",
    "CanaryReport",
    "Candidate",
    "Catalog",
    "CircuitOpenError",
    "CircuitOptions",
    "ConfigError",
    "ConflictError",
    "ContentBlock",
    "ContentFilterError",
    "ContextLengthError",
    "Cost",
    "CostPart",
    "DecodeError",
    "DeploymentState",
    "DeploymentStatistics",
    "DocumentBlock",
    "Endpoint",
    "Facts",
    "FileSource",
    "FinishReason",
    "Guard",
    "Heatmap",
    "HeatmapCell",
    "HeatmapRow",
    "HedgeOptions",
    "ImageBlock",
    "InternalServerError",
    "InvalidArgumentError",
    "LiterLLM",
    "LiterLlmError",
    "LlmChunk",
    "LlmMessage",
    "LlmProvider",
    "LlmRequest",
    "LlmResponse",
    "LlmStream",
    "Mirror",
    "MirrorReport",
    "MissingKeyError",
    "ModelInfo",
    "ModelLimits",
    "NoCandidateError",
    "NotFoundError",
    "OpaqueBlock",
    "OtherSource",
    "OutputError",
    "OverloadedError",
    "ParsedResponse",
    "PermissionDeniedError",
    "Policy",
    "PolicyFailures",
    "PolicyRequest",
    "PriceOptions",
    "PrometheusExporter",
    "ProviderConfig",
    "ProviderRouter",
    "QuotaExhaustedError",
    "RateLimitError",
    "ReasoningBlock",
    "RefusalBlock",
    "RequestFields",
    "RequestTooLargeError",
    "Role",
    "Route",
    "RouteCandidate",
    "RouteOptions",
    "RouterStatistics",
    "Secret",
    "Spend",
    "SpendOf",
    "StreamInterruptedError",
    "StreamNotFinishedError",
    "Telemetry",
    "TextBlock",
    "TextSource",
    "Timing",
    "ToolArgumentsError",
    "ToolCall",
    "ToolCallBlock",
    "ToolCallDelta",
    "ToolResultBlock",
    "UnprocessableEntityError",
    "UnsupportedError",
    "UrlSource",
    "Usage",
    "__version__",
    "retry",
    "retry_async",
]


#: Records of calls belong to who has a hook for them.
_OF_RECORDS = frozenset({"CallAttempt", "CallError", "CallGaps", "CallParameters", "CallRecord", "CallRoute"})


def __getattr__(name: str) -> object:
    # What is not here yet belongs to routers or to metrics; who has neither does not pay for their import.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "CallHook":
        from .telemetry.hooks import CallHook

        found = CallHook
    elif name in _OF_RECORDS:
        from .telemetry.record import exported as recorded

        found = recorded(name)
    elif name == "PrometheusExporter":
        from .prometheus import exported

        found = exported(name)
    else:
        from .router import exported

        found = exported(name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


forks.register()
