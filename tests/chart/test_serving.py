"""What KServe is given: the runtimes, and the container that brings a version in front of a server."""

from __future__ import annotations

from tests.chart.rendering import Object, kinds, pick, render
from tunegate.cli import serve

VLLM = {"serving": {"vllm": {"enabled": True}}}


def test_the_predictor_serves_the_folder_that_kserve_fills() -> None:
    (container,) = pick(render(), "ClusterServingRuntime", "tunegate-predictor")["spec"]["containers"]
    assert container["name"] == "kserve-container"
    assert container["args"] == [
        "serve",
        "--folder=/mnt/models",
        "--host=0.0.0.0",
        "--port=8080",
        "--engine=transformers",
    ]
    assert [port["containerPort"] for port in container["ports"]] == [8080]


def test_a_predictor_gets_half_an_hour_to_become_ready() -> None:
    (container,) = pick(render(), "ClusterServingRuntime", "tunegate-predictor")["spec"]["containers"]
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 1800  # serving.readyTimeoutSeconds of a policy


def test_kserve_never_chooses_our_runtime_by_itself() -> None:
    for name in ("tunegate-predictor", "tunegate-predictor-vllm"):
        runtime = pick(render(VLLM), "ClusterServingRuntime", name)["spec"]
        assert runtime["supportedModelFormats"] == [{"name": "tunegate", "version": "1", "autoSelect": False}]


def test_the_vllm_runtime_is_the_same_server_with_another_engine() -> None:
    objects = render(VLLM)
    (usual,), (vllm,) = (
        pick(objects, "ClusterServingRuntime", name)["spec"]["containers"]
        for name in ("tunegate-predictor", "tunegate-predictor-vllm")
    )
    assert vllm["args"][:-1] == usual["args"][:-1]
    assert (usual["args"][-1], vllm["args"][-1]) == ("--engine=transformers", "--engine=vllm")
    assert vllm["image"] == "tunegate/predictor-vllm:0.1.0"
    assert vllm["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "/dev/shm" in [mount["mountPath"] for mount in vllm["volumeMounts"]]  # noqa: S108


def test_the_server_knows_every_argument_that_it_is_given() -> None:
    known = {option for parameter in serve.command.params for option in parameter.opts}
    for runtime in (each for each in render(VLLM) if each["kind"] == "ClusterServingRuntime"):
        verb, *arguments = runtime["spec"]["containers"][0]["args"]
        assert verb == "serve"
        assert {argument.partition("=")[0] for argument in arguments} <= known


def test_the_initializer_claims_our_uris_and_reads_the_secret_beside_the_server() -> None:
    values = {"store": {"uri": "s3://models", "endpointUrl": "http://minio:9000", "secretName": "keys"}}
    spec = pick(render(values), "ClusterStorageContainer", "tunegate")["spec"]
    assert spec["supportedUriFormats"] == [{"prefix": "tunegate://"}]
    assert spec["workloadType"] == "initContainer"
    # KServe reads this without looking whether it is there.
    assert spec["supportsMultiModelDownload"] is False
    container = spec["container"]
    assert container["name"] == "storage-initializer"
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    env = {each["name"]: each["value"] for each in container["env"]}
    assert env["TUNEGATE_STORE"] == "s3://models"
    assert env["AWS_ENDPOINT_URL"] == "http://minio:9000"
    # A mount of a volume that another runtime's pod lacks would make that pod invalid.
    assert "volumeMounts" not in container


def test_within_namespaces_each_gets_its_own_runtime() -> None:
    objects = render({"rbac": {"scope": "Namespaced"}, "namespaces": ["a", "b"], **VLLM})
    assert "ClusterServingRuntime" not in kinds(objects)
    found = [(each["metadata"]["namespace"], each["metadata"]["name"]) for each in _runtimes(objects)]
    names = ("tunegate-predictor", "tunegate-predictor-vllm")
    assert sorted(found) == [(namespace, name) for namespace in ("a", "b") for name in names]


def _runtimes(objects: list[Object]) -> list[Object]:
    return [each for each in objects if each["kind"] == "ServingRuntime"]


def test_serving_can_be_left_to_somebody_else() -> None:
    assert not {"ClusterServingRuntime", "ClusterStorageContainer"} & kinds(render({"serving": {"enabled": False}}))


def test_predictors_are_reached_on_one_port() -> None:
    objects = render({"networkPolicy": {"enabled": True}, "namespaces": ["a", "b"]})
    for namespace in ("a", "b"):
        spec = pick(objects, "NetworkPolicy", "tunegate-predictors", namespace)["spec"]
        assert spec["policyTypes"] == ["Ingress"]
        assert spec["ingress"] == [{"ports": [{"port": 8080}]}]
