"""Every panel, rule and alert over the real exporter, against the journal of the program that it exports."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from .asking import filled, quick
from .expected import HORIZONS, OFFSETS, SECONDS, WINDOWS, Bounds, Table, exactly
from .expected import TOKENS as TOKEN_BOUNDS
from .live import (
    BROKEN,
    CACHED,
    DAY,
    DEAR,
    DELAYS,
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
    TOKENS,
    USD_A_CALL,
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


def rate(live: Live, count: float, a_count: float = 1.0) -> Bounds:
    """So many events between the scrapes of a window, as a rate; a page is made after its scrape begins."""
    slack = max(0.25 * count, 2.5 * a_count)
    scale = live.window(WINDOW).scale
    return (max(0.0, count - slack) * scale, (count + slack) * scale)


def rates(live: Live, counts: dict[str, float]) -> Table:
    return {name: rate(live, count) for name, count in counts.items() if count}


def times(factor: float, table: Table) -> Table:
    return {name: (low * factor, high * factor) for name, (low, high) in table.items()}


def by(
    calls: Iterable[Call], key: Callable[[Call], str], of: Callable[[Call], float] = lambda _: 1
) -> dict[str, float]:
    found: Counter[str] = Counter()
    for call in calls:
        found[key(call)] += of(call)  # type: ignore[assignment]
    return dict(found)


def over(rows: list[Bounds], q: float, bounds: tuple[float, ...] = SECONDS, spare: int = 1) -> Bounds:
    """Between which bounds of buckets a quantile lies, of values of which the least and the most are known.

    `spare`: so many of the values may be missing in the histogram.
    """
    assert rows, "nothing was observed"
    rank = math.ceil(q * len(rows)) - 1
    least = sorted(low for low, _ in rows)[max(0, rank - spare)]
    most = sorted(high for _, high in rows)[min(len(rows) - 1, rank + spare)]
    lower = max((bound for bound in bounds if bound < least), default=0.0)
    return (lower, next(bound for bound in bounds if bound >= most))


def quantiles(
    live: Live,
    q: float,
    key: Callable[[Call], str],
    of: Callable[[Call], list[Bounds]] = lambda call: [(call.least, call.seconds)],
    within: Callable[[Call], bool] = lambda _: True,
    *,
    seconds: float = WINDOW,
    before: float = 0.0,
) -> Table:
    """Of what the calls of a window, and perhaps those at its edges, have observed."""
    uncertain = {id(call) for call in live.uncertain(seconds, before)}
    sure = {id(call) for call in live.ended(seconds, before=before)}
    grouped: dict[str, list[Bounds]] = {}
    spare: Counter[str] = Counter()
    for call in live.journal:
        values = of(call) if id(call) in uncertain | sure and within(call) else []
        if values:
            grouped.setdefault(key(call), []).extend(values)
            spare[key(call)] += len(values) if id(call) in uncertain else 0
    return {name: over(rows, q, spare=spare[name] + 1) for name, rows in grouped.items()}


def first_chunk(call: Call) -> list[Bounds]:
    return [call.first] if call.first else []


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
    slack = 0.3 * share + 1 / len(calls)
    return exactly(share) if share in (0, 1) else (share - slack, share + slack)


def share(live: Live) -> Table:
    counts = by(window(live), deployment)
    total = sum(counts.values())
    return {
        name: (max(0, count / total * 0.75 - 0.02), count / total * 1.25 + 0.02)
        for name, count in counts.items()
    }


def attempt_speed(
    live: Live, key: Callable[[str], str], seconds: float = WINDOW, before: float = 0.0
) -> Table:
    """Of attempts that were answered: a call's last one, and of a stream it lasts to the stream's end."""

    def last(call: Call) -> list[Bounds]:
        if not call.attempts or call.attempts[-1].error is not None:
            return []
        attempt = call.attempts[-1]
        return [
            (call.least - attempt.started, call.seconds - attempt.started)
            if call.first
            else (attempt.duration, attempt.duration)
        ]

    return quantiles(live, 0.95, lambda call: key(call.deployment), last, seconds=seconds, before=before)


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
    return {name: rate(live, count, most[name]) for name, count in found.items() if count}


def spend(live: Live, key: Callable[[Call], str] = lambda _: "") -> Table:
    found = by(paid(live), key, lambda call: call.usd)
    highest: dict[str, float] = {}
    for call in paid(live):
        highest[key(call)] = max(highest.get(key(call), 0.0), call.usd)
    return times(3600, {name: rate(live, usd, highest[name]) for name, usd in found.items() if usd})


def total(live: Live, within: Callable[[Call], bool]) -> Bounds:
    """What some calls have cost from the start until the last scrape, and a call at once more or less."""
    last = live.window(WINDOW)
    calls = [call for call in live.journal if within(call)]
    surely = sum(call.usd for call in calls if call.ended <= last.last)
    perhaps = sum(call.usd for call in calls if call.began <= last.last + last.late)
    return (surely - USD_A_CALL, perhaps + USD_A_CALL)


def budgets(live: Live) -> Table:
    return {
        "router/day": total(live, lambda _: True),
        "key:team/day": total(live, lambda call: call.key == "team"),
    }


def used(live: Live) -> Table:
    limits = {"router/day": DAY, "key:team/day": TEAM}
    return {name: (low / limits[name], high / limits[name]) for name, (low, high) in budgets(live).items()}


def heat(live: Live) -> Table:
    calls = window(live)
    table = {
        f"{bound:g}": (
            rate(live, sum(call.seconds <= bound for call in calls))[0] * WINDOW,
            rate(live, sum(call.least <= bound for call in calls))[1] * WINDOW,
        )
        for bound in SECONDS
    }
    return {**table, "+Inf": times(WINDOW, {"": rate(live, len(calls))})[""]}


def circuits() -> Table:
    # A circuit that was opened more than its time ago may be half open.
    return {BROKEN: (1, 2), SHADOW: (1, 2)}


def under_way(live: Live, *deployments: str) -> Bounds:
    """How many calls the last page may have as under way: surely, and at most."""
    last = live.window(WINDOW)
    calls = [call for call in live.journal if call.deployment in deployments]
    surely = sum(c.ended - c.least < last.last and last.last + last.late < c.began + c.least for c in calls)
    return (surely, sum(call.began < last.last + last.late and last.last < call.ended for call in calls))


def queue(live: Live) -> Table:
    waiting = under_way(live, NARROW)[1]
    # One of them is under way, and the page is made while calls come and go.
    return {NARROW: (max(1, waiting - 4), waiting)}


def in_flight(live: Live) -> Table:
    """Calls that go from one deployment to another, and copies, are counted where they are."""
    table = {name: (0.0, 4 + under_way(live, name)[1]) for name in (*ALL, BROKEN, SHADOW)}
    return table | {SLOW: under_way(live, SLOW), NARROW: (0, 1)}


def dropped(live: Live) -> float:
    inside = [count for at, count in live.dropped if live.window(WINDOW).has(at)]
    return inside[-1] - inside[0]


def arms(live: Live) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {}
    for call in window(live):
        if call.arm:
            found.setdefault(call.arm, []).append(call)
    return found


def first_try(call: Call) -> list[Bounds]:
    """Of a call that takes part in the canary, its first attempt, which is what is compared."""
    if not call.arm or call.attempts[0].error is not None:
        return []
    return [(call.attempts[0].duration, call.seconds)]


def arm_errors(live: Live) -> Table:
    calls = arms(live)["canary"]
    share = sum(call.attempts[0].error is not None for call in calls) / len(calls)
    assert share > 0.1
    return {"canary": (share * 0.5, min(1.0, share * 2))}


def mean(live: Live) -> Table:
    # What an open circuit refuses has a provider too.
    found: dict[str, list[Call]] = {}
    for call in window(live):
        found.setdefault(provider(call.deployment), []).append(call)
    edges = {name: [c for c in live.uncertain(WINDOW) if provider(c.deployment) == name] for name in found}
    table: Table = {}
    for name, calls in found.items():
        least = sum(call.least for call in calls) / (len(calls) + len(edges[name]))
        most = sum(call.seconds for call in calls + edges[name]) / max(1, len(calls) - len(edges[name]))
        table[name] = (1000 * least * 0.9 - 5, 1000 * most * 1.1 + 5)
    return table


def usual(live: Live) -> Table:
    """How many times what they took in the time before, which ends before the fault."""
    now = attempt_speed(live, provider)
    then = attempt_speed(live, provider, WINDOWS["1h"], OFFSETS["5m"])
    table = {
        name: (now[name][0] / then[name][1], now[name][1] / then[name][0] if then[name][0] else math.inf)
        for name in now.keys() & then.keys()
    }
    # The bucket of a second and a half: the fault is there.
    assert now["openai"][0] == now["mistral_ai"][0] == 1.28
    return table


def cache(live: Live, *, hit: bool) -> Table:
    return {"": rate(live, sum(call.cached is hit for call in window(live)))}


#: (dashboard, title) -> for each query what it must give, from the journal. A series without traffic in the
#: window (0, or no value) may be missing or there.
PANELS: dict[tuple[str, str], list[Callable[[Live], Table]]] = {
    ("overview", "Calls"): [lambda live: {"": rate(live, len(window(live)))}],
    ("overview", "Error rate"): [lambda live: {"": ratio(live)}],
    ("overview", "Latency, 95th percentile"): [lambda live: quantiles(live, 0.95, lambda _: "")],
    ("overview", "Time to first token, 95th percentile"): [
        lambda live: quantiles(live, 0.95, lambda _: "", first_chunk)
    ],
    ("overview", "Spend an hour"): [spend],
    ("overview", "Open circuits"): [lambda _: {"": (1, 2)}],
    ("overview", "Traffic by deployment"): [lambda live: rates(live, by(window(live), deployment))],
    ("overview", "Traffic share"): [share],
    ("overview", "Errors by kind"): [lambda live: rates(live, by(failed(live), lambda c: c.error))],
    ("overview", "Latency by provider, 95th percentile"): [lambda live: attempt_speed(live, provider)],
    ("overview", "Tokens a second"): [lambda live: tokens(live, lambda _, kind: kind)],
    ("overview", "Spend an hour by deployment"): [lambda live: spend(live, deployment)],
    ("latency", "Latency heatmap of $provider"): [heat],
    ("latency", "Call latency by deployment"): [
        lambda live, q=q: quantiles(live, q, deployment) for q in (0.5, 0.95, 0.99)
    ],
    ("latency", "Attempt latency by provider and region, 95th percentile"): [
        lambda live: attempt_speed(live, place)
    ],
    ("latency", "Latency against the hour before"): [usual],
    ("latency", "Mean latency by provider"): [mean],
    ("latency", "Time to first token"): [
        lambda live, q=q: quantiles(live, q, deployment, first_chunk) for q in (0.5, 0.95)
    ],
    ("latency", "Time between chunks, 95th percentile"): [
        lambda live: quantiles(live, 0.95, deployment, lambda call: call.gaps)
    ],
    ("reliability", "Error rate by deployment"): [
        lambda live: {name: ratio(live, name) for name in {deployment(call) for call in failed(live)}}
    ],
    ("reliability", "Errors by deployment and kind"): [
        lambda live: rates(live, by(failed(live), lambda c: "|".join(filter(None, [c.error, deployment(c)]))))
    ],
    ("reliability", "Failed attempts by provider and kind"): [
        lambda live: rates(
            live,
            dict(Counter(f"{one.error}|{provider(one.deployment)}" for one in attempts(live) if one.error)),
        )
    ],
    ("reliability", "Retries"): [
        lambda live: rates(live, again(live, "retry", lambda before, one: f"{before.error}|{one.deployment}"))
    ],
    ("reliability", "Fallbacks"): [
        lambda live: rates(
            live,
            again(
                live, "fallback", lambda before, one: f"{before.error}|{before.deployment}|{one.deployment}"
            ),
        )
    ],
    ("reliability", "Circuit states"): [lambda _: circuits()],
    ("reliability", "Queue depth"): [queue],
    ("reliability", "In flight"): [in_flight],
    ("reliability", "Canary: calls"): [
        lambda live: rates(live, {arm: len(calls) for arm, calls in arms(live).items()})
    ],
    ("reliability", "Canary: error rate"): [arm_errors],
    ("reliability", "Canary: latency, 95th percentile"): [
        lambda live: quantiles(live, 0.95, lambda call: call.arm or "", first_try)
    ],
    ("reliability", "Canary: rolled back"): [lambda _: {NEW: exactly(1)}],
    ("reliability", "Mirror: copies"): [
        lambda live: {f"{SHADOW}|failed": rate(live, len(live.ended(WINDOW, MAIN)))}
    ],
    ("reliability", "Telemetry lost"): [
        lambda live: {"": rate(live, dropped(live))},
        lambda live: {"": rate(live, len(live.ended(WINDOW, NAMED)))},
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
                [(c.tokens[kind],) * 2 for c in paid(live) if c.deployment == name], 0.5, TOKEN_BOUNDS
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


def test_the_times_of_answers_lie_between_the_providers_and_the_callers(live: Live) -> None:
    # What the panels are compared with: the provider is never early, the caller hears of it afterwards.
    for call in live.journal:
        assert call.least <= call.seconds + 0.001, call
        if not call.error and call.attempts and call.deployment in DELAYS:
            assert call.attempts[-1].duration >= DELAYS[call.deployment][0] / 1000 - 0.001, call
    streams = [call for call in live.journal if call.first]
    assert len(streams) > 100
    assert {len(call.gaps) for call in streams} == {TOKENS - 1}


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
