from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tests.unit.training.alone import make_shop, plan_of, train_alone
from tests.unit.training.builders import make_config
from tunegate.api.errors import ModelError
from tunegate.api.versions import BaseModel
from tunegate.models.templates import TURN_END, load_template
from tunegate.training.data.tokenize import load_tokenizer
from tunegate.training.loop.methods import count_parameters, load_model, make_servable

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
# What DeepSpeed, accelerate, peft and torch think of one another's names.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shop(tmp_path_factory.mktemp("methods"), 8)


def load(folder: Path, method: str, adapter_folder: str = "", **changes: Any) -> Any:
    model = folder / "model"
    config = make_config(None, folder, folder, model_name_or_path=str(model), finetuning_type=method, **changes)
    arguments: Any = SimpleNamespace(bf16=False, fp16=False)
    plan = msgspec.structs.replace(plan_of(config), adapter_folder=adapter_folder)
    return load_model(plan, load_tokenizer(model, "chatml"), arguments)


def test_an_adapter_goes_on_on_the_modules_that_it_is_on(folder: Path, tmp_path: Path) -> None:
    load(folder, "lora", lora_target=("q_proj", "v_proj")).save_pretrained(tmp_path)

    with pytest.raises(ModelError, match=r"is on other modules; give its own: --lora_target q_proj,v_proj\."):
        load(folder, "lora", adapter_folder=str(tmp_path))
    load(folder, "lora", lora_target=("q_proj", "v_proj"), adapter_folder=str(tmp_path))


def trained(model: Any) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


def test_full_trains_everything(folder: Path) -> None:
    model = load(folder, "full")

    assert trained(model) == {name for name, _ in model.named_parameters()}
    assert count_parameters(model) == (model.num_parameters(), model.num_parameters())


def test_an_adapter_names_its_modules_in_an_order_that_no_process_chooses(folder: Path, tmp_path: Path) -> None:
    model = load(folder, "lora", lora_target=("all",))
    model.save_pretrained(tmp_path)
    make_servable(tmp_path, model, plan_of(make_config(None, folder, folder, model_name_or_path=str(folder / "model"))))

    named = msgspec.json.decode((tmp_path / "adapter_config.json").read_bytes())["target_modules"]
    assert len(named) == 7
    assert named == sorted(named)


def test_a_base_that_lacks_weights_is_not_trained(folder: Path, tmp_path: Path) -> None:
    base = shutil.copytree(folder / "model", tmp_path / "model")
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=r"lacks weights, such as model\.layers\.1\.mlp\.up_proj\.weight"):
        load(tmp_path, "full")


def test_lora_trains_every_linear_module_or_those_named(folder: Path) -> None:
    everywhere = trained(load(folder, "lora"))
    named = trained(load(folder, "lora", lora_target=("q_proj", "mlp.down_proj"), lora_rank=2))

    assert all(".lora_" in name for name in everywhere)
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in everywhere} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in named} == {"q_proj", "down_proj"}


def test_freezing_trains_the_named_modules_of_the_last_layers(folder: Path) -> None:
    layers = load(folder, "full").config.num_hidden_layers

    mlp = trained(load(folder, "freeze", num_layer_trainable=1))
    more = trained(load(folder, "freeze", num_layer_trainable=2, name_module_trainable="self_attn.q_proj, mlp"))

    last = f"model.layers.{layers - 1}.mlp"
    assert mlp == {f"{last}.{name}_proj.weight" for name in ("gate", "up", "down")}
    assert {name.split(".", 3)[2] for name in more} == {str(layers - 2), str(layers - 1)}
    assert {name.split(".", 3)[3].split("_proj")[0] for name in more} == {
        "self_attn.q",
        "mlp.gate",
        "mlp.up",
        "mlp.down",
    }


@pytest.mark.parametrize("width", [None, 24])
def test_p_tuning_trains_an_encoder_with_an_lstm(folder: Path, width: int | None) -> None:
    model = load(folder, "p_tuning", num_virtual_tokens=7, encoder_hidden_size=width)

    encoder = model.prompt_encoder["default"]
    hidden = model.config.hidden_size
    assert trained(model) == {f"prompt_encoder.default.{name}" for name, _ in encoder.named_parameters()}
    assert encoder.embedding.weight.shape == (7, hidden)
    assert (encoder.lstm_head.hidden_size, encoder.lstm_head.bidirectional) == (width or hidden, True)


def test_p_tuning_v2_trains_keys_and_values_of_every_layer(folder: Path) -> None:
    model = load(folder, "p_tuning_v2", num_virtual_tokens=7)

    text = model.config
    width = text.hidden_size // text.num_attention_heads * text.num_key_value_heads
    assert text.num_key_value_heads < text.num_attention_heads  # several queries share a key here
    assert trained(model) == {"prompt_encoder.default.embedding.weight"}
    assert count_parameters(model)[0] == 7 * 2 * text.num_hidden_layers * width


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        pytest.param(
            "lora", {"lora_target": ("q_proj", "c_attn")}, "'c_attn' is no linear module.*down_proj, ", id="target"
        ),
        pytest.param(
            "freeze", {"name_module_trainable": "mlp,attn"}, "'attn' is in no.*: .*mlp, .*self_attn", id="name"
        ),
        pytest.param("freeze", {"num_layer_trainable": 40}, "is 40, but the model has [0-9]+ layers", id="layers"),
    ],
)
def test_what_the_model_does_not_have_is_refused_by_what_it_has(
    folder: Path, method: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        load(folder, method, **changes)


@pytest.mark.parametrize("method", ["full", "freeze", "lora", "p_tuning", "p_tuning_v2"])
@pytest.mark.parametrize("base", [BaseModel(uri="s3://models/base", digest="sha256:0"), None])
def test_a_checkpoint_alone_answers_as_the_model_that_was_trained(
    folder: Path, tmp_path: Path, method: str, base: BaseModel | None
) -> None:
    source = folder / "model"
    config = make_config(
        None,
        folder / "data",
        tmp_path,
        model_name_or_path=str(source),
        finetuning_type=method,
        max_steps=2,
        learning_rate=1e-2,
        nproc_per_node=1,
    )
    model = train_alone(config, base).eval()
    checkpoint = tmp_path / "checkpoint-2"

    if method in ("full", "freeze"):
        served = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    else:
        served = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32), checkpoint
        )
        settings = msgspec.json.decode((checkpoint / "adapter_config.json").read_bytes())
        assert settings["base_model_name_or_path"] == (base.uri if base else source.name)
    with torch.no_grad():
        answered = served.eval()(input_ids=IDS).logits[:, -1]
        untrained = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)(input_ids=IDS).logits[:, -1]
        # The trained model's head computes what a batch asks for only: without the trainer's hook, all.
        model.get_output_embeddings()._forward_pre_hooks.clear()
        torch.testing.assert_close(answered, model(input_ids=IDS).logits[:, -1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(answered, untrained, atol=1e-3)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert tokenizer.chat_template == load_template("chatml")
    stops = GenerationConfig.from_pretrained(checkpoint).eos_token_id
    assert tokenizer.convert_tokens_to_ids(TURN_END) in stops
