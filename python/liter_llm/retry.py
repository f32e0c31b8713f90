"""Trying again: wraps any operation, asks its error whether and when, and waits as the engine does.

The decision is the engine's own (`_native.retry_wait`), so that nothing here can drift from it; only the
waiting and the deadline are Python's.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial, update_wrapper, wraps
from time import monotonic, sleep
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypedDict, TypeVar, Unpack, overload

from ._native import retry_wait
from .errors import APITimeoutError, LiterLlmError

if TYPE_CHECKING:
    from .types import Attempt

__all__ = ["AsyncRetry", "RetryOptions", "retry", "retry_async"]

P = ParamSpec("P")
T = TypeVar("T")

#: Exceptions that are repeated although they say nothing of it.
RetryOn = type[Exception] | tuple[type[Exception], ...]


#: The flag of a code object whose function is `async def`.
_COROUTINE = 0x80


class RetryOptions(TypedDict, total=False):
    """The options of `retry_async` and `retry`.

    Attributes:
        max_retries: Repeats after the first try; default 3.
        timeout: Seconds for everything, waits included; default none. `retry_async` cancels an operation
            under way; `retry` ends waits and repeats, but cannot cut an operation short. A wait that does not
            fit is not begun: the last error is raised at once.
        retry_on: Exceptions to repeat that say nothing of it themselves; default none.
        base: Upper bound of the first wait in seconds, default 0.5; doubles with each repeat. Waits are drawn
            evenly between zero and the bound.
        cap: Upper bound of every such wait, in seconds; default 8.
        longest_retry_after: The longest `retry_after` that is waited for, in seconds, default 60; an error
            with a longer one is raised at once.
    """

    max_retries: int
    timeout: float | None
    retry_on: RetryOn
    base: float
    cap: float
    longest_retry_after: float


class _Options(NamedTuple):
    """What a helper was called with."""

    max_retries: int = 3
    timeout: float | None = None
    retry_on: RetryOn = ()
    base: float = 0.5
    cap: float = 8.0
    longest_retry_after: float = 60.0

    def checked(self) -> _Options:
        if not 0 <= self.max_retries < 2**32:
            raise ValueError(f"`max_retries`: {self.max_retries} is not a number of repeats")
        if self.timeout is not None and not 0 < self.timeout < float("inf"):
            raise ValueError(f"`timeout`: {self.timeout} is not a positive number of seconds")
        for name in ("base", "cap", "longest_retry_after"):
            if not 0 <= (value := getattr(self, name)) < float("inf"):
                raise ValueError(f"`{name}`: {value} is not a number of seconds")
        kinds: tuple[Any, ...] = self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise ValueError(
                f"`retry_on`: {self.retry_on!r} is neither an exception class nor a tuple of them"
            )
        return self


class _Run:
    """One operation under way: its deadline, and what has failed so far."""

    def __init__(self, options: _Options) -> None:
        self._options = options
        self._deadline = None if options.timeout is None else monotonic() + options.timeout
        self._repeats = 0
        self._attempts: list[Attempt] = []
        self.last: Exception | None = None

    def left(self) -> float | None:
        return None if self._deadline is None else self._deadline - monotonic()

    def wait(self, error: Exception) -> float | None:
        """The seconds until the next try; `None` when `error` is the outcome."""
        options = self._options
        retryable, retry_after = _asked(error)
        wait = retry_wait(
            self._repeats,
            retryable or isinstance(error, options.retry_on),
            retry_after,
            self.left(),
            options.max_retries,
            options.base,
            options.cap,
            options.longest_retry_after,
        )
        if isinstance(error, LiterLlmError):
            # The error that comes out tells of all that was sent.
            self._attempts.extend(error.attempts)
            if wait is None:
                error.attempts = self._attempts
        if wait is None and self._repeats:
            error.add_note(f"failed {self._repeats + 1} times; not tried again")
        self._repeats += 1
        self.last = error
        return wait

    def timed_out(self) -> APITimeoutError:
        """The error of an operation whose time is up; the caller raises it from `last`."""
        text = f"no success within the limit of {self._options.timeout} s"
        return APITimeoutError(text, phase="total", attempts=self._attempts)


def _asked(error: Exception) -> tuple[bool, float | None]:
    """Whether `error` says that it may be repeated, and after how many seconds."""
    retry_after: object = getattr(error, "retry_after", None)
    seconds = float(retry_after) if isinstance(retry_after, int | float) else None
    return getattr(error, "retryable", False) is True, seconds


class _TimeUpError(Exception):
    """The deadline came while the operation ran."""


async def _within(seconds: float | None, operation: Callable[[], Awaitable[T]], trio: Any) -> T:
    """Runs the operation on whichever event loop there is; `trio` is its module where it runs the show."""
    if seconds is None:
        return await operation()
    if trio is not None:
        with trio.move_on_after(max(seconds, 0)):
            return await operation()
        raise _TimeUpError
    import asyncio

    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await operation()
    except TimeoutError:
        if limit.expired():
            raise _TimeUpError from None
        raise


def _trio() -> Any:
    """The module `trio` when its event loop is the one that runs, else `None`."""
    trio = sys.modules.get("trio")
    return trio if trio is not None and trio.lowlevel.in_trio_run() else None


async def _asleep(seconds: float, trio: Any) -> None:
    if trio is not None:
        await trio.sleep(seconds)
        return
    import asyncio

    await asyncio.sleep(seconds)


async def _async(operation: Callable[[], Awaitable[T]], options: _Options) -> T:
    run = _Run(options)
    trio = _trio()
    while True:
        try:
            return await _within(run.left(), operation, trio)
        except _TimeUpError:
            raise run.timed_out() from run.last
        except Exception as error:
            wait = run.wait(error)
            if wait is None:
                raise
        await _asleep(wait, trio)


def _sync(operation: Callable[[], T], options: _Options) -> T:
    run = _Run(options)
    while True:
        try:
            return operation()
        except Exception as error:
            wait = run.wait(error)
            if wait is None:
                raise
        sleep(wait)


class AsyncRetry(Generic[P, T]):
    """What `retry_async` gives: awaited, it runs its operation; called, it is the decorated function.

    Each `await` and each call runs the operation anew.
    """

    __name__: str
    __wrapped__: Callable[P, Awaitable[T]]

    def __init__(self, operation: Callable[P, Awaitable[T]], options: _Options) -> None:
        self._operation = operation
        self._options = options
        update_wrapper(self, operation)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Runs the decorated function; the result is to be awaited."""
        return _async(lambda: self._operation(*args, **kwargs), self._options)

    def __await__(self: AsyncRetry[[], T]) -> Generator[Any, Any, T]:
        return _async(self._operation, self._options).__await__()

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Coroutine[Any, Any, T]]:
        # A decorated method: bound like any other.
        return self if instance is None else MethodType(self, instance)


@overload
def retry_async(
    operation: Callable[P, Awaitable[T]], /, **options: Unpack[RetryOptions]
) -> AsyncRetry[P, T]: ...
@overload
def retry_async(
    **options: Unpack[RetryOptions],
) -> Callable[[Callable[P, Awaitable[T]]], AsyncRetry[P, T]]: ...
def retry_async(
    operation: Callable[..., Awaitable[Any]] | None = None, /, **options: Unpack[RetryOptions]
) -> Any:
    """Runs an operation, and repeats it as long as its error says that this may help.

    Awaited with an operation, `await retry_async(operation, max_retries=3)`, or as a decorator,
    `@retry_async` and `@retry_async(max_retries=5)`. It works under asyncio and trio. The error is asked
    whether it may be repeated (`retryable`) and when (`retry_after`); it is never repeated sooner.
    Cancellation passes through. A client's calls repeat by themselves: around them let only one of the two
    do it (`max_retries=0` for the call).

    Args:
        operation: Takes no arguments, or is the decorated function.
        **options: See `RetryOptions`.

    Raises:
        APITimeoutError: `timeout` ran out; its cause is the last error, `attempts` tells what was sent.
        ValueError: An option is out of range.
        TypeError: An option is unknown.
    """
    given = _options(**options)
    if operation is None:
        return partial(_decorate_async, given)
    return AsyncRetry(operation, given)


def _decorate_async(options: _Options, function: Callable[P, Awaitable[T]]) -> AsyncRetry[P, T]:
    return AsyncRetry(function, options)


@overload
def retry(operation: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def retry(operation: Callable[[], T], /, **options: Unpack[RetryOptions]) -> T: ...
@overload
def retry(**options: Unpack[RetryOptions]) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def retry(operation: Callable[..., Any] | None = None, /, **options: Unpack[RetryOptions]) -> Any:
    """The sync twin of `retry_async`.

    With an operation and an option, `retry(operation, max_retries=3)`, it runs the operation. As a decorator
    it is `@retry` or `@retry(max_retries=5)`; so `retry(operation)` alone gives a function.

    Args:
        operation: Takes no arguments, or is the decorated function; not a coroutine function.
        **options: See `RetryOptions`.

    Raises:
        ValueError: An option is out of range.
        TypeError: An option is unknown, or the operation is a coroutine function.
    """
    given = _options(**options)
    if operation is None:
        return partial(_decorate, given)
    return _sync(_plain(operation), given) if options else _decorate(given, operation)


def _options(**options: Unpack[RetryOptions]) -> _Options:
    for name in options:
        if name not in _Options._fields:
            raise TypeError(f"`{name}` is not an option; there are {', '.join(_Options._fields)}")
    return _Options(**options).checked()


def _plain(function: Callable[P, T]) -> Callable[P, T]:
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
    if flags & _COROUTINE:
        raise TypeError(
            f"{getattr(function, '__qualname__', function)} is a coroutine function: use retry_async"
        )
    return function


def _decorate(options: _Options, function: Callable[P, T]) -> Callable[P, T]:
    _plain(function)

    @wraps(function)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
        return _sync(lambda: function(*args, **kwargs), options)

    return repeated
