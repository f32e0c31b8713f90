"""Reads a record through the package: which client, which call."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from liter_llm import AsyncLiterLLM, LiterLLM, LlmResponse, ProviderConfig, _native

from .records import Record
from .replay import HEADER, Replay

MODEL = "recorded-model"
OPENAI_LIKE = "openai"
"""The row for hosts that have none of their own, as one points an OpenAI client at another base URL."""


@dataclass(frozen=True)
class Target:
    """How to reach a record's endpoint: the provider row, the API and the path before the endpoint's own."""

    provider: str
    api: str | None
    prefix: str
    model: str = MODEL


def target_of(record: Record) -> Target:
    """The client a user would make for this record's host."""
    api = "responses" if record.wire == "responses" else None
    if record.family == "anthropic":
        return Target("anthropic", None, "/anthropic")
    if record.family == "azure":
        path = str((record.request or {}).get("path", ""))
        deployment = re.match(r"/openai/deployments/([^/]+)/", path)
        model = deployment.group(1) if deployment else MODEL
        return Target("azure", api, "/azure/models" if path.startswith("/models/") else "/azure", model)
    provider = record.provider if record.provider in _rows() else OPENAI_LIKE
    return Target(provider, api, f"/{record.provider}/v1")


@cache
def _rows() -> frozenset[str]:
    return frozenset(json.loads(_native.providers()))


def config_of(target: Target, replay: Replay) -> ProviderConfig:
    options: dict[str, Any] = {"api": target.api} if target.api else {}
    return ProviderConfig(
        provider=target.provider,
        model=target.model,
        api_key="test-key",
        base_url=replay.origin + target.prefix,
        max_retries=0,
        timeout=60.0,
        **options,
    )


@dataclass
class Reader:
    """Keeps one client per target, as a program would."""

    replay: Replay
    _clients: dict[Target, LiterLLM] = field(default_factory=dict[Target, LiterLLM])

    def client(self, record: Record) -> LiterLLM:
        target = target_of(record)
        if target not in self._clients:
            self._clients[target] = LiterLLM(config_of(target, self.replay))
        return self._clients[target]

    def generate(self, record: Record, name: str, **request: Any) -> LlmResponse:
        return self.client(record).generate(**_asked(request), headers={HEADER: name})

    def stream(self, record: Record, name: str, **request: Any) -> LlmResponse:
        with self.client(record).stream(**_asked(request), headers={HEADER: name}) as stream:
            for _ in stream:
                pass
            return stream.response

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


@dataclass
class AsyncReader:
    """The same with the asyncio client; lives inside one event loop."""

    replay: Replay
    _clients: dict[Target, AsyncLiterLLM] = field(default_factory=dict[Target, AsyncLiterLLM])

    def client(self, record: Record) -> AsyncLiterLLM:
        target = target_of(record)
        if target not in self._clients:
            self._clients[target] = AsyncLiterLLM(config_of(target, self.replay))
        return self._clients[target]

    async def generate(self, record: Record, name: str, **request: Any) -> LlmResponse:
        return await self.client(record).generate(**_asked(request), headers={HEADER: name})

    async def stream(self, record: Record, name: str, **request: Any) -> LlmResponse:
        async with self.client(record).stream(**_asked(request), headers={HEADER: name}) as stream:
            async for _ in stream:
                pass
            return stream.response

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()


def _asked(request: dict[str, Any]) -> dict[str, Any]:
    return request or {"prompt": "Say hello.", "max_tokens": 1024}
