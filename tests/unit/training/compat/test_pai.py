from __future__ import annotations

import shlex

import pytest

from tests.unit.training.article import COMMAND, PAI, VARIABLES, line
from tunegate.api.errors import UsageError
from tunegate.training.compat.pai import read_line


def test_the_articles_command_becomes_a_job_with_the_same_flags() -> None:
    job = read_line(COMMAND, VARIABLES)

    said = shlex.split(COMMAND.splitlines()[0].replace("${fp16}", "False").replace("${bf16}", "True"))[0]
    given = shlex.split(said.removeprefix("params="))
    places = {"/data/oss_bucket_0/Qwen_14B_Chat_ms_v100/": "oss://models/Qwen_14B_Chat_ms_v100"}
    places["file_path"] = "/scratch/file_path"
    wanted = " ".join(places.get(word, word) for word in given)
    assert " ".join(job.arguments).replace("=", " ") == wanted
    assert (job.workers, job.processes, job.gpus, job.cpu, job.memory) == (2, 8, 8, "48.5", "262144Mi")
    assert job.package == "oss://team/jobs/xuanji.tar.gz"
    assert job.endpoint_url == "https://oss-cn-hangzhou.aliyuncs.com"


def test_a_run_that_wrote_into_a_bucket_is_published_there() -> None:
    job = read_line(line("--dataset_dir /data/oss_bucket_1/sets/ --output_dir=/data/oss_bucket_1/out/Run_1/"), {})

    assert job.arguments == ("--dataset_dir=oss://b/deep/sets", "--output_dir=/scratch/Run_1")
    assert (job.store, job.run) == ("oss://b/deep/out", "run-1")


def test_variables_before_the_line_win_over_the_environment_and_may_hold_others() -> None:
    text = 'x="--seed ${seed} --output_dir /data/oss_bucket_0/o/${name}"\n' + line("${x}")

    assert read_line(text, {"x": "", "seed": "7", "name": "r"}).arguments == ("--seed=7", "--output_dir=/scratch/r")


RUN = ("--seed=7", "--output_dir=/scratch/r")
PARAMETERS = "--seed 7 --output_dir /data/oss_bucket_0/out/r"
LAST = f'pai -name pytorch180 -DuserDefinedParameters="{PARAMETERS}" -Dbuckets='


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(LAST + '"oss://a/";', id="a semicolon at the end"),
        pytest.param(LAST + "oss://a/;\n", id="behind a value without quotes"),
        pytest.param("use dev;\nset odps.x=A:B;\n" + LAST + "oss://a/ ;\nquit;", id="statements around it"),
        pytest.param("-- don't forget the quota\n# of 'today\n" + LAST + "oss://a/ # mine", id="comments"),
        pytest.param(LAST.replace(" -D", " \\\n  -D") + "'oss://a/'", id="line breaks"),
        pytest.param(LAST.replace(" -D", " \\\r\n  -D") + "'oss://a/'\r\n", id="line breaks of Windows"),
        pytest.param(LAST.replace('"', "”") + "“oss://a/”；", id="quotes of a word processor"),
        pytest.param(LAST.replace(" ", "\u00a0") + "oss://a/", id="spaces that do not break"),
        pytest.param("PAI" + LAST[3:] + "oss://a/", id="in capitals"),
        pytest.param(("PAI" + LAST[3:]).replace("-name", "-NAME") + "oss://a/", id="all in capitals"),
        pytest.param("odps@ algo_dev>" + LAST + "oss://a/;", id="behind the client's prompt"),
        pytest.param("!" + LAST + "oss://a/", id="from a notebook"),
        pytest.param("$ " + LAST + "oss://a/", id="behind a shell's prompt"),
        pytest.param("odpscmd -e '" + LAST + "oss://a/;'", id="given to the client"),
        pytest.param(LAST + "oss://a/?role_arn=acs:ram::1:role/x&host=h,oss://b/", id="a role"),
        pytest.param(LAST + "oss://a.oss-cn-beijing.aliyuncs.com/", id="the host in the bucket"),
    ],
)
def test_lines_are_read_as_people_have_them(text: str) -> None:
    job = read_line(text, {})

    assert (job.arguments, job.store) == (RUN, "oss://a/out")


@pytest.mark.parametrize(
    ("buckets", "endpoint"),
    [
        (
            "oss://a/?role_arn=acs:ram::1:role/x&host=oss-cn-hangzhou.aliyuncs.com;",
            "https://oss-cn-hangzhou.aliyuncs.com",
        ),
        ("oss://a.oss-cn-beijing-internal.aliyuncs.com/;", "https://oss-cn-beijing-internal.aliyuncs.com"),
        ("oss://a/ -DossHost=http://oss.shop:9000;", "http://oss.shop:9000"),
        ("oss://a/?host=h1,oss://b/?host=h1", "https://h1"),
    ],
)
def test_the_endpoint_is_the_host_of_the_buckets(buckets: str, endpoint: str) -> None:
    assert read_line(LAST + buckets, {}).endpoint_url == endpoint


def test_gpus_of_a_line_that_ends_with_a_semicolon_are_counted() -> None:
    text = "use dev;\n" + LAST + 'oss://a/ -DworkerCount=2\n  -Dcluster="{\\"worker\\":{\\"gpu\\":200}}";'

    assert (read_line(text, {}).gpus, read_line(text, {}).workers) == (2, 2)


@pytest.mark.parametrize(
    ("parameters", "arguments"),
    [
        pytest.param(
            "--deepspeed /data/oss_bucket_1/ds.json --output_dir r",
            ("--deepspeed=oss://b/deep/ds.json",),
            id="zero",
        ),
        pytest.param(
            "--dataset /data/oss_bucket_0/a.jsonl,/data/oss_bucket_1/b.jsonl --output_dir r",
            ("--dataset=oss://a/a.jsonl,oss://b/deep/b.jsonl",),
            id="several files",
        ),
        pytest.param("--output_dir ./out/r/", ("--output_dir=/scratch/out/r",), id="a relative folder"),
        pytest.param("--output_dir ../r", ("--output_dir=/scratch/r",), id="a folder beside"),
        pytest.param("--output_dir oss://a/out/r", ("--output_dir=/scratch/r",), id="a folder in a bucket"),
    ],
)
def test_paths_are_where_the_job_finds_them(parameters: str, arguments: tuple[str, ...]) -> None:
    assert read_line(line(parameters), {}).arguments[: len(arguments)] == arguments


def test_options_without_a_meaning_here_are_told() -> None:
    job = read_line(line() + "-Dscript=file:///tmp/x.py -Dpython=3.6 -DenableDockerFusion=false", {})

    assert job.notes == (
        "-Dscript has no effect: file:///tmp/x.py isn't oss://BUCKET/JOB.tar.gz.",
        "-Dpython has no effect: what pods run is --image.",
        "-DenableDockerFusion has no effect: what pods run is --image.",
    )


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
    job = read_line(line() + options, {})

    assert (job.workers, job.processes, job.gpus) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(PAI, r"\$\{job_path\}.*set it in the environment", id="variables"),
        pytest.param("tunegate train", "no `pai` line", id="another command"),
        pytest.param("pai -name 'x", "can't be read: No closing quotation", id="quote"),
        pytest.param(line().replace("pytorch112z", "tensorflow1120"), "tensorflow1120 is not PyTorch", id="framework"),
        pytest.param(line() + "-Dtables=a -Doutputs=b", "-Dtables, -Doutputs are not known", id="options"),
        pytest.param(line() + "-DworkerCount=2 -DworkerCount=4", "-DworkerCount is '2' and '4'.*keep one", id="twice"),
        pytest.param(line("--output_dir /data/oss_bucket_0out/x"), "in no bucket; .*/data/oss_bucket_0/", id="mount"),
        pytest.param(line() + "stray", "'stray' in the pai line is not an option", id="word"),
        pytest.param(line("--seed 7"), "has no --output_dir", id="no folder"),
        pytest.param(line("--output_dir /data/oss_bucket_2/x"), "in bucket 2, and -Dbuckets names 2", id="bucket"),
        pytest.param(line().replace("oss://a/", "a/"), "a bucket is written oss://BUCKET/", id="no URI"),
        pytest.param(line() + "-DgpuRequired=50", "50 % of a GPU; Kubernetes gives whole ones", id="half a GPU"),
        pytest.param(LAST + "oss://a/?host=h1,oss://b/?host=h2", "on https://h1 and https://h2; a job has one", id="2"),
        pytest.param(LAST + "oss://a/;" + LAST + "oss://a/", "several `pai` lines; give one", id="two lines"),
        pytest.param(line() + """-Dcluster='{"ps": {"count": 1}}'""", "the role ps; PyTorch has workers", id="role"),
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
