"""Files of settings as people write them for LLaMA-Factory, with the keys its examples have."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.unit.training.builders import write_info
from tunegate.api.errors import UsageError
from tunegate.cli.train import command, config_of
from tunegate.training import TrainConfig
from tunegate.training.compat.yaml_file import arguments_of_file
from tunegate.training.config import check_config

ZERO3 = '{"train_batch_size": "auto", "bf16": {"enabled": "auto"}, "zero_optimization": {"stage": 3}}'
# What all of its examples for --stage sft say, with a base and a data set of this test's.
COMMON = """
### model
model_name_or_path: shop/base
trust_remote_code: true

### method
stage: sft
do_train: true

### dataset
dataset: shop, more
cutoff_len: 2048
max_samples: 1000
preprocessing_num_workers: 16
dataloader_num_workers: 4

### output
output_dir: saves/shop/sft
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
save_only_model: false
report_to: none  # choices: [none, wandb, tensorboard, swanlab, mlflow]

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null

### eval
# val_size: 0.1
"""
LORA = "finetuning_type: lora\nlora_rank: 8\nlora_target: all\n"
FULL = "finetuning_type: full\ndeepspeed: ds_z3_config.json  # choices: [ds_z0_config.json, ds_z2_config.json]\n"
IMAGES = "image_max_pixels: 262144\nvideo_max_pixels: 16384\n"
VIDEOS = IMAGES + "video_fps: 1.0\nvideo_maxlen: 256\n"
FROZEN = "freeze_vision_tower: true\nfreeze_multi_modal_projector: true\nfreeze_language_model: false\n"
CHECKPOINTED = (
    "use_reentrant_gc: false\npacking: false\ngradient_checkpointing: true\n"
    "gradient_checkpointing_kwargs:\n  use_reentrant: false\n"
)
BITS = (
    "quantization_bit: 4  # choices: [8 (bnb/hqq/eetq), 4 (bnb/hqq)]\nquantization_method: bnb  # choices: [bnb, hqq]\n"
)
KERNELS = "use_kt: true\nkt_cpu_activation: retain\nkt_config:\n  kt_backend: AMXBF16\n  kt_num_threads: 96\n"
QWEN3, LLAMA3 = "template: qwen3_nothink\n", "template: llama3\n"
DPO = "pref_beta: 0.1\npref_loss: sigmoid  # choices: [sigmoid (dpo), orpo, simpo]\n"
NO_BITS = ["--quantization_bit 4", "--quantization_method bnb"]
NOT_SEEN = ["There is no template 'qwen3_vl_nothink'", "Did you mean qwen3_nothink"]

# All 19 files of its train_full, train_lora and train_qlora by their names, 14 of them for --stage sft, and what is
# refused of each. The bases of the last three are quantized already, which is seen when they are read.
EXAMPLES = {
    "mossvl_full_sft": (VIDEOS + FULL + FROZEN + CHECKPOINTED + "template: moss_vl\n", ["no template 'moss_vl'"]),
    "qwen3_full_sft": (FULL + QWEN3, []),
    "qwen3vl_full_sft": (IMAGES + FULL + FROZEN + "template: qwen3_vl_nothink\n", NOT_SEEN),
    "mossvl_lora_sft": (VIDEOS + LORA + FROZEN + "template: moss_vl\npacking: false\n", ["no template 'moss_vl'"]),
    "qwen3_lora_dpo": ("stage: dpo\n" + LORA + DPO + QWEN3, []),
    "qwen3_lora_kto": ("stage: kto\n" + LORA + "pref_beta: 0.1\n" + QWEN3, ["--stage kto is not supported"]),
    "qwen3_lora_pretrain": ("stage: pt\n" + LORA, ["--stage pt is not supported"]),
    "qwen3_lora_reward": ("stage: rm\n" + LORA + QWEN3, ["--stage rm is not supported"]),
    "qwen3_lora_sft": (LORA + QWEN3, []),
    "qwen3_lora_sft_ds3": (LORA + "deepspeed: ds_z3_config.json\n" + QWEN3, []),
    "qwen3_lora_sft_ray": (LORA + QWEN3 + "ray_num_workers: 4\n", ["--ray_num_workers 4"]),
    "qwen3_preprocess": (LORA + QWEN3 + "tokenized_path: saves/tokens\n", ["--tokenized_path saves/tokens"]),
    "qwen3vl_lora_dpo": (IMAGES + "stage: dpo\n" + LORA + DPO + "template: qwen3_vl_nothink\n", NOT_SEEN),
    "qwen3vl_lora_sft": (IMAGES + LORA + "template: qwen3_vl_nothink\n", NOT_SEEN),
    "qwen3_lora_sft_bnb_npu": (BITS + "double_quantization: false\n" + LORA + QWEN3, NO_BITS),
    "qwen3_lora_sft_otfq": (BITS + LORA + QWEN3, NO_BITS),
    "llama3_lora_sft_aqlm": (LORA + LLAMA3, []),
    "llama3_lora_sft_awq": (LORA + LLAMA3, []),
    "llama3_lora_sft_gptq": (LORA + LLAMA3, []),
}
OF_OTHER_FOLDERS = {
    "kernels on a CPU": (KERNELS + LORA, ["--use_kt true", "--kt_cpu_activation retain", "--kt_config"]),
    "a model that sees, by the base's own template": (VIDEOS + LORA + FROZEN, []),
    "full, checkpointing": ("finetuning_type: full\n" + CHECKPOINTED, []),
    "an alpha": (LORA + "lora_alpha: 16\n", []),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("TUNEGATE_STORE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    write_info(tmp_path / "data", shop={"file_name": "shop.jsonl"}, more={"file_name": "more.jsonl"})
    (tmp_path / "ds_z3_config.json").write_text(ZERO3)
    return tmp_path


def asked(text: str, *words: str) -> TrainConfig:
    """The run that a file and the words after it ask for."""
    Path("sft.yaml").write_text(text, encoding="utf-8")
    context = command.make_context("train", ["sft.yaml", *words])
    config = config_of({name: value for name, value in context.params.items() if name != "as_json"})
    check_config(config)
    return config


def test_all_its_examples_are_here() -> None:
    assert len(EXAMPLES) == 19
    assert sum("stage:" not in text for text, _ in EXAMPLES.values()) == 14  # the others are for --stage sft


@pytest.mark.parametrize("name", [*EXAMPLES, *OF_OTHER_FOLDERS])
def test_an_example_is_read_or_all_that_is_refused_is_named(folder: Path, name: str) -> None:
    text, refused = {**EXAMPLES, **OF_OTHER_FOLDERS}[name]
    text = (COMMON.replace("stage: sft\n", "") if "stage:" in text else COMMON) + text
    if refused:
        with pytest.raises(UsageError) as caught:
            asked(text)
        assert all(words in str(caught.value) for words in refused)
        return

    config = asked(text)

    assert (config.dataset, config.output_dir) == (("shop", "more"), "saves/shop/sft")
    assert (config.save_strategy, config.save_steps, config.logging_steps) == ("steps", 500, 10)
    assert (config.learning_rate, config.warmup_ratio, config.max_samples) == (1e-4, 0.1, 1000)
    assert (config.lora_rank, config.alpha) == (8, 16)
    asked_for = yaml.safe_load(text)
    assert (config.stage, config.finetuning_type) == (asked_for["stage"], asked_for["finetuning_type"])
    assert config.template == asked_for.get("template", "auto")


def test_the_flags_of_pairs_are_read(folder: Path) -> None:
    config = asked(COMMON.replace("stage: sft\n", "stage: dpo\npref_beta: 0.2\n") + LORA, "pref_ftx=0.1")

    assert (config.stage, config.pref_beta, config.pref_ftx, config.finetuning_type) == ("dpo", 0.2, 0.1, "lora")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("stage: dpo\npref_loss: orpo", "--pref_loss orpo is not supported: the loss over", id="loss"),
        pytest.param("stage: dpo\npacking: true", "its two answers in rows of their own", id="packing"),
        pytest.param("stage: dpo\nref_model: other", "the reference is the base", id="reference"),
        pytest.param("stage: kto", "--stage kto is not supported: tunegate trains on given", id="another stage"),
        pytest.param("stage: sft\npref_beta: 0.2", "--pref_beta is about pairs of answers", id="not of pairs"),
    ],
)
def test_what_is_not_done_with_pairs_is_named(folder: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked(COMMON.replace("stage: sft", text) + LORA)

    assert said in str(caught.value)


def test_flags_after_a_file_win(folder: Path) -> None:
    config = asked(COMMON + LORA, "learning_rate=2e-5", "--num_train_epochs", "1", "--dataset=shop", "--bf16", "false")

    assert (config.learning_rate, config.num_train_epochs) == (2e-5, 1.0)
    assert (config.dataset, config.bf16) == (("shop",), "false")


def test_a_file_means_what_it_means_there_by_what_it_leaves_out_too(folder: Path) -> None:
    config = asked("model_name_or_path: shop/base\ndataset: [shop, more]\noutput_dir: out\nsave_strategy: no\n")

    assert (config.lr_scheduler_type, config.lora_rank, config.alpha) == ("linear", 8, 16)
    assert (config.dataset, config.save_strategy) == (("shop", "more"), "no")


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        pytest.param("bf16: yes\nfp16: false", ["--bf16=true", "--fp16=false"], id="yes and no"),
        pytest.param("seed: null\ncutoff_len: 64", ["--cutoff_len=64"], id="nothing"),
        pytest.param("lora_target: [q_proj, v_proj]", ["--lora_target=q_proj,v_proj"], id="a list"),
        pytest.param("learning_rate: 1e-5", ["--learning_rate=1e-5"], id="a number that YAML takes for text"),
        pytest.param("lr_scheduler_kwargs: {min_lr: 1.0e-7}", ['--lr_scheduler_kwargs={"min_lr": 1e-07}'], id="nested"),
        pytest.param('{"seed": 7}', ["--seed=7"], id="JSON"),
        pytest.param("# 训练\noutput_dir: 输出", ["--output_dir=输出"], id="in Chinese"),
    ],
)
def test_each_kind_of_value_becomes_a_word(text: str, arguments: list[str]) -> None:
    assert [word for word in arguments_of_file(text, "sft.yaml") if word in arguments] == arguments


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("a: [1", "sft.yaml, line 1 is not YAML", id="no YAML"),
        pytest.param("model\n", "sft.yaml is no list of settings", id="no settings"),
        pytest.param("", "sft.yaml is no list of settings", id="empty"),
        pytest.param("seed: 1\nseed: 2", "has seed twice; keep one", id="twice"),
        pytest.param(yaml.dump({"model": "x", "peft_config": {}}), "v1 layout; write the keys of LLaMA", id="v1"),
        pytest.param("base_model: x\ndatasets: []", "base_model, datasets, of Axolotl's layout; write", id="axolotl"),
        pytest.param("model:\n  seed: 1", "settings below model; write them flat", id="in groups"),
        pytest.param("deepspeed:\n  stage: 2", "below deepspeed; write them into a file", id="deepspeed"),
    ],
)
def test_what_is_no_file_of_settings_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        arguments_of_file(text, "sft.yaml")
