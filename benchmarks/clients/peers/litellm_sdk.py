"""litellm."""

from __future__ import annotations

import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import litellm
from workload import KEY, MODEL, PACED_MODEL, SLOW_MODEL, STREAM_QUESTION, body, check

from .looped import Looped

litellm.telemetry = False
litellm.suppress_debug_info = True


class Peer(Looped):
    model, paced_model, slow_model = f"openai/{MODEL}", f"openai/{PACED_MODEL}", f"openai/{SLOW_MODEL}"

    def __init__(self, urls: dict[str, str]) -> None:
        super().__init__()
        self._options = {"api_key": KEY, "api_base": urls["openai"]}

    def call(self, model: str) -> None:
        check(litellm.completion(**body(model=model), **self._options).choices[0].message.content or "")

    def stream(self, model: str) -> None:
        text = ""
        for chunk in litellm.completion(**body(STREAM_QUESTION, model, stream=True), **self._options):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
        check(text, stream=True)

    async def acall(self, model: str) -> None:
        answer = await litellm.acompletion(**body(model=model), **self._options)
        check(answer.choices[0].message.content or "")

    async def astream(self, model: str) -> None:
        text = ""
        async for chunk in await litellm.acompletion(
            **body(STREAM_QUESTION, model, stream=True), **self._options
        ):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
        check(text, stream=True)
