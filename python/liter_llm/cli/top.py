"""`liter-llm top`: deployments of a running program as a live table, read from its page of metrics."""

from __future__ import annotations

import io
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from .readings import PageError, Reading, Row, Samples, compare, read, sparkline

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

DEFAULT_URL = "http://127.0.0.1:9464/metrics"
HISTORY = 24
# Below this many characters a row, the table has only the columns that tell whether something is wrong.
WIDE = 130
NARROW_HISTORY = 10
# A table of all columns; what is piped away need not fit a screen.
PLAIN_WIDTH = 160
TIMEOUT = 5.0
CIRCUITS = {0: ("closed", "green"), 1: ("half open", "yellow"), 2: ("open", "bold red")}
SOME_ERRORS, MANY_ERRORS = 0.01, 0.05
BUDGET_NEAR = 0.8


@click.command(
    epilog="""\b
Examples:
  liter-llm top
  liter-llm top http://10.0.0.7:9464/metrics --interval 5
  liter-llm top --once
"""
)
@click.argument("url", required=False, default=DEFAULT_URL)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often the page is read.",
)
@click.option("--once", is_flag=True, help="Print one table after one interval, and end.")
def top(*, url: str, interval: float, once: bool) -> None:
    """Show what a running program's deployments do.

    URL is the page of a program that serves PrometheusExporter; default http://127.0.0.1:9464/metrics. Rates,
    percentiles and costs are those of the last interval; the bars are the 95th percentiles before it. Without
    a terminal, tables are printed one below the other. Ctrl-C ends it. Needs the extra: liter-llm[top].
    """
    try:
        # Used where pages are read.
        import prometheus_client.parser  # noqa: F401  # pyright: ignore[reportUnusedImport]
        from rich.console import Console
    except ImportError as error:
        raise click.ClickException(
            "`liter-llm top` needs the packages of an extra: pip install 'liter-llm[top]'"
        ) from error

    # The bars may be characters that the terminal's encoding has not.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # pyright: ignore[reportUnknownMemberType]
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    watch = Watch(address(url), interval)
    try:
        if once:
            watch.begin()
            time.sleep(interval)
            watch.read()
            console.print(watch.view(console.width))
        elif console.is_terminal:
            _live(watch, console)
        else:
            watch.begin()
            while True:
                time.sleep(interval)
                watch.look()
                console.print(watch.view(console.width))
    except PageError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        return


def address(url: str) -> str:
    """A URL as given, with what is usually left out: `http://` in front, `/metrics` behind.

    Raises:
        UsageError: It is no address of a web page.
    """
    full = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(full)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable:
        raise click.UsageError(f"{url!r} is no address of a page: give http://HOST:PORT/metrics.")
    return parts._replace(path="/metrics").geturl() if parts.path in {"", "/"} else full


@dataclass(frozen=True)
class Column:
    """A column of the table; `cell` gets the deployment's row and its 95th percentiles so far."""

    heading: str
    cell: Callable[[Row, list[float | None]], str | Text]
    number: bool = True
    # Whether it stands in a narrow table too.
    always: bool = True


class Watch:
    """Reads a page again and again and remembers what the table shows."""

    def __init__(self, url: str, interval: float) -> None:
        self.url = url
        self.interval = interval
        self.reading: Reading | None = None
        self.fault = ""
        self._samples: Samples = {}
        self._at = 0.0
        self._history: dict[str, deque[float | None]] = {}

    def begin(self) -> None:
        """The first reading, which has nothing to be compared with.

        Raises:
            PageError: There is no page of metrics.
        """
        self._at = time.monotonic()
        self._samples = read(self.url, TIMEOUT)

    def read(self) -> None:
        """A further reading.

        Raises:
            PageError: There is no page of metrics any more.
        """
        now = time.monotonic()
        samples = read(self.url, TIMEOUT)
        self.reading = compare(self._samples, samples, max(now - self._at, 1e-3))
        self._samples, self._at = samples, now
        for row in self.reading.rows:
            self._history.setdefault(row.deployment, deque(maxlen=HISTORY)).append(row.p95)

    def look(self) -> None:
        """As `read`, but a page that does not answer is a line in the table: the program may come back."""
        try:
            self.read()
            self.fault = ""
        except PageError as error:
            self.fault = str(error)

    def view(self, width: int) -> RenderableType:
        """The table, as wide as there is room for, and below it budgets, cache and faults."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        title = f"{self.url}   every {self.interval:g} s   {time.strftime('%H:%M:%S')}"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        narrow = width < WIDE
        shown = [column for column in COLUMNS if column.always or not narrow]
        for column in shown:
            table.add_column(column.heading, justify="right" if column.number else "left", no_wrap=True)
        notes: list[Text] = []
        if self.reading is None:
            notes.append(Text("Reading ...", style="dim"))
        else:
            for row in self.reading.rows:
                past = list(self._history.get(row.deployment, ()))
                past = past[-NARROW_HISTORY:] if narrow else past
                table.add_row(*(column.cell(row, past) for column in shown))
            notes += _notes(self.reading)
        if self.fault:
            notes.append(Text(self.fault, style="bold red"))
        return Group(table, *notes)


def _circuit(row: Row) -> Text:
    from rich.text import Text

    word, color = ("-", "dim") if row.circuit is None else CIRCUITS.get(row.circuit, (str(row.circuit), ""))
    return Text(word, style=color)


def _live(watch: Watch, console: Console) -> None:
    from rich.live import Live

    watch.begin()
    with Live(watch.view(console.width), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(watch.interval)
            watch.look()
            live.update(watch.view(console.width), refresh=True)


def _notes(reading: Reading) -> list[Text]:
    from rich.text import Text

    notes: list[Text] = []
    if not reading.rows:
        notes.append(Text("No deployment has been called yet.", style="dim"))
    for budget in reading.budgets:
        used = budget.spent / budget.limit if budget.limit else 1.0
        color = "red" if used >= 1 else "yellow" if used >= BUDGET_NEAR else "green"
        notes.append(
            Text(
                f"budget {budget.name}: {budget.spent:.2f} of {budget.limit:.2f} USD ({used:.0%})",
                style=color,
            )
        )
    asked = reading.cache_hits + reading.cache_misses
    if asked:
        notes.append(Text(f"cache: {reading.cache_hits / asked:.0%} of {asked:.1f} calls/s answered"))
    if reading.records_dropped:
        notes.append(Text(f"call records dropped: {_number(reading.records_dropped)}/s", style="yellow"))
    if reading.restarted:
        notes.append(Text("The program was restarted; rates are from its start.", style="yellow"))
    return notes


def _number(value: float) -> str:
    """Three digits that say something, without an exponent."""
    return f"{value:.0f}" if value >= 100 or not value else f"{value:.1f}" if value >= 1 else f"{value:.2f}"  # noqa: PLR2004 - digits


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"  # noqa: PLR2004 - digits


def _ratio(value: float | None) -> Text:
    from rich.text import Text

    if value is None:
        return Text("-")
    return Text(
        f"{value:.1%}", style="red" if value >= MANY_ERRORS else "yellow" if value >= SOME_ERRORS else ""
    )


COLUMNS = (
    Column("DEPLOYMENT", lambda row, _: row.deployment, number=False),
    Column("CALLS/S", lambda row, _: _number(row.calls)),
    Column("ERRORS", lambda row, _: _ratio(row.error_ratio)),
    Column("P50", lambda row, _: _seconds(row.p50), always=False),
    Column("P95", lambda row, _: _seconds(row.p95)),
    Column("P95 BEFORE", lambda _, past: sparkline(past), number=False),
    Column("FIRST", lambda row, _: _seconds(row.first_chunk), always=False),
    Column("CIRCUIT", lambda row, _: _circuit(row), number=False),
    Column("QUEUE", lambda row, _: f"{row.queue:g}", always=False),
    Column("FLIGHT", lambda row, _: f"{row.in_flight:g}", always=False),
    Column("RETRY/S", lambda row, _: _number(row.retries), always=False),
    Column("TOKENS/S", lambda row, _: _number(row.tokens), always=False),
    Column("USD/H", lambda row, _: f"{row.usd_per_hour:.2f}", always=False),
)
