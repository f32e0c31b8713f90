"""No key in anything that is shown: texts, pickles, tracebacks with variables."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from liter_llm import LiterLLM, ProviderConfig

KEY = "sk-CANARY-7f3a91"


def config(**options: Any) -> ProviderConfig:
    return ProviderConfig(provider="openai", model="m", **{"api_key": KEY, **options})


def refused(**options: Any) -> Callable[[], object]:
    return lambda: config(**options)


UNREACHABLE: dict[str, Any] = {"base_url": "http://127.0.0.1:1", "max_retries": 0}
FAILURES: dict[str, Callable[[], object]] = {
    "line break": refused(api_key=f"{KEY}\n"),
    "not ASCII": refused(api_key=f"{KEY}\u00e9"),
    "another option": refused(timeout=-1),
    "misspelled": lambda: ProviderConfig(provider="openai", api_kye=KEY),  # pyright: ignore[reportArgumentType]
    "unknown provider": lambda: LiterLLM(ProviderConfig(provider="opnai", api_key=KEY)),
    "no connection": lambda: LiterLLM(config(**UNREACHABLE)).generate("x"),
    "no connection for a stream": lambda: LiterLLM(config(**UNREACHABLE)).stream("x").until_done(),
}


@pytest.mark.parametrize("name", FAILURES)
def test_tracebacks_with_variables(name: str) -> None:
    with pytest.raises(Exception) as caught:
        FAILURES[name]()
    frames = traceback.StackSummary.extract(
        traceback.walk_tb(caught.value.__traceback__), capture_locals=True
    )
    # What the caller's own frames hold is the caller's affair.
    own = [frame for frame in frames if "liter_llm" in Path(frame.filename).parts]
    assert own
    assert KEY not in repr([frame.locals for frame in own])
    assert KEY not in repr(caught.value)
    assert KEY.encode() not in pickle.dumps(caught.value)


@pytest.mark.parametrize("option", ["api_key", "azure_ad_token", "client_secret"])
def test_texts_and_pickles(option: str) -> None:
    made = ProviderConfig(
        provider="azure", **{option: KEY}, headers={"authorization": KEY}, proxy=f"http://u:{KEY}@p:1"
    )
    for text in (repr(made), str(made), f"{made}", repr(made.to_dict()), repr(vars(type(made)))):
        assert KEY not in text
    assert pickle.loads(pickle.dumps(made)) == made
    again = ProviderConfig(provider="openai", api_key=KEY)
    assert KEY.encode() not in pickle.dumps(again)
    assert pickle.loads(pickle.dumps(LiterLLM(again.replace(model="m")))).config == again.replace(model="m")
