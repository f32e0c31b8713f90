"""What every library is asked: the same question, the same sizes."""

from __future__ import annotations

from typing import Any

QUESTION = (
    "[echo] "
    + "A service under load should answer quickly, fail loudly and never lose what it was told. " * 3
)
"""The simulator answers with this text: a chat completion of about 600 bytes."""
EVENTS = 100
"""Tokens, and so content events, of one streamed answer."""
STREAM_QUESTION = f"[tokens={EVENTS}]"
STREAMS = 8
"""Streams open at the same time where events arrive one by one."""
CONCURRENCY = 64
MODEL = "gpt-4o-mini"
PACED_MODEL = "gpt-4o-mini-paced"
SLOW_MODEL = "gpt-4o-mini-slow"
CLAUDE = "claude-sonnet-4-5"
CLAUDE_PACED = "claude-sonnet-4-5-paced"
CLAUDE_SLOW = "claude-sonnet-4-5-slow"
RULES: list[dict[str, Any]] = [
    {"match": {"model": "*-paced"}, "fault": {"event_delay_ms": 5}},
    {"match": {"model": "*-slow"}, "fault": {"delay_ms": 1500}},
]
MAX_TOKENS = 1024
KEY = "sk-benchmark"


def body(question: str = QUESTION, model: str = MODEL, *, stream: bool = False) -> dict[str, Any]:
    """A chat completion request as JSON."""
    asked: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": MAX_TOKENS,
    }
    return asked | {"stream": True} if stream else asked


def check(text: str, *, stream: bool = False) -> None:
    """Stops a run that measures anything but answers."""
    if (len(text) < EVENTS) if stream else not text.startswith("A service under load"):
        raise RuntimeError(f"unexpected answer: {text[:80]!r}")
