"""Streamed answers, sync and async."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import msgspec

from ._native import EngineError
from .content import RefusalBlock
from .errors import StreamNotFinishedError, from_engine
from .exact import decoder
from .types import LlmChunk, LlmResponse

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    from ._native import Bridge, Stream
    from .telemetry.observed import Observed, StreamEnd

R_co = TypeVar("R_co", bound=LlmResponse, covariant=True)

_decode_chunks = decoder(list[LlmChunk])
_decode_partial = decoder(LlmResponse)


class _Streamed(Generic[R_co]):
    """What both kinds of streams share: the state and the folded answer."""

    def __init__(self, finish: Callable[[bytes], R_co], observed: Observed | None) -> None:
        self._observation: StreamEnd | None = None if observed is None else observed.of_stream()
        self._native: Stream | None = None
        self._finish = finish
        self._chunks: Iterator[LlmChunk] = iter(())
        self._response: R_co | None = None
        self._refusals: set[int | None] = set()
        self._ended = False
        self._closed = False
        self._failure: BaseException | None = None

    @property
    def response(self) -> R_co:
        """The whole answer, once the stream was read to its end.

        Raises:
            StreamNotFinishedError: The end was not reached, or the stream failed; `partial` has what has
            come. OutputError: The answer does not fit the type given as `output=`.
        """
        if self._response is None:
            if not self._ended or self._native is None:
                raise self._not_finished("was not read to its end")
            body = self._native.response()
            if body is None:
                raise self._not_finished("has no whole answer")
            self._response = self._finish(body)
        return self._response

    @property
    def partial(self) -> LlmResponse:
        """The answer as far as it has come."""
        if self._native is None:
            return _decode_partial(b'{"message":{"role":"assistant","content":[]}}')
        return _decode_partial(self._native.partial())

    def close(self) -> None:
        """Closes the connection; what was read stays. Closing twice, or after the end, does nothing."""
        if not self._closed:
            self._closed = True
            if not self._ended:
                self._chunks = iter(())
            if self._native is not None:
                self._native.close()
            observation = self._observation
            if observation is not None:
                self._observation = None
                observation.end(self._native, self._failure, whole=self._ended)

    def _leave(self) -> None:
        """Closes it because nobody reads on, maybe at a word of the garbage collector."""
        observation, self._observation = self._observation, None
        self.close()
        if observation is not None:
            observation.leave(self._native)

    def _not_finished(self, why: str) -> StreamNotFinishedError:
        partial = self.partial
        if self._failure is not None:
            why = f"failed: {self._failure}"
        elif self._closed and not self._ended:
            why = "was closed before its end"
        error = StreamNotFinishedError(f"the stream {why}; `partial` has what has come", partial=partial)
        error.__cause__ = self._failure
        return error

    def _failed(self, error: EngineError) -> Exception:
        self._failure = failure = from_engine(error)
        self.close()
        return failure

    def _take(self, batch: bytes) -> LlmChunk | None:
        """Makes the batch the current one and gives its first chunk; `None` at the end."""
        if not batch:
            self._ended = True
            self.close()
            return None
        chunks = _decode_chunks(batch)
        if self._refusals or b'"refusal"' in batch:
            self._tell_refusals_apart(chunks)
        self._chunks = iter(chunks)
        return next(self._chunks)

    def _tell_refusals_apart(self, chunks: list[LlmChunk]) -> None:
        """Marks the rest of a refusal: the engine sends more of any text alike, the beginning says whose."""
        for chunk in chunks:
            if isinstance(chunk.start, RefusalBlock):
                self._refusals.add(chunk.index)
            elif chunk.start is not None:
                self._refusals.discard(chunk.index)
            elif chunk.text and chunk.index in self._refusals:
                msgspec.structs.force_setattr(chunk, "refusal", chunk.text)
                msgspec.structs.force_setattr(chunk, "text", "")


class LlmStream(_Streamed[R_co]):
    """A streamed answer: iterate over it for the chunks, then read `.response`.

    Leaving the loop early closes the connection; so does leaving a `with` block, or `close()`.
    """

    def __init__(
        self, native: Stream, finish: Callable[[bytes], R_co], observed: Observed | None = None
    ) -> None:
        super().__init__(finish, observed)
        self._native = native
        #: Held while a batch is fetched: a second reading thread must not put its batch over one half read.
        self._fetching = Lock()

    def __iter__(self) -> Iterator[LlmChunk]:
        try:
            while True:
                yield from self._chunks
                if (chunk := self._next()) is None:
                    return
                yield chunk
        finally:
            self._leave()

    def __next__(self) -> LlmChunk:
        first = self._next()
        if first is None:
            raise StopIteration
        return first

    def _next(self) -> LlmChunk | None:
        for chunk in self._chunks:
            return chunk
        with self._fetching:
            for chunk in self._chunks:  # fetched by another thread meanwhile
                return chunk
            return self._fetch()

    def _fetch(self) -> LlmChunk | None:
        native = self._native
        if self._closed or native is None:
            if self._ended:
                return None
            raise self._not_finished("was closed")
        try:
            batch = native.next()
        except EngineError as error:
            failure = self._failed(error)
            raise failure from failure.__cause__
        except BaseException:
            self.close()
            raise
        return self._take(batch)

    @property
    def text_stream(self) -> Iterator[str]:
        """The pieces of text only."""
        for chunk in self:
            if chunk.text:
                yield chunk.text

    def until_done(self) -> R_co:
        """Reads the rest and gives the whole answer."""
        for _ in self:
            pass
        return self.response

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncLlmStream(_Streamed[R_co]):
    """A streamed answer: iterate over it with `async for` for the chunks, then read `.response`.

    Leaving the loop early closes the connection; so does leaving an `async with` block, `aclose()`, or
    cancelling the task that reads.
    """

    def __init__(
        self,
        start: Callable[[Bridge], Stream],
        finish: Callable[[bytes], R_co],
        observed: Observed | None = None,
    ) -> None:
        super().__init__(finish, observed)
        self._start = start
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: asyncio.Future[bytes] | None = None

    def _open(self) -> Stream:
        from .bridge import current

        self._loop, bridge = current()
        try:
            self._native = self._start(bridge)
        except EngineError as error:
            failure = self._failed(error)
            raise failure from failure.__cause__
        return self._native

    def __aiter__(self) -> AsyncIterator[LlmChunk]:
        return _Reading(self)

    async def __anext__(self) -> LlmChunk:
        for chunk in self._chunks:
            return chunk
        if self._closed:
            if self._ended:
                raise StopAsyncIteration
            raise self._not_finished("was closed")
        if self._waiting is not None:
            raise RuntimeError("another task is waiting for the next chunk of this stream")
        native = self._native or self._open()
        assert self._loop is not None  # noqa: S101 - set by _open
        future: asyncio.Future[bytes] = self._loop.create_future()
        try:
            batch = native.next_async(future)
            if batch is None:
                self._waiting = future
                batch = await future
        except EngineError as error:
            failure = self._failed(error)
            raise failure from failure.__cause__
        except BaseException:
            self._waiting = None  # this task waits no more, and its loop may be closed
            self.close()
            raise
        finally:
            self._waiting = None
        if self._closed:
            raise self._not_finished("was closed")
        first = self._take(batch)
        if first is None:
            raise StopAsyncIteration
        return first

    def close(self) -> None:
        """Closes the connection at once; a task that waits for a chunk gets `StreamNotFinishedError`."""
        super().close()
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(b"")

    async def aclose(self) -> None:
        """Closes the connection."""
        self.close()

    @property
    async def text_stream(self) -> AsyncIterator[str]:
        """The pieces of text only."""
        async for chunk in self:
            if chunk.text:
                yield chunk.text

    async def until_done(self) -> R_co:
        """Reads the rest and gives the whole answer."""
        async for _ in self:
            pass
        return self.response

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Reading:
    """One `async for` over a stream: when the loop is left, it goes, and closes the stream at once.

    An async generator would be closed some time later, by the event loop.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: AsyncLlmStream[Any]) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LlmChunk:
        for chunk in self._stream._chunks:  # pyright: ignore[reportPrivateUsage]
            return chunk
        return await self._stream.__anext__()

    def __del__(self) -> None:
        self._stream._leave()  # pyright: ignore[reportPrivateUsage]
