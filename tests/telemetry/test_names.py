"""Names are those of the pinned conventions, stand in one file, and are documented."""

from __future__ import annotations

import importlib
import pkgutil
import re
from importlib.metadata import version
from pathlib import Path

from opentelemetry.semconv import _incubating
from opentelemetry.semconv.schemas import Schemas

from liter_llm import Attempt
from liter_llm.telemetry import names, record

ROOT = Path(__file__).resolve().parents[2]
#: The package that the names are held against; another version may have other names.
PINNED = "0.66b2"
OWN = ("liter_llm.", "llm.")


def published(kind: str) -> set[str]:
    """Every name the package knows of a kind."""
    found: set[str] = set()
    package = importlib.import_module(f"{_incubating.__name__}.{kind}")
    for module in pkgutil.iter_modules(package.__path__):
        for value in vars(importlib.import_module(f"{package.__name__}.{module.name}")).values():
            if isinstance(value, str) and "." in value:
                found.add(value)
    return found


ATTRIBUTES = {
    name: value
    for name, value in vars(names).items()
    if isinstance(value, str) and name.isupper() and re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", value)
}
METRICS = {value.name: value for value in vars(names).values() if isinstance(value, names.Metric)}


def test_the_pinned_conventions_have_them() -> None:
    assert version("opentelemetry-semantic-conventions") == PINNED
    assert (
        max(
            (schema.value for schema in Schemas),
            key=lambda url: tuple(map(int, url.rsplit("/", 1)[1].split("."))),
        )
        == names.SCHEMA_URL
    )
    known = published("attributes")
    theirs = {value for value in ATTRIBUTES.values() if not value.startswith(OWN)}
    assert len(theirs) > 35
    assert theirs <= known, theirs - known
    metrics = {name for name in METRICS if not name.startswith(OWN)}
    assert len(metrics) == 4
    assert metrics <= published("metrics")


def test_units_and_buckets_are_the_conventions() -> None:
    seconds = tuple(0.01 * 2**power for power in range(14))
    tokens = tuple(4**power for power in range(14))
    for name, metric in METRICS.items():
        if name.startswith("gen_ai."):
            of_tokens = name == "gen_ai.client.token.usage"
            assert metric.unit == ("{token}" if of_tokens else "s")
            assert metric.buckets == (tokens if of_tokens else seconds)
    assert METRICS["llm.request.latency_ms"].unit == "ms"


def test_they_are_spelled_in_one_file_only() -> None:
    spelled = re.compile(r"[\"'](?:gen_ai|liter_llm|openai|http|server|error)\.[a-z_.]+[\"']")
    loggers = {"liter_llm.call", "liter_llm.attempt", "liter_llm.circuit"}
    for path in (ROOT / "python/liter_llm/telemetry").glob("*.py"):
        if path.name != "names.py":
            found = {text[1:-1] for text in spelled.findall(path.read_text(encoding="utf-8"))}
            assert found <= loggers, path.name


def test_the_page_has_every_name_and_no_other() -> None:
    text = (ROOT / "docs/tracing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    shown = {name for row in rows for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", row)}
    assert shown == {*ATTRIBUTES.values(), *METRICS}


def test_the_record_is_the_engines() -> None:
    """Types, the border's page and the engine's structs have the same fields."""
    source = (ROOT / "crates/liter-llm/src/core/record.rs").read_text(encoding="utf-8")
    page = (ROOT / "docs/wire.md").read_text(encoding="utf-8").partition("## Call record")[2]
    types = {
        "CallRecord": record.CallRecord,
        "RecordedParameters": record.CallParameters,
        "RecordedError": record.CallError,
        "RecordedRoute": record.CallRoute,
        "RecordedAttempt": record.CallAttempt,
    }
    for name, cls in types.items():
        body = re.search(rf"pub struct {name} {{(.*?)\n}}", source, re.DOTALL)
        assert body is not None, name
        fields = set(re.findall(r"^    pub (\w+):", body[1], re.MULTILINE))
        if "attempt" in fields:
            fields = fields - {"attempt"} | set(Attempt.__struct_fields__)
        else:
            assert {field for field in fields if f"`{field}`" not in page} == set(), name
        assert set(cls.__struct_fields__) == fields, name
