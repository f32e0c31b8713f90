"""The simulator gives each answer whole and streamed; the package reads the two as the same answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from liter_llm import AsyncLiterLLM, LiterLLM, LlmResponse, ProviderConfig
from liter_llm.testing import Simulator

from .conftest import PERSON, WEATHER

WEATHER_TOOL = {"name": "get_weather", "description": "The weather", "parameters": WEATHER}
CLOCK_TOOL = {
    "name": "get_time",
    "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
}

PROVIDERS: dict[str, dict[str, Any]] = {
    "openai": {"provider": "openai", "model": "gpt-4o-mini"},
    "openai-responses": {"provider": "openai", "model": "gpt-4o-mini", "api": "responses"},
    "openai-websocket": {
        "provider": "openai",
        "model": "gpt-4o-mini",
        "api": "responses",
        "transport": "websocket",
    },
    "anthropic": {"provider": "anthropic", "model": "claude-sonnet-4-5"},
    "azure": {"provider": "azure", "model": "gpt-4o-mini"},
    "azure-responses": {"provider": "azure", "model": "gpt-4o-mini", "api": "responses"},
    "groq": {"provider": "groq", "model": "sim-large"},
    "mistral": {"provider": "mistral", "model": "sim-large"},
    "deepseek": {"provider": "deepseek", "model": "sim-reasoner"},
    "ollama": {"provider": "ollama", "model": "sim-small"},
}
FEATURES: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "Explain the CAP theorem in 3 sentences."},
    "non-ascii": {"prompt": '[echo] Grüße, 世界 🌍 naïve\n\ttabs and "quotes"'},
    "system": {"prompt": "Hello.", "system": "Be brief."},
    "limit": {"prompt": "Explain everything.", "max_tokens": 16},
    "stop": {"prompt": "[echo] one two three", "stop": ["two"]},
    "tool": {"prompt": "What is the weather in Paris?", "tools": [WEATHER_TOOL]},
    "parallel tools": {
        "prompt": "The weather and the time, both please.",
        "tools": [WEATHER_TOOL, CLOCK_TOOL],
    },
    "forced tool": {"prompt": "Hello.", "tools": [WEATHER_TOOL], "tool_choice": "required"},
    "tool result": {
        "tools": [WEATHER_TOOL],
        "messages": [
            {"role": "user", "content": "What is the weather in Paris?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": '{"city":"Paris","unit":"celsius"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"},
        ],
    },
    "schema": {
        "prompt": "Invent a person.",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "person", "schema": PERSON, "strict": True},
        },
    },
    "refusal": {"prompt": "[refuse] please"},
    "reasoning": {"prompt": "Think about it.", "reasoning_effort": "high", "max_tokens": 8192},
}
CHAT_ONLY = {"openai", "anthropic", "azure", "groq", "mistral", "deepseek", "ollama"}
ONLY: dict[str, set[str]] = {
    # The Responses API has no stop texts, and DeepSeek no schemas: the package refuses both before sending.
    "stop": CHAT_ONLY,
    "schema": set(PROVIDERS) - {"deepseek"},
    # Needs a model that reasons, which these hosts' rows or the simulator do not offer under this name.
    "reasoning": {"openai-responses", "openai-websocket", "anthropic", "deepseek", "azure-responses"},
}
REASONING_MODELS = {
    "openai-responses": "gpt-5-mini",
    "openai-websocket": "gpt-5-mini",
    "azure-responses": "gpt-5-mini",
}

CASES = [
    pytest.param(provider, feature, id=f"{provider}-{feature.replace(' ', '-')}")
    for feature in FEATURES
    for provider in PROVIDERS
    if provider in ONLY.get(feature, PROVIDERS.keys())
]


def config_of(simulator: Simulator, provider: str, feature: str) -> ProviderConfig:
    options = dict(PROVIDERS[provider])
    if feature == "reasoning":
        options["model"] = REASONING_MODELS.get(provider, options["model"])
    base_url = simulator.base_url(options["provider"])
    return ProviderConfig(**options, api_key="sk-test", base_url=base_url, max_retries=0)


def comparable(response: LlmResponse) -> dict[str, Any]:
    """The answer without its id and how it came: the provider draws a new id for every answer."""
    told = response.to_dict()
    for field in ("id", "timing", "attempts", "request_id", "rate_limits"):
        told.pop(field, None)
    return told


@pytest.mark.parametrize(("provider", "feature"), CASES)
def test_equal(simulator: Simulator, provider: str, feature: str) -> None:
    request = FEATURES[feature]
    with LiterLLM(config_of(simulator, provider, feature)) as client:
        whole = client.generate(**request)
        with client.stream(**request) as stream:
            pieces = [(chunk.text or "", chunk.reasoning or "") for chunk in stream]
            streamed = stream.response
    assert comparable(streamed) == comparable(whole)
    assert replace_id(streamed, whole) == whole
    assert "".join(text for text, _ in pieces) in {whole.text, whole.refusal}
    assert "".join(reasoning for _, reasoning in pieces) == whole.reasoning
    assert whole.usage is not None
    assert whole.usage.output_tokens > 0


def replace_id(response: LlmResponse, other: LlmResponse) -> LlmResponse:
    """`response` with the id of `other`, to compare by the package's own equality."""
    import msgspec

    if isinstance(response, msgspec.Struct):
        return msgspec.structs.replace(response, id=other.id)
    return replace(response, id=other.id)


@pytest.mark.parametrize("provider", ["openai", "anthropic", "openai-responses"])
def test_async_is_the_same(simulator: Simulator, provider: str) -> None:
    config = config_of(simulator, provider, "tool")
    request = FEATURES["tool"]

    async def both() -> tuple[LlmResponse, LlmResponse]:
        async with AsyncLiterLLM(config) as client:
            whole = await client.generate(**request)
            async with client.stream(**request) as stream:
                async for _ in stream:
                    pass
                return whole, stream.response

    with LiterLLM(config) as client:
        sync = client.generate(**request)
    for answer in asyncio.run(both()):
        assert comparable(answer) == comparable(sync)
