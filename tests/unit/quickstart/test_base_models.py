"""The base model of the tests' story, made on the spot."""

from __future__ import annotations

from pathlib import Path

from tunegate.models import check_folder
from tunegate.quickstart.base_models import make_base


def test_the_tiny_base_is_whole_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "bases" / "tiny"
    make_base("tiny", folder)
    check_folder(folder)
    assert (folder / "model.safetensors").exists()
    assert list(folder.parent.iterdir()) == [folder]
