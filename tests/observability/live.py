"""A program under load with real routers and a real exporter: calm, then a fault; and its journal.

What the queries must give is worked out from the journal: what the callers saw between the first and the last
scrape that a query looks back on. A busy machine lets callers hear of things late, so times are known as a
least, which the provider or the answer's own times tell, and a most, by the caller's clock. Each flow of
calls is there for some panels: slow answers, failures, retries, fallbacks, a circuit that opens, a line that
grows, budgets, canary, mirror, cache, a slow hook, names that fold.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from liter_llm import (
    AsyncLiterLLM,
    Budget,
    Canary,
    Guard,
    LiterLlmError,
    Mirror,
    PriceOptions,
    PrometheusExporter,
    ProviderRouter,
)
from liter_llm.testing import Simulator
from tests.stalls import Stalls

from .asking import quick_rules
from .conftest import DEPLOY, Prometheus, load, prometheus, steady
from .expected import AFTER

CALM = 18.0
# The canary breaks later than the rest, so that the query's window still has calls of it.
CANARY_AFTER = 6.0
SLOW, STEADY, LOADED = "openai/gpt-4o-mini", "azure/gpt-4o", "anthropic/claude-sonnet-4-5"
BROKEN, NARROW, DEAR = "groq/llama-3", "mistral/mistral-small", "xai/grok"
OLD, NEW, MAIN, SHADOW = "deepseek/old", "deepseek/new", "together/main", "together/shadow"
CACHED, HOOKED, NAMED = "fireworks/cached", "cerebras/hooked", "openrouter/named"
#: Deployment -> (label of the provider, region).
PLACES = {
    SLOW: ("openai", "us"),
    STEADY: ("azure.ai.openai", "eu"),
    LOADED: ("anthropic", "us"),
}
#: Deployment -> milliseconds to an answer, in the calm and in the fault.
DELAYS = {SLOW: (100, 1500), STEADY: (50, 50), LOADED: (200, 200), NARROW: (50, 1500)}
BUSY = {"status": 503, "headers": {"retry-after-ms": "20"}}
TOKEN_MS, TOKENS = 25, 6
USD_A_CALL = 1.0
DAY, TEAM = 70.0, 2.0


@dataclass(frozen=True)
class Call:
    """A call as its caller saw it."""

    ended: float
    seconds: float
    deployment: str
    error: str = ""
    #: The least that it lasted; the time that passed beyond it is the machine's as far as is known.
    least: float = 0.0
    #: Of a stream: the least and the most until its first chunk, and the same between its chunks.
    first: tuple[float, float] | None = None
    gaps: list[tuple[float, float]] = field(default_factory=list)
    #: For whom it was made.
    key: str = ""
    tokens: dict[str, int] = field(default_factory=dict)
    usd: float = 0.0
    cached: bool | None = None
    arm: str | None = None
    attempts: list[Any] = field(default_factory=list)

    @property
    def began(self) -> float:
        return self.ended - self.seconds

    def is_uncertain(self, moment: float, late: float) -> bool:
        """Whether a page made in so many seconds from a moment on may have the call and may not."""
        return self.began + self.least <= moment + late and moment < self.ended


@dataclass(frozen=True)
class Window:
    """What a range of a query covers: from one scrape to another, each made within `late` seconds."""

    first: float
    last: float
    late: float
    #: What Prometheus' `rate` multiplies the growth in between with.
    scale: float

    def has(self, moment: float) -> bool:
        return self.first < moment <= self.last


@dataclass
class Live:
    """The program, over: its Prometheus, the moments at which to ask, and what happened."""

    prometheus: Prometheus
    fault: float
    journal: list[Call]
    dropped: list[tuple[float, int]]
    page: str
    _windows: dict[tuple[float, float], Window] = field(default_factory=dict)

    @property
    def calm(self) -> float:
        return self.fault - 0.5

    @property
    def asked(self) -> float:
        return self.fault + AFTER

    def window(self, seconds: float, before: float = 0.0) -> Window:
        """So many seconds before the moment of asking, or before one earlier than that."""
        if (seconds, before) not in self._windows:
            self._windows[seconds, before] = self._window(seconds, self.asked - before)
        return self._windows[seconds, before]

    def _window(self, seconds: float, at: float) -> Window:
        def samples(metric: str) -> list[tuple[float, float]]:
            data = self.prometheus.get("query", query=f"{metric}[{seconds:g}s]", time=f"{at:.3f}")
            (series,) = data["result"]
            return [(float(moment), float(value)) for moment, value in series["values"]]

        moments = [moment for moment, _ in samples(f'liter_llm_in_flight{{liter_llm_deployment="{SLOW}"}}')]
        assert len(moments) > 2, "the machine was too slow for Prometheus to scrape"
        first, last = moments[0], moments[-1]
        step = (last - first) / (len(moments) - 1)
        # As Prometheus does: to the ends of the range where a scrape is near, else half a step beyond.
        reach = [gap if gap < 1.1 * step else step / 2 for gap in (first - (at - seconds), at - last)]
        return Window(
            first=first,
            last=last,
            late=max(took for _, took in samples("scrape_duration_seconds")),
            scale=(last - first + sum(reach)) / (last - first) / seconds,
        )

    def ended(self, seconds: float, *deployments: str, before: float = 0.0) -> list[Call]:
        """The calls that ended in the window."""
        window = self.window(seconds, before)
        return [
            call
            for call in self.journal
            if window.has(call.ended) and (not deployments or call.deployment in deployments)
        ]

    def uncertain(self, seconds: float, before: float = 0.0) -> list[Call]:
        """The calls that ended so near to the window's first or last scrape that they may be in or not."""
        window = self.window(seconds, before)
        return [
            call
            for call in self.journal
            if call.is_uncertain(window.first, window.late) or call.is_uncertain(window.last, window.late)
        ]


def ends(attempts: Sequence[Any]) -> float:
    """When the last of a call's attempts was over, in seconds from the call's beginning."""
    return attempts[-1].started + attempts[-1].duration if attempts else 0.0


def split(deployment: str) -> tuple[str, str]:
    provider, _, model = deployment.partition("/")
    return provider, model


class Program:
    """The clients and their traffic."""

    def __init__(self, sim: Simulator) -> None:
        self._sim = sim
        self.journal: list[Call] = []
        self.dropped: list[tuple[float, int]] = []
        self._fault = False
        self._stop = threading.Event()

        def config(name: str, **options: Any) -> Any:
            provider, model = split(name)
            region = PLACES.get(name, ("", None))[1]
            return sim.config(provider, model=model, name=name, region=region, **options)

        dear = PriceOptions(input=0, output=10_000)
        self.main = ProviderRouter(
            [
                config(LOADED, circuit=False),
                config(STEADY, circuit=False),
                config(SLOW),
                config(BROKEN),
                config(NARROW, concurrency=1),
                config(DEAR, price=dear),
            ],
            budget=[
                Budget(DAY, per="day", hard=False),
                Budget(TEAM, per="day", scope="key:team", hard=False),
            ],
        )
        self.canary = ProviderRouter(
            [config(OLD), config(NEW, circuit=False)], canary=Canary(NEW, 50, guard=Guard())
        )
        self.mirror = ProviderRouter([config(MAIN), config(SHADOW)], mirror=Mirror(SHADOW, 100))
        self._configs = {name: config(name) for name in (HOOKED, NAMED)}
        self._configs[CACHED] = config(CACHED, cache=True)
        self._clients: dict[str, AsyncLiterLLM] = {}
        self.ready = threading.Event()
        self.exporter = PrometheusExporter(self.main, self.canary, self.mirror)
        self.breaks(fault=False)

    def breaks(self, *, fault: bool, canary: bool = False) -> None:
        """Puts the faults in force, or their absence."""
        # While the rules change, calls count as if of the calm: those may take less.
        self._fault = False
        rules: list[dict[str, Any]] = []
        if not fault:
            # A canary that has failed once: a series that is not there yet has no rate for what begins it.
            rules.append({"match": {"provider": "deepseek", "model": "new", "nth": 20}, "fault": BUSY})
        else:
            rules += [
                {"match": {"provider": "anthropic", "body_contains": "leave"}, "fault": {"status": 413}},
                {
                    "match": {"provider": "anthropic", "body_contains": "fail", "every": 2},
                    "fault": {"status": 529},
                },
                {"match": {"provider": "azure", "body_contains": "again", "every": 2}, "fault": BUSY},
                {"match": {"provider": "groq"}, "fault": {"status": 500}},
                {"match": {"provider": "together", "model": "shadow"}, "fault": {"status": 503}},
            ]
        if canary:
            rules.append({"match": {"provider": "deepseek", "model": "new"}, "fault": {"status": 503}})
        rules += [
            {
                "match": {"provider": split(name)[0]},
                "fault": {"delay_ms": milliseconds[int(fault)]},
            }
            for name, milliseconds in DELAYS.items()
        ]
        self._sim.rules = rules
        self._fault = fault

    # ------------------------------------------------------------------------------------------ the traffic

    def _note(
        self,
        began: float,
        answer: Any,
        name: str,
        *,
        chunks: Sequence[float] = (),
        paced: Sequence[float] = (),
        key: str = "",
    ) -> None:
        """`chunks`: when they came, in seconds from the beginning; `paced`: before when each was not sent."""
        usage = answer.usage
        deployment = answer.attempts[-1].deployment if answer.attempts else name
        least = engine = ends(answer.attempts)
        first, gaps = None, []
        if chunks:
            least, first = max(least, paced[len(chunks) - 1]), (max(engine, paced[0]), chunks[0])
            gaps = [
                (max(0.0, paced[place + 1] - came), chunks[place + 1] - max(engine, sent))
                for place, (came, sent) in enumerate(zip(chunks[:-1], paced, strict=False))
            ]
        tokens = {} if usage is None else {"input": usage.input_tokens, "output": usage.output_tokens}
        self.journal.append(
            Call(
                ended=time.time(),
                seconds=time.monotonic() - began,
                deployment=deployment,
                least=least,
                first=first,
                gaps=gaps,
                key=key,
                tokens=tokens,
                usd=0.0 if answer.cost is None or answer.cost.total is None else float(answer.cost.total),
                cached=not answer.attempts if name == CACHED else None,
                arm=None if answer.route is None else answer.route.arm,
                attempts=list(answer.attempts),
            )
        )

    async def _call(self, client: AsyncLiterLLM, name: str, prompt: str, **fields: Any) -> None:
        began, key = time.monotonic(), fields.get("route", {}).get("key", "")
        try:
            self._note(began, await client.generate(prompt, **fields), name, key=key)
        except LiterLlmError as error:
            self.journal.append(
                Call(
                    time.time(),
                    time.monotonic() - began,
                    error.attempts[-1].deployment if error.attempts else name,
                    error.kind,
                    least=ends(error.attempts),
                    key=key,
                    attempts=list(error.attempts),
                )
            )

    async def _read(self, client: AsyncLiterLLM, name: str) -> None:
        began, fault = time.monotonic(), self._fault
        stream = client.stream(f"[tokens={TOKENS}]", model=name)
        chunks = [time.monotonic() - began async for chunk in stream if chunk.text]
        # The provider waits before it answers, the longer in the fault, and before each token.
        delay = DELAYS[name][int(fault and self._fault)]
        paced = [(delay + (number + 1) * TOKEN_MS) / 1000 - 0.001 for number in range(TOKENS)]
        self._note(began, stream.response, name, chunks=chunks, paced=paced)

    async def _pace(self, a_second: float, make: Callable[[int], Any], *, fault_only: bool = False) -> None:
        """Begins `make(number)` so many times a second, whether or not the ones before have ended."""
        begun, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as running:
            while not self._stop.is_set():
                if self._fault or not fault_only:
                    running.create_task(make(number))
                number += 1
                await asyncio.sleep(max(0.0, begun + number / a_second - time.monotonic()))

    async def _run(self) -> None:  # noqa: C901 - a list of flows
        clients = {name: AsyncLiterLLM(config) for name, config in self._configs.items()}
        router = AsyncLiterLLM(self.main)
        canary, mirror = AsyncLiterLLM(self.canary), AsyncLiterLLM(self.mirror)
        for client in clients.values():
            self.exporter.add(client)

        def slowly(_record: object) -> None:
            if self._fault:
                time.sleep(2)

        hook = clients[HOOKED].on_call(slowly, queue=10)

        async def note_dropped(_number: int) -> None:
            self.dropped.append((time.time(), hook.dropped))

        async def at(name: str, prompt: str = "Hello", **fields: Any) -> None:
            await self._call(router, name, prompt, model=name, **fields)

        async def named(number: int) -> None:
            # More names than have labels of their own, all in the first seconds.
            await self._call(clients[NAMED], NAMED, "Hello", model=f"name-{number}")

        async def names_of_start() -> None:
            await asyncio.sleep(2)
            for first in range(0, 80, 8):
                await asyncio.gather(*map(named, range(first, first + 8)))

        async def cached(number: int) -> None:
            await self._call(
                clients[CACHED], CACHED, "the same" if number % 2 else f"number {number}", model="cached"
            )

        self.ready.set()
        async with asyncio.TaskGroup() as flows:
            flows.create_task(names_of_start())
            for flow in (
                self._pace(6, lambda _: at(SLOW)),
                self._pace(3, lambda _: self._read(router, SLOW)),
                self._pace(4, lambda _: self._read(router, STEADY)),
                self._pace(2, lambda _: at(STEADY, "again", max_retries=3)),
                self._pace(4, lambda _: at(LOADED, "fail", max_retries=0)),
                self._pace(2, lambda _: self._call(router, LOADED, "leave", max_retries=0)),
                self._pace(2, lambda _: at(BROKEN, max_retries=0)),
                self._pace(2.5, lambda _: at(NARROW)),
                self._pace(1, lambda _: at(DEAR, "[tokens=100]")),
                self._pace(2, lambda _: at(DEAR, "[tokens=100]", route={"key": "team"}), fault_only=True),
                self._pace(20, lambda _: self._call(canary, OLD, "Hello")),
                self._pace(3, lambda _: self._call(mirror, MAIN, "Hello")),
                self._pace(4, cached),
                self._pace(6, lambda _: self._call(clients[HOOKED], HOOKED, "Hello")),
                self._pace(2, lambda number: named(1000 + number), fault_only=True),
                self._pace(5, note_dropped),
            ):
                flows.create_task(flow)

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=asyncio.run, args=(self._run(),), daemon=True)
        thread.start()
        try:
            assert self.ready.wait(10)
            yield
        finally:
            self._stop.set()
            thread.join(60)
            self.exporter.close()


@contextmanager
def lived(folder: Path) -> Iterator[Live]:
    """Runs the program, which takes half a minute; Prometheus answers until the end of the block."""
    with steady(lambda number: _lived(folder / str(number))) as live:
        yield live


@contextmanager
def _lived(folder: Path) -> Iterator[tuple[Live, Stalls]]:
    folder.mkdir()
    rules = [quick_rules(load(path)) for path in sorted((DEPLOY / "rules").glob("*.yml"))]
    with ExitStack() as stack:
        sim = stack.enter_context(Simulator(log_requests=False, token_interval_ms=TOKEN_MS))
        program = Program(sim)
        port = program.exporter.serve()
        running = stack.enter_context(prometheus(folder, [f"127.0.0.1:{port}"], rules))
        with program.running(), Stalls() as stalls:
            time.sleep(CALM)
            program.breaks(fault=True)
            fault = time.time()
            time.sleep(CANARY_AFTER)
            program.breaks(fault=True, canary=True)
            time.sleep(fault + AFTER + 1.2 - time.time())
            page = program.exporter.text()
            # The line before the narrow deployment is not waited for.
            program.breaks(fault=False)
        yield Live(running, fault, program.journal, program.dropped, page), stalls
