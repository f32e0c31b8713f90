"""One question to OpenAI, Anthropic and Azure OpenAI, whole and streamed: only the configuration changes.
Then a router over three providers, the first of which dies: answers continue, and a table says why.

A provider whose key is in the environment (`OPENAI_API_KEY`, `ANTHROPIC_API_KEY`, `AZURE_OPENAI_API_KEY` with
`AZURE_OPENAI_ENDPOINT`) is asked itself; the simulator plays the others, so that this runs without any key.
"""

from __future__ import annotations

import os
import textwrap
import time
from dataclasses import dataclass

from liter_llm import LiterLLM, LlmResponse, ProviderConfig, ProviderRouter
from liter_llm.testing import Simulator

QUESTION = "Explain the CAP theorem in 3 sentences."
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-5", "azure": "gpt-4o-mini"}
DIES_AT = 3
NEEDED = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "azure": ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"),
}


@dataclass(frozen=True)
class Row:
    """One answer and how it came."""

    provider: str
    host: str
    mode: str
    response: LlmResponse
    first: float
    total: float

    def line(self) -> str:
        usage = self.response.usage
        tokens = f"{usage.input_tokens} + {usage.output_tokens}" if usage else "unknown"
        answer = textwrap.shorten(self.response.text, 44, placeholder=" ...")
        return (
            f"{self.provider:<10} {self.host:<10} {self.mode:<7} {tokens:>10} "
            f"{self.first * 1000:>9.1f} {self.total * 1000:>9.1f}  {answer}"
        )


def configuration(provider: str, simulator: Simulator) -> tuple[ProviderConfig, str]:
    """The provider itself where its key is set, else the simulator; and which of the two."""
    model = MODELS[provider]
    if all(os.environ.get(name) for name in NEEDED[provider]):
        return ProviderConfig(provider=provider, model=model), "real"
    return simulator.config(provider, model=model), "simulator"


def whole(client: LiterLLM) -> tuple[LlmResponse, float, float]:
    start = time.perf_counter()
    response = client.generate(prompt=QUESTION, max_tokens=150)
    total = time.perf_counter() - start
    return response, total, total


def streamed(client: LiterLLM) -> tuple[LlmResponse, float, float]:
    start = time.perf_counter()
    first = 0.0
    with client.stream(prompt=QUESTION, max_tokens=150) as stream:
        for chunk in stream:
            if chunk.text and not first:
                first = time.perf_counter() - start
            print(chunk.text, end="", flush=True)
    print()
    return stream.response, first, time.perf_counter() - start


def router() -> None:
    """Three providers, played by the simulator, whatever keys there are: one of them is to die."""
    with Simulator() as simulator:
        deployments = [
            simulator.config("openai", model="gpt-4o-mini", region="us"),
            simulator.config("azure", model="gpt-4o", region="eu"),
            simulator.config("anthropic", model="claude-sonnet-4-5", region="us"),
        ]
        routed = ProviderRouter(deployments)
        with LiterLLM(routed) as client:
            for number in range(1, 7):
                if number == DIES_AT:
                    print("\nopenai/gpt-4o-mini dies.")
                    simulator.rules.append({"match": {"provider": "openai"}, "fault": {"status": 503}})
                response = client.generate(prompt=QUESTION, max_tokens=150)
                attempts = " -> ".join(
                    f"{attempt.deployment} ({attempt.error or 'answered'})" for attempt in response.attempts
                )
                print(f"call {number}: {attempts}")
                if number == DIES_AT:
                    print(f"\n{response.route}\n")
        print(f"\n{routed.statistics()}\n\n{routed.heatmap(bucket=10, count=6)}\n\n{routed.spend()}")


def main() -> None:
    rows: list[Row] = []
    with Simulator() as simulator:
        for provider in MODELS:
            config, host = configuration(provider, simulator)
            with LiterLLM(config) as client:
                response, first, total = whole(client)
                rows.append(Row(provider, host, "whole", response, first, total))
                print(f"\n{provider} ({host}), streaming:")
                response, first, total = streamed(client)
                rows.append(Row(provider, host, "stream", response, first, total))
    print(f"\n{QUESTION}")
    print(f"{'provider':<10} {'host':<10} {'mode':<7} {'tokens':>10} {'first ms':>9} {'total ms':>9}  answer")
    for row in rows:
        print(row.line())
    print("\nA router over three providers:")
    router()


if __name__ == "__main__":
    main()
