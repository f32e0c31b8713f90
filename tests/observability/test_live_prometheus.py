"""A real Prometheus scrapes a program under load: every panel, rule and alert tells what the load caused."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.stalls import Stalls

from .asking import filled, quick, quick_rules
from .conftest import DEPLOY, Prometheus, load, program, prometheus, steady
from .expected import AFTER, ALERTS, PANELS, RECORDS, Table
from .exposition import LOADED, SLOW, STEADY, page, served

# As long as the longest look back, and a little for the start.
CALM = 18.0
BOARDS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (DEPLOY / "dashboards").glob("*.json")
}
TARGETS = [
    (board, panel["title"], place, target["expr"])
    for board, content in BOARDS.items()
    for panel in content["panels"]
    for place, target in enumerate(panel["targets"])
]
RULES = [load(path) for path in sorted((DEPLOY / "rules").glob("*.yml"))]
ALERT_RULES = {
    rule["alert"]: rule
    for file in RULES
    for group in file["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
RECORD_RULES = {
    rule["record"]: rule
    for file in RULES
    for group in file["groups"]
    for rule in group["rules"]
    if "record" in rule
}


@dataclass(frozen=True)
class Scene:
    """The scraped program, over: the moments at which to ask."""

    prometheus: Prometheus
    calm: float
    fault: float

    @property
    def asked(self) -> float:
        return self.fault + AFTER


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with steady(lambda _: scraped(tmp_path_factory.mktemp("prometheus"))) as scene:
        yield scene


@contextmanager
def scraped(folder: Path) -> Iterator[tuple[Scene, Stalls]]:
    start = [time.time(), time.time() + 3600]

    def text() -> str:
        now = time.time()
        return page(min(now, start[1]) - start[0], max(now - start[1], 0))

    with (
        served(text) as url,
        prometheus(folder, [urlsplit(url).netloc], [quick_rules(rules) for rules in RULES]) as running,
    ):
        # The program is as old as the Prometheus that watches it.
        start[:] = [time.time(), time.time() + CALM]
        with Stalls() as stalls:
            time.sleep(CALM + AFTER + 1.5)
        yield Scene(running, start[1] - 0.5, start[1]), stalls


def named(series: dict[str, Any]) -> str:
    labels = {
        name: value
        for name, value in series["metric"].items()
        if name not in {"__name__", "alertname", "severity"}
    }
    return "|".join(labels[name] for name in sorted(labels))


def agrees(result: list[dict[str, Any]], wanted: Table, what: str) -> None:
    found = {named(series): float(series["value"][1]) for series in result}
    assert found.keys() == wanted.keys(), f"{what}: {found}"
    for name, value in found.items():
        low, high = wanted[name]
        assert low <= value <= high, (
            f"{what}, {name or 'its one series'}: {value} is not within {low:g} to {high:g}"
        )


@pytest.mark.parametrize(
    ("board", "title", "place", "expr"), TARGETS, ids=lambda value: str(value)[:60].replace("\n", " ")
)
def test_a_panel_shows_what_was_caused(scene: Scene, board: str, title: str, place: int, expr: str) -> None:
    tables = PANELS[board, title]
    result = scene.prometheus.query(filled(expr), scene.asked)
    agrees(result, tables[place], f"{board}: {title}, query {place + 1}")


def test_every_panel_has_an_entry_and_every_entry_a_panel() -> None:
    queries: dict[tuple[str, str], int] = {}
    for board, title, _, _ in TARGETS:
        queries[board, title] = queries.get((board, title), 0) + 1
    assert queries == {name: len(tables) for name, tables in PANELS.items()}
    assert RECORD_RULES.keys() == RECORDS.keys()
    assert ALERT_RULES.keys() == ALERTS.keys()


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_recording_rule_records_what_was_caused(scene: Scene, name: str) -> None:
    agrees(scene.prometheus.query(name, scene.asked), RECORDS[name], name)


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_is_silent_in_the_calm_and_fires_in_the_fault(scene: Scene, name: str) -> None:
    expr = quick(ALERT_RULES[name]["expr"])
    firing = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
    assert scene.prometheus.query(expr, scene.calm) == []
    assert scene.prometheus.query(firing, scene.calm) == []
    agrees(scene.prometheus.query(expr, scene.asked), ALERTS[name], name)
    fired = {named(series).replace("firing|", "") for series in scene.prometheus.query(firing, scene.asked)}
    assert fired == ALERTS[name].keys()


def test_the_rules_evaluate_without_errors(scene: Scene) -> None:
    for group in scene.prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] == "ok", rule


def test_the_variable_narrows_every_panel_that_has_it(scene: Scene) -> None:
    narrowed = 0
    for board, title, _, expr in TARGETS:
        if "$deployment" not in expr:
            continue
        # The load gives every deployment fallbacks, errors and retries but the steady one.
        result = scene.prometheus.query(filled(expr, deployment=LOADED), scene.asked)
        for series in result:
            labels = series["metric"]
            for label in ("liter_llm_deployment", "liter_llm_from"):
                if label in labels:
                    narrowed += 1
                    assert labels[label] == LOADED, f"{board}: {title}"
    assert narrowed >= 15


def test_pictures_are_drawn_from_recorded_results(scene: Scene, tmp_path: Path) -> None:
    pictures = program("pictures")
    lowest: dict[tuple[str, str], tuple[float, float]] = {}
    for name in pictures.PANELS:
        recorded = scene.prometheus.get(
            "query_range",
            query=filled(pictures.query(name)),
            start=scene.fault - CALM / 2,
            end=scene.asked,
            step=1,
        )["result"]
        svg = pictures.picture(name, recorded, {scene.fault: "the fault"})
        (tmp_path / f"{name}.svg").write_text(svg, encoding="utf-8")
        root = ET.fromstring(svg)  # our own text
        space = "{http://www.w3.org/2000/svg}"
        texts = [found.text for found in root.iter(f"{space}text")]
        assert pictures.PANELS[name][1] in texts
        assert "the fault" in texts
        lines = [found.get("points", "").split() for found in root.iter(f"{space}polyline")]
        names = [
            text for text in texts if text in {SLOW, STEADY, LOADED, "openai", "azure.ai.openai", "anthropic"}
        ]
        assert len(names) == len(lines) == 3
        for label, line in zip(names, lines, strict=True):
            heights = [float(point.partition(",")[2]) for point in line]
            lowest[name, str(label)] = (heights[0], heights[-1])
    # Up is small: the slow provider's line rises, the others' stay, its share of the traffic falls.
    first, last = lowest["latency-by-provider", "openai"]
    assert first - last > 100
    assert lowest["latency-by-provider", "anthropic"][0] == pytest.approx(
        lowest["latency-by-provider", "anthropic"][1], abs=8
    )
    first, last = lowest["traffic-share", SLOW]
    assert last - first > 30
    first, last = lowest["error-rate", LOADED]
    assert first - last > 100


def test_a_picture_needs_a_point() -> None:
    with pytest.raises(ValueError, match="no point"):
        program("pictures").picture("error-rate", [{"metric": {}, "values": [[1, "NaN"]]}])
