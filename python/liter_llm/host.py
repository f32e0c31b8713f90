"""Carries out the engine's calls to a provider written in Python."""

from __future__ import annotations

import inspect
import threading
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from .content import LlmMessage, ToolCallBlock
from .errors import InternalServerError, to_engine
from .types import Facts, LlmChunk, LlmRequest, LlmResponse

if TYPE_CHECKING:
    import asyncio

    from ._native import Job
    from .provider import LlmProvider

_decode_request = msgspec.json.Decoder(LlmRequest).decode
_encode = msgspec.json.Encoder().encode
#: How often a running task is compared with its caller's interest, in seconds.
_CANCEL_CHECK = 0.1


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
        import asyncio

        loop = asyncio.get_running_loop()
        task = loop.create_task(self._carry_out_async(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def check() -> None:
            if not task.done():
                if job.cancelled:
                    task.cancel()
                else:
                    loop.call_later(_CANCEL_CHECK, check)

        loop.call_later(_CANCEL_CHECK, check)

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

    async def _carry_out_async(self, job: Job) -> None:
        import asyncio

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
                    answer = await asyncio.to_thread(self.provider.generate, request)
                    if inspect.isawaitable(answer):
                        answer = await answer
                job.complete(self._answer(answer))
            elif isinstance(chunks, AsyncIterable):
                await _send_async(_Sending(job, self.name), chunks)  # pyright: ignore[reportUnknownArgumentType]
            else:
                await asyncio.to_thread(_send, _Sending(job, self.name), chunks)
        except asyncio.CancelledError:
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
        return _encode(answer if answer.provider else msgspec.structs.replace(answer, provider=self.name))


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
            self._job.chunk(_encode(LlmChunk(facts=Facts(provider=self._name))))
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
        self._job.chunk(_encode(chunk))
        return not self._job.cancelled

    def end(self) -> None:
        if not self._finished:
            self._job.chunk(_encode(LlmChunk(finish_reason="tool_calls" if self._tools else "stop")))
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
