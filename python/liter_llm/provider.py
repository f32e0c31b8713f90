"""The base class of providers written in Python."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Iterable

from ._native import Engine
from .telemetry.observer import Observer
from .types import LlmChunk, LlmRequest, LlmResponse


class LlmProvider:
    """A provider of your own: subclass it and implement `generate`.

    An instance goes wherever a configuration goes. Both methods may be plain functions or coroutines
    (`async def`), and `stream` a generator of either kind.

    Example:
        >>> class Echo(LlmProvider):
        ...     name = "echo"
        ...     def generate(self, request):
        ...         return request.prompt_text

    Attributes:
        name: The provider's name, for errors and telemetry.

    In a router a provider may also say of itself what a `ProviderConfig` says of a deployment: attributes
    named `model`, `region`, `tags`, `weight`, `priority`, `supports`, `context` and `price` are read when the
    router is made.
    """

    name: str = "python"
    #: The engine behind a provider that is the engine's own: a router.
    _liter_llm_engine: Engine | None = None
    #: And what observes its calls.
    _liter_llm_observer: Observer | None = None

    def generate(self, request: LlmRequest) -> LlmResponse | str | Awaitable[LlmResponse | str]:
        """Answers a request: a response, or only its text.

        Raises:
            LiterLlmError: Passed on as it is; anything else raised here becomes the `__cause__` of one.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement generate()")

    def stream(
        self,
        request: LlmRequest,  # noqa: ARG002 - for subclasses
    ) -> (
        Iterable[LlmChunk | str] | AsyncIterable[LlmChunk | str] | Awaitable[Iterable[LlmChunk | str]] | None
    ):
        """Answers a request piece by piece: chunks, or only their texts.

        The default makes the whole answer first.
        """
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"
