"""Row 30: 10,000 identical and similar bodies from two tenants; 0 cross hits."""

from __future__ import annotations

import asyncio
import os

import pytest

from liter_llm import AsyncLiterLLM, LiterLLM
from liter_llm.testing import Simulator

FULL, SHORT = 10_000, 1_000
BODIES = FULL if os.environ.get("LITER_LLM_SOAK") == "1" else SHORT


async def test_row_30_two_tenants_never_meet(sim: Simulator) -> None:
    seen: dict[str, set[str]] = {"tenant-a": set(), "tenant-b": set()}
    hits = 0
    async with AsyncLiterLLM(sim.config("openai", cache=True)) as client:

        async def ask(number: int, tenant: str) -> None:
            nonlocal hits
            # Every fourth body is the same as the one three before it; the others differ in one small thing.
            fields: dict[str, object] = [{}, {"seed": 1}, {"temperature": 0.25}, {}][number % 4]
            answer = await client.generate(f"[echo] question {number // 4}", tenant=tenant, **fields)  # type: ignore[arg-type]
            assert answer.text == f"question {number // 4}"
            seen[tenant].add(answer.id)
            hits += answer.cached

        for begin in range(0, BODIES, 40):
            numbers = range(begin, begin + 40)
            await asyncio.gather(*(ask(number, tenant) for number in numbers for tenant in seen))
    # The simulator gives each request an id of its own: one seen by both tenants would be a cross hit.
    assert not seen["tenant-a"] & seen["tenant-b"]
    assert len(seen["tenant-a"]) == len(seen["tenant-b"]) == BODIES // 4 * 3
    assert hits == BODIES // 4 * 2


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("a", "bc"), ("ab", "c")),
        ((None, "x"), ("", "x")),
        ((None, "x"), ("null", "x")),
        (("same-twenty-characters-1", "x"), ("same-twenty-characters-2", "x")),
    ],
)
def test_row_30_names_that_run_into_their_neighbours(
    sim: Simulator, left: tuple[str | None, str], right: tuple[str | None, str]
) -> None:
    client = LiterLLM(sim.config("openai", cache=True))
    ids = set[str]()
    for tenant, prompt in (left, right):
        answer = client.generate(prompt, tenant=tenant)
        assert not answer.cached
        ids.add(answer.id)
        assert client.generate(prompt, tenant=tenant).cached
    assert len(ids) == 2
    assert len(sim.requests) == 2


def test_row_30_the_tenant_is_not_sent(sim: Simulator) -> None:
    LiterLLM(sim.config("openai", cache=True)).generate("hello", tenant="secret-tenant")
    request = sim.requests[0]
    assert "secret-tenant" not in f"{request.headers} {request.body} {request.query}"
