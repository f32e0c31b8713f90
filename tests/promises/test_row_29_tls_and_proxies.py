"""Row 29: TLS verified by default, proxy variables honoured, no credential for proxies and redirects."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from liter_llm import AsyncLiterLLM, LiterLLM, LiterLlmError, ProviderConfig
from liter_llm.testing import Simulator

KEY = "sk-sesame-0123456789"
VARIABLES = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "REQUEST_METHOD",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
]
ANSWER = b'{"id":"x","choices":[{"index":0,"message":{"content":"secure"},"finish_reason":"stop"}]}'


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def _read_head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
        data += more
    return data


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Proxy:
    """A proxy that opens tunnels and passes plain requests on; keeps what it was sent in the open."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            first = _read_head(client)
            if not first:
                return
            head = first.decode("latin-1")
            self.heads.append(head)
            method, target, _ = head.split(" ", 2)
            address = target if method == "CONNECT" else target.split("/")[2]
            host, _, port = address.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    server.sendall(first)
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                back.join(5)

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def surrounded(sim: Simulator, **options: Any) -> ProviderConfig:
    """A configuration for which the environment's proxies count, as they do not in the simulator's own."""
    return sim.config("openai").replace(**{"proxy": None, **options})


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


def test_row_29_proxy_variables_hold_for_this_machine_too(
    sim: Simulator, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        for excepted in (None, "127.0.0.1", "other.example"):
            proxy.heads.clear()
            with monkeypatch.context() as patch:
                patch.setenv(variable, proxy.url)
                if excepted is not None:
                    patch.setenv("NO_PROXY", excepted)
                client = LiterLLM(surrounded(sim))
                assert client.generate("hello").text
                assert client.stream("hello").until_done().text
            through = len({head.split("\r\n")[0] for head in proxy.heads})
            assert through == (0 if excepted == "127.0.0.1" else 1), f"{variable}, NO_PROXY={excepted}"
    proxy.heads.clear()
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    assert LiterLLM(surrounded(sim)).generate("hello").text
    assert proxy.heads == []


async def test_row_29_an_option_beats_the_variables(
    sim: Simulator, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with AsyncLiterLLM(sim.config("openai", proxy=proxy.url, max_retries=0)) as client:
        assert (await client.generate("hello")).text
    assert len(proxy.heads) == 1
    with pytest.raises(LiterLlmError) as caught:
        LiterLLM(surrounded(sim, max_retries=0)).generate("hello")
    assert caught.value.kind == "connection"
    assert LiterLLM(surrounded(sim, proxy="direct")).generate("hello").text


def test_row_29_a_managed_identity_is_asked_directly(
    sim: Simulator, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{sim.base_url('entra')}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "identity-secret-0123")
    for extra in ({}, {"proxy": proxy.url}):
        proxy.heads.clear()
        config = ProviderConfig(
            provider="azure", model="m", managed_identity=True, base_url=sim.base_url("azure"), **extra
        )
        assert LiterLLM(config).generate("hello").text
        # The call itself takes the proxy; the machine's own service does not.
        assert len(proxy.heads) == 1
        assert "/msi/token" not in proxy.heads[0]
        assert "identity-secret" not in proxy.heads[0]
    assert sum("/msi/token" in record.path for record in sim.requests) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_row_29_a_redirect_is_not_followed(sim: Simulator, status: int) -> None:
    with Simulator() as elsewhere:
        for provider in ("openai", "anthropic", "azure"):
            target = f"{elsewhere.base_url(provider)}/chat/completions"
            sim.rules = [
                {"match": {}, "fault": {"status": status, "headers": {"location": target}, "body": ""}}
            ]
            for call in (
                lambda client: client.generate("hello"),
                lambda client: client.stream("hello").until_done(),
            ):
                with pytest.raises(LiterLlmError) as caught:
                    call(LiterLLM(sim.config(provider, api_key=KEY)))
                assert caught.value.status_code == status
        assert elsewhere.requests == []
        assert elsewhere.stats.connections_opened == 0


OPENSSL = shutil.which("openssl")
AUTHORITY = """
[ca]
default_ca = own
[own]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = anything
unique_subject = no
copy_extensions = copy
[anything]
commonName = supplied
"""


def _openssl(folder: Path, *arguments: str) -> None:
    assert OPENSSL is not None
    subprocess.run([OPENSSL, *arguments], cwd=folder, check=True, capture_output=True)


def _certificates(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Certificate and key by name; `authority` is who vouches for all but `self-signed`."""
    (folder / "ca.cnf").write_text(AUTHORITY)
    (folder / "index.txt").write_text("")
    (folder / "serial").write_text("01\n")
    new = ("req", "-newkey", "rsa:2048", "-nodes")
    here, other = "subjectAltName=IP:127.0.0.1", "subjectAltName=DNS:other.example"
    for name, subject in (("authority", "basicConstraints=critical,CA:TRUE"), ("self-signed", here)):
        _openssl(
            folder, *new, "-x509", "-days", "30", "-subj", f"/CN={name}", "-addext", subject,
            "-keyout", f"{name}.key", "-out", f"{name}.pem",
        )  # fmt: skip
    leaves = {"good": (here, "20200101000000Z", "20900101000000Z")}
    leaves["expired"] = (here, "20200101000000Z", "20200201000000Z")
    leaves["wrong host"] = (other, "20200101000000Z", "20900101000000Z")
    for name, (subject, begin, end) in leaves.items():
        key, request, signed = f"{name}.key", f"{name}.csr", f"{name}.pem"
        _openssl(folder, *new, "-subj", f"/CN={name}", "-addext", subject, "-keyout", key, "-out", request)
        issuer = ("-config", "ca.cnf", "-cert", "authority.pem", "-keyfile", "authority.key")
        times = ("-startdate", begin, "-enddate", end)
        _openssl(folder, "ca", "-batch", "-notext", *issuer, "-in", request, "-out", signed, *times)
    names = ["authority", "self-signed", *leaves]
    return {name: (folder / f"{name}.pem", folder / f"{name}.key") for name in names}


@contextmanager
def tls_server(certificate: Path, key: Path) -> Iterator[tuple[str, list[str]]]:
    """A base URL, and what came of each connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    seen: list[str] = []

    def serve(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as stream:
                seen.append(_read_head(stream).decode("latin-1"))
                stream.sendall(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
                    + f"content-length: {len(ANSWER)}\r\n\r\n".encode()
                    + ANSWER
                )
        except (OSError, ssl.SSLError):
            seen.append("refused")

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/v1", seen
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


#: Runs in a process of its own: certificates are read once in a process.
PROGRAM = """
import json, sys
from liter_llm import LiterLLM, LiterLlmError, ProviderConfig

rows = []
for base in sys.argv[1:]:
    config = ProviderConfig(provider="openai", model="m", api_key="sk-sesame-0123456789", base_url=base)
    client = LiterLLM(config)
    try:
        rows.append([client.generate("x").text, None, None, 1])
    except LiterLlmError as error:
        rows.append([type(error).__name__, error.phase, error.retryable, len(error.attempts)])
print(json.dumps(rows))
"""


def calls(*urls: str, **variables: str) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *urls],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    rows: list[Any] = json.loads(done.stdout)
    return rows


@pytest.mark.skipif(OPENSSL is None, reason="certificates are made with openssl")
def test_row_29_certificates(tmp_path: Path, proxy: Proxy) -> None:
    made = _certificates(tmp_path)
    authority = str(made.pop("authority")[0])
    with (
        tls_server(*made["expired"]) as expired,
        tls_server(*made["wrong host"]) as wrong,
        tls_server(*made["self-signed"]) as own,
        tls_server(*made["good"]) as good,
    ):
        servers = (expired, wrong, own, good)
        rows = calls(*(url for url, _ in servers), SSL_CERT_FILE=authority)
        assert rows[:3] == [["APIConnectionError", "tls", False, 1]] * 3
        assert rows[3] == ["secure", None, None, 1]
        # Each was tried once, and none but the good one saw anything of the call.
        assert [seen for _, seen in (expired, wrong, own)] == [["refused"]] * 3
        assert KEY in good[1][0]
        assert calls(good[0]) == [["APIConnectionError", "tls", False, 1]]
        proxy.heads.clear()
        for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            variables = {"SSL_CERT_FILE": authority, variable: proxy.url}
            assert calls(good[0], **variables) == [["secure", None, None, 1]]
        assert len(proxy.heads) == 3
        for head in proxy.heads:
            assert head.startswith("CONNECT 127.0.0.1:")
            assert "authorization" not in head.lower()
            assert KEY not in head
        rows = calls(good[0], SSL_CERT_FILE=authority, HTTPS_PROXY=proxy.url, NO_PROXY="127.0.0.1")
        assert rows == [["secure", None, None, 1]]
        assert len(proxy.heads) == 3
