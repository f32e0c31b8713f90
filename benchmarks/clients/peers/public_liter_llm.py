"""The public package of the same name: another project; asyncio only."""

from __future__ import annotations

import json

from workload import KEY, MODEL, PACED_MODEL, SLOW_MODEL, STREAM_QUESTION, body, check

import liter_llm
from liter_llm import _internal_bindings as bindings

from .looped import Looped


class Peer(Looped):
    model, paced_model, slow_model = MODEL, PACED_MODEL, SLOW_MODEL
    sync_stream = None

    def __init__(self, urls: dict[str, str]) -> None:
        super().__init__()
        self._client = liter_llm.create_client(KEY, urls["openai"], max_retries=0)

    def call(self, model: str) -> None:
        self._loop.run_until_complete(self.acall(model))

    async def acall(self, model: str) -> None:
        request = bindings.ChatCompletionRequest.from_json(json.dumps(body(model=model)))
        check(str((await self._client.chat(request)).choices[0].message.content))

    async def astream(self, model: str) -> None:
        request = bindings.ChatCompletionRequest.from_json(
            json.dumps(body(STREAM_QUESTION, model, stream=True))
        )
        text = ""
        async for chunk in self._client.chat_stream(request):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
        check(text, stream=True)
