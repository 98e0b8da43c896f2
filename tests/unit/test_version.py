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


def test_what_is_no_version_is_refused() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "hack/set_version.py"), "one"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "write it as 1.2.3" in done.stderr
