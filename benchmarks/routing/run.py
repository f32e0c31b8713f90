"""The day of synthetic traffic through each routing policy, and a short part of it through real sockets.

`run.py [--seeds 5]` builds and runs `routing_day` (24 hours, in compressed time), then sends calls to three
simulators, of which the first fails, limits and hangs in turn, and writes `RESULTS.md` beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import time
from collections import Counter
from pathlib import Path

from liter_llm import AsyncLiterLLM, LiterLlmError, ProviderConfig, ProviderRouter
from liter_llm.testing import Simulator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Milliseconds that each simulator takes, fastest first.
DELAYS = {"quick": 40, "middle": 80, "slow": 120}
#: What comes over the fastest one, each time for a client of its own: calls without, then calls with it.
FAULTS = (
    ("503", {"status": 503}),
    ("429", {"status": 429, "headers": {"retry-after": "1"}}),
    ("hang", {"hang": True}),
)
CALLS, GAP = 150, 0.02


def day(*arguments: str) -> str:
    """What the program prints."""
    command = ["cargo", "build", "--locked", "--quiet", "--profile", "counted", "-p", "liter-llm-bench"]
    subprocess.run([*command, "--features", "virtual-time", "--bin", "routing_day"], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = [str(target / "counted" / "routing_day"), *arguments]
    return subprocess.run(program, cwd=ROOT, check=False, capture_output=True, text=True).stdout.strip()


async def phase(client: AsyncLiterLLM) -> tuple[list[float], Counter[str], int]:
    """Sends calls at a steady pace; gives seconds, who answered, and how many failed."""
    answered: Counter[str] = Counter()
    times: list[float] = []

    async def one() -> bool:
        begun = time.monotonic()
        try:
            answer = await client.generate(prompt="[echo] hello", timeout=5)
        except LiterLlmError:
            return False
        times.append(time.monotonic() - begun)
        answered[answer.attempts[-1].deployment] += 1
        return True

    tasks = []
    for _ in range(CALLS):
        tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(GAP)
    return times, answered, (await asyncio.gather(*tasks)).count(False)


async def sockets() -> str:
    """The table of the part through sockets."""
    sims = {name: Simulator(response_delay_ms=delay) for name, delay in DELAYS.items()}
    try:
        configs = [
            ProviderConfig(
                provider="openai",
                model="gpt-4o-mini",
                name=name,
                api_key="sk-benchmark",
                base_url=sim.base_url("openai"),
            )
            for name, sim in sims.items()
        ]
        head = "| `quick` has | calls | failed | p50 ms | p95 ms | over 1 s | answered by |"
        rows = [head, "|" + " --- |" * 7]
        for name, fault in FAULTS:
            client = AsyncLiterLLM(ProviderRouter(deployments=configs, policy="latency"))
            for title, rules in (("nothing", []), (name, [{"match": {}, "fault": fault}])):
                sims["quick"].rules.replace(rules)
                times, answered, failed = await phase(client)
                p50, p95 = statistics.median(times) * 1e3, sorted(times)[int(0.95 * len(times))] * 1e3
                who = ", ".join(f"{one} {count}" for one, count in answered.most_common())
                late = sum(took > 1 for took in times)
                rows.append(f"| {title} | {CALLS} | {failed} | {p50:.0f} | {p95:.0f} | {late} | {who} |")
            await client.aclose()
        return "\n".join(rows)
    finally:
        for sim in sims.values():
            sim.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    parts = ["# Routing", "Written by `make bench-routing`; what the words mean: `docs/routing.md`."]
    for seed in range(1, seeds + 1):
        parts += [f"## A day, 60,000 calls, seed {seed}", day("--seed", str(seed))]
    parts += ["## A day of streams, seed 1 (times to the first chunk)", day("--streams", "1")]
    parts += ["## Three times as many calls, seed 1", day("--calls", "180000")]
    parts += ["## Through sockets, policy `latency`, three simulators", asyncio.run(sockets())]
    text = "\n\n".join(parts) + "\n"
    (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
