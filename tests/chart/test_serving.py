"""What KServe is given: the runtimes, and the container that brings a version in front of a server."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.chart.rendering import Object, kinds, pick, pod_templates, render

VLLM = {"serving": {"vllm": {"enabled": True}}}


def test_the_predictor_serves_the_folder_that_kserve_fills() -> None:
    (container,) = pick(render(), "ClusterServingRuntime", "tunegate-predictor")["spec"]["containers"]
    assert container["name"] == "kserve-container"
    assert container["args"] == ["serve", "--folder=/mnt/models", "--host=0.0.0.0", "--port=8080"]
    assert [port["containerPort"] for port in container["ports"]] == [8080]


def test_a_predictor_gets_half_an_hour_to_become_ready() -> None:
    (container,) = pick(render(), "ClusterServingRuntime", "tunegate-predictor")["spec"]["containers"]
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 1800  # serving.readyTimeoutSeconds of a policy


def test_kserve_never_chooses_our_runtime_by_itself() -> None:
    for name in ("tunegate-predictor", "tunegate-predictor-vllm"):
        runtime = pick(render(VLLM), "ClusterServingRuntime", name)["spec"]
        assert runtime["supportedModelFormats"] == [{"name": "tunegate", "version": "1", "autoSelect": False}]


def test_the_vllm_runtime_has_our_server_in_front_of_the_engine() -> None:
    runtime = pick(render(VLLM), "ClusterServingRuntime", "tunegate-predictor-vllm")["spec"]
    server, engine = runtime["containers"]  # KServe's Service goes to the first container
    assert server["name"] == "kserve-container"
    assert server["args"][-2:] == ["--engine-url=http://127.0.0.1:8000", "--engine-model=engine"]
    assert "--host 127.0.0.1 --port 8000" in engine["command"][2]
    assert "ports" not in engine
    assert engine["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_engine_reads_the_folder_that_kserve_fills() -> None:
    pods = dict(pod_templates(render(VLLM)))
    spec = pods["ClusterServingRuntime/tunegate-predictor-vllm"]["spec"]
    mounts = {
        container["name"]: [each["name"] for each in container["volumeMounts"] if each["mountPath"] == "/mnt/models"]
        for container in [*spec["initContainers"], *spec["containers"]]
    }
    volume = ["kserve-provision-location"]
    assert mounts == {"storage-initializer": volume, "kserve-container": volume, "engine": volume}


def test_the_engine_starts_with_the_weights_or_with_the_base_and_its_adapter(tmp_path: Path) -> None:
    folder = tmp_path
    assert _engine_arguments(folder) == [str(folder), "--served-model-name", "engine", "--max-lora-rank=64"]
    (folder / "base").mkdir()
    adapter = ["--enable-lora", "--lora-modules", f"engine={folder}"]
    assert _engine_arguments(folder) == [f"{folder}/base", *adapter, "--max-lora-rank=64"]


def _engine_arguments(folder: Path) -> list[str]:
    """Run the engine's script on `folder`, with a program that prints what it is given in place of vLLM."""
    _, engine = pick(render(VLLM), "ClusterServingRuntime", "tunegate-predictor-vllm")["spec"]["containers"]
    shell, options, script, name = engine["command"]
    script = script.replace("/mnt/models", str(folder)).replace("exec vllm", "exec printf '%s\\n'")
    done = subprocess.run([shell, options, script, name, *engine["args"]], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-4:] == ["--host", "127.0.0.1", "--port", "8000"]
    return done.stdout.split()[1:-4]


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
