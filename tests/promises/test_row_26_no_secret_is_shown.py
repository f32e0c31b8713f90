"""Row 26: no secret in errors, logs, texts and pickles; no prompt in errors and logs.

Every field that may hold a secret holds a canary, every fault of the simulator is met, and providers repeat
the canaries in their bodies. The prompt's canary stands in the system message: what a provider repeats of a
prompt in its own error message is the provider's word and stays, so no body here does that.
"""

from __future__ import annotations

import base64
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from liter_llm import AsyncLiterLLM, LiterLLM, LiterLlmError, ProviderConfig
from liter_llm.testing import Simulator

from .dialects import DIALECTS, REQUESTS, Dialect

KEY = "sk-CANARY-7f3a91-0123456789"
#: Other fields have canaries of their own, so that a hit names its field.
HEADER = "hd-CANARY-55aa01-0123456789"
QUERY = "qu-CANARY-55aa02-0123456789"
EXTRA = "ex-CANARY-55aa03-0123456789"
PROXY = "px-CANARY-55aa04-0123456789"
ENTRA = "en-CANARY-55aa05-0123456789"
CALL = "ca-CANARY-55aa06-0123456789"
SECRETS = [KEY, HEADER, QUERY, EXTRA, PROXY, ENTRA, CALL]
PROMPT = "prompt-CANARY-77bb"
ECHO = f"Incorrect API key provided: {KEY} {HEADER} {QUERY} {EXTRA} {CALL}."
#: A JSON Web Token, as access tokens are, that no configuration knows.
TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJDQU5BUlkifQ.Q0FOQVJZ"
ERROR = {
    "type": "authentication_error",
    "code": "invalid_api_key",
    "message": f"{ECHO} {TOKEN}",
    "param": KEY,
}

#: Every way in which the simulator fails, and bodies that repeat what was sent.
FAULTS: list[dict[str, Any]] = [
    *({"status": status, "body": {"error": ERROR}} for status in (400, 401, 403, 404, 409, 413, 422, 429)),
    *({"status": status, "body": {"error": ERROR}} for status in (500, 502, 503, 529)),
    *({"status": status} for status in (401, 404, 429, 500, 529)),
    {"status": 401, "body": ECHO},
    {"status": 500, "body": f"<html>{ECHO}</html>"},
    # The excerpt of a long body ends in the middle of the key.
    {"status": 500, "body": "x" * (4096 - 3 - len(KEY) + 4) + KEY},
    {"status": 200, "body": ECHO},
    {"status": 200, "body": {"error": ERROR}},
    {"status": 307, "headers": {"location": f"http://127.0.0.1:1/?token={QUERY}"}, "body": ECHO},
    {"status": 401, "headers": {"x-request-id": KEY}, "body": {"error": ERROR}},
    {"body_base64": base64.b64encode(b"\x00\xff" + ECHO.encode()).decode()},
    {"sse": f"data: {ECHO}\n\n"},
    {"sse": f'event: error\ndata: {{"type":"error","error":{{"type":"x","message":"{ECHO}"}}}}\n\n'},
    {"hang": True},
    {"reset": True},
    {"close": True},
    *({name: 5} for name in ("hang_after", "reset_after", "close_after", "end_after", "cut_after")),
    {"error_after": 5},
    {"error_after": 0, "error": ERROR},
    {"error_after": 6, "error": ERROR},
    {"malformed_after": 6, "malformed_text": ECHO},
    {"drop_terminator": True, "drop_finish": True},
    {"cut_after_bytes": 100},
    {"oversized_bytes": 17 << 20, "oversized_after": 2},
    {"content_type": "text/plain", "body": ECHO},
    {"gzip": True, "cut_after_bytes": 30},
    {"headers": {"content-encoding": "gzip"}, "body": ECHO},
]  # fmt: skip

OPTIONS: dict[str, Any] = {
    "api_key": KEY,
    "headers": {"x-secret": HEADER, "authorization-2": f"Bearer {HEADER}"},
    "extra": {"vendor_key": EXTRA},
    "idle_timeout": 0.15,
    "first_byte_timeout": 0.15,
    "timeout": 20.0,
    "max_retries": 0,
}
ANSWER: dict[str, Any] = {
    "system": PROMPT,
    "max_tokens": 100,
    "headers": {"x-call-token": CALL},
}


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def shown(error: BaseException) -> Iterator[tuple[str, str]]:
    """Everything an error shows, by name."""
    for cause in causes(error):
        yield "str", str(cause)
        yield "repr", repr(cause)
        yield "args", repr(cause.args)
        yield "fields", repr(vars(cause))
        for field, value in vars(cause).items():
            yield field, f"{value} {value!r}"
    if isinstance(error, LiterLlmError):
        yield "attempts", repr([attempt.to_dict() for attempt in error.attempts])
        if error.partial is not None:
            yield "partial", repr(error.partial.to_dict())
    yield "pickle", pickle.dumps(error).decode("latin-1")
    yield "unpickled", repr(vars(pickle.loads(pickle.dumps(error))))
    yield "traceback", "".join(traceback.format_exception(error))


def variables(error: BaseException) -> Iterator[tuple[str, str]]:
    """The variables of the package's own frames, as crash reporters collect them."""
    for cause in causes(error):
        frames = traceback.StackSummary.extract(traceback.walk_tb(cause.__traceback__), capture_locals=True)
        for frame in frames:
            if "liter_llm" in Path(frame.filename).parts:
                yield f"variables of {frame.name}", repr(frame.locals)


def check(label: str, error: BaseException) -> None:
    for place, text in shown(error):
        for canary in (*SECRETS, TOKEN, PROMPT):
            assert canary not in text, f"{label}: {canary} in {place}"
        assert "sk-CANARY-7f3a" not in text, f"{label}: part of the key in {place}"
    for place, text in variables(error):
        # The prompt is what the call is about; a reporter that collects variables collects it.
        for canary in (KEY, ENTRA):
            assert canary not in text, f"{label}: {canary} in {place}"


def config(sim: Simulator, dialect: Dialect, **options: Any) -> ProviderConfig:
    base = f"{sim.base_url(dialect.provider)}?token={QUERY}"
    return dialect.config(sim, **{**OPTIONS, "base_url": base, **options})


@pytest.fixture
def silent(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """After the test neither a log of any level nor standard output or error holds a canary."""
    with caplog.at_level(1):
        logging.getLogger().setLevel(1)
        yield
    out, err = capfd.readouterr()
    for text in (out, err, caplog.text, repr([record.__dict__ for record in caplog.records])):
        for canary in (*SECRETS, TOKEN, PROMPT):
            assert canary not in text


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_row_26_every_fault(sim: Simulator, silent: None, dialect: Dialect) -> None:
    once, twice = (LiterLLM(config(sim, dialect, max_retries=count)) for count in (0, 1))
    failed = 0
    for number, fault in enumerate(FAULTS):
        # A few with another attempt: the error then tells of both.
        client = twice if number % 9 == 8 else once
        sim.rules = [{"match": dialect.match(), "fault": fault}]
        for stream in (False, True):
            label = f"{dialect.name} {str(fault)[:80]} {'streamed' if stream else 'whole'}"
            try:
                if stream:
                    client.stream("[echo] plain words, many of them, one by one", **ANSWER).until_done()
                else:
                    client.generate("[echo] plain words, many of them, one by one", **ANSWER)
            except LiterLlmError as error:
                failed += 1
                check(label, error)
    assert failed >= len(FAULTS)


async def test_row_26_every_fault_async(sim: Simulator, silent: None) -> None:
    for dialect in DIALECTS[:3]:
        client = AsyncLiterLLM(config(sim, dialect, max_retries=0))
        for fault in FAULTS:
            sim.rules = [{"match": dialect.match(), "fault": fault}]
            try:
                async for _ in client.stream("[echo] plain words, many of them, one by one", **ANSWER):
                    pass
            except LiterLlmError as error:
                check(f"{dialect.name} {str(fault)[:80]}", error)
        await client.aclose()


def unreachable(**options: Any) -> Callable[[], object]:
    made = {"provider": "openai", "model": "m", **OPTIONS, "max_retries": 0, **options}
    return lambda: LiterLLM(ProviderConfig(**made)).generate("x", system=PROMPT)


WITHOUT_AN_ANSWER: dict[str, Callable[[], object]] = {
    "refused": unreachable(base_url=f"http://127.0.0.1:1/v1?token={QUERY}"),
    "no such host": unreachable(base_url=f"http://no-such-host.invalid/v1?token={QUERY}", timeout=5.0),
    "no proxy": unreachable(base_url="http://h.invalid/v1", proxy=f"http://user:{PROXY}@127.0.0.1:1"),
    "no SOCKS proxy": unreachable(base_url="http://h.invalid/v1", proxy=f"socks5h://u:{PROXY}@127.0.0.1:1"),
    "proxy is no URL": unreachable(proxy=f"{PROXY}@"),
    "proxy of another scheme": unreachable(proxy=f"ftp://user:{PROXY}@h"),
    "password in the base URL": unreachable(base_url=f"https://user:{KEY}@h/v1"),
    "base URL of another scheme": unreachable(base_url=f"ftp://h/?token={QUERY}"),
    "line break in the key": unreachable(api_key=f"{KEY}\n"),
    "line break in a header": unreachable(headers={"x-secret": f"{HEADER}\n"}),
    "no JSON in extra": unreachable(extra={"vendor_key": {EXTRA: object()}}),
    "unknown provider": unreachable(provider="opnai"),
    "unknown option": unreachable(api_kye=KEY),
    "Entra for another vendor": unreachable(client_secret=ENTRA),
    "Entra in part": unreachable(
        provider="azure", api_key=None, client_secret=ENTRA, base_url="http://127.0.0.1:1"
    ),
}


@pytest.mark.parametrize("name", WITHOUT_AN_ANSWER)
def test_row_26_without_an_answer(silent: None, name: str) -> None:
    with pytest.raises(Exception) as caught:
        WITHOUT_AN_ANSWER[name]()
    check(name, caught.value)


@pytest.mark.parametrize("status", [400, 401, 500])
def test_row_26_a_token_service_repeats_the_secret(
    sim: Simulator, silent: None, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", sim.base_url("entra"))
    sim.rules = [
        {
            "match": {"provider": "entra"},
            "fault": {"status": status, "body": {"error": "invalid", "error_description": f"bad {ENTRA}"}},
        },
        # With a token in hand, the provider repeats that.
        {"match": {}, "fault": {"status": 401, "body": {"error": ERROR}}},
    ]  # fmt: skip
    for options in (
        {"client_secret": ENTRA, "tenant_id": "t", "client_id": "c"},
        {"azure_ad_token": ENTRA},
    ):
        made = ProviderConfig(
            provider="azure", model="m", base_url=sim.base_url("azure"), max_retries=0, **options
        )
        with pytest.raises(LiterLlmError) as caught:
            LiterLLM(made).generate("x", system=PROMPT)
        for place, text in shown(caught.value):
            assert ENTRA not in text, place


def test_row_26_texts_and_pickles(sim: Simulator, silent: None) -> None:
    made = config(sim, DIALECTS[0], proxy=f"http://user:{PROXY}@127.0.0.1:1")
    azure = ProviderConfig(provider="azure", azure_ad_token=ENTRA, base_url="http://127.0.0.1:1", model="m")
    for value in (
        made,
        azure,
        made.replace(model="n"),
        LiterLLM(made),
        AsyncLiterLLM(made),
        LiterLLM(made).stream("x"),
    ):
        texts = [repr(value), str(value), f"{value}"]
        if isinstance(value, ProviderConfig):
            texts += [repr(value.to_dict()), pickle.dumps(value).decode("latin-1")]
            assert pickle.loads(pickle.dumps(value)) == value
        if isinstance(value, (LiterLLM, AsyncLiterLLM)):
            texts += [repr(value.describe()), repr(value.config), pickle.dumps(value).decode("latin-1")]
        for text in texts:
            for canary in SECRETS:
                assert canary not in text, f"{canary} in {text}"


def test_row_26_a_whole_answer_shows_no_secret(sim: Simulator, silent: None) -> None:
    for dialect in DIALECTS:
        answer = LiterLLM(config(sim, dialect)).generate(**REQUESTS[0])
        text = f"{answer!r} {answer.to_dict()} {pickle.dumps(answer)!r}"
        for canary in SECRETS:
            assert canary not in text
