"""Soft prompts: P-tuning as a plain model, P-tuning v2 beside its base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.adapters import VIRTUAL, make_prompt, tuned
from tunegate.api.errors import ModelError
from tunegate.api.pinned import Pinned
from tunegate.api.versions import BaseModel, ModelVersion, Producer, Release
from tunegate.models import materialize
from tunegate.models.adapters import under_prefix
from tunegate.models.merge import merge_adapter
from tunegate.models.mount import deliver, read_mounted, servable
from tunegate.models.prompt_tuning import has_prefix, kind_of, leading_tokens, new_tokens, prompt_length
from tunegate.store import Store

ASK = [{"role": "user", "content": "Price of the kettle? 水壶"}]


@pytest.fixture(scope="module")
def merged(base: Path, prompt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merge_adapter(base, prompt, tmp_path_factory.mktemp("merged") / "model")


def asked(folder: Path) -> Any:
    """ASK as the folder's own chat template renders it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(ASK, add_generation_prompt=True, return_dict=True, return_tensors="pt")


@torch.no_grad()
def next_logits(model: Any, inputs: Any) -> torch.Tensor:
    logits: torch.Tensor = model(**inputs).logits[0, -1]
    return logits


def test_a_p_tuned_model_is_a_plain_model_that_says_the_same(base: Path, prompt: Path, merged: Path) -> None:
    wanted = next_logits(tuned(base, prompt), asked(base))
    plain = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    found = next_logits(plain, asked(merged))

    torch.testing.assert_close(found[: len(wanted)], wanted, atol=1e-5, rtol=0)
    assert not torch.allclose(wanted, next_logits(AutoModelForCausalLM.from_pretrained(base), asked(base)), atol=0.1)
    assert asked(merged)["input_ids"].shape[1] == asked(base)["input_ids"].shape[1] + VIRTUAL


def test_the_tokens_of_a_prompt_are_never_the_likeliest(base: Path, prompt: Path, tmp_path: Path) -> None:
    """Also in a model whose logits are all far below 0."""
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] += 100
    model.save_pretrained(tmp_path / "low")

    merged = merge_adapter(tmp_path / "low", prompt, tmp_path / "merged")

    tokens = AutoTokenizer.from_pretrained(merged).convert_tokens_to_ids([f"<|prompt_{i}|>" for i in range(VIRTUAL)])
    head = AutoModelForCausalLM.from_pretrained(merged).get_output_embeddings().weight
    states = torch.randn(200, head.shape[1])
    states[:, 0] = -1
    logits = states @ head.T
    assert logits.max() < 0
    assert not set(logits.argmax(dim=-1).tolist()) & set(tokens)
    assert logits.softmax(dim=-1)[:, tokens].max() <= 1 / len(head)
    assert json.loads((merged / "generation_config.json").read_bytes())["suppress_tokens"] == tokens


def test_only_the_merged_template_begins_with_the_prompt(prompt: Path, merged: Path) -> None:
    plain = (prompt / "chat_template.jinja").read_text()

    assert (merged / "chat_template.jinja").read_text() == leading_tokens(merged) + plain
    assert leading_tokens(merged) == "".join(f"<|prompt_{i}|>" for i in range(VIRTUAL))
    assert (leading_tokens(prompt), prompt_length(prompt), prompt_length(merged)) == ("", 0, VIRTUAL)


def test_two_merges_of_a_prompt_give_the_same_bytes(base: Path, prompt: Path, merged: Path, tmp_path: Path) -> None:
    again = merge_adapter(base, prompt, tmp_path / "again")

    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in merged.iterdir()
    }


def test_a_prompt_goes_onto_a_model_that_has_one_and_room_in_its_vocabulary(
    base: Path, prompt: Path, merged: Path, tmp_path: Path
) -> None:
    """Such as one that was P-tuned before, or whose embeddings have more rows than there are tokens."""
    model = AutoModelForCausalLM.from_pretrained(merged)
    rows = model.config.vocab_size + 3
    model.resize_token_embeddings(rows, mean_resizing=False)
    shutil.copytree(merged, roomy := tmp_path / "roomy")
    model.save_pretrained(roomy)
    adapter = make_prompt(roomy, tmp_path / "second")
    shutil.copyfile(prompt / "chat_template.jinja", adapter / "chat_template.jinja")

    twice = merge_adapter(roomy, adapter, tmp_path / "twice")

    assert leading_tokens(twice) == "".join(f"<|prompt_{i}|>" for i in range(VIRTUAL, 2 * VIRTUAL))
    plain = AutoModelForCausalLM.from_pretrained(twice, dtype=torch.float32)
    assert plain.config.vocab_size == rows - 3 + VIRTUAL
    wanted = next_logits(tuned(roomy, adapter), asked(base))
    known = len(AutoTokenizer.from_pretrained(merged))
    torch.testing.assert_close(next_logits(plain, asked(twice))[:known], wanted[:known], atol=1e-5, rtol=0)


def test_a_prompt_of_another_base_is_refused(base: Path, prompt: Path, tmp_path: Path) -> None:
    shutil.copytree(prompt, other := tmp_path / "other")
    save_file({"prompt_embeddings": torch.zeros(VIRTUAL, 64)}, other / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"does not fit its base model: its .* is \[7, 64\], not \[7, 128\]"):
        merge_adapter(base, other, tmp_path / "model")


@pytest.fixture
def versions(store: Store, base: Path, prompt: Path, prefix: Path) -> tuple[ModelVersion, ModelVersion]:
    """The P-tuned one and the one with a prefix."""
    made = Producer(kind="test")
    beneath = store.publish(base, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=made)
    release = Release(format="prompt-adapter", base=BaseModel(uri=beneath.uri, digest=beneath.digest))
    return (
        store.publish(prompt, "shop/prompt/checkpoint-3", release=release, producer=made),
        store.publish(prefix, "shop/prefix/checkpoint-3", release=release, producer=made),
    )


def test_a_p_tuned_version_comes_merged(
    store: Store, versions: tuple[ModelVersion, ModelVersion], merged: Path, tmp_path: Path
) -> None:
    folder = materialize(store, versions[0], tmp_path)

    assert (folder / "model.safetensors").read_bytes() == (merged / "model.safetensors").read_bytes()
    assert leading_tokens(folder)


def test_a_prefix_is_handed_out_only_to_those_who_can_use_it(
    store: Store, versions: tuple[ModelVersion, ModelVersion], base: Path, prefix: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"shop/prefix/checkpoint-3 is a prefix .* --engine transformers"):
        materialize(store, versions[1], tmp_path)

    folder = materialize(store, versions[1], tmp_path, whole=False)

    assert has_prefix(folder)
    assert prompt_length(folder) == VIRTUAL
    model = under_prefix(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), folder)
    torch.testing.assert_close(next_logits(model, asked(folder)), next_logits(tuned(base, prefix), asked(base)))


def test_a_damaged_prefix_is_put_there_again(
    store: Store, versions: tuple[ModelVersion, ModelVersion], prefix: Path, tmp_path: Path
) -> None:
    weights = materialize(store, versions[1], tmp_path, whole=False) / "prefix" / "adapter_model.safetensors"
    weights.unlink()
    weights.write_bytes(b"damaged")

    materialize(store, versions[1], tmp_path, whole=False)

    assert weights.read_bytes() == (prefix / "adapter_model.safetensors").read_bytes()


def test_prompts_bring_their_base_to_a_server(
    store: Store, versions: tuple[ModelVersion, ModelVersion], merged: Path, tmp_path: Path
) -> None:
    folders = []
    for version in versions:
        into = tmp_path / version.run
        deliver(store, Pinned(version.name, version.digest), into)
        manifest, _ = read_mounted(into)
        folders.append(servable(into, manifest, tmp_path / "cache", whole=False))
    with pytest.raises(ModelError, match="is a prefix for every layer"):
        servable(tmp_path / "prefix", manifest, tmp_path / "cache")

    assert (folders[0] / "model.safetensors").read_bytes() == (merged / "model.safetensors").read_bytes()
    assert has_prefix(folders[1])
    assert (
        load_file(folders[1] / "model.safetensors").keys()
        == load_file(tmp_path / "prefix/base/model.safetensors").keys()
    )


@pytest.mark.parametrize(
    ("config", "reason"),
    [(b'{"peft_type": "IA3"}', "IA3; LORA"), (b"{", "can't be read"), (None, "publish it as huggingface")],
)
def test_an_adapter_of_no_known_kind_is_refused(config: bytes | None, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        kind_of(config, "shop/run/checkpoint-1")


def test_tokens_of_a_prompt_get_names_that_are_free() -> None:
    assert new_tokens(2, {}) == ["<|prompt_0|>", "<|prompt_1|>"]
    assert new_tokens(2, {"<|prompt_1|>", "<|prompt_0|>", "<|prompt_2|>"}) == ["<|prompt_4|>", "<|prompt_5|>"]
