from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tunegate.api.codec import to_json
from tunegate.api.errors import DigestError, NotFoundError, UsageError
from tunegate.api.pinned import storage_uri
from tunegate.api.versions import Dataset, Manifest, ModelVersion, Producer, Release, digest_of
from tunegate.store import Store

RELEASE = Release(format="huggingface", system_prompt="You sell tea.", generation={"temperature": 0.5})
PRODUCER = Producer(kind="test", seed=7, datasets=(Dataset(name="shop", digest="sha256:0", rows=3),))


def publish(store: Store, folder: Path, name: str) -> ModelVersion:
    return store.publish(folder, name, release=RELEASE, producer=PRODUCER)


def test_version_is_published_and_found_by_name_uri_and_digest(store: Store, model: Path) -> None:
    version = publish(store, model, "tea/run-1/checkpoint-20")
    assert version.uri == f"{store.uri}/tea/run-1/checkpoint-20/"
    assert (version.model, version.run) == ("tea", "run-1")
    short = version.digest.removeprefix("sha256:")[:8]
    for reference in (version.name, version.uri, version.uri.rstrip("/"), version.digest, short):
        assert store.resolve(reference) == version
    assert store.list() == [version]
    assert store.list("tea") == [version]
    assert store.list("te") == []


def test_a_pinned_version_is_found_only_with_the_bytes_it_pins(store: Store, model: Path) -> None:
    version = publish(store, model, "tea/run-1/checkpoint-20")
    assert store.resolve(storage_uri(version)) == version
    other = msgspec.structs.replace(version, digest="sha256:" + "0" * 64)
    with pytest.raises(DigestError, match="not the sha256:0000"):
        store.resolve(storage_uri(other))
    with pytest.raises(UsageError, match="slash at the end"):
        store.resolve(storage_uri(version).rstrip("/"))


def test_manifest_says_what_the_version_is_made_of(store: Store, model: Path) -> None:
    publish(store, model, "tea/run-1/checkpoint-20")
    manifest = store.manifest("tea/run-1/checkpoint-20")
    assert [file.path for file in manifest.files] == [
        "added_tokens.json",
        "config.json",
        "model.safetensors",
        "release.yaml",
        "resume/zero/rank-0.pt",
    ]
    assert manifest.digest == digest_of(manifest.files)
    assert manifest.producer == PRODUCER
    assert store.verify(manifest.name) == manifest


def test_release_is_a_file_of_the_version(store: Store, model: Path) -> None:
    publish(store, model, "tea/run-1/checkpoint-20")
    text = store.get("tea/run-1/checkpoint-20/release.yaml")
    assert text is not None
    assert msgspec.yaml.decode(text, type=Release) == RELEASE


def test_versions_are_listed_oldest_first(store: Store, model: Path) -> None:
    made = []
    for step in (3, 1, 20):
        (model / "config.json").write_text(str(step))
        made.append(publish(store, model, f"tea/run/checkpoint-{step}"))
    assert store.list() == made


def test_folder_without_manifest_is_no_version(store: Store) -> None:
    store.put("tea/run/checkpoint-1/model.safetensors", b"half")
    store.put("tea/run/manifest.json", b"{}")
    store.put("tea/notes", b"")
    assert store.list() == []
    with pytest.raises(NotFoundError, match="there are none"):
        store.resolve("tea/run/checkpoint-1")


def test_missing_version_names_what_there_is(store: Store, model: Path) -> None:
    publish(store, model, "tea/run/checkpoint-1")
    with pytest.raises(NotFoundError, match=r"no version tea/run/checkpoint-2 in .*; there are: tea/run/checkpoint-1"):
        store.resolve("tea/run/checkpoint-2")
    with pytest.raises(NotFoundError, match=r"no version with digest 0123456789 .* tea/run/checkpoint-1 "):
        store.resolve("0123456789")


@pytest.mark.parametrize(
    "name",
    [
        "tea",
        "tea/run",
        "tea/run/20",
        "tea/run/checkpoint-x",
        "tea/run/checkpoint-01",
        "tea/run/extra/checkpoint-1",
        "Tea/run/checkpoint-1",
        "../run/checkpoint-1",
        "/tea/run/checkpoint-1",
        "-tea/run/checkpoint-1",
        ".tunegate/run/checkpoint-1",
        "s3://elsewhere/tea/run/checkpoint-1/",
        "1234567",
    ],
)
def test_name_of_another_form_is_a_usage_error(store: Store, model: Path, name: str) -> None:
    with pytest.raises(UsageError, match="write MODEL/RUN/checkpoint-STEP"):
        store.resolve(name)
    with pytest.raises(UsageError, match="write MODEL/RUN/checkpoint-STEP"):
        publish(store, model, name)


def put_manifest(store: Store, manifest: Manifest, name: str = "tea/run/checkpoint-1") -> None:
    store.put(f"{name}/manifest.json", to_json(manifest))


@pytest.mark.parametrize("path", ["../escaped", "/etc/escaped", "a/../../escaped", "", "a//b", "./a", "a\\..\\b"])
def test_manifest_that_leaves_its_folder_is_refused(store: Store, model: Path, tmp_path: Path, path: str) -> None:
    publish(store, model, "tea/run/checkpoint-1")
    manifest = store.manifest("tea/run/checkpoint-1")
    files = (*manifest.files[1:], msgspec.structs.replace(manifest.files[0], path=path))
    put_manifest(store, msgspec.structs.replace(manifest, files=files, digest=digest_of(files)))
    with pytest.raises(DigestError, match="outside its folder"):
        store.fetch("tea/run/checkpoint-1", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_manifest_that_was_changed_is_refused(store: Store, model: Path) -> None:
    publish(store, model, "tea/run/checkpoint-1")
    manifest = store.manifest("tea/run/checkpoint-1")
    put_manifest(store, msgspec.structs.replace(manifest, files=manifest.files[1:]))
    with pytest.raises(DigestError, match="disagrees with its own digest"):
        store.manifest("tea/run/checkpoint-1")
    put_manifest(store, manifest, "tea/run/checkpoint-2")
    with pytest.raises(DigestError, match="is of tea/run/checkpoint-1"):
        store.manifest("tea/run/checkpoint-2")


def test_a_manifest_that_cannot_be_read_hides_no_other(
    store: Store, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version = publish(store, model, "tea/run/checkpoint-1")
    store.put("tea/run/checkpoint-2/manifest.json", b"{}")
    store.put("zz/run/checkpoint-1/manifest.json", b"not JSON")

    for _ in range(2):
        assert store.list() == [version]
    assert store.resolve(version.digest[7:15]) == version
    assert caplog.text.count("tea/run/checkpoint-2/manifest.json is not a valid Manifest") == 1
    assert caplog.text.count("zz/run/checkpoint-1/manifest.json is not a valid Manifest") == 1
    publish(store, model, "tea/run/checkpoint-3")
    with pytest.raises(UsageError, match="is not a valid Manifest"):
        store.resolve("tea/run/checkpoint-2")


def test_documents_are_written_once_or_over_and_listed(store: Store) -> None:
    assert store.get(".tunegate/notes/a") is None
    assert store.put_new(".tunegate/notes/a", b"1")
    assert not store.put_new(".tunegate/notes/a", b"1")
    store.put(".tunegate/notes/a", b"2")
    store.put(".tunegate/notes/b/c", b"")
    assert store.get(".tunegate/notes/a") == b"2"
    assert store.keys(".tunegate/notes/") == [".tunegate/notes/a", ".tunegate/notes/b/c"]
    store.delete(".tunegate/notes/a")
    store.delete(".tunegate/notes/a")
    assert store.keys(".tunegate/notes/") == [".tunegate/notes/b/c"]
