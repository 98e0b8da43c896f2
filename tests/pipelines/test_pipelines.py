"""What users apply: every API server takes it, its pods are safe, and its words are words that tunegate knows."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from tests.apiserver import OWN_CRDS, ApiServer, foreign_crds_folder, new_api_server
from tests.chart.rendering import check_against_crd, read_yaml
from tests.refusals import call
from tests.unit.cli.test_submit import use
from tunegate.cli import root
from tunegate.cli.train import config_of
from tunegate.shop import DATA
from tunegate.store import Store
from tunegate.training.compat.pai import read_line
from tunegate.training.compat.pytorchjob import JobSettings, training_job
from tunegate.training.config import TrainConfig, check_config
from tunegate.training.run.plan import accumulation

PIPELINES = Path(__file__).parents[2] / "pipelines"
FILES = sorted(PIPELINES.glob("*.yaml"))
Object = dict[str, Any]
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def objects(path: Path) -> list[Object]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def pods(path: Path) -> Iterator[Object]:
    """The pod templates of a file, as a controller would make pods of them."""
    for each in objects(path):
        yield from pods_of(each)


def pods_of(each: Object) -> list[Object]:
    spec = each.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)  # a CronJob's
    replicas = spec.get("pytorchReplicaSpecs", {})
    templates = [copy.deepcopy(replica["template"]) for replica in replicas.values()]
    if {"Master", "Worker"} <= replicas.keys():  # training operator 1.9, pkg/controller.v1/pytorch/initcontainer.go
        waits = {"name": "init-pytorch", "image": "alpine:3.10", "command": ["sh"]}
        templates[list(replicas).index("Worker")]["spec"].setdefault("initContainers", []).append(waits)
    return templates or ([spec["template"]] if "template" in spec else [])


def pods_of_trainer(path: Path) -> Iterator[Object]:
    """The pods of a TrainJob: those of Trainer 2.3's runtime torch-distributed, with what the job says of them."""
    for job in objects(path):
        for patch in job["spec"].get("runtimePatches", ()) if job["kind"] == "TrainJob" else ():
            (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
            assert node["name"] == "node"
            pod = copy.deepcopy(node["template"]["spec"]["template"])
            (container,) = pod["spec"]["containers"]
            trainer = job["spec"]["trainer"]
            container |= {name: trainer[name] for name in ("image", "command", "args", "env")}
            container["resources"] = trainer["resourcesPerNode"]
            yield pod


CONTAINERS = [
    pytest.param(container, id=f"{path.stem}-{container['name']}-{number}")
    for path in FILES
    for number, pod in enumerate([*pods(path), *pods_of_trainer(path)])
    for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
]
CONTAINER = {"PyTorchJob": "pytorch", "TrainJob": "node"}  # by which name a controller finds the one that trains
CONFIGURED = {
    name: text
    for path in FILES
    for each in objects(path)
    if each["kind"] == "ConfigMap"
    for name, text in each["data"].items()
}
TUNEGATE = [param for param in CONTAINERS if "args" in param.values[0]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with new_api_server(tmp_path_factory.mktemp("pipelines-api"), [foreign_crds_folder(), OWN_CRDS]) as server:
        yield server


def parse(args: list[str]) -> click.Context:
    """Read words as `tunegate` would, without doing what they say. Raises click.UsageError."""
    context = root.make_context("tunegate", list(args))
    command: click.Command = root
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found
        command, context = found, found.make_context(found.name, rest, parent=context)
    return context


@functools.cache
def kinds_with_schemas() -> dict[str, Object]:
    """The CRDs of ours and of others, by their kind."""
    files = [file for folder in (OWN_CRDS, foreign_crds_folder()) for file in folder.glob("*.yaml")]
    crds = [crd for file in files for crd in read_yaml(file.read_text())]
    return {crd["spec"]["names"]["kind"]: crd for crd in crds}


@each_file
def test_kubernetes_kubeflow_and_tunegate_know_every_field(path: Path) -> None:
    for each in objects(path):
        if crd := kinds_with_schemas().get(each["kind"]):
            check_against_crd(each, crd)
        else:
            kubernetes_validate.validate(each, "1.36", strict=True)


def test_an_api_server_takes_them_in_their_order(cluster: ApiServer) -> None:
    for path in FILES:
        cluster.kubectl("apply", "-f", str(path))


@each_file
def test_pods_pass_pod_security_restricted(path: Path, cluster: ApiServer) -> None:
    namespace = cluster.new_namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    for account in {pod["spec"]["serviceAccountName"] for pod in pods(path) if "serviceAccountName" in pod["spec"]}:
        cluster.kubectl("create", "-n", namespace, "serviceaccount", account)
    for pod in [*pods(path), *pods_of_trainer(path)]:
        spec = {"restartPolicy": "Never", **pod["spec"]}
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "pod-"}, "spec": spec}
        cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(made))
    assert all(pod["spec"]["automountServiceAccountToken"] is False for pod in pods(path))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_container_is_ours_and_writes_nothing_but_its_volumes(container: Object) -> None:
    assert container["image"] == "tunegate/trainer:0.1.0"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]  # noqa: S108
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def needs_store(container: Object) -> bool:
    return "TUNEGATE_STORE" in [each["name"] for each in container.get("env", ())]


@pytest.mark.parametrize("container", [param for param in CONTAINERS if needs_store(param.values[0])])
def test_a_container_takes_what_a_company_sets_and_needs_none_of_it(container: Object) -> None:
    """The Secret may be absent where a role takes its place, and so may the ConfigMaps of proxy and CA."""
    references = [each for source in container.get("envFrom", ()) for each in source.values()]
    single = [each["valueFrom"] for each in container["env"] if "valueFrom" in each]
    references += [each for source in single for each in source.values()]
    company = [each for each in references if each["name"] in ("tunegate-store", "tunegate-environment")]
    assert {each["name"] for each in company} == {"tunegate-store", "tunegate-environment"}
    assert all(each["optional"] for each in company)
    assert {"name": "ca", "mountPath": "/etc/tunegate-ca"} in container["volumeMounts"]


@pytest.mark.parametrize("container", TUNEGATE)
def test_tunegate_understands_the_words_of_a_container(
    container: Object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in CONFIGURED.items():
        (tmp_path / name).write_text(text)
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "from a Secret"))

    # what the image has there is what this checkout has
    where = {"/opt/shop": DATA, "/etc/learn": tmp_path, "/etc/corpus": tmp_path}
    words = [re.sub("|".join(where), lambda found: str(where[found[0]]), word) for word in container["args"]]
    context = parse([word.replace("$(JOB_COMPLETION_INDEX)", "3") for word in words])

    assert context.params.get("store_uri", "s3://tunegate") == "s3://tunegate"  # others name their bucket themselves
    assert context.params["endpoint_url"].startswith("http://tunegate-storage.")


def test_the_weekly_pod_may_start_a_job_once_and_nothing_else(
    cluster: ApiServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint_url or "")
    store.put("corpora/shop/data/train.jsonl", b'{"messages": []}\n')
    config, *rights, cron = objects(PIPELINES / "70-learn.yaml")
    (tmp_path / "job.yaml").write_text(config["data"]["job.yaml"])
    cluster.kubectl("apply", "-f", str(FILES[0]))
    for each in rights:
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(each))
    use(cluster.kubeconfig_as("shop", "learn", tmp_path), monkeypatch)
    (container,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    words = [
        word.replace("s3://tunegate", store.uri).replace("/etc/learn", str(tmp_path)) for word in container["args"]
    ]
    for _ in range(2):
        said = call(*words)
    name = said.partition(" ")[0].removeprefix("pytorchjob/")
    listed = cluster.kubectl("-n", "shop", "get", "pytorchjobs", "-l", f"tunegate.io/run={name}", "-o", "name").stdout
    assert listed.split() == [f"pytorchjob.kubeflow.org/{name}"]


def test_a_word_that_tunegate_does_not_know_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_STORE", "s3://tunegate")
    with pytest.raises(click.UsageError):
        parse(["evaluate", "x", "--suit=y"])


@pytest.mark.parametrize("path", [path for path in FILES if "train" in path.name], ids=lambda path: path.stem)
def test_a_training_job_can_begin(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_STORE", "s3://tunegate")
    job = next(each for each in objects(path) if each["kind"] in CONTAINER)
    every = [*pods(path), *pods_of_trainer(path)]
    (words,) = {tuple(pod["spec"]["containers"][0]["args"]) for pod in every}  # all pods run the same
    params = parse(list(words)).params
    if params["deepspeed"]:
        params["deepspeed"] = str(PIPELINES / "deepspeed" / Path(params["deepspeed"]).name)

    config = config_of({name: value for name, value in params.items() if name != "as_json"})

    check_config(config)
    assert job["metadata"]["labels"] == {"tunegate.io/model": config.model, "tunegate.io/run": config.run}
    assert {pod["spec"]["containers"][0]["name"] for pod in every} == {CONTAINER[job["kind"]]}
    assert all(pod["metadata"]["labels"] == job["metadata"]["labels"] for pod in every)
    assert config.dataset_dir == "/opt/shop"
    assert set(config.dataset) <= json.loads((DATA / "dataset_info.json").read_text()).keys()
    assert f"ln -s {site_packages('shop/data')} /opt/shop" in (PIPELINES.parent / "images/Dockerfile").read_text()


@pytest.mark.parametrize(("file", "failures"), [("10-train", 3), ("11-train-full", 3), ("12-train-elastic", 10)])
def test_a_job_bears_the_failures_that_it_says(file: str, failures: int) -> None:
    job = next(each for each in objects(PIPELINES / f"{file}.yaml") if each["kind"] == "PyTorchJob")
    assert _bears(job, failures)


def test_a_submitted_job_bears_three_failures() -> None:
    line = """pai -name pytorch112z -DentryFile='t.py' -DuserDefinedParameters="--output_dir o" -DworkerCount=4"""
    settings = JobSettings("pai", "shop", "tunegate/trainer:0.1.0", "s3://models", None, "tunegate-store")
    assert _bears(training_job(read_line(line, {}), settings), 3)


def _bears(job: Object, failures: int) -> bool:
    """The training operator fails a job when the restarts of all its pods reach the limit; a failure is one of each."""
    pods_at_once = sum(replica["replicas"] for replica in job["spec"]["pytorchReplicaSpecs"].values())
    limit = job["spec"]["runPolicy"]["backoffLimit"]
    return bool(failures * pods_at_once < limit <= (failures + 1) * pods_at_once)


def test_the_pods_that_are_left_of_an_elastic_job_can_share_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_STORE", "s3://tunegate")
    (job,) = objects(PIPELINES / "12-train-elastic.yaml")
    elastic, (pod,) = job["spec"]["elasticPolicy"], pods_of(job)
    params = parse(pod["spec"]["containers"][0]["args"]).params
    batch, processes = params["per_device_train_batch_size"], params["nproc_per_node"]
    step = batch * params["gradient_accumulation_steps"] * processes * elastic["maxReplicas"]

    assert elastic["minReplicas"] < elastic["maxReplicas"]
    for count in range(elastic["minReplicas"], elastic["maxReplicas"] + 1):
        assert accumulation(step, batch, processes * count)


def site_packages(path: str) -> str:
    return f"/opt/tunegate/lib/python3.11/site-packages/tunegate/{path}"


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_each_stage_of_zero_is_a_configuration_that_training_takes(stage: int) -> None:
    path = PIPELINES / "deepspeed" / f"zero{stage}.json"
    words = {"model_name_or_path": "m", "dataset_dir": "d", "dataset": ("s",), "output_dir": "o", "model": "m"}

    check_config(TrainConfig(**words, run="r", store="s3://bucket", deepspeed=str(path)))

    assert json.loads(path.read_text())["zero_optimization"]["stage"] == stage


def test_the_policy_asks_for_suites_that_exist_and_serves_what_the_first_files_publish() -> None:
    (policy,) = objects(PIPELINES / "20-policy.yaml")
    (base,) = objects(PIPELINES / "05-base-model.yaml")

    assert all((DATA / "suites" / suite / "suite.yaml").exists() for suite in policy["spec"]["suites"])
    published = base["spec"]["template"]["spec"]["containers"][0]["args"][-1]
    assert policy["spec"]["initialVersion"] == f"s3://tunegate/{published}/"


def test_the_readme_tells_of_every_file() -> None:
    told = re.findall(r"\]\((\d\d-[a-z-]+\.yaml)\)", (PIPELINES / "README.md").read_text())

    assert told == [path.name for path in FILES]
