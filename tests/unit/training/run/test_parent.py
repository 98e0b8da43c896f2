from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from safetensors.torch import load_file

from tests.unit.training.alone import config_of, make_shop, train_here
from tests.unit.training.builders import make_config
from tests.unit.training.conftest import LORA, Run, Shop
from tunegate.api.errors import TunegateError, UsageError
from tunegate.api.pinned import base_of
from tunegate.api.versions import Producer, Release
from tunegate.training.loop import trainer
from tunegate.training.run.parent import find_parent
from tunegate.training.run.plan import read_record
from tunegate.training.run.progress import read_log

# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


@pytest.fixture
def first_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is trained, as the model has it before the first step, by the names of an adapter's file."""
    weights: dict[str, Any] = {}
    load = trainer.load_model

    def load_model(*arguments: Any) -> Any:
        model = load(*arguments)
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weights[name.replace(".default", "")] = weight.detach().clone()
        return model

    monkeypatch.setattr(trainer, "load_model", load_model)
    return weights


def test_a_run_begins_where_the_version_it_names_stood(
    lora: Run, shop: Shop, first_weights: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    version = lora.versions[-1]
    config = shop.config("further", run="further", resume_from=version.name, **{**LORA, "num_train_epochs": 1})

    with caplog.at_level("INFO"):
        further = train_here(config)

    weights = load_file(lora.output / "checkpoint-12" / "adapter_model.safetensors")
    assert {name: weight.tolist() for name, weight in first_weights.items()} == {
        name: weight.tolist() for name, weight in weights.items()
    }
    losses = [step.loss for step in read_log(lora.output)], [step.loss for step in read_log(Path(config.output_dir))]
    assert losses[1][0] < sum(losses[0][:3]) / 3
    made = shop.store.manifest(further[-1].name).producer.training
    assert made
    assert made.resumed_from == base_of(version)
    assert "its optimizer starts anew" in caplog.text
    mine, its = read_record(Path(config.output_dir)), read_record(lora.output)
    assert mine
    assert its
    assert mine.start == version.digest
    assert mine.identity != msgspec.structs.replace(mine, start="").identity

    with pytest.raises(UsageError, match=f"began with --resume_from {version.digest}, not left out"):
        train_here(msgspec.structs.replace(config, resume_from=""))


@pytest.mark.parametrize("method", ["lora", "p_tuning_v2", "full"])
def test_a_folder_of_a_run_is_gone_on_from(method: str, tmp_path: Path, first_weights: dict[str, Any]) -> None:
    folder = make_shop(tmp_path, 8)
    before = config_of(folder, "before", method, 2, learning_rate=0.01, max_steps=1)
    train_here(before)
    (weights,) = Path(before.output_dir, "checkpoint-1").glob("*model.safetensors")
    kept = load_file(weights)
    first_weights.clear()

    after = config_of(folder, "after", method, 2, resume_from=f"{before.output_dir}/checkpoint-1", max_steps=1)
    train_here(after)
    if method != "full":
        Path(before.output_dir, "checkpoint-1", "note").touch()
        train_here(after)  # is complete, as it is the same adapter

    assert kept
    assert {name: first_weights[_in_model(name)].tolist() for name in kept} == {
        name: weight.tolist() for name, weight in kept.items()
    }


def _in_model(name: str) -> str:
    return "prompt_encoder.embedding.weight" if name == "prompt_embeddings" else name


Change = dict[str, Any]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"lora_rank": 4}, "--lora_rank 16 --lora_alpha 32, where the flags say 4, 8", id="rank"),
        pytest.param({"lora_alpha": 16}, "--lora_alpha 32, where the flags say 16", id="alpha"),
        pytest.param({"finetuning_type": "full"}, "--finetuning_type lora, where the flags say full", id="method"),
        pytest.param({"resume_from": "tiny/lora/checkpoint-7"}, "tiny/lora/checkpoint-7", id="version"),
    ],
)
def test_what_does_not_fit_the_version_is_refused(change: Change, words: str, lora: Run, shop: Shop) -> None:
    config = shop.config("unfit", run="unfit", **{**LORA, "resume_from": lora.versions[-1].name, **change})

    with pytest.raises(TunegateError, match=words):
        find_parent(config, shop.store, shop.base.digest)


def test_an_adapter_of_another_trainer_is_published_with_its_base_and_gone_on_from(
    lora: Run, shop: Shop, tmp_path: Path
) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(lora.output / "checkpoint-12" / name, tmp_path)
    config = shop.config("foreign", run="foreign", **LORA, resume_from=str(tmp_path))
    with pytest.raises(UsageError, match="nothing says what it was trained on; publish it with"):
        find_parent(config, shop.store, shop.base.digest)

    release = Release(format="lora-adapter", base=base_of(shop.base))
    name = "tiny/foreign/checkpoint-1"
    version = shop.store.publish(tmp_path, name, release=release, producer=Producer(kind="test"))

    found = find_parent(msgspec.structs.replace(config, resume_from=name), shop.store, shop.base.digest)
    assert found
    assert found.digest == version.digest


def test_a_soft_prompt_without_its_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"base": "sha256:1"}')
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "P_TUNING", "num_virtual_tokens": 20}')
    config = make_config(None, tmp_path, tmp_path, finetuning_type="p_tuning", resume_from=str(tmp_path))

    with pytest.raises(UsageError, match="without the encoder that p_tuning trains; start from the base"):
        find_parent(config, None, "sha256:1")


def test_another_base_is_refused(lora: Run, shop: Shop) -> None:
    config = shop.config("unfit", run="unfit", **LORA, resume_from=lora.versions[-1].name)

    with pytest.raises(UsageError, match=f"trained on the base {shop.base.digest}.*give that base"):
        find_parent(config, shop.store, lora.versions[0].digest)
