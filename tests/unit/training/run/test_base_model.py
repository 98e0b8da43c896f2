from __future__ import annotations

import shutil
import sys
from pathlib import Path

import boto3
import msgspec
import pytest
from huggingface_hub import constants

from tests.damage import configure
from tests.unit.training.builders import make_config, texts
from tunegate.api.errors import ModelError, NotFoundError, UnavailableError, UsageError
from tunegate.api.versions import Producer, Release
from tunegate.models import make_tiny
from tunegate.models.materialize import materialize
from tunegate.models.templates import load_template
from tunegate.store import Store
from tunegate.training import TrainConfig
from tunegate.training.data.tokenize import load_tokenizer
from tunegate.training.run.base_model import base_digest, base_folder, check_base


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", texts())


def _config(store: Store, name: str) -> TrainConfig:
    return make_config(store.uri, Path("data"), Path("out"), model_name_or_path=name, endpoint_url=store.endpoint_url)


def _upload(store: Store, folder: Path, to: str) -> None:
    _, _, bucket, *prefix = store.uri.split("/")
    client = boto3.client("s3", endpoint_url=store.endpoint_url)
    for path in folder.iterdir():
        client.put_object(Bucket=bucket, Key="/".join([*prefix, to, path.name]), Body=path.read_bytes())


def test_a_folder_is_taken_as_it_is(store: Store, model: Path) -> None:
    assert base_folder(_config(store, str(model)), None) == (model, None)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_in_a_bucket_is_fetched(store: Store, model: Path, slash: str) -> None:
    _upload(store, model, "models/Qwen")

    folder, version = base_folder(_config(store, f"{store.uri}/models/Qwen{slash}"), store)

    assert version is None
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in model.iterdir()
    }


def test_a_version_is_found_by_name_and_by_uri(store: Store, model: Path) -> None:
    published = store.publish(
        model, "tiny/base/checkpoint-0", release=Release(format="huggingface"), producer=Producer(kind="test")
    )

    for name in (published.name, published.uri, published.digest):
        folder, version = base_folder(_config(store, name), store)
        assert version == published
        assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_folder_without_a_model_is_refused(store: Store, model: Path, tmp_path: Path, missing: str) -> None:
    for path in model.iterdir():
        if path.name != missing:
            (tmp_path / path.name).symlink_to(path)

    with pytest.raises(ModelError, match=missing):
        base_folder(_config(store, str(tmp_path)), store)


def test_what_is_nowhere_is_named(store: Store) -> None:
    with pytest.raises(UsageError, match=r"no folder tiny/base/checkpoint-0; .*--store"):
        base_folder(_config(store, "tiny/base/checkpoint-0"), None)
    with pytest.raises(NotFoundError, match="no version tiny/base/checkpoint-0"):
        base_folder(_config(store, "tiny/base/checkpoint-0"), store)
    with pytest.raises(NotFoundError, match="nothing at"):
        base_folder(_config(store, f"{store.uri}/Qwen"), store)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.json", '{"quantization_config": {}}', "train the version it was made from"),
        ("config.json", "{", "can't be read"),
        ("chat_template.jinja", "<|prompt_0|><|prompt_1|>{{ messages }}", "train from its base"),
    ],
)
def test_what_would_not_be_trained_as_it_answers_is_refused(
    store: Store, model: Path, file: str, text: str, said: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    (folder / file).write_text(text)

    with pytest.raises(ModelError, match=said):
        base_folder(_config(store, str(folder)), None)


def test_a_version_without_a_chat_template_is_trained_with_the_one_that_is_asked_for(
    store: Store, model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    (folder / "chat_template.jinja").unlink()
    made = Producer(kind="test")
    version = store.publish(folder, "tiny/bare/checkpoint-0", release=Release(format="huggingface"), producer=made)

    found, base = base_folder(_config(store, version.name), store)

    assert base == version
    assert load_tokenizer(found, "chatml").chat_template == load_template("chatml")
    with pytest.raises(ModelError, match=r"has no chat_template\.jinja"):
        materialize(store, version)


def test_a_hub_s_model_comes_from_the_store_without_the_hub(
    store: Store, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told = {"source": "hf://shop/tiny", "revision": "5e" * 20, "asked": "v1"}
    made = Producer(kind="hub", arguments=told)
    release = Release(format="huggingface")
    version = store.publish(model, "tiny/hf-5e5e5e5e5e5e/checkpoint-0", release=release, producer=made)

    for name, revision in (("shop/tiny", "v1"), (f"hf://shop/tiny@{'5e' * 20}", ""), ("hf://shop/tiny", "5e" * 20)):
        config = msgspec.structs.replace(_config(store, name), model_revision=revision)
        assert base_folder(config, store)[1] == version
    with pytest.raises(UnavailableError, match=r"hf://shop/tiny can't be fetched"):
        base_folder(_config(store, "shop/tiny"), store)


def test_shapes_that_fitted_once_are_not_looked_at_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(model, tmp_path / "model"))

    check_base(folder, base_digest(folder, None))
    with monkeypatch.context() as without_torch:
        without_torch.setitem(sys.modules, "tunegate.models.network", None)
        check_base(folder, base_digest(folder, None))

    configure(folder, intermediate_size=64)
    for _ in range(2):
        with pytest.raises(ModelError, match="where its config"):
            check_base(folder, base_digest(folder, None))
