"""What the store refuses, it takes once the message's words were followed: on a real one."""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Callable
from itertools import count
from pathlib import Path

import boto3
import msgspec
import pytest

from tests.refusals import refusals, refused, without_story
from tests.waiting import wait_for
from tunegate.api.codec import to_json
from tunegate.api.errors import DigestError
from tunegate.api.versions import File, ModelVersion, Producer, Prompts, Release, digest_of
from tunegate.processes import free_port
from tunegate.store import EmbeddedStore, Store
from tunegate.store.client import connect, parse_uri
from tunegate.store.files import fetch_plain
from tunegate.store.release import fetch_prompts, read_release

NAME, OTHER = "tea/run/checkpoint-1", "tea/again/checkpoint-1"
Damage = Callable[[str, bytes | None], None]


def publish(store: Store, folder: Path, name: str = NAME) -> ModelVersion:
    return store.publish(folder, name, release=Release(format="huggingface"), producer=Producer(kind="test"))


@pytest.fixture
def put(store: Store) -> Damage:
    """Write an object below the store's prefix, as other programs do, or take it away: a second after publishing."""
    _, _, bucket, *prefix = store.uri.split("/")
    client = boto3.client("s3", endpoint_url=store.endpoint_url)

    def write(key: str, body: bytes | None) -> None:
        manifest = f"{NAME}/manifest.json"
        wait_for(lambda: store._bucket.ages(NAME).get(manifest, 1) >= 1, what="the next second of the store's clock")
        where = {"Bucket": bucket, "Key": "/".join([*prefix, key])}
        client.delete_object(**where) if body is None else client.put_object(**where, Body=body)

    return write


def test_a_store_is_named_as_the_message_says(store: Store) -> None:
    with refused("write s3://BUCKET, s3://BUCKET/PREFIX or oss://BUCKET"):
        Store.open("models", endpoint_url=store.endpoint_url)
    with refused("write http://HOST:PORT or https://HOST"):
        Store.open(store.uri, endpoint_url=str(store.endpoint_url).removeprefix("http://"))
    Store.open(store.uri, endpoint_url=store.endpoint_url)


def test_keys_that_are_set_are_taken(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}

    def set_keys(**values: str) -> None:
        for name in keys:
            monkeypatch.delenv(name, raising=False)
            if name in values:
                monkeypatch.setenv(name, values[name])

    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    for words, wrong in (
        ("; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", {}),
        ("; set both halves of the key", {"AWS_ACCESS_KEY_ID": keys["AWS_ACCESS_KEY_ID"]}),
        ("; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", {**keys, "AWS_SECRET_ACCESS_KEY": "wrong" * 8}),
    ):
        set_keys(**wrong)
        with refused(words):
            Store.open(store.uri, endpoint_url=store.endpoint_url)
        set_keys(**keys)
        Store.open(store.uri, endpoint_url=store.endpoint_url)


def test_a_store_that_runs_is_reached(store: Store) -> None:
    with refused("check that the store runs and that --endpoint-url"):
        Store.open(store.uri, endpoint_url=f"http://127.0.0.1:{free_port()}").list()
    Store.open(store.uri, endpoint_url=store.endpoint_url).list()


def test_a_bucket_that_was_created_is_there(store: Store) -> None:
    """`aws s3 mb` does the same call."""
    with refused("; create it with: aws s3 mb s3://"):
        Store.open("s3://created-later", endpoint_url=store.endpoint_url)
    connect(parse_uri(store.uri), store.endpoint_url).create_bucket(Bucket="created-later")
    Store.open("s3://created-later", endpoint_url=store.endpoint_url)


def test_an_embedded_store_has_its_folder_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedStore.start(tmp_path), refused("is in use by another embedded store; stop that first"):
        EmbeddedStore.start(tmp_path).__enter__()
    with EmbeddedStore.start(tmp_path):
        pass


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("is not a folder; name the folder that holds the model's files", lambda model: model / "config.json"),
        ("holds no files; name the folder that holds the model's files", lambda model: model.parent / "empty"),
    ],
)
def test_a_models_folder_is_published(store: Store, model: Path, words: str, wrong: Callable[[Path], Path]) -> None:
    (model.parent / "empty").mkdir()
    with refused(words):
        publish(store, wrong(model))
    publish(store, model)


def test_links_and_pipes_are_replaced_or_removed(store: Store, model: Path) -> None:
    shutil.move(model / "resume", model.parent / "resume")
    (model / "resume").symlink_to(model.parent / "resume")
    with refused("is a link to a folder; replace it by the folder itself"):
        publish(store, model)
    (model / "resume").unlink()
    shutil.move(model.parent / "resume", model / "resume")
    os.mkfifo(model / "pipe")
    with refused("is not a regular file; remove it from the folder"):
        publish(store, model)
    (model / "pipe").unlink()
    publish(store, model)


def test_other_bytes_get_another_name(store: Store, model: Path) -> None:
    publish(store, model)
    (model / "config.json").write_text("{}")
    with refused("a version never changes: choose another name"):
        publish(store, model)
    publish(store, model, OTHER)


def test_a_file_that_is_readable_again_is_published(store: Store, model: Path) -> None:
    (model / "memory").symlink_to("/proc/self/mem")  # readable for nobody, also as root
    with refused("; make it readable and publish again"):
        publish(store, model)
    (model / "memory").unlink()
    (model / "memory").write_text("bytes")
    publish(store, model)


def test_what_is_damaged_is_published_under_another_name(
    store: Store, model: Path, tmp_path: Path, put: Damage
) -> None:
    """Also where the store holds the same bytes already, so that they are copied there."""
    publish(store, model)
    put(f"{NAME}/config.json", b"x" * (model / "config.json").stat().st_size)
    with refused("differs from its manifest; publish the version again under another name"):
        store.fetch(NAME, tmp_path / "out")
    publish(store, model, "tea/damaged/checkpoint-1")
    store.fetch("tea/damaged/checkpoint-1", tmp_path / "damaged")
    put(f"{NAME}/config.json", None)
    with refused("is missing from the store; publish the version again under another name"):
        store.fetch(NAME, tmp_path / "out")
    publish(store, model, OTHER)
    store.fetch(OTHER, tmp_path / "out")


@pytest.mark.parametrize("of", ["name", "digest"])
def test_a_version_whose_manifest_is_spoiled_is_published_again_without_it(
    store: Store, model: Path, put: Damage, of: str
) -> None:
    manifest = store.manifest(publish(store, model).uri)
    spoiled = msgspec.structs.replace(manifest, **{of: OTHER if of == "name" else "sha256:" + "0" * 64})
    put(f"{NAME}/manifest.json", to_json(spoiled))
    with refused(" from the store, and publish the version again"):
        store.verify(NAME)
    put(f"{NAME}/manifest.json", None)
    version = publish(store, model)
    assert store.list("tea") == [version]
    store.verify(NAME)


def test_a_release_that_is_spoiled_or_missing_comes_with_a_version_of_another_name(
    store: Store, model: Path, put: Damage
) -> None:
    version = publish(store, model)
    put(f"{NAME}/release.yaml", b"spoiled")
    with refused("in the store is not what the manifest says; publish the version again under another name"):
        read_release(store, version)
    with refused("; publish it with one, under another name"):
        put(f"{NAME}/release.yaml", None)
        read_release(store, version)
    read_release(store, publish(store, model, OTHER))


def test_a_folder_for_a_version_is_new_empty_or_its_own(store: Store, model: Path, tmp_path: Path) -> None:
    publish(store, model)
    (tmp_path / "file").touch()
    with refused("is a file; name a folder for "):
        store.fetch(NAME, tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").touch()
    with refused("; name a new or empty folder"):
        store.fetch(NAME, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    store.fetch(NAME, tmp_path / "empty")
    store.fetch(NAME, tmp_path / "new")


def test_plain_files_are_named_by_where_they_are(store: Store, tmp_path: Path, put: Damage) -> None:
    def fetch(uri: str) -> Path:
        return fetch_plain(uri, tmp_path, endpoint_url=store.endpoint_url)

    put("data/rows.jsonl", b"{}")
    with refused("is a whole bucket; name a file or a folder in it"):
        fetch("s3://" + parse_uri(store.uri).bucket)
    with refused("; list the bucket and correct the name"):
        fetch(f"{store.uri}/data/row.jsonl")
    fetch(f"{store.uri}/data/rows.jsonl")
    put("bad/a", b"{}")
    put("bad/a/b", b"{}")
    with refused("can't be a file's path; rename that object"):
        fetch(f"{store.uri}/bad")
    put("bad/a", None)
    fetch(f"{store.uri}/bad")


def test_a_version_is_asked_for_by_what_is_there(store: Store, model: Path, tmp_path: Path) -> None:
    version = publish(store, model)
    with refused("no version "):
        store.resolve("tea/run/checkpoint-2")
    with refused("no version with digest "):
        store.resolve("0" * 12)
    with refused("; ask for the version by its digest"):
        store.fetch(NAME, tmp_path / "out", digest="sha256:" + "0" * 64)
    store.fetch(version.digest, tmp_path / "out", digest=version.digest)
    pinned = f"tunegate://{version.digest.replace(':', '-')}/{NAME}/"
    with refused("publish under a new name instead of over an old one"):
        store.resolve(pinned.replace(version.digest[7:], "0" * 64))
    store.resolve(pinned)


def test_an_artifact_is_named_and_found_as_the_message_says(store: Store, model: Path, tmp_path: Path) -> None:
    artifacts = store.artifacts("knowledge")
    with refused(" can't be a name; write lower-case letters, digits, '-' and '.'"):
        artifacts.publish(model, "Help")
    published = artifacts.publish(model, "help")
    with refused(" is no digest; give at least 8 of its hex digits"):
        artifacts.find("help@1234")
    assert artifacts.find(f"help@{published.digest[7:15]}") == published
    with refused("There is no ") as caught:
        artifacts.find("helps")
    assert str(caught.value).endswith("there are: help.")
    assert artifacts.find("help") == published
    (key,) = [key for key in store.keys(".knowledge/help/") if key.endswith("/manifest.json")]
    store.put(key, (store.get(key) or b"").replace(published.digest[7:].encode(), b"0" * 64))
    with refused(" disagrees with itself; delete it from the store, and publish again"):
        artifacts.find("help")
    store.delete(key)
    assert artifacts.publish(model, "help") == published
    assert artifacts.find("help") == published


def test_what_was_written_again_is_not_copied_into_another_version(store: Store, model: Path, put: Damage) -> None:
    origin, made = store.manifest(publish(store, model).digest), Producer(kind="test")
    put(f"{NAME}/config.json", (store.get(f"{NAME}/config.json") or b"")[::-1])
    with refused(", so it is not copied; check it: tunegate models verify ") as caught:
        store.publish(origin, OTHER, release=Release(format="huggingface", system_prompt="Hm."), producer=made)
    assert f"{NAME}/config.json was written again" in str(caught.value)
    with pytest.raises(DigestError, match=r"config\.json"):
        store.verify(NAME)


def test_prompts_that_a_release_names_are_published_with_it(store: Store, model: Path, tmp_path: Path) -> None:
    release, made = Release(format="huggingface", prompts=Prompts()), Producer(kind="test")
    version = store.publish(model, NAME, release=release, producer=made)
    with refused("names; publish it with that folder, under another name"):
        fetch_prompts(store, version, release, tmp_path / "cache")
    shutil.copytree(model, whole := tmp_path / "whole")
    (whole / "prompts").mkdir()
    (whole / "prompts/answer.prompt").write_text("Answer.")
    version = store.publish(whole, OTHER, release=release, producer=made)
    found = fetch_prompts(store, version, release, tmp_path / "cache")
    assert found
    assert [path.name for path in found.iterdir()] == ["answer.prompt"]


# Messages whose way out is to do the same again, or is somebody else's to give.
ELSEWHERE = {
    "; check AWS_ENDPOINT_URL_STS, and that the way": "test_odd_stores.py::test_who_gives_the_role_is_told",
    "; check AWS_ROLE_ARN, ": "test_odd_stores.py::test_who_gives_the_role_is_told",
    ", which AWS_WEB_IDENTITY_TOKEN_FILE names; mount": "test_odd_stores.py::test_who_gives_the_role_is_told",
    " speaks no TLS; write http:// in": "test_client.py::test_https_where_no_tls_is_spoken_is_told",
    " unless the store is below it": "test_client.py::test_endpoint_with_a_path_is_told",
    "; look for a gateway before it that drops": "test_odd_stores.py::test_listings_of_older_stores_end_and_are_whole",
    "; set AWS_CA_BUNDLE to a PEM file with that of": "test_busy.py::test_ones_own_ca_is_told_and_can_be_trusted",
    ", which AWS_CA_BUNDLE names; correct the path": "test_busy.py::test_ones_own_ca_is_told_and_can_be_trusted",
    "; look at the network, and at proxies on the way": "test_busy.py::test_a_body_that_trickles_is_told",
    "; get new ones, with their AWS_SESSION_TOKEN": "test_busy.py::test_a_refusal_is_told_with_who_refused",
    "; set it, for instance by NTP": "test_busy.py::test_a_refusal_is_told_with_who_refused",
    "; set AWS_DEFAULT_REGION to its region, or correct": "test_busy.py::test_a_refusal_is_told_with_who_refused",
    "; shorten the names of files or folders": "test_busy.py::test_a_refusal_is_told_with_who_refused",
    "; let it pass bodies of 16 MiB": "test_busy.py::test_a_refusal_is_told_with_who_refused",
    ", or what stands before the store": "test_busy.py::test_a_refusal_is_told_with_who_refused",
    "has a name that not every store can hold": "test_publishing.py::test_a_name_that_cannot_travel_is_refused",
    "/ from the store, and build the index again": "test_artifacts.py::test_damaged_bytes_are_never_fetched",
    "which another process sent, is gone from": (
        "test_publishing.py::test_a_file_that_another_process_did_not_send_leaves_no_version"
    ),
    "; end that first.": "test_gc.py::test_a_version_that_is_needed_is_refused",
    "another publisher took over ": "test_claims.py::test_publisher_that_was_taken_over_is_told_and_leaves_the_claim",
    "to these credentials; ask for that permission": "test_bucket.py::test_right_to_put_is_needed",
    "changed while it was fetched; fetch it when": "test_files.py::test_what_changes_while_it_is_fetched_is_refused",
    "changed while it was published; publish when": "test_publishing.py::test_file_that_changes_meanwhile_is_noticed",
    "was published by someone else meanwhile": "test_remedies.py::test_other_bytes_get_another_name",
    "which is outside its folder; delete it": "test_versions.py::test_manifest_that_leaves_its_folder_is_refused",
}


def test_weed_comes_with_the_extra_that_the_message_names() -> None:
    """So that what is installed by these words is what is looked for."""
    assert [text for text in (refusal.text for refusal in refusals()) if "pip install 'tunegate[quickstart]'" in text]
    extras = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert any("seaweedfs" in needed for needed in extras["optional-dependencies"]["quickstart"])


def test_a_digest_is_given_with_more_digits(store: Store, model: Path) -> None:
    """Two whose first eight digits are the same are found among some 80,000."""
    manifest, seen = store.manifest(publish(store, model).uri), dict[str, tuple[File, ...]]()
    for number in count():
        files = (File(path="a", size=1, sha256=f"{number:064x}"),)
        digits = digest_of(files)[7:15]
        if (other := seen.setdefault(digits, files)) != files:
            break
    for name, made in (("one", other), ("two", files)):
        there = {"name": f"tea/{name}/checkpoint-1", "files": made, "digest": digest_of(made)}
        store.put(f"tea/{name}/checkpoint-1/manifest.json", to_json(msgspec.structs.replace(manifest, **there)))
    with refused("; give more digits"):
        store.resolve(digits)
    assert store.resolve(digest_of(files)[7:]).digest == digest_of(files)


def test_every_message_has_its_story() -> None:
    assert without_story("store", Path(__file__)) == []
    for test in ELSEWHERE.values():
        path, _, name = test.partition("::")
        assert f"\ndef {name}(" in (Path(__file__).parent / path).read_text()
