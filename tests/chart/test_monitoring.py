"""Monitors, alerts and dashboard: they find what runs, and speak of metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from tests.chart.rendering import CHART, REPOSITORY, Object, pick, read_yaml, render
from tunegate.api.metrics import EVERY, OPERATOR, PREDICTOR, TRAINER
from tunegate.serving import metrics as serving
from tunegate.training.compat.pai import read_line
from tunegate.training.compat.pytorchjob import JobSettings, training_job
from tunegate.training.loop import metrics as training
from tunegate_operator import metrics as operator

ALERTS = CHART / "files/rules/alerts.yaml"
DASHBOARD = json.loads((CHART / "files/dashboards/tunegate.json").read_text())
EVERY_RULE = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
RULES = [rule for rule in EVERY_RULE if "alert" in rule]
RECORDED = {rule["record"] for rule in EVERY_RULE if "record" in rule}
# What the monitors add to the series of a pod.
ADDED = {"namespace", "pod", "instance", "job", "tunegate_io_model", "tunegate_io_run"}
EVERYTHING = {
    "monitoring": {part: {"enabled": True} for part in ("predictors", "trainers", "operator", "rules", "dashboard")}
    | {"labels": {"release": "prometheus"}}
}
# Shown for whoever asks, and neither drawn nor warned of.
SEEN_IN_QUERIES_OF_ONES_OWN = {
    "tunegate_model_info",
    "tunegate_questions_total",
    "tunegate_requests_admitted_total",
    "tunegate_training_learning_rate",
    "tunegate_training_padding_ratio",
    "tunegate_training_mfu",
    "tunegate_training_last_published_timestamp_seconds",
}
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs `promtool`, of Prometheus")


def _expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*panels, *(rule["expr"] for rule in EVERY_RULE)]


def _series(text: str) -> set[str]:
    """The series of ours that a query asks for, besides recorded ones."""
    return set(re.findall(r"(?<!:)\btunegate_\w+", text)) - {"tunegate_io_run", "tunegate_io_model"}


def _known() -> dict[str, set[str]]:
    """Every series that there is, with its labels."""
    known: dict[str, set[str]] = {}
    for metric in EVERY:
        parts = ("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",)
        known |= {metric.series + part: {*metric.labels, "le"} for part in parts}
    return known


def test_rules_and_dashboard_use_series_that_exist() -> None:
    used = {name for text in _expressions() for name in _series(text)}
    assert used <= set(_known())
    recorded = {name for text in _expressions() for name in re.findall(r"\bnamespace_version_step:[\w:]+", text)}
    assert recorded <= RECORDED
    unused = {metric.series for metric in EVERY} - {re.sub("_(bucket|count|sum)$", "", name) for name in used}
    assert unused == SEEN_IN_QUERIES_OF_ONES_OWN


def test_rules_and_dashboard_use_labels_that_exist() -> None:
    for text in _expressions():
        for name, matchers in re.findall(r"\b(tunegate_\w+)\{([^}]*)\}", text):
            labels = set(re.findall(r"(\w+)=?[!=~]", matchers))
            assert labels <= _known()[name] | ADDED, text
        grouped = {label for found in re.findall(r"by \(([^)]*)\)", text) for label in found.split(", ")}
        assert grouped <= ADDED.union(*(_known()[name] for name in _series(text))) | {"model_version"}, text


def test_every_room_shows_what_the_one_place_names_and_nothing_else() -> None:
    predictor, trainer = CollectorRegistry(), training.Metrics().registry
    serving.Metrics("sha256:" + "a" * 64, "shop", predictor)
    for metrics, registry in ((PREDICTOR, predictor), (TRAINER, trainer), (OPERATOR, operator.Metrics().registry)):
        shown = {family.name: family for family in registry.collect() if family.name.startswith("tunegate_")}
        assert {name: family.documentation for name, family in shown.items()} == {
            metric.name: metric.help for metric in metrics
        }
        for metric in metrics:
            for sample in shown[metric.name].samples:
                assert set(sample.labels) - {"le"} == set(metric.labels)


def test_every_panel_takes_its_source_from_the_dashboards_choice() -> None:
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@needs_promtool
def test_prometheus_accepts_the_alerts() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(EVERY_RULE)} rules found" in done.stdout


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then() -> None:
    words = ["promtool", "test", "rules", str(Path(__file__).with_name("alerts_test.yaml"))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    text = Path(__file__).with_name("alerts_test.yaml").read_text()
    tried = {each["alertname"] for test in yaml.safe_load(text)["tests"] for each in test["alert_rule_test"]}
    assert tried == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: Object) -> None:
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    path, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (REPOSITORY / path).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("namespace", ["tunegate", "team-a"])
def test_the_rule_object_holds_the_file_for_the_namespace_of_the_release(namespace: str) -> None:
    rule = pick(render(EVERYTHING, namespace=namespace), "PrometheusRule")
    own = ALERTS.read_text().replace('namespace="tunegate"', f'namespace="{namespace}"')
    assert rule["spec"] == yaml.safe_load(own)
    assert rule["metadata"]["labels"]["release"] == "prometheus"


def test_the_documented_install_scrapes_whatever_its_alerts_ask_for() -> None:
    """Else those on operators fire for ever, as nobody scrapes any, or never."""
    command = re.search(r"^\$ helm install tunegate .*$", (REPOSITORY / "docs/install.md").read_text(), re.MULTILINE)
    assert command
    values = {"store": {"uri": "s3://models"}, "monitoring": {}}
    for part in re.findall(r"--set monitoring\.(\w+)\.enabled=true", command.group()):
        values["monitoring"][part] = {"enabled": True}
    assert_alerts_have_monitors(render(values))


def test_rules_bring_the_monitors_that_they_need() -> None:
    """As for a release that was installed with rules and without the operator's monitor."""
    assert_alerts_have_monitors(render({"monitoring": {"rules": {"enabled": True}}}))


def assert_alerts_have_monitors(objects: list[Object]) -> None:
    found = {each["metadata"]["name"] for each in objects if each["kind"] in ("PodMonitor", "ServiceMonitor")}
    groups = pick(objects, "PrometheusRule")["spec"]["groups"]
    used = {name for group in groups for rule in group["rules"] for name in _series(rule["expr"])}
    kinds = {"_operator_": "tunegate-operator", "_training_": "tunegate-trainers"}
    needed = {next((to for part, to in kinds.items() if part in name), "tunegate-predictors") for name in used}
    assert needed == {"tunegate-operator", "tunegate-predictors", "tunegate-trainers"} <= found


def test_the_pod_monitor_finds_the_port_of_the_runtime() -> None:
    objects = render(EVERYTHING | {"serving": {"vllm": {"enabled": True}}})
    (endpoint,) = pick(objects, "PodMonitor", "tunegate-predictors")["spec"]["podMetricsEndpoints"]
    for runtime in (each for each in objects if each["kind"] == "ClusterServingRuntime"):
        assert endpoint["port"] in [port["name"] for port in runtime["spec"]["containers"][0]["ports"]]


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({}, {"tunegate": {"any": True}}),
        ({"namespaces": ["a", "b"]}, {"a": None, "b": None}),
        ({"rbac": {"scope": "Namespaced"}}, {"tunegate": None}),
    ],
    ids=["cluster", "listed", "own"],
)
def test_pod_monitors_are_where_policies_are_and_look_only_there(values: Object, where: Object) -> None:
    monitors = [each for each in render(EVERYTHING | values) if each["kind"] == "PodMonitor"]
    for name in ("tunegate-predictors", "tunegate-trainers"):
        own = [each for each in monitors if each["metadata"]["name"] == name]
        assert {each["metadata"]["namespace"]: each["spec"].get("namespaceSelector") for each in own} == where


def _jobs() -> Iterator[Object]:
    """The training jobs that users apply, and the one that a PAI line becomes."""
    line = """pai -name pytorch112z -DentryFile='train.py' -DuserDefinedParameters="--output_dir o" -DworkerCount=2"""
    settings = JobSettings("pai", "shop", "tunegate/trainer:0.1.0", "s3://models", None, "tunegate-store", "runs")
    yield training_job(read_line(line, {}), settings)
    for path in sorted((REPOSITORY / "pipelines").glob("*.yaml")):
        yield from (each for each in yaml.safe_load_all(path.read_text()) if each and each["kind"] == "PyTorchJob")


@pytest.mark.parametrize("job", list(_jobs()), ids=lambda job: job["metadata"]["name"])
def test_the_pod_monitor_finds_the_first_pod_of_a_training_job_and_no_other(job: Object) -> None:
    spec = pick(render(EVERYTHING), "PodMonitor", "tunegate-trainers")["spec"]
    endpoint, _ = spec["podMetricsEndpoints"]
    replicas = job["spec"]["pytorchReplicaSpecs"]
    first, *others = replicas.values()
    assert {each["key"] for each in spec["selector"]["matchExpressions"]} <= set(
        first["template"]["metadata"]["labels"]
    )
    (kept,) = endpoint["relabelings"]
    assert (kept["action"], kept["regex"]) == ("keep", "0")
    assert kept["sourceLabels"] == [meta("label", "training.kubeflow.org/replica-index")]
    (container,) = first["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert port["name"] == endpoint["port"]
    assert f"--metrics_port={port['containerPort']}" in container["args"]
    assert not any("ports" in each["template"]["spec"]["containers"][0] for each in others)


def meta(about: str, label: str) -> str:
    """How Prometheus names a pod's label."""
    return f"__meta_kubernetes_pod_{about}_" + re.sub(r"[^A-Za-z0-9]", "_", label)


def test_the_pod_monitor_finds_the_first_pod_of_a_train_job() -> None:
    """JobSet and the Job of each node label its pods; a TrainJob can name no port of its own."""
    spec = pick(render(EVERYTHING), "PodMonitor", "tunegate-trainers")["spec"]
    (job,) = read_yaml((REPOSITORY / "pipelines/13-train-trainjob.yaml").read_text())
    _, endpoint = spec["podMetricsEndpoints"]
    assert "port" not in endpoint
    kept, address = endpoint["relabelings"]
    jobset, index = "jobset.sigs.k8s.io/jobset-name", "batch.kubernetes.io/job-completion-index"
    assert kept["sourceLabels"] == [meta("labelpresent", jobset), meta("label", index)]
    assert kept["regex"] == "true;0"
    assert address["targetLabel"] == "__address__"
    assert f"--metrics_port={address['replacement'].removeprefix('$1:')}" in job["spec"]["trainer"]["args"]
    (node,) = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    labels = node["template"]["spec"]["template"]["metadata"]["labels"]
    assert {each["key"] for each in spec["selector"]["matchExpressions"]} <= set(labels)


def test_the_service_monitor_finds_the_operators_service() -> None:
    objects = render(EVERYTHING)
    monitor, service = pick(objects, "ServiceMonitor")["spec"], pick(objects, "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_grafana_finds_the_dashboard() -> None:
    config = pick(render(EVERYTHING), "ConfigMap")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["tunegate.json"]) == DASHBOARD
