"""Panels and PromQL: what the dashboards are put together from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
WINDOW = "[$__rate_interval]"
HOUR_BEFORE = "[1h] offset 5m"

# What the variables on top of a dashboard hold. A metric is filtered by those of these labels that it has.
JOB = 'job=~"$job"'
DEPLOYMENT = 'liter_llm_deployment=~"$deployment"'
MODEL = 'gen_ai_request_model=~"$model"'
PROVIDER = 'gen_ai_provider_name=~"$provider"'
CALL = f"{JOB}, {PROVIDER}, {DEPLOYMENT}, {MODEL}"
STREAM = CALL
ATTEMPT = f"{JOB}, {PROVIDER}, {DEPLOYMENT}"
LANE = f"{JOB}, {DEPLOYMENT}"

DURATION = "gen_ai_client_operation_duration_seconds"
FIRST_CHUNK = "gen_ai_client_operation_time_to_first_chunk_seconds"
OUTPUT_CHUNK = "gen_ai_client_operation_time_per_output_chunk_seconds"
LATENCY_MS = "llm_request_latency_ms"
TOKEN_USAGE = "gen_ai_client_token_usage"  # noqa: S105 - tokens of a model, no secret
ATTEMPT_DURATION = "liter_llm_attempt_duration_seconds"
CANARY_DURATION = "liter_llm_canary_duration_seconds"
# Attempts that show how fast a provider is: answered, or given up for its silence. A refusal comes back at
# once and would make a failing provider look fast.
ANSWERED = 'error_type=~"|timeout"'
FAILED = 'error_type!=""'
# Who leaves a stream early has what he wanted: that is no error of anybody's.
WENT_WRONG = 'error_type!~"|cancelled"'
SPEED = f"{ATTEMPT}, {ANSWERED}"

Steps = Sequence[tuple[str, float | None]]
PLAIN: Steps = (("green", None),)


@dataclass(frozen=True)
class Query:
    """One query of a panel; `legend` is Grafana's template for the name of a series."""

    expr: str
    legend: str = ""
    form: str = "time_series"


@dataclass(frozen=True)
class Panel:
    """A panel: what it shows, in which unit (Grafana's unit ids), how it is drawn."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    width: int = 12
    height: int = 8
    steps: Steps = PLAIN
    repeat: str = ""
    stacked: bool = False
    mappings: Sequence[Json] = ()
    limits: tuple[float | None, float | None] = (0, None)
    options: Json = field(default_factory=dict[str, Any])

    def build(self, number: int, x: int, y: int) -> Json:
        """The panel as Grafana's JSON has it."""
        low, high = self.limits
        custom: Json = {}
        if self.kind == "timeseries":
            custom = {
                "drawStyle": "line",
                "fillOpacity": 25 if self.stacked else 8,
                "lineWidth": 1,
                "showPoints": "never",
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
            }
            if len(self.steps) > 1:
                custom["thresholdsStyle"] = {"mode": "dashed"}
        bounds = {name: value for name, value in (("min", low), ("max", high)) if value is not None}
        panel: Json = {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit,
                    **bounds,
                    "custom": custom,
                    "mappings": list(self.mappings),
                    "thresholds": {
                        "mode": "absolute",
                        "steps": [{"color": color, "value": value} for color, value in self.steps],
                    },
                },
                "overrides": [],
            },
            "options": _OPTIONS[self.kind] | self.options,
            "targets": [
                {
                    "datasource": DATASOURCE,
                    "editorMode": "code",
                    "expr": query.expr,
                    "format": query.form,
                    "instant": self.kind in {"stat", "bargauge"},
                    "range": self.kind not in {"stat", "bargauge"},
                    "legendFormat": query.legend or "__auto",
                    "refId": chr(ord("A") + place),
                }
                for place, query in enumerate(self.queries)
            ],
        }
        if self.repeat:
            panel |= {"repeat": self.repeat, "repeatDirection": "h", "maxPerRow": 2}
        return panel


_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[str, Json] = {
    "timeseries": {
        "legend": {
            "calcs": ["mean", "lastNotNull"],
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"colorMode": "value", "graphMode": "none", "reduceOptions": _LAST, "textMode": "auto"},
    "bargauge": {
        "displayMode": "basic",
        "orientation": "horizontal",
        "reduceOptions": _LAST,
        "showUnfilled": True,
    },
    "state-timeline": {
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "auto",
        "legend": {"showLegend": False},
    },
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
    },
}


def rate(metric: str, labels: str, by: str = "", window: str = WINDOW) -> str:
    """The growth of a counter a second, summed."""
    return f"sum {f'by ({by}) ' if by else ''}(rate({metric}{{{labels}}}{window}))"


def share(part: str, whole: str) -> str:
    """A part of a whole from 0 to 1: also 0 where nothing of the part was ever counted, not "no data"."""
    return f"({part} or 0 * {whole}) / {whole}"


def quantile(q: float, metric: str, labels: str, by: str = "", window: str = WINDOW) -> str:
    """A quantile of a histogram over the window."""
    counted = rate(f"{metric}_bucket", labels, f"{by}, le" if by else "le", window)
    return f"histogram_quantile({q}, {counted})"


def errors(metric: str, labels: str, by: str = "") -> str:
    """The share of what ended in an error."""
    return share(rate(metric, f"{labels}, {WENT_WRONG}", by), rate(metric, labels, by))


def variable(name: str, label: str, label_name: str, metric: str) -> Json:
    """A variable whose values are those of a label."""
    query = f"label_values({metric}, {label_name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        # Also matches what has no such label, such as a call that no deployment took.
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


DEP, PROV, REQUEST_MODEL = "liter_llm_deployment", "gen_ai_provider_name", "gen_ai_request_model"
BY_DEPLOYMENT, BY_PROVIDER, BY_MODEL = f"{{{{{DEP}}}}}", f"{{{{{PROV}}}}}", f"{{{{{REQUEST_MODEL}}}}}"
BY_KIND = "{{error_type}}"
SPEND_PER_HOUR = f"3600 * {rate('liter_llm_spend_usd_total', CALL)}"
