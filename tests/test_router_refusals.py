"""What a router refuses at construction, and that it says which option and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from liter_llm import Budget, ConfigError, LlmProvider, LlmRequest, ProviderConfig, ProviderRouter


class Echo(LlmProvider):
    """A provider written in Python."""

    def __init__(self, name: str = "echo") -> None:
        self.name = name

    def generate(self, request: LlmRequest) -> str:
        return request.prompt_text


def config(name: str = "a", **options: Any) -> ProviderConfig:
    return ProviderConfig("openai", name, api_key="k", **options)


@pytest.mark.parametrize(
    ("deployments", "options", "words"),
    [
        ([], {}, "at least one deployment"),
        ("openai/gpt-4o", {}, "must be a list"),
        (config(), {}, "must be a list"),
        ([config(), config()], {}, "two are named `openai/a`: give one another `name`"),
        ([Echo("x"), Echo("x")], {}, "two are named `x`"),
        ([config(), "gpt-4o"], {}, r"`deployments\[1\]`.*provider/model"),
        ([config(), 7], {}, r"`deployments\[1\]`: must be .* not int"),
        (["nosuch/model"], {}, r"deployments\[0\].*nosuch"),
        ([config()], {"policy": "latencyy"}, "did you mean|unknown"),
        ([config(region="eu")], {"regions": ["mars"]}, "no deployment is in `mars`"),
        ([config()], {"regions": "eu"}, "`regions`: must be a list or set of texts"),
        ([config(tags=["a"])], {"forbid_tags": ["a"]}, "rule out every one"),
        ([config()], {"require_tags": ["a"], "forbid_tags": ["a"]}, "required and forbidden"),
        ([config()], {"timeout": -1.0}, "`timeout`: -1 is not a positive number"),
        ([config()], {"max_retries": -1}, "invalid value|max_retries"),
        ([config(weight=0)], {"policy": "weighted"}, "weight"),
        ([config()], {"cache": {"tll": 3}}, "did you mean `ttl`"),
        ([config(), Echo()], {"cache": True}, "`cache`.*`echo`"),
        ([config()], {"region": ["eu"]}, "did you mean `regions`"),
        (
            [ProviderConfig("openai/gpt-4o-mini")],
            {},
            "`provider`: `openai/gpt-4o-mini` is two options: provider `openai`, model `gpt-4o-mini`",
        ),
        ([config()], {"budget": {"usd": 3}}, "`budget`: must be a Budget, not dict"),
        ([config()], {"budget": [Budget(3, "day"), 7]}, "`budget`: must be a Budget, not int"),
        (
            [config()],
            {"budget": [Budget(3, "day"), Budget(4, "day")]},
            "two budgets are for `router` per day",
        ),
        ([config()], {"budget": Budget(3, "day", scope="tag:x")}, "no deployment has the tag `x`"),
        ([config()], {"budget": Budget(3, "day", scope="team")}, "is none of `router`"),
        ([config()], {"budget": Budget(3, "day", degrade_to="b", degrade_at=0.5)}, "no deployment is `b`"),
        ([config()], {"budget": Budget(3, "day", degrade_at=0.5)}, "give `degrade_to`"),
        ([config()], {"budget": Budget(3, "day", degrade_to="a", degrade_at=5)}, "from 0 to 1"),
        ([ProviderRouter([Echo("inner")])], {}, "a router cannot be a deployment of another"),
    ],
)
def test_bad_input(deployments: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ProviderRouter(deployments, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight": -1}, "number from 0 up"),
        ({"weight": float("nan")}, "number from 0 up"),
        ({"priority": 1.5}, "whole number from 0 up"),
        ({"tags": "fast"}, "list or set of texts"),
        ({"tags": ["fast", ""]}, "not a word"),
        ({"supports": ["tools"]}, "must be a dict"),
        ({"supports": {"tools": "yes"}}, "does not say"),
        ({"context": 0}, "at least 1"),
        ({"price": {"input": 3}}, "`price`: Missing required argument 'output'"),
        ({"price": {"input": 3, "output": -1}}, "`output` of -1 is not a price in US dollars"),
        ({"price": {"inptu": 3, "output": 1}}, "did you mean `input`"),
        ({"price": True}, "must be PriceOptions"),
    ],
)
def test_bad_deployments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        config(**options)
    assert caught.value.param == next(iter(options))


def test_an_unknown_ability_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean `tools`"):
        ProviderRouter([config(supports={"tool": True})])
