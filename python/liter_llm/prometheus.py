"""Metrics for Prometheus: as text, as a WSGI or ASGI app, or from a small server of its own."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Self, final

from ._native import Engine, Metrics
from .errors import ConfigError, told

__all__ = ["PrometheusExporter"]

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer
    from types import TracebackType

    from .client import AsyncLiterLLM, LiterLLM
    from .router import ProviderRouter

    Observable = LiterLLM | AsyncLiterLLM | ProviderRouter

_NOT_ALLOWED = "only GET and HEAD\n"
_READING = ("GET", "HEAD")


@final
class PrometheusExporter:
    """Metrics of one or more clients: of the calls that begin from now on, and of how the clients stand.

    Nothing is global: each exporter has metrics of its own. A reloaded client is followed. A forked child
    begins at zero and counts its own calls.

    Args:
        *clients: `LiterLLM`, `AsyncLiterLLM` and `ProviderRouter`. A client over a router has that router's
            metrics; giving both counts each call once.
        plain: Whether the text is always in Prometheus' own form (0.0.4), for readers that do not know
            OpenMetrics. Over HTTP, who does not ask for OpenMetrics gets that form anyhow.

    Raises:
        ConfigError: Something else was given.
        CallCancelledError: A client is closed.
    """

    def __init__(self, *clients: Observable, plain: bool = False) -> None:
        self._metrics = Metrics()
        self._plain = plain
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        for client in clients:
            self.add(client)

    def add(self, client: Observable) -> None:
        """Counts this client's calls too. One that is counted already stays so."""
        engine = getattr(client, "_engine", None)
        if not isinstance(engine, Engine):
            raise ConfigError(
                f"`client`: must be a LiterLLM, AsyncLiterLLM or ProviderRouter, not {type(client).__name__}",
                param="client",
            )
        told(engine.observe, self._metrics)

    def text(self) -> str:
        """The metrics. With budgets in a file it reads that, which may take a few milliseconds."""
        return self._metrics.text(self._plain)[1]

    @property
    def content_type(self) -> str:
        """The content type of `text()`."""
        return (
            "text/plain; version=0.0.4; charset=utf-8"
            if self._plain
            else "application/openmetrics-text; version=1.0.0; charset=utf-8"
        )

    def _answer(self, method: str, accept: str | None) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body of an answer."""
        if method not in _READING:
            kind, text, status = "text/plain; charset=utf-8", _NOT_ALLOWED, 405
        else:
            kind, text = self._metrics.answer(None if self._plain else accept)
            status = 200
        body = text.encode()
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Vary", "Accept")]
        if status == 405:  # noqa: PLR2004
            headers.append(("Allow", ", ".join(_READING)))
        return status, headers, b"" if method == "HEAD" else body

    def wsgi(
        self, environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
    ) -> Iterable[bytes]:
        """A WSGI app: `app = DispatcherMiddleware(app, {"/metrics": exporter.wsgi})`, for one."""
        method, accept = environ.get("REQUEST_METHOD", "GET"), environ.get("HTTP_ACCEPT")
        status, headers, body = self._answer(method, accept)
        start_response("200 OK" if status == 200 else "405 Method Not Allowed", headers)  # noqa: PLR2004
        return [body]

    async def asgi(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """An ASGI app: `app.mount("/metrics", exporter.asgi)`, for one."""
        if scope["type"] == "lifespan":
            while True:
                step = (await receive())["type"]
                await send({"type": f"{step}.complete"})
                if step == "lifespan.shutdown":
                    return
        if scope["type"] != "http":
            raise ValueError(f"metrics are read over HTTP, not {scope['type']}")
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
        status, headers, body = self._answer(scope["method"], accept or None)
        raw = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    def serve(self, port: int = 0, host: str = "127.0.0.1") -> int:
        """Answers `http://host:port/metrics` from a thread of its own, which ends with the program.

        Meant for scripts; a program with a web server of its own is better served by `wsgi` or `asgi`. It
        has no access control: whoever reaches the port reads the metrics.

        Args:
            port: The port; 0 takes a free one.
            host: The address to listen on; only this machine reaches the default.

        Returns:
            The port.

        Raises:
            OSError: The port cannot be had.
            ConfigError: It serves already.
        """
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            timeout = 10.0

            def _reply(self) -> None:
                if self.path.partition("?")[0] not in ("/", "/metrics"):
                    self.send_error(404)
                    return
                status, headers, body = answer(self.command, self.headers.get("Accept"))
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_HEAD = do_POST = _reply  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """A program's own output is not for these."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        with self._lock:
            if self._server is not None:
                where = f"http://{self._server.server_address[0]!s}:{self._server.server_port}"
                raise ConfigError(f"`port`: the metrics are served at {where} already", param="port")
            self._server = server = Server((host, port), Handler)
        threading.Thread(target=server.serve_forever, name="liter-llm-metrics", daemon=True).start()
        return server.server_port

    def close(self) -> None:
        """Counts no more calls and stops the server. What was counted can still be read with `text()`."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        self._metrics.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def exported(name: str) -> object:
    """What the package shows under this name, for its late import."""
    return globals()[name]
