"""Names are those of the pinned conventions, stand in one file, and are documented."""

from __future__ import annotations

import importlib
import pkgutil
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.semconv import _incubating
from opentelemetry.semconv.schemas import Schemas

from liter_llm import Attempt
from liter_llm.telemetry import names, record
from liter_llm.telemetry.meters import Instruments

from . import documented
from .receiver import CLIENT, UNSET, Span

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
#: What only spans and events of the crate `tracing` have.
OF_RUST = {"liter_llm.attempts", "liter_llm.detail", "liter_llm.left_out"}
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


#: Types as the conventions' registries state them; the package has names and units only.
#: `any` is JSON on spans.
TYPES = {
    "error.type": "string",
    "gen_ai.conversation.id": "string",
    "gen_ai.input.messages": "any",
    "gen_ai.operation.name": "string",
    "gen_ai.output.messages": "any",
    "gen_ai.output.type": "string",
    "gen_ai.provider.name": "string",
    "gen_ai.request.choice.count": "int",
    "gen_ai.request.frequency_penalty": "double",
    "gen_ai.request.max_tokens": "int",
    "gen_ai.request.model": "string",
    "gen_ai.request.presence_penalty": "double",
    "gen_ai.request.seed": "int",
    "gen_ai.request.stop_sequences": "string[]",
    "gen_ai.request.stream": "boolean",
    "gen_ai.request.temperature": "double",
    "gen_ai.request.top_k": "double",
    "gen_ai.request.top_p": "double",
    "gen_ai.response.finish_reasons": "string[]",
    "gen_ai.response.id": "string",
    "gen_ai.response.model": "string",
    "gen_ai.response.time_to_first_chunk": "double",
    "gen_ai.system_instructions": "any",
    "gen_ai.tool.definitions": "any",
    "gen_ai.usage.cache_creation.input_tokens": "int",
    "gen_ai.usage.cache_read.input_tokens": "int",
    "gen_ai.usage.input_tokens": "int",
    "gen_ai.usage.output_tokens": "int",
    "gen_ai.usage.reasoning.output_tokens": "int",
    "http.request.method": "string",
    "http.request.resend_count": "int",
    "http.response.status_code": "int",
    "openai.request.service_tier": "string",
    "openai.response.service_tier": "string",
    "server.address": "string",
    "server.port": "int",
}


def test_types_are_the_conventions() -> None:
    """The page has them, and every span that a test receives is held against the page."""
    shown = documented.CALL | documented.ATTEMPT | documented.CONTENT
    spelled = {"any": "string", "boolean": "bool"}
    theirs = {name: kind for name, kind in shown.items() if not name.startswith(OWN)}
    assert theirs == {name: spelled.get(kind, kind) for name, kind in TYPES.items()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gen_ai.request.temperature", 1),
        ("gen_ai.request.max_tokens", 1.0),
        ("gen_ai.request.seed", True),
        ("gen_ai.request.stop_sequences", "END"),
        ("gen_ai.response.finish_reasons", ["stop", 1]),
        ("http.response.status_code", 200),
        ("liter_llm.unknown", "x"),
    ],
)
def test_a_span_of_another_type_is_noticed(name: str, value: Any) -> None:
    good = {"gen_ai.operation.name": "chat", "gen_ai.request.top_k": 5.0}

    def span(attributes: dict[str, Any]) -> Span:
        return Span("chat m", CLIENT, b"", b"", b"", 0, 0, UNSET, "", attributes, 0, names.SCOPE, "")

    assert documented.faults(span(good)) == []
    (fault,) = documented.faults(span(good | {name: value}))
    assert name in fault


class Instructed:
    """A meter provider and its meter: kind and unit of what it is told to make, by name."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[str, str]] = {}

    def get_meter(self, *_: Any) -> Instructed:
        return self

    def create_histogram(self, name: str, unit: str = "", description: str = "", **_: Any) -> None:
        self.made[name] = "histogram", unit

    def create_counter(self, name: str, unit: str = "", description: str = "") -> None:
        self.made[name] = "counter", unit

    def create_observable_counter(self, name: str, _: Any, unit: str = "", description: str = "") -> None:
        self.made[name] = "counter", unit

    def create_observable_gauge(self, name: str, _: Any, unit: str = "", description: str = "") -> None:
        self.made[name] = "gauge", unit


def test_kinds_and_units_of_metrics_are_the_conventions() -> None:
    ours, theirs = Instructed(), Instructed()
    Instruments(ours)
    package = importlib.import_module(f"{_incubating.__name__}.metrics.gen_ai_metrics")
    for name, create in vars(package).items():
        if name.startswith("create_gen_ai_client"):
            create(theirs)
    assert len(theirs.made) >= 4
    shared = {name: made for name, made in ours.made.items() if not name.startswith(OWN)}
    assert shared == {name: theirs.made[name] for name in shared}
    # Those of our own are as the page says, and as the table of names.
    assert ours.made == documented.metrics()
    assert {name: unit for name, (_, unit) in ours.made.items()} == {
        name: metric.unit for name, metric in METRICS.items()
    }


def test_they_are_spelled_in_one_file_only() -> None:
    spelled = re.compile(r"[\"'](?:gen_ai|liter_llm|openai|http|server|error)\.[a-z_.]+[\"']")
    loggers = {"liter_llm.call", "liter_llm.attempt", "liter_llm.circuit"}
    for path in (ROOT / "python/liter_llm/telemetry").glob("*.py"):
        if path.name != "names.py":
            found = {text[1:-1] for text in spelled.findall(path.read_text(encoding="utf-8"))}
            assert found <= loggers, path.name


def named_in_tables(page: str) -> set[str]:
    """What stands in the first columns of a page's tables."""
    rows = re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", row)}


def test_the_page_has_every_name_and_no_other() -> None:
    text = (ROOT / "docs/tracing.md").read_text(encoding="utf-8")
    text, _, rust = text.partition("## In Rust")
    assert named_in_tables(text) == {*ATTRIBUTES.values(), *METRICS}
    assert named_in_tables(rust) == OF_RUST


def of_engine(module: str) -> dict[str, str]:
    """A module's names in the engine's file of names, which is read line by line."""
    source = (ROOT / "crates/liter-llm/src/telemetry/names.rs").read_text(encoding="utf-8")
    body = source.partition(f"pub mod {module} {{")[2].partition("\n}")[0]
    return dict(re.findall(r'^    pub const ([A-Z_]+): &str = "([^"]+)";', body, re.MULTILINE))


def test_the_engine_has_no_other_names() -> None:
    """Of attributes: what the bridge to OpenTelemetry reads apart, and three short names for logs."""
    found = of_engine("attribute")
    own = {name for name in found.values() if name.startswith("otel.")} | {"provider", "model", "prompt_len"}
    assert len(own) == 6
    assert set(found.values()) - own - OF_RUST <= set(ATTRIBUTES.values())
    assert set(found.values()) >= OF_RUST
    assert len(set(found.values())) == len(found) > 50


def test_labels_and_metrics_of_prometheus_are_the_same_in_its_spelling() -> None:
    labels, metrics = set(of_engine("label").values()), set(of_engine("metric").values())
    assert len(labels) > 10
    assert labels <= {name.replace(".", "_") for name in ATTRIBUTES.values()}
    spelled = {
        metric.name.replace(".", "_") + ("_seconds" if metric.unit == "s" else "")
        for metric in METRICS.values()
    }
    assert spelled == metrics


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
