"""What every query must give nine seconds into the fault: worked out from the table of traffic.

A result is a table of series. A series is named by its label values in the order of their label names; each
value is the pair of bounds between which the answer must lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .exposition import (
    ATTEMPTS,
    BUDGETS,
    CACHE_HITS,
    CACHE_MISSES,
    CACHE_READ,
    CALLS,
    CANARY,
    CIRCUITS,
    DROPPED,
    FALLBACKS,
    FIRST_CHUNK,
    FOLDED,
    IN_FLIGHT,
    INPUT,
    LOADED,
    MEMBERS,
    MIRROR,
    NEW,
    OUTPUT,
    QUEUE,
    QUEUE_GROWTH,
    REGIONS,
    RETRIES,
    ROLLED_BACK,
    SECONDS,
    SLOW,
    STEADY,
    TOKEN_TYPES,
    TOKENS,
    USD,
    Flow,
    Lane,
)

Bounds = tuple[float, float]
Table = dict[str, Bounds]

# Seconds from the fault to the moment at which the queries are asked.
AFTER = 9.0
# The test's stand-ins for the windows of the queries: a scrape every second instead of every 15 or 30.
WINDOWS = {"$__rate_interval": 6.0, "$__range": 12.0, "5m": 6.0, "10m": 6.0, "15m": 6.0, "1h": 15.0}
# The hour before must lie before the fault, as it does in an operator's first minutes.
OFFSETS = {"5m": 10.0}
# How far ahead the budget alert looks, and how long an alert must hold.
HORIZONS = {"1800": 30.0}
HOLD = "1s"
# Counters are whole numbers, scrapes are not exactly a second apart, and a loaded machine is late.
TOLERANCE = 0.15


def near(value: float) -> Bounds:
    return (value * (1 - TOLERANCE) - 1e-9, value * (1 + TOLERANCE) + 1e-9)


def exactly(value: float) -> Bounds:
    return (value - 1e-9, value + 1e-9)


def one(value: float) -> Table:
    return {"": near(value)}


def fault(lanes: Iterable[Lane]) -> float:
    return sum(lane.flow.fault for lane in lanes)


def bucket(q: float, observed: Iterable[tuple[float, float]], bounds: tuple[float, ...] = SECONDS) -> Bounds:
    """The bucket in which the quantile of (value, weight) lies: what a histogram can tell of it."""
    rows = sorted(observed)
    rank = q * sum(weight for _, weight in rows)
    passed = 0.0
    for value, weight in rows:
        passed += weight
        if passed >= rank:
            upper = next(bound for bound in bounds if value <= bound)
            lower = max((bound for bound in bounds if bound < upper), default=0.0)
            return (lower, upper)
    raise AssertionError("nothing was observed")


def late(lanes: Iterable[Lane]) -> list[tuple[float, float]]:
    return [(lane.seconds[1], lane.flow.fault) for lane in lanes if lane.flow.fault]


def of(deployment: str, lanes: Iterable[Lane] = CALLS) -> list[Lane]:
    return [lane for lane in lanes if lane.deployment == deployment]


def failed(lanes: Iterable[Lane]) -> list[Lane]:
    return [lane for lane in lanes if lane.error]


def answered(lanes: Iterable[Lane]) -> list[Lane]:
    return [lane for lane in lanes if lane.error in {"", "timeout"}]


def provider(deployment: str) -> str:
    return MEMBERS[deployment]["gen_ai_provider_name"]


def model(deployment: str) -> str:
    return MEMBERS[deployment]["gen_ai_request_model"]


def each(table: Mapping[str, float]) -> Table:
    return {name: near(value) for name, value in table.items()}


SUCCEEDED = [lane for lane in CALLS if not lane.error]
GOOD = {name: sum(lane.flow.fault for lane in of(name) if not lane.error) for name in MEMBERS}
TRAFFIC = {name: fault(of(name)) for name in MEMBERS}
ALL = fault(CALLS)
SPEND = {name: 3600 * USD[name] * GOOD[name] for name in MEMBERS}
FIRST = {name: [(FIRST_CHUNK[name][1], GOOD[name])] for name in MEMBERS}
ERROR_RATE = {
    name: exactly(0) if not failed(of(name)) else near(fault(failed(of(name))) / TRAFFIC[name])
    for name in MEMBERS
}
SPEED = {provider(name): bucket(0.95, late(answered(of(name, ATTEMPTS)))) for name in MEMBERS}
ATTEMPT_ERRORS = {f"{lane.error}|{provider(lane.deployment)}": lane.flow.fault for lane in failed(ATTEMPTS)}
QUEUES: Table = {
    # Read at the last scrape, at most two seconds ago.
    name: (
        depth[1] + (QUEUE_GROWTH * (AFTER - 2) if name == SLOW else 0),
        depth[1] + (QUEUE_GROWTH * AFTER if name == SLOW else 0),
    )
    for name, depth in QUEUE.items()
}
SPENT: Table = {
    name: (row[2] + row[3] * (AFTER - 2) - 1e-9, row[2] + row[3] * AFTER + 1e-9)
    for name, row in BUDGETS.items()
}
USED: Table = {name: (SPENT[name][0] / row[0], SPENT[name][1] / row[0]) for name, row in BUDGETS.items()}
HITS, MISSES = CACHE_HITS.fault, CACHE_MISSES.fault
ARMS = {
    arm: sum(flow.fault for (other, _), (flow, _) in CANARY.items() if other == arm)
    for arm in ("canary", "rest")
}


def spread(flow: Flow, window: float) -> float:
    """The growth of a counter over a window that ends at the moment of asking."""
    return flow.total(max(window - AFTER, 0), min(window, AFTER))


def heat() -> Table:
    window = WINDOWS["$__rate_interval"]
    table = {
        f"{bound:g}": near(window * sum(weight for value, weight in late(CALLS) if value <= bound))
        for bound in SECONDS
    }
    return {**table, "+Inf": near(window * ALL)}


LATENCIES = [{name: bucket(q, late(of(name))) for name in MEMBERS} for q in (0.5, 0.95, 0.99)]

# (dashboard, title of the panel) -> a table for each of its queries, in their order.
PANELS: dict[tuple[str, str], list[Table]] = {
    ("overview", "Calls"): [one(ALL)],
    ("overview", "Error rate"): [one(fault(failed(CALLS)) / ALL)],
    ("overview", "Latency, 95th percentile"): [{"": bucket(0.95, late(CALLS))}],
    ("overview", "Time to first token, 95th percentile"): [
        {"": bucket(0.95, [row for rows in FIRST.values() for row in rows])}
    ],
    ("overview", "Spend an hour"): [one(sum(SPEND.values()))],
    ("overview", "Open circuits"): [{"": exactly(sum(states[1] == 2 for states in CIRCUITS.values()))}],
    ("overview", "Traffic by deployment"): [each(TRAFFIC)],
    ("overview", "Traffic share"): [each({name: flow / ALL for name, flow in TRAFFIC.items()})],
    ("overview", "Errors by kind"): [each({lane.error: lane.flow.fault for lane in failed(CALLS)})],
    ("overview", "Latency by provider, 95th percentile"): [SPEED],
    ("overview", "Tokens a second"): [
        each({kind: tokens * sum(GOOD.values()) for kind, tokens in TOKEN_TYPES.items()})
    ],
    ("overview", "Spend an hour by deployment"): [each(SPEND)],
    ("latency", "Latency heatmap of $provider"): [heat()],
    ("latency", "Call latency by deployment"): LATENCIES,
    ("latency", "Attempt latency by provider and region, 95th percentile"): [
        {f"{provider(name)}|{REGIONS[name]}": SPEED[provider(name)] for name in MEMBERS}
    ],
    ("latency", "Latency against the hour before"): [
        # From 0.95 of the way through the bucket up to 0.64 s to the same place in that up to 5.12 s.
        each({provider(SLOW): 8.0, provider(STEADY): 1.0, provider(LOADED): 1.0})
    ],
    ("latency", "Mean latency by provider"): [
        each(
            {
                provider(name): 1000 * sum(value * weight for value, weight in late(of(name))) / TRAFFIC[name]
                for name in MEMBERS
            }
        )
    ],
    ("latency", "Time to first token"): [
        {name: bucket(q, rows) for name, rows in FIRST.items()} for q in (0.5, 0.95)
    ],
    ("latency", "Time between chunks, 95th percentile"): [dict.fromkeys(MEMBERS, (0.02, 0.04))],
    ("reliability", "Error rate by deployment"): [ERROR_RATE],
    ("reliability", "Errors by deployment and kind"): [
        each({f"{lane.error}|{lane.deployment}": lane.flow.fault for lane in failed(CALLS)})
    ],
    ("reliability", "Failed attempts by provider and kind"): [each(ATTEMPT_ERRORS)],
    ("reliability", "Retries"): [
        each({f"{error}|{deployment}": flow.fault for (deployment, error), flow in RETRIES.items()})
    ],
    ("reliability", "Fallbacks"): [
        each({f"{error}|{left}|{taken}": flow.fault for (left, taken, error), flow in FALLBACKS.items()})
    ],
    ("reliability", "Circuit states"): [{name: exactly(states[1]) for name, states in CIRCUITS.items()}],
    ("reliability", "Queue depth"): [QUEUES],
    ("reliability", "In flight"): [{name: exactly(number[1]) for name, number in IN_FLIGHT.items()}],
    ("reliability", "Canary: calls"): [each(ARMS)],
    ("reliability", "Canary: error rate"): [
        {"canary": near(CANARY["canary", "timeout"][0].fault / ARMS["canary"]), "rest": exactly(0)}
    ],
    ("reliability", "Canary: latency, 95th percentile"): [
        {arm: bucket(0.95, [(CANARY[arm, ""][1], 1)]) for arm in ("canary", "rest")}
    ],
    ("reliability", "Canary: rolled back"): [{NEW: exactly(ROLLED_BACK[1])}],
    ("reliability", "Mirror: copies"): [
        each({f"{NEW}|{outcome}": flow.fault for outcome, flow in MIRROR.items()})
    ],
    ("reliability", "Telemetry lost"): [one(DROPPED.fault), one(FOLDED.fault)],
    ("cost", "Spend in the time shown"): [
        one(sum(USD[lane.deployment] * spread(lane.flow, WINDOWS["$__range"]) for lane in SUCCEEDED))
    ],
    ("cost", "Spend an hour"): [one(sum(SPEND.values()))],
    ("cost", "Cost of a thousand calls"): [one(1000 * sum(SPEND.values()) / 3600 / ALL)],
    ("cost", "Answers from the cache"): [one(HITS / (HITS + MISSES))],
    ("cost", "Budgets used"): [USED],
    ("cost", "Budgets: spent and limit"): [SPENT, {name: exactly(row[0]) for name, row in BUDGETS.items()}],
    ("cost", "Spend an hour by model"): [each({model(name): usd for name, usd in SPEND.items()})],
    ("cost", "Spend an hour by provider"): [each({provider(name): usd for name, usd in SPEND.items()})],
    ("cost", "Tokens a second by model"): [
        each(
            {
                f"{model(name)}|{kind}": tokens * GOOD[name]
                for name in MEMBERS
                for kind, tokens in (("input", INPUT), ("output", OUTPUT))
            }
        )
    ],
    ("cost", "Tokens of a call, median"): [
        {
            f"{model(name)}|{kind}": bucket(0.5, [(tokens, 1)], TOKENS)
            for name in MEMBERS
            for kind, tokens in (("input", INPUT), ("output", OUTPUT))
        }
    ],
    ("cost", "Input read from the provider's cache"): [each(dict.fromkeys(MEMBERS, CACHE_READ / INPUT))],
    ("cost", "Response cache"): [one(HITS), one(MISSES)],
}

JOB = "liter-llm"
HOUR = WINDOWS["1h"]

# Name of the recording rule -> its series. `job` is a label of all.
RECORDS: dict[str, Table] = {
    "liter_llm:calls:rate5m": each(
        {f"{provider(name)}|{JOB}|{name}": flow for name, flow in TRAFFIC.items()}
    ),
    "liter_llm:errors:rate5m": each(
        {
            f"{lane.error}|{provider(lane.deployment)}|{JOB}|{lane.deployment}": lane.flow.fault
            for lane in failed(CALLS)
        }
    ),
    "liter_llm:error_ratio:rate5m": {f"{JOB}|{name}": bounds for name, bounds in ERROR_RATE.items()},
    "liter_llm:attempts:rate5m": each(
        {f"{provider(name)}|{JOB}": fault(answered(of(name, ATTEMPTS))) for name in MEMBERS}
    ),
    "liter_llm:attempt_seconds:p95_5m": {f"{name}|{JOB}": bounds for name, bounds in SPEED.items()},
    "liter_llm:attempt_seconds:p95_1h": {
        f"{provider(name)}|{JOB}": bucket(0.95, [(of(name, ATTEMPTS)[0].seconds[0], 1)]) for name in MEMBERS
    },
    "liter_llm:first_chunk_seconds:p95_5m": {
        f"{JOB}|{name}": bucket(0.95, rows) for name, rows in FIRST.items()
    },
    "liter_llm:spend_usd:per_hour": each(
        {
            f"{JOB}|{name}": 3600
            / HOUR
            * sum(USD[name] * spread(lane.flow, HOUR) for lane in of(name) if not lane.error)
            for name in MEMBERS
        }
    ),
    "liter_llm:queue_depth:sum": {
        f"{JOB}|{name}": (low - QUEUE_GROWTH, high) for name, (low, high) in QUEUES.items()
    },
    "liter_llm:budget_used:ratio": {
        f"{JOB}|{name}": (low - 0.03, high) for name, (low, high) in USED.items()
    },
}

# Name of the alert -> the series for which its expression is true; all of them must then be firing.
ALERTS: dict[str, Table] = {
    "LiterLlmLatencySpike": {f"{provider(SLOW)}|{JOB}": SPEED[provider(SLOW)]},
    "LiterLlmErrorRate": {f"{JOB}|{name}": ERROR_RATE[name] for name in (SLOW, LOADED)},
    "LiterLlmErrorRateHigh": {f"{JOB}|{LOADED}": ERROR_RATE[LOADED]},
    "LiterLlmBudgetBurn": {
        f"{JOB}|day": near(
            (BUDGETS["day"][2] + BUDGETS["day"][3] * (AFTER + HORIZONS["1800"])) / BUDGETS["day"][0]
        )
    },
    "LiterLlmBudgetExhausted": {f"{JOB}|team": exactly(1)},
    "LiterLlmCircuitOpen": {f"{JOB}|{SLOW}": exactly(2), f"{JOB}|{LOADED}": exactly(1)},
    "LiterLlmCanaryRolledBack": {f"{JOB}|{NEW}": exactly(ROLLED_BACK[1])},
    "LiterLlmQueueGrowing": {f"{JOB}|{SLOW}": (QUEUES[SLOW][0] - QUEUE_GROWTH, QUEUES[SLOW][1])},
    "LiterLlmRecordsDropped": {JOB: near(WINDOWS["10m"] * DROPPED.fault)},
}
