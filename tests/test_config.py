"""Configuration: checked when made, filled from the environment, never showing a key."""

from __future__ import annotations

import copy
import pickle
import traceback
from pathlib import Path

import pytest

from liter_llm import (
    AuthenticationError,
    ConfigError,
    LiterLLM,
    LiterLlmError,
    MissingKeyError,
    ProviderConfig,
)
from liter_llm.testing import Simulator

KEY = "sk-canary-0123456789"
OPTIONS = {
    "openai": ("OPENAI_API_KEY", "OPENAI_BASE_URL", "authorization", f"Bearer {KEY}"),
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "x-api-key", KEY),
    "azure": ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "api-key", KEY),
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, url, _, _ in OPTIONS.values():
        monkeypatch.delenv(key, raising=False)
        monkeypatch.delenv(url, raising=False)
    for name in ("OPENAI_API_VERSION", "LITER_LLM_CONFIG", "AZURE_OPENAI_AD_TOKEN", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"api_kye": "x"}, "api_kye", "did you mean `api_key`"),
        ({"base_url": "not a url"}, "base_url", "is not a URL"),
        ({"base_url": "ftp://host"}, "base_url", "is not a URL"),
        ({"base_url": "http://"}, "base_url", "is not a URL"),
        ({"api_key": f"{KEY}\n"}, "api_key", "line break"),
        ({"api_key": ""}, "api_key", "empty"),
        ({"api_key": 3}, "api_key", "must be text"),
        ({"timeout": float("nan")}, "timeout", "positive number"),
        ({"timeout": -1}, "timeout", "positive number"),
        ({"max_retries": -1}, "max_retries", "whole number"),
        ({"api": "respones"}, "api", "responses"),
        ({"extra": {"x": [float("nan")]}}, "extra", "finite"),
        ({"headers": {"x": "a\nb"}}, "headers", "line break"),
        ({"headers": {"a b": "c"}}, "headers", "header name"),
        ({"model": ""}, "model", "empty"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, object], param: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        ProviderConfig(provider="openai", **options)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    assert caught.value.param == param
    assert KEY not in str(caught.value)


def test_unknown_provider_and_text_without_a_model() -> None:
    with pytest.raises(ConfigError, match="openai"):
        LiterLLM(ProviderConfig(provider="opnai", api_key=KEY))
    with pytest.raises(ConfigError, match="provider/model"):
        LiterLLM("gpt-4o-mini")


def test_no_secret_is_shown(sim: Simulator) -> None:
    url = sim.base_url("openai").replace("://", f"://user:{KEY}@")
    config = ProviderConfig(
        provider="openai",
        model="m",
        api_key=KEY,
        client_secret=KEY,
        azure_ad_token=KEY,
        base_url=url,
        headers={"x-gateway": KEY},
    )
    shown = [repr(config), str(config), f"{config}", str(config.to_dict()), str(config.api_key)]
    shown += [repr(config.api_key), repr(pickle.dumps(config)) if config.headers is None else ""]
    client = LiterLLM(sim.config("openai", api_key=f"{KEY}-wrong", max_retries=0))
    shown += [repr(client), str(client.describe()), repr(vars(client))]
    with pytest.raises(AuthenticationError) as caught:
        client.generate(prompt="hi")
    shown += ["".join(traceback.format_exception(caught.value)), str(vars(caught.value))]
    shown.append(repr(pickle.dumps(sim.config("openai", api_key=KEY))))
    assert [text for text in shown if KEY in text] == []


def test_copies_keep_the_key(sim: Simulator) -> None:
    config = sim.config("openai", api_key=KEY, headers={"a": "b"})
    for other in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), config.replace()):
        assert other == config
        assert other.api_key.reveal() == KEY
    assert config.replace(model="other").model == "other"
    client = pickle.loads(pickle.dumps(LiterLLM(config)))
    client.generate(prompt="hi")
    assert sim.requests[-1].header("authorization") == f"Bearer {KEY}"


@pytest.mark.parametrize("provider", sorted(OPTIONS))
def test_environment(sim: Simulator, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    key, url, header, value = OPTIONS[provider]
    monkeypatch.setenv(key, KEY)
    monkeypatch.setenv(url, sim.base_url(provider))
    LiterLLM(f"{provider}/model-1").generate(prompt="hi")
    assert sim.requests[-1].header(header) == value
    # What is given beats the environment.
    monkeypatch.setenv(url, "http://127.0.0.1:9")
    given = ProviderConfig(provider, "model-2", api_key="sk-given", base_url=sim.base_url(provider))
    LiterLLM(given).generate(prompt="hi")
    assert (sim.requests[-1].header(header) or "").endswith("sk-given")
    assert len(sim.requests) == 2


@pytest.mark.parametrize(
    "provider",
    [
        "openai",
        "anthropic",
        "azure",
    ],
)
def test_missing_key_sends_nothing(sim: Simulator, provider: str) -> None:
    with pytest.raises(LiterLlmError) as caught:
        LiterLLM(ProviderConfig(provider, "m", base_url=sim.base_url(provider))).generate(prompt="hi")
    assert isinstance(caught.value, MissingKeyError)
    assert isinstance(caught.value, ValueError)
    assert OPTIONS[provider][0] in str(caught.value)
    assert sim.requests == []


def test_a_key_goes_to_its_own_host_only(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    LiterLLM(ProviderConfig("ollama", "m", base_url=sim.base_url("ollama"))).generate(prompt="hi")
    assert KEY not in str(sim.requests[-1])
    assert sim.requests[-1].header("authorization") is None


def test_config_file(sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_URL", sim.base_url("my-host"))
    monkeypatch.setenv("MY_KEY", KEY)
    path = tmp_path / "own.toml"
    path.write_text(
        '[providers.my-host]\nadapter = "openai_chat"\nbase_url = "${MY_URL}"\nauth = "bearer"\n'
        '[deployment]\nprovider = "my-host"\nmodel = "${MY_MODEL:-m9}"\napi_key = "${MY_KEY}"\n'
        "timeout_seconds = 5\n"
    )
    response = LiterLLM.from_config(path).generate(prompt="[echo] hi")
    assert response.text == "hi"
    assert response.provider == "my-host"
    assert sim.requests[-1].header("authorization") == f"Bearer {KEY}"
    assert sim.requests[-1].body["model"] == "m9"
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match=r"own\.toml.*MY_KEY"):
        LiterLLM.from_config(path)
    path.write_text('[deployment]\nprovider = "openai"\napi_kye = "x"\n')
    with pytest.raises(ConfigError, match=r"own\.toml.*api_kye.*api_key"):
        LiterLLM.from_config(path)
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        LiterLLM.from_config(tmp_path / "missing.toml")
