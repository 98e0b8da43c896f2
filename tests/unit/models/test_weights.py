from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file

from tests.damage import DAMAGES, WEIGHTS, add_tokens, configure, cut_off, point, spoil
from tunegate.api.errors import ModelError
from tunegate.models.fit import require_whole
from tunegate.models.weights import check_weights


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def save_bin(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def test_a_whole_model_is_taken(folder: Path) -> None:
    require_whole(folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_refused_by_name(folder: Path, damage: str) -> None:
    do, words = DAMAGES[damage]
    do(folder)

    with pytest.raises(ModelError, match=words):
        require_whole(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_one_number_that_is_none_is_found_in_every_type(folder: Path, dtype: torch.dtype, number: float) -> None:
    spoil(folder, number=number, dtype=dtype)

    with pytest.raises(ModelError, match=rf"model.norm.weight in .*{WEIGHTS} has 1 of 128 numbers"):
        check_weights(folder)


def test_the_greatest_numbers_of_each_type_are_finite(folder: Path) -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float8_e4m3fn):
        most = torch.full((4,), torch.finfo(dtype).max, dtype=torch.float64).to(dtype)
        save_file({"most": most, "none": torch.empty(0, dtype=dtype)}, folder / WEIGHTS)
        check_weights(folder)


def test_a_number_in_a_later_part_of_a_large_weight_is_found(folder: Path) -> None:
    large = np.ones((3, 1 << 20), np.float32)
    large[2, -1] = np.nan
    save_numpy({"large": large, "whole": np.ones(5, np.int8)}, folder / WEIGHTS)

    with pytest.raises(ModelError, match=r"large in .* has 1 of 3,145,728 numbers"):
        check_weights(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_other_files_can_be_pointers_too(folder: Path, name: str) -> None:
    point(folder, name)

    with pytest.raises(ModelError, match=f"{name} is a Git LFS pointer"):
        check_weights(folder)


def test_a_page_that_was_downloaded_in_place_of_the_weights_is_named(folder: Path) -> None:
    (folder / WEIGHTS).write_text("<!DOCTYPE html><html>Sign in</html>" * 50)

    with pytest.raises(ModelError, match="is no safetensors file, but a page of HTML"):
        check_weights(folder)


def test_an_empty_file_and_one_cut_within_its_header_are_named(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:100])
    with pytest.raises(ModelError, match="is cut off: it has 100 bytes of at least"):
        check_weights(folder)

    (folder / WEIGHTS).write_bytes(b"")
    with pytest.raises(ModelError, match="is no safetensors file, but empty"):
        check_weights(folder)


def test_each_shard_is_looked_at_and_must_be_there(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    weights = {"a.weight": torch.ones(2), "b.weight": torch.ones(2)}
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name, key in zip(names, weights, strict=True):
        save_file({key: weights[key]}, folder / name)
    index = {"weight_map": dict(zip(weights, names, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    check_weights(folder)

    spoil(folder, names[1])
    with pytest.raises(ModelError, match=rf"b.weight in .*{names[1]} has 1 of 2"):
        check_weights(folder)

    (folder / names[1]).unlink()
    with pytest.raises(ModelError, match=f"lacks {names[1]}, one of 2 files with weights"):
        check_weights(folder)


def test_pickled_weights_are_looked_at(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_bin(folder, weights)
    require_whole(folder)

    weights["model.norm.weight"][3] = torch.inf
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"model.norm.weight in .*pytorch_model.bin has 1 of 128"):
        check_weights(folder)

    cut_off(folder, "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model.bin is cut off"):
        check_weights(folder)


def test_a_tokenizer_smaller_than_the_embedding_is_fine_and_so_are_placeholders_of_pictures(folder: Path) -> None:
    """Gemma 3's text models have an id for pictures that their embedding has no row for."""
    add_tokens(folder, 1)
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "image_token": "<|new_0|>"}))
    check_weights(folder)

    configure(folder, vocab_size=4000)
    check_weights(folder)


def test_a_value_of_config_json_that_contradicts_another_is_told_in_a_sentence(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(
        json.dumps({**config, "num_hidden_layers": 3, "layer_types": ["full_attention"]})
    )

    with pytest.raises(ModelError, match=r"can't be loaded as a language model: .*num_hidden_layers"):
        require_whole(folder)
