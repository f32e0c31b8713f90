"""The test vectors: all of them hold, each can fail, and together they cover what there is."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest

from liter_llm.requests import FIELD_NAMES

from .vectors_runner import (
    FOLDER,
    ROOT,
    VectorServer,
    Words,
    count,
    run_all,
    run_all_async,
    vector_server,
    without_vendors,
)

LEAST = 150
Vector = dict[str, Any]


def vectors() -> list[Vector]:
    files = sorted(path for path in FOLDER.glob("*.json") if path.name != "schema.json")
    return [vector for path in files for vector in json.loads(path.read_text())["vectors"]]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - without_vendors(os.environ).keys():
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def server() -> Iterator[VectorServer]:
    with vector_server(FOLDER) as running:
        yield running


RUNNERS = pytest.mark.parametrize("runner", [run_all, run_all_async], ids=["sync", "async"])


@RUNNERS
def test_every_vector_holds(server: VectorServer, runner: Callable[[VectorServer], Words]) -> None:
    words = runner(server)
    wrong = [f"{name}\n{word}" for name, word in words.items() if word != "ok"]
    assert not wrong, "\n\n".join(wrong)
    assert len(words) == count() == len(vectors())


def mutated(number: int, vector: Vector) -> Vector:
    """The vector with one thing that it expects changed."""
    changed: Vector = json.loads(json.dumps(vector))
    exchanges, outcome = changed["exchanges"], changed["calls"][0]["outcome"]
    way = number % 4
    if exchanges and way == 0:
        exchanges[0]["request"].setdefault("body", {})["not_sent"] = 1
    elif exchanges and way == 1:
        exchanges[0]["request"]["path"] += "/elsewhere"
    elif way == 2:
        never: Vector = {"request": {"path": "/never", "body": {}}, "reply": {}}
        exchanges.append(never)
    elif "response" in outcome:
        outcome["response"]["message"]["content"].append({"type": "text", "text": "never said"})
    else:
        outcome["error"]["kind"] = "timeout" if outcome["error"]["kind"] == "decode" else "decode"
    return changed


@RUNNERS
def test_a_wrong_expectation_is_refused(tmp_path: Path, runner: Callable[[VectorServer], Words]) -> None:
    changed = [mutated(number, vector) for number, vector in enumerate(vectors())]
    (tmp_path / "mutated.json").write_text(json.dumps({"vectors": changed}))
    with vector_server(tmp_path) as running:
        words = runner(running)
    assert [name for name, word in words.items() if word == "ok"] == []
    assert len(words) == len(changed)


def test_the_files_follow_their_schema() -> None:
    schema = json.loads((FOLDER / "schema.json").read_text())
    checker: Any = jsonschema.Draft202012Validator(schema)
    for path in FOLDER.glob("*.json"):
        if path.name != "schema.json":
            checker.validate(json.loads(path.read_text()))
    unnamed: list[Vector] = [{**vectors()[0], "name": "No Name"}]
    assert checker.is_valid({"vectors": vectors()})
    assert not checker.is_valid({"vectors": unnamed})
    assert not checker.is_valid({"vectors": []})


def inside(value: object, key: str) -> Iterator[object]:
    """All values under `key`, however deep."""
    if isinstance(value, dict):
        for name, item in cast("dict[str, object]", value).items():
            if name == key:
                yield item
            yield from inside(item, key)
    elif isinstance(value, list):
        for item in cast("list[object]", value):
            yield from inside(item, key)


def test_together_they_cover_what_there_is() -> None:
    every = vectors()
    names = Counter(vector["name"] for vector in every)
    assert len(every) >= LEAST
    assert names.most_common(1)[0][1] == 1, names.most_common(1)
    source = (ROOT / "crates/liter-llm/src/core/error.rs").read_text()
    kinds = set(re.findall(r'Self::\w+ => "(\w+)",', source))
    outcomes = [call["outcome"] for vector in every for call in vector["calls"]]
    # A call that its caller gives up has no outcome: `cancelled` shows in the attempts.
    told = set(inside(outcomes, "kind")) | {"cancelled"}.intersection(map(str, inside(outcomes, "error")))
    assert len(kinds) > 20
    assert kinds <= told, kinds - told
    asked = {field for vector in every for call in vector["calls"] for field in call["request"]}
    assert asked >= FIELD_NAMES, FIELD_NAMES - asked
    paths = " ".join(str(path) for path in inside([vector["exchanges"] for vector in every], "path"))
    for wire in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/openai/deployments/", "/models/"):
        assert wire in paths
    transports = set(inside([vector["config"] for vector in every], "transport"))
    methods = set(inside([vector["exchanges"] for vector in every], "method"))
    assert "websocket" in transports
    assert "WEBSOCKET" in methods
    table = (ROOT / "crates/liter-llm/src/routing/policy.rs").read_text()
    listed = re.search(r"POLICIES: &\[&str\] = &\[(.*?)\]", table, re.DOTALL)
    assert listed
    policies = set(re.findall(r'"(\w+)"', listed[1]))
    assert len(policies) >= 6
    chosen_by = set(inside([call["outcome"] for vector in every for call in vector["calls"]], "policy"))
    assert policies <= chosen_by, policies - chosen_by
