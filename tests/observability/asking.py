"""Rules and panel queries as a test asks them: variables filled in, windows of minutes made seconds."""

from __future__ import annotations

import re
from typing import Any

from .expected import HOLD, HORIZONS, OFFSETS, WINDOWS


def quick(expr: str) -> str:
    """An expression with the test's windows; one that the tables do not have is an error."""
    expr = re.sub(r"\[([^\]]+)\]", lambda found: f"[{WINDOWS[found[1]]:g}s]", expr)
    expr = re.sub(r"offset (\w+)", lambda found: f"offset {OFFSETS[found[1]]:g}s", expr)
    return re.sub(r", (\d+)\)", lambda found: f", {HORIZONS[found[1]]:g})", expr)


def filled(expr: str, **chosen: str) -> str:
    """A panel's query with its variables filled in as Grafana does; those that are not named are "All"."""
    return re.sub(
        r"\$(job|provider|deployment|model)\b", lambda found: chosen.get(found[1], ".*"), quick(expr)
    )


def quick_rules(file: dict[str, Any]) -> dict[str, Any]:
    """A file of rules that is evaluated every second, with the test's windows."""
    groups = [
        {
            **group,
            "interval": "1s",
            "rules": [
                {**rule, "expr": quick(rule["expr"]), **({"for": HOLD} if "for" in rule else {})}
                for rule in group["rules"]
            ],
        }
        for group in file["groups"]
    ]
    return {"groups": groups}
