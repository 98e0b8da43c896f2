from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.training.article import COMMAND, VARIABLES, line
from tunegate.api.errors import UsageError
from tunegate.training.compat.pai import PaiJob, read_line
from tunegate.training.compat.pytorchjob import JobSettings, training_job

SETTINGS = JobSettings(
    name="xuanji",
    namespace="shop",
    image="tunegate/trainer:0.1.0",
    store="s3://models",
    endpoint_url=None,
    store_secret="tunegate-store",
)


def pod(job: PaiJob, settings: JobSettings = SETTINGS) -> Any:
    return training_job(job, settings)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]


def test_each_worker_is_a_pod_with_the_same_arguments() -> None:
    job = training_job(read_line(COMMAND, VARIABLES), SETTINGS)

    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert [(role, replica["replicas"]) for role, replica in replicas.items()] == [("Master", 1), ("Worker", 1)]
    assert replicas["Master"]["template"]["spec"]["containers"][0].pop("ports"), "the first process is there"
    assert replicas["Master"]["template"] == replicas["Worker"]["template"]
    assert job["metadata"]["labels"] == {"tunegate.io/model": "xuanji", "tunegate.io/run": "file-path"}
    (container,) = replicas["Master"]["template"]["spec"]["containers"]
    ours = ["--model=xuanji", "--run=file-path", "--nproc_per_node=8", "--metrics_port=9400"]
    assert container["args"][-4:] == ours
    assert container["resources"]["limits"] == {"memory": "262144Mi", "nvidia.com/gpu": 8}


def test_files_of_the_script_are_unpacked_where_the_job_works() -> None:
    spec = pod(read_line(COMMAND, VARIABLES))

    (first,) = spec["initContainers"]
    assert first["command"][2:] == ["tunegate.training.compat.unpack", "oss://team/jobs/xuanji.tar.gz", "/job"]
    assert spec["containers"][0]["workingDir"] == "/job"
    assert {"name": "work", "mountPath": "/job"} in spec["containers"][0]["volumeMounts"]


def test_prometheus_finds_the_port_that_was_asked_for() -> None:
    container = pod(read_line(line("--output_dir /data/oss_bucket_0/out/r1 --metrics_port 9500"), {}))["containers"][0]

    assert container["ports"] == [{"name": "metrics", "containerPort": 9500, "protocol": "TCP"}]
    assert [word for word in container["args"] if "metrics" in word] == ["--metrics_port=9500"]


def test_a_drained_pod_has_the_time_to_keep_and_publish_a_checkpoint() -> None:
    assert pod(read_line(COMMAND, VARIABLES))["terminationGracePeriodSeconds"] >= 120


@pytest.mark.parametrize("claim", ["runs", None])
def test_only_several_pods_share_a_volume_and_only_where_one_is_named(claim: str | None) -> None:
    settings = replace(SETTINGS, claim=claim)
    several, one = (
        {volume.pop("name"): volume for volume in pod(read_line(line() + workers, {}), settings)["volumes"]}
        for workers in ("-DworkerCount=2", "-DworkerCount=1")
    )

    assert several["scratch"] == ({"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}})
    assert one["scratch"] == {"emptyDir": {}}


def test_a_run_that_wrote_into_a_bucket_is_published_there() -> None:
    job = read_line(line("--output_dir=/data/oss_bucket_1/out/Run_1/"), {})

    assert {"name": "TUNEGATE_STORE", "value": "oss://b/deep/out"} in pod(job)["containers"][0]["env"]


def test_a_job_whose_result_would_be_lost_is_refused() -> None:
    job = read_line(line("--output_dir file_path"), {})

    assert training_job(job, SETTINGS)
    with pytest.raises(UsageError, match=r"give --store, or an --output_dir under /data/oss_bucket_0/\."):
        training_job(job, replace(SETTINGS, store=None))
