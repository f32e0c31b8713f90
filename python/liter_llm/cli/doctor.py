"""`liter-llm doctor`: what is configured here, and whether it can be reached. No secret is ever shown."""

from __future__ import annotations

import os
import platform
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import click

from liter_llm import __version__
from liter_llm.config import ConfigDocument, ProviderConfig
from liter_llm.config_file import Loaded, load
from liter_llm.errors import LiterLlmError

from .deployment import MODEL_VARIABLE, choose, client_for, config_file, provider_rows
from .providers import first_set, key_status, table

_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_TLS = {"https", "wss"}


@dataclass
class Finding:
    """A deployment or provider in use, and what came of the look at it."""

    name: str
    document: ConfigDocument
    base_url: str = ""
    key: str = ""
    result: str = ""
    failed: bool = False

    def settle(self) -> None:
        """Resolves base URL and key as a call would, without sending anything."""
        try:
            with client_for(self.document) as client:
                facts = client.describe()
        except LiterLlmError as error:
            self.failed, self.result = True, str(error)
            return
        self.base_url = facts.get("base_url") or ""
        self.key = "not set" if facts.get("key_source") == "no key" else "set"

    def reach(self, timeout: float) -> None:
        """Makes a connection to the host, with TLS where the URL has it; sends no request."""
        try:
            self.result = _reach(self.base_url, self.document.deployment.proxy, timeout)
        except (OSError, ValueError) as error:
            self.failed, self.result = True, f"cannot be reached: {_reason(error)}"


@click.command(
    epilog="""\b
Examples:
  liter-llm doctor
  liter-llm doctor --offline
  liter-llm doctor --timeout 2 && echo ready
"""
)
@click.option("--offline", is_flag=True, help="Make no connections.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="The limit for each connection.",
)
@click.pass_context
def doctor(context: click.Context, *, offline: bool, timeout: float) -> None:
    """Check what is configured here.

    A provider counts as configured when its key or base URL is in the environment, or the model or the
    configuration file names it. Hosts are connected to, with TLS; no request is sent, so a wrong key is not
    noticed. Keys are shown as set or not set only. Exit code 1 when something configured cannot work or
    cannot be reached.
    """
    rows = provider_rows()
    click.echo(f"liter-llm {__version__}, Python {platform.python_version()}, {platform.system()}")
    findings, faults = _configured(rows)
    click.echo(f"\n{_keys(rows)}\n")
    for finding in findings:
        finding.settle()
    if not offline:
        _reach_all([finding for finding in findings if not finding.failed], timeout)
    if findings:
        lines = [("CONFIGURED", "KEY", "BASE URL", "STATE")]
        lines += [
            (
                finding.name,
                finding.key or "-",
                _shown(finding.base_url) or "-",
                ("FAULT: " if finding.failed else "") + (finding.result or "not checked (--offline)"),
            )
            for finding in findings
        ]
        click.echo(table(lines))
    else:
        click.echo("Nothing is configured: set a provider's key variable (see `liter-llm providers`).")
    faults += sum(finding.failed for finding in findings)
    click.echo(f"\n{faults} fault{'' if faults == 1 else 's'} found." if faults else "\nNo fault found.")
    context.exit(1 if faults else 0)


def _configured(rows: dict[str, dict[str, Any]]) -> tuple[list[Finding], int]:
    """What is in use here, the default deployment first; and how many of its places are at fault."""
    findings: list[Finding] = []
    faults = 0
    lines: list[tuple[str, str]] = []
    for place, text in (
        (MODEL_VARIABLE, os.environ.get(MODEL_VARIABLE)),
        ("configuration file", config_file()),
    ):
        if not text:
            lines.append((place, "not set" if place == MODEL_VARIABLE else "none"))
            continue
        try:
            document = choose(text) if place == MODEL_VARIABLE else load()
        except LiterLlmError as error:
            faults += 1
            lines.append((place, f"FAULT: {error}"))
            continue
        lines.append((place, text))
        several = document.deployments if isinstance(document, Loaded) else [document.deployment]
        for deployment in several:
            name = "/".join(part for part in (deployment.provider, deployment.model) if part)
            findings.append(Finding(name, ConfigDocument(deployment, document.providers)))
    click.echo(table(lines))
    seen = {finding.document.deployment.provider for finding in findings}
    for name, row in rows.items():
        if name not in seen and first_set([*row["api_key_env"], *row["base_url_env"]]):
            # A model has to be named; which one makes no difference to host and key.
            findings.append(Finding(name, ConfigDocument(ProviderConfig(name, "any"))))
    return findings, faults


def _keys(rows: dict[str, dict[str, Any]]) -> str:
    lines = [("KEY", "STATE")]
    for row in rows.values():
        optional = key_status(row) == "not needed"
        for variable in row["api_key_env"]:
            state = "set" if os.environ.get(variable) else "not set"
            lines.append((variable, f"{state} (not needed)" if optional and state != "set" else state))
    return table(lines)


def _reach_all(findings: list[Finding], timeout: float) -> None:
    # Threads that the process may leave behind: a name lookup cannot be given a limit.
    threads = [
        (finding, threading.Thread(target=finding.reach, args=(timeout,), daemon=True))
        for finding in findings
    ]
    for _, thread in threads:
        thread.start()
    for finding, thread in threads:
        thread.join(timeout + 0.5)
        if thread.is_alive():
            finding.failed, finding.result = True, f"cannot be reached: no answer within {timeout:g} s"


def _reach(base_url: str, proxy: str | None, timeout: float) -> str:
    url = urlsplit(base_url)
    host, scheme = url.hostname or "", url.scheme.lower()
    port = url.port or _PORTS[scheme]
    if proxy is None and not proxy_bypass(host):
        proxies = getproxies()
        proxy = proxies.get("https" if scheme in _TLS else "http") or proxies.get("all")
    if proxy and proxy != "direct":
        gate = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        where = (gate.hostname or "", gate.port or _PORTS.get(gate.scheme, 1080))
        with socket.create_connection(where, timeout):
            return f"the proxy {where[0]}:{where[1]} was reached; the host behind it was not checked"
    with socket.create_connection((host, port), timeout) as connection:
        if scheme not in _TLS:
            return "reached"
        with ssl.create_default_context().wrap_socket(connection, server_hostname=host) as secured:
            return f"reached ({secured.version()})"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _shown(base_url: str) -> str:
    """The URL without user, password and query: keys stand there at times."""
    url = urlsplit(base_url)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}" if url.netloc else ""
