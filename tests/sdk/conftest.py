"""One simulator for all tests of this folder, and its control over HTTP."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from liter_llm.testing import Simulator

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
"""The arguments of the tool the tests offer."""
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


class Faults:
    """Sets the simulator's rules for the length of a `with` block."""

    def __init__(self, simulator: Simulator) -> None:
        parts = urlsplit(simulator.base_url("openai"))
        self._url = f"{parts.scheme}://{parts.netloc}/_sim/rules"

    @contextmanager
    def __call__(self, fault: dict[str, Any], **match: Any) -> Iterator[None]:
        self._send("PUT", [{"match": match, "fault": fault}])
        try:
            yield
        finally:
            self._send("DELETE", [])

    def _send(self, method: str, rules: list[dict[str, Any]]) -> None:
        request = urllib.request.Request(
            self._url,
            data=json.dumps(rules).encode(),
            method=method,
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5):
            pass


@pytest.fixture(scope="session")
def faults(simulator: Simulator) -> Faults:
    return Faults(simulator)
