"""The official Azure client works with the simulator by key and by Entra token, on both of Azure's paths."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request

import openai
import pytest

from liter_llm.testing import Simulator

DEPLOYMENT = "gpt-4o-mini"
VERSION = "2024-10-21"


def entra_token(simulator: Simulator) -> str:
    """A token as `azure-identity` would fetch it with a client secret."""
    form = {
        "grant_type": "client_credentials",
        "client_id": "client",
        "client_secret": "sesame",
        "scope": "https://cognitiveservices.azure.com/.default",
    }
    url = f"{simulator.base_url('entra')}/tenant/oauth2/v2.0/token"
    with urllib.request.urlopen(url, data=urllib.parse.urlencode(form).encode(), timeout=5) as answer:
        return str(json.load(answer)["access_token"])


def azure(simulator: Simulator, **credential: object) -> openai.AzureOpenAI:
    return openai.AzureOpenAI(
        azure_endpoint=simulator.base_url("azure"),
        api_version=VERSION,
        max_retries=0,
        **credential,  # pyright: ignore[reportArgumentType, reportCallIssue]
    )


def ask(client: openai.OpenAI) -> str:
    answer = client.chat.completions.create(
        model=DEPLOYMENT, messages=[{"role": "user", "content": "Hello."}]
    )
    return answer.choices[0].message.content or ""


def test_key_and_token_get_the_same_answer(simulator: Simulator) -> None:
    with azure(simulator, api_key="key") as by_key:
        first = ask(by_key)
    with azure(simulator, azure_ad_token_provider=lambda: entra_token(simulator)) as by_token:
        assert ask(by_token) == first != ""


def test_stream(simulator: Simulator) -> None:
    with azure(simulator, api_key="key") as client:
        chunks = client.chat.completions.create(
            model=DEPLOYMENT, messages=[{"role": "user", "content": "Hello."}], stream=True
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ask(client)


def test_the_newer_path(simulator: Simulator) -> None:
    base_url = f"{simulator.base_url('azure')}/openai/v1/"
    with openai.OpenAI(api_key=entra_token(simulator), base_url=base_url, max_retries=0) as client:
        assert ask(client)
        assert client.responses.create(model=DEPLOYMENT, input="Hello.").output_text


def test_refusals(simulator: Simulator) -> None:
    with azure(simulator, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        ask(client)
    with azure(simulator, azure_ad_token="wrong.token") as client, pytest.raises(openai.AuthenticationError):
        ask(client)
    with azure(simulator, api_key="key") as client, pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(
            model="no-such-deployment", messages=[{"role": "user", "content": "Hello."}]
        )
    assert caught.value.code == "DeploymentNotFound"
