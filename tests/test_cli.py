"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner, Result

from liter_llm import __version__
from liter_llm.cli import program
from liter_llm.testing import Simulator

KEY = "sk-test-0123456789-secret"
# The head of a picture is all that is looked at.
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00"
SCHEMA = {
    "type": "object",
    "title": "A person",
    "properties": {"age": {"type": "integer"}},
    "required": ["age"],
    "additionalProperties": False,
}


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as server:
        yield server


@pytest.fixture(autouse=True)
def surroundings(sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, no keys but OpenAI's, and its base URL at the simulator."""
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL", "_ENDPOINT", "_PROXY", "_proxy")) or name == "HF_TOKEN":
            monkeypatch.delenv(name)
    for name in ("LITER_LLM_CONFIG", "LITER_LLM_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url("openai"))


def run(
    *arguments: str, stdin: str | bytes | None = None, model: str | None = "openai/gpt-4o-mini"
) -> Result:
    env = {"LITER_LLM_MODEL": model}
    return CliRunner().invoke(program, list(arguments), input=stdin, env=env)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "liter_llm", *arguments]


def one_line(result: Result, *words: str) -> None:
    """The error is one line on stderr, says these words, and holds neither key nor traceback."""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output
    assert KEY not in result.output
    for word in words:
        assert word in result.stderr


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ------------------------------------------------------------------------------------------------- ask


def test_streams_the_answer(sim: Simulator) -> None:
    result = run(
        "ask", "[echo] one two", "--system", "Be brief", "--max-tokens", "50", "--temperature", "0.5"
    )
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one two\n", "")
    body = sim.requests[0].body
    assert body["stream"] is True
    assert body["max_completion_tokens"] == 50
    assert body["temperature"] == 0.5
    assert body["messages"][0] == {"role": "system", "content": "Be brief"}


def test_prints_each_piece_when_it_comes(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"hang_after": 6}}]
    with subprocess.Popen(
        command("ask", "-m", "openai/x", "[echo] one two three four five six seven"), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"one"
        assert process.poll() is None
        process.kill()


def test_without_streaming(sim: Simulator) -> None:
    result = run("ask", "--no-stream", "[echo] whole")
    assert (result.exit_code, result.stdout) == (0, "whole\n")
    assert "stream" not in sim.requests[0].body


def test_stdin_is_the_prompt_or_goes_below_it(sim: Simulator) -> None:
    assert run("ask", stdin="[echo] piped\n").stdout == "piped\n"
    assert run("ask", "-", stdin="[echo] piped\n").stdout == "piped\n"
    assert run("ask", "[echo] first", stdin="second\n").stdout == "first\n\nsecond\n"
    one_line(run("ask", stdin=b"\xff\xfe\x00"), "not UTF-8", "--attach")
    result = run("ask", stdin="")
    assert result.exit_code == 2
    one_line(result, "No question")


def test_stdin_of_a_real_pipe() -> None:
    done = subprocess.run(
        command("ask", "-m", "openai/x", "[echo] a"), input=b"b\n", capture_output=True, check=True
    )
    assert done.stdout.splitlines() == [b"a", b"", b"b"]


def test_attachments(sim: Simulator, tmp_path: Path) -> None:
    (tmp_path / "dot.png").write_bytes(PNG)
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    (tmp_path / "notes.txt").write_text("remember the milk")
    result = run("ask", "-a", "dot.png", "-a", "paper.pdf", "--attach", "notes.txt", "What is this?")
    assert result.exit_code == 0, result.output
    image, pdf, notes, question = sim.requests[0].body["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert pdf["file"]["filename"] == "paper.pdf"
    assert "remember the milk" in notes["text"]
    assert question == {"type": "text", "text": "What is this?"}


def test_sound_is_attached(sim: Simulator, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(28))
    assert run("ask", "-a", "a.wav", "Write it down").exit_code == 0
    assert sim.requests[0].body["messages"][0]["content"][0]["type"] == "input_audio"


def test_unusable_attachments(sim: Simulator, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"\x00\x01\x02")
    for name, word in (("blob", "neither text"), ("missing.png", "does not exist")):
        result = run("ask", "-a", name, "What?")
        assert result.exit_code == 2
        one_line(result, word, name)
    assert not sim.requests


def test_schema(sim: Simulator, tmp_path: Path) -> None:
    (tmp_path / "person.json").write_text(json.dumps(SCHEMA))
    result = run("ask", "--schema", "person.json", "Ada")
    assert list(json.loads(result.stdout)) == ["age"]
    wanted = sim.requests[0].body["response_format"]["json_schema"]
    assert (wanted["name"], wanted["strict"], wanted["schema"]) == ("A_person", True, SCHEMA)

    loose = {"type": "object", "properties": {"age": {"type": "integer"}}}
    (tmp_path / "loose.json").write_text(json.dumps(loose))
    assert run("ask", "--schema", "loose.json", "Ada").exit_code == 0
    wanted = sim.requests[1].body["response_format"]["json_schema"]
    assert wanted["schema"] == loose
    assert not wanted.get("strict")

    result = run("ask", "--schema", "person.json", "--max-tokens", "1", "Ada")
    assert result.exit_code == 1
    assert "Error: the answer is not JSON: it was cut at the token limit" in result.stderr

    for text in ("{", "[]"):
        (tmp_path / "bad.json").write_text(text)
        result = run("ask", "--schema", "bad.json", "Ada")
        assert result.exit_code == 2
        one_line(result, "bad.json", "not")


def test_whole_response_as_json() -> None:
    result = run("ask", "--json", "[echo] hi")
    response = json.loads(result.stdout)
    assert response["message"]["content"] == [{"type": "text", "text": "hi"}]
    assert response["usage"]["output_tokens"] > 0


def test_responses_api_and_base_url(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    url = sim.base_url("openai")
    monkeypatch.delenv("OPENAI_BASE_URL")
    result = run(
        "ask", "--api", "responses", "--base-url", url, "-m", "openai/gpt-5", "[echo] hi", model=None
    )
    assert (result.exit_code, result.stdout) == (0, "hi\n")
    assert sim.requests[0].path.endswith("/responses")


def test_declined_and_cut_answers() -> None:
    result = run("ask", "[refuse]")
    assert (result.exit_code, result.stdout) == (1, "")
    one_line(result, "the model declined: I'm sorry")
    result = run("ask", "--max-tokens", "3", "[tokens=500]")
    assert result.exit_code == 0
    assert result.stderr == "Note: the answer was cut at the token limit.\n"


def test_choosing_the_model(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("ask", "hi", model=None)
    assert result.exit_code == 2
    one_line(result, "-m provider/model", "LITER_LLM_MODEL", "liter-llm.toml")

    (tmp_path / "liter-llm.toml").write_text(
        '[deployment]\nprovider = "mine"\nmodel = "from-file"\n[providers.mine]\nadapter = "openai_chat"\n'
        f'base_url = "{sim.base_url("local")}"\nauth = "none"\n'
    )
    assert run("ask", "hi", model=None).exit_code == 0
    assert run("ask", "hi", "-m", "mine/by/option", model=None).exit_code == 0
    assert run("ask", "hi", model="openai/from-env").exit_code == 0
    assert run("ask", "hi", "-m", "openai/option", model="openai/from-env").exit_code == 0
    assert [request.body["model"] for request in sim.requests] == [
        "from-file",
        "by/option",
        "from-env",
        "option",
    ]

    (tmp_path / "liter-llm.toml").write_text("[deployment")
    one_line(run("ask", "hi", model=None), "liter-llm.toml", "not TOML")
    assert run("ask", "hi").exit_code == 0
    monkeypatch.setenv("LITER_LLM_CONFIG", "gone.toml")
    one_line(run("ask", "hi", model=None), "gone.toml")


@pytest.mark.parametrize("model", ["gpt-4o-mini", "openai/", "/x", "no-such-host/x"])
def test_a_model_that_cannot_be(sim: Simulator, model: str) -> None:
    result = run("ask", "hi", "-m", model)
    assert result.exit_code == 2
    one_line(result)
    assert not sim.requests


def test_wrong_and_missing_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-secret-tail")
    result = run("ask", "hi")
    assert result.exit_code == 1
    one_line(result, "API key", "401")
    assert "secret-tail" not in result.output
    monkeypatch.delenv("OPENAI_API_KEY")
    result = run("ask", "hi")
    assert result.exit_code == 2
    one_line(result, "OPENAI_API_KEY")


def test_failures_of_the_call(sim: Simulator) -> None:
    result = run("ask", "--base-url", f"http://127.0.0.1:{closed_port()}/v1", "--timeout", "5", "hi")
    assert result.exit_code == 1
    one_line(result, "refused")
    sim.rules = [{"match": {}, "fault": {"hang": True}}]
    result = run("ask", "--timeout", "0.3", "hi")
    assert result.exit_code == 1
    one_line(result)
    sim.rules = [{"match": {}, "fault": {"cut_after": 5}}]
    result = run("ask", "[echo] one two three four five six")
    assert result.exit_code == 1
    assert result.stdout.startswith("one")
    assert result.stdout.endswith("\n")
    one_line(result)


@pytest.mark.parametrize(
    "arguments", [["nope"], ["ask", "--nope"], ["ask", "--timeout", "0", "x"], ["ask", "--api", "x", "y"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    one_line(result, "--help")


def test_ctrl_c(sim: Simulator) -> None:
    sim.rules = [{"match": {}, "fault": {"hang": True}}]
    with subprocess.Popen(
        command("ask", "-m", "openai/x", "hi"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        until(lambda: bool(sim.requests))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(
        command("ask", "-m", "openai/x", "[tokens=100000]"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(timeout=10)


# ------------------------------------------------------------------------------------------- other commands


def test_version_and_help() -> None:
    assert run("--version").stdout == f"liter-llm {__version__}\n"
    main_help = run("-h").stdout
    for code in ("0  ", "1  ", "2  ", "130"):
        assert f"  {code}" in main_help
    for name in ("ask", "providers", "sim", "doctor"):
        result = run(name, "--help")
        assert result.exit_code == 0
        assert "Examples:" in result.stdout
        assert f"liter-llm {name}" in result.stdout
    assert run().exit_code == 2


def test_providers() -> None:
    result = run("providers")
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert rows["openai"].split() == ["openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "yes"]
    assert rows["anthropic"].endswith("no")
    assert rows["ollama"].endswith("not needed")
    assert "AZURE_OPENAI_ENDPOINT" in rows["azure"]
    facts = json.loads(run("providers", "--json").stdout)
    assert facts["openai"]["key_set"] is True
    assert facts["groq"]["key_set"] is False
    assert KEY not in result.output + json.dumps(facts)


def shows_no_part_of(key: str, text: str) -> bool:
    return not any(key[at : at + 5] in text for at in range(len(key) - 4))


def test_doctor_finds_all_well() -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert "No fault found." in result.stdout
    line = next(line for line in result.stdout.splitlines() if line.startswith("openai/gpt-4o-mini"))
    assert line.split()[1] == "set"
    assert line.endswith("reached")
    assert shows_no_part_of(KEY, result.output)


def test_doctor_finds_faults(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://user:{KEY}@127.0.0.1/v1")
    result = run("doctor", "--offline")
    assert result.exit_code == 1
    assert shows_no_part_of(KEY, result.output)

    port = closed_port()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    result = run("doctor", "--timeout", "2")
    assert result.exit_code == 1
    assert "Connection refused" in result.stdout
    assert f"127.0.0.1:{port}/v1" in result.stdout
    assert shows_no_part_of(KEY, result.output)
    assert run("doctor", "--offline").exit_code == 0

    # A server that does not speak TLS.
    monkeypatch.setenv("OPENAI_BASE_URL", f"https://{sim.address}/v1")
    assert run("doctor", "--timeout", "2").exit_code == 1

    monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url("openai"))
    result = run("doctor", model="anthropic/claude")
    assert result.exit_code == 1
    assert "ANTHROPIC_API_KEY" in result.stdout
    (tmp_path / "liter-llm.toml").write_text("[deployment")
    result = run("doctor", model=None)
    assert result.exit_code == 1
    assert "not TOML" in result.stdout


def test_doctor_stops_waiting_for_a_silent_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OPENAI_BASE_URL", f"https://127.0.0.1:{silent.getsockname()[1]}/v1")
        begin = time.monotonic()
        result = run("doctor", "--timeout", "0.3")
    assert result.exit_code == 1
    assert "no answer" in result.stdout
    assert time.monotonic() - begin < 5


def test_doctor_with_nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    result = run("doctor", model=None)
    assert result.exit_code == 0
    assert "Nothing is configured" in result.stdout


def until(done: object, seconds: float = 10) -> None:
    assert callable(done)
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def lines_to(stream: IO[str], start: str) -> list[str]:
    lines: list[str] = []
    while not lines or not lines[-1].startswith(start):
        line = stream.readline()
        assert line, lines
        lines.append(line.strip())
    return lines


@pytest.mark.parametrize("kind", ["toml", "json"])
def test_sim_serves_until_ctrl_c(kind: str, tmp_path: Path) -> None:
    rules = tmp_path / f"rules.{kind}"
    if kind == "toml":
        rules.write_text('[[rules]]\nmatch = { path = "/v1/models" }\nfault = { status = 503 }\n')
    else:
        rules.write_text('[{"match": {"path": "/v1/models"}, "fault": {"status": 503}}]')
    with subprocess.Popen(
        command("sim", "--port", "0", "--rules", str(rules), "--no-log"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = lines_to(process.stdout, "export AZURE_OPENAI_API_KEY=")
        url = next(line.partition("=")[2] for line in lines if line.startswith("export OPENAI_BASE_URL="))
        with urllib.request.urlopen(f"{url.removesuffix('/openai/v1')}/_sim/rules") as answer:
            assert b"503" in answer.read()
        done = run("ask", "-m", "openai/x", "--base-url", url, "[echo] over there")
        assert done.stdout == "over there\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "Stopped.\n")


def test_sim_refuses_what_cannot_be(sim: Simulator, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('[{"match": {"nht": 1}, "fault": {}}]')
    result = run("sim", "--port", "0", "--rules", "bad.json")
    assert result.exit_code == 2
    one_line(result, "nth")
    (tmp_path / "bad.toml").write_text("rules = 3")
    one_line(run("sim", "--port", "0", "--rules", "bad.toml"), "list of rules")
    (tmp_path / "conf.toml").write_text("prt = 3")
    one_line(run("sim", "--config", "conf.toml"), "port")
    result = run("sim", "--port", sim.address.rpartition(":")[2])
    assert result.exit_code == 1
    one_line(result, "in use")


def test_a_file_of_several_deployments(sim: Simulator, tmp_path: Path) -> None:
    url = sim.base_url("openai")
    one = f'[[deployments]]\nprovider = "openai/MODEL"\nbase_url = "{url}"\napi_key = "${{OPENAI_API_KEY}}"\n'
    (tmp_path / "liter-llm.toml").write_text(one.replace("MODEL", "a") + one.replace("MODEL", "b"))
    inner = tmp_path / "inner"
    inner.mkdir()
    os.chdir(inner)
    sim.rules = [{"match": {"model": "a"}, "fault": {"status": 503}}]
    assert run("ask", "[echo] hello", model=None).output == "hello\n"
    assert [seen.body["model"] for seen in sim.requests] == ["a", "b"]
    shown = run("doctor", model=None).output
    assert "openai/a" in shown
    assert "openai/b" in shown
    assert KEY not in shown
    checked = run("config", "check", model=None)
    assert (checked.exit_code, checked.output) == (
        0,
        f"{tmp_path / 'liter-llm.toml'}: no fault found (openai/a, openai/b)\n",
    )
    # Options of the command line hold for all of them.
    assert "--base-url" in run("ask", "--help").output
    refused = run("ask", "--base-url", "http://127.0.0.1:9", "hello", model=None)
    assert refused.exit_code == 1
    assert len(sim.requests) == 2
