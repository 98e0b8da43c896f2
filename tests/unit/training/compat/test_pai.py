from __future__ import annotations

import os
import shlex
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.article import COMMAND, PAI, VARIABLES
from tunegate.api.errors import DataError, UsageError
from tunegate.store import Store
from tunegate.store.client import connect, parse_uri
from tunegate.training.compat.pai import Place, Work, read_line, training_job
from tunegate.training.compat.unpack import unpack

BUCKETS = "-Dbuckets=oss://a/,oss://b/deep/"
PLACE = Place(
    name="xuanji",
    namespace="shop",
    image="tunegate/trainer:0.1.0",
    store="s3://models",
    endpoint_url=None,
    store_secret="tunegate-store",
    claim="runs",
)


def line(parameters: str = "--output_dir /data/oss_bucket_0/out/r1", *options: str) -> str:
    return f'pai -name pytorch112z {BUCKETS} -DuserDefinedParameters="{parameters}" ' + " ".join(options)


def pod(work: Work, place: Place = PLACE) -> Any:
    return training_job(work, place)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]


def test_the_articles_command_becomes_a_job_with_the_same_flags() -> None:
    work = read_line(COMMAND, VARIABLES)

    said = shlex.split(COMMAND.splitlines()[0].replace("${fp16}", "False").replace("${bf16}", "True"))[0]
    given = shlex.split(said.removeprefix("params="))
    places = {"/data/oss_bucket_0/Qwen_14B_Chat_ms_v100/": "oss://models/Qwen_14B_Chat_ms_v100"}
    places["file_path"] = "/scratch/file_path"
    wanted = " ".join(places.get(word, word) for word in given)
    assert " ".join(work.words).replace("=", " ") == wanted
    assert (work.workers, work.processes, work.gpus, work.cpu, work.memory) == (2, 8, 8, "48.5", "262144Mi")
    assert work.package == "oss://team/jobs/xuanji.tar.gz"
    assert work.endpoint_url == "https://oss-cn-hangzhou.aliyuncs.com"


def test_each_worker_is_a_pod_with_the_same_words() -> None:
    job = training_job(read_line(COMMAND, VARIABLES), PLACE)

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


def test_several_pods_share_a_volume_and_one_has_its_own() -> None:
    several, one = (
        {volume.pop("name"): volume for volume in pod(read_line(line() + f"-DworkerCount={count}", {}))["volumes"]}
        for count in (2, 1)
    )

    assert several["scratch"] == {"persistentVolumeClaim": {"claimName": "runs"}}
    assert one["scratch"] == {"emptyDir": {}}


def test_a_run_that_wrote_into_a_bucket_is_published_there() -> None:
    work = read_line(line("--dataset_dir /data/oss_bucket_1/sets/ --output_dir=/data/oss_bucket_1/out/Run_1/"), {})

    assert work.words == ("--dataset_dir=oss://b/deep/sets", "--output_dir=/scratch/Run_1")
    assert (work.store, work.run) == ("oss://b/deep/out", "run-1")
    assert {"name": "TUNEGATE_STORE", "value": "oss://b/deep/out"} in pod(work)["containers"][0]["env"]


def test_variables_before_the_line_win_over_the_environment_and_may_hold_others() -> None:
    text = 'x="--seed ${seed} --output_dir /data/oss_bucket_0/o/${name}"\n' + line("${x}")

    assert read_line(text, {"x": "", "seed": "7", "name": "r"}).words == ("--seed=7", "--output_dir=/scratch/r")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param("", (1, 1, 0), id="nothing said"),
        pytest.param("-DgpuRequired=200", (1, 2, 2), id="GPUs alone"),
        pytest.param("""-Dcluster='{"worker":{"count":3,"gpu":100}}'""", (3, 1, 1), id="workers of the cluster"),
        pytest.param(
            "-DentryFile='-m torch.distributed.launch --nproc-per-node 2 train.py'", (1, 2, 0), id="processes"
        ),
        pytest.param("-DentryFile='--nnodes=2 train.py'", (2, 1, 0), id="nodes"),
    ],
)
def test_workers_processes_and_gpus_are_what_the_line_says(options: str, expected: tuple[int, int, int]) -> None:
    work = read_line(line() + options, {})

    assert (work.workers, work.processes, work.gpus) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(PAI, r"\$\{job_path\}.*set it in the environment", id="variables"),
        pytest.param("tunegate train", "no `pai` line", id="another command"),
        pytest.param("pai -name 'x", "can't be read: No closing quotation", id="quote"),
        pytest.param(line().replace("pytorch112z", "tensorflow1120"), "tensorflow1120 is not PyTorch", id="framework"),
        pytest.param(line() + "-Dversion=1", "-Dversion is not known", id="option"),
        pytest.param(line() + "stray", "'stray' in the pai line is not understood", id="word"),
        pytest.param(line("--seed 7"), "has no --output_dir", id="no folder"),
        pytest.param(line("--output_dir /data/oss_bucket_2/x"), "in bucket 2, and -Dbuckets names 2", id="bucket"),
        pytest.param(line().replace("oss://a/", "a/"), "a bucket is written oss://BUCKET/", id="no URI"),
        pytest.param(line() + "-DgpuRequired=50", "50 % of a GPU; Kubernetes gives whole ones", id="half a GPU"),
        pytest.param(line() + "-DworkerCount=two", "workerCount is 'two'", id="no number"),
        pytest.param(line() + "-DworkerCount=0", "workerCount is 0", id="nobody"),
        pytest.param(line() + "-Dcluster=8", "-Dcluster is not JSON such as", id="cluster"),
        pytest.param(
            line() + "-DgpuRequired=100 -DentryFile='--nproc_per_node=2'", "2 processes for 1 GPUs", id="too few GPUs"
        ),
        pytest.param(line() + "-DworkerCount=2 -DentryFile='--nnodes=3'", "--nnodes=3 and 2 workers", id="nodes"),
        pytest.param(
            line("--deepspeed ds.json --output_dir x") + "-Dscript=file:///x.py",
            "--deepspeed ds.json is a file of the script's archive",
            id="no archive",
        ),
    ],
)
def test_a_line_that_can_not_be_followed_is_refused(text: str, said: str) -> None:
    read_line(line(), {})

    with pytest.raises(UsageError, match=said):
        read_line(text, {})


def test_a_job_whose_result_would_be_lost_is_refused() -> None:
    work = read_line(line("--output_dir file_path"), {})
    nowhere = Place(**{**PLACE.__dict__, "store": None})

    assert training_job(work, PLACE)
    with pytest.raises(UsageError, match=r"give --store, or an --output_dir under /data/oss_bucket_0/\."):
        training_job(work, nowhere)


def test_an_archive_in_a_bucket_is_unpacked(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "ds_config.json").write_text("{}")
    (tmp_path / "job.tar").write_text("no archive")
    with tarfile.open(tmp_path / "job.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "ds_config.json", "ds_config.json")
    place = parse_uri(store.uri)
    for name in ("job.tar.gz", "job.tar"):
        client = connect(place, store.endpoint_url)
        client.upload_file(str(tmp_path / name), place.bucket, f"{place.prefix}{name}")

    unpack(f"{store.uri}/job.tar.gz", tmp_path / "work", store.endpoint_url)

    assert os.listdir(tmp_path / "work") == ["ds_config.json"]
    with pytest.raises(DataError, match=r"job\.tar can't be unpacked.*pack it with tar"):
        unpack(f"{store.uri}/job.tar", tmp_path / "work", store.endpoint_url)
