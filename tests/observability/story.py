"""One provider becomes ten times as slow: the whole story, live, as operators see it.

A router over three simulated providers is under load. Prometheus scrapes its exporter, an OTLP receiver takes
its traces. What they have recorded is the story; pictures are drawn from that. As a program:
`python -m tests.observability.story --pictures docs/pictures` plays it, and `--redraw docs/pictures` draws
the pictures again from what was recorded there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from liter_llm import AsyncLiterLLM, LiterLlmError, PrometheusExporter, ProviderRouter, Telemetry
from liter_llm.testing import Simulator
from tests.stalls import Stalls
from tests.telemetry.receiver import Receiver, Span

from .asking import filled, quick_rules
from .conftest import DEPLOY, Prometheus, load, program, prometheus, steady
from .expected import AFTER

# As long as the longest look back of the rules, and a little for the start.
CALM = 18.0
# Provider -> model, region, milliseconds to an answer. The first one is the fastest, so it gets most calls. A
# call that is saved is left the time of the next one and a quarter, which is for busy machines: 250 ms.
PROVIDERS = {
    "openai": ("gpt-4o-mini", "us", 240),
    "azure": ("gpt-4o", "eu", 1000),
    "anthropic": ("claude-sonnet-4-5", "us", 1100),
}
SLOW, TENFOLD = "openai", 10
CALLS_A_SECOND = 20
# Every fourth call has a user waiting for it, too short a time for the slow provider.
PATIENCE, IMPATIENT_EVERY = 2.2, 4
# The pictures begin so many seconds before the fault.
BEFORE = 9.0


def deployment(provider: str) -> str:
    return f"{provider}/{PROVIDERS[provider][0]}"


@dataclass(frozen=True)
class Call:
    """What became of a call, as its caller saw it."""

    ended: float
    seconds: float
    deployment: str
    error: str = ""


@dataclass
class Load:
    """Calls at a steady pace in a thread of its own, until it is told to stop."""

    router: ProviderRouter
    telemetry: Telemetry
    calls: list[Call] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    async def _one(self, client: AsyncLiterLLM, number: int) -> None:
        began = time.monotonic()
        impatient = number % IMPATIENT_EVERY == 0
        error = name = ""
        try:
            answer = await client.generate(
                "How do I change my address?", max_tokens=40, **({"timeout": PATIENCE} if impatient else {})
            )
            name = answer.attempts[-1].deployment
        except LiterLlmError as failure:
            error = failure.kind
        self.calls.append(Call(time.time(), time.monotonic() - began, name, error))

    async def _run(self) -> None:
        client = AsyncLiterLLM(self.router, telemetry=self.telemetry)
        running: set[asyncio.Task[None]] = set()
        began, number = time.monotonic(), 0
        while not self._stop.is_set():
            task = asyncio.create_task(self._one(client, number))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1
            await asyncio.sleep(max(0.0, began + number / CALLS_A_SECOND - time.monotonic()))
        await asyncio.gather(*running)

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=asyncio.run, args=(self._run(),), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(30)


@dataclass(frozen=True)
class Story:
    """What was recorded: everything that tests and pictures are made of."""

    prometheus: Prometheus
    #: The moment of the fault, and those at which to ask what was before it and after it.
    fault: float
    calls: list[Call]
    roots: list[Span]

    @property
    def calm(self) -> float:
        return self.fault - 0.5

    @property
    def asked(self) -> float:
        return self.fault + AFTER

    def curve(self, query: str) -> list[dict[str, Any]]:
        """A panel's query over the time of the pictures, once a second."""
        return self.prometheus.get(
            "query_range", query=filled(query), start=self.fault - BEFORE, end=self.asked, step=1
        )["result"]

    def rescues(self) -> list[Span]:
        """The calls that were begun at the slow provider and answered by another one."""
        return [
            root
            for root in self.roots
            if root.start / 1e9 > self.fault
            and "error.type" not in root.attributes
            and len(root.children) == 2
            and root.children[0].attributes["liter_llm.deployment"] == deployment(SLOW)
            and root.children[0].attributes.get("error.type") == "timeout"
        ]

    def rescued(self) -> Span:
        """The first of them."""
        return min(self.rescues(), key=lambda root: root.start)

    def recorded(self) -> dict[str, Any]:
        """All that the pictures need."""
        pictures = program("pictures")
        return {
            "fault": round(self.fault, 3),
            "curves": {name: self.curve(pictures.query(name)) for name in pictures.PANELS},
            "trace": trace_of(self.rescued()),
        }


#: What the picture of a trace says beside the bars.
SAID = (
    "liter_llm.policy",
    "liter_llm.deployment",
    "http.response.status_code",
    "error.type",
    "liter_llm.attempt.cause",
    "liter_llm.fallback.reasons",
)


def trace_of(root: Span) -> list[dict[str, Any]]:
    """A span and its children as the picture wants them: seconds from the beginning of the first."""
    return [
        {
            "name": span.name,
            "start": round((span.start - root.start) / 1e9, 4),
            "end": round((span.end - root.start) / 1e9, 4),
            "failed": span.status == 2,
            "inside": span is not root,
            "words": {name: span.attributes[name] for name in SAID if name in span.attributes},
        }
        for span in [root, *root.children]
    ]


def delays(factor: int = 1) -> list[dict[str, Any]]:
    return [
        {
            "match": {"provider": provider},
            "fault": {"delay_ms": milliseconds * (factor if provider == SLOW else 1)},
        }
        for provider, (_, _, milliseconds) in PROVIDERS.items()
    ]


@contextmanager
def played(folder: Path) -> Iterator[Story]:
    """Plays the story, which takes half a minute; Prometheus answers until the end of the block."""
    with steady(lambda number: _played(folder / str(number))) as story:
        yield story


@contextmanager
def _played(folder: Path) -> Iterator[tuple[Story, Stalls]]:
    folder.mkdir()
    rules = [quick_rules(load(path)) for path in sorted((DEPLOY / "rules").glob("*.yml"))]
    receiver = Receiver()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces")))
    try:
        with Simulator(rules=delays(), log_requests=False) as sim:
            router = ProviderRouter(
                [
                    sim.config(provider, model=model, name=deployment(provider), region=region)
                    for provider, (model, region, _) in PROVIDERS.items()
                ],
                policy="latency",
            )
            traffic = Load(router, Telemetry(tracer_provider=tracers))
            with (
                PrometheusExporter(router) as exporter,
                prometheus(folder, [f"127.0.0.1:{exporter.serve()}"], rules) as running,
            ):
                with traffic.running(), Stalls() as stalls:
                    time.sleep(CALM)
                    sim.rules = delays(TENFOLD)
                    fault = time.time()
                    time.sleep(AFTER + 1.5)
                tracers.force_flush()
                yield Story(running, fault, traffic.calls, receiver.roots()), stalls
    finally:
        tracers.shutdown()
        receiver.close()


RECORDED = "story.json"


def draw(folder: Path) -> dict[str, str]:
    """File name -> picture, from what was recorded in the folder."""
    pictures = program("pictures")
    recorded = json.loads((folder / RECORDED).read_text(encoding="utf-8"))
    marks = {recorded["fault"]: f"{SLOW} becomes ten times as slow"}
    drawn = {
        f"{name}.svg": pictures.picture(name, curve, marks) for name, curve in recorded["curves"].items()
    }
    drawn["trace.svg"] = pictures.waterfall("A call that was begun at the slow provider", recorded["trace"])
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--pictures", type=Path, help="play the story and put record and pictures here")
    which.add_argument("--redraw", type=Path, help="draw the pictures again from the record that is here")
    given = parser.parse_args()
    folder = given.pictures or given.redraw
    if given.pictures:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as place, played(Path(place)) as story:
            text = json.dumps(story.recorded(), separators=(",", ":"))
        (folder / RECORDED).write_text(text + "\n", encoding="utf-8")
    for name, svg in draw(folder).items():
        (folder / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
