from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.training.builders import make_config
from tunegate.api.errors import UsageError
from tunegate.training.config import arguments_of, check_config, check_global_batch, load_deepspeed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"run": "Run 1"}, "--run 'Run 1' can't be part of a version's name", id="name"),
        pytest.param({"model": ""}, "--model '' can't be part", id="no name for the store"),
        pytest.param({"dataset": ()}, "--dataset", id="no data set"),
        pytest.param({"nproc_per_node": 0}, "--nproc_per_node is 0; it must be at least 1", id="count"),
        pytest.param({"learning_rate": 0.0}, "--learning_rate is 0.0; it must be greater", id="rate"),
        pytest.param({"learning_rate": float("nan")}, "--learning_rate is nan", id="nan"),
        pytest.param({"weight_decay": -0.1}, "--weight_decay is -0.1; it must be at least 0", id="negative"),
        pytest.param({"warmup_ratio": 1.0}, "--warmup_ratio is 1.0; it must be in 0..1, without 1", id="share"),
        pytest.param({"truncation": "keep_tail"}, "'keep_tail' is not one of: keep_head, keep_last_turns", id="word"),
        pytest.param({"max_steps": 0}, "--max_steps is 0; give at least 1, or -1", id="steps"),
        pytest.param({"save_total_limit": 0}, "--save_total_limit is 0; it must be at least 1", id="no checkpoint"),
        pytest.param({"num_virtual_tokens": 0}, "--num_virtual_tokens is 0", id="no prompt"),
        pytest.param({"encoder_hidden_size": 0}, "--encoder_hidden_size is 0", id="no width"),
        pytest.param({"num_layer_trainable": 0}, "--num_layer_trainable is 0", id="no layer"),
        pytest.param({"metrics_port": 65536}, "--metrics_port is 65536; it must be in 1..65535", id="port"),
        pytest.param({"lr_scheduler_type": "cosin"}, "'cosin' is not one of: linear", id="schedule"),
        pytest.param({"template": "lama3"}, "no template 'lama3'", id="template"),
        pytest.param({"deepspeed": "/no/such/file.json"}, "can't be read: No such file", id="no file"),
        pytest.param(
            {"fp16": True, "bf16": "true"}, r"keep one.*such as \$\{fp16\} was empty", id="both kinds of 16 bits"
        ),
        pytest.param({"val_size": -0.1}, "--val_size is -0.1", id="negative split"),
        pytest.param(
            {"val_size": 1.5}, "--val_size is 1.5; give a share below 1, or a whole number", id="half an example"
        ),
        pytest.param({"max_source_length": 64}, "belong together; give both", id="half of a rule"),
        pytest.param(
            {"max_source_length": 64, "max_target_length": 64, "truncation": "drop"},
            "--truncation drop and --max_source_length are two rules",
            id="two rules",
        ),
        pytest.param({"interleave_probs": (1.0,)}, "give --mix_strategy", id="shares without a mixture"),
        pytest.param(
            {"interleave_probs": (0.5, 0.5), "mix_strategy": "interleave_under"},
            "has 2 shares and --dataset 1 names",
            id="shares without data",
        ),
        pytest.param(
            {"interleave_probs": (0.0,), "mix_strategy": "interleave_over"}, "greater than 0", id="share of nothing"
        ),
        pytest.param(
            {"finetuning_type": "p_tuning", "packing": True}, "--packing has no place for", id="packed prompts"
        ),
        pytest.param(
            {"finetuning_type": "p_tuning_v2", "packing": True}, "p_tuning_v2.*--packing", id="packed prefixes"
        ),
        pytest.param(
            {"finetuning_type": "p_tuning_v2", "gradient_checkpointing": "true"},
            "which --gradient_checkpointing drops; leave it out",
            id="recomputed prefixes",
        ),
    ],
)
def test_a_setting_that_can_not_work_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    check_config(make_config("s3://models", tmp_path, tmp_path))

    with pytest.raises(UsageError, match=said):
        check_config(make_config("s3://models", tmp_path, tmp_path, **change))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"store": None, "model": "", "run": ""}, id="names without a store"),
        pytest.param({"val_size": 0.1}, id="share for validation"),
        pytest.param({"val_size": 20.0}, id="examples for validation"),
        pytest.param({"max_source_length": 4096, "max_target_length": 4096}, id="the rule of 2023"),
        pytest.param({"finetuning_type": "p_tuning", "gradient_checkpointing": "true"}, id="recomputed prompts"),
        pytest.param(
            {"dataset": ("a", "b"), "mix_strategy": "interleave_over", "interleave_probs": (7.0, 3.0)}, id="mixture"
        ),
        pytest.param({"metrics_port": 9400, "save_total_limit": 1, "max_grad_norm": 0.0}, id="edges"),
    ],
)
def test_a_setting_that_can_work_is_not_refused(tmp_path: Path, change: dict[str, object]) -> None:
    check_config(make_config("s3://models", tmp_path, tmp_path, **change))


@pytest.mark.parametrize(
    ("text", "change", "said"),
    [
        pytest.param("[]", {}, "is not a JSON object", id="not an object"),
        pytest.param('{"scheduler": {}}', {}, "would replace --lr_scheduler_type", id="schedule"),
        pytest.param(
            '{"train_micro_batch_size_per_gpu": 2}',
            {},
            r"says train_micro_batch_size_per_gpu 2, but --per_device_train_batch_size is 4",
            id="batch size",
        ),
        pytest.param(
            '{"gradient_accumulation_steps": 4}', {}, "but --gradient_accumulation_steps is 1", id="accumulation"
        ),
        pytest.param('{"gradient_clipping": 0.5}', {}, "but --max_grad_norm is 1.0", id="clipping"),
        pytest.param('{"optimizer": {"params": {"lr": 1e-5}}}', {}, "optimizer.params.lr 1e-05", id="rate"),
        pytest.param('{"bf16": {"enabled": true}}', {}, "bf16.enabled true, but --bf16 is false", id="bfloat16"),
        pytest.param('{"fp16": {"enabled": true}}', {"bf16": "auto"}, "but --fp16 is false", id="float16"),
        pytest.param(
            '{"zero_optimization": {"stage": 3}}', {"finetuning_type": "p_tuning"}, "p_tuning and ZeRO-3", id="prompts"
        ),
        pytest.param(
            '{"zero_optimization": {"stage": 3}}', {"finetuning_type": "p_tuning_v2"}, "use ZeRO-2", id="prefixes"
        ),
    ],
)
def test_a_deepspeed_file_that_can_not_work_is_refused(
    tmp_path: Path, text: str, change: dict[str, object], said: str
) -> None:
    (tmp_path / "ds.json").write_text(text)

    with pytest.raises(UsageError, match=said):
        check_config(make_config("s3://models", tmp_path, tmp_path, deepspeed=str(tmp_path / "ds.json"), **change))


def test_a_deepspeed_file_may_say_what_the_flags_say(tmp_path: Path) -> None:
    said = {"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 1, "gradient_clipping": 1}
    said |= {"bf16": {"enabled": False}, "fp16": {"enabled": "auto"}, "optimizer": {"params": {"lr": 1e-3}}}
    (tmp_path / "ds.json").write_text(json.dumps({**said, "train_batch_size": 8}))
    config = make_config("s3://models", tmp_path, tmp_path, deepspeed=str(tmp_path / "ds.json"))

    check_config(config)
    check_global_batch(config, 2)

    assert load_deepspeed(config)["gradient_accumulation_steps"] == "auto"  # more, where fewer processes go on
    with pytest.raises(UsageError, match=r"says train_batch_size 8, but .* is 12"):
        check_global_batch(config, 3)


def test_places_and_what_is_shown_are_not_part_of_a_run(tmp_path: Path) -> None:
    one = make_config("s3://models", tmp_path, tmp_path)
    other = make_config("s3://models/x", tmp_path / "data", tmp_path / "out", logging_steps=9, endpoint_url="http://x")

    assert arguments_of(one) == arguments_of(other)


def test_the_contents_of_the_deepspeed_file_are_part_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 1}}')

    changed = make_config("s3://models", tmp_path, tmp_path, deepspeed=str(tmp_path / "ds.json"))

    assert arguments_of(changed)["deepspeed"] == {"zero_optimization": {"stage": 1}}
    assert arguments_of(changed) != arguments_of(make_config("s3://models", tmp_path, tmp_path))
