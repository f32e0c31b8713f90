"""What a router tells of itself: live statistics, and latency by deployment and time."""

from __future__ import annotations

from math import log
from typing import Literal

from .tables import escaped, html_table, seconds, text_table
from .value import Value

#: From the shortest to the longest time.
_SHADES = "▁▂▃▄▅▆▇█"
_NO_CALLS = "·"
_FAILED = "x"


class PolicyFailures(Value, frozen=True):
    """How often a policy of one's own was not heard, and why."""

    late: int = 0
    """It took longer than 5 ms."""
    failed: int = 0
    """It raised something, or returned no list of candidates or names."""
    nonsense: int = 0
    """It named nobody, somebody twice, or somebody who is no candidate."""


class DeploymentStatistics(Value, frozen=True):
    """Live statistics of a deployment. Times are seconds."""

    deployment: str
    """Its name."""
    provider: str = ""
    """The provider's name."""
    model: str = ""
    """The model; empty where the provider chooses."""
    region: str | None = None
    """The region."""
    circuit: Literal["closed", "open", "half_open"] = "closed"
    """The state of its circuit."""
    closed_for: float | None = None
    """For how long it takes no call: an open circuit, or a cooldown after a `429`."""
    share: float = 0.0
    """Its share of all calls of the router so far, from 0 to 1."""
    latency: float | None = None
    """The time to the whole answer, lately."""
    latency_p50: float | None = None
    """The middle of these times."""
    latency_p95: float | None = None
    """The time that 95 % of whole answers stay under."""
    first_chunk: float | None = None
    """The time to a stream's first chunk, lately."""
    first_chunk_p50: float | None = None
    """The middle of these times."""
    first_chunk_p95: float | None = None
    """The time that 95 % of first chunks stay under."""
    calls: int = 0
    """Calls ended."""
    failures: int = 0
    """Of these, those that failed through the deployment's fault."""
    in_flight: int = 0
    """Calls that have not ended, those in line included."""
    suspect: bool = False
    """Whether it failed lately and has not answered since."""
    spiking: bool = False
    """Whether it is slower than a factor of its own baseline now."""


class RouterStatistics(Value, frozen=True):
    """Live statistics of a router. Printed, it is a table."""

    policy: str
    """The policy's name."""
    policy_failures: PolicyFailures = PolicyFailures()
    """How often a policy of one's own was not heard."""
    deployments: list[DeploymentStatistics] = []
    """One entry for each deployment, in the order of the configuration."""

    def _rows(self) -> list[list[str]]:
        return [
            [
                one.deployment,
                str(one.calls),
                f"{one.share:.0%}",
                str(one.failures),
                str(one.in_flight),
                seconds(one.latency_p50),
                seconds(one.latency_p95),
                seconds(one.first_chunk_p50),
                one.circuit.replace("_", "-"),
            ]
            for one in self.deployments
        ]

    def __str__(self) -> str:
        return f"{self.policy}\n{text_table(_HEAD, self._rows(), right=frozenset(range(1, 8)))}"

    def _repr_html_(self) -> str:
        return f"<b>{escaped(self.policy)}</b>{html_table(_HEAD, self._rows())}"


_HEAD = (
    "deployment",
    "calls",
    "share",
    "failed",
    "in flight",
    "p50",
    "p95",
    "first chunk p50",
    "circuit",
)


class HeatmapCell(Value, frozen=True):
    """One deployment's calls in one bucket of time. Times are seconds."""

    count: int = 0
    """Calls that ended."""
    failures: int = 0
    """Of these, those that failed through the deployment's fault."""
    p50: float | None = None
    """The middle of the times: to the first chunk of streams, to the end of other answers; `None` without an
    answer."""
    p95: float | None = None
    """The time that 95 % stay under."""


class HeatmapRow(Value, frozen=True):
    """One deployment's latency by time."""

    deployment: str
    """Its name."""
    cells: list[HeatmapCell] = []
    """One cell for each bucket, oldest first."""


class Heatmap(Value, frozen=True):
    """Latency by deployment and time: printed, or shown in a notebook, it is a picture."""

    bucket: float
    """The width of a bucket in seconds."""
    began: list[float] = []
    """How many seconds ago each bucket began, oldest first; the last one is under way."""
    rows: list[HeatmapRow] = []
    """One row for each deployment, in the order of the configuration."""

    def _range(self) -> tuple[float, float] | None:
        times = [cell.p50 for row in self.rows for cell in row.cells if cell.p50]
        return (min(times), max(times)) if times else None

    def _heat(self, cell: HeatmapCell) -> float | None:
        """From 0 (the shortest time of all) to 1 (the longest), by ratio; `None` without an answer."""
        limits = self._range()
        if not cell.p50 or limits is None:
            return None
        shortest, longest = limits
        return log(cell.p50 / shortest) / log(longest / shortest) if longest > shortest else 0.0

    def _sign(self, cell: HeatmapCell) -> str:
        heat = self._heat(cell)
        if heat is None:
            return _FAILED if cell.failures else _NO_CALLS
        return _SHADES[min(int(heat * len(_SHADES)), len(_SHADES) - 1)]

    def _title(self) -> str:
        limits = self._range()
        scale = f": {seconds(limits[0])} to {seconds(limits[1])}" if limits else ": no answers yet"
        return f"p50{scale}; {len(self.began)} buckets of {self.bucket:.0f} s, the newest at the right"

    def __str__(self) -> str:
        rows = [
            [
                row.deployment,
                "".join([self._sign(cell) for cell in row.cells]),
                str(sum(cell.count for cell in row.cells)),
                str(sum(cell.failures for cell in row.cells)),
            ]
            for row in self.rows
        ]
        table = text_table(("deployment", "", "calls", "failed"), rows, right=frozenset({2, 3}))
        return f"{self._title()}\n{table}"

    def _repr_html_(self) -> str:
        head = ["deployment", *(f"-{began:.0f} s" for began in self.began)]
        rows = [[row.deployment, *(seconds(cell.p50) for cell in row.cells)] for row in self.rows]
        styles = [["", *(self._style(cell) for cell in row.cells)] for row in self.rows]
        return f"<b>{escaped(self._title())}</b>{html_table(head, rows, styles=styles)}"

    def _style(self, cell: HeatmapCell) -> str:
        heat = self._heat(cell)
        frame = "border: 2px solid #b00; " if cell.failures else ""
        # From green to red.
        return frame if heat is None else f"{frame}background: hsl({120 - 120 * heat:.0f}, 70%, 75%)"
