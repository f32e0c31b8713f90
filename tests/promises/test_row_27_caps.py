"""Row 27: caps on size, depth and decompressed size, both ways; memory and other calls do not suffer.

An answer may take 64 MiB and an event 16 MiB, so that is what a hostile one fills before it is refused. The
peak is allowed a little more, for what reading takes; what is left afterwards is far less.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import pytest

from liter_llm import (
    APIConnectionError,
    DecodeError,
    InvalidArgumentError,
    LiterLLM,
    LiterLlmError,
    LlmMessage,
    ProviderConfig,
    RequestTooLargeError,
    ToolArgumentsError,
)
from liter_llm.content import ToolCallBlock
from liter_llm.testing import Simulator

from .dialects import DIALECTS, Dialect
from .hostile import hostile_server

BOMB_MIB = 1024
BODY_MIB = 100
DEPTH = 100_000
#: MiB that may be added for good, and at the peak of one call: the cap and what reading takes.
LASTING, PEAK = 64, 64 + 4
EXCERPT = 4096
#: Healthy calls before and beside the hostile ones, and how much slower their slowest hundredth may be. Below
#: the floor (seconds) it does not matter: with two cores, the hostile server alone takes one of them.
FULL_CALLS, SHORT_CALLS = 5_000, 500
SLOWER, FLOOR = 2.0, 0.05

#: Runs in a process of its own: its memory is measured.
PROGRAM = """
import gc, json, sys
from liter_llm import LiterLLM, LiterLlmError, ProviderConfig

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))

healthy, hostile, kinds = json.loads(sys.argv[1])
def client(base):
    options = {"model": "m", "api_key": "k", "base_url": base, "max_retries": 0, "circuit": False}
    return LiterLLM(ProviderConfig(provider="openai", **options))

for _ in range(20):
    client(healthy).generate("hello")
    client(healthy).stream("hello").until_done()
rows = {}
for kind in kinds:
    gc.collect()
    before = memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")
    try:
        call = client(f"{hostile}/{kind}")
        call.stream("x").until_done() if kind.endswith("stream") else call.generate("x")
        outcome = ["none", "", 0]
    except LiterLlmError as error:
        outcome = [error.kind, str(error), len((error.body or "").encode())]
        del error
    rows[kind] = [*outcome, memory("VmHWM") - before, memory("VmRSS") - before]
print(json.dumps(rows))
"""

#: What is asked for, and the kind of error; of an error's body only the beginning is read.
HOSTILE = {
    f"{BOMB_MIB}/bomb": "decode",
    f"{BOMB_MIB}/bomb-error": "provider_error",
    f"{BOMB_MIB}/bomb-stream": "decode",
    f"{BODY_MIB}/known": "decode",
    f"{BODY_MIB}/known-error": "provider_error",
    f"{BODY_MIB}/chunked": "decode",
    f"{BODY_MIB}/chunked-error": "provider_error",
    f"{BODY_MIB}/chunked-stream": "decode",
    f"{BODY_MIB}/header": "decode",
}


@pytest.mark.skipif(sys.platform != "linux", reason="the memory is read from /proc")
def test_row_27_hostile_answers_are_refused_in_bounded_memory(sim: Simulator) -> None:
    with hostile_server() as hostile:
        argument = json.dumps([sim.base_url("openai"), hostile, list(HOSTILE)])
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, argument],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    rows: dict[str, Any] = json.loads(done.stdout)
    for name, (kind, text, excerpt, peak, lasting) in rows.items():
        assert kind == HOSTILE[name], f"{name}: {kind} {text}"
        assert peak <= PEAK, f"{name}: {peak:.1f} MiB at the peak"
        assert lasting <= LASTING / 4, f"{name}: {lasting:.1f} MiB afterwards"
        assert excerpt <= EXCERPT, name


def test_row_27_a_long_error_body_leaves_a_short_excerpt(sim: Simulator) -> None:
    for body in (
        "x" * 1_000_000,
        "ä" * 500_000,
        {"error": {"message": "m" * 100_000, "type": "server_error"}},
    ):
        sim.rules = [{"match": {}, "fault": {"status": 500, "body": body}}]
        for dialect in DIALECTS[:4]:
            with pytest.raises(LiterLlmError) as caught:
                LiterLLM(dialect.config(sim)).generate("hello")
            assert caught.value.body is not None
            assert len(caught.value.body.encode()) <= EXCERPT


def deep(kind: str) -> str:
    opened, closed = ('{"a":', "}") if kind == "objects" else ("[", "]")
    return f"{opened * DEPTH}1{closed * DEPTH}"


ANSWERS = {
    "chat": '{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},'
    '"finish_reason":"stop"}],"vendor":%s}',
    "azure": '{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"hi","vendor":%s},'
    '"finish_reason":"stop"}]}',
    "anthropic": '{"id":"x","type":"message","role":"assistant","model":"m","content":[{"type":"tool_use",'
    '"id":"t","name":"f","input":%s}],"stop_reason":"tool_use","usage":{"input_tokens":1,"output_tokens":1}}',
    "responses": '{"id":"x","status":"completed","model":"m","output":[{"type":"vendor","deep":%s}]}',
}


@pytest.mark.parametrize("dialect", DIALECTS[:4], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("kind", ["objects", "arrays"])
def test_row_27_deep_answers(sim: Simulator, dialect: Dialect, kind: str) -> None:
    client = LiterLLM(dialect.config(sim))
    for body in (deep(kind), ANSWERS[dialect.name] % deep(kind)):
        json_body = {"body_base64": base64.b64encode(body.encode()).decode()}
        for fault, kinds in (
            (json_body, {"decode"}),
            ({"sse": f"data: {body}\n\n"}, {"decode"}),
            ({**json_body, "status": 400}, {"invalid_request"}),
            ({**json_body, "status": 500}, {"provider_error"}),
        ):
            sim.rules = [{"match": {}, "fault": fault}]
            for call in (client.generate, lambda text: client.stream(text).until_done()):
                if "sse" in fault and call == client.generate:
                    continue
                with pytest.raises(LiterLlmError) as caught:
                    call("hello")
                assert caught.value.kind in kinds, repr(caught.value)


def test_row_27_deep_messages_on_a_websocket(sim: Simulator) -> None:
    dialect = DIALECTS[4]
    fault = {"malformed_after": 3, "malformed_text": f'{{"type":"vendor.event","deep":{deep("arrays")}}}'}
    sim.rules = [{"match": dialect.match(), "fault": fault}]
    with pytest.raises(DecodeError):
        LiterLLM(dialect.config(sim)).stream("hello").until_done()
    sim.rules = [{"match": dialect.match(), "fault": {"oversized_bytes": 17 << 20, "oversized_after": 3}}]
    with pytest.raises(DecodeError):
        LiterLLM(dialect.config(sim)).stream("hello").until_done()


def test_row_27_deep_requests(sim: Simulator) -> None:
    value: Any = {}
    for _ in range(DEPTH):
        value = {"a": [value]}
    tool = {"name": "f", "parameters": value}
    shape = {"type": "json_schema", "name": "x", "schema": value}
    raw = deep("objects")
    call = ToolCallBlock(id="t", name="f", raw_arguments=raw)
    with pytest.raises(ToolArgumentsError):
        _ = call.arguments
    for dialect in DIALECTS:
        client = LiterLLM(dialect.config(sim))
        for fields in (
            {"extra": {"vendor": value}},
            {"tools": [tool]},
            {"response_format": shape},
            {"messages": [{"role": "user", "content": [{"type": "vendor", "deep": value}]}]},
        ):
            prompt = {} if "messages" in fields else {"prompt": "hello"}
            with pytest.raises(ValueError, match=r"nested|deep") as caught:
                client.generate(**prompt, **fields)
            assert isinstance(caught.value, InvalidArgumentError)
    # Deep enough for the engine to refuse, not for the encoder before it.
    value = {}
    for _ in range(150):
        value = {"a": value}
    with pytest.raises(InvalidArgumentError, match="128"):
        LiterLLM(DIALECTS[0].config(sim)).generate("hello", extra={"vendor": value})
    assert sim.requests == []
    # Anthropic takes arguments as JSON, not as text.
    with pytest.raises((InvalidArgumentError, ToolArgumentsError)):
        LiterLLM(DIALECTS[2].config(sim)).generate(
            messages=[
                LlmMessage.user("x"),
                LlmMessage(role="assistant", content=[call]),
                LlmMessage.tool_result("t", "1"),
            ]
        )


def test_row_27_a_request_larger_than_the_provider_takes() -> None:
    with Simulator(max_body_bytes=1 << 20) as small:
        for dialect in DIALECTS[:4]:
            with pytest.raises((RequestTooLargeError, APIConnectionError)) as caught:
                LiterLLM(dialect.config(small)).generate("x" * (2 << 20))
            assert caught.value.kind in {"request_too_large", "connection"}


#: Runs in a process of its own, so that the test's interpreter takes no turn between the calls.
HEALTHY = """
import json, sys, threading, time
from liter_llm import LiterLLM, LiterLlmError, ProviderConfig

healthy, hostile, count = json.loads(sys.argv[1])
def client(base):
    options = {"model": "m", "api_key": "k", "base_url": base, "max_retries": 0, "circuit": False}
    return LiterLLM(ProviderConfig(provider="openai", **options))

calls = client(healthy)
def slowest_hundredth(count):
    times = []
    for _ in range(count):
        start = time.perf_counter()
        calls.generate("hello")
        times.append(time.perf_counter() - start)
    return sorted(times)[int(count * 0.99)]

slowest_hundredth(50)
alone = slowest_hundredth(count)
stop = threading.Event()
refused = []
def attack():
    bombs = client(f"{hostile}/1024/bomb")
    while not stop.is_set():
        try:
            bombs.generate("x")
        except LiterLlmError as error:
            refused.append(error.kind)
thread = threading.Thread(target=attack)
thread.start()
while not refused:
    time.sleep(0.01)
beside = slowest_hundredth(count)
stop.set()
thread.join()
print(json.dumps([alone, beside, refused]))
"""


def test_row_27_healthy_calls_beside_hostile_ones(sim: Simulator, sized: Any) -> None:
    with hostile_server() as hostile:
        argument = json.dumps([sim.base_url("openai"), hostile, sized(FULL_CALLS, SHORT_CALLS)])
        done = subprocess.run(
            [sys.executable, "-c", HEALTHY, argument],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    alone, beside, refused = json.loads(done.stdout)
    assert set(refused) == {"decode"}
    assert beside <= max(SLOWER * alone, FLOOR), f"{alone * 1e3:.1f} ms alone, {beside * 1e3:.1f} ms beside"


def test_row_27_configuration_is_capped_too() -> None:
    value: Any = {}
    for _ in range(DEPTH):
        value = {"a": value}
    with pytest.raises(ValueError, match="extra"):
        ProviderConfig(provider="openai", model="m", api_key="k", extra={"vendor": value})
