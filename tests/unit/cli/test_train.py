from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from tests.builders import make_version
from tunegate import cli, training
from tunegate.api.errors import TunegateError, UsageError
from tunegate.cli.train import command
from tunegate.training import Progress, TrainConfig
from tunegate.training.config import check_config, settings

PLACES = ["--model_name_or_path", "base", "--dataset_dir", "d", "--output_dir", "out/r1", "--dataset", "a, b"]
STORE = ["--model", "shop", "--store", "s3://models"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The runs that were asked for, instead of running them."""
    configs: list[TrainConfig] = []

    def train(config: TrainConfig, report: Any = None) -> Any:
        configs.append(config)
        version = make_version("r1")
        if report:
            at: dict[str, Any] = {"total_steps": 10, "elapsed_time": "0:00:09", "remaining_time": "0:01:15"}
            report(Progress(current_steps=5, epoch=0.5, percentage=50.0, loss=1.25, tokens_per_second=512.4, **at))
            report(Progress(current_steps=5, epoch=0.5, percentage=50.0, eval_loss=1.5, **at))
            report(version)
        return [version] if config.store else []

    monkeypatch.setattr(training, "train", train)
    ranks = ModuleType("ranks")  # the real one needs torch
    ranks.train = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tunegate.training.launch.external", ranks)
    for name in ("TUNEGATE_STORE", "AWS_ENDPOINT_URL", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return configs


def run(*words: str) -> Result:
    return CliRunner().invoke(command, [*PLACES, *words], catch_exceptions=True)


def refusal(result: Result) -> str:
    """Our own sentence, or click's."""
    if isinstance(result.exception, TunegateError):
        assert result.exception.exit_code == 2
        return str(result.exception)
    assert result.exit_code == 2, result.exception
    return result.output


def test_every_setting_of_a_run_is_an_option_that_the_help_tells_of() -> None:
    shown = CliRunner().invoke(command, ["--help"]).output
    plain = " ".join(shown.split())

    assert [name for name in TrainConfig.__struct_fields__ if f"  --{name} " not in shown] == []
    assert [setting.name for setting in settings() if setting.description not in plain] == []
    assert [setting.group for setting in settings() if f"\n{setting.group}:\n" not in shown] == []


def test_options_left_out_mean_what_the_library_means(asked: list[TrainConfig]) -> None:
    assert run().exit_code == 0

    places = {"model_name_or_path": "base", "dataset_dir": "d", "output_dir": "out/r1"}
    assert asked == [TrainConfig(**places, dataset=("a", "b"), run="r1")]


def test_every_option_reaches_the_run_as_a_value_of_its_type(asked: list[TrainConfig]) -> None:
    result = run(
        *STORE,
        *("--endpoint_url=http://127.0.0.1:1", "--learning_rate", "2e-6", "--warmup_steps", "7", "--max_steps", "-1"),
        *("--interleave_probs", "0.7,0.3", "--lora_target", "q_proj,v_proj", "--val_size", "0.1", "--packing"),
        *("--is_shuffle", "False", "--bf16", "--gradient_checkpointing", "False", "--metrics_port", "9400"),
    )

    assert result.exit_code == 0, result.output
    config = asked[0]
    assert (config.store, config.endpoint_url, config.model, config.run) == (
        "s3://models",
        "http://127.0.0.1:1",
        "shop",
        "r1",
    )
    assert (config.learning_rate, config.warmup_steps, config.max_steps) == (2e-6, 7, -1)
    assert (config.interleave_probs, config.lora_target, config.val_size) == ((0.7, 0.3), ("q_proj", "v_proj"), 0.1)
    assert (config.packing, config.is_shuffle, config.bf16, config.gradient_checkpointing, config.metrics_port) == (
        True,
        False,
        "true",
        "false",
        9400,
    )
    assert msgspec.json.decode(msgspec.json.encode(config), type=TrainConfig) == config


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        pytest.param(["--learning-rate=1e-3"], {"learning_rate": 1e-3}, id="dashes"),
        pytest.param(["--endpoint-url", "http://x"], {"endpoint_url": "http://x"}, id="dashes, and a value apart"),
        pytest.param([r"\--seed", "7", "\\", r"\--packing"], {"seed": 7, "packing": True}, id="backslashes"),
        pytest.param(["--local-rank=1", "--seed", "7", "--local_rank=1"], {"seed": 7}, id="a launcher's rank"),
        pytest.param(["--stage", "sft", "--do_train", "--seed", "7"], {"seed": 7}, id="nothing else is done"),
        pytest.param(["--pre_seq_len", "128"], {"num_virtual_tokens": 128}, id="ChatGLM's name"),
        pytest.param(["--freeze_trainable_layers=2"], {"num_layer_trainable": 2}, id="today's name"),
        pytest.param(["--neat_packing"], {"packing": True}, id="today's name, alone"),
        pytest.param(["--disable_shuffling"], {"is_shuffle": False}, id="the opposite"),
        pytest.param(["--disable_shuffling", "False"], {"is_shuffle": True}, id="not the opposite"),
        pytest.param(["--no-resume"], {"resume": False}, id="our opposite"),
        pytest.param(["--finetuning_type", "P-Tuning-v2"], {"finetuning_type": "p_tuning_v2"}, id="another spelling"),
        pytest.param(["--finetuning_type=ptuning"], {"finetuning_type": "p_tuning"}, id="a third one"),
        pytest.param(["--fp16", "--bf16", "False"], {"fp16": True, "bf16": "false"}, id="alone it means yes"),
        pytest.param(["--optim", "adamw_torch", "--seed", "7"], {"seed": 7}, id="what is done anyway"),
        pytest.param(["--push_to_hub", "False", "--seed", "7"], {"seed": 7}, id="a refused thing's no"),
        pytest.param(["--save_steps", "3"], {"save_steps": 3, "save_strategy": "steps"}, id="steps alone"),
        pytest.param(["--save_steps", "0.1"], {"save_steps": 0.1, "save_strategy": "steps"}, id="a share of the steps"),
        pytest.param(["--save_strategy", "no"], {"save_strategy": "no"}, id="only the end"),
        pytest.param(["--warmup_steps", "0.1"], {"warmup_ratio": 0.1}, id="a share of the steps, to warm up"),
        pytest.param(["--lora_target", "all-linear"], {}, id="all of them, in peft's word"),
        pytest.param(
            ["--lora_target_modules", "q_proj", "v_proj", "--lora_r=4"],
            {"lora_target": ("q_proj", "v_proj"), "lora_rank": 4},
            id="TRL's names, and several words",
        ),
        pytest.param(["--use_peft", "--max_length", "64"], {"cutoff_len": 64}, id="TRL's names"),
        pytest.param(["--use_lora", "False"], {"finetuning_type": "full"}, id="Qwen's name, and no"),
        pytest.param(["--train_type", "full"], {"finetuning_type": "full"}, id="ms-swift's name"),
        pytest.param(["--model", "Qwen/Qwen3-4B"], {"model_name_or_path": "Qwen/Qwen3-4B"}, id="ms-swift's model"),
        pytest.param(["--torch_dtype", "bfloat16"], {"bf16": "true"}, id="a kind of numbers"),
        pytest.param(["--dtype=torch.float16"], {"fp16": True, "bf16": "false"}, id="another kind of numbers"),
        pytest.param(["--optim", "adamw_hf", "--adam_beta2", "0.95"], {"adam_beta2": 0.95}, id="an older optimizer"),
        pytest.param(["--report_to", "none", "--resume_from_checkpoint", "true"], {}, id="what is done anyway, twice"),
        pytest.param(["--dataset", "x", "y", "--seed", "7"], {"dataset": ("x", "y"), "seed": 7}, id="several words"),
        pytest.param(["--save_strategy", "epoch", "--save_steps", "10000"], {"save_steps": 10000}, id="epochs win"),
    ],
)
def test_spellings_of_2023_and_of_today_are_ours(
    asked: list[TrainConfig], words: list[str], changed: dict[str, object]
) -> None:
    result = run(*words)

    assert (result.exit_code, result.stderr) == (0, "")
    default = TrainConfig(model_name_or_path="base", dataset_dir="d", output_dir="out/r1", dataset=("a", "b"), run="r1")
    assert asked == [msgspec.structs.replace(default, **changed)]


def test_what_has_no_effect_is_said(asked: list[TrainConfig]) -> None:
    note = "--use_fast_tokenizer has no effect: every tokenizer is a fast one.\n"

    assert run("--use_fast_tokenizer", "False").stderr == note


def test_of_the_ranks_of_a_launcher_only_the_first_speaks(
    asked: list[TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("RANK", "1")
    for words in ([], ["--json"]):
        assert run("--use_fast_tokenizer", "False", *words).output == ""

    monkeypatch.setenv("RANK", "0")
    assert "step 5/10" in run().stdout


def test_a_node_that_is_not_the_first_says_so(asked: list[TrainConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "train", lambda *_: [])
    monkeypatch.setenv("RANK", "1")  # a PyTorchJob's RANK counts nodes

    assert run(*STORE).stdout == "This node's part of the run is complete; the first node lists the versions.\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        pytest.param(["--learning_rat", "1"], "no --learning_rat; did you mean --learning_rate?", id="misspelled"),
        pytest.param(["--learning_rate", "fast"], "'fast' is not a valid float", id="no number"),
        pytest.param(["--finetuning_type", "oft"], "'full', 'lora', 'freeze', 'p_tuning', 'p_tuning_v2'", id="method"),
        pytest.param(["--packing", "perhaps"], "'perhaps' is not a valid boolean", id="neither yes nor no"),
        pytest.param(["--interleave_probs", "0.7,x"], "'x' is not a valid float", id="no number among several"),
        pytest.param(["--stage", "ppo", "--reward_model", "r"], "--stage ppo is not supported", id="stage"),
        pytest.param(["--optim", "galore_adamw"], "'galore_adamw' is not one of 'adamw_torch'", id="optimizer"),
        pytest.param(["--use_galore"], "--use_galore is not supported: it needs whole matrices", id="projections"),
        pytest.param(["--kt_backend", "amx"], "--kt_backend amx is not supported", id="a family"),
        pytest.param(["--seed", "7", "more"], "'more' is no flag; a flag begins with --", id="no flag"),
        pytest.param(["--frobnicate", "1"], "There is no --frobnicate; leave it out", id="unknown"),
        pytest.param(["--quantization_bit", "4"], "`tunegate quantize`", id="quantized base"),
        pytest.param(["--q-lora"], "--q_lora is not supported: train in bfloat16", id="of Qwen"),
        pytest.param(["--store", "s3://models"], "Versions in s3://models need a name; give --model", id="no name"),
    ],
)
def test_wrong_words_are_refused_with_a_remedy(asked: list[TrainConfig], words: list[str], reason: str) -> None:
    message = refusal(run(*words))

    assert re.search(reason if ".*" in reason else re.escape(reason), " ".join(message.split())), message
    assert not asked


def test_all_that_is_refused_is_in_one_message(asked: list[TrainConfig]) -> None:
    result = run(
        *("--trust_remote_code", "true", "--overwrite_output_dir", "true", "--template", "qwen", "--use_dora", "true"),
        *("--optim", "adam_w", "--fsdp", "full_shard", "--learning_rate", "fast", "--max_steps", "0", "--odd", "1"),
    )

    said = refusal(result)
    for words in ("--use_dora", "--optim", "--fsdp", "'fast' is not a valid float", "--odd", "--max_steps is 0"):
        assert words in said
    assert said.count("\n- ") == int(said.split()[0])
    assert not asked


def test_settings_that_can_not_go_together_are_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)^3 things can't be done:\n- --fp16.*\n- --lr_scheduler.*\n- --val_size"):
        check_config(
            TrainConfig(
                model_name_or_path="base",
                dataset=("a",),
                output_dir=str(tmp_path),
                fp16=True,
                bf16="true",
                val_size=1.5,
                lr_scheduler_kwargs="min_lr=1",
            )
        )


def test_everything_that_is_missing_is_named_at_once(asked: list[TrainConfig]) -> None:
    result = CliRunner().invoke(command, ["--output_dir", "o"])

    assert refusal(result).startswith("A run needs --model_name_or_path and --dataset;")


def test_a_run_is_named_by_its_folder_unless_it_is_given_a_name(asked: list[TrainConfig]) -> None:
    for words in (["--output_dir", "runs/File_Path 3/"], ["--run", "r2"]):
        run(*STORE, *words)

    assert [config.run for config in asked] == ["file-path-3", "r2"]


def test_a_launcher_may_put_a_rank_before_the_verb(asked: list[TrainConfig]) -> None:
    for rank in ("--local-rank=1", "--local_rank=1"):
        with pytest.raises(SystemExit) as end:
            cli.main([rank, "train", *PLACES])
        assert end.value.code == 0

    assert len(asked) == 2


def test_progress_is_one_line_a_step_and_versions_are_named(asked: list[TrainConfig]) -> None:
    result = run(*STORE)

    assert "step 5/10  epoch 0.50  loss 1.2500  512 tokens/s  0:01:15 left\n" in result.stdout
    assert "step 5/10  epoch 0.50  validation loss 1.5000  0:01:15 left\n" in result.stdout
    assert "published shop/r1/checkpoint-10  sha256:" in result.stdout
    assert "its version is shop/r1/checkpoint-10" in result.stdout


def test_a_run_without_a_store_says_where_its_checkpoints_are(asked: list[TrainConfig]) -> None:
    assert run().stdout.endswith("The run is complete; its checkpoints are in out/r1.\n")


def test_json_is_the_versions_and_nothing_else(asked: list[TrainConfig]) -> None:
    result = run(*STORE, "--json", "--use_fast_tokenizer", "True")

    assert [version["name"] for version in json.loads(result.stdout)] == ["shop/r1/checkpoint-10"]


def test_a_refusal_is_one_sentence_of_our_own(asked: list[TrainConfig], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["train", *PLACES, "--store", "s3://models"])

    assert (end.value.code, capsys.readouterr().err.count("\n")) == (UsageError.exit_code, 1)
