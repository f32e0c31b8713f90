"""`liter-llm top` reads a page rightly: rates, percentiles, restarts; and says why when it cannot."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner, Result

from liter_llm.cli import program
from liter_llm.cli.readings import PageError, compare, parse, quantile, read, sparkline
from liter_llm.cli.top import address

from .expected import FIRST, GOOD, RETRIES, SPEND, TRAFFIC, bucket, failed, fault, late, of
from .exposition import INPUT, LOADED, OUTPUT, SLOW, STEADY, page, served

URL = "http://127.0.0.1:1/metrics"


def reading(old: str, new: str, seconds: float = 10):
    return compare(parse(old, URL), parse(new, URL), seconds)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(program, ["top", *arguments])


def one_line(result: Result, *words: str, code: int = 1) -> None:
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.output


def test_two_readings_give_the_rates_between_them() -> None:
    found = reading(page(20, 5), page(20, 15))
    assert [row.deployment for row in found.rows] == sorted([SLOW, STEADY, LOADED])
    assert not found.restarted
    for row in found.rows:
        name = row.deployment
        assert row.calls == pytest.approx(TRAFFIC[name])
        assert row.error_ratio == pytest.approx(fault(failed(of(name))) / TRAFFIC[name])
        for value, q in ((row.p50, 0.5), (row.p95, 0.95)):
            low, high = bucket(q, late(of(name)))
            assert value is not None
            assert low <= value <= high
        low, high = bucket(0.95, FIRST[name])
        assert row.first_chunk is not None
        assert low <= row.first_chunk <= high
        assert row.usd_per_hour == pytest.approx(SPEND[name])
        assert row.tokens == pytest.approx(GOOD[name] * (INPUT + OUTPUT))
        assert row.retries == pytest.approx(
            sum(flow.fault for (owner, _), flow in RETRIES.items() if owner == name)
        )
    states = {row.deployment: (row.circuit, row.queue, row.in_flight) for row in found.rows}
    assert states == {SLOW: (2, 95, 400), STEADY: (0, 2, 180), LOADED: (1, 0, 60)}
    assert {budget.name: (budget.spent, budget.limit) for budget in found.budgets} == {
        "day": (55, 100),
        "team": (5, 5),
        "year": (1, 1000),
    }
    assert (found.cache_hits, found.cache_misses, found.records_dropped) == pytest.approx((60, 140, 20))


def test_a_restarted_program_counts_from_its_start() -> None:
    # An hour of slow calls, then a new process that has made fast ones for ten seconds.
    found = reading(page(10, 3600), page(10, 0))
    assert found.restarted
    slow = next(row for row in found.rows if row.deployment == SLOW)
    assert slow.calls == pytest.approx(200)
    assert slow.error_ratio == 0
    assert slow.p95 == pytest.approx(0.624)
    assert slow.usd_per_hour == pytest.approx(200 * 0.001 * 3600)


def test_a_histogram_begins_again_as_a_whole() -> None:
    """A bucket that has passed its old count already is no sign that the histogram went on."""
    name, label = "gen_ai_client_operation_duration_seconds", 'liter_llm_deployment="a"'
    lines = '{0}_bucket{{{1},le="1"}} {2}\n{0}_bucket{{{1},le="+Inf"}} {3}\n{0}_count{{{1}}} {3}\n'
    found = reading(lines.format(name, label, 1, 100), lines.format(name, label, 40, 40))
    (row,) = found.rows
    assert row.calls == pytest.approx(4)
    assert row.p50 == pytest.approx(0.5)
    assert found.restarted


def test_nothing_happened_is_no_zero() -> None:
    found = reading(page(20, 5), page(20, 5))
    for row in found.rows:
        assert (row.calls, row.error_ratio, row.p50, row.p95) == (0, None, None, None)


def test_quantiles_are_those_of_prometheus() -> None:
    buckets = {1.0: 10.0, 2.0: 30.0, float("inf"): 40.0}
    assert quantile(0.5, buckets) == pytest.approx(1.5)
    assert quantile(0.25, buckets) == pytest.approx(1.0)
    # Beyond the last bound nothing is known but that.
    assert quantile(0.99, buckets) == 2.0
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {1.0: 0.0, float("inf"): 0.0}) is None


def test_sparklines_begin_at_zero_and_keep_gaps() -> None:
    assert sparkline([0, 5, None, 10]) == "▁▅ █"
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"


def test_labels_with_escapes_are_read() -> None:
    text = 'liter_llm_in_flight{liter_llm_deployment="a\\"b\\\\c"} 3\n'
    assert [(row.deployment, row.in_flight) for row in reading(text, text).rows] == [('a"b\\c', 3)]


@contextmanager
def running() -> Iterator[str]:
    start = time.monotonic()
    with served(lambda: page(20, 20 + time.monotonic() - start)) as url:
        yield url


def test_once_prints_one_table() -> None:
    with running() as url:
        result = run(url, "--once", "--interval", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("DEPLOYMENT") == 1
    assert "\x1b" not in result.stdout
    row = next(line for line in result.stdout.splitlines() if line.startswith(SLOW))
    # deployment, calls, errors, p50, p95, bars, first chunk, circuit, ...
    cells = re.split(r"  +", row.strip())
    assert 60 < float(cells[1]) < 120
    assert 10 < float(cells[2].rstrip("%")) < 13
    assert cells[3:6] == ["3.84 s", "4.99 s", "█"]
    assert cells[7] == "open"
    assert "budget team: 5.00 of 5.00 USD (100%)" in result.stdout
    dropped = re.search(r"call records dropped: ([\d.]+)/s", result.stdout)
    assert dropped is not None
    assert 10 < float(dropped[1]) < 30
    assert "cache: 30% of" in result.stdout


def test_a_narrow_table_keeps_the_columns_that_tell_of_trouble() -> None:
    from rich.console import Console

    from liter_llm.cli.top import Watch

    with running() as url:
        watch = Watch(url, 0.1)
        watch.begin()
        for _ in range(14):
            watch.look()
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(watch.view(console.width))
    text = console.export_text()
    assert "…" not in text
    headings = re.split(r"  +", next(line for line in text.splitlines() if "DEPLOYMENT" in line).strip())
    assert headings == ["DEPLOYMENT", "CALLS/S", "ERRORS", "P95", "P95 BEFORE", "CIRCUIT"]


def test_without_a_terminal_tables_follow_each_other_and_a_restart_is_survived() -> None:
    answers = {"text": page(20, 5), "alive": True}

    def text() -> str:
        if not answers["alive"]:
            raise ConnectionAbortedError
        return str(answers["text"])

    with served(text) as url:
        process = subprocess.Popen(
            [sys.executable, "-m", "liter_llm", "top", url, "--interval", "0.2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        seen: list[str] = []
        assert process.stdout is not None
        reader = threading.Thread(
            target=lambda out=process.stdout: seen.extend(iter(out.readline, "")), daemon=True
        )
        reader.start()

        def until(words: str, count: int = 1) -> None:
            end = time.monotonic() + 20
            while "".join(seen).count(words) < count:
                assert process.poll() is None
                assert time.monotonic() < end, "".join(seen)
                time.sleep(0.05)

        try:
            until("DEPLOYMENT", 2)
            answers["text"] = page(20, 0)
            until("The program was restarted")
            answers["text"] = "<html>going down</html>"
            until("is not a page of metrics")
            tables = "".join(seen).count("DEPLOYMENT")
            answers["text"] = page(30, 0)
            until("DEPLOYMENT", tables + 2)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait(10)
            reader.join(5)
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == ""
            process.stderr.close()


def test_on_a_terminal_the_table_stands_on_a_screen_of_its_own() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 150, 0, 0))
    seen = b""
    with running() as url:
        process = subprocess.Popen(
            [sys.executable, "-m", "liter_llm", "top", url, "--interval", "0.2"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR"}}
            | {"TERM": "xterm-256color"},
        )
        try:
            end = time.monotonic() + 20
            while seen.count(b"DEPLOYMENT") < 3 or b"budget team" not in seen:
                assert time.monotonic() < end, seen
                if select.select([ours], [], [], 0.2)[0]:
                    seen += os.read(ours, 65536)
            process.send_signal(signal.SIGINT)
            while process.poll() is None:
                assert time.monotonic() < end, seen
                if select.select([ours], [], [], 0.2)[0]:
                    seen += os.read(ours, 65536)
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 65536)
        finally:
            process.kill()
            process.wait(10)
            os.close(ours)
            os.close(theirs)
    assert process.returncode == 0
    assert b"Traceback" not in seen
    # The alternate screen is entered once and left at the end; circuits have their colour.
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1
    assert b"\x1b[1;31mopen" in seen


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    one_line(
        run(f"127.0.0.1:{port}", "--once"), f"127.0.0.1:{port}/metrics cannot be reached: connection refused"
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<!doctype html><html><body>Welcome</body></html>", "is not a page of metrics"),
        ('{"status": "ok"}', "is not a page of metrics"),
        ("", "is not a page of metrics"),
        ("hello there, world {", "is not a page of metrics"),
        ("# TYPE up gauge\nup 1\n", "has metrics, but none of Liter-LLM"),
    ],
)
def test_another_page(body: str, words: str) -> None:
    with served(lambda: body) as url:
        one_line(run(url, "--once", "--interval", "0.1"), words)


def test_an_error_page() -> None:
    with served(lambda: "no", status=404) as url:
        one_line(run(url, "--once"), "answers with 404")


def test_a_server_that_speaks_no_http_and_one_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/metrics"
        with pytest.raises(PageError, match=r"does not answer within 0\.3 s"):
            read(url, 0.3)

        def speak() -> None:
            # The first connection is the one above, given up.
            for _ in range(2):
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(5)
                    connection.recv(4096)
                    connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        with pytest.raises(PageError, match="does not answer in HTTP"):
            read(url, 5)
        thread.join(5)


@pytest.mark.parametrize("missing", ["rich", "prometheus_client"])
def test_without_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    one_line(run("--once"), "pip install 'liter-llm[top]'")


def test_the_other_commands_do_not_load_the_extra() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, liter_llm.cli; print({'rich', 'prometheus_client'} & set(sys.modules))",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("localhost:9464", "http://localhost:9464/metrics"),
        ("http://h/", "http://h/metrics"),
        ("https://h:1/some/page?x=1", "https://h:1/some/page?x=1"),
        ("[::1]:9464", "http://[::1]:9464/metrics"),
    ],
)
def test_addresses(given: str, full: str) -> None:
    assert address(given) == full


@pytest.mark.parametrize("given", ["file:///etc/passwd", "http://", "http://h:99999/", "ftp://h/metrics"])
def test_what_is_no_address(given: str) -> None:
    one_line(run(given, "--once"), "is no address of a page", code=2)
