"""The host's meter has the metrics that Prometheus gets: the same names, labels, kinds and values."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider

from liter_llm import Budget, Canary, LiterLLM, Mirror, PriceOptions, PrometheusExporter, Telemetry
from liter_llm.experiments import Guard
from liter_llm.router import ProviderRouter
from liter_llm.telemetry import names
from liter_llm.testing import Simulator

from .receiver import Receiver, attributes_of, until

ROOT = Path(__file__).resolve().parents[2]
METRICS = {value for value in vars(names).values() if isinstance(value, names.Metric)}
#: What one of both has and the other does not, and why. There is nothing of the kind.
ONLY_PROMETHEUS: dict[str, str] = {}
ONLY_THE_METER: dict[str, str] = {}

Series = dict[frozenset[tuple[str, str]], Any]


def spelled(metric: names.Metric) -> str:
    """A metric's name as Prometheus has it, a counter's without `_total`."""
    return metric.name.replace(".", "_") + ("_seconds" if metric.unit == "s" else "")


def engine_names() -> set[str]:
    source = (ROOT / "crates/liter-llm/src/telemetry/names.rs").read_text(encoding="utf-8")
    body = source.partition("pub mod metric {")[2].partition("\n}")[0]
    return set(re.findall(r'^    pub const [A-Z_]+: &str = "([a-z_]+)";', body, re.MULTILINE))


def test_the_names_are_the_engines() -> None:
    ours = {spelled(metric) for metric in METRICS}
    assert len(ours) == len(METRICS) > 20
    assert ours - ONLY_THE_METER.keys() == engine_names() - ONLY_PROMETHEUS.keys()


def test_the_page_of_metrics_has_each() -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    table = page.partition("## What is counted")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    shown = {name.removesuffix("_total") for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert shown == engine_names()


def of_prometheus(text: str) -> tuple[dict[str, str], dict[str, Series]]:
    """Kinds and series by name; a histogram's value is its buckets, each for itself, and its sum."""
    kinds: dict[str, str] = {}
    found: dict[str, Series] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            kinds[name] = kind
            continue
        sample = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
        if sample is None:
            assert line.startswith("#"), line
            continue
        labels = dict(re.findall(r'([a-z_]+)="([^"]*)"', sample[2] or ""))
        name, value = sample[1], float(sample[3])
        base, _, part = name.rpartition("_")
        if kinds.get(base) == "histogram":
            labels.pop("le", None)
            series = found.setdefault(base, {}).setdefault(frozenset(labels.items()), ([], []))
            if part == "bucket":
                series[0].append(value - sum(series[0]))
            elif part == "sum":
                series[1].append(value)
        else:
            found.setdefault(name.removesuffix("_total"), {})[frozenset(labels.items())] = value
    return kinds, found


def of_meter(receiver: Receiver) -> tuple[dict[str, str], dict[str, Series]]:
    """The same of what the host's meter has sent."""
    known = {metric.name: metric for metric in METRICS}
    kinds: dict[str, str] = {}
    found: dict[str, Series] = {}
    for name, metric in receiver.metrics().items():
        kind = metric.WhichOneof("data")
        data = getattr(metric, kind)
        if kind == "sum":
            assert data.is_monotonic
            kind = "counter"
        here = spelled(known[name])
        kinds[here] = kind
        for point in data.data_points:
            labels = {
                key.replace(".", "_"): str(value) for key, value in attributes_of(point.attributes).items()
            }
            value: Any
            if kind == "histogram":
                value = ([float(count) for count in point.bucket_counts], [point.sum])
            else:
                value = float(getattr(point, point.WhichOneof("value")))
            found.setdefault(here, {})[frozenset(labels.items())] = value
    return kinds, found


def settled(router: ProviderRouter) -> Callable[[], bool]:
    def is_settled() -> bool:
        report = router.mirror()
        return report is not None and not report.in_flight

    return is_settled


def played(sim: Simulator, telemetry: Telemetry) -> tuple[list[Any], list[Any]]:
    """A scenario in which every metric has something to say: its clients, and all that has to be kept."""
    price = PriceOptions(input=1000, output=2000)
    router = ProviderRouter(
        [
            sim.config("openai", model=name, name=name, region="eu", price=price, max_retries=0)
            for name in ("old", "new", "copy")
        ],
        budget=Budget(50, per="day"),
        canary=Canary("new", 50, guard=Guard(cost=False, latency=False)),
        mirror=Mirror("copy", 50),
        telemetry=telemetry,
    )
    single = LiterLLM(sim.config("openai", model="gpt-4o-mini", name="solo", cache=True), telemetry=telemetry)
    exporter = PrometheusExporter(router, single)
    # Its thread holds one record and its queue another: the next ones are dropped.
    held, heard = threading.Event(), threading.Event()

    def hook(_: object) -> None:
        heard.set()
        held.wait(30)

    hooked = single.on_call(hook, queue=1)
    single.generate("Hello", max_tokens=5)
    assert heard.wait(10)
    for _ in range(2):
        single.generate("Hello", max_tokens=5)
    # A refusal has no attempt; a provider's own mistake has one.
    with pytest.raises(ValueError, match="temperature"):
        single.generate("Hello", temperature=7)
    sim.rules = [{"match": {"times": 1}, "fault": {"status": 503, "headers": {"retry-after-ms": "1"}}}]
    single.stream("Hello, once more", max_tokens=5).until_done()
    sim.rules = []
    for number in range(1, 6):
        single.generate("Hello", model="a name that is too long for a label " * number, max_tokens=1)
    assert hooked.dropped > 0
    held.set()
    sim.rules = [
        {"match": {"model": "new", "percent": 40}, "fault": {"status": 503}},
        {"match": {"model": "copy", "every": 2}, "fault": {"status": 400}},
    ]
    calls = 0
    while (report := router.canary()) is not None and report.state == "running":
        router.generate("Hello", max_tokens=3)
        calls += 1
        assert calls < 1000
    until(settled(router))
    return [router, single], [exporter, hooked]


def test_both_have_the_same_series(sim: Simulator, receiver: Receiver, meters: MeterProvider) -> None:
    clients, (exporter, _) = played(sim, Telemetry(meter_provider=meters))
    meters.force_flush()
    kinds, series = of_meter(receiver)
    # As OpenMetrics a counter's type stands under its name without `_total`.
    their_kinds, theirs = of_prometheus(exporter.text())
    assert kinds.keys() - ONLY_THE_METER.keys() == {spelled(metric) for metric in METRICS}
    assert their_kinds.keys() - ONLY_PROMETHEUS.keys() == kinds.keys() - ONLY_THE_METER.keys()
    assert {name: their_kinds[name] for name in kinds} == kinds
    for name, here in series.items():
        there = theirs[name]
        assert here.keys() == there.keys(), name
        for labels, value in here.items():
            if kinds[name] == "histogram":
                assert value[0] == there[labels][0], (name, labels)
                assert value[1] == pytest.approx(there[labels][1]), (name, labels)
            else:
                assert value == pytest.approx(there[labels], abs=1e-6), (name, labels)
    # What there is to say was said.
    arms = {dict(labels)["liter_llm_arm"] for labels in series["liter_llm_canary_calls"]}
    assert arms == {"canary", "rest"}
    (rolled_back,) = series["liter_llm_canary_rolled_back"].items()
    assert rolled_back == (frozenset({("liter_llm_deployment", "new")}), 1)
    copies = {
        dict(labels)["liter_llm_outcome"]: count for labels, count in series["liter_llm_mirror_calls"].items()
    }
    report = clients[0].mirror()
    assert copies == {
        "answered": report.sent - report.errors,
        "failed": report.errors,
        "dropped": report.dropped,
    }
    assert min(copies["answered"], copies["failed"]) > 0
    for name in ("liter_llm_records_dropped", "liter_llm_labels_folded", "liter_llm_cache_hits"):
        (count,) = series[name].values()
        assert count > 0, name


def test_what_was_counted_stays_when_a_client_is_closed(
    sim: Simulator, receiver: Receiver, meters: MeterProvider
) -> None:
    """Also when metrics are collected for the first time after that."""
    telemetry = Telemetry(meter_provider=meters)
    clients, kept = played(sim, telemetry)
    router, single = clients
    report, dropped = router.mirror(), kept[1].dropped
    router.close()
    single.close()
    for _ in range(2):
        meters.force_flush()
        kinds, series = of_meter(receiver)
        assert sum(series["liter_llm_mirror_calls"].values()) == report.sent + report.dropped
        assert list(series["liter_llm_records_dropped"].values()) == [dropped]
        assert kinds["liter_llm_mirror_calls"] == kinds["liter_llm_records_dropped"] == "counter"
    # Gauges tell of what is there: nothing is.
    assert not {"liter_llm_canary_rolled_back", "liter_llm_circuit_state"} & kinds.keys()


def test_counts_of_two_clients_add_up_and_never_go_back(
    sim: Simulator, receiver: Receiver, meters: MeterProvider
) -> None:
    telemetry = Telemetry(meter_provider=meters)

    def mirrored() -> ProviderRouter:
        configs = [sim.config("openai", model=name, name=name) for name in ("old", "copy")]
        return ProviderRouter(configs, mirror=Mirror("copy", 100), telemetry=telemetry)

    def count() -> float:
        meters.force_flush()
        series = of_meter(receiver)[1]["liter_llm_mirror_calls"]
        return series[frozenset({("liter_llm_deployment", "copy"), ("liter_llm_outcome", "answered")})]

    first, second = mirrored(), mirrored()
    for router in (first, second):
        LiterLLM(router).generate("Hello", max_tokens=3)
        until(settled(router))
    assert count() == 2
    # Forgotten, not closed: what was collected of it stays.
    del first, router
    assert count() == 2
    second.generate("Hello", max_tokens=3)
    until(settled(second))
    assert count() == 3
    began = time.monotonic()
    second.close()
    assert count() == 3
    assert time.monotonic() - began < 10
