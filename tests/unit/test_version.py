"""The version stands in one file; everything else that must spell it agrees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_place_that_spells_the_version_agrees() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "hack/set_version.py"), "--check"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_image_of_ours_that_is_applied_is_among_the_places() -> None:
    named = {path for path in ROOT.glob("pipelines/**/*.yaml") if "image: tunegate/" in path.read_text()}
    places = (ROOT / "hack/set_version.py").read_text()
    assert named
    assert not [path.name for path in named if path.stem not in places]


def test_what_is_no_version_is_refused() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "hack/set_version.py"), "one"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "write it as 1.2.3" in done.stderr
