"""Every panel, rule and alert over the real exporter, against the journal of the program that it exports."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from .asking import filled, quick
from .expected import AFTER, HORIZONS, SECONDS, WINDOWS, Bounds, Table, exactly
from .expected import TOKENS as TOKEN_BOUNDS
from .live import (
    BROKEN,
    CACHED,
    DAY,
    DEAR,
    HOOKED,
    LOADED,
    MAIN,
    NAMED,
    NARROW,
    NEW,
    OLD,
    PLACES,
    SHADOW,
    SLOW,
    STEADY,
    TEAM,
    Call,
    Live,
    lived,
    split,
)
from .test_live_prometheus import ALERT_RULES, RECORD_RULES, TARGETS, named

WINDOW = WINDOWS["$__rate_interval"]
JOB = "liter-llm"
#: The vendor's name in our configuration -> the label of the metrics, where they differ.
LABELS = {"azure": "azure.ai.openai", "mistral": "mistral_ai", "xai": "x_ai"}
#: Everything that calls are made to, as label of the deployment.
ALL = (SLOW, STEADY, LOADED, NARROW, DEAR, OLD, NEW, MAIN, CACHED, HOOKED, NAMED)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with lived(tmp_path_factory.mktemp("live")) as program:
        yield program


# ------------------------------------------------------------------------- what the journal says of a window


def rate(count: float, a_count: float = 1.0, *, brief: bool = False) -> Bounds:
    """So many events in a window, as a rate: a scrape is a second early or late, and a rate extrapolates.

    `brief`: those that all came at the window's beginning.
    """
    slack = max((0.5 if brief else 0.25) * count, 2.5 * a_count)
    return (max(0.0, count - slack) / WINDOW, (count + slack) / WINDOW)


#: The canary, which is rolled back within the window: as deployment, arm and models.
BRIEF = {
    *(NEW, "canary", "new|input", "new|output"),
    *("overloaded|deepseek", f"overloaded|{NEW}|{OLD}"),
}


def rates(counts: dict[str, float]) -> Table:
    return {name: rate(count, brief=name in BRIEF) for name, count in counts.items() if count}


def times(factor: float, table: Table) -> Table:
    return {name: (low * factor, high * factor) for name, (low, high) in table.items()}


def by(
    calls: Iterable[Call], key: Callable[[Call], str], of: Callable[[Call], float] = lambda _: 1
) -> dict[str, float]:
    found: Counter[str] = Counter()
    for call in calls:
        found[key(call)] += of(call)  # type: ignore[assignment]
    return dict(found)


def over(values: Iterable[float], q: float, bounds: tuple[float, ...] = SECONDS) -> Bounds:
    """Between which bounds of buckets a quantile lies; callers saw a little more than the engine did."""
    rows = sorted(values)
    assert rows, "nothing was observed"

    def at(share: float) -> float:
        return rows[min(len(rows) - 1, max(0, math.ceil(share * len(rows)) - 1))]

    # A call more or less in the window moves the rank.
    margin = 2.0 / len(rows)
    least, most = at(max(0.0, q - margin)) * 0.7 - 0.02, at(min(1.0, q + margin))
    lower = max((bound for bound in bounds if bound < least), default=0.0)
    return (lower, next(bound for bound in bounds if bound >= most))


def quantiles(
    calls: Iterable[Call], q: float, key: Callable[[Call], str], of: Callable[[Call], float]
) -> Table:
    grouped: dict[str, list[float]] = {}
    for call in calls:
        grouped.setdefault(key(call), []).append(of(call))
    return {name: over(values, q) for name, values in grouped.items()}


def deployment(call: Call) -> str:
    # A call that an open circuit refused went to no deployment.
    return "" if call.error == "circuit_open" else call.deployment


def provider(name: str) -> str:
    return LABELS.get(split(name)[0], split(name)[0])


def model(name: str) -> str:
    return "other" if name == NAMED else split(name)[1]


def window(live: Live) -> list[Call]:
    return live.ended(WINDOW)


def good(live: Live) -> list[Call]:
    return [call for call in window(live) if not call.error]


def failed(live: Live) -> list[Call]:
    return [call for call in window(live) if call.error]


def paid(live: Live) -> list[Call]:
    return [call for call in good(live) if not call.cached]


def attempts(live: Live) -> list[Any]:
    return [attempt for call in window(live) for attempt in call.attempts]


def ratio(live: Live, *names: str) -> Bounds:
    """The share of failures of some deployments, or of all."""
    calls = [call for call in window(live) if not names or deployment(call) in names]
    share = sum(bool(call.error) for call in calls) / len(calls)
    return exactly(share) if share in (0, 1) else (share * 0.7, share * 1.3)


def share(live: Live) -> Table:
    counts = by(window(live), deployment)
    total = sum(counts.values())
    return {
        name: (max(0, count / total * 0.75 - 0.02), count / total * 1.25 + 0.02)
        for name, count in counts.items()
    }


def latency(live: Live, q: float) -> Table:
    return quantiles(window(live), q, deployment, lambda call: call.seconds)


def attempt_speed(live: Live, key: Callable[[str], str], seconds: float = WINDOW) -> Table:
    """Of attempts that were answered; that of a stream lasts to its end."""
    grouped: dict[str, list[float]] = {}
    for call in live.ended(seconds):
        for attempt in call.attempts:
            if attempt.error is None:
                took = call.seconds - attempt.started if call.first is not None else attempt.duration
                grouped.setdefault(key(attempt.deployment), []).append(took)
    return {name: over(values, 0.95) for name, values in grouped.items()}


def place(name: str) -> str:
    region = PLACES.get(name, ("", ""))[1]
    return f"{provider(name)}|{region}" if region else provider(name)


def again(live: Live, cause: str, key: Callable[[Any, Any], str]) -> dict[str, float]:
    found: Counter[str] = Counter()
    for call in window(live):
        for before, attempt in zip(call.attempts, call.attempts[1:], strict=False):
            if attempt.cause == cause:
                found[key(before, attempt)] += 1
    return dict(found)


def tokens(live: Live, key: Callable[[Call, str], str]) -> Table:
    found: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for call in paid(live):
        for kind, count in call.tokens.items():
            found[key(call, kind)] += count
            most[key(call, kind)] = max(most[key(call, kind)], count)
    return {name: rate(count, most[name], brief=name in BRIEF) for name, count in found.items() if count}


def spend(live: Live, key: Callable[[Call], str] = lambda _: "") -> Table:
    found = by(paid(live), key, lambda call: call.usd)
    highest: dict[str, float] = {}
    for call in paid(live):
        highest[key(call)] = max(highest.get(key(call), 0.0), call.usd)
    return times(3600, {name: rate(usd, highest[name]) for name, usd in found.items() if usd})


def total(live: Live, within: Callable[[Call], bool], slack: float) -> Bounds:
    """What some calls have cost from the start until the last scrape."""
    usd = sum(call.usd for call in live.journal if call.ended <= live.asked and within(call))
    return (usd - slack, usd + slack)


def budgets(live: Live) -> Table:
    # Calls with the key are all that began with the fault beside the steady one a second.
    start = [call for call in live.journal if call.deployment == DEAR and call.ended <= live.asked]
    team = sum(call.usd for call in start) - (live.fault + AFTER - min(call.ended for call in start)) * 1.0
    return {"router/day": total(live, lambda _: True, 4), "key:team/day": (team - 4, team + 4)}


def used(live: Live) -> Table:
    limits = {"router/day": DAY, "key:team/day": TEAM}
    return {name: (low / limits[name], high / limits[name]) for name, (low, high) in budgets(live).items()}


def heat(live: Live) -> Table:
    calls = window(live)

    def inside(bound: float, factor: float) -> int:
        return sum(call.seconds * factor <= bound for call in calls)

    # What callers saw is a little more than what the engine did.
    table = {
        f"{bound:g}": (
            rate(inside(bound, 1.0))[0] * WINDOW,
            rate(sum(c.seconds * 0.8 - 0.01 <= bound for c in calls))[1] * WINDOW,
        )
        for bound in SECONDS
    }
    return {**table, "+Inf": times(WINDOW, {"": rate(len(calls))})[""]}


def circuits() -> Table:
    # A circuit that was opened more than its time ago may be half open.
    return {BROKEN: (1, 2), SHADOW: (1, 2)}


def queue(live: Live) -> Table:
    begun = [call for call in live.journal if call.deployment == NARROW]
    waiting = sum(call.ended - call.seconds < live.asked < call.ended for call in begun)
    return {NARROW: (max(1, waiting - 6), waiting + 3)}


def dropped(live: Live) -> float:
    inside = [count for at, count in live.dropped if live.asked - WINDOW <= at <= live.asked]
    return inside[-1] - inside[0]


def arms(live: Live) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {}
    for call in window(live):
        if call.arm:
            found.setdefault(call.arm, []).append(call)
    return found


def arm_errors(live: Live) -> Table:
    calls = arms(live)["canary"]
    share = sum(call.attempts[0].error is not None for call in calls) / len(calls)
    assert share > 0.1
    return {"canary": (share * 0.5, min(1.0, share * 2))}


def mean(live: Live) -> Table:
    found: dict[str, list[float]] = {}
    for call in window(live):
        if deployment(call):
            found.setdefault(provider(call.deployment), []).append(1000 * call.seconds)
    means = {name: sum(all_) / len(all_) for name, all_ in found.items()}
    # What an open circuit refuses takes no time at all.
    refused = {provider(BROKEN): (0.0, 5.0)}
    return refused | {name: (value * 0.6 - 20, value * 1.35) for name, value in means.items()}


def usual(live: Live) -> Table:
    """The fault has changed two of them; the others' answers are so quick that luck decides on the bucket."""
    assert live.ended(WINDOW, SLOW)
    quick_ones = ("deepseek", "together", "fireworks", "cerebras", "x_ai", "openrouter")
    return {
        **dict.fromkeys(quick_ones, (0.0, 8.0)),
        "openai": (3.0, 17.0),
        "azure.ai.openai": (0.4, 2.5),
        "anthropic": (0.4, 2.5),
        "mistral_ai": (8, 100),
    }


def cache(live: Live, *, hit: bool) -> Table:
    return {"": rate(sum(call.cached is hit for call in window(live)))}


#: (dashboard, title) -> for each query what it must give, from the journal. A series without traffic in the
#: window (0, or no value) may be missing or there.
PANELS: dict[tuple[str, str], list[Callable[[Live], Table]]] = {
    ("overview", "Calls"): [lambda live: {"": rate(len(window(live)))}],
    ("overview", "Error rate"): [lambda live: {"": ratio(live)}],
    ("overview", "Latency, 95th percentile"): [
        lambda live: quantiles(window(live), 0.95, lambda _: "", lambda c: c.seconds)
    ],
    ("overview", "Time to first token, 95th percentile"): [
        lambda live: quantiles(
            [c for c in window(live) if c.first], 0.95, lambda _: "", lambda c: c.first or 0
        )
    ],
    ("overview", "Spend an hour"): [spend],
    ("overview", "Open circuits"): [lambda _: {"": (1, 2)}],
    ("overview", "Traffic by deployment"): [lambda live: rates(by(window(live), deployment))],
    ("overview", "Traffic share"): [share],
    ("overview", "Errors by kind"): [lambda live: rates(by(failed(live), lambda c: c.error))],
    ("overview", "Latency by provider, 95th percentile"): [lambda live: attempt_speed(live, provider)],
    ("overview", "Tokens a second"): [lambda live: tokens(live, lambda _, kind: kind)],
    ("overview", "Spend an hour by deployment"): [lambda live: spend(live, deployment)],
    ("latency", "Latency heatmap of $provider"): [heat],
    ("latency", "Call latency by deployment"): [
        lambda live, q=q: latency(live, q) for q in (0.5, 0.95, 0.99)
    ],
    ("latency", "Attempt latency by provider and region, 95th percentile"): [
        lambda live: attempt_speed(live, place)
    ],
    ("latency", "Latency against the hour before"): [usual],
    ("latency", "Mean latency by provider"): [mean],
    ("latency", "Time to first token"): [
        lambda live, q=q: quantiles(
            [c for c in window(live) if c.first], q, deployment, lambda c: c.first or 0
        )
        for q in (0.5, 0.95)
    ],
    ("latency", "Time between chunks, 95th percentile"): [
        lambda _: dict.fromkeys((SLOW, STEADY), (0.02, 0.08))
    ],
    ("reliability", "Error rate by deployment"): [
        lambda live: {name: ratio(live, name) for name in {deployment(call) for call in failed(live)}}
    ],
    ("reliability", "Errors by deployment and kind"): [
        lambda live: rates(by(failed(live), lambda c: "|".join(filter(None, [c.error, deployment(c)]))))
    ],
    ("reliability", "Failed attempts by provider and kind"): [
        lambda live: rates(
            dict(Counter(f"{one.error}|{provider(one.deployment)}" for one in attempts(live) if one.error))
        )
    ],
    ("reliability", "Retries"): [
        lambda live: rates(again(live, "retry", lambda before, one: f"{before.error}|{one.deployment}"))
    ],
    ("reliability", "Fallbacks"): [
        lambda live: rates(
            again(
                live, "fallback", lambda before, one: f"{before.error}|{before.deployment}|{one.deployment}"
            )
        )
    ],
    ("reliability", "Circuit states"): [lambda _: circuits()],
    ("reliability", "Queue depth"): [queue],
    ("reliability", "In flight"): [lambda _: {**dict.fromkeys(ALL, (0, 4)), SLOW: (7, 20), NARROW: (1, 1)}],
    ("reliability", "Canary: calls"): [
        lambda live: rates({arm: len(calls) for arm, calls in arms(live).items()})
    ],
    ("reliability", "Canary: error rate"): [arm_errors],
    ("reliability", "Canary: latency, 95th percentile"): [
        lambda live: dict.fromkeys(arms(live), (0.0, 0.08))
    ],
    ("reliability", "Canary: rolled back"): [lambda _: {NEW: exactly(1)}],
    ("reliability", "Mirror: copies"): [
        lambda live: {f"{SHADOW}|failed": rate(len(live.ended(WINDOW, MAIN)))}
    ],
    ("reliability", "Telemetry lost"): [
        lambda live: {"": rate(dropped(live))},
        lambda live: {"": rate(len(live.ended(WINDOW, NAMED)))},
    ],
    ("cost", "Spend in the time shown"): [
        lambda live: {
            "": (0.8 * sum(c.usd for c in live.ended(12)) - 3, 1.2 * sum(c.usd for c in live.ended(12)) + 3)
        }
    ],
    ("cost", "Spend an hour"): [spend],
    ("cost", "Cost of a thousand calls"): [
        lambda live: {
            "": (
                700 * sum(c.usd for c in paid(live)) / len(window(live)),
                1300 * sum(c.usd for c in paid(live)) / len(window(live)),
            )
        }
    ],
    ("cost", "Answers from the cache"): [lambda _: {"": (0.35, 0.65)}],
    ("cost", "Budgets used"): [used],
    ("cost", "Budgets: spent and limit"): [
        budgets,
        lambda _: {"router/day": exactly(DAY), "key:team/day": exactly(TEAM)},
    ],
    ("cost", "Spend an hour by model"): [lambda live: spend(live, lambda c: model(c.deployment))],
    ("cost", "Spend an hour by provider"): [lambda live: spend(live, lambda c: provider(c.deployment))],
    ("cost", "Tokens a second by model"): [
        lambda live: tokens(live, lambda c, kind: f"{model(c.deployment)}|{kind}")
    ],
    ("cost", "Tokens of a call, median"): [
        lambda live: {
            f"{model(name)}|{kind}": over(
                [c.tokens[kind] for c in paid(live) if c.deployment == name], 0.5, TOKEN_BOUNDS
            )
            for name in ALL
            for kind in ("input", "output")
            if any(c.deployment == name for c in paid(live))
        }
    ],
    ("cost", "Input read from the provider's cache"): [lambda _: {}],
    ("cost", "Response cache"): [lambda live: cache(live, hit=True), lambda live: cache(live, hit=False)],
}


def agrees(result: list[dict[str, Any]], wanted: Table, what: str) -> None:
    found = {named(series): float(series["value"][1]) for series in result}
    # What had no traffic in the window may have a series of nothing.
    found = {name: value for name, value in found.items() if name in wanted or value != 0}
    found = {name: value for name, value in found.items() if not math.isnan(value)}
    assert found.keys() <= wanted.keys(), f"{what}: {found.keys() - wanted.keys()} beyond {wanted}"
    for name, (low, high) in wanted.items():
        if name not in found:
            assert low <= 0, f"{what}: {name} is missing from {found}, should be within {low:g} to {high:g}"
        else:
            assert low - 1e-9 <= found[name] <= high + 1e-9, (
                f"{what}, {name or 'its one series'}: {found[name]} is not within {low:g} to {high:g}"
            )


@pytest.mark.parametrize(
    ("board", "title", "place", "expr"), TARGETS, ids=lambda value: str(value)[:60].replace("\n", " ")
)
def test_a_panel_shows_what_the_program_did(
    live: Live, board: str, title: str, place: int, expr: str
) -> None:
    wanted = PANELS[board, title][place](live)
    agrees(live.prometheus.query(filled(expr), live.asked), wanted, f"{board}: {title}, query {place + 1}")


def test_every_panel_has_an_entry_and_every_entry_a_panel() -> None:
    queries = Counter((board, title) for board, title, _, _ in TARGETS)
    assert queries == {name: len(tables) for name, tables in PANELS.items()}


#: Alert -> what it must fire for in the fault, and nothing else.
ALERTS = {
    "LiterLlmLatencySpike": {"openai", "mistral_ai"},
    "LiterLlmErrorRate": {"", LOADED},
    "LiterLlmErrorRateHigh": {"", LOADED},
    "LiterLlmBudgetBurn": {"router/day"},
    "LiterLlmBudgetExhausted": {"key:team/day"},
    "LiterLlmCircuitOpen": {BROKEN, SHADOW},
    "LiterLlmCanaryRolledBack": {NEW},
    "LiterLlmQueueGrowing": {NARROW},
    "LiterLlmRecordsDropped": {""},
}


@pytest.mark.parametrize("name", sorted(ALERT_RULES))
def test_an_alert_is_silent_in_the_calm_and_fires_in_the_fault(live: Live, name: str) -> None:
    expr = quick(ALERT_RULES[name]["expr"])
    firing = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
    assert live.prometheus.query(expr, live.calm) == []
    assert live.prometheus.query(firing, live.calm) == []
    ours = {"alertname", "alertstate", "severity", "job", "__name__"}

    def who(result: list[dict[str, Any]]) -> set[str]:
        return {
            "|".join(value for label, value in one["metric"].items() if label not in ours) for one in result
        }

    assert who(live.prometheus.query(expr, live.asked)) == ALERTS[name]
    assert who(live.prometheus.query(firing, live.asked)) == ALERTS[name]


def test_the_rules_evaluate_without_errors_and_every_record_has_series(live: Live) -> None:
    for group in live.prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] == "ok", rule
    for name in RECORD_RULES:
        assert live.prometheus.query(name, live.asked), name
    assert HORIZONS  # the windows of the rules are the test's own


def test_every_metric_that_a_panel_reads_is_one_of_the_exporter(live: Live) -> None:
    import re

    families = set(re.findall(r"^# TYPE (\S+)", live.page, re.MULTILINE))
    for _, title, _, expr in TARGETS:
        for name in re.findall(r"\b((?:gen_ai|llm|liter_llm)_\w+)\{", expr):
            base = re.sub(r"_(total|bucket|sum|count)$", "", name)
            assert base in families or name in families, f"{title}: {name}"
