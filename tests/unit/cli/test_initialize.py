"""`tunegate initialize` as KServe runs it: with words, an environment and a status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunegate.api.pinned import storage_uri
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.cli import main
from tunegate.store import Store


@pytest.fixture
def version(store: Store, tmp_path: Path) -> ModelVersion:
    (folder := tmp_path / "model").mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights" * 300_000)
    release = Release(format="huggingface")
    return store.publish(folder, "shop/base/checkpoint-1", release=release, producer=Producer(kind="test"))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The status, and what is on standard error."""
    with pytest.raises(SystemExit) as ended:
        main(["initialize", *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().err


def test_a_version_is_brought_and_progress_is_shown_on_stderr(version: ModelVersion, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tunegate", "initialize", storage_uri(version), str(tmp_path / "models")]
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "HOME": "/dev/null"})

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-2:] == [
        "2 of 2 MB",
        f"{version.name} ({version.digest}) is complete in {tmp_path / 'models'}",
    ]
    assert (tmp_path / "models" / "model.safetensors").stat().st_size == 2_100_000


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        (lambda uri: uri.rstrip("/"), 2, "is not a pinned version"),
        (lambda uri: uri.replace("tunegate://", "s3://"), 2, "is not a pinned version"),
        (lambda uri: uri.replace("checkpoint-1/", "checkpoint-10/"), 1, "no version shop/base/checkpoint-10"),
        (lambda uri: f"tunegate://sha256-{'0' * 64}{uri[82:]}", 1, "not sha256:0000"),
    ],
)
def test_what_can_not_be_brought_is_one_sentence_and_a_status(
    version: ModelVersion,
    change: Callable[[str], str],
    status: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended, shown = refused(capsys, change(storage_uri(version)), str(tmp_path / "models"))

    assert ended == status
    assert message in shown
    assert len(shown.splitlines()) == 1


def test_a_store_that_does_not_answer_is_away(
    version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    status, shown = refused(capsys, storage_uri(version), str(tmp_path / "models"))

    assert status == 75
    assert "127.0.0.1:9" in shown


def test_the_store_must_be_named(
    version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEGATE_STORE", "")
    status, shown = refused(capsys, storage_uri(version), str(tmp_path / "models"))

    assert status == 2
    assert "--store" in shown
