"""The clients: one call, any provider; sync and async share everything but the waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Never, Self, TypeVar, Unpack, cast, overload

import msgspec

from ._native import Engine, EngineError
from .config import ConfigDocument, ProviderConfig
from .errors import ConfigError, from_engine, told
from .exact import decoder
from .from_file import FromFile
from .requests import Prompt, RequestFields, encode_request
from .streams import AsyncLlmStream, LlmStream
from .telemetry.observer import Observer
from .telemetry.options import Telemetry, checked
from .types import DeploymentState, LlmResponse, ParsedResponse

if TYPE_CHECKING:
    from types import TracebackType

    from .config_file import Loaded
    from .provider import LlmProvider
    from .structured import Output
    from .telemetry.hooks import CallHook
    from .telemetry.record import CallRecord

T = TypeVar("T")

_decode_response = decoder(LlmResponse)


def _response(body: bytes, raw: bytes) -> LlmResponse:
    response = _decode_response(body)
    beside: dict[str, Any] = response.__dict__  # pyright: ignore[reportAssignmentType]
    beside["_raw"] = raw
    return response


def _streamed(body: bytes) -> LlmResponse:
    return _decode_response(body)


class _Client(FromFile):
    """What both clients share: configuration, engine, how a request is written and an answer read."""

    _document: ConfigDocument | None = None
    #: What answers instead of a configured deployment: a provider written in Python, or a router.
    _provider: LlmProvider | None = None
    _engine: Engine
    _observer: Observer

    def __init__(
        self,
        config: ProviderConfig | str | LlmProvider,
        *,
        telemetry: Telemetry | None = None,
        **unknown: Never,
    ) -> None:
        for option in list(unknown):
            # Tools that show the variables of a traceback are not to show a key.
            unknown.clear()
            raise ConfigError(
                f"`{option}` belongs to the configuration: "
                f"{type(self).__name__}(ProviderConfig(provider, model, {option}=...))",
                param=option,
            )
        if isinstance(config, str):
            config = ProviderConfig.from_string(config)
        if telemetry is not None:
            checked(telemetry)
        if isinstance(config, ProviderConfig):
            self._set_up(ConfigDocument(config), telemetry)
            return
        from .provider import LlmProvider

        if not isinstance(config, LlmProvider):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f"`config`: must be a ProviderConfig, a text like `openai/gpt-4o-mini` or an LlmProvider, "
                f"not {type(config).__name__}",
                param="config",
            )
        self._provider = config
        engine = config._liter_llm_engine  # pyright: ignore[reportPrivateUsage]
        if engine is not None:
            self._engine = engine.share()
            inherited = config._liter_llm_observer  # pyright: ignore[reportPrivateUsage]
            self._observer = Observer(self._engine, telemetry, inherited=inherited)
            return
        from .host import ProviderHost

        host = ProviderHost(config)
        self._engine = Engine(msgspec.json.encode({"deployment": {"provider": host.name}}), {0: host})
        self._observer = Observer(self._engine, telemetry)

    def _set_up(self, document: ConfigDocument, telemetry: Telemetry | None) -> None:
        self._document = document
        try:
            self._engine = Engine(document.border())
        except EngineError as error:
            failure = from_engine(error)
            raise failure from failure.__cause__
        self._observer = Observer(self._engine, telemetry)

    @classmethod
    def _over_file(cls, loaded: Loaded, *, watch: bool) -> Self:
        from .config_live import over_file

        client = cls.__new__(cls)
        client._engine, client._file = over_file(loaded, watch=watch)
        client._observer = Observer(client._engine, live=client._file)
        return client

    def _no_file(self) -> str:
        remedy = "there is nothing to reload"
        if getattr(self._provider, "config_error", self) is not self:
            remedy = "reload its router"
        return f"this client was not made from a file: {remedy}"

    @property
    def config(self) -> ProviderConfig | None:
        """The configuration; `None` for several deployments and for a provider written in Python."""
        if self._file is not None:
            loaded = self._file.loaded
            return loaded.deployments[0] if loaded.single else None
        return None if self._document is None else self._document.deployment

    @property
    def telemetry(self) -> Telemetry:
        """What is recorded of this client's calls; may be set, for the calls to come."""
        return self._observer.telemetry

    @telemetry.setter
    def telemetry(self, telemetry: Telemetry) -> None:
        self._observer.give(telemetry)

    def on_call(self, hook: Callable[[CallRecord], object], *, queue: int = 1000) -> CallHook:
        """Has `hook` hear of every call that begins from now on, when it is over, in a thread of its own.

        It can neither slow a call nor break one: when `queue` records are waiting, further ones are dropped
        and counted (`.dropped`); when it raises, that is logged once for each class and it goes on. A client
        of a router hears of all the router's calls.

        Args:
            hook: Gets a `CallRecord`.
            queue: How many records may wait for it.

        Returns:
            What ends it: `.close()`; `.dropped` tells how many records were.

        Raises:
            InvalidArgumentError: `queue` is not a positive number, or `hook` no function.
            CallCancelledError: The client is closed.
        """
        return self._observer.on_call(hook, queue)

    def _end(self) -> None:
        if self._file is not None:
            self._file.stop()
        self._observer.close()
        self._engine.close()

    def describe(self) -> dict[str, Any]:
        """Where calls go: provider, model, base URL, where the key comes from. No secrets."""
        facts: dict[str, Any] = msgspec.json.decode(told(self._engine.describe))
        return facts

    def state(self) -> list[DeploymentState]:
        """How the deployment is doing: circuit, cooldown, calls in flight and in line.

        One entry, and one more for each other model or key that calls have named.
        """
        return msgspec.json.decode(told(self._engine.state), type=list[DeploymentState])

    def clear_cache(self) -> None:
        """Forgets all cached answers; those on their way are kept when they arrive.

        Raises:
            CallCancelledError: The client is closed.
        """
        told(self._engine.clear_cache)

    def __repr__(self) -> str:
        config = self.config
        if config is not None:
            shown = "/".join(part for part in (config.provider, config.model) if part)
        else:
            shown = repr(self._provider) if self._file is None else self._file.loaded.path
        return f"{type(self).__name__}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._file is not None:
            return (
                _rebuild_from_file,
                (type(self), self._file.loaded, self._file.watched, self._observer.given),
            )
        return (_rebuild, (type(self), self._document, self._provider, self._observer.given))

    @staticmethod
    def _output(output: object, fields: dict[str, Any]) -> Output:
        from .structured import output_for, with_output

        shape = output_for(output)
        with_output(shape, fields)
        return shape

    def _finisher(self, shape: Output | None) -> Callable[[bytes], Any]:
        if shape is None:
            return _streamed
        return lambda body: shape.read(body, b"")


def _rebuild(
    cls: type[_Client],
    document: ConfigDocument | None,
    provider: LlmProvider | None,
    telemetry: Telemetry | None = None,
) -> _Client:
    if document is None:
        return cls(cast("LlmProvider", provider), telemetry=telemetry)
    client = cls.__new__(cls)
    client._set_up(document, telemetry)  # pyright: ignore[reportPrivateUsage]
    return client


def _rebuild_from_file(
    cls: type[_Client],
    loaded: Loaded,
    watch: bool,  # noqa: FBT001 - of a pickle
    telemetry: Telemetry | None = None,
) -> _Client:
    client = cls._over_file(loaded, watch=watch)  # pyright: ignore[reportPrivateUsage]
    if telemetry is not None:
        client.telemetry = telemetry
    return client


class LiterLLM(_Client):
    """A client for one deployment, or for a router over several.

    Threads may share it; a forked process may go on using it. `close()` is polite, not required.

    Args:
        config: A `ProviderConfig`; or `provider/model`, with key and base URL from the environment; or a
            `ProviderRouter`; or an `LlmProvider` of your own.
        telemetry: What the host's OpenTelemetry is given of its calls; default what the router has, else
            everything but prompts and answers.

    Raises:
        ConfigError: The configuration cannot work; the message names the option and the remedy.
    """

    @overload
    def generate(self, prompt: Prompt | None = None, **fields: Unpack[RequestFields]) -> LlmResponse: ...
    @overload
    def generate(
        self, prompt: Prompt | None = None, *, output: type[T], **fields: Unpack[RequestFields]
    ) -> ParsedResponse[T]: ...
    def generate(self, prompt: Prompt | None = None, *, output: Any = None, **fields: Any) -> LlmResponse:
        """Asks for an answer and waits for it.

        Args:
            prompt: The question as text (or texts and blocks); instead of `messages`.
            output: A pydantic model, dataclass, TypedDict or msgspec Struct the answer is to be:
                `response.parsed`.
            **fields: See `RequestFields`: messages, system, max_tokens, temperature, tools, timeout, ...

        Raises:
            LiterLlmError: See its subclasses. What is refused before sending is also a `ValueError`.
        """
        shape = None if output is None else self._output(output, fields)
        request = encode_request(prompt, fields)
        observed = self._observer.begin(request, fields)
        try:
            if observed is None:
                body, raw = self._engine.generate(request)
            else:
                body, raw = observed.generate(self._engine)
        except EngineError as error:
            failure = from_engine(error)
            raise failure from failure.__cause__
        return _response(body, raw) if shape is None else shape.read(body, raw)

    @overload
    def stream(
        self, prompt: Prompt | None = None, **fields: Unpack[RequestFields]
    ) -> LlmStream[LlmResponse]: ...
    @overload
    def stream(
        self, prompt: Prompt | None = None, *, output: type[T], **fields: Unpack[RequestFields]
    ) -> LlmStream[ParsedResponse[T]]: ...
    def stream(self, prompt: Prompt | None = None, *, output: Any = None, **fields: Any) -> LlmStream[Any]:
        """Asks for an answer piece by piece. Takes the same arguments as `generate`.

        The stream is an iterator of chunks and a context manager; errors of the call are raised while
        reading it.
        """
        shape = None if output is None else self._output(output, fields)
        request = encode_request(prompt, fields)
        observed = self._observer.begin(request, fields, streamed=True)
        try:
            native = self._engine.open(request, None) if observed is None else observed.open(self._engine)
        except EngineError as error:
            failure = from_engine(error)
            raise failure from failure.__cause__
        return LlmStream(native, self._finisher(shape), observed)

    def close(self) -> None:
        """Closes idle connections. Calls made afterwards raise `CallCancelledError`."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncLiterLLM(_Client):
    """A client for one deployment or a router, for asyncio, uvloop and trio.

    It may be used from several event loops.

    Args:
        config: A `ProviderConfig`; or `provider/model`, with key and base URL from the environment; or a
            `ProviderRouter`; or an `LlmProvider` of your own.
        telemetry: What the host's OpenTelemetry is given of its calls; default what the router has, else
            everything but prompts and answers.

    Raises:
        ConfigError: The configuration cannot work; the message names the option and the remedy.
    """

    @overload
    async def generate(
        self, prompt: Prompt | None = None, **fields: Unpack[RequestFields]
    ) -> LlmResponse: ...
    @overload
    async def generate(
        self, prompt: Prompt | None = None, *, output: type[T], **fields: Unpack[RequestFields]
    ) -> ParsedResponse[T]: ...
    async def generate(
        self, prompt: Prompt | None = None, *, output: Any = None, **fields: Any
    ) -> LlmResponse:
        """Asks for an answer. Cancelling the task closes the connection.

        Args:
            prompt: The question as text (or texts and blocks); instead of `messages`.
            output: A pydantic model, dataclass, TypedDict or msgspec Struct the answer is to be:
                `response.parsed`.
            **fields: See `RequestFields`: messages, system, max_tokens, temperature, tools, timeout, ...

        Raises:
            LiterLlmError: See its subclasses. What is refused before sending is also a `ValueError`.
        """
        shape = None if output is None else self._output(output, fields)
        request = encode_request(prompt, fields)
        loop, bridge = _current()
        future: Any = loop.create_future()
        observed = self._observer.begin(request, fields)
        recorder = None
        if observed is not None:
            request, recorder = observed.request, observed.recorder
        try:
            call = None
            try:
                call = self._engine.submit(request, bridge, future, recorder)
                body, raw = await future
            except EngineError:
                raise
            except BaseException as error:
                if call is not None:
                    bridge.cancel(call)
                if observed is not None:
                    observed.end(None, error)
                raise
        except EngineError as error:
            if observed is not None:
                observed.end(None, error)
            failure = from_engine(error)
            raise failure from failure.__cause__
        if observed is not None:
            observed.end(lambda: body)
        return _response(body, raw) if shape is None else shape.read(body, raw)

    @overload
    def stream(
        self, prompt: Prompt | None = None, **fields: Unpack[RequestFields]
    ) -> AsyncLlmStream[LlmResponse]: ...
    @overload
    def stream(
        self, prompt: Prompt | None = None, *, output: type[T], **fields: Unpack[RequestFields]
    ) -> AsyncLlmStream[ParsedResponse[T]]: ...
    def stream(
        self, prompt: Prompt | None = None, *, output: Any = None, **fields: Any
    ) -> AsyncLlmStream[Any]:
        """Asks for an answer piece by piece: no `await` here. Takes the same arguments as `generate`.

        The call is made when the reading begins; its errors are raised there.
        """
        shape = None if output is None else self._output(output, fields)
        request = encode_request(prompt, fields)
        engine = self._engine
        observed = self._observer.begin(request, fields, streamed=True)
        if observed is None:
            return AsyncLlmStream(lambda bridge: engine.open(request, bridge), self._finisher(shape))
        return AsyncLlmStream(lambda bridge: observed.open(engine, bridge), self._finisher(shape), observed)

    def close(self) -> Awaitable[None]:
        """Closes idle connections, at once; the result may be awaited. Later calls are refused."""
        self._end()
        return _Done()

    def aclose(self) -> Awaitable[None]:
        """The same as `close()`."""
        return self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()


class _Done:
    """Something to await that is done already."""

    def __await__(self) -> Generator[Never, None, None]:
        return
        yield


def _current() -> tuple[Any, Any]:
    # Replaces itself: the import is paid at the first asynchronous call.
    global _current  # noqa: PLW0603
    from .bridge import current

    _current = current
    return current()
