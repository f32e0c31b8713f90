"""One simulator for the tests of the package, without rules and requests at the start of each test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from liter_llm.testing import Simulator

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
