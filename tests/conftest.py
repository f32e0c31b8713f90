"""One simulator for the tests of the package, without rules and requests at the start of each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from liter_llm.testing import Simulator


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
