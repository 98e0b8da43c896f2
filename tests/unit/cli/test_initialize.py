"""`tunegate initialize` as KServe runs it: a process of its own, with words, an environment and a status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunegate.api.pinned import storage_uri
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.store import Store


@pytest.fixture
def version(store: Store, tmp_path: Path) -> ModelVersion:
    (folder := tmp_path / "model").mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights" * 300_000)
    release = Release(format="huggingface")
    return store.publish(folder, "shop/base/checkpoint-1", release=release, producer=Producer(kind="test"))


def initialize(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tunegate", "initialize", *words]
    return subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **environment})


def test_a_version_is_brought_and_progress_is_told_on_stderr(version: ModelVersion, tmp_path: Path) -> None:
    done = initialize(storage_uri(version), str(tmp_path / "models"), HOME="/dev/null")

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-2:] == [
        "2 of 2 MB",
        f"{version.name} ({version.digest}) is complete in {tmp_path / 'models'}",
    ]
    assert (tmp_path / "models" / "model.safetensors").stat().st_size == 2_100_000


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (lambda uri: uri.rstrip("/"), 2, "is not a pinned version"),
        (lambda uri: uri.replace("tunegate://", "s3://"), 2, "is not a pinned version"),
        (lambda uri: uri.replace("checkpoint-1/", "checkpoint-10/"), 1, "no version shop/base/checkpoint-10"),
        (lambda uri: f"tunegate://sha256-{'0' * 64}{uri[82:]}", 1, "not sha256:0000"),
    ],
)
def test_what_can_not_be_brought_is_one_sentence_and_a_status(
    version: ModelVersion, change: object, status: int, said: str, tmp_path: Path
) -> None:
    done = initialize(change(storage_uri(version)), str(tmp_path / "models"))  # type: ignore[operator]

    assert done.returncode == status
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_store_that_does_not_answer_is_a_failure(version: ModelVersion, tmp_path: Path) -> None:
    done = initialize(storage_uri(version), str(tmp_path / "models"), AWS_ENDPOINT_URL="http://127.0.0.1:9")

    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr


def test_the_store_must_be_named(version: ModelVersion, tmp_path: Path) -> None:
    done = initialize(storage_uri(version), str(tmp_path / "models"), TUNEGATE_STORE="")

    assert done.returncode == 2
    assert "--store" in done.stderr
