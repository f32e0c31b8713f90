"""Each failure as its class, with its facts."""

from __future__ import annotations

import pickle
import socket

import pytest

import liter_llm
from liter_llm import APIConnectionError, APITimeoutError, LiterLLM, LiterLlmError, ProviderConfig
from liter_llm.testing import Simulator

STATUSES = {
    400: ("BadRequestError", "invalid_request"),
    401: ("AuthenticationError", "authentication"),
    402: ("QuotaExhaustedError", "quota_exhausted"),
    403: ("PermissionDeniedError", "permission_denied"),
    404: ("NotFoundError", "not_found"),
    409: ("ConflictError", "invalid_request"),
    413: ("RequestTooLargeError", "request_too_large"),
    422: ("UnprocessableEntityError", "invalid_request"),
    429: ("RateLimitError", "rate_limited"),
    500: ("InternalServerError", "provider_error"),
    503: ("OverloadedError", "overloaded"),
}


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("status", sorted(STATUSES))
def test_http_status(sim: Simulator, provider: str, status: int) -> None:
    name, kind = STATUSES[status]
    sim.rules = [
        {
            "match": {},
            "fault": {
                "status": status,
                "headers": {"retry-after": "1.5"},
                "remove_headers": ["retry-after-ms"],
            },
        }
    ]
    client = LiterLLM(sim.config(provider, model="m", max_retries=0))
    with pytest.raises(LiterLlmError) as caught:
        client.generate(prompt="hi")
    error = caught.value
    assert type(error) is getattr(liter_llm, name)
    assert isinstance(error, RuntimeError)
    assert (error.kind, error.status_code, error.provider, error.model) == (kind, status, provider, "m")
    assert len(error.attempts) == 1
    assert error.request_id
    assert error.body
    assert error.__cause__ is not None
    assert str(status) in str(error)
    assert provider in str(error)
    if status == 429:
        assert error.retry_after == 1.5
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)
    assert str(other.__cause__) == str(error.__cause__)
    assert len(sim.requests) == 1


def test_refused_and_unknown_host() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    phases = {}
    for host in (f"127.0.0.1:{port}", "no-such-host.invalid"):
        config = ProviderConfig("openai", "m", api_key="k", base_url=f"http://{host}/v1", max_retries=0)
        with pytest.raises(APIConnectionError) as caught:
            LiterLLM(config).generate(prompt="hi")
        assert isinstance(caught.value, ConnectionError)
        assert caught.value.__cause__ is not None
        phases[caught.value.phase] = str(caught.value)
    assert set(phases) == {"refused", "dns"}
    assert phases["refused"] != phases["dns"]


def test_timeout(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"hang": True}}]
    with pytest.raises(APITimeoutError) as caught:
        LiterLLM(sim.config("openai", max_retries=0)).generate(prompt="hi", timeout=0.2)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.kind == "timeout"


def test_retry_after_beyond_the_deadline_fails_at_once(sim: Simulator) -> None:
    sim.rules = [
        {
            "match": {},
            "fault": {"status": 429, "headers": {"retry-after": "100"}, "remove_headers": ["retry-after-ms"]},
        }
    ]
    with pytest.raises(liter_llm.RateLimitError) as caught:
        LiterLLM(sim.config("openai")).generate(prompt="hi", timeout=5)
    assert caught.value.retry_after == 100
    assert len(sim.requests) == 1


def test_a_passing_failure_is_tried_again(sim: Simulator) -> None:
    sim.rules = [{"match": {"nth": 1}, "fault": {"status": 500, "headers": {"retry-after-ms": "5"}}}]
    response = LiterLLM(sim.config("openai")).generate(prompt="[echo] ok")
    assert response.text == "ok"
    assert [attempt.status for attempt in response.attempts] == [500, 200]


def test_an_error_inside_a_success(sim: Simulator) -> None:
    body = {"error": {"message": "the upstream words", "code": "x"}}
    sim.rules = [{"match": {}, "fault": {"status": 200, "body": body}}]
    with pytest.raises(LiterLlmError, match="the upstream words"):
        LiterLLM(sim.config("openai", max_retries=0)).generate(prompt="hi")


def test_html_instead_of_json(sim: Simulator) -> None:
    fault = {"status": 200, "body": "<html>hello</html>", "content_type": "text/html"}
    sim.rules = [{"match": {}, "fault": fault}]
    with pytest.raises(liter_llm.DecodeError):
        LiterLLM(sim.config("openai", max_retries=0)).generate(prompt="hi")
