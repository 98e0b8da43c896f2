"""The article's command, as it is printed, under the launchers it may be given to: only its files lie elsewhere."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.forking import Forking
from tests.unit.training.article import PARAMS
from tests.unit.training.builders import texts, write_info
from tunegate.models import make_tiny
from tunegate.processes import free_port

# 16 rows to a step, on two processes: 24 steps, of which ceil(0.15 x 24) = 4 are warm-up, and each fifth is logged.
ROWS = 128
STEPS = 24
DEEPSPEED = {  # as the tool's own page of 2023 had it: no word of bfloat16
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_allow_untested_optimizer": True,
    "fp16": {
        "enabled": "auto",
        "loss_scale": 0,
        "initial_scale_power": 16,
        "loss_scale_window": 1000,
        "hysteresis": 2,
        "min_loss_scale": 1,
    },
    "zero_optimization": {
        "stage": 2,
        "allgather_partitions": True,
        "allgather_bucket_size": 5e8,
        "reduce_scatter": True,
        "reduce_bucket_size": 5e8,
        "overlap_comm": False,
        "contiguous_gradients": True,
    },
}
LAUNCHERS = {
    "torchrun": "torchrun --standalone --local-addr 127.0.0.1 --nproc_per_node=2 -m tunegate train",
    "launch": "python -W ignore -m torch.distributed.launch --nnodes=1 --nproc_per_node=2 --master_addr 127.0.0.1 "
    "--master_port ${port} -m tunegate train",
    "deepspeed": "deepspeed --num_gpus 2 --master_addr 127.0.0.1 --master_port ${port} --module tunegate train",
    "tunegate": "python -m tunegate train",
}


@dataclass(frozen=True)
class Desk:
    """A folder as the article's job finds it: the command's relative paths are in it, the base model beside it."""

    folder: Path
    cache: Path
    python: str  # what torch's launchers start ranks with; deepspeed's starts real ones

    def run(self, launcher: str, more: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """The article's words, expanded by a shell as theirs were."""
        words = PARAMS.replace("/data/oss_bucket_0/", f"{self.folder.parent}/")
        places = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TUNEGATE_CACHE": str(self.cache)}
        quiet = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        environment = {**os.environ, **places, **quiet, "port": str(free_port()), "fp16": "False", "bf16": "True"}
        environment |= {"PYTHON_EXEC": self.python}
        environment.pop("TUNEGATE_STORE", None)
        script = f"{words}\n{LAUNCHERS[launcher]} ${{params}} {more}"
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )

    @property
    def output(self) -> Path:
        return self.folder / "file_path"

    def log(self) -> list[Mapping[str, Any]]:
        return [json.loads(line) for line in (self.output / "trainer_log.jsonl").read_text().splitlines()]

    def saved(self) -> list[str]:
        return sorted(path.name for path in self.output.glob("checkpoint-*"))


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"instruction": f"推荐第{number}款", "input": "男士洗面奶", "output": f"推荐{number % 7}号。", "history": []}
        for number in range(count)
    ]


def lay_out(folder: Path, forking: Forking, made: list[dict[str, Any]]) -> Desk:
    write_info(folder / "data", xuanji={"file_name": "xuanji.json"})
    (folder / "data/xuanji.json").write_text(json.dumps(made, ensure_ascii=False))
    (folder / "ds_config.json").write_text(json.dumps(DEEPSPEED))
    return Desk(folder, folder.parent / "cache", forking.python)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("article")
    make_tiny(folder / "Qwen_14B_Chat_ms_v100", [*texts(), *(row["output"] for row in rows(ROWS))])
    return folder


@pytest.fixture(scope="module")
def trained(room: Path, forking_process: Forking) -> Desk:
    """The article's run, from its beginning to its end."""
    # One row can't be used, of which less than a hundredth is allowed.
    desk = lay_out(room / "torchrun", forking_process, [*rows(ROWS), {"instruction": "没有回答", "output": ""}])
    done = desk.run("torchrun")
    assert done.returncode == 0, done.stdout + done.stderr
    return desk


def test_the_command_runs_to_its_end_under_torchrun(trained: Desk) -> None:
    logged = [line["current_steps"] for line in trained.log()]

    assert {line["total_steps"] for line in trained.log()} == {STEPS}
    assert set(logged) >= {5, 10, 15, 20}
    assert logged[-1] == STEPS
    assert trained.log()[-1]["loss"] < trained.log()[0]["loss"]


@pytest.mark.parametrize("launcher", ["launch", "deepspeed"])
def test_the_command_runs_to_its_end_under_the_other_launchers(
    room: Path, forking_process: Forking, launcher: str
) -> None:
    desk = lay_out(room / launcher, forking_process, rows(32))

    done = desk.run(launcher)

    assert done.returncode == 0, done.stdout + done.stderr
    assert desk.saved() == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


def test_the_learning_rate_is_highest_in_the_step_after_the_warm_up_and_falls_as_a_cosine(trained: Desk) -> None:
    rates = {line["current_steps"]: line["lr"] for line in trained.log()}
    warm_up = math.ceil(0.15 * STEPS)

    assert rates[warm_up + 1] == 2e-6
    for step, rate in rates.items():
        done = (step - 1 - warm_up) / (STEPS - warm_up)
        assert rate == pytest.approx(2e-6 * (1 + math.cos(math.pi * done)) / 2)


def test_each_epoch_leaves_a_checkpoint_and_the_saving_steps_none(trained: Desk) -> None:
    assert trained.saved() == ["checkpoint-16", "checkpoint-24", "checkpoint-8"]


def test_every_row_is_used_or_named(trained: Desk) -> None:
    (rejected,) = [json.loads(line) for line in (trained.output / "rejected.jsonl").read_text().splitlines()]

    assert rejected["file"].endswith("xuanji.json")
    assert rejected["line"] == ROWS + 1
    assert trained.log()[-1]["total_steps"] * 16 == 3 * ROWS


def test_a_saved_folder_renders_the_prompt_that_was_trained_on(trained: Desk) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained.output / f"checkpoint-{STEPS}")
    asked = [{"role": "user", "content": "推荐第0款\n男士洗面奶"}]

    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)

    assert prompt == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n推荐第0款\n男士洗面奶<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_same_command_again_only_reports_and_other_data_is_refused(trained: Desk) -> None:
    log = (trained.output / "trainer_log.jsonl").read_bytes()

    again = trained.run("tunegate")

    assert again.returncode == 0, again.stderr
    assert "The run is complete; its checkpoints are in file_path." in again.stdout
    assert (trained.output / "trainer_log.jsonl").read_bytes() == log
    other = trained.folder / "data/xuanji.json"
    before = other.read_text()
    other.write_text(json.dumps(rows(ROWS)))
    try:
        refused = trained.run("tunegate")
    finally:
        other.write_text(before)
    assert refused.returncode == 2
    assert "other bytes in the data set xuanji" in refused.stderr


def test_an_unknown_flag_is_named_with_the_nearest_one(trained: Desk) -> None:
    done = trained.run("tunegate", "--learning_rat 1")

    assert done.returncode == 2
    assert "There is no --learning_rat; did you mean --learning_rate?" in done.stderr


def test_an_empty_variable_is_told_as_the_cause(trained: Desk) -> None:
    done = trained.run("tunegate", fp16="")

    assert done.returncode == 2
    assert "such as ${fp16} was empty: write --fp16 False" in done.stderr
