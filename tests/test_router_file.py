"""A router from a configuration file: reload for its clients; budget, canary and mirror; spend kept."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
import time
import tomllib
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from liter_llm import (
    AsyncLiterLLM,
    BudgetExceededError,
    CallCancelledError,
    CanaryReport,
    ConfigError,
    LiterLLM,
    ProviderRouter,
)
from liter_llm.testing import Simulator

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "docs/liter-llm.schema.json").read_text()
)


def document(sim: Simulator, rules: str = "", names: tuple[str, ...] = ("old", "new")) -> str:
    """Deployments of these names, each at a dollar for a million tokens, and these rules."""
    one = """
[[deployments]]
name = "NAME"
provider = "openai/NAME"
base_url = "URL"
api_key = "k"
max_retries = 0
price = { input = 1, output = 1 }
"""
    listed = "".join(one.replace("NAME", name).replace("URL", sim.base_url("openai")) for name in names)
    return f"[router]\npolicy = 'priority'\n{rules}\n{listed}"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "liter-llm.toml"


def until_rolled_back(router: ProviderRouter, ask: Any) -> CanaryReport:
    for _ in range(2000):
        assert ask().text == "hello"
        report = router.canary()
        assert report is not None
        if report.state == "rolled_back":
            return report
    raise AssertionError(f"it was never rolled back: {report}")


def test_a_canary_starts_and_is_rolled_back_without_a_redeploy(sim: Simulator, path: Path) -> None:
    budget = "budget = { usd = 5, per = 'month' }\n"
    router = ProviderRouter.from_config(write(path, document(sim, budget, ("old",))))
    client = LiterLLM(router)
    for _ in range(20):
        assert client.generate("[echo] hello").attempts[0].deployment == "old"
    assert router.canary() is None
    spent = router.spend().total
    assert spent > 0

    sim.rules = [{"match": {"model": "new", "percent": 40}, "fault": {"status": 503}}]
    canary = "[router.canary]\nmodel = 'new'\npercent = 50\n[router.canary.guard]\ncost = false\n"
    text = document(sim, budget + canary)
    jsonschema.validate(tomllib.loads(text), SCHEMA)
    write(path, text)
    router.reload()
    report = router.canary()
    assert report is not None
    assert (report.deployment, report.percent, report.state) == ("new", 50, "running")
    assert router.spend().total == spent, "what was spent is kept"
    assert next(one for one in router.statistics().deployments if one.deployment == "old").calls == 20

    rolled = until_rolled_back(router, lambda: client.generate("[echo] hello"))
    assert rolled.reason is not None
    assert rolled.reason.startswith("error_rate: ")
    assert rolled.arms.canary.errors > 0 == rolled.arms.incumbent.errors
    answer = client.generate("[echo] hello")
    assert answer.route is not None
    assert answer.route.notes == [f"canary rolled back: {rolled.reason}"]
    later = router.spend()
    assert later.total > spent
    assert later.budgets[0].spent == later.total

    # Nothing of it has changed: a reload does not forgive it.
    write(path, text + "# nothing\n")
    router.reload()
    after = router.canary()
    assert after is not None
    assert (after.state, after.reason) == ("rolled_back", rolled.reason)
    assert router.spend().total == later.total


def test_a_watched_file_starts_it(sim: Simulator, path: Path) -> None:
    router = ProviderRouter.from_config(write(path, document(sim)), watch=True)
    client = LiterLLM(router)
    sim.rules = [{"match": {"model": "new", "percent": 40}, "fault": {"status": 500}}]
    write(path, document(sim, "canary = { model = 'new', percent = 50, guard = { latency = false } }\n"))
    until = time.monotonic() + 10
    while router.canary() is None and time.monotonic() < until:
        client.generate("[echo] hello")
        time.sleep(0.02)
    report = until_rolled_back(router, lambda: client.generate("[echo] hello"))
    assert report.reason is not None
    write(path, document(sim, "canary = { model = 'nowhere', percent = 50 }\n"))
    until = time.monotonic() + 10
    while router.config_error is None and time.monotonic() < until:
        time.sleep(0.02)
    assert "liter-llm.toml:3: `canary.model`: no deployment is `nowhere`" in str(router.config_error)
    assert router.canary() == report
    router.close()
    threads = [one for one in threading.enumerate() if one.name == "liter-llm config" and one.is_alive()]
    for thread in threads:
        thread.join(5)
    with pytest.raises(CallCancelledError):
        client.generate("hello")


def test_all_its_clients_see_the_new_document(sim: Simulator, path: Path) -> None:
    router = ProviderRouter.from_config(write(path, document(sim, names=("old",))))
    sync, other, asynchronous = LiterLLM(router), LiterLLM(router), AsyncLiterLLM(router)
    endpoint = router.select("hello")

    async def ask() -> str:
        async with asynchronous.stream("hello") as stream:
            async for _ in stream:
                pass
        return (await asynchronous.generate("hello")).attempts[0].deployment

    def names() -> set[str]:
        with other.stream("hello") as stream:
            list(stream)
            streamed = stream.response.attempts[0].deployment
        return {
            sync.generate("hello").attempts[0].deployment,
            streamed,
            asyncio.run(ask()),
            router.generate("hello").attempts[0].deployment,
        }

    assert names() == {"old"}
    write(path, document(sim, names=("new",)))
    router.reload()
    assert names() == {"new"}
    assert [one.name for one in router.deployments if not isinstance(one, str)] == ["new"]
    with pytest.raises(ConfigError, match="none is named `old`"):
        LiterLLM(endpoint).generate("hello")
    with pytest.raises(ConfigError, match="reload its router"):
        sync.reload()
    with pytest.raises(ConfigError, match="not made from a file"):
        ProviderRouter([sim.config("openai", model="m")]).reload()


def test_what_cannot_work_changes_nothing(sim: Simulator, path: Path) -> None:
    router = ProviderRouter.from_config(write(path, document(sim)))
    client = LiterLLM(router)
    write(path, document(sim, "polciy = 'cost'\n"))
    with pytest.raises(ConfigError) as caught:
        router.reload()
    assert router.config_error is caught.value
    assert client.generate("hello").attempts[0].deployment == "old"
    write(path, document(sim))
    router.reload()
    assert router.config_error is None
    again = pickle.loads(pickle.dumps(router))
    assert repr(again) == repr(router) == f"ProviderRouter({path})"
    assert again.generate("hello").attempts[0].deployment == "old"
    assert router.describe()["policy"] == "priority"


@pytest.mark.parametrize(
    ("rules", "line", "said"),
    [
        (
            "[router.canary]\nmodle = 'new'\npercent = 5",
            4,
            "`router.canary.modle` is unknown; did you mean `model`",
        ),
        ("[router.canary]\nmodel = 'new'\npercent = 500", 5, "`canary.percent`: 500 is not from 0 to 100"),
        (
            "[router.canary]\nmodel = 'new'\npercent = 5\n[router.canary.guard]\nlatencey = 3",
            7,
            "`router.canary.guard.latencey` is unknown; did you mean `latency`",
        ),
        ("canary = { model = 'new', percent = 5, guard = { window_seconds = 0 } }", 3, "window"),
        (
            "[router.mirror]\nto = 'new'\npercnt = 5",
            5,
            "`router.mirror.percnt` is unknown; did you mean `percent`",
        ),
        ("[router.mirror]\nto = 'never'\npercent = 5", 4, "no deployment is `never`"),
        (
            "[router.budget]\nusd = 5\nper = 'day'\ndegrade_too = 'old'",
            6,
            "`router.budget.degrade_too` is unknown; did you mean `degrade_to`",
        ),
        ("[router.budget]\nusd = 5\nper = 'week'", 5, "`router.budget.per`: `week`"),
        (
            "[[router.budget]]\nusd = 5\nper = 'day'\n[[router.budget]]\nusd = -5\nper = 'day'",
            7,
            "`budget[1].usd`: -5",
        ),
        ("regions = ['mars']", 3, "mars"),
    ],
)
def test_a_mistake_in_the_routers_tables_is_named(
    sim: Simulator, path: Path, rules: str, line: int, said: str
) -> None:
    write(path, document(sim, rules + "\n"))
    with pytest.raises(ConfigError) as caught:
        ProviderRouter.from_config(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("tables", ["[router.budget]", "[[router.budget]]"])
def test_a_budgets_file_lies_beside_the_document(sim: Simulator, path: Path, tables: str) -> None:
    text = document(sim, f"{tables}\nusd = 0.0001\nper = 'month'\npath = 'spend.sqlite'\n")
    client = LiterLLM(ProviderRouter.from_config(write(path, text)))
    calls = 0
    with suppress(BudgetExceededError):
        for calls in range(1, 101):  # noqa: B007 - how many it takes
            client.generate("hello", max_tokens=20)
    assert 1 < calls < 100
    assert (path.parent / "spend.sqlite").exists()
    spent = ProviderRouter.from_config(path).spend()
    assert Decimal(0) < spent.total <= Decimal("0.0002"), "another router reads the same file"


def test_a_mirror_from_the_file_gets_copies(sim: Simulator, path: Path) -> None:
    router = ProviderRouter.from_config(
        write(path, document(sim, "[router.mirror]\nto = 'new'\npercent = 100\n"))
    )
    for _ in range(5):
        assert router.generate("hello").attempts[0].deployment == "old"
    until = time.monotonic() + 10
    report = router.mirror()
    while report is not None and report.in_flight and time.monotonic() < until:
        time.sleep(0.01)
        report = router.mirror()
    assert report is not None
    assert (report.sent, report.errors) == (5, 0)


def test_one_deployment_is_a_router_of_one(sim: Simulator, path: Path) -> None:
    text = document(sim, names=("only",)).replace("[[deployments]]", "[deployment]")
    router = ProviderRouter.from_config(write(path, text))
    assert router.generate("hello").attempts[0].deployment == "only"
    assert [one.deployment for one in router.statistics().deployments] == ["only"]
