"""libcurl through pycurl, and `json`."""

from __future__ import annotations

import io
import json
from typing import Any

import pycurl
from workload import EVENTS, KEY, STREAM_QUESTION, body, check


class Peer:
    def __init__(self, urls: dict[str, str]) -> None:
        self._curl = pycurl.Curl()
        self._curl.setopt(pycurl.URL, f"{urls['openai']}/chat/completions")
        self._curl.setopt(
            pycurl.HTTPHEADER, [f"authorization: Bearer {KEY}", "content-type: application/json"]
        )
        self._curl.setopt(pycurl.TCP_NODELAY, 1)

    def _post(self, value: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        self._curl.setopt(pycurl.POSTFIELDS, json.dumps(value))
        self._curl.setopt(pycurl.WRITEDATA, out)
        self._curl.perform()
        return out.getvalue()

    def sync_call(self, n: int) -> int:
        for _ in range(n):
            check(json.loads(self._post(body()))["choices"][0]["message"]["content"])
        return n

    def sync_stream(self, n: int) -> int:
        for _ in range(n):
            text = ""
            for line in self._post(body(STREAM_QUESTION, stream=True)).split(b"\n"):
                if line.startswith(b"data: {"):
                    choices = json.loads(line[6:])["choices"]
                    if choices:
                        text += choices[0]["delta"].get("content") or ""
            check(text, stream=True)
        return n * EVENTS
