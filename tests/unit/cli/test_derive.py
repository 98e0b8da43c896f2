"""`tunegate merge` and `tunegate quantize`: what they print, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunegate.api.pinned import base_of
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.cli import main, root
from tunegate.models import check_folder
from tunegate.store import Store


@pytest.fixture
def beneath(store: Store, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    release = Release(format="huggingface")
    return store.publish(base, "shop/base/checkpoint-0", release=release, producer=Producer(kind="test"))


@pytest.fixture
def version(store: Store, beneath: ModelVersion, prompt: Path) -> ModelVersion:
    release = Release(format="prompt-adapter", base=base_of(beneath))
    return store.publish(prompt, "shop/prompt/checkpoint-3", release=release, producer=Producer(kind="test"))


def test_a_merged_version_is_printed_and_may_be_made_twice(store: Store, version: ModelVersion, tmp_path: Path) -> None:
    words = ("merge", version.digest, "--publish", "shop/prompt-merged/checkpoint-3")
    printed = CliRunner().invoke(root, words, catch_exceptions=False).stdout

    merged = store.resolve("shop/prompt-merged/checkpoint-3")
    assert printed == f"{merged.uri} {merged.digest}\n"
    again = CliRunner().invoke(root, [*words, "--json"], catch_exceptions=False)
    assert json.loads(again.stdout)["digest"] == merged.digest
    assert CliRunner().invoke(root, ("merge", version.name, str(tmp_path / "merged"))).exit_code == 0
    check_folder(tmp_path / "merged")


def test_the_name_and_the_method_can_be_chosen(store: Store, beneath: ModelVersion) -> None:
    words = ("quantize", beneath.name, "--method", "fp8", "--publish", "small/fp8/checkpoint-1", "--json")
    # a process of its own: libraries print as they load
    done = subprocess.run([sys.executable, "-m", "tunegate", *words], capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout)["name"] == "small/fp8/checkpoint-1", done.stderr
    assert "MB became" in done.stderr
    assert store.resolve("small/fp8/checkpoint-1").base == base_of(beneath)


@pytest.mark.usefixtures("version")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["merge", "shop/prompt/checkpoint-3"], "either a FOLDER, or --publish NAME"),
        (["merge", "shop/prompt/checkpoint-3", "."], "exists; name a folder"),
        (["merge", "shop/prompt/checkpoint-3", "--publish", "nonsense"], "MODEL/RUN/checkpoint-STEP"),
        (["merge", "shop/prompt/checkpoint-3", "--publish", "shop/prompt/checkpoint-4"], "a run of its own"),
        (["merge", "shop/base/checkpoint-0", "/nowhere/model"], "is whole already"),
        (["quantize", "shop/base/checkpoint-9"], "checkpoint-9"),
        (["quantize", "shop/base/checkpoint-0", "--publish", "shop/base/checkpoint-1"], "a run of its own"),
    ],
)
def test_what_can_not_be_made_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (1, 2)
    shown = capsys.readouterr().err
    assert shown.startswith("tunegate: ")
    assert message in shown
