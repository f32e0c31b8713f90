"""An OTLP receiver on loopback that decodes with the official protobuf package."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire

CLIENT = Wire.SpanKind.SPAN_KIND_CLIENT
INTERNAL = Wire.SpanKind.SPAN_KIND_INTERNAL
UNSET, ERROR = 0, 2


def value_of(value: Any) -> Any:
    """An attribute's value with its type."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    return getattr(value, kind)


def attributes_of(attributes: Any) -> dict[str, Any]:
    return {attribute.key: value_of(attribute.value) for attribute in attributes}


@dataclass
class Span:
    """A span as it came over the wire."""

    name: str
    kind: int
    trace: bytes
    id: bytes
    parent: bytes
    start: int
    end: int
    status: int
    message: str
    attributes: dict[str, Any]
    events: int
    scope: str
    schema: str
    children: list[Span] = field(default_factory=list)

    def tree(self) -> Any:
        """Names and what is inside of them, in order of time."""
        return (self.name, [child.tree() for child in self.children])


class Receiver:
    """Takes traces and metrics; `spans()` and `metrics()` give what has come."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._traces: list[ExportTraceServiceRequest] = []
        self._metrics: list[ExportMetricsServiceRequest] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version: ClassVar[str] = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.take(self.path, body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, path: str, body: bytes) -> None:
        self.bodies.append(body)
        if path == "/v1/traces":
            self._traces.append(ExportTraceServiceRequest.FromString(body))
        else:
            self._metrics.append(ExportMetricsServiceRequest.FromString(body))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def clear(self) -> None:
        for kept in (self.bodies, self._traces, self._metrics):
            kept.clear()

    def spans(self) -> list[Span]:
        found = []
        for export in list(self._traces):
            for resource in export.resource_spans:
                for scoped in resource.scope_spans:
                    found += [
                        Span(
                            span.name,
                            span.kind,
                            span.trace_id,
                            span.span_id,
                            span.parent_span_id,
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            span.status.code,
                            span.status.message,
                            attributes_of(span.attributes),
                            len(span.events),
                            scoped.scope.name,
                            scoped.schema_url,
                        )
                        for span in scoped.spans
                    ]
        return sorted(found, key=lambda span: span.start)

    def roots(self, count: int | None = None) -> list[Span]:
        """The spans without a parent, with their children; waits until there are `count`."""
        if count is not None:
            until(lambda: sum(not span.parent for span in self.spans()) >= count)
        spans = {span.id: span for span in self.spans()}
        roots = []
        for span in spans.values():
            if span.parent:
                spans[span.parent].children.append(span)
            else:
                roots.append(span)
        return roots

    def root(self) -> Span:
        (root,) = self.roots(1)
        return root

    def metrics(self) -> dict[str, Any]:
        """The newest state of each metric, by name."""
        found: dict[str, Any] = {}
        for export in list(self._metrics):
            for resource in export.resource_metrics:
                for scoped in resource.scope_metrics:
                    if scoped.scope.name == "liter_llm":
                        found.update({metric.name: metric for metric in scoped.metrics})
        return found


def until(met: Callable[[], object], seconds: float = 10.0) -> None:
    """Waits until something is so."""
    limit = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.005)
