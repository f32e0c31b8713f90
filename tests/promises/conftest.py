"""What the promise tests share: the switch between full and shorter counts.

A row's test states both of its counts beside each other and takes one with the fixture `sized`:

    FULL, SHORT = 5_000, 500
    def test_row_01_a_storm(sim, sized):
        calls = sized(FULL, SHORT)

The full counts are taken when the environment variable `LITER_LLM_SOAK` is `1`; the fixture `soak` tells.
The fixture `sim` (of the outer conftest) is one simulator for the whole run, without rules at the start of
each test; a test that needs options of its own starts another one.
"""

from __future__ import annotations

import os
from typing import Protocol, TypeVar

import pytest

T = TypeVar("T")


class Sized(Protocol):
    """Picks the full or the shorter count."""

    def __call__(self, full: T, short: T) -> T: ...


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether the full counts are to be run."""
    return os.environ.get("LITER_LLM_SOAK") == "1"


@pytest.fixture(scope="session")
def sized(soak: bool) -> Sized:
    """`sized(FULL, SHORT)`: the one that holds for this run."""
    return lambda full, short: full if soak else short
