"""The test vectors in Python: the reference for runners in other languages, sync and async.

`python -m tests.vectors_runner [FOLDER]` runs all of them and tells what differs. What a runner must do
stands in `tests/vectors/README.md`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from liter_llm import (
    AsyncLiterLLM,
    Budget,
    LiterLLM,
    LiterLlmError,
    LlmChunk,
    LlmResponse,
    ProviderConfig,
    ProviderRouter,
)
from liter_llm.exact import decode, encode

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "vectors"
AT_ONCE = 8
#: The longest one request to the server may take, in seconds.
LIMIT = 60
_SIMULATOR = "LITER_LLM_SIM"
#: Set on machines of developers; the vectors count on their absence.
_VENDORS = ("OPENAI_", "ANTHROPIC_", "AZURE_", "GROQ_", "MISTRAL_", "PERPLEXITY_", "PPLX_", "OLLAMA_")
_DETAIL = (
    "message",
    "provider",
    "model",
    "status_code",
    "request_id",
    "retry_after",
    "code",
    "param",
    "body",
    "phase",
    "attempts",
    "partial",
    "route",
)

#: The words of the server, by vector: `ok`, or what differs.
Words = dict[str, str]


class VectorServer:
    """What the server tells and asks."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def get(self, path: str) -> bytes:
        with self._open(f"{self.address}{path}", timeout=LIMIT) as answer:
            body: bytes = answer.read()
            return body

    def post(self, path: str, body: bytes = b"") -> str:
        request = urllib.request.Request(f"{self.address}{path}", data=body, method="POST")
        try:
            with self._open(request, timeout=LIMIT) as answer:
                return str(answer.read(), "utf-8")
        except urllib.error.HTTPError as error:
            return str(error.read(), "utf-8")

    def names(self) -> list[str]:
        return self.get("/v").decode().split()

    def begin(self, name: str) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
        """The configuration document, and each call's kind and request."""
        self.post(f"/v/{name}/reset")
        document = msgspec.json.decode(self.get(f"/v/{name}/config"))
        kinds = self.get(f"/v/{name}/calls").decode().split()
        requests = [decode(self.get(f"/v/{name}/calls/{at}")) for at in range(len(kinds))]
        return document, list(zip(kinds, requests, strict=True))

    def judge(self, name: str, outcomes: list[dict[str, Any]]) -> str:
        return self.post(f"/v/{name}/judge", encode(outcomes))


@contextmanager
def vector_server(folder: Path) -> Generator[VectorServer]:
    """A server over the vectors in `folder`; built when it is not there yet."""
    given = os.environ.get(_SIMULATOR)
    program = [given] if given else ["cargo", "run", "--quiet", "--package", "liter-llm-sim", "--"]
    command = [*program, "--vectors", str(folder), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("listening on "):
                raise RuntimeError(f"{command[0]} does not listen: {line or 'it ended'}")
            yield VectorServer(line.removeprefix("listening on ").strip())
        finally:
            process.terminate()


def configured(document: Mapping[str, Any]) -> ProviderConfig | ProviderRouter:
    """What a user of the package writes in place of the configuration document."""
    if "deployment" in document:
        return ProviderConfig(**document["deployment"])
    options: dict[str, Any] = dict(document.get("router", {}))
    if "budget" in options:
        options["budget"] = Budget(**options["budget"])
    if "cache" in document:
        options["cache"] = document["cache"]
    return ProviderRouter([ProviderConfig(**one) for one in document["deployments"]], **options)


def failure(error: LiterLlmError) -> dict[str, Any]:
    """An exception in the border form."""
    detail = {name: msgspec.to_builtins(getattr(error, name)) for name in _DETAIL}
    return {"kind": error.kind, "text": str(error), "retryable": error.retryable, "detail": detail}


def border(chunk: LlmChunk) -> dict[str, Any]:
    """A chunk in the border form: text stands once, whatever it is called."""
    data = chunk.to_dict()
    refusal = data.pop("refusal", None)
    if "start" in data:
        data.pop("text", None)
        data.pop("reasoning", None)
    elif refusal:
        data["text"] = refusal
    return data


def with_answers(request: dict[str, Any], answers: list[LlmResponse | None]) -> dict[str, Any]:
    """The request, with the messages of the answers so far in place of what stands for them."""
    messages: object = request.get("messages")
    if not isinstance(messages, list):
        return request
    given: list[Any] = []
    for message in messages:  # pyright: ignore[reportUnknownVariableType]
        place: int | None = message.get("answer_of")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if place is None:
            given.append(message)
            continue
        answer = answers[place]
        assert answer is not None, "an answer to send back"
        given.append(answer.message)
    return {**request, "messages": given}


def run(server: VectorServer, name: str) -> str:
    """Makes a vector's calls with the sync client; gives the server's word."""
    document, calls = server.begin(name)
    outcomes: list[dict[str, Any]] = []
    try:
        client = LiterLLM(configured(document))
    except LiterLlmError as error:
        return server.judge(name, [{"error": failure(error)}])
    answers: list[LlmResponse | None] = []
    with client:
        for kind, given in calls:
            request = with_answers(given, answers)
            answers.append(None)
            if kind == "generate":
                try:
                    answers[-1] = answer = client.generate(**request)
                    outcomes.append({"response": answer.to_dict()})
                except LiterLlmError as error:
                    outcomes.append({"error": failure(error)})
                continue
            chunks: list[dict[str, Any]] = []
            try:
                stream = client.stream(**request)
                for chunk in stream:
                    chunks.append(border(chunk))  # noqa: PERF401 - what came before a failure counts
                answers[-1] = answer = stream.response
                outcomes.append({"chunks": chunks, "response": answer.to_dict()})
            except LiterLlmError as error:
                outcomes.append({"chunks": chunks, "error": failure(error)})
    return server.judge(name, outcomes)


async def run_async(server: VectorServer, name: str) -> str:
    """The same with the async client."""
    document, calls = await asyncio.to_thread(server.begin, name)
    outcomes: list[dict[str, Any]] = []
    try:
        client = AsyncLiterLLM(configured(document))
    except LiterLlmError as error:
        return await asyncio.to_thread(server.judge, name, [{"error": failure(error)}])
    answers: list[LlmResponse | None] = []
    async with client:
        for kind, given in calls:
            request = with_answers(given, answers)
            answers.append(None)
            if kind == "generate":
                try:
                    answers[-1] = answer = await client.generate(**request)
                    outcomes.append({"response": answer.to_dict()})
                except LiterLlmError as error:
                    outcomes.append({"error": failure(error)})
                continue
            chunks: list[dict[str, Any]] = []
            try:
                stream = client.stream(**request)
                async for chunk in stream:
                    chunks.append(border(chunk))  # noqa: PERF401 - what came before a failure counts
                answers[-1] = answer = stream.response
                outcomes.append({"chunks": chunks, "response": answer.to_dict()})
            except LiterLlmError as error:
                outcomes.append({"chunks": chunks, "error": failure(error)})
    return await asyncio.to_thread(server.judge, name, outcomes)


def run_all(server: VectorServer) -> Words:
    """Every vector with the sync client, one at a time.

    Connections at rest are shared by all threads of a process: which of them a call of one thread finds kept
    depends on what the other threads do, and some vectors say whether it was.
    """
    return {name: run(server, name) for name in server.names()}


def run_all_async(server: VectorServer) -> Words:
    """Every vector with the async client, some at a time."""

    async def main() -> Words:
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> str:
            async with turns:
                return await run_async(server, name)

        names = server.names()
        return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))

    return asyncio.run(main())


def count(folder: Path = FOLDER) -> int:
    """How many vectors there are to be."""
    return int((folder / "COUNT").read_text())


def without_vendors(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment as the vectors want it."""
    return {name: value for name, value in environment.items() if not name.startswith(_VENDORS)}


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    runners: list[tuple[str, Callable[[VectorServer], Words]]] = [("sync", run_all), ("async", run_all_async)]
    kept = without_vendors(os.environ)
    os.environ.clear()
    os.environ.update(kept)
    good = True
    with vector_server(folder) as server:
        for kind, runner in runners:
            words = runner(server)
            wrong = {name: word for name, word in words.items() if word != "ok"}
            for name, word in wrong.items():
                sys.stdout.write(f"{name}\n{word}\n\n")
            sys.stdout.write(f"vectors, Python {kind}: {len(words)} run, {len(words) - len(wrong)} hold\n")
            good = good and not wrong and len(words) == count(folder)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
