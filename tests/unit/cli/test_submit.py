"""A line for another platform becomes a job that Kubeflow knows and a real API server takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from transformers import Qwen2Config

from tests.apiserver import ApiServer, call, foreign_crds_folder, new_api_server
from tests.chart.rendering import check_against_crd
from tests.unit.training.article import COMMAND, VARIABLES
from tunegate.api.errors import TrainingError, TunegateError, UsageError
from tunegate.cli.submit import command
from tunegate.kube.kinds import Kind

BASE = "--model_name_or_path=b --dataset=d --dataset_dir=/opt/shop --output_dir=/data/oss_bucket_0/r1"
LINE = f'pai -name pytorch112z -Dbuckets=oss://a/ -DuserDefinedParameters="{BASE} %s"'


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**VARIABLES, "TUNEGATE_STORE": "s3://models"}.items():
        monkeypatch.setenv(name, value)
    for name in ("KUBECONFIG", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    crd = foreign_crds_folder() / "kubeflow.org_pytorchjobs.yaml"
    with new_api_server(tmp_path_factory.mktemp("submit-api"), [crd]) as server:
        yield server


def use(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client reads KUBECONFIG once for each process.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    monkeypatch.setattr("kubernetes.config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))


def submit(line: str, *words: str) -> Result:
    return CliRunner().invoke(command, ["--pai", "-", "--name", "xuanji", *words], input=line)


def printed(line: str = COMMAND, *words: str) -> Any:
    result = submit(line, "--dry-run", *words)
    assert result.exit_code == 0, (result.output, result.exception)
    return yaml.safe_load(result.stdout)


def test_a_job_is_printed_without_a_cluster_and_kubeflow_knows_every_field() -> None:
    job = printed(COMMAND, "--namespace", "shop", "--image", "registry/trainer:1", "--store-secret", "keys")

    (crd,) = yaml.safe_load_all((foreign_crds_folder() / "kubeflow.org_pytorchjobs.yaml").read_text())
    check_against_crd(job, crd)
    assert (job["metadata"]["name"], job["metadata"]["namespace"]) == ("xuanji", "shop")
    spec = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert container["image"] == "registry/trainer:1"
        company = {"configMapRef": {"name": "tunegate-environment", "optional": True}}
        assert container["envFrom"] == [{"secretRef": {"name": "keys", "optional": True}}, company]
        assert {"name": "ca", "mountPath": "/etc/tunegate-ca"} in container["volumeMounts"]
    (ca,) = (volume["projected"]["sources"] for volume in spec["volumes"] if volume["name"] == "ca")
    assert [each for source in ca for each in source.values()] == [{"name": "tunegate-ca", "optional": True}] * 2


def test_a_job_waits_in_the_queue_that_is_named() -> None:
    assert "kueue.x-k8s.io/queue-name" not in printed()["metadata"]["labels"]
    job = printed(COMMAND, "--queue", "research")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert "suspend" not in job["spec"]["runPolicy"], "Kueue's webhook does that, and only where there is one"


def test_yaml_repeats_itself_instead_of_pointing_elsewhere() -> None:
    assert "&id" not in submit(COMMAND, "--dry-run").stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        pytest.param("--learning_rat 1", "did you mean --learning_rate?", id="misspelled"),
        pytest.param("--stage kto", "--stage kto is not supported", id="stage"),
        pytest.param("--fp16 --bf16 True", "keep one of them", id="an empty variable"),
        pytest.param("--packing --finetuning_type p_tuning", "--packing has no place for", id="settings"),
    ],
)
def test_what_training_would_refuse_is_refused_before_anything_is_applied(words: str, reason: str) -> None:
    printed(LINE % "")

    result = submit(LINE % words)

    message = str(result.exception) if isinstance(result.exception, UsageError) else result.output
    assert reason in message, result.exception
    assert result.exit_code != 0


def test_a_real_api_server_takes_the_job_and_takes_it_again(
    cluster: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(cluster.kubeconfig, monkeypatch)
    namespace = cluster.new_namespace()

    for image in ("trainer:1", "trainer:2"):
        result = submit(COMMAND, "-n", namespace, "--image", image)
        assert result.exit_code == 0, (result.output, result.exception)

    assert result.stdout.startswith(f"pytorchjob/xuanji is in {namespace};")
    with cluster.client() as client:
        job = call(client, "GET", f"/apis/kubeflow.org/v1/namespaces/{namespace}/pytorchjobs/xuanji")
    replicas = printed(COMMAND, "-n", namespace, "--image", "trainer:2")["spec"]["pytorchReplicaSpecs"]
    assert job["spec"]["pytorchReplicaSpecs"] == replicas


def test_a_container_writes_nothing_but_its_volumes() -> None:
    pod = printed()["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]

    assert pod["automountServiceAccountToken"] is False
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        folders = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert folders >= {"/tmp", "/cache", "/scratch", "/job"}  # noqa: S108


def test_pods_of_a_job_pass_pod_security_restricted(cluster: ApiServer) -> None:
    namespace = cluster.new_namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    pod = printed()["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]

    with cluster.client() as client:
        body = {"metadata": {"name": "job"}, "spec": {"restartPolicy": "Never", **pod}}
        call(client, "POST", f"/api/v1/namespaces/{namespace}/pods", body)


def test_what_the_cluster_refuses_is_shown_with_a_remedy(
    cluster: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = cluster.new_namespace()
    stranger = cluster.kubeconfig_as(namespace, "stranger", tmp_path)
    for kubeconfig, words, reason in (
        (stranger, ["-n", namespace], f"ask for rights to create and patch pytorchjobs in {namespace}"),
        (cluster.kubeconfig, ["-n", "nowhere"], "or no namespace nowhere"),
        (tmp_path / "none", [], "There is no cluster to speak to"),
    ):
        use(kubeconfig, monkeypatch)
        result = submit(COMMAND, *words)
        assert isinstance(result.exception, TunegateError), result.exception
        assert reason in str(result.exception)


def test_a_cluster_without_kubeflow_is_refused(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    use(cluster.kubeconfig, monkeypatch)
    elsewhere = Kind("elsewhere.example", "v1", "pytorchjobs", "PyTorchJob")
    monkeypatch.setattr("tunegate.training.compat.pytorchjob.API_VERSION", elsewhere.api_version)
    monkeypatch.setattr("tunegate.cli.cluster.PYTORCH_JOB", elsewhere)

    result = submit(COMMAND, "-n", cluster.new_namespace())

    assert "The cluster knows no PyTorchJob" in str(result.exception)
    assert "install Kubeflow's training operator" in str(result.exception)


def test_a_deepspeed_file_in_a_mounted_bucket_is_the_pods_to_fetch() -> None:
    job = printed(LINE % "--deepspeed=/data/oss_bucket_0/ds.json" + ";")

    container = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    assert "--deepspeed=oss://a/ds.json" in container["args"]


def test_what_has_no_effect_is_said_beside_the_job() -> None:
    result = submit(LINE % "--flash_attn=auto" + " -Dpython=3.6", "--dry-run")

    assert "-Dpython has no effect: " in result.stderr
    assert "--flash_attn has no effect: " in result.stderr


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 0.14 G parameters without its weights."""
    folder = tmp_path_factory.mktemp("base")
    shape = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16, "vocab_size": 40_000}
    Qwen2Config(**shape, num_attention_heads=16, num_key_value_heads=8, tie_word_embeddings=False).save_pretrained(
        folder
    )
    return folder


def line_for(base: str, resources: str, deepspeed: str = "") -> str:
    run = "--finetuning_type=full --cutoff_len=512 --per_device_train_batch_size=1"
    parameters = f"{BASE} {run} {deepspeed}".replace("=b ", f"={base} ", 1)
    cluster = f"'{{\"worker\":{{{resources}}}}}'"
    return f'pai -name pytorch112z -Dbuckets=oss://team/ -Dcluster={cluster} -DuserDefinedParameters="{parameters}"'


def test_what_can_not_fit_on_the_cards_is_refused_before_anything_is_queued(base: Path) -> None:
    line = line_for(str(base), '"gpu":800')

    refused = submit(line, "--card", "2GiB")  # there is no cluster either: nothing was asked of one
    assert isinstance(refused.exception, TrainingError)
    assert "GiB, and 2GiB leaves 0.5; give more cards, a smaller" in str(refused.exception)
    assert "not known" not in submit(line, "--card", "A10", "--dry-run").stderr
    with pytest.raises(UsageError, match="There is no figure for the card 'GTX'"):
        CliRunner().invoke(command, ["--pai", line, "--name", "x", "--card", "GTX"], catch_exceptions=False)


def test_what_can_not_fit_in_the_memory_of_a_pod_without_cards_is_refused(base: Path) -> None:
    refused = submit(line_for(str(base), '"memory":1024'))

    assert isinstance(refused.exception, TrainingError)
    assert "a pod's 1 process need" in str(refused.exception)
    assert "its memory ends at 1.0; give it more" in str(refused.exception)
    printed(line_for(str(base), '"memory":16384'))


@pytest.mark.parametrize(
    ("name", "resources", "words", "told"),
    [
        ("b", '"gpu":100', (), "Whether it fits on its GPUs is not known; name one with --card."),
        ("b", '"gpu":100', ("--card", "A10"), "the config.json of b can't be read here."),
        ("s3://models/b", '"gpu":100', ("--card", "A10", "--endpoint-url", "http://127.0.0.1:1"), "is not known: "),
    ],
)
def test_what_is_not_known_is_told_and_not_refused(
    name: str, resources: str, words: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")

    result = submit(line_for(name, resources), "--dry-run", *words)

    assert result.exit_code == 0, (result.output, result.exception)
    assert told in result.stderr


def test_a_deepspeed_file_of_the_pods_leaves_open_whether_it_fits(base: Path) -> None:
    line = line_for(str(base), '"gpu":100', "--deepspeed=/data/oss_bucket_0/ds.json")

    assert "Whether it fits is not known: oss://team/ds.json is read in the pods." in submit(line, "--dry-run").stderr


def test_a_card_for_pods_without_any_is_refused(base: Path) -> None:
    result = submit(line_for(str(base), '"memory":2048'), "--card", "A10")

    assert "the line asks for none; leave it out" in str(result.exception)
