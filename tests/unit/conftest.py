"""What unit tests of several packages share: a lively model and what was learned for it, which none of them changes."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.adapters import make_lively  # torch, which most tests don't need

    return make_lively(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="session")
def prompt(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.adapters import make_prompt

    return make_prompt(base, tmp_path_factory.mktemp("prompt") / "adapter")


@pytest.fixture(scope="session")
def prefix(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.adapters import make_prefix

    return make_prefix(base, tmp_path_factory.mktemp("prefix") / "adapter")
