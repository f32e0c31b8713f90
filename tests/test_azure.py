"""Azure OpenAI: paths, keys and Microsoft Entra tokens."""

from __future__ import annotations

import asyncio

import pytest

from liter_llm import AsyncLiterLLM, LiterLLM
from liter_llm.testing import Simulator


def test_key_deployment_and_version(sim: Simulator) -> None:
    LiterLLM(sim.config("azure", deployment="dep", api_version="2025-01-01-preview")).generate(prompt="hi")
    record = sim.requests[-1]
    assert record.path == "/azure/openai/deployments/dep/chat/completions"
    assert record.query == "api-version=2025-01-01-preview"
    assert record.header("api-key")
    assert record.header("authorization") is None


def test_v1_path(sim: Simulator) -> None:
    LiterLLM(sim.config("azure", model="dep", api_version="v1")).generate(prompt="hi")
    record = sim.requests[-1]
    assert record.path == "/azure/openai/v1/chat/completions"
    assert record.body["model"] == "dep"


async def test_one_refresh_for_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with Simulator(token_lifetime_seconds=1.0) as sim:
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"http://{sim.address}/entra")
        config = sim.config(
            "azure", api_key=None, tenant_id="t", client_id="c", client_secret="sekret", max_retries=0
        )
        client = AsyncLiterLLM(config)
        await client.generate(prompt="hi")
        assert sim.stats.tokens_issued == 1
        await asyncio.sleep(1.1)
        answers = await asyncio.gather(*[client.generate(prompt="[echo] ok") for _ in range(100)])
        assert {answer.text for answer in answers} == {"ok"}
        assert sim.stats.tokens_issued == 2
        chats = [record for record in sim.requests if "chat" in record.path]
        assert len(chats) == 101
        assert all((record.header("authorization") or "").startswith("Bearer ") for record in chats)
        assert all(record.header("api-key") is None for record in chats)
