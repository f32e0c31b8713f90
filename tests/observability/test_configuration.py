"""Dashboards, rules, Collector and compose file fit together; what cannot be run here is cross-checked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from .conftest import DEPLOY, ROOT, load, program, tool

BOARDS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (DEPLOY / "dashboards").glob("*.json")
}
PANELS = [(board, panel) for board, content in BOARDS.items() for panel in content["panels"]]
RULE_FILES = sorted((DEPLOY / "rules").glob("*.yml"))
GROUPS = [group for path in RULE_FILES for group in load(path)["groups"]]
UNITS = {"reqps", "percentunit", "s", "ms", "currencyUSD", "none", "short", "cps"}
# What the engine counts; a histogram is here with its bare name.
METRICS = {
    "gen_ai_client_operation_duration_seconds",
    "gen_ai_client_token_usage",
    "gen_ai_client_operation_time_to_first_chunk_seconds",
    "gen_ai_client_operation_time_per_output_chunk_seconds",
    "llm_request_latency_ms",
    "liter_llm_attempt_duration_seconds",
    "liter_llm_retries_total",
    "liter_llm_fallbacks_total",
    "liter_llm_circuit_state",
    "liter_llm_queue_depth",
    "liter_llm_in_flight",
    "liter_llm_spend_usd_total",
    "liter_llm_budget_spent_usd",
    "liter_llm_budget_limit_usd",
    "liter_llm_tokens_total",
    "liter_llm_cache_hits_total",
    "liter_llm_cache_misses_total",
    "liter_llm_canary_calls_total",
    "liter_llm_canary_duration_seconds",
    "liter_llm_canary_rolled_back",
    "liter_llm_mirror_calls_total",
    "liter_llm_records_dropped_total",
    "liter_llm_labels_folded_total",
}
SELECTOR = re.compile(r"\b((?:gen_ai_client|liter_llm|llm)_\w+)\{([^}]*)\}")


def run(*command: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def bare(metric: str) -> str:
    return metric if metric in METRICS else re.sub(r"_(bucket|sum|count)$", "", metric)


def test_the_dashboards_are_what_the_generator_makes(tmp_path: Path) -> None:
    dashboards = program("dashboards")
    assert BOARDS.keys() == dashboards.DASHBOARDS.keys()
    for name in dashboards.DASHBOARDS:
        assert (DEPLOY / "dashboards" / f"{name}.json").read_text(encoding="utf-8") == dashboards.render(name)
    copy = tmp_path / "observability"
    shutil.copytree(DEPLOY, copy)
    assert run(sys.executable, str(copy / "dashboards.py"), "--check").returncode == 0
    (copy / "dashboards/cost.json").write_text("{}", encoding="utf-8")
    (copy / "dashboards/left-over.json").write_text("{}", encoding="utf-8")
    stale = run(sys.executable, str(copy / "dashboards.py"), "--check")
    assert stale.returncode == 1
    assert "cost.json" in stale.stderr
    assert "left-over.json" in stale.stderr
    assert run(sys.executable, str(copy / "dashboards.py")).returncode == 0
    assert (copy / "dashboards/cost.json").read_bytes() == (DEPLOY / "dashboards/cost.json").read_bytes()
    assert not (copy / "dashboards/left-over.json").exists()


@pytest.mark.parametrize("board", sorted(BOARDS))
def test_a_dashboard_is_whole(board: str) -> None:
    content = BOARDS[board]
    assert content["uid"] == f"liter-llm-{board}"
    titles = [panel["title"] for panel in content["panels"]]
    assert len(titles) == len(set(titles))
    ids = [panel["id"] for panel in content["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"]: variable for variable in content["templating"]["list"]}
    assert variables.keys() == {"datasource", "job", "provider", "deployment", "model"}
    for name, variable in variables.items():
        if name != "datasource":
            metric = re.fullmatch(r"label_values\((\w+)(?:\{[^}]*\})?, \w+\)", variable["definition"])
            assert metric is not None
            assert bare(metric[1]) in METRICS
            assert variable["allValue"] == ".*"
    places: set[tuple[int, int]] = set()
    for panel in content["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & places, f"{panel['title']} lies on another panel"
        assert max(x for x, _ in cells) < 24
        places |= cells


@pytest.mark.parametrize(
    ("board", "panel"), PANELS, ids=lambda value: value if isinstance(value, str) else value["title"]
)
def test_a_panel_is_whole(board: str, panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in UNITS
    steps = defaults["thresholds"]["steps"]
    assert steps[0]["value"] is None
    values = [step["value"] for step in steps[1:]]
    assert values == sorted(values)
    known = {variable["name"] for variable in BOARDS[board]["templating"]["list"]} | {
        "__rate_interval",
        "__range",
    }
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        expr = target["expr"]
        assert set(re.findall(r"\$(\w+)", expr)) <= known
        selectors = SELECTOR.findall(expr)
        assert selectors
        for metric, labels in selectors:
            assert bare(metric) in METRICS, metric
            assert 'job=~"$job"' in labels, f"{metric} ignores the job"
        # Nothing but what stands in braces was overlooked above.
        assert len(re.findall(r"\b(?:gen_ai_client|liter_llm|llm)_\w+\{", expr)) == len(selectors)


def test_every_metric_is_shown_or_watched() -> None:
    text = " ".join(target["expr"] for _, panel in PANELS for target in panel["targets"])
    text += " ".join(path.read_text(encoding="utf-8") for path in RULE_FILES)
    shown = {bare(name) for name in re.findall(r"\b(?:gen_ai_client|liter_llm|llm)_\w+", text)}
    assert shown >= METRICS


def test_every_alert_has_what_an_operator_needs() -> None:
    alerts = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
    page = (ROOT / "docs/dashboards.md").read_text(encoding="utf-8")
    assert len(alerts) == len({alert["alert"] for alert in alerts}) >= 6
    for alert in alerts:
        assert alert["labels"]["severity"] in {"info", "warning", "critical"}
        assert alert["annotations"].keys() == {"summary", "description"}
        assert f"`{alert['alert']}`" in page


def test_promtool_accepts_the_rules_and_their_tests_pass() -> None:
    promtool = tool("promtool")
    checked = run(promtool, "check", "rules", *map(str, RULE_FILES))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for path in sorted((DEPLOY / "rules/tests").glob("*.yml")):
        tested = run(promtool, "test", "rules", path.name, cwd=path.parent)
        assert tested.returncode == 0, tested.stdout + tested.stderr
    named = {
        case["alertname"]
        for path in (DEPLOY / "rules/tests").glob("*.yml")
        for test in load(path)["tests"]
        for case in test.get("alert_rule_test", [])
        if case["exp_alerts"]
    }
    alerts = {rule["alert"] for group in GROUPS for rule in group["rules"] if "alert" in rule}
    assert named == alerts, "an alert without a unit test in which it fires"


def test_a_rule_reads_what_its_own_group_has_recorded_before_it() -> None:
    # Groups are evaluated in no fixed order: what another one recorded may be a whole interval old.
    read = 0
    for group in GROUPS:
        recorded: set[str] = set()
        for rule in group["rules"]:
            names = set(re.findall(r"liter_llm:[\w:]+", rule["expr"]))
            assert names <= recorded, rule
            read += len(names)
            recorded |= {rule["record"]} if "record" in rule else set()
    assert read >= 10


def test_a_wrong_threshold_fails_the_unit_tests(tmp_path: Path) -> None:
    promtool = tool("promtool")
    shutil.copytree(DEPLOY / "rules", tmp_path / "rules")
    alerts = tmp_path / "rules/liter_llm.yml"
    alerts.write_text(alerts.read_text(encoding="utf-8").replace("> 3 *", "> 30 *"), encoding="utf-8")
    tested = run(promtool, "test", "rules", alerts.name, cwd=tmp_path / "rules/tests")
    assert tested.returncode == 1
    assert "LiterLlmLatencySpike" in tested.stdout + tested.stderr


def test_promtool_accepts_the_configuration_of_the_container(tmp_path: Path) -> None:
    promtool = tool("promtool")
    text = (DEPLOY / "prometheus.yml").read_text(encoding="utf-8")
    changed = text.replace("/etc/prometheus/rules", str(DEPLOY / "rules"))
    assert changed != text
    file = tmp_path / "prometheus.yml"
    file.write_text(changed, encoding="utf-8")
    checked = run(promtool, "check", "config", str(file))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(RULE_FILES)} rule files found" in checked.stdout


COLLECTOR = load(DEPLOY / "collector.yaml")
COMPOSE = load(DEPLOY / "compose.yml")
PROMETHEUS = load(DEPLOY / "prometheus.yml")
SERVICES: dict[str, Any] = COMPOSE["services"]
# Ports the programs listen on without being told.
LISTENS = {"prometheus": {9090}, "jaeger": {4317, 4318, 16686}, "grafana": {3000}}


def collector_ports() -> set[int]:
    protocols = COLLECTOR["receivers"]["otlp"]["protocols"]
    endpoints = [protocol["endpoint"] for protocol in protocols.values()]
    endpoints += [COLLECTOR["exporters"]["prometheus"]["endpoint"]]
    return {int(endpoint.rpartition(":")[2]) for endpoint in endpoints}


def listens(service: str) -> set[int]:
    return collector_ports() if service == "collector" else LISTENS[service]


def test_every_component_of_a_pipeline_is_configured_and_every_configured_one_used() -> None:
    pipelines = COLLECTOR["service"]["pipelines"]
    assert pipelines.keys() == {"metrics", "traces"}
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines.values() for name in pipeline[kind]}
        assert used == COLLECTOR[kind].keys(), kind
    assert set(COLLECTOR["service"]["extensions"]) == COLLECTOR["extensions"].keys()
    for pipeline in pipelines.values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"


def test_the_collector_appends_no_unit_to_names_that_say_it_and_to_states() -> None:
    (statements,) = COLLECTOR["processors"]["transform/units"]["metric_statements"]
    (statement,) = statements["statements"]
    pattern = re.search(r'IsMatch\(metric\.name, "([^"]+)"\)', statement)
    assert pattern is not None
    for name in (
        "llm.request.latency_ms",
        "liter_llm.spend.usd",
        "liter_llm.budget.spent.usd",
        "liter_llm.circuit.state",
        "liter_llm.canary.rolled_back",
    ):
        assert re.search(pattern[1], name), name
    for name in ("gen_ai.client.operation.duration", "liter_llm.attempt.duration", "liter_llm.tokens"):
        assert not re.search(pattern[1], name), name


def test_every_host_and_port_that_is_spoken_to_is_there() -> None:
    spoken = [COLLECTOR["exporters"]["otlp/traces"]["endpoint"]]
    spoken += [
        target
        for job in PROMETHEUS["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
        if not target.startswith("host.docker.internal")
    ]
    spoken += [
        urlsplit(source["url"]).netloc
        for source in load(DEPLOY / "grafana/datasources/datasources.yml")["datasources"]
    ]
    assert len(spoken) == 4
    for address in spoken:
        host, _, port = address.partition(":")
        assert host in SERVICES, address
        assert int(port) in listens(host), address
    assert "host.docker.internal:host-gateway" in SERVICES["prometheus"]["extra_hosts"]


def test_the_compose_file_is_pinned_closed_and_mounts_what_exists() -> None:
    inside: set[str] = set()
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), service["image"]
        for port in service.get("ports", []):
            address, outer, inner = port.split(":")
            assert address == "127.0.0.1"
            assert outer == inner
            assert int(inner) in listens(name), f"{name} does not listen on {inner}"
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            inside.add(target)
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
                assert volume.endswith(":ro")
            else:
                assert source in COMPOSE["volumes"]
        assert set(service.get("depends_on", [])) <= SERVICES.keys()
    assert f"--config={'/etc/collector.yaml'}" in SERVICES["collector"]["command"]
    for rules in PROMETHEUS["rule_files"]:
        assert str(Path(rules).parent) in inside
    for provider in load(DEPLOY / "grafana/dashboards/dashboards.yml")["providers"]:
        assert provider["options"]["path"] in inside
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) in inside
    assert (DEPLOY / "dashboards" / home.name).exists()


def test_the_data_sources_are_those_that_the_dashboards_ask_for() -> None:
    sources = load(DEPLOY / "grafana/datasources/datasources.yml")["datasources"]
    uids = {source["uid"] for source in sources}
    assert len(uids) == len(sources)
    types = {source["type"] for source in sources}
    assert types == {"prometheus", "jaeger"}
    for content in BOARDS.values():
        for variable in content["templating"]["list"]:
            if variable["type"] == "datasource":
                assert variable["query"] in types
        fixed = re.findall(r'"uid": "([^"$]+)"', json.dumps(content))
        assert {uid for uid in fixed if not uid.startswith("liter-llm-")} == set()
    (prometheus,) = (source for source in sources if source["type"] == "prometheus")
    assert prometheus["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]


def test_all_yaml_parses() -> None:
    files = [path for path in DEPLOY.rglob("*") if path.suffix in {".yml", ".yaml"}]
    assert len(files) >= 7
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path


@pytest.mark.parametrize(("ci", "outcome"), [("", "skipped"), ("true", "failed")])
def test_without_prometheus_each_check_is_skipped_by_name_and_fails_in_ci(
    ci: str, outcome: str, tmp_path: Path
) -> None:
    check = "test_promtool_accepts_the_rules_and_their_tests_pass"
    done = run(
        sys.executable,
        *(
            "-m",
            "pytest",
            "-q",
            "-rsf",
            "-p",
            "no:cacheprovider",
            f"{Path(__file__).relative_to(ROOT)}::{check}",
        ),
        cwd=ROOT,
        PATH=str(tmp_path),
        CI=ci,
    )
    assert f"1 {outcome}" in done.stdout, done.stdout
    assert "promtool is not installed (Debian package prometheus)" in done.stdout
    assert done.returncode == (1 if ci else 0)
