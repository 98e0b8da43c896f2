from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tunegate.api.errors import DigestError, ModelError
from tunegate.api.versions import BaseModel, ModelVersion, Producer, Release
from tunegate.models import check_folder, materialize
from tunegate.store import Store

MADE = Producer(kind="test")


@pytest.fixture
def base(store: Store, tiny: Path) -> ModelVersion:
    return store.publish(tiny, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=MADE)


@pytest.fixture
def tuned(store: Store, adapter: Path, base: ModelVersion) -> ModelVersion:
    release = Release(format="lora-adapter", base=BaseModel(uri=base.uri, digest=base.digest))
    return store.publish(adapter, "shop/run/checkpoint-4", release=release, producer=MADE)


def _logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
    return logits


def test_a_full_version_is_its_files(store: Store, base: ModelVersion, tiny: Path, tmp_path: Path) -> None:
    folder = materialize(store, base, tmp_path)

    assert folder == tmp_path / base.digest.removeprefix("sha256:")
    assert (folder / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()


def test_an_adapter_comes_merged_and_answers_as_base_and_adapter_do(
    store: Store, tuned: ModelVersion, tiny: Path, adapter: Path, tmp_path: Path
) -> None:
    folder = materialize(store, tuned, tmp_path)

    check_folder(folder)
    apart = AutoModelForCausalLM.from_pretrained(tiny)
    apart.load_adapter(str(adapter))
    merged = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(_logits(merged), _logits(apart), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(_logits(merged), _logits(AutoModelForCausalLM.from_pretrained(tiny)), atol=1e-2)


def test_an_adapter_that_shares_its_base_maps_the_file_that_the_base_is_served_from(
    store: Store, base: ModelVersion, tuned: ModelVersion, tmp_path: Path
) -> None:
    folders = [materialize(store, tuned, tmp_path, share_base=True), materialize(store, base, tmp_path)]

    first, second = (folder / "model.safetensors" for folder in folders)
    assert first.samefile(second)
    assert materialize(store, tuned, tmp_path) not in folders


def test_two_merges_give_the_same_bytes(store: Store, tuned: ModelVersion, tmp_path: Path) -> None:
    first, second = (materialize(store, tuned, tmp_path / name) for name in ("first", "second"))

    assert {path.name: path.read_bytes() for path in first.iterdir()} == {
        path.name: path.read_bytes() for path in second.iterdir()
    }


def test_a_merge_is_made_once(store: Store, tuned: ModelVersion, tmp_path: Path) -> None:
    made = materialize(store, tuned, tmp_path).stat()

    assert materialize(store, tuned, tmp_path).stat().st_ino == made.st_ino


def test_a_damaged_merge_is_made_again(store: Store, tuned: ModelVersion, tmp_path: Path) -> None:
    folder = materialize(store, tuned, tmp_path)
    right = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(right[:-1] + b"?")

    assert (materialize(store, tuned, tmp_path) / "model.safetensors").read_bytes() == right


def test_two_at_once_get_the_same_folder(store: Store, tuned: ModelVersion, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as both:
        folders = list(both.map(lambda _: materialize(store, tuned, tmp_path), range(2)))

    assert folders[0] == folders[1]
    assert not list(tmp_path.glob("*.partial"))


def test_a_base_that_is_not_the_one_tuned_from_is_refused(
    store: Store, adapter: Path, base: ModelVersion, tmp_path: Path
) -> None:
    release = Release(format="lora-adapter", base=BaseModel(uri=base.uri, digest="sha256:" + "0" * 64))
    version = store.publish(adapter, "shop/other/checkpoint-4", release=release, producer=MADE)

    with pytest.raises(DigestError, match="restore that base"):
        materialize(store, version, tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_folder_that_can_not_chat_is_refused_with_what_it_lacks(tiny: Path, tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / missing).unlink()

    with pytest.raises(ModelError, match=missing):
        check_folder(folder)


def test_the_package_imports_no_torch() -> None:
    check = "import sys, tunegate.models; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
