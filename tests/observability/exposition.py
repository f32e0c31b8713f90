"""A program under load as Prometheus sees it: a page of metrics that follows from the time and a table.

Calm until a moment, then a fault: the first deployment becomes ten times as slow, calls go on to the second,
the third is overloaded. Every number on the page is worked out from the table, so that tests know what a
query must give. As with a real program, a series with an error appears with the first such error.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Bounds that the OpenTelemetry GenAI conventions advise.
SECONDS = tuple(0.01 * 2**power for power in range(14))
TOKENS = tuple(4.0**power for power in range(14))
MILLISECONDS = tuple(1000 * bound for bound in SECONDS)
INPUT, OUTPUT, CACHE_READ, REASONING = 600, 100, 300, 40

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Flow:
    """What happens so and so often a second, before and after the fault."""

    calm: float
    fault: float

    def total(self, before: float, after: float) -> float:
        """How often in so many seconds before the fault and after it."""
        return self.calm * before + self.fault * after

    def __add__(self, other: Flow) -> Flow:
        return Flow(self.calm + other.calm, self.fault + other.fault)

    def times(self, factor: float) -> Flow:
        return Flow(self.calm * factor, self.fault * factor)


@dataclass(frozen=True)
class Lane:
    """Calls of one deployment with one outcome, or (`attempts`) tries at its provider."""

    deployment: str
    flow: Flow
    seconds: tuple[float, float]
    error: str = ""

    @property
    def labels(self) -> dict[str, str]:
        return {"liter_llm_deployment": self.deployment} | MEMBERS[self.deployment] | error_label(self.error)


def error_label(kind: str) -> dict[str, str]:
    return {"error_type": kind} if kind else {}


SLOW, STEADY, LOADED = "openai/gpt-4o-mini", "azure/gpt-4o", "anthropic/claude-sonnet-4-5"
MEMBERS: dict[str, dict[str, str]] = {
    SLOW: {"gen_ai_provider_name": "openai", "gen_ai_request_model": "gpt-4o-mini"},
    STEADY: {"gen_ai_provider_name": "azure.ai.openai", "gen_ai_request_model": "gpt-4o"},
    LOADED: {"gen_ai_provider_name": "anthropic", "gen_ai_request_model": "claude-sonnet-4-5"},
}
REGIONS = {SLOW: "us", STEADY: "eu", LOADED: "us"}
USD = {SLOW: 0.001, STEADY: 0.01, LOADED: 0.02}
FIRST_CHUNK = {SLOW: (0.3, 3.0), STEADY: (0.6, 0.6), LOADED: (0.5, 0.5)}
CALLS = [
    Lane(SLOW, Flow(200, 80), (0.5, 5.0)),
    Lane(SLOW, Flow(0, 10), (5.0, 5.0), "timeout"),
    Lane(STEADY, Flow(100, 180), (1.0, 1.0)),
    Lane(LOADED, Flow(50, 30), (2.0, 2.0)),
    Lane(LOADED, Flow(0, 20), (0.1, 0.1), "overloaded"),
]
ATTEMPTS = [
    Lane(SLOW, Flow(200, 80), (0.5, 5.0)),
    Lane(SLOW, Flow(0, 20), (5.0, 5.0), "timeout"),
    Lane(SLOW, Flow(0, 400), (0.02, 0.02), "rate_limited"),
    Lane(STEADY, Flow(100, 180), (1.0, 1.0)),
    Lane(LOADED, Flow(50, 30), (2.0, 2.0)),
    Lane(LOADED, Flow(0, 60), (0.1, 0.1), "overloaded"),
]
RETRIES = {(SLOW, "rate_limited"): Flow(10, 100), (LOADED, "overloaded"): Flow(0, 40)}
FALLBACKS = {(SLOW, STEADY, "timeout"): Flow(0, 80), (LOADED, STEADY, "overloaded"): Flow(0, 20)}
CIRCUITS = {SLOW: (0, 2), STEADY: (0, 0), LOADED: (0, 1)}
IN_FLIGHT = {SLOW: (100, 400), STEADY: (100, 180), LOADED: (100, 60)}
QUEUE = {SLOW: (0, 20), STEADY: (2, 2), LOADED: (0, 0)}
QUEUE_GROWTH = 5  # calls a second, at the slow deployment
CACHE_HITS, CACHE_MISSES = Flow(30, 60), Flow(70, 140)
CANARY = {
    ("canary", ""): (Flow(20, 20), 1.0),
    ("canary", "timeout"): (Flow(20, 60), 0.1),
    ("rest", ""): (Flow(100, 100), 0.5),
}
BUDGETS = {"day": (100.0, 10.0, 10.0, 3.0), "team": (5.0, 1.0, 5.0, 0.0), "year": (1000.0, 1.0, 1.0, 0.0)}
NEW = "openai/gpt-next"
ROLLED_BACK = (0, 1)
MIRROR = {"answered": Flow(20, 20), "failed": Flow(0, 10), "dropped": Flow(0, 0)}
DROPPED, FOLDED = Flow(0, 20), Flow(0, 10)


@dataclass
class Page:
    """A page of metrics in Prometheus' text format."""

    lines: list[str] = field(default_factory=list)

    def family(self, name: str, kind: str, samples: Iterable[tuple[Labels, float]]) -> None:
        self.lines.append(f"# TYPE {name} {kind}")
        self.lines += [
            self._line(name, labels, value)
            for labels, value in samples
            if value or "error_type" not in labels
        ]

    def histogram(
        self,
        name: str,
        bounds: tuple[float, ...],
        series: Iterable[tuple[Labels, Iterable[tuple[float, int]]]],
    ) -> None:
        self.lines.append(f"# TYPE {name} histogram")
        for labels, observed in series:
            values = list(observed)
            if "error_type" in labels and not any(count for _, count in values):
                continue
            for bound in (*bounds, math.inf):
                le = "+Inf" if bound == math.inf else f"{bound:g}"
                inside = sum(count for value, count in values if value <= bound)
                self.lines.append(self._line(f"{name}_bucket", {**labels, "le": le}, inside))
            self.lines.append(self._line(f"{name}_sum", labels, sum(v * n for v, n in values)))
            self.lines.append(self._line(f"{name}_count", labels, sum(n for _, n in values)))

    @staticmethod
    def _line(name: str, labels: Labels, value: float) -> str:
        inner = ",".join(f'{key}="{text}"' for key, text in labels.items())
        return f"{name}{{{inner}}} {value:.10g}" if inner else f"{name} {value:.10g}"

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def page(before: float, after: float, *, operation: str = "chat") -> str:
    """The page after so many seconds of calm and of fault."""
    out = Page()

    def count(flow: Flow) -> int:
        return math.floor(flow.total(before, after))

    def parts(lane: Lane, scale: float = 1) -> list[tuple[float, int]]:
        calm = math.floor(lane.flow.calm * before)
        return [(lane.seconds[0] * scale, calm), (lane.seconds[1] * scale, count(lane.flow) - calm)]

    def call_labels(lane: Lane) -> dict[str, str]:
        answered = {} if lane.error else {"gen_ai_response_model": f"{lane.labels['gen_ai_request_model']}-2"}
        return {"gen_ai_operation_name": operation, **answered, **lane.labels}

    answered = [lane for lane in CALLS if not lane.error]
    out.histogram(
        "gen_ai_client_operation_duration_seconds",
        SECONDS,
        [(call_labels(lane), parts(lane)) for lane in CALLS],
    )
    out.histogram(
        "llm_request_latency_ms", MILLISECONDS, [(lane.labels, parts(lane, 1000)) for lane in CALLS]
    )
    first = [Lane(lane.deployment, lane.flow, FIRST_CHUNK[lane.deployment]) for lane in answered]
    out.histogram(
        "gen_ai_client_operation_time_to_first_chunk_seconds",
        SECONDS,
        [(call_labels(lane), parts(lane)) for lane in first],
    )
    out.histogram(
        "gen_ai_client_operation_time_per_output_chunk_seconds",
        SECONDS,
        [(call_labels(lane), [(0.03, 20 * count(lane.flow))]) for lane in answered],
    )
    out.histogram(
        "gen_ai_client_token_usage",
        TOKENS,
        [
            ({**call_labels(lane), "gen_ai_token_type": kind}, [(tokens, count(lane.flow))])
            for lane in answered
            for kind, tokens in (("input", INPUT), ("output", OUTPUT))
        ],
    )
    out.histogram(
        "liter_llm_attempt_duration_seconds",
        SECONDS,
        [
            (
                {
                    "liter_llm_deployment": lane.deployment,
                    "gen_ai_provider_name": lane.labels["gen_ai_provider_name"],
                    "liter_llm_region": REGIONS[lane.deployment],
                    **error_label(lane.error),
                },
                parts(lane),
            )
            for lane in ATTEMPTS
        ],
    )
    out.family(
        "liter_llm_retries_total",
        "counter",
        [
            ({"liter_llm_deployment": deployment, "error_type": error}, count(flow))
            for (deployment, error), flow in RETRIES.items()
        ],
    )
    out.family(
        "liter_llm_fallbacks_total",
        "counter",
        [
            ({"liter_llm_from": left, "liter_llm_to": taken, "error_type": error}, count(flow))
            for (left, taken, error), flow in FALLBACKS.items()
        ],
    )
    fault = int(after > 0)
    growth = {SLOW: math.floor(QUEUE_GROWTH * after)}
    for name, values in (
        ("circuit_state", {deployment: states[fault] for deployment, states in CIRCUITS.items()}),
        (
            "queue_depth",
            {deployment: depth[fault] + growth.get(deployment, 0) for deployment, depth in QUEUE.items()},
        ),
        ("in_flight", {deployment: number[fault] for deployment, number in IN_FLIGHT.items()}),
    ):
        out.family(
            f"liter_llm_{name}",
            "gauge",
            [({"liter_llm_deployment": deployment}, value) for deployment, value in values.items()],
        )
    out.family(
        "liter_llm_spend_usd_total",
        "counter",
        [(lane.labels, USD[lane.deployment] * count(lane.flow)) for lane in answered],
    )
    out.family(
        "liter_llm_tokens_total",
        "counter",
        [
            (
                {
                    "liter_llm_deployment": lane.deployment,
                    "gen_ai_request_model": lane.labels["gen_ai_request_model"],
                    "liter_llm_token_type": kind,
                },
                tokens * count(lane.flow),
            )
            for lane in answered
            for kind, tokens in TOKEN_TYPES.items()
        ],
    )
    spent = {name: (calm, late + rise * after)[fault] for name, (_, calm, late, rise) in BUDGETS.items()}
    out.family(
        "liter_llm_budget_spent_usd",
        "gauge",
        [({"liter_llm_budget": name}, usd) for name, usd in spent.items()],
    )
    out.family(
        "liter_llm_budget_limit_usd",
        "gauge",
        [({"liter_llm_budget": name}, row[0]) for name, row in BUDGETS.items()],
    )
    for name, flow in (
        ("cache_hits", CACHE_HITS),
        ("cache_misses", CACHE_MISSES),
        ("records_dropped", DROPPED),
        ("labels_folded", FOLDED),
    ):
        out.family(f"liter_llm_{name}_total", "counter", [({}, count(flow))])
    out.family("liter_llm_canary_rolled_back", "gauge", [({"liter_llm_deployment": NEW}, ROLLED_BACK[fault])])
    out.family(
        "liter_llm_mirror_calls_total",
        "counter",
        [
            ({"liter_llm_deployment": NEW, "liter_llm_outcome": outcome}, count(flow))
            for outcome, flow in MIRROR.items()
        ],
    )
    arms = [({"liter_llm_arm": arm, **error_label(error)}, *row) for (arm, error), row in CANARY.items()]
    out.family("liter_llm_canary_calls_total", "counter", [(labels, count(flow)) for labels, flow, _ in arms])
    out.histogram(
        "liter_llm_canary_duration_seconds",
        SECONDS,
        [(labels, [(seconds, count(flow))]) for labels, flow, seconds in arms],
    )
    return out.text


TOKEN_TYPES = {"input": INPUT, "output": OUTPUT, "cache_read": CACHE_READ, "reasoning": REASONING}


@contextmanager
def served(text: Callable[[], str | bytes], *, status: int = 200) -> Iterator[str]:
    """Serves a page on this machine; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text()
            body = body.encode() if isinstance(body, str) else body
            self.send_response(status)
            self.send_header("content-type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            """Nothing: requests are not news."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
