from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tunegate.api.errors import StoreError, UsageError
from tunegate.api.versions import File, ModelVersion, Producer, Prompts, Release
from tunegate.store import Store, transfer

from .conftest import MIB, Proxy

NAME = "tea/run/checkpoint-1"


def publish(store: Store, folder: Path, name: str = NAME, **options: Any) -> ModelVersion:
    return store.publish(folder, name, release=Release(format="huggingface"), producer=Producer(kind="test"), **options)


def test_same_bytes_again_are_the_same_version(store: Store, model: Path) -> None:
    assert publish(store, model) == publish(store, model)


def test_other_bytes_under_the_same_name_are_refused(store: Store, model: Path) -> None:
    version = publish(store, model)
    (model / "config.json").write_text('{"architectures": [0]}'[:21])
    with pytest.raises(StoreError, match=rf"{NAME} is taken by other bytes .* choose another name"):
        publish(store, model)
    (model / "more.json").touch()
    with pytest.raises(StoreError, match="choose another name"):
        publish(store, model)
    assert store.list() == [version]
    store.verify(NAME)


def test_publishing_what_the_store_holds_moves_no_bytes(proxied: Store, proxy: Proxy, model: Path) -> None:
    publish(proxied, model)
    assert proxy.sent > 3 * MIB
    before = proxy.sent + proxy.received
    publish(proxied, model)
    (model / "config.json").write_text("another version of the same model")
    other = publish(proxied, model, "tea/other-run/checkpoint-2")
    assert proxy.sent + proxy.received - before < 0.1 * MIB
    assert proxied.verify(other.name).digest == other.digest


def test_a_version_made_of_another_one_moves_no_bytes_of_its_weights(
    proxied: Store, proxy: Proxy, model: Path, tmp_path: Path
) -> None:
    origin = proxied.manifest(publish(proxied, model).digest)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/answer.prompt").write_text("Answer.")
    before = proxy.sent + proxy.received
    release = Release(format="huggingface", prompts=Prompts())
    made = proxied.publish(
        origin, "other/run/checkpoint-1", release=release, producer=Producer(kind="test"), prompts=tmp_path / "prompts"
    )
    assert proxy.sent + proxy.received - before < 0.1 * MIB
    paths = {file.path for file in proxied.verify(made.name).files}
    kept = {file.path for file in origin.files if not file.path.startswith("resume/")}
    assert paths == kept | {"prompts/answer.prompt"} != {file.path for file in origin.files}


def test_large_files_are_copied_in_parts(
    proxied: Store, proxy: Proxy, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "model.safetensors").write_bytes(os.urandom(12 * MIB))
    publish(proxied, model)
    monkeypatch.setattr(transfer, "_COPY_PART", 5 * MIB)
    before = proxy.sent + proxy.received
    copy = publish(proxied, model, "tea/other-run/checkpoint-2")
    assert proxy.sent + proxy.received - before < 0.1 * MIB
    proxied.verify(copy.name)


def test_release_counts_as_bytes_of_the_version(store: Store, model: Path) -> None:
    publish(store, model)
    with pytest.raises(StoreError, match="choose another name"):
        store.publish(
            model, NAME, release=Release(format="huggingface", system_prompt="Hm."), producer=Producer(kind="test")
        )


def test_manifest_and_release_of_an_earlier_version_are_left_out(store: Store, model: Path) -> None:
    version = publish(store, model)
    (model / "manifest.json").write_text("stale")
    (model / "release.yaml").write_text("stale")
    assert publish(store, model) == version


def test_progress_reaches_the_total_and_never_goes_back(store: Store, model: Path) -> None:
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        calls.clear()
        publish(store, model, progress=lambda done, total: calls.append((done, total)))
        total = store.manifest(NAME).size
        assert calls[-1] == (total, total)
        assert calls == sorted(calls)


def send_share(store: Store, folder: Path, index: int) -> None:
    store.send_share(folder, NAME, release=Release(format="huggingface"), index=index, count=2)


def test_shares_that_two_send_at_once_are_no_version_until_it_is_published_which_sends_nothing_again(
    proxied: Store, proxy: Proxy, model: Path
) -> None:
    (model / "more.safetensors").write_bytes(os.urandom(12 * MIB))
    with ThreadPoolExecutor(2) as both:
        list(both.map(partial(send_share, proxied, model), range(2)))
    send_share(proxied, model, 1)  # by a node that came back
    assert proxied.list() == []
    before = proxy.sent

    version = publish(proxied, model)

    assert proxy.sent - before < 0.1 * MIB
    assert proxied.verify(NAME).digest == version.digest
    assert proxied.keys(".tunegate/publishing/") == []


def test_a_share_whose_sender_is_killed_in_the_middle_is_sent_by_who_publishes(store: Store, model: Path) -> None:
    (model / "more.safetensors").write_bytes(os.urandom(40 * MIB))
    send_share(store, model, 1)
    killed = subprocess.run([sys.executable, "-c", DIES, store.uri, str(store.endpoint_url), model, NAME])
    assert killed.returncode == -signal.SIGKILL
    assert len(store._bucket.client.list_multipart_uploads(Bucket=store._bucket.location.bucket)["Uploads"]) == 1
    assert store.list() == []

    version = publish(store, model)

    assert store.verify(NAME).digest == version.digest
    assert "Uploads" not in store._bucket.client.list_multipart_uploads(Bucket=store._bucket.location.bucket)


DIES = """
import os, signal, sys
from pathlib import Path
from tunegate.api.versions import Release
from tunegate.store import Store
from tunegate.store.transfer import Transfers

def die_at_the_third(self, part, body, send=Transfers._send):
    if part["PartNumber"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return send(self, part, body)

Transfers._send = die_at_the_third
store = Store.open(sys.argv[1], endpoint_url=sys.argv[2])
store.send_share(Path(sys.argv[3]), sys.argv[4], release=Release(format="huggingface"), index=0, count=2)
"""


def test_no_share_is_sent_beside_who_publishes_or_afterwards(proxied: Store, proxy: Proxy, model: Path) -> None:
    def send_meanwhile(done: int, total: int) -> None:
        if done == total:
            send_share(proxied, model, 0)

    publish(proxied, model, progress=send_meanwhile)
    send_share(proxied, model, 0)

    assert proxy.sent < 4 * MIB  # once
    assert proxied.keys(".tunegate/publishing/") == []


def test_files_that_another_process_alone_has_are_a_part_of_the_version(
    proxied: Store, proxy: Proxy, model: Path, tmp_path: Path
) -> None:
    """Another node, with a folder of its own; who publishes knows what was sent, and never sees the bytes."""
    there = tmp_path / "there"
    (there / "resume").mkdir(parents=True)
    (there / "resume" / "rank-1.pt").write_bytes(os.urandom(9 * MIB))
    sent = proxied.send_part(there, NAME, ["resume/rank-1.pt"])
    assert sent is not None
    assert proxied.list() == []
    assert not proxied.is_sent(NAME)
    before = proxy.sent

    version = publish(proxied, model, sent=sent, instead={"config.json": b"{}"})

    assert proxy.sent - before < 4 * MIB  # without what was there
    fetched = proxied.fetch(version.uri, tmp_path / "fetched", include_resume=True)
    assert (fetched / "resume" / "rank-1.pt").read_bytes() == (there / "resume" / "rank-1.pt").read_bytes()
    assert (fetched / "config.json").read_bytes() == b"{}"
    assert proxied.send_part(there, NAME, ["resume/rank-1.pt"]) is None


def test_a_file_that_another_process_did_not_send_leaves_no_version(store: Store, model: Path) -> None:
    told = File(path="resume/rank-1.pt", size=5, sha256="0" * 64)
    with pytest.raises(StoreError, match=r"resume/rank-1.pt, which another process sent, is gone from the store; have"):
        publish(store, model, sent=[told])
    assert store.list() == []


def test_one_of_two_publishers_with_different_bytes_wins(store: Store, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        for number in range(3):
            (folder / f"{number}.bin").write_bytes(os.urandom(MIB))
    barrier = threading.Barrier(2)

    def attempt(folder: Path) -> ModelVersion | StoreError:
        barrier.wait()
        try:
            return publish(store, folder)
        except StoreError as error:
            return error

    with ThreadPoolExecutor(2) as both:
        results = list(both.map(attempt, folders))
    (version,) = [result for result in results if isinstance(result, ModelVersion)]
    (refusal,) = [result for result in results if isinstance(result, StoreError)]
    assert "choose another name" in str(refusal)
    assert store.verify(NAME).digest == version.digest
    assert store.keys(".tunegate/publishing/") == []


def test_two_publishers_of_the_same_bytes_get_the_same_version(store: Store, model: Path) -> None:
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(lambda _: publish(store, model), range(2))
    assert first == second


def test_file_that_changes_meanwhile_is_noticed(store: Store, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PART", 5 * MIB)
    (model / "model.safetensors").write_bytes(os.urandom(12 * MIB))

    def append(done: int, total: int) -> None:
        if done > 5 * MIB:
            with (model / "model.safetensors").open("ab") as file:
                file.write(b"late")

    with pytest.raises(StoreError, match=r"model.safetensors changed while it was published"):
        publish(store, model, progress=append)
    assert store.list() == []


def test_failed_publish_goes_on_where_it_stopped(
    proxied: Store, proxy: Proxy, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_FILES", 1)  # the largest first, alone
    (model / "second.safetensors").write_bytes(os.urandom(2 * MIB))

    def stop(done: int, total: int) -> None:
        if done > 4 * MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(proxied, model, progress=stop)
    assert proxied.list() == []
    before = proxy.sent
    (model / "stray.json").touch()
    publish(proxied, model)
    assert proxy.sent - before < 2.5 * MIB
    proxied.verify(NAME)
    assert proxied.keys(".tunegate/publishing/") == []


def test_files_of_an_interrupted_attempt_are_no_part_of_the_version(store: Store, model: Path) -> None:
    store.put(f"{NAME}/old.bin", b"left behind")
    store.put(f"{NAME}/config.json", b"half a file")
    publish(store, model)
    assert f"{NAME}/old.bin" not in store.keys(f"{NAME}/")
    store.verify(NAME)


@pytest.mark.parametrize("broken", ["missing", "file", "empty", "linked", "pipe"])
def test_folder_that_cannot_be_published_is_a_usage_error(store: Store, tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "folder"
    if broken == "file":
        folder.touch()
    elif broken != "missing":
        folder.mkdir()
    if broken == "linked":
        (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    if broken == "pipe":
        os.mkfifo(folder / "pipe")
    with pytest.raises(UsageError, match=r"folder|regular file"):
        publish(store, folder)
    assert store.keys("") == []


@pytest.mark.parametrize("name", ["a\\b.txt", "line\nbreak", "bell\a", b"latin-\xe9"])
def test_a_name_that_cannot_travel_is_refused(store: Store, model: Path, name: str | bytes) -> None:
    """A store would take it and nobody could fetch it again."""
    path = model / os.fsdecode(name)
    path.touch()
    with pytest.raises(UsageError, match="has a name that not every store can hold; rename it"):
        publish(store, model)
    path.rename(model / "plain.txt")
    store.fetch(publish(store, model).uri, model.parent / "fetched")


def test_what_git_and_downloads_keep_beside_a_model_is_left_out_and_told(
    store: Store, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version = publish(store, model)
    for path in (".git/lfs/objects/a", ".cache/huggingface/download/a.lock", "tokenizer/.git", "a.lock"):
        (model / path).parent.mkdir(parents=True, exist_ok=True)
        (model / path).touch()

    assert publish(store, model) == version
    assert "left out of the version: .cache, .git, a.lock, tokenizer/.git" in caplog.text


def test_linked_files_are_published_as_files(store: Store, model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.bin").write_bytes(b"blob")
    (model / "linked.bin").symlink_to(tmp_path / "elsewhere.bin")
    publish(store, model)
    assert store.get(f"{NAME}/linked.bin") == b"blob"
