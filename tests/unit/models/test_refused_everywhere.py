"""What is not whole is refused by name wherever a model is used, before anything is written."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.damage import DAMAGES, spoil
from tunegate.api.pinned import base_of
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.cli import root
from tunegate.models.prompt_tuning import ADAPTER_WEIGHTS
from tunegate.store import Store

MADE = Producer(kind="test")
USES = ["publish", "merge", "quantize", "train", "evaluate", "serve"]


def said(*words: object) -> str:
    """What a command says that is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = CliRunner().invoke(root, [str(word) for word in words])
    assert done.exit_code, done.output
    return f"{done.output} {done.exception}"


def command(use: str, folder: Path, version: ModelVersion, store: Store, tmp_path: Path) -> list[object]:
    """The command that would use the model in `folder`, which is `version` in the store."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "Hi", "output": "Hello."}\n')
    return {
        "publish": ["models", "publish", folder, "shop/again/checkpoint-1"],
        "merge": ["merge", _tuned_on(version, store, tmp_path), tmp_path / "merged"],
        "quantize": ["quantize", version.name],
        "train": ["train", "--model_name_or_path", folder, "--dataset", rows, "--output_dir", tmp_path / "out"],
        "evaluate": ["evaluate", version.name, "--suite", "shop-small-talk-en"],
        "serve": ["serve", version.name, "--port", "0"],
    }[use]


def _tuned_on(version: ModelVersion, store: Store, tmp_path: Path) -> str:
    release = Release(format="lora-adapter", base=base_of(version))
    return store.publish(tmp_path / "adapter", "shop/tuned/checkpoint-1", release=release, producer=MADE).name


@pytest.mark.parametrize(
    ("use", "damage"),
    # the engine, which is a process, says what it is of shapes: once is enough
    [(use, damage) for use in USES for damage in DAMAGES if (use, damage) != ("serve", "a layer more")],
)
def test_a_damaged_model_is_refused_by_name(
    use: str, damage: str, tiny: Path, adapter: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUNEGATE_FEEDBACK_KEY", "5e" * 32)
    monkeypatch.delenv("TUNEGATE_STORE", raising=False) if use == "train" else None
    shutil.copytree(adapter, tmp_path / "adapter")
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    do, words = DAMAGES[damage]
    do(folder)
    version = store.publish(folder, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=MADE)
    argv = command(use, folder, version, store, tmp_path)
    before = {each.name for each in store.list()}

    assert words in said(*argv)

    assert {each.name for each in store.list()} == before
    assert not (tmp_path / "merged").exists()
    assert not list(tmp_path.glob("out/*.json*"))


@pytest.mark.parametrize("use", ["publish", "merge", "evaluate", "serve"])
def test_an_adapter_with_a_number_that_is_none_is_refused_by_name(
    use: str, tiny: Path, adapter: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUNEGATE_FEEDBACK_KEY", "5e" * 32)
    base = store.publish(tiny, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=MADE)
    spoil(folder := Path(shutil.copytree(adapter, tmp_path / "adapter")), ADAPTER_WEIGHTS)
    tuned = _tuned_on(base, store, tmp_path)
    argv = {
        "publish": ["models", "publish", folder, "shop/again/checkpoint-1", "--base", base.name],
        "merge": ["merge", tuned, tmp_path / "merged"],
        "evaluate": ["evaluate", tuned, "--suite", "shop-small-talk-en"],
        "serve": ["serve", tuned, "--port", "0"],
    }[use]

    assert f"{ADAPTER_WEIGHTS} has 1 of " in said(*argv)
