"""A version in front of a server: filled from the store, checked to the byte, merged where nothing may be written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tunegate.api.errors import DigestError, ModelError, NotFoundError
from tunegate.api.pinned import Pinned, index_of, parse_storage_uri, storage_uri
from tunegate.api.versions import BaseModel, ModelVersion, Producer, Prompts, Release
from tunegate.models import materialize
from tunegate.models.mount import deliver, read_mounted, servable
from tunegate.store import Store

MADE = Producer(kind="test")


@pytest.fixture
def base(store: Store, tiny: Path) -> ModelVersion:
    release = Release(format="huggingface", system_prompt="Be kind.")
    return store.publish(tiny, "shop/base/checkpoint-1", release=release, producer=MADE)


@pytest.fixture
def tuned(store: Store, adapter: Path, base: ModelVersion) -> ModelVersion:
    release = Release(format="lora-adapter", base=BaseModel(uri=base.uri, digest=base.digest))
    return store.publish(adapter, "shop/run/checkpoint-4", release=release, producer=MADE)


def pinned(version: ModelVersion) -> Pinned:
    return parse_storage_uri(storage_uri(version))


def shown(folder: Path) -> dict[str, bytes]:
    """What a server sees: files that aren't hidden, by path."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".")}


def test_exactly_the_version_arrives(store: Store, base: ModelVersion, tiny: Path, tmp_path: Path) -> None:
    (neighbor := tmp_path / "neighbor").mkdir()
    (neighbor / "config.json").write_text("{}")
    release = Release(format="huggingface")
    store.publish(neighbor, "shop/base/checkpoint-10", release=release, producer=MADE)
    (into := tmp_path / "models").mkdir()

    deliver(store, pinned(base), into)

    files = shown(into)
    assert set(files) == {*shown(tiny), "manifest.json", "release.yaml"}
    assert files["manifest.json"] == store.get("shop/base/checkpoint-1/manifest.json")
    manifest, read = read_mounted(into)
    assert (manifest.digest, read.system_prompt) == (base.digest, "Be kind.")
    assert servable(into, manifest, tmp_path / "cache") == into


def test_the_index_that_a_release_names_arrives_whole_or_the_version_does_not(
    store: Store, tiny: Path, tmp_path: Path
) -> None:
    (index := tmp_path / "index").mkdir()
    (index / "index.json").write_text("{}")
    artifact = store.artifacts("knowledge").publish(index, "help")
    release = Release(format="huggingface", knowledge=index_of("help", artifact.digest))
    version = store.publish(tiny, "shop/run/checkpoint-9", release=release, producer=MADE)

    deliver(store, pinned(version), into := tmp_path / "models")
    assert (into / "knowledge/index.json").read_text() == "{}"
    assert read_mounted(into)[1] == release

    (into / "knowledge/index.json").unlink()  # a link to what arrived, which is damaged so
    (into / "knowledge/index.json").write_text("[]")
    with pytest.raises(DigestError, match=r"knowledge is not the index help@sha256:.* tunegate initialize tunegate://"):
        read_mounted(into)
    store.put(f"{artifact.name}/index.json", b"[]")
    with pytest.raises(DigestError, match=r"knowledge/help/.*index\.json differs from its manifest"):
        deliver(store, pinned(version), elsewhere := tmp_path / "elsewhere")
    assert not (elsewhere / "manifest.json").exists()


def test_without_weights_only_what_the_release_is_made_of_arrives_and_is_held_against_the_digest(
    store: Store, base: ModelVersion, adapter: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(adapter, source)
    (source / "prompts").mkdir()
    (source / "prompts/answer.md").write_text("Answer.")
    release = Release(format="lora-adapter", prompts=Prompts(), base=BaseModel(uri=base.uri, digest=base.digest))
    version = store.publish(source, "shop/run/checkpoint-9", release=release, producer=MADE)

    deliver(store, Pinned(version.name, version.digest, weights=False), into := tmp_path / "models")

    assert set(shown(into)) == {"manifest.json", "release.yaml", "prompts/answer.md", "adapter_config.json"}
    manifest, read = read_mounted(into, weights=False)
    assert (manifest.digest, read) == (version.digest, release)
    with pytest.raises(DigestError, match="is not the file that shop/run/checkpoint-9"):
        read_mounted(into)
    (into / "prompts/answer.md").unlink()
    (into / "prompts/answer.md").write_text("Lie.")
    with pytest.raises(DigestError, match=r"prompts/answer\.md is not the file"):
        read_mounted(into, weights=False)


def test_resume_state_stays_in_the_store(store: Store, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, folder := tmp_path / "model")
    (folder / "resume").mkdir()
    (folder / "resume" / "optimizer.pt").write_bytes(b"large")
    release = Release(format="huggingface")
    version = store.publish(folder, "shop/run/checkpoint-9", release=release, producer=MADE)

    deliver(store, pinned(version), tmp_path / "models")

    assert not (tmp_path / "models" / "resume").exists()
    assert read_mounted(tmp_path / "models")[0].digest == version.digest


def test_an_adapter_brings_its_base_and_serves_as_from_the_store(
    store: Store, tuned: ModelVersion, base: ModelVersion, tmp_path: Path
) -> None:
    into = tmp_path / "models"
    deliver(store, pinned(tuned), into)
    manifest, _ = read_mounted(into)
    before = {path: path.stat().st_mtime_ns for path in into.rglob("*")}

    folder = servable(into, manifest, tmp_path / "cache")

    assert read_mounted(into / "base")[0].digest == base.digest
    expected = materialize(store, tuned, tmp_path / "other") / "model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == expected.read_bytes()
    beside = servable(into, manifest, tmp_path / "cache", share_base=True)
    assert (beside / "model.safetensors").samefile(into / "base" / "model.safetensors")
    assert {path: path.stat().st_mtime_ns for path in into.rglob("*")} == before  # a mount may be read-only


def test_an_attempt_that_was_ended_goes_on(store: Store, base: ModelVersion, tmp_path: Path) -> None:
    into = tmp_path / "models"
    deliver(store, pinned(base), into)
    kept = (into / "model.safetensors").stat().st_ino
    (into / "manifest.json").unlink()
    (into / "config.json").write_text("half")
    done: list[int] = []

    deliver(store, pinned(base), into, lambda now, total: done.append(now))

    assert read_mounted(into)[0].digest == base.digest
    assert (into / "model.safetensors").stat().st_ino == kept
    assert done[1] > done[-1] * 0.9  # nearly all was there


def test_other_bytes_under_the_name_are_refused(store: Store, base: ModelVersion, tmp_path: Path) -> None:
    with pytest.raises(DigestError, match=r"is sha256:.*, not sha256:0000"):
        deliver(store, Pinned(base.name, "sha256:" + "0" * 64), tmp_path / "models")
    with pytest.raises(NotFoundError):
        deliver(store, Pinned("shop/base/checkpoint-2", base.digest), tmp_path / "models")

    assert shown(tmp_path) == {}


def test_a_base_with_other_bytes_is_refused(
    store: Store, adapter: Path, base: ModelVersion, tiny: Path, tmp_path: Path
) -> None:
    release = Release(format="lora-adapter", base=BaseModel(uri=base.uri, digest="sha256:" + "0" * 64))
    version = store.publish(adapter, "shop/other/checkpoint-4", release=release, producer=MADE)

    with pytest.raises(DigestError, match=base.name):
        deliver(store, pinned(version), tmp_path / "models")
    assert "manifest.json" not in shown(tmp_path / "models")


@pytest.mark.parametrize("victim", ["model.safetensors", "release.yaml", "base/tokenizer.json"])
def test_a_changed_or_lost_file_is_found(store: Store, tuned: ModelVersion, victim: str, tmp_path: Path) -> None:
    into = tmp_path / "models"
    deliver(store, pinned(tuned), into)
    path = into / victim.replace("model.", "adapter_model.")
    body = path.read_bytes()
    path.unlink()  # it is a link: writing through it would change the other name, too
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))

    with pytest.raises(DigestError, match=path.name):
        read_mounted(into)
    path.unlink()
    with pytest.raises(DigestError, match=path.name):
        read_mounted(into)


def test_another_base_is_found(store: Store, tuned: ModelVersion, tiny: Path, tmp_path: Path) -> None:
    into, release = tmp_path / "models", Release(format="huggingface", system_prompt="Be rude.")
    deliver(store, pinned(tuned), into)
    other = store.publish(tiny, "shop/base/checkpoint-5", release=release, producer=MADE)
    shutil.rmtree(into / "base")
    deliver(store, pinned(other), into / "base")

    with pytest.raises(DigestError, match="but the adapter needs"):
        read_mounted(into)


def test_a_folder_that_was_not_filled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tunegate initialize"):
        read_mounted(tmp_path)
