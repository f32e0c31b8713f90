"""`Telemetry`: what may be given, where it may stand, and how it survives pickles, files and reloads."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from liter_llm import ConfigError, InvalidArgumentError, LiterLLM, LlmProvider, Telemetry
from liter_llm.router import ProviderRouter
from liter_llm.testing import Simulator

from .receiver import Receiver

FILE = """
[telemetry]
content = true
max_content_bytes = 100
propagate_trace = true

[deployment]
provider = "openai/gpt-4o-mini"
api_key = "k"
base_url = "{url}"
"""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("enabled", 1),
        ("content", "yes"),
        ("redact", "no"),
        ("max_content_bytes", -1),
        ("max_content_bytes", True),
        ("propagate_trace", None),
        ("tracer_provider", 5),
        ("meter_provider", object()),
    ],
)
def test_what_cannot_work_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        Telemetry(**{field: value})


def test_a_client_takes_telemetry_only(sim: Simulator) -> None:
    wrong: Any = {"content": True}
    with pytest.raises(ConfigError, match="telemetry"):
        LiterLLM(sim.config("openai"), telemetry=wrong)
    with pytest.raises(ConfigError, match="telemetry"):
        LiterLLM(sim.config("openai")).telemetry = wrong
    with pytest.raises(ConfigError, match="telemetry"):
        ProviderRouter([sim.config("openai")], telemetry=wrong)


class Echo(LlmProvider):
    """Answers at once."""

    name = "echo"

    def generate(self, request: Any) -> str:
        return "ok"


def test_pickled_clients_keep_it(sim: Simulator, tracers: TracerProvider) -> None:
    telemetry = Telemetry(content=True, max_content_bytes=7, tracer_provider=tracers)
    kept = Telemetry(content=True, max_content_bytes=7)
    for made in (
        LiterLLM(sim.config("openai"), telemetry=telemetry),
        LiterLLM(Echo(), telemetry=telemetry),
        ProviderRouter([sim.config("openai")], telemetry=telemetry),
        LiterLLM(ProviderRouter([sim.config("openai")], telemetry=telemetry)),
    ):
        again = pickle.loads(pickle.dumps(made))
        assert again.telemetry == kept
        again.generate("Hello")
    assert pickle.loads(pickle.dumps(LiterLLM(sim.config("openai")))).telemetry == Telemetry()


def test_it_may_be_set_later(sim: Simulator, receiver: Receiver, traced: Telemetry) -> None:
    client = LiterLLM(sim.config("openai", model="gpt-4o-mini"))
    client.generate("Hello")
    client.telemetry = traced
    client.generate("Hello")
    client.telemetry = Telemetry()
    client.generate("Hello")
    assert receiver.root().name == "chat gpt-4o-mini"


def test_a_file_may_hold_it(
    sim: Simulator, tmp_path: Path, receiver: Receiver, tracers: TracerProvider
) -> None:
    path = tmp_path / "liter-llm.toml"
    path.write_text(FILE.format(url=sim.base_url("openai")))
    client = LiterLLM.from_config(path)
    assert client.telemetry == Telemetry(content=True, max_content_bytes=100, propagate_trace=True)
    assert pickle.loads(pickle.dumps(client)).telemetry == client.telemetry
    router = ProviderRouter.from_config(path)
    assert LiterLLM(router).telemetry == client.telemetry
    client.telemetry = Telemetry(tracer_provider=tracers)
    client.generate("Hello")
    assert receiver.root().name == "chat gpt-4o-mini"
    # The model is another after a reload, and so is what the span begins with.
    path.write_text(FILE.format(url=sim.base_url("openai")).replace("gpt-4o-mini", "gpt-4o"))
    client.reload()
    receiver.clear()
    client.generate("Hello")
    assert receiver.root().name == "chat gpt-4o"
    # What stands in the file holds after a reload, what was given in code goes on.
    path.write_text(FILE.format(url=sim.base_url("openai")).replace("100", "200"))
    under = LiterLLM(router)
    router.reload()
    client.reload()
    assert [one.telemetry.max_content_bytes for one in (router, under, client)] == [200, 200, 8192]
    path.write_text(FILE.format(url=sim.base_url("openai")).replace("propagate_trace", "propagate"))
    with pytest.raises(ConfigError, match="propagate_trace"):
        LiterLLM.from_config(path)
