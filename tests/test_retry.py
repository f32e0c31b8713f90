"""The helpers that repeat any operation: their call forms, their rules, cancellation and deadlines."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import trio

from liter_llm import (
    APITimeoutError,
    LiterLLM,
    LiterLlmError,
    OverloadedError,
    RateLimitError,
    retry,
    retry_async,
)
from liter_llm._native import retry_wait
from liter_llm.testing import Simulator
from tests.stalls import on_time

Runner = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


def _asyncio(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(main())


@pytest.fixture(params=[_asyncio, trio.run], ids=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Runner:
    return request.param


class Flaky:
    """Fails with these errors, one after the other, then gives what it was called with."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self, *args: object) -> tuple[object, ...]:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return args

    async def later(self, *args: object) -> tuple[object, ...]:
        return self(*args)


def busy(retry_after: float | None = 0.001) -> OverloadedError:
    return OverloadedError("busy", retryable=True, retry_after=retry_after)


def test_call_form_and_decorators() -> None:
    flaky = Flaky(busy(), busy())
    assert retry(flaky, max_retries=3) == ()
    assert flaky.calls == 3

    bare, named = Flaky(busy()), Flaky(busy())

    @retry
    def first(number: int) -> object:
        "Its text."
        return bare(number)

    @retry(max_retries=1, base=0.001)
    def second(number: int, *, word: str) -> object:
        return named(number, word)

    assert (first(1), second(2, word="x")) == ((1,), (2, "x"))
    assert first.__name__ == "first"
    assert first.__doc__ == "Its text."
    assert (bare.calls, named.calls) == (2, 2)


def test_async_call_form_and_decorators(run: Runner) -> None:
    flaky, bare, named = Flaky(busy(), busy()), Flaky(busy()), Flaky(busy())

    @retry_async
    async def first(number: int) -> object:
        return await bare.later(number)

    class Thing:
        @retry_async(max_retries=1)
        async def second(self, number: int, *, word: str) -> object:
            return await named.later(number, word)

    async def main() -> None:
        assert await retry_async(flaky.later, max_retries=3) == ()
        assert await first(1) == (1,)
        assert await Thing().second(2, word="x") == (2, "x")

    run(main)
    assert (flaky.calls, bare.calls, named.calls) == (3, 2, 2)
    assert first.__name__ == "first"


@pytest.mark.keeps_time
@pytest.mark.parametrize(
    ("error", "options", "calls"),
    [
        (busy(), {"max_retries": 0}, 1),
        (busy(), {"max_retries": 2}, 3),
        (LiterLlmError("no", retryable=False), {"max_retries": 2}, 1),
        (ValueError("no"), {"max_retries": 2}, 1),
        (ValueError("no"), {"max_retries": 2, "retry_on": ValueError}, 3),
        (KeyError("no"), {"max_retries": 2, "retry_on": (ValueError, KeyError)}, 3),
        (RateLimitError("no", retryable=True, retry_after=61.0), {"max_retries": 2}, 1),
        (RateLimitError("no", retryable=True, retry_after=5.0), {"max_retries": 2, "timeout": 1.0}, 1),
        (RateLimitError("no", retryable=True, retry_after=1e300), {"max_retries": 2}, 1),
        (
            RateLimitError("no", retryable=True, retry_after=0.5),
            {"max_retries": 2, "longest_retry_after": 0.4},
            1,
        ),
    ],
)
def test_the_error_is_asked(run: Runner, error: Exception, options: dict[str, Any], calls: int) -> None:
    options = {"base": 0.001, **options}
    for form in ("sync", "async"):
        flaky = Flaky(*[error] * 9)
        begun = time.monotonic()

        async def main(flaky: Flaky = flaky) -> None:
            await retry_async(flaky.later, **options)

        def call(flaky: Flaky = flaky, form: str = form) -> None:
            if form == "sync":
                retry(flaky, **{"max_retries": 3, **options})
            else:
                run(main)

        with pytest.raises(type(error)) as raised:
            call()
        assert raised.value is error
        assert flaky.calls == calls
        on_time(time.monotonic() - begun < 0.5)


@pytest.mark.keeps_time
def test_never_sooner_than_allowed(run: Runner) -> None:
    async def main() -> None:
        await retry_async(Flaky(busy(0.3)).later)

    for call in (lambda: retry(Flaky(busy(0.3)), max_retries=1), lambda: run(main)):
        begun = time.monotonic()
        call()
        took = time.monotonic() - begun
        assert took >= 0.3
        on_time(took < 0.6, took)


@pytest.mark.keeps_time
def test_the_deadline_cuts_an_operation_short(run: Runner) -> None:
    first = busy()
    calls: list[int] = []

    async def operation() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise first
        if run is _asyncio:
            await asyncio.sleep(30)
        await trio.sleep(30)

    async def main() -> None:
        await retry_async(operation, timeout=0.3)

    begun = time.monotonic()
    with pytest.raises(APITimeoutError) as raised:
        run(main)
    took = time.monotonic() - begun
    assert took >= 0.3
    on_time(took < 0.6, took)
    assert raised.value.phase == "total"
    assert raised.value.__cause__ is first
    assert not raised.value.retryable
    assert len(calls) == 2


def test_the_operations_own_timeout_is_an_error_like_others(run: Runner) -> None:
    flaky = Flaky(TimeoutError("own"), TimeoutError("own"))

    async def main() -> None:
        await retry_async(flaky.later, timeout=5, max_retries=1, retry_on=TimeoutError, base=0.001)

    with pytest.raises(TimeoutError, match="own"):
        run(main)
    assert flaky.calls == 2


@pytest.mark.keeps_time
def test_cancellation_passes_through() -> None:
    flaky = Flaky(*[busy(30.0)] * 3)

    async def main() -> None:
        task = asyncio.ensure_future(retry_async(flaky.later))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begun = time.monotonic()
    asyncio.run(main())
    assert flaky.calls == 1
    on_time(time.monotonic() - begun < 1)


@pytest.mark.parametrize(
    "options",
    [{"max_retries": -1}, {"timeout": 0}, {"timeout": float("nan")}, {"base": -1.0}, {"cap": float("inf")}],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        retry(Flaky(), **{"max_retries": 1, **options})
    with pytest.raises(ValueError, match=next(iter(options))):
        retry_async(**options)


def test_waits_are_drawn_evenly() -> None:
    waits = [retry_wait(2, True, None, None, 3, 0.5, 8.0, 60.0) for _ in range(2000)]
    drawn = [wait for wait in waits if wait is not None]
    assert len(drawn) == 2000
    assert min(drawn) >= 0
    assert max(drawn) <= 2.0
    assert abs(statistics.mean(drawn) - 1.0) < 0.06
    assert max(w for _ in range(200) if (w := retry_wait(9, True, None, None, 10, 0.5, 8.0, 60.0))) <= 8.0


def test_around_a_clients_call_the_attempts_add_up(sim: Simulator) -> None:
    sim.rules = [
        {"match": {"nth": [1, 2]}, "fault": {"status": 429, "headers": {"retry-after-ms": "10"}}},
    ]
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"))
    answer = retry(lambda: client.generate(prompt="Hello.", max_retries=0), max_retries=3)
    assert answer.text
    assert len(sim.requests) == 3
    sim.rules = [{"fault": {"status": 500, "headers": {"retry-after-ms": "5"}}}]
    with pytest.raises(LiterLlmError) as raised:
        retry(lambda: client.generate(prompt="Hello.", max_retries=0), max_retries=2)
    assert [attempt.status for attempt in raised.value.attempts] == [500, 500, 500]


def test_an_option_makes_retry_run_its_operation() -> None:
    calls: list[int] = []

    def fails_once() -> str:
        calls.append(1)
        if len(calls) % 2:
            raise KeyError("no")
        return "well"

    assert retry(fails_once, retry_on=KeyError) == "well"
    assert retry(fails_once, timeout=9, retry_on=(KeyError, ValueError)) == "well"
    assert callable(retry(fails_once))


def test_retry_refuses_what_cannot_work() -> None:
    async def later() -> None: ...

    with pytest.raises(TypeError, match="use retry_async"):
        retry(later)
    with pytest.raises(TypeError, match="max_retry"):
        retry(lambda: None, max_retry=3)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="retry_on"):
        retry(lambda: None, retry_on="KeyError")  # type: ignore[call-overload]


def test_an_error_says_how_often_it_came() -> None:
    def fails() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError) as caught:
        retry(fails, max_retries=2, retry_on=KeyError, base=0)
    assert caught.value.__notes__ == ["failed 3 times; not tried again"]
