"""Options: one name in Python, in the engine, in files and in the table of `docs/options.md`."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from liter_llm import (
    CacheOptions,
    CircuitOptions,
    ConfigError,
    HedgeOptions,
    InvalidArgumentError,
    LiterLLM,
    ProviderConfig,
)
from liter_llm.config_schema import engine_options
from liter_llm.requests import RequestFields
from liter_llm.testing import Simulator

ROOT = Path(__file__).resolve().parents[1]


def documented() -> dict[str, str]:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", (ROOT / "docs/options.md").read_text(), re.MULTILINE)
    return {name: kind for names, kind in rows for name in re.findall(r"`([a-z_]+)`", names)}


def test_the_table_has_every_option() -> None:
    table = documented()
    assert {name for name, kind in table.items() if kind.strip() != "call only"} == set(
        ProviderConfig.__slots__
    )
    assert {name for name, kind in table.items() if kind.startswith("call")} <= set(
        RequestFields.__annotations__
    )


def test_the_engine_knows_every_option() -> None:
    assert set(engine_options()["deployment"]) == set(ProviderConfig.__slots__)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"circuit": {"probe": 2}}, "did you mean `probes`"),
        ({"circuit": {"failures": 0}}, "`circuit`: `failures` of 0 is not a whole number of at least 1"),
        ({"circuit": 3}, "CircuitOptions"),
        ({"hedge": {"budget": 2}}, "share above 0"),
        ({"hedge": {"after": -1}}, "positive number of seconds"),
        ({"cache": {"ttl": float("nan")}}, "positive number of seconds"),
        ({"concurrency": 0}, "at least 1"),
        ({"rpm": True}, "whole number"),
        ({"tpm": 1.5}, "whole number"),
        ({"resend_after_send": "no"}, "neither True nor False"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        ProviderConfig("openai", **options)
    assert caught.value.param == next(iter(options))


@pytest.mark.parametrize(
    ("made", "field", "value", "words"),
    [
        (CircuitOptions, "failures", 0, "whole number of at least 1; the default is 5"),
        (CircuitOptions, "failures", True, "whole number"),
        (CircuitOptions, "failures", 1 << 63, "whole number"),
        (CircuitOptions, "probes", 1.5, "whole number of at least 1; the default is 1"),
        (CircuitOptions, "open_time", 0, "positive number of seconds; the default is 30"),
        (CircuitOptions, "open_time", float("nan"), "positive number of seconds"),
        (HedgeOptions, "after", -1, "positive number of seconds"),
        (HedgeOptions, "after", "1", "positive number of seconds"),
        (HedgeOptions, "budget", 0, "share above 0 up to 1; the default is 0.05"),
        (HedgeOptions, "budget", 1.01, "share above 0 up to 1"),
        (CacheOptions, "max_bytes", 0, "whole number of at least 1"),
        (CacheOptions, "ttl", float("inf"), "positive number of seconds; the default is 300"),
    ],
)
def test_the_layers_options_are_checked_when_they_are_made(
    made: type[Any], field: str, value: object, words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words) as caught:
        made(**{field: value})
    assert caught.value.param == field
    assert f"`{field}` of {value!r}" in str(caught.value)


def test_layers_options_that_can_work_are_taken() -> None:
    for options in (
        CircuitOptions(failures=1, open_time=0.5, probes=3),
        HedgeOptions(after=None, budget=1),
        CacheOptions(max_bytes=1, ttl=1),
    ):
        assert pickle.loads(pickle.dumps(options)) == options


def test_a_file_has_the_same_options(tmp_path: Path) -> None:
    with Simulator() as sim:
        path = tmp_path / "liter-llm.toml"
        path.write_text(
            "[deployment]\n"
            'provider = "openai"\nmodel = "m"\napi_key = "k"\n'
            f'base_url = "{sim.base_url("openai")}"\n'
            "resend_after_send = false\nconcurrency = 3\nrpm = 600\ntpm = 100000\n"
            "circuit = { failures = 2, open_time_seconds = 1.5 }\n"
            "hedge = { after_seconds = 2, budget = 0.1 }\n"
            "cache = true\n"
        )
        client = LiterLLM.from_config(path)
        assert client.config is not None
        assert client.config.circuit == CircuitOptions(failures=2, open_time=1.5)
        assert client.config.hedge == HedgeOptions(after=2, budget=0.1)
        assert client.config.cache is True
        assert client.generate("hello").text
