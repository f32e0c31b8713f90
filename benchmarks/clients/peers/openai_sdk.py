"""The official OpenAI SDK."""

from __future__ import annotations

import openai
from workload import KEY, MODEL, PACED_MODEL, SLOW_MODEL, STREAM_QUESTION, body, check

from .looped import Looped


class Peer(Looped):
    model, paced_model, slow_model = MODEL, PACED_MODEL, SLOW_MODEL

    def __init__(self, urls: dict[str, str]) -> None:
        super().__init__()
        self._client = openai.OpenAI(api_key=KEY, base_url=urls["openai"])
        self._async = openai.AsyncOpenAI(api_key=KEY, base_url=urls["openai"])

    def call(self, model: str) -> None:
        check(self._client.chat.completions.create(**body(model=model)).choices[0].message.content or "")

    def stream(self, model: str) -> None:
        text = ""
        for chunk in self._client.chat.completions.create(**body(STREAM_QUESTION, model, stream=True)):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
        check(text, stream=True)

    async def acall(self, model: str) -> None:
        check(
            (await self._async.chat.completions.create(**body(model=model))).choices[0].message.content or ""
        )

    async def astream(self, model: str) -> None:
        text = ""
        async for chunk in await self._async.chat.completions.create(
            **body(STREAM_QUESTION, model, stream=True)
        ):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
        check(text, stream=True)
