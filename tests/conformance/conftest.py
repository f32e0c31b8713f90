"""The replay server, the clients, and the table at the end of the run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .reading import Reader
from .records import folder
from .replay import Replay
from .tally import Tally

TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()
    config.addinivalue_line(
        "markers", "needs_records: reads the recorded exchanges kept outside the repository"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if folder().is_dir() or os.environ.get("CI") == "true":
        return
    reason = f"the recorded exchanges are not at {folder()}; set LITER_LLM_RECORDED"
    for item in items:
        if "needs_records" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tally = config.stash.get(TALLY, Tally())
    if tally.seen:
        terminalreporter.section("conformance with recorded answers")
        for line in tally.table():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Tally:
    return request.config.stash[TALLY]


@pytest.fixture(scope="session")
def replay() -> Iterator[Replay]:
    with Replay() as server:
        yield server


@pytest.fixture(scope="session")
def reader(replay: Replay) -> Iterator[Reader]:
    reader = Reader(replay)
    yield reader
    reader.close()
