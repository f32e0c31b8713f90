"""Carries out the engine's calls to a provider written in Python."""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from .content import LlmMessage, ToolCallBlock
from .errors import InternalServerError, to_engine
from .exact import decoder, encode
from .types import Facts, LlmChunk, LlmRequest, LlmResponse

if TYPE_CHECKING:
    import asyncio

    from ._native import Job
    from .provider import LlmProvider

_decode_request = decoder(LlmRequest)
#: Runs a function that may block in a thread: asyncio's way or trio's.
_ToThread = Callable[..., Awaitable[Any]]


class _Interest:
    """Told by the engine that nobody waits for a job any more: then its task is cancelled."""

    def __init__(self) -> None:
        self.ended = False
        self.cancel: Callable[[], object] | None = None

    def done(self) -> bool:
        return self.ended

    def set_result(self, _result: object, /) -> None:
        if self.cancel is not None:
            self.cancel()

    def set_exception(self, _exception: object, /) -> None:
        self.set_result(None)


class ProviderHost:
    """What the engine sees of a provider written in Python."""

    def __init__(self, provider: LlmProvider) -> None:
        self.provider = provider
        self.name = provider.name
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, job: Job) -> None:
        """A job of a sync call, on the calling thread; it is finished on return."""
        try:
            self._carry_out(job)
        except BaseException as error:
            job.fail(to_engine(error, self.name))
            if not isinstance(error, Exception):
                raise

    def spawn(self, job: Job) -> None:
        """A job of a sync stream: its chunks are read while it runs."""
        threading.Thread(target=self.run, args=(job,), name="liter-llm-provider", daemon=True).start()

    def start(self, job: Job) -> None:
        """A job of an asynchronous call, on the event loop's thread."""
        from .bridge import current, under_trio

        loop, bridge = current()
        interest = _Interest()
        watch = job.watch(bridge, interest)
        if watch is None:  # the caller was gone before the loop came to it
            return

        async def work() -> None:
            try:
                await self._carry_out_async(job, to_thread, cancelled)
            finally:
                interest.ended = True
                bridge.cancel(watch)

        to_thread: _ToThread
        cancelled: type[BaseException]
        if under_trio(loop):
            import trio

            to_thread, cancelled = partial(trio.to_thread.run_sync, abandon_on_cancel=True), trio.Cancelled
            interest.cancel = loop.start(work).cancel
        else:
            import asyncio

            to_thread, cancelled = asyncio.to_thread, asyncio.CancelledError
            task = asyncio.get_running_loop().create_task(work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            interest.cancel = task.cancel

    def _carry_out(self, job: Job) -> None:
        request = _decode_request(job.request)
        chunks: Any = self.provider.stream(request) if job.streaming else None
        if inspect.isawaitable(chunks):
            chunks = _run(_awaited(chunks))
        if chunks is None:
            answer: Any = self.provider.generate(request)
            if inspect.isawaitable(answer):
                answer = _run(_awaited(answer))
            job.complete(self._answer(answer))
        elif isinstance(chunks, AsyncIterable):
            _run(_send_async(_Sending(job, self.name), chunks))  # pyright: ignore[reportUnknownArgumentType]
        else:
            _send(_Sending(job, self.name), chunks)

    async def _carry_out_async(self, job: Job, to_thread: _ToThread, cancelled: type[BaseException]) -> None:
        try:
            request = _decode_request(job.request)
            chunks: Any = None
            if job.streaming:
                chunks = self.provider.stream(request)
                if inspect.isawaitable(chunks):
                    chunks = await chunks
            if chunks is None:
                answer: Any
                if inspect.iscoroutinefunction(self.provider.generate):
                    answer = await self.provider.generate(request)
                else:
                    # A plain function may block: not on the loop's thread.
                    answer = await to_thread(self.provider.generate, request)
                    if inspect.isawaitable(answer):
                        answer = await answer
                job.complete(self._answer(answer))
            elif isinstance(chunks, AsyncIterable):
                await _send_async(_Sending(job, self.name), chunks)  # pyright: ignore[reportUnknownArgumentType]
            else:
                await to_thread(_send, _Sending(job, self.name), chunks)
        except cancelled:
            with suppress(ValueError):
                job.fail(b'{"kind":"cancelled","detail":{"message":"the provider\'s task was cancelled"}}')
            raise
        except BaseException as error:
            job.fail(to_engine(error, self.name))
            if not isinstance(error, Exception):
                raise

    def _answer(self, answer: object) -> bytes:
        if isinstance(answer, str):
            answer = LlmResponse(message=LlmMessage.assistant(answer), finish_reason="stop")
        if not isinstance(answer, LlmResponse):
            raise InternalServerError(
                f"generate() returned {type(answer).__name__}, not an LlmResponse or text", provider=self.name
            )
        return encode(answer if answer.provider else msgspec.structs.replace(answer, provider=self.name))


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine to its end from sync code, whether or not this thread has a running loop."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


async def _awaited(value: Any) -> Any:
    return await value


class _Sending:
    """Chunks on their way to the engine; a stream that ends without saying why was done."""

    def __init__(self, job: Job, name: str) -> None:
        self._job = job
        self._name = name
        self._finished = False
        self._tools = False

    def send(self, chunk: object) -> bool:
        """Passes a chunk on; false when nobody waits for more."""
        if isinstance(chunk, str):
            chunk = LlmChunk(text=chunk)
        if not isinstance(chunk, LlmChunk):
            raise InternalServerError(f"stream() yielded {type(chunk).__name__}, not an LlmChunk or text")
        if self._name:
            # Known before anything else; a provider that passes another's chunks on says so later itself.
            self._job.chunk(encode(LlmChunk(facts=Facts(provider=self._name))))
            self._name = ""
        self._finished = self._finished or chunk.finish_reason is not None
        start = chunk.start
        if start is not None:
            self._tools = self._tools or isinstance(start, ToolCallBlock)
        if start is not None or chunk.refusal:
            # On the border a chunk carries one piece: the block says it all, a refusal goes on as text.
            chunk = msgspec.structs.replace(chunk)
            for name, text in (("text", "" if start else chunk.refusal), ("reasoning", ""), ("refusal", "")):
                msgspec.structs.force_setattr(chunk, name, text)
        self._job.chunk(encode(chunk))
        return not self._job.cancelled

    def end(self) -> None:
        if not self._finished:
            self._job.chunk(encode(LlmChunk(finish_reason="tool_calls" if self._tools else "stop")))
        self._job.end()


def _send(sending: _Sending, chunks: Iterable[LlmChunk | str]) -> None:
    iterator = iter(chunks)
    try:
        for chunk in iterator:
            if not sending.send(chunk):
                return
        sending.end()
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


async def _send_async(sending: _Sending, chunks: AsyncIterable[LlmChunk | str]) -> None:
    iterator: AsyncIterator[LlmChunk | str] = aiter(chunks)
    try:
        async for chunk in iterator:
            if not sending.send(chunk):
                return
        sending.end()
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
