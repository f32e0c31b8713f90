"""The schema of what crosses the border: up to date, and right about every vector and the engine's bytes."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

from liter_llm import LiterLLM, ProviderRouter
from liter_llm._native import EngineError, Recorder, Stream
from liter_llm.requests import FIELD_NAMES
from liter_llm.testing import Simulator

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED: dict[str, Any] = json.loads((ROOT / "docs/wire.schema.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/wire.md").read_text(encoding="utf-8")
#: Vectors with a request that the engine refuses for its form.
MALFORMED = {"unknown_field", "max_tokens_of_a_wrong_type"}


def strict() -> dict[str, Any]:
    """The schema, and nothing that it does not name."""
    closed = {
        name: {**definition, "additionalProperties": False} if "properties" in definition else definition
        for name, definition in PUBLISHED["$defs"].items()
    }
    return {**PUBLISHED, "$defs": closed}


def faults(name: str) -> Callable[[Any], list[str]]:
    validator = jsonschema.Draft202012Validator({**strict(), "$ref": f"#/$defs/{name}"})
    return lambda document: [
        f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)
    ]


REQUEST, RESPONSE, CHUNK, ERROR, RECORD = map(
    faults, ("LlmRequest", "LlmResponse", "LlmChunk", "LlmError", "CallRecord")
)


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wire_schema", ROOT / "scripts/wire_schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # The types' annotations are looked up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_published_file_is_the_schema() -> None:
    written = (ROOT / "docs/wire.schema.json").read_text(encoding="utf-8")
    assert script().text() == written, "run scripts/wire_schema.py"
    jsonschema.Draft202012Validator.check_schema(PUBLISHED)
    assert "(wire.schema.json)" in PAGE


def test_every_reference_leads_somewhere() -> None:
    used = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(PUBLISHED)))
    documents = {"LlmRequest", "LlmResponse", "LlmChunk", "LlmError", "CallRecord"}
    assert used | documents == PUBLISHED["$defs"].keys()


def test_the_fields_are_the_engines_and_the_pages() -> None:
    definitions = PUBLISHED["$defs"]
    assert definitions["LlmRequest"]["properties"].keys() == FIELD_NAMES
    source = (ROOT / "crates/liter-llm/src/core/error.rs").read_text(encoding="utf-8")
    body = re.search(r"pub struct ErrorDetail \{(.*?)\n\}", source, re.DOTALL)
    assert body is not None
    fields = re.findall(r"^    (#\[serde\(skip\)\]\s+)?pub (\w+):", body[1], re.MULTILINE)
    assert definitions["ErrorDetail"]["properties"].keys() == {
        name for skipped, name in fields if not skipped
    }
    told = PAGE.partition("\n## Chunk\n")[2].partition("\n## ")[0]
    assert all(f"`{name}`" in told for name in definitions["LlmChunk"]["properties"])
    headings = {
        "LlmRequest": "Request",
        "LlmResponse": "Answer",
        "LlmError": "Error",
        "CallRecord": "Call record",
    }
    for name, heading in headings.items():
        section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        told = set(re.findall(r"`(\w+)`", section)) | set(re.findall(r'"(\w+)"', section))
        assert definitions[name]["properties"].keys() <= told, name


def vectors() -> list[dict[str, Any]]:
    files = sorted((ROOT / "tests/vectors").glob("*.json"))
    return [one for file in files for one in json.loads(file.read_text(encoding="utf-8")).get("vectors", [])]


def whole(chunk: dict[str, Any]) -> dict[str, Any]:
    """A chunk with the empty text of a block that begins, which vectors leave out."""
    start = chunk.get("start")
    if start is not None and start["type"] in {"text", "refusal"}:
        return {**chunk, "start": {"text": "", **start}}
    return chunk


def asked(vector: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
    """A call's request as it is made: with the answers that go back in it."""
    request: dict[str, Any] = call["request"]
    if not any("answer_of" in message for message in request.get("messages", [])):
        return request
    said = [each["outcome"].get("response", {}).get("message") for each in vector["calls"]]
    messages = [said[each["answer_of"]] if "answer_of" in each else each for each in request["messages"]]
    return {**request, "messages": messages}


def test_every_vector_fits() -> None:
    counts = dict.fromkeys(("request", "response", "chunk", "error"), 0)
    found: list[str] = []

    def look(kind: str, fits: Callable[[Any], list[str]], document: Any) -> None:
        counts[kind] += 1
        found.extend(f"{vector['name']}: {kind}{fault[1:]}" for fault in fits(document))

    for vector in vectors():
        for call in vector["calls"]:
            outcome = call["outcome"]
            if vector["name"] in MALFORMED:
                assert REQUEST(call["request"]), vector["name"]
            else:
                look("request", REQUEST, asked(vector, call))
            if "response" in outcome:
                look("response", RESPONSE, outcome["response"])
            if "error" in outcome:
                look("error", ERROR, outcome["error"])
            for chunk in outcome.get("chunks", []):
                look("chunk", CHUNK, whole(chunk))
    assert found == []
    least = {"request": 300, "response": 150, "chunk": 250, "error": 100}
    assert all(counts[kind] >= least[kind] for kind in least), counts


def read(stream: Stream) -> list[dict[str, Any]]:
    chunks: list[dict[str, Any]] = []
    while batch := stream.next():
        chunks += json.loads(batch)
    return chunks


def test_what_the_engine_writes_fits(sim: Simulator) -> None:
    """Its own bytes: an answer with a tool call and a route, a stream, an error inside of one, a record."""
    sim.rules = [{"match": {"provider": "openai", "times": 1}, "fault": {"status": 503}}]
    router = ProviderRouter(
        [
            sim.config("openai", model="gpt-4o-mini", region="eu"),
            sim.config("anthropic", model="claude-sonnet-4-5"),
        ]
    )
    engine = LiterLLM(router)._engine
    tool = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    request = {
        "messages": [{"role": "user", "content": "The weather in Paris?"}],
        "tools": [tool],
        "tool_choice": "required",
        "max_tokens": 50,
    }
    assert REQUEST(request) == []
    recorder = Recorder()
    answer = json.loads(engine.generate(json.dumps(request).encode(), recorder)[0])
    assert RESPONSE(answer) == []
    assert {"attempts", "route", "cost", "timing", "usage"} <= answer.keys()
    assert len(answer["attempts"]) == 2
    assert any(block["type"] == "tool_call" for block in answer["message"]["content"])
    record = json.loads(recorder.record() or b"null")
    assert RECORD(record) == []
    assert record["attempts"][1]["cause"] == "fallback"

    chunks = read(engine.open(b'{"prompt": "Hello", "max_tokens": 5}'))
    assert len(chunks) > 5
    assert [fault for chunk in chunks for fault in CHUNK(chunk)] == []
    assert {"usage", "facts", "finish_reason", "text"} <= {name for chunk in chunks for name in chunk}

    sim.rules = [{"match": {}, "fault": {"cut_after": 4}}]
    stream = engine.open(b'{"prompt": "Hello", "max_tokens": 50}')
    with pytest.raises(EngineError) as caught:
        read(stream)
    error = json.loads(caught.value.args[0])
    assert ERROR(error) == []
    assert {"partial", "route", "causes", "message"} <= error["detail"].keys()


@pytest.mark.parametrize(
    ("fits", "document"),
    [
        (REQUEST, {"prompt": 5}),
        (REQUEST, {"prompt": "x", "max_token": 5}),
        (REQUEST, {"prompt": "x", "temperature": "hot"}),
        (REQUEST, {"messages": [{"content": "whose?"}]}),
        (REQUEST, {"prompt": "x", "on_unsupported": "ignore"}),
        (RESPONSE, {}),
        (RESPONSE, {"message": {"role": "assistant", "content": []}, "finish_reason": "done"}),
        (RESPONSE, {"message": {"role": "assistant", "content": [{"type": "tool_call", "name": "x"}]}}),
        (RESPONSE, {"message": {"role": "assistant", "content": []}, "usage": {"input_tokens": 1.5}}),
        (CHUNK, {"text": None}),
        (CHUNK, {"start": {"type": "video"}}),
        (ERROR, {"text": "what?"}),
        (ERROR, {"kind": "unknown"}),
        (ERROR, {"kind": "timeout", "detail": {"phase": "later"}}),
        (RECORD, {"attempts": [{"cause": "again"}]}),
    ],
)
def test_what_is_wrong_does_not_fit(fits: Callable[[Any], list[str]], document: Any) -> None:
    assert fits(document) != []
