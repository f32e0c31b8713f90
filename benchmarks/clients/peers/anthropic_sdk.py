"""The official Anthropic SDK; the same answers in Anthropic's format."""

from __future__ import annotations

import anthropic
from workload import CLAUDE, CLAUDE_PACED, CLAUDE_SLOW, KEY, STREAM_QUESTION, body, check

from .looped import Looped


class Peer(Looped):
    model, paced_model, slow_model = CLAUDE, CLAUDE_PACED, CLAUDE_SLOW

    def __init__(self, urls: dict[str, str]) -> None:
        super().__init__()
        self._client = anthropic.Anthropic(api_key=KEY, base_url=urls["anthropic"])
        self._async = anthropic.AsyncAnthropic(api_key=KEY, base_url=urls["anthropic"])

    def call(self, model: str) -> None:
        check(self._client.messages.create(**body(model=model)).content[0].text)

    def stream(self, model: str) -> None:
        text = ""
        for event in self._client.messages.create(**body(STREAM_QUESTION, model, stream=True)):
            if event.type == "content_block_delta":
                text += event.delta.text
        check(text, stream=True)

    async def acall(self, model: str) -> None:
        check((await self._async.messages.create(**body(model=model))).content[0].text)

    async def astream(self, model: str) -> None:
        text = ""
        async for event in await self._async.messages.create(**body(STREAM_QUESTION, model, stream=True)):
            if event.type == "content_block_delta":
                text += event.delta.text
        check(text, stream=True)
