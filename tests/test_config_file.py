"""The configuration file: found, trusted or not, its secrets not shown, reloads."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from liter_llm import AsyncLiterLLM, CallCancelledError, ConfigError, LiterLLM, LiterLlmError, MissingKeyError
from liter_llm.config_file import find, load
from liter_llm.testing import Simulator

KEY = "sk-canary-0123456789"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LITER_LLM_CONFIG", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def write(folder: Path, text: str, name: str = "liter-llm.toml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def two(sim: Simulator, **changes: str) -> str:
    """A document of two deployments; `changes` are lines added to the second."""
    url = sim.base_url("openai")
    lines = "\n".join(f"{name} = {value}" for name, value in changes.items())
    return f"""\
[router]
policy = "round_robin"

[[deployments]]
name = "a"
provider = "openai/m"
api_key = "k"
base_url = "{url}"

[[deployments]]
name = "b"
provider = "openai/m"
api_key = "k"
base_url = "{url}"
{lines}
"""


# --------------------------------------------------------------------------------------------- mistakes


def test_no_document_shows_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", KEY)
    for options in (
        'provider = "${CANARY}"',
        'provider = "openai"\nmodel = "m"\napi = "${CANARY}"',
        'provider = "openai"\nmodel = "m"\ntimeout_seconds = "${CANARY}"',
        'provider = "openai"\nmodel = "m"\nproxy = "${CANARY}"',
        'provider = "openai"\nmodel = "m"\nbase_url = "${CANARY}"',
        'provider = "openai"\nmodel = "m"\nsupports = { "${CANARY}" = 1 }\nregion = 3',
        f'provider = "openai"\nmodel = "m"\napi_key = ["{KEY}"]',
        f'provider = "openai"\nmodel = "m"\napi_key = "{KEY} x\\n"',
        f'provider = "openai"\nmodel = "m"\nrpm = "{KEY}"',
    ):
        path = write(tmp_path, f"[deployment]\n{options}\n")
        with pytest.raises(LiterLlmError) as caught:
            LiterLLM.from_config(path)
        shown = f"{caught.value} {caught.value!r} {vars(caught.value)} {caught.value.__cause__}"
        assert KEY not in shown, options
    path = write(tmp_path, '[deployment]\nprovider = "openai/m"\napi_key = "${CANARY}"\n')
    client = LiterLLM.from_config(path)
    assert KEY not in f"{client!r} {client.config!r} {load(path)!r} {client.describe()}"
    assert KEY.encode() not in pickle.dumps(client)


# ------------------------------------------------------------------------------------ where the file is


def test_the_file_is_found_upward_unless_named(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    if find() is None:
        with pytest.raises(ConfigError, match="LITER_LLM_CONFIG"):
            LiterLLM.from_config()
    url = sim.base_url("openai")
    outer = write(tmp_path, f'[deployment]\nprovider = "openai/outer"\napi_key = "k"\nbase_url = "{url}"\n')
    other = write(
        tmp_path, f'[deployment]\nprovider = "openai/named"\napi_key = "k"\nbase_url = "{url}"\n', "o"
    )
    assert find() == str(outer)
    LiterLLM.from_config().generate("hi")
    monkeypatch.setenv("LITER_LLM_CONFIG", str(other))
    AsyncLiterLLM.from_config()
    LiterLLM.from_config().generate("hi")
    LiterLLM.from_config(outer).generate("hi")
    assert [seen.body["model"] for seen in sim.requests] == ["outer", "named", "outer"]


# ------------------------------------------------------------------------------------------------ trust


@pytest.mark.parametrize("table", ["[deployment]", "[[deployments]]"])
def test_a_found_file_does_not_send_the_environments_key_elsewhere(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    text = f'{table}\nprovider = "openai/m"\nbase_url = "{sim.base_url("openai")}"\n'
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=r'write `api_key = "\$\{OPENAI_API_KEY\}"`') as caught:
        LiterLLM.from_config()
    assert str(caught.value).startswith(f"{path}:3: ")
    assert KEY not in str(caught.value)
    # Named: whoever names it has chosen it.
    LiterLLM.from_config(path).generate("hi")
    monkeypatch.setenv("LITER_LLM_CONFIG", path.name)
    LiterLLM.from_config().generate("hi")
    monkeypatch.delenv("LITER_LLM_CONFIG")
    # Written beside the address: the file says so itself.
    write(tmp_path, text + 'api_key = "${OPENAI_API_KEY}"\n')
    LiterLLM.from_config().generate("hi")
    assert [seen.header("authorization") for seen in sim.requests] == [f"Bearer {KEY}"] * 3


def test_what_a_found_file_may_do(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    url = sim.base_url("openai")
    # The provider's own host; a host without a key; a row that names its own variable.
    write(tmp_path, '[deployment]\nprovider = "openai/m"\n')
    LiterLLM.from_config()
    write(tmp_path, f'[deployment]\nprovider = "ollama/m"\nbase_url = "{sim.base_url("ollama")}"\n')
    LiterLLM.from_config().generate("hi")
    row = f'[providers.mine]\nadapter = "openai_chat"\nbase_url = "{url}"\n'
    write(tmp_path, row + 'api_key_env = ["MY_KEY"]\n[deployment]\nprovider = "mine/m"\n')
    monkeypatch.setenv("MY_KEY", "sk-mine")
    LiterLLM.from_config().generate("hi")
    assert [seen.header("authorization") for seen in sim.requests] == [None, "Bearer sk-mine"]
    # A row in the place of a known one takes nothing of it along.
    write(tmp_path, row.replace("mine", "openai") + '[deployment]\nprovider = "openai/m"\n')
    with pytest.raises(MissingKeyError):
        LiterLLM.from_config()
    # Tokens of Microsoft Entra are keys as well.
    write(tmp_path, f'[deployment]\nprovider = "azure/m"\nbase_url = "{url}"\n')
    with pytest.raises(ConfigError, match="AZURE_OPENAI_API_KEY"):
        LiterLLM.from_config()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")
def test_a_found_file_must_be_ours(tmp_path: Path) -> None:
    path = write(tmp_path, '[deployment]\nprovider = "openai/m"\napi_key = "k"\n')
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="every user of this machine may write it"):
        LiterLLM.from_config()
    LiterLLM.from_config(path)
    path.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        with pytest.raises(ConfigError, match="another user"):
            LiterLLM.from_config()


# ---------------------------------------------------------------------------------------------- reload


def seen_keys(sim: Simulator) -> list[str | None]:
    return [one.header("authorization") for one in sim.requests]


def test_a_document_of_several_deployments(sim: Simulator, tmp_path: Path) -> None:
    path = write(tmp_path, two(sim))
    client = LiterLLM.from_config(path)
    assert client.config is None
    assert str(path) in repr(client)
    for other in (client, pickle.loads(pickle.dumps(client))):
        answers = [other.generate("hi") for _ in range(4)]
        assert sorted(answer.attempts[-1].deployment for answer in answers) == ["a", "a", "b", "b"]


def test_reload(sim: Simulator, tmp_path: Path) -> None:
    text = f'[deployment]\nprovider = "openai/m"\nbase_url = "{sim.base_url("openai")}"\nmax_retries = 0\n'
    path = write(tmp_path, text + 'api_key = "k1"\n')
    client = LiterLLM.from_config(path)
    client.generate("hi")
    sim.rules = [{"fault": {"status": 500}}]
    for _ in range(3):
        with pytest.raises(LiterLlmError):
            client.generate("hi")
    sim.rules.clear()
    assert client.state()[0].failures_in_row == 3
    write(tmp_path, text + 'api_key = "k1"\nregion = "eu"\n')
    client.reload()
    write(tmp_path, text + 'api_key = "k1"\ntimeout_seconds = 7\n')
    client.reload()
    assert client.state()[0].failures_in_row == 3
    assert client.config is not None
    assert client.config.timeout == 7
    # What cannot work changes nothing, and says why.
    write(tmp_path, text + 'api_key = "k2"\nmax_retires = 1\n')
    with pytest.raises(ConfigError, match=r"liter-llm\.toml:6: .*max_retries"):
        client.reload()
    assert client.config_error is not None
    assert client.config.timeout == 7
    client.generate("hi")
    write(tmp_path, text + 'api_key = "k3"\n')
    client.reload()
    assert client.config_error is None
    client.generate("hi")
    assert seen_keys(sim)[-2:] == ["Bearer k1", "Bearer k3"]
    client.close()
    with pytest.raises(CallCancelledError):
        client.reload()
    with pytest.raises(ConfigError, match="not made from a file"):
        LiterLLM(sim.config("openai")).reload()


def wait_for(what: Callable[[], bool], seconds: float = 10) -> float:
    begun = time.monotonic()
    while not what():
        assert time.monotonic() - begun < seconds
        time.sleep(0.01)
    return time.monotonic() - begun


def watchers() -> int:
    return sum(thread.name == "liter-llm config" for thread in threading.enumerate())


def test_watching(sim: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="liter_llm")
    before = watchers()
    path = write(tmp_path, two(sim))
    client = LiterLLM.from_config(path, watch=True)
    assert watchers() == before + 1
    write(tmp_path, two(sim).replace('"k"', '"k2"'))
    wait_for(lambda: "was reloaded from" in caplog.text)
    client.generate("hi")
    assert seen_keys(sim) == ["Bearer k2"]
    write(tmp_path, two(sim, modle='"x"'))
    wait_for(lambda: client.config_error is not None)
    time.sleep(1.2)
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failures) == 1
    assert f"{path}:15: " in failures[0].getMessage()
    path.unlink()
    wait_for(lambda: "cannot be read" in str(client.config_error))
    client.generate("hi")
    write(tmp_path, two(sim).replace('"k"', '"k3"'))
    wait_for(lambda: client.config_error is None)
    client.generate("hi")
    assert seen_keys(sim)[-2:] == ["Bearer k2", "Bearer k3"]
    client.close()
    wait_for(lambda: watchers() == before)


def test_a_forgotten_client_is_not_watched(sim: Simulator, tmp_path: Path) -> None:
    before = watchers()
    client = LiterLLM.from_config(write(tmp_path, two(sim)), watch=True)
    assert watchers() == before + 1
    del client
    gc.collect()
    wait_for(lambda: watchers() == before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forks_and_exits(sim: Simulator, tmp_path: Path) -> None:
    """A child watches too, and neither process hangs at its end."""
    path = write(tmp_path, two(sim))
    changed = two(sim).replace('"k"', '"k2"')
    script = f"""
import os, sys, time
from liter_llm import LiterLLM
client = LiterLLM.from_config({str(path)!r}, watch=True)
client.generate("hi")
child = os.fork()
if child == 0:
    client.generate("hi")
    open({str(path)!r}, "w").write({changed!r})
    begun = time.monotonic()
    while client._file.loaded.document["deployments"][0]["api_key"] != "k2":
        assert time.monotonic() - begun < 10
        time.sleep(0.02)
    client.generate("hi")
    client.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert seen_keys(sim) == ["Bearer k", "Bearer k", "Bearer k2"]
