"""Writes the Grafana dashboards into dashboards/*.json; `--check` tells whether those are current.

A dashboard is a list of panels, a panel one or more queries. Queries read the raw metrics, so that the
dashboards work without the recording rules. Every title is unique within its dashboard: the tests name
panels by it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cost import COST
from panels import (
    ATTEMPT,
    ATTEMPT_DURATION,
    BY_DEPLOYMENT,
    BY_KIND,
    BY_PROVIDER,
    CALL,
    CANARY_DURATION,
    DEP,
    DEPLOYMENT,
    DURATION,
    FAILED,
    FIRST_CHUNK,
    HOUR_BEFORE,
    JOB,
    LANE,
    LATENCY_MS,
    MODEL,
    OUTPUT_CHUNK,
    PROV,
    REQUEST_MODEL,
    SPEED,
    SPEND_PER_HOUR,
    STREAM,
    WINDOW,
    Json,
    Panel,
    Query,
    Steps,
    errors,
    quantile,
    rate,
    variable,
)

FOLDER = Path(__file__).resolve().parent / "dashboards"
# Grafana's schema of 11 and newer; older versions are migrated on loading.
SCHEMA_VERSION = 39
GRID_WIDTH = 24

ERROR_STEPS: Steps = (("green", None), ("orange", 0.01), ("red", 0.05))
LATENCY_STEPS: Steps = (("green", None), ("orange", 10), ("red", 30))
FIRST_CHUNK_STEPS: Steps = (("green", None), ("orange", 2), ("red", 5))
ANY_STEPS: Steps = (("green", None), ("red", 1))
OVERVIEW: list[Panel] = [
    Panel(
        "Calls",
        "Calls that ended, a second.",
        "reqps",
        [Query(rate(f"{DURATION}_count", CALL))],
        "stat",
        4,
        4,
    ),
    Panel(
        "Error rate",
        "The share of calls that ended in an error, after all retries and fallbacks: what callers saw.",
        "percentunit",
        [Query(errors(f"{DURATION}_count", CALL))],
        "stat",
        4,
        4,
        ERROR_STEPS,
    ),
    Panel(
        "Latency, 95th percentile",
        "The time of a whole call, queue, retries and fallbacks included; of a stream until its end.",
        "s",
        [Query(quantile(0.95, DURATION, CALL))],
        "stat",
        4,
        4,
        LATENCY_STEPS,
    ),
    Panel(
        "Time to first token, 95th percentile",
        "From the call to the first chunk of a stream.",
        "s",
        [Query(quantile(0.95, FIRST_CHUNK, STREAM))],
        "stat",
        4,
        4,
        FIRST_CHUNK_STEPS,
    ),
    Panel(
        "Spend an hour",
        "US dollars an hour at the present pace.",
        "currencyUSD",
        [Query(SPEND_PER_HOUR)],
        "stat",
        4,
        4,
    ),
    Panel(
        "Open circuits",
        "Deployments that get no calls because they failed; of several processes the worst counts.",
        "none",
        [Query(f"sum(max by (job, {DEP}) (liter_llm_circuit_state{{{LANE}}}) == bool 2)")],
        "stat",
        4,
        4,
        ANY_STEPS,
    ),
    Panel(
        "Traffic by deployment",
        "Calls a second, by the deployment that ended the call.",
        "reqps",
        [Query(rate(f"{DURATION}_count", CALL, DEP), BY_DEPLOYMENT)],
        stacked=True,
    ),
    Panel(
        "Traffic share",
        "The share of each deployment in all calls shown: where routing sends them.",
        "percentunit",
        [
            Query(
                f"{rate(f'{DURATION}_count', CALL, DEP)} / scalar({rate(f'{DURATION}_count', CALL)})",
                BY_DEPLOYMENT,
            )
        ],
        stacked=True,
        limits=(0, 1),
    ),
    Panel(
        "Errors by kind",
        "Failed calls a second by kind of error.",
        "reqps",
        [Query(rate(f"{DURATION}_count", f"{CALL}, {FAILED}", "error_type"), BY_KIND)],
        stacked=True,
    ),
    Panel(
        "Latency by provider, 95th percentile",
        "The time of attempts that were answered or ran out of time: the provider's own speed.",
        "s",
        [Query(quantile(0.95, ATTEMPT_DURATION, SPEED, PROV), BY_PROVIDER)],
        steps=LATENCY_STEPS,
    ),
    Panel(
        "Tokens a second",
        "Tokens by type. Input includes the provider's cache, read and written; output includes reasoning.",
        "none",
        [
            Query(
                rate("liter_llm_tokens_total", f"{JOB}, {DEPLOYMENT}, {MODEL}", "liter_llm_token_type"),
                "{{liter_llm_token_type}}",
            )
        ],
    ),
    Panel(
        "Spend an hour by deployment",
        "US dollars an hour at the present pace.",
        "currencyUSD",
        [Query(f"3600 * {rate('liter_llm_spend_usd_total', CALL, DEP)}", BY_DEPLOYMENT)],
        stacked=True,
    ),
]

LATENCY: list[Panel] = [
    Panel(
        "Latency heatmap of $provider",
        "Calls in each bucket of duration, by the provider that ended the call.",
        "short",
        [Query(f"sum by (le) (increase({DURATION}_bucket{{{CALL}}}{WINDOW}))", "{{le}}", "heatmap")],
        "heatmap",
        height=9,
        repeat="provider",
    ),
    Panel(
        "Call latency by deployment",
        "What callers waited: queue, retries and fallbacks included.",
        "s",
        [
            Query(quantile(0.5, DURATION, CALL, DEP), f"{BY_DEPLOYMENT} p50"),
            Query(quantile(0.95, DURATION, CALL, DEP), f"{BY_DEPLOYMENT} p95"),
            Query(quantile(0.99, DURATION, CALL, DEP), f"{BY_DEPLOYMENT} p99"),
        ],
        steps=LATENCY_STEPS,
    ),
    Panel(
        "Attempt latency by provider and region, 95th percentile",
        "Attempts that were answered or ran out of time.",
        "s",
        [
            Query(
                quantile(0.95, ATTEMPT_DURATION, SPEED, f"{PROV}, liter_llm_region"),
                f"{BY_PROVIDER} {{{{liter_llm_region}}}}",
            )
        ],
        steps=LATENCY_STEPS,
    ),
    Panel(
        "Latency against the hour before",
        "The 95th percentile of attempts as a multiple of that of the hour before. The alert fires at 3.",
        "none",
        [
            Query(
                f"{quantile(0.95, ATTEMPT_DURATION, SPEED, PROV)} / "
                f"{quantile(0.95, ATTEMPT_DURATION, SPEED, PROV, HOUR_BEFORE)}",
                BY_PROVIDER,
            )
        ],
        steps=(("green", None), ("orange", 2), ("red", 3)),
    ),
    Panel(
        "Mean latency by provider",
        "Mean of `llm_request_latency_ms`: the whole call in milliseconds.",
        "ms",
        [
            Query(
                f"{rate(f'{LATENCY_MS}_sum', CALL, PROV)} / {rate(f'{LATENCY_MS}_count', CALL, PROV)}",
                BY_PROVIDER,
            )
        ],
    ),
    Panel(
        "Time to first token",
        "From the call to the first chunk of a stream.",
        "s",
        [
            Query(quantile(0.5, FIRST_CHUNK, STREAM, DEP), f"{BY_DEPLOYMENT} p50"),
            Query(quantile(0.95, FIRST_CHUNK, STREAM, DEP), f"{BY_DEPLOYMENT} p95"),
        ],
        steps=FIRST_CHUNK_STEPS,
    ),
    Panel(
        "Time between chunks, 95th percentile",
        "How evenly a stream flows once it has begun.",
        "s",
        [Query(quantile(0.95, OUTPUT_CHUNK, STREAM, DEP), BY_DEPLOYMENT)],
        steps=(("green", None), ("orange", 0.5), ("red", 2)),
    ),
]

CIRCUITS: Json = {
    "type": "value",
    "options": {
        "0": {"text": "closed", "color": "green", "index": 0},
        "1": {"text": "half open", "color": "orange", "index": 1},
        "2": {"text": "open", "color": "red", "index": 2},
    },
}
ROLLED_BACK: Json = {
    "type": "value",
    "options": {
        "0": {"text": "on trial", "color": "green", "index": 0},
        "1": {"text": "rolled back", "color": "red", "index": 1},
    },
}
ARM = "{{liter_llm_arm}}"

RELIABILITY: list[Panel] = [
    Panel(
        "Error rate by deployment",
        "The share of calls that ended in an error, by the deployment that was tried last.",
        "percentunit",
        [Query(errors(f"{DURATION}_count", CALL, DEP), BY_DEPLOYMENT)],
        steps=ERROR_STEPS,
        limits=(0, 1),
    ),
    Panel(
        "Errors by deployment and kind",
        "Failed calls a second.",
        "reqps",
        [
            Query(
                rate(f"{DURATION}_count", f"{CALL}, {FAILED}", f"{DEP}, error_type"),
                f"{BY_DEPLOYMENT} {BY_KIND}",
            )
        ],
        stacked=True,
    ),
    Panel(
        "Failed attempts by provider and kind",
        "Attempts a second that failed, also where a retry or another deployment saved the call.",
        "reqps",
        [
            Query(
                rate(f"{ATTEMPT_DURATION}_count", f"{ATTEMPT}, {FAILED}", f"{PROV}, error_type"),
                f"{BY_PROVIDER} {BY_KIND}",
            )
        ],
        stacked=True,
    ),
    Panel(
        "Retries",
        "Attempts a second that repeated a failed one at the same deployment, by its error.",
        "reqps",
        [Query(rate("liter_llm_retries_total", LANE, f"{DEP}, error_type"), f"{BY_DEPLOYMENT} {BY_KIND}")],
    ),
    Panel(
        "Fallbacks",
        "Calls a second that went on to another deployment, by the error that sent them there.",
        "reqps",
        [
            Query(
                rate(
                    "liter_llm_fallbacks_total",
                    f'{JOB}, liter_llm_from=~"$deployment"',
                    "liter_llm_from, liter_llm_to, error_type",
                ),
                "{{liter_llm_from}} to {{liter_llm_to}}: {{error_type}}",
            )
        ],
    ),
    Panel(
        "Circuit states",
        "Of several processes the worst is shown.",
        "none",
        [Query(f"max by ({DEP}) (liter_llm_circuit_state{{{LANE}}})", BY_DEPLOYMENT)],
        "state-timeline",
        mappings=[CIRCUITS],
        steps=(("green", None), ("orange", 1), ("red", 2)),
        limits=(0, 2),
    ),
    Panel(
        "Queue depth",
        "Calls that wait for a free place of their deployment (`concurrency`, `rpm`, `tpm`).",
        "none",
        [Query(f"sum by ({DEP}) (liter_llm_queue_depth{{{LANE}}})", BY_DEPLOYMENT)],
        steps=(("green", None), ("orange", 10), ("red", 100)),
    ),
    Panel(
        "In flight",
        "Calls that are at a provider now.",
        "none",
        [Query(f"sum by ({DEP}) (liter_llm_in_flight{{{LANE}}})", BY_DEPLOYMENT)],
    ),
    Panel(
        "Canary: calls",
        "Calls a second of the canary and of the rest.",
        "reqps",
        [Query(rate("liter_llm_canary_calls_total", JOB, "liter_llm_arm"), ARM)],
        width=8,
    ),
    Panel(
        "Canary: error rate",
        "The share of failures of each arm. The router's guard compares the same.",
        "percentunit",
        [Query(errors("liter_llm_canary_calls_total", JOB, "liter_llm_arm"), ARM)],
        width=8,
        steps=ERROR_STEPS,
    ),
    Panel(
        "Canary: latency, 95th percentile",
        "Calls of each arm that succeeded.",
        "s",
        [Query(quantile(0.95, CANARY_DURATION, f'{JOB}, error_type=""', "liter_llm_arm"), ARM)],
        width=8,
    ),
    Panel(
        "Canary: rolled back",
        "Whether its guard has taken the canary out; the router's report says why.",
        "none",
        [Query(f"max by ({DEP}) (liter_llm_canary_rolled_back{{{LANE}}})", BY_DEPLOYMENT)],
        "state-timeline",
        mappings=[ROLLED_BACK],
        steps=(("green", None), ("red", 1)),
        limits=(0, 1),
        height=6,
    ),
    Panel(
        "Mirror: copies",
        "Copies of calls a second, by what came of them. No answer waits for one.",
        "reqps",
        [
            Query(
                rate("liter_llm_mirror_calls_total", LANE, f"{DEP}, liter_llm_outcome"),
                f"{BY_DEPLOYMENT} {{{{liter_llm_outcome}}}}",
            )
        ],
        height=6,
    ),
    Panel(
        "Telemetry lost",
        "Call records that a full queue dropped; names folded into one to keep the label sets bounded.",
        "cps",
        [
            Query(rate("liter_llm_records_dropped_total", JOB), "records dropped"),
            Query(rate("liter_llm_labels_folded_total", JOB), "labels folded"),
        ],
        width=24,
        height=6,
    ),
]

DASHBOARDS: dict[str, tuple[str, list[Panel]]] = {
    "overview": ("Liter-LLM: overview", OVERVIEW),
    "latency": ("Liter-LLM: latency", LATENCY),
    "reliability": ("Liter-LLM: reliability", RELIABILITY),
    "cost": ("Liter-LLM: tokens and spend", COST),
}


VARIABLES: list[Json] = [
    {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1},
    variable("job", "Job", "job", f"{DURATION}_count"),
    variable("provider", "Provider", PROV, f'{DURATION}_count{{job=~"$job"}}'),
    variable("deployment", "Deployment", DEP, f'{DURATION}_count{{job=~"$job"}}'),
    variable("model", "Model", REQUEST_MODEL, f'{DURATION}_count{{job=~"$job"}}'),
]


def dashboard(name: str) -> Json:
    """The dashboard of this name as Grafana's JSON has it; panels flow from left to right."""
    title, panels = DASHBOARDS[name]
    built: list[Json] = []
    x = y = tallest = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > GRID_WIDTH:
            x, y, tallest = 0, y + tallest, 0
        built.append(panel.build(number, x, y))
        x, tallest = x + panel.width, max(tallest, panel.height)
    return {
        "uid": f"liter-llm-{name}",
        "title": title,
        "tags": ["liter-llm"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "type": "dashboards",
                "tags": ["liter-llm"],
                "title": "Liter-LLM",
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": VARIABLES},
        "annotations": {"list": []},
        "panels": built,
    }


def render(name: str) -> str:
    """The text of the committed file."""
    return json.dumps(dashboard(name), indent=2) + "\n"


def main(arguments: list[str]) -> int:
    """Writes the files, or with `--check` names those that differ and returns 1."""
    if arguments not in ([], ["--check"]):
        print("usage: dashboards.py [--check]", file=sys.stderr)
        return 2
    wanted = {FOLDER / f"{name}.json": render(name) for name in DASHBOARDS}
    stale = [
        path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    stale += [path for path in FOLDER.glob("*.json") if path not in wanted]
    if arguments:
        for path in stale:
            print(f"{path.name} is not what dashboards.py makes", file=sys.stderr)
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for path in stale:
        if path in wanted:
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
