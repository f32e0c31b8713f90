"""One provider becomes ten times as slow: metrics, alert, routing and a trace tell of it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest

from tests.telemetry.receiver import Span

from .asking import filled, quick
from .conftest import DEPLOY, ROOT, load, program
from .expected import SECONDS
from .story import PATIENCE, PROVIDERS, RECORDED, SLOW, TENFOLD, Story, deployment, draw, played

PICTURES = ROOT / "docs" / "pictures"
CALM_SECONDS = PROVIDERS[SLOW][2] / 1000
SLOW_SECONDS = CALM_SECONDS * TENFOLD
# What a call is left for another provider: at least what the fastest of these needs, and a fifth.
ENOUGH = 1.2 * min(milliseconds for name, (*_, milliseconds) in PROVIDERS.items() if name != SLOW) / 1000


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with played(tmp_path_factory.mktemp("story")) as told:
        yield told


def by(story: Story, picture: str, label: str, at: float) -> dict[str, float]:
    result = story.prometheus.query(filled(program("pictures").query(picture)), at)
    return {series["metric"][label]: float(series["value"][1]) for series in result}


def bucket(seconds: float) -> tuple[float, float]:
    """What a histogram can tell of a time: the bounds of its bucket."""
    upper = next(bound for bound in SECONDS if seconds <= bound)
    return max((bound for bound in SECONDS if bound < upper), default=0.0), upper


def most(story: Story, provider: str, at: float) -> float:
    """The longest that a caller waited for the provider's answer in the ten seconds before."""
    name = deployment(provider)
    return max(c.seconds for c in story.calls if c.deployment == name and at - 10 < c.ended <= at)


def test_the_metrics_show_the_jump(story: Story) -> None:
    calm = by(story, "latency-by-provider", "gen_ai_provider_name", story.calm)
    asked = by(story, "latency-by-provider", "gen_ai_provider_name", story.asked)
    # A histogram knows the bucket: 0.16 to 0.32 s before, 1.28 to 2.56 s after. No provider answers sooner
    # than it was told to, and what comes on top is what callers saw too.
    assert bucket(CALM_SECONDS)[0] <= calm[SLOW] <= bucket(most(story, SLOW, story.calm))[1]
    assert bucket(SLOW_SECONDS)[0] <= asked[SLOW] <= bucket(most(story, SLOW, story.asked))[1]
    assert asked[SLOW] / calm[SLOW] > 3
    assert asked["azure.ai.openai"] <= bucket(most(story, "azure", story.asked))[1]
    latency = "sum by (liter_llm_deployment) (rate(llm_request_latency_ms_{}[5m]))"
    mean = quick(f"{latency.format('sum')} / {latency.format('count')}")
    means = {
        series["metric"]["liter_llm_deployment"]: float(series["value"][1])
        for series in story.prometheus.query(mean, story.asked)
    }
    assert means[deployment(SLOW)] > 3000 * CALM_SECONDS


def test_the_alert_fires_for_the_slow_provider_alone(story: Story) -> None:
    alerts = [
        rule
        for group in load(DEPLOY / "rules" / "liter_llm.yml")["groups"]
        for rule in group["rules"]
        if rule.get("alert") == "LiterLlmLatencySpike"
    ]
    (spike,) = alerts
    expr = quick(spike["expr"])
    firing = 'ALERTS{alertstate="firing"}'
    assert story.prometheus.query(expr, story.calm) == []
    assert story.prometheus.query(firing, story.calm) == []
    (found,) = story.prometheus.query(expr, story.asked)
    assert found["metric"]["gen_ai_provider_name"] == SLOW
    fired = {
        (series["metric"]["alertname"], series["metric"].get("gen_ai_provider_name"))
        for series in story.prometheus.query(firing, story.asked)
    }
    assert fired == {("LiterLlmLatencySpike", SLOW)}


def test_the_router_moves_the_traffic_away(story: Story) -> None:
    before = by(story, "traffic-share", "liter_llm_deployment", story.calm)
    after = by(story, "traffic-share", "liter_llm_deployment", story.asked)
    assert before[deployment(SLOW)] > 0.5
    assert after[deployment(SLOW)] < 0.25
    assert sum(after.values()) == pytest.approx(1)
    # The callers saw the same: who answered in the six seconds of the query's window.
    window = [call for call in story.calls if story.asked - 6 <= call.ended <= story.asked]
    assert len(window) > 60
    share = sum(call.deployment == deployment(SLOW) for call in window) / len(window)
    assert share == pytest.approx(after[deployment(SLOW)], abs=0.08)


def seconds(span: Span) -> float:
    return (span.end - span.start) / 1e9


def test_no_caller_saw_an_error_and_the_impatient_were_served_in_time(story: Story) -> None:
    assert len(story.calls) > 400
    # A machine that stalls makes a call late whatever the router does. Then the router has left the last
    # provider of the call more than its time.
    lost = [root for root in story.roots if "error.type" in root.attributes]
    assert len(lost) == sum(call.error != "" for call in story.calls) <= 0.01 * len(story.calls)
    for root in lost:
        assert root.attributes["error.type"] == "timeout"
        last = root.children[-1]
        assert last.attributes["liter_llm.deployment"] != deployment(SLOW)
        assert seconds(last) >= ENOUGH
    after = [call.seconds for call in story.calls if call.ended > story.fault + 5]
    late = sum(took > SLOW_SECONDS * 0.9 for took in after)
    assert late <= 0.25 * len(after)


def test_a_trace_tells_how_a_call_was_saved(story: Story) -> None:
    for root in story.rescues():
        first, second = root.children
        assert root.attributes["liter_llm.policy"] == "latency"
        assert root.attributes["liter_llm.fallbacks"] == 1
        assert root.attributes["liter_llm.fallback.reasons"] == ["timeout"]
        assert root.attributes["liter_llm.deployment"] == second.attributes["liter_llm.deployment"]
        assert root.status == 0
        assert seconds(root) <= PATIENCE + 0.05
        assert first.attributes["gen_ai.provider.name"] == SLOW
        assert first.attributes["liter_llm.region"] == PROVIDERS[SLOW][1]
        # Given up before its answer, in time for another provider.
        assert 2 * CALM_SECONDS < seconds(first) < PATIENCE - ENOUGH
        assert second.start >= first.end - 1000
        assert second.attributes["liter_llm.attempt.cause"] == "fallback"
        assert second.attributes["liter_llm.deployment"] != deployment(SLOW)
    root = story.rescued()
    assert root.start / 1e9 < story.fault + 2


def test_a_trace_shows_the_slow_attempt_of_a_patient_call(story: Story) -> None:
    slow = [
        root
        for root in story.roots
        if root.start / 1e9 > story.fault
        and len(root.children) == 1
        and root.attributes["liter_llm.deployment"] == deployment(SLOW)
    ]
    assert slow
    for root in slow:
        (attempt,) = root.children
        assert seconds(attempt) >= SLOW_SECONDS * 0.99
        assert attempt.attributes["liter_llm.attempt.first_byte"] >= SLOW_SECONDS * 0.99
    # The copies by which the router tries a provider beside a call are no part of the call's trace.
    for root in story.roots:
        again = root.attributes.get("liter_llm.fallbacks", 0) + root.attributes.get("liter_llm.retries", 0)
        assert len(root.children) == 1 + again


def test_pictures_are_drawn_of_this_story_too(story: Story) -> None:
    pictures = program("pictures")
    recorded = story.recorded()
    svg = pictures.waterfall("A call", recorded["trace"])
    texts = [found.text or "" for found in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert sum("deployment=" in text for text in texts) == 3
    assert any("error.type=timeout" in text for text in texts)
    for name, curve in recorded["curves"].items():
        assert len(
            ET.fromstring(pictures.picture(name, curve)).findall("{http://www.w3.org/2000/svg}polyline")
        )


def test_the_pictures_in_the_documents_are_those_of_the_record_beside_them() -> None:
    drawn = draw(PICTURES)
    assert {path.name for path in PICTURES.iterdir()} == {*drawn, RECORDED}
    for name, svg in drawn.items():
        assert (PICTURES / name).read_text(encoding="utf-8") == svg, name


def test_a_trace_without_a_span_is_no_picture() -> None:
    with pytest.raises(ValueError, match="no span"):
        program("pictures").waterfall("A call", [])
