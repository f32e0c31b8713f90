"""Reads a page of metrics twice and works out what happened in between, deployment by deployment."""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

DURATION = "gen_ai_client_operation_duration_seconds"
FIRST_CHUNK = "gen_ai_client_operation_time_to_first_chunk_seconds"
# What has one of these has a row; a mirror that only gets copies has none.
ROW_METRICS = (f"{DURATION}_count", "liter_llm_circuit_state", "liter_llm_queue_depth", "liter_llm_in_flight")
PAGE_LIMIT = 64 * 1024 * 1024
# Label names and values in the order of the names: a series of a metric.
Labels = tuple[tuple[str, str], ...]
Samples = dict[str, dict[Labels, float]]


class PageError(Exception):
    """There is no page of metrics at an address; the text says why, for a person."""


def read(url: str, timeout: float) -> Samples:
    """The samples of a page in Prometheus' text format, by metric and labels.

    Raises:
        PageError: Nothing answers there, or not with metrics of Liter-LLM.
    """
    return parse(_fetch(url, timeout), url)


def parse(text: str, url: str) -> Samples:
    """The samples of a text in Prometheus' format.

    Raises:
        PageError: The text is something else, or holds no metrics of Liter-LLM.
    """
    from prometheus_client.parser import text_string_to_metric_families

    samples: Samples = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                samples.setdefault(sample.name, {})[labels] = float(sample.value)
    # The parser's errors are of several kinds, by the place where a line stops to make sense.
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise PageError(f"{url} is not a page of metrics in Prometheus' text format") from error
    if not samples:
        raise PageError(f"{url} is not a page of metrics in Prometheus' text format, or an empty one")
    if not any(name.startswith(("gen_ai_client_", "liter_llm_")) for name in samples):
        raise PageError(f"{url} has metrics, but none of Liter-LLM: is it another program's page?")
    return samples


def _fetch(url: str, timeout: float) -> str:
    request = urllib.request.Request(url, headers={"accept": "text/plain;version=0.0.4"})  # noqa: S310 - http(s) only, see `address`
    # A proxy of the environment cannot reach this machine's own addresses.
    handlers = [urllib.request.ProxyHandler({})] if _is_local(urlsplit(url).hostname or "") else []
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as answer:
            body: bytes = answer.read(PAGE_LIMIT + 1)
    except urllib.error.HTTPError as error:
        with error:
            raise PageError(f"{url} answers with {error.code} {error.reason}") from error
    except TimeoutError as error:
        raise PageError(f"{url} does not answer within {timeout:g} s") from error
    except urllib.error.URLError as error:
        raise PageError(_unreachable(url, error.reason, timeout)) from error
    except OSError as error:
        raise PageError(_unreachable(url, error, timeout)) from error
    # What is no HTTP at all is an `HTTPException`, which is no OSError.
    except Exception as error:
        raise PageError(f"{url} does not answer in HTTP") from error
    if len(body) > PAGE_LIMIT:
        raise PageError(f"{url} is longer than {PAGE_LIMIT // 1024**2} MiB")
    return body.decode("utf-8", "replace")


def _unreachable(url: str, reason: object, timeout: float) -> str:
    if isinstance(reason, TimeoutError):
        return f"{url} does not answer within {timeout:g} s"
    if isinstance(reason, ConnectionRefusedError):
        return f"{url} cannot be reached: connection refused. Does a program serve its metrics there?"
    words = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return f"{url} cannot be reached: {words}"


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Row:
    """One deployment between two readings: rates a second, times in seconds, None where nothing happened."""

    deployment: str
    calls: float
    error_ratio: float | None
    p50: float | None
    p95: float | None
    first_chunk: float | None
    tokens: float
    retries: float
    usd_per_hour: float
    circuit: int | None
    queue: float
    in_flight: float


@dataclass(frozen=True)
class Budget:
    """What is spent of a budget, in US dollars."""

    name: str
    spent: float
    limit: float


@dataclass(frozen=True)
class Reading:
    """All of it between two readings of a page."""

    rows: list[Row]
    budgets: list[Budget]
    cache_hits: float
    cache_misses: float
    records_dropped: float
    # Whether a counter fell: the program was started anew in between.
    restarted: bool = field(default=False)


def compare(old: Samples, new: Samples, seconds: float) -> Reading:
    """What happened between two readings that many seconds apart.

    A counter that fell began again at zero: the program was restarted, and what it has counted since is what
    happened.
    """
    names = {
        name
        for metric in ROW_METRICS
        for labels in new.get(metric, {})
        if (name := dict(labels).get("liter_llm_deployment"))
    }
    rows = [_row(name, old, new, seconds) for name in sorted(names)]
    budgets = [
        Budget(dict(labels).get("liter_llm_budget", ""), spent, limit)
        for labels, spent in sorted(new.get("liter_llm_budget_spent_usd", {}).items())
        if (limit := new.get("liter_llm_budget_limit_usd", {}).get(labels)) is not None
    ]

    def total(name: str) -> float:
        return sum(growth(old, new, name).values()) / seconds

    return Reading(
        rows,
        budgets,
        total("liter_llm_cache_hits_total"),
        total("liter_llm_cache_misses_total"),
        total("liter_llm_records_dropped_total"),
        any(
            value < old.get(name, {}).get(labels, 0)
            for name, series in new.items()
            if name.endswith(("_total", "_count"))
            for labels, value in series.items()
        ),
    )


def growth(old: Samples, new: Samples, name: str) -> dict[Labels, float]:
    """By how much each series of a counter grew; a new series has grown from zero."""
    before = old.get(name, {})
    return {
        labels: value - earlier if value >= (earlier := before.get(labels, 0.0)) else value
        for labels, value in new.get(name, {}).items()
    }


def _row(deployment: str, old: Samples, new: Samples, seconds: float) -> Row:
    def grown(name: str, **wanted: tuple[str, ...]) -> float:
        return sum(
            value
            for labels, value in growth(old, new, name).items()
            if _belongs(labels, deployment)
            and all(dict(labels).get(key) in given for key, given in wanted.items())
        )

    def gauge(name: str) -> list[float]:
        return [value for labels, value in new.get(name, {}).items() if _belongs(labels, deployment)]

    calls = growth(old, new, f"{DURATION}_count")
    mine = {labels: value for labels, value in calls.items() if _belongs(labels, deployment)}
    count = sum(mine.values())
    failed = sum(value for labels, value in mine.items() if dict(labels).get("error_type"))
    durations = _buckets(DURATION, deployment, old, new)
    states = gauge("liter_llm_circuit_state")
    return Row(
        deployment=deployment,
        calls=count / seconds,
        error_ratio=failed / count if count else None,
        p50=quantile(0.5, durations),
        p95=quantile(0.95, durations),
        first_chunk=quantile(0.95, _buckets(FIRST_CHUNK, deployment, old, new)),
        tokens=grown("liter_llm_tokens_total", liter_llm_token_type=("input", "output")) / seconds,
        retries=grown("liter_llm_retries_total") / seconds,
        usd_per_hour=grown("liter_llm_spend_usd_total") * 3600 / seconds,
        circuit=int(max(states)) if states else None,
        queue=sum(gauge("liter_llm_queue_depth")),
        in_flight=sum(gauge("liter_llm_in_flight")),
    )


def _belongs(labels: Labels, deployment: str) -> bool:
    return ("liter_llm_deployment", deployment) in labels


def _buckets(name: str, deployment: str, old: Samples, new: Samples) -> dict[float, float]:
    """How many observations each upper bound of a histogram holds, all series of a deployment together."""
    buckets = f"{name}_bucket"
    counts = f"{name}_count"
    before, now = old.get(counts, {}), new.get(counts, {})
    # A histogram begins again as a whole: a bucket alone might have passed its old count already.
    fallen = {labels for labels, value in now.items() if value < before.get(labels, 0)}
    total: dict[float, float] = {}
    for labels, value in new.get(buckets, {}).items():
        if not _belongs(labels, deployment):
            continue
        bare = tuple(label for label in labels if label[0] != "le")
        bound = float(dict(labels).get("le", "inf"))
        earlier = 0.0 if bare in fallen else old.get(buckets, {}).get(labels, 0.0)
        total[bound] = total.get(bound, 0.0) + max(value - earlier, 0.0)
    return total


def quantile(q: float, buckets: Mapping[float, float]) -> float | None:
    """A quantile of cumulative buckets, as Prometheus estimates it: evenly spread within a bucket."""
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    rank = q * buckets[bounds[-1]]
    lower = below = 0.0
    for bound in bounds:
        inside = buckets[bound]
        if inside >= rank:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (rank - below) / (inside - below) if inside > below else bound
        lower, below = bound, inside
    return lower


def sparkline(values: Iterable[float | None]) -> str:
    """Values as a row of bars on a scale that begins at zero; a gap where there is none."""
    known = list(values)
    top = max((value for value in known if value is not None), default=0.0)
    bars = "▁▂▃▄▅▆▇█"
    last = len(bars) - 1
    return "".join(
        " " if value is None else bars[min(last, round(value / top * last)) if top else 0] for value in known
    )
