"""This package."""

from __future__ import annotations

from workload import KEY, MAX_TOKENS, MODEL, PACED_MODEL, QUESTION, SLOW_MODEL, STREAM_QUESTION, check

from liter_llm import AsyncLiterLLM, LiterLLM, ProviderConfig

from .looped import Looped


class Peer(Looped):
    model, paced_model, slow_model = MODEL, PACED_MODEL, SLOW_MODEL

    def __init__(self, urls: dict[str, str]) -> None:
        super().__init__()
        config = ProviderConfig(provider="openai", model=MODEL, api_key=KEY, base_url=urls["openai"])
        self._client = LiterLLM(config)
        self._async = AsyncLiterLLM(config)

    def call(self, model: str) -> None:
        check(self._client.generate(prompt=QUESTION, max_tokens=MAX_TOKENS, model=model).text)

    def stream(self, model: str) -> None:
        text = ""
        for chunk in self._client.stream(prompt=STREAM_QUESTION, max_tokens=MAX_TOKENS, model=model):
            text += chunk.text or ""
        check(text, stream=True)

    async def acall(self, model: str) -> None:
        check((await self._async.generate(prompt=QUESTION, max_tokens=MAX_TOKENS, model=model)).text)

    async def astream(self, model: str) -> None:
        text = ""
        async for chunk in self._async.stream(prompt=STREAM_QUESTION, max_tokens=MAX_TOKENS, model=model):
            text += chunk.text or ""
        check(text, stream=True)
