"""The catalogue in Python: rows, own rows, updates, the cost of answers, and the command line."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from liter_llm import Catalog, ConfigError, Cost, LiterLLM, LlmResponse, ProviderConfig, Usage
from liter_llm.catalog import SHIPPED, base_path, data_folder, update
from liter_llm.cli import program
from liter_llm.testing import Simulator

SMALL = '{"format":1,"models":{\n"p/a":{"prices":[{"input":"7","output":"7"}]},\n"p/b":"p/a"\n}}\n'


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LITER_LLM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("LITER_LLM_CATALOG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(program, list(args), prog_name="liter-llm")
    return done.exit_code, done.stdout, done.stderr


def test_a_row_tells_limits_features_and_prices() -> None:
    info = Catalog().get("openai/gpt-4o-mini")
    assert info is not None
    assert (info.provider, info.model, info.limits.context) == ("openai", "gpt-4o-mini", 128_000)
    assert info.supports("tools") is True
    assert info.supports("image_input") is True
    assert info.supports("audio_input") is False
    assert info.supports("logprobs") is None
    assert info.price() == Decimal("0.15")
    assert info.price("audio_input") is None
    assert info.sources["prices"].startswith("genai-prices ")
    assert Catalog().get("openai/nothing-like-it") is None
    assert len(list(Catalog())) > 2_000


def test_an_answer_says_what_it_cost(simulator: Simulator) -> None:
    usage = {"openai": "0.15 0.6", "anthropic": "1 5"}
    models = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
    for provider, prices in usage.items():
        config = ProviderConfig(
            provider=provider, model=models[provider], api_key="sk-x", base_url=simulator.base_url(provider)
        )
        with LiterLLM(config) as client:
            whole = client.generate("Say hello.")
            with client.stream("Say hello.") as stream:
                for _ in stream:
                    pass
                folded = stream.response
            other = client.generate("Say hello.", model="a-model-nobody-knows")
        per_input, per_output = map(Decimal, prices.split())
        for answer in (whole, folded):
            assert answer.cost is not None
            tokens = answer.usage
            expected = (tokens.input_tokens * per_input + tokens.output_tokens * per_output) / 1_000_000
            assert answer.cost.total == expected
            assert [part.what for part in answer.cost.parts] == ["input", "output"]
            assert answer.cost.currency == "USD"
            assert answer.cost.price_source.endswith(f": {provider}/{models[provider]}")
            for copy in (pickle.loads(pickle.dumps(answer)), LlmResponse.from_json(answer.to_json())):
                assert copy.cost == answer.cost
        assert other.cost is None


def test_a_cached_answer_cost_nothing_more(simulator: Simulator) -> None:
    config = ProviderConfig(
        provider="openai", model="gpt-4o", api_key="sk-x", base_url=simulator.base_url("openai"), cache=True
    )
    with LiterLLM(config) as client:
        first, second = client.generate("Twice."), client.generate("Twice.")
    assert first.cost is not None
    assert second.cached
    assert first.cost.total > 0
    assert second.cost == Cost(total=Decimal(0), currency="USD", price_source=first.cost.price_source)
    assert first == second


def test_rows_of_ones_own_price_answers(
    simulator: Simulator, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = own_folder / "own.json"
    own.write_text('{"format":1,"models":{"openai/mine":{"prices":[{"input":"1000","output":"0"}]}}}')
    config = ProviderConfig(
        provider="openai", model="mine", api_key="sk-x", base_url=simulator.base_url("openai")
    )
    monkeypatch.setenv("LITER_LLM_CATALOG", str(own))
    with LiterLLM(config) as client:
        cost = client.generate("x").cost
    assert cost is not None
    assert cost.price_source == "your own: openai/mine"
    assert cost.total == cost.parts[0].units * Decimal("0.001")
    own.write_text('{"format":1,"models":{"openai/mine":{"prices":[{"inptu":"1"}]}}}')
    with pytest.raises(
        ConfigError, match=r"own\.json: `openai/mine`: `inptu` is unknown; did you mean `input`"
    ):
        LiterLLM(config).generate("x")
    with pytest.raises(ConfigError, match=r"own\.json"):
        Catalog(own)
    monkeypatch.setenv("LITER_LLM_CATALOG", str(own_folder / "missing.json"))
    with pytest.raises(ConfigError, match=r"missing\.json"):
        Catalog()


def test_the_configuration_file_names_rows_of_ones_own(
    simulator: Simulator, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_folder / "settings"
    folder.mkdir()
    (folder / "own.json").write_text(
        '{"format":1,"models":{"openai/mine":{"prices":[{"input":"5","output":"5"}]}}}'
    )
    place = folder / "liter-llm.toml"
    place.write_text(
        'catalog = "own.json"\n[deployment]\nprovider = "openai"\nmodel = "mine"\napi_key = "sk-x"\n'
        f'base_url = "{simulator.base_url("openai")}"\n'
    )
    with LiterLLM.from_config(place) as client:
        assert client.generate("x").cost is not None
    monkeypatch.setenv("LITER_LLM_CONFIG", str(place))
    code, out, _ = run("models", "--provider", "openai", "mine", "--json")
    assert (code, [row["key"] for row in json.loads(out)]) == (0, ["openai/mine"])


def test_an_update_counts_at_once_and_a_broken_one_changes_nothing(own_folder: Path) -> None:
    assert base_path() == SHIPPED
    source = own_folder / "new.json"
    source.write_text(SMALL)
    code, out, _ = run("models", "update", "--from", str(source))
    assert code == 0
    assert "1 models" in out
    assert base_path() == str(Path(data_folder()) / "models.json")
    assert [info.key for info in Catalog()] == ["p/a"]
    assert Catalog().cost("p/b", Usage(input_tokens=1_000_000)) is not None

    broken = {
        "cut.json": SMALL[:-4],
        "order.json": SMALL.replace('"p/a"', '"p/c"', 1),
        "key.json": SMALL.replace('"input"', '"imput"'),
        "format.json": SMALL.replace('"format":1', '"format":9'),
        "not.json": "hello",
        "bytes.json": "",
    }
    for name, text in broken.items():
        bad = own_folder / name
        bad.write_text(text)
        if name == "bytes.json":
            bad.write_bytes(b"\xff\xfe")
        code, _, err = run("models", "update", "--from", str(bad))
        assert code == 2, name
        assert name in err, name
        assert [info.key for info in Catalog()] == ["p/a"], name
    assert (
        "line 2: `p/a`: `imput` is unknown"
        in run("models", "update", "--from", str(own_folder / "key.json"))[2]
    )
    with pytest.raises(ConfigError, match="gone"):
        update(own_folder / "gone.json")
    assert sorted(path.name for path in Path(data_folder()).iterdir()) == [
        "models.json",
        "models.json.sha256",
    ]


def test_an_updated_file_that_was_changed_does_not_count(own_folder: Path) -> None:
    source = own_folder / "new.json"
    source.write_text(SMALL)
    path, _ = update(source)
    Path(path).write_text(SMALL.replace('"7"', '"0.7"'))
    with pytest.warns(RuntimeWarning, match="is not as `liter-llm models update` wrote it"):
        assert base_path() == SHIPPED


def test_an_update_comes_from_a_wheel(own_folder: Path) -> None:
    wheel = own_folder / "liter_llm-9.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("liter_llm/models.json", SMALL)
    assert update(wheel)[1] == 1
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("liter_llm/other.json", SMALL)
    with pytest.raises(ConfigError, match=r"holds no liter_llm/models\.json"):
        update(wheel)
    wheel.write_text("no wheel")
    with pytest.raises(ConfigError, match="cannot be read"):
        update(wheel)


def test_models_are_listed_filtered_and_compared() -> None:
    code, out, _ = run("models", "--provider", "anthropic", "--tools", "--vision", "--min-context", "500000")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["MODEL", "CONTEXT", "INPUT", "$", "OUTPUT", "$", "CAN"]
    assert all(line.startswith("anthropic/") for line in lines[1:])
    assert "anthropic/claude-sonnet-4-6" in out
    assert "claude-haiku-4-5" not in out
    cheap = json.loads(run("models", "gpt", "--max-price", "0.1", "--json")[1])
    assert cheap
    assert all("gpt" in row["key"] for row in cheap)
    assert run("models", "no-model-is-called-this") == (0, "", "No model is known to fit.\n")
    code, out, _ = run("models", "compare", "openai/gpt-4o", "anthropic/claude-haiku-4-5")
    assert code == 0
    assert "128,000" in out
    assert "200,000" in out
    code, _, err = run("models", "compare", "openai/gpt-4oo")
    assert (code, "openai/gpt-4o" in err) == (2, True)
    code, _, err = run("models", "--provider", "openia")
    assert (code, "`openai`" in err or "openai" in err) == (2, True)
    assert run("models", "--max-price", "cheap")[0] == 2
    assert run("models", "where")[1].splitlines()[0].endswith("models.json")


def test_prices_change_with_the_day() -> None:
    usage = Usage(input_tokens=250_000, output_tokens=1)
    before = Catalog().cost("anthropic/claude-opus-4-6", usage, at=datetime(2026, 3, 12, tzinfo=UTC))
    after = Catalog().cost("anthropic/claude-opus-4-6", usage, at=datetime(2026, 3, 13))  # noqa: DTZ001 - UTC
    assert before is not None
    assert after is not None
    assert before.total > after.total


def test_without_a_catalogue_calls_are_answered_and_cost_is_unknown(
    simulator: Simulator, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liter_llm.catalog.SHIPPED", str(own_folder / "missing.json"))
    config = ProviderConfig(
        provider="openai", model="gpt-4o", api_key="sk-x", base_url=simulator.base_url("openai")
    )
    with LiterLLM(config) as client:
        answer = client.generate("x")
    assert answer.text
    assert answer.cost is None
    with pytest.raises(ConfigError, match=r"missing\.json"):
        Catalog()


def test_what_a_provider_billed_is_what_the_catalogue_says() -> None:
    """Recorded answers of xAI state what they cost."""
    folder = Path(os.environ.get("LITER_LLM_RECORDED", Path(__file__).parents[2] / "shared" / "recorded"))
    if not (folder / "xai.jsonl").is_file():
        pytest.skip("no recorded answers here")
    catalog = Catalog()
    compared = 0
    for line in (folder / "xai.jsonl").read_text().splitlines():
        record = json.loads(line)
        body = record["response"].get("body")
        usage = body.get("usage") if isinstance(body, dict) else None
        if record["endpoint"] != "responses" or not usage or usage.get("num_server_side_tools_used"):
            continue
        if body.get("model") != "grok-4.3" or not usage.get("cost_in_usd_ticks"):
            continue
        ours = catalog.cost(
            "xai/grok-4.3",
            Usage(
                input_tokens=usage["input_tokens"],
                output_tokens=usage["output_tokens"],
                cache_read_input_tokens=usage["input_tokens_details"]["cached_tokens"],
                reasoning_output_tokens=usage["output_tokens_details"]["reasoning_tokens"],
            ),
        )
        assert ours is not None
        # A tick is a ten-billionth of a dollar.
        assert ours.total == Decimal(usage["cost_in_usd_ticks"]) / 10**10, record["id"]
        compared += 1
    assert compared >= 20
