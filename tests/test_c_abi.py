"""The C ABI: the example and the test programs of `bindings/c`, run against the simulator under valgrind.

Without a compiler or valgrind a check says so and is skipped; in continuous integration (`CI` is set)
it fails.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from liter_llm.testing import Simulator

from .c_programs import VALGRIND, C, Installed, checked, needs, run

ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "tests" / "vectors"


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    needs("cargo", "make", "cc", "pkg-config")
    # Large: gone when the tests are, not kept with the other temporary files.
    with tempfile.TemporaryDirectory() as folder:
        run("make", "--silent", "-C", C, "install", "PROFILE=dev", f"PREFIX={folder}")
        yield Installed(Path(folder))


def config(sim: Simulator, **options: Any) -> str:
    deployment = {
        "provider": "openai",
        "api_key": "sk-secret",
        "model": "first",
        "base_url": sim.base_url("openai"),
    }
    return json.dumps({"deployment": deployment | options})


@pytest.fixture
def slow() -> Iterator[Simulator]:
    """Streams take a while, and the model `hang` never answers."""
    with Simulator(token_interval_ms=2) as server:
        server.rules = [{"match": {"model": "hang"}, "fault": {"hang": True}}]
        yield server


@pytest.mark.parametrize(
    "body",
    [
        "LiterLlmResult *one = ask(); (void)one;",
        "LiterLlmResult *one = ask(); liter_llm_result_free(one); return *liter_llm_result_text(one, NULL);",
        "LiterLlmResult *one = ask(); liter_llm_result_free(one); liter_llm_result_free(one);",
    ],
    ids=["leak", "used after free", "freed twice"],
)
def test_valgrind_notices(installed: Installed, tmp_path: Path, body: str) -> None:
    needs("valgrind")
    source = tmp_path / "wrong.c"
    source.write_text(
        "#include <liter_llm.h>\n"
        "static LiterLlmResult *ask(void) { return liter_llm_engine_ask(NULL, NULL, NULL, 0); }\n"
        f"static int wrong(void) {{ {body} return 0; }}\n"
        "int main(void) { return wrong(); }\n",
        encoding="utf-8",
    )
    program = tmp_path / "wrong"
    run("cc", "-g", source, "-o", program, *installed.flags("--cflags", "--libs"))
    done = subprocess.run(
        [*VALGRIND, program],
        env=os.environ | installed.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 9, done.stderr


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-tool is not installed"):
        needs("cc", "no-such-tool")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-tool is not installed"):
        needs("no-such-tool")


def test_every_function(installed: Installed, sim: Simulator) -> None:
    sim.rules = [{"match": {"model": "slow"}, "fault": {"delay_ms": 400}}]
    out = checked(installed, "functions", config(sim), config(sim, model="second"))
    assert out == "functions: all"


def test_null_and_the_order_of_freeing(installed: Installed, sim: Simulator) -> None:
    assert checked(installed, "null", config(sim)) == "null: all"


FAILURES: dict[str, dict[str, Any]] = {
    "authentication": {"status": 401},
    "quota_exhausted": {
        "status": 429,
        "body": {
            "error": {"message": "no credit", "type": "insufficient_quota", "code": "insufficient_quota"}
        },
    },
    "permission_denied": {"status": 403},
    "not_found": {"status": 404},
    "request_too_large": {"status": 413},
    "context_length": {
        "status": 400,
        "body": {
            "error": {
                "message": "This model's maximum context length is 8192 tokens.",
                "type": "invalid_request_error",
                "code": "context_length_exceeded",
            }
        },
    },
    "invalid_request": {"status": 400},
    "rate_limited": {"status": 429},
    "overloaded": {"status": 503},
    "provider_error": {"status": 500},
    "connection": {"reset": True},
    "timeout": {"hang": True},
}


def test_errors_by_kind(installed: Installed, sim: Simulator) -> None:
    sim.rules = [{"match": {"model": kind}, "fault": fault} for kind, fault in FAILURES.items()]
    requests = {kind: {"prompt": "hello", "model": kind} for kind in FAILURES}
    requests["timeout"]["timeout"] = 0.3
    requests["unsupported"] = {"prompt": "hello", "top_k": 3}
    words = [word for kind, request in requests.items() for word in (kind, json.dumps(request))]
    out = checked(installed, "errors", config(sim, max_retries=0, circuit=False), *words)
    assert out == f"errors: {len(requests)}"


def test_a_broken_stream_is_an_error(installed: Installed, sim: Simulator) -> None:
    sim.rules = [{"fault": {"cut_after": 3}}]
    program = installed.program(C / "examples" / "stream.c")
    done = subprocess.run(
        [program, "Tell me a story."],
        env=os.environ | installed.environment | variables(sim),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout
    assert done.stderr.startswith("\nstream_interrupted: ")


def test_cancelling(installed: Installed, slow: Simulator) -> None:
    assert checked(installed, "cancel", config(slow)) == "cancel: all"
    stopped = [at for at, seen in enumerate(slow.requests) if "[echo]" not in str(seen.body)]
    # The two that were read from. Of those stopped after a time the server may not have heard yet.
    assert 2 <= len(stopped) < len(slow.requests)
    end = time.monotonic() + 10
    while not all(slow.requests[at].client_closed for at in stopped):
        assert time.monotonic() < end, [seen for seen in slow.requests if not seen.client_closed]
        time.sleep(0.02)


def test_records_metrics_and_notices(installed: Installed, slow: Simulator) -> None:
    """What operators see of calls; no prompt, answer, key or provider's words are in it."""
    canary = "canary-4711"
    body = {"error": {"message": f"what is {canary}?", "type": "invalid_request_error"}}
    slow.rules = [*slow.rules, {"match": {"model": "broken"}, "fault": {"status": 400, "body": body}}]
    out = checked(installed, "records", config(slow), config(slow, model="second"), canary)
    assert out == "records: all"


def test_callbacks(installed: Installed, slow: Simulator) -> None:
    assert checked(installed, "callbacks", config(slow)) == "callbacks: all"


def test_callbacks_before_the_call_is_handed_over(installed: Installed, sim: Simulator) -> None:
    """`early.c` holds the beginning thread back until the last callback has run: no harm."""
    assert checked(installed, "early", config(sim)) == "early: all"
    assert checked(installed, "early", config(sim), valgrind=False) == "early: all"


def test_four_threads(installed: Installed, sim: Simulator) -> None:
    assert checked(installed, "threads", config(sim), "6") == "threads: 24 answers each way"
    assert (
        checked(installed, "threads", config(sim), "150", valgrind=False) == "threads: 600 answers each way"
    )


def test_fork(installed: Installed, slow: Simulator) -> None:
    assert checked(installed, "fork", config(slow), valgrind=False) == "fork: all"


@contextmanager
def rude() -> Iterator[str]:
    """A server that reads the first bytes of a request and breaks the connection; its base URL."""

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            peer.recv(1000)
            # Its end first, then the break: to a peer that writes on, this is a broken pipe and not a reset.
            peer.shutdown(socket.SHUT_WR)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_signals_are_the_hosts(installed: Installed, sim: Simulator) -> None:
    with rude() as url:
        out = checked(
            installed, "signals", config(sim, base_url=url, max_retries=0, circuit=False), valgrind=False
        )
    assert out == "signals: all"


def test_loaded_at_run_time(installed: Installed, sim: Simulator) -> None:
    library = installed.prefix / "lib" / "libliter_llm_c.so"
    # Its threads go on after dlclose(): it must stay where it is.
    assert "NODELETE" in run("readelf", "--dynamic", library)
    assert checked(installed, "loaded", library, config(sim), valgrind=False) == "loaded: all"


@contextmanager
def vector_server(folder: Path) -> Iterator[str]:
    """Serves the vectors of a folder; its port."""
    run("cargo", "build", "--locked", "--quiet", "--package", "liter-llm-sim", "--bin", "liter-llm-sim")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    command = [str(target / "debug" / "liter-llm-sim"), "--vectors", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip().rpartition(":")[2]
        finally:
            server.terminate()


def vectors(installed: Installed, folder: Path, way: str) -> subprocess.CompletedProcess[str]:
    program = installed.program(C / "tests" / "vectors.c")
    bare = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    with vector_server(folder) as port:
        return subprocess.run(
            [program, port, way],
            env=bare | installed.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


@pytest.mark.parametrize("way", ["wait", "callback"])
def test_every_vector_holds(installed: Installed, way: str) -> None:
    done = vectors(installed, VECTORS, way)
    assert done.returncode == 0, done.stdout + done.stderr
    count = int((VECTORS / "COUNT").read_text(encoding="utf-8"))
    assert done.stdout.splitlines()[-1] == f"vectors: {count} run, {count} hold"


def test_a_changed_vector_does_not_hold(installed: Installed, tmp_path: Path) -> None:
    for name, field in (("chat_answers", "response"), ("chat_streams", "chunks"), ("http_errors", "error")):
        told = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
        vector = next(each for each in told["vectors"] if field in each["calls"][0]["outcome"])
        outcome = vector["calls"][0]["outcome"]
        outcome[field] = {"response": {"id": "other"}, "chunks": [], "error": {"kind": "unsupported"}}[field]
        folder = tmp_path / name
        folder.mkdir()
        (folder / "vectors.json").write_text(json.dumps({"vectors": [vector]}), encoding="utf-8")
        done = vectors(installed, folder, "wait")
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1] == "vectors: 1 run, 0 hold"


def variables(sim: Simulator) -> dict[str, str]:
    return {"OPENAI_API_KEY": "sk-simulated", "OPENAI_BASE_URL": sim.base_url("openai")}


@pytest.mark.parametrize("static", [False, True], ids=["shared", "static"])
def test_the_example_streams(installed: Installed, sim: Simulator, *, static: bool) -> None:
    needs("valgrind")
    program = installed.program(C / "examples" / "stream.c", static=static)
    linked = run("ldd", program)
    assert ("libliter_llm_c" in linked) is not static
    environment = installed.environment | variables(sim)
    out = run(*VALGRIND, program, '[echo] "quoted" \\ and \t é', env=environment)
    assert out == '"quoted" \\ and \t é\n'
    assert sim.requests[-1].body["stream"] is True


def test_the_example_explains_itself(installed: Installed) -> None:
    program = installed.program(C / "examples" / "stream.c")
    for words, status, part in (([], 2, "usage:"), (["hello"], 1, "authentication: ")):
        bare = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
        done = subprocess.run(
            [program, *words],
            env=bare | installed.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status
        assert part in done.stderr


def test_the_header_is_good_cplusplus(installed: Installed, sim: Simulator, tmp_path: Path) -> None:
    needs("c++")
    source = tmp_path / "version.cc"
    source.write_text(
        "#include <liter_llm.h>\n#include <cstdio>\nint main() { std::puts(liter_llm_version()); }\n",
        encoding="utf-8",
    )
    program = installed.program(
        source, compiler=("c++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    )
    assert run(program, env=installed.environment).strip() == installed.flags("--modversion")[0]


def shown(page: str, language: str) -> str:
    """The blocks of one language on a page of the documentation, one after the other."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} shows no {language}"
    return "\n".join(found)


def test_the_page_on_c_shows_what_works(installed: Installed, sim: Simulator, tmp_path: Path) -> None:
    folder = {"PKG_CONFIG_PATH": str(installed.prefix / "lib" / "pkgconfig")}
    (tmp_path / "first.c").write_text(shown("c.md", "c"), encoding="utf-8")
    (tmp_path / "Makefile").write_text(shown("c.md", "make"), encoding="utf-8")
    run("make", "--silent", "-C", tmp_path, "first", env=folder)
    out = run(tmp_path / "first", env=installed.environment | variables(sim))
    assert "CAP theorem" in out
    sim.rules = [{"fault": {"status": 401}}]
    done = subprocess.run(
        [tmp_path / "first"],
        env=os.environ | installed.environment | variables(sim),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("authentication: ")


def test_the_page_on_c_shows_telemetry_that_works(
    installed: Installed, sim: Simulator, tmp_path: Path
) -> None:
    source = tmp_path / "shown.c"
    source.write_text(
        "#define main first\n" + shown("c.md", "c") + "#undef main\n"
        """
        #include <unistd.h>

        static int lines(const char *path) {
            FILE *file = fopen(path, "r");
            int found = 0;
            for (int byte; file != NULL && (byte = fgetc(file)) != EOF;) {
                found += byte == '\\n';
            }
            if (file != NULL) {
                fclose(file);
            }
            return found;
        }

        int main(int count, char **words) {
            int before = lines(words[2]);
            const char *config = words[1], *request = "{\\"prompt\\": \\"hello\\"}";
            LiterLlmEngine *engine = liter_llm_engine_new(config, strlen(config), NULL);
            LiterLlmRecords *records = log_calls(engine, words[2]);
            liter_llm_result_free(scrape(engine, NULL));
            for (int round = 0; round < 2; round++) {
                liter_llm_result_free(liter_llm_generate(engine, request, strlen(request)));
            }
            liter_llm_records_free(records);
            /* The file is closed with the last callback, which may come later: main() returns after it. */
            for (int wait = 0; wait < 2000 && lines(words[2]) < before + 2; wait++) {
                usleep(10000);
            }
            LiterLlmResult *text = scrape(engine, count == 4 ? words[3] : NULL);
            puts(liter_llm_result_text(text, NULL));
            liter_llm_result_free(text);
            liter_llm_engine_free(engine);
        }
        """,
        encoding="utf-8",
    )
    program = installed.program(source)
    log = tmp_path / "calls.jsonl"
    text = run(program, config(sim), log, env=installed.environment)
    assert re.search(r"^llm_request_latency_ms_count\{.*\} 2$", text, re.MULTILINE)
    assert "# EOF" not in text
    assert "# EOF" in run(
        program, config(sim), log, "application/openmetrics-text", env=installed.environment
    )
    lines = log.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    assert {json.loads(line)["finish_reason"] for line in lines} == {"stop"}


def test_the_page_on_c_shows_a_cmake_file_that_works(
    installed: Installed, sim: Simulator, tmp_path: Path
) -> None:
    needs("cmake")
    folder = {"PKG_CONFIG_PATH": str(installed.prefix / "lib" / "pkgconfig")}
    (tmp_path / "first.c").write_text(shown("c.md", "c"), encoding="utf-8")
    (tmp_path / "CMakeLists.txt").write_text(shown("c.md", "cmake"), encoding="utf-8")
    run("cmake", "-S", tmp_path, "-B", tmp_path / "built", env=folder)
    run("cmake", "--build", tmp_path / "built", env=folder)
    assert "CAP theorem" in run(tmp_path / "built" / "first", env=installed.environment | variables(sim))


def test_the_page_on_c_names_every_function() -> None:
    header = (C / "include" / "liter_llm.h").read_text(encoding="utf-8")
    declared = re.findall(r"^[\w ]+ \*?(liter_llm_\w+)\(", header, re.MULTILINE)
    assert len(declared) == len(set(declared)) > 10
    table = re.findall(
        r"^\| (`liter_llm_[^|]+) \|", (ROOT / "docs" / "c.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(re.findall(r"\w+", " ".join(table))) == sorted(declared)


def test_the_page_on_c_sorts_every_function() -> None:
    """The sentence on the core and the others: a name that begins with `_` goes on from the one before."""
    header = (C / "include" / "liter_llm.h").read_text(encoding="utf-8")
    declared = re.findall(r"^[\w ]+ \*?(liter_llm_\w+)\(", header, re.MULTILINE)
    page = (ROOT / "docs" / "c.md").read_text(encoding="utf-8")
    sentence = re.search(
        r"^Ten of the (\d+) are the core(.*?); of the others five (.*?), seven (.*?), and three (.*?)\n\n",
        page,
        re.MULTILINE | re.DOTALL,
    )
    assert sentence
    assert int(sentence[1]) == len(declared)
    sorted_names: list[str] = []
    for count, part in zip((10, 5, 7, 3), sentence.groups()[1:], strict=True):
        names: list[str] = []
        for name in re.findall(r"`(\w+)`", part):
            if name.endswith("_"):
                names += [each for each in declared if each.startswith(name)]
            else:
                names.append(names[-1].rpartition("_")[0] + name if name.startswith("_") else name)
        assert len(names) == count, names
        sorted_names += names
    assert sorted(sorted_names) == sorted(declared)


def test_a_binding_made_by_the_book_passes_every_vector(installed: Installed, tmp_path: Path) -> None:
    program = tmp_path / "tiny.py"
    blocks = shown("new-binding.md", "py")
    program.write_text(blocks, encoding="utf-8")
    bare = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    with vector_server(VECTORS) as port:
        library = installed.prefix / "lib" / "libliter_llm_c.so"
        done = subprocess.run(
            [sys.executable, program, library, f"http://127.0.0.1:{port}"],
            env=bare,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    count = int((VECTORS / "COUNT").read_text(encoding="utf-8"))
    assert done.stdout.splitlines()[-1] == f"vectors: {count} run, {count} hold"


#: What a user of the binding made by the book does with its telemetry.
WATCHING = """
client = Client(sys.argv[2].encode())
metrics(client)
heard = []

def hook(record):
    heard.append(record)
    if record["model"] == "broken":
        raise RuntimeError("a fault in a hook")

sys.excepthook = lambda *what: print("hook:", what[1])
hearing = OnCall(client, hook)
client.generate(b'{"prompt": "[echo] canary-4711"}')
try:
    client.generate(b'{"prompt": "canary-4711", "model": "broken"}')
except LiterLlmError as error:
    assert "canary-4711" in json.dumps(error.error)
assert "".join(str(chunk) for chunk in client.stream(b'{"prompt": "[echo] canary-4711"}'))
requests = [b'{"prompt": "hello", "model": "%s"}' % model for model in (b"first", b"broken", b"again")]
made = [spans(client, request) for request in [*requests, b'{"prompt": 7}']]
assert hearing.close() == 0
content_type, text = metrics(client, b"application/openmetrics-text")
print(json.dumps({
    "heard": heard, "spans": made, "content_type": content_type, "metrics": text,
    "notices": ask(client, b"notices"),
}))
client.close()
"""


def test_telemetry_made_by_the_book(installed: Installed, sim: Simulator, tmp_path: Path) -> None:
    body = {"error": {"message": "what is canary-4711?", "type": "invalid_request_error"}}
    sim.rules = [
        {"match": {"model": "broken"}, "fault": {"status": 400, "body": body}},
        {"match": {"model": "again", "times": 1}, "fault": {"status": 503}},
    ]
    blocks, vectors_too, _ = shown("new-binding.md", "py").partition("\ndef vector(")
    assert vectors_too
    program = tmp_path / "watching.py"
    program.write_text(blocks + WATCHING, encoding="utf-8")
    library = installed.prefix / "lib" / "libliter_llm_c.so"
    *faults, told = run(sys.executable, program, library, config(sim)).splitlines()
    assert faults == ["hook: a fault in a hook"] * 2
    assert "canary-4711" not in told
    assert "sk-secret" not in told
    seen = json.loads(told)
    kinds = [record.get("error", {}).get("kind") for record in seen["heard"]]
    assert kinds == [None, "invalid_request", None, None, "invalid_request", None]
    assert [record["streamed"] for record in seen["heard"]] == [False, False, True, False, False, False]
    first, broken, again, none = seen["spans"]
    assert [name for name, *_ in first] == ["chat first", "attempt openai/first"]
    assert broken[0][3]["kind"] == "invalid_request"
    assert [error for *_, error in again] == [None, "overloaded", None]
    for whole, *sent in (first, broken, again):
        assert all(whole[1] <= start <= end <= whole[2] + 1e-6 for _, start, end, _ in sent)
    assert none == []
    assert seen["content_type"].startswith("application/openmetrics-text")
    assert (
        'liter_llm_retries_total{liter_llm_deployment="openai/first",error_type="overloaded"} 1'
        in seen["metrics"]
    )
    assert seen["notices"] == []


# No part of what the project needs: checked where Go is at hand.
if shutil.which("go"):

    def test_a_binding_in_go_made_by_the_book(installed: Installed, sim: Simulator, tmp_path: Path) -> None:
        (tmp_path / "main.go").write_text(shown("new-binding.md", "go"), encoding="utf-8")
        (tmp_path / "go.mod").write_text("module tiny\n\ngo 1.18\n", encoding="utf-8")
        environment = installed.environment | variables(sim)
        environment["PKG_CONFIG_PATH"] = str(installed.prefix / "lib" / "pkgconfig")
        environment |= {"CGO_ENABLED": "1", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
        run("go", "build", "-C", tmp_path, "-o", tmp_path / "tiny", ".", env=environment)
        whole, folded, wrong = run(tmp_path / "tiny", env=environment).splitlines()
        assert '"finish_reason":"stop"' in whole
        assert whole.endswith("} <nil>")
        assert '"finish_reason":"stop"' in folded
        assert folded.endswith("} <nil> true")
        assert wrong.startswith("invalid_request: ")
