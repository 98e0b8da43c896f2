"""Looking for processes that should be gone."""

from __future__ import annotations

from pathlib import Path


def processes_about(folder: Path) -> list[str]:
    """Command lines of running processes that have `folder` among their words or in their environment (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            around = (process / "environ").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if str(folder).encode() in words + around:
            found.append(words.replace(b"\0", b" ").decode(errors="replace").strip())
    return found
