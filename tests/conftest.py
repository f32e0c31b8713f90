"""One simulator for the tests of the package, without rules and requests at the start of each test."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from liter_llm.testing import Simulator
from tests.stalls import LATE, TRIES, Stalls, TooLateError

# A run in the background may have Ctrl-C switched off, and would hand that on to the programs it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The servers of the tests run on this machine, which a proxy of the surroundings could not reach.
os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]))


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    with Simulator() as server:
        yield server


@pytest.fixture
def sim(running_simulator: Simulator) -> Iterator[Simulator]:
    running_simulator.rules.clear()
    running_simulator.clear_requests()
    yield running_simulator
    running_simulator.rules.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, pytest.TestReport]:
    report: pytest.TestReport = yield
    late = call.excinfo is not None and isinstance(call.excinfo.value, TooLateError)
    report.user_properties.append(("late", late))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Runs a test marked `keeps_time` again when it was late while the machine stalled; see `stalls`."""
    if item.get_closest_marker("keeps_time") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for left in reversed(range(TRIES)):
        item._initrequest()  # type: ignore[attr-defined] # fixtures anew, as pytest itself does it
        with Stalls() as stalls:
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
        late = [report for report in reports if report.failed and ("late", True) in report.user_properties]
        if not late or any(report.failed and report not in late for report in reports):
            break
        if not left or stalls.worst < LATE:
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
