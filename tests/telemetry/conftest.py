"""The real OpenTelemetry SDK and exporter in front of a receiver of our own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from liter_llm import Telemetry
from liter_llm.telemetry import names

from .documented import faults
from .receiver import Receiver


@pytest.fixture(scope="session")
def running_receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def receiver(running_receiver: Receiver) -> Iterator[Receiver]:
    """A receiver with nothing in it; what it has in the end must be as the documentation says."""
    running_receiver.clear()
    yield running_receiver
    spans = [span for span in running_receiver.spans() if span.scope == names.SCOPE]
    assert [fault for span in spans for fault in faults(span)] == []


@pytest.fixture
def tracers(receiver: Receiver) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces")))
    yield provider
    provider.shutdown()


@pytest.fixture
def meters(receiver: Receiver) -> Iterator[MeterProvider]:
    exporter = OTLPMetricExporter(f"{receiver.url}/v1/metrics")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


@pytest.fixture
def traced(tracers: TracerProvider) -> Telemetry:
    return Telemetry(tracer_provider=tracers)
