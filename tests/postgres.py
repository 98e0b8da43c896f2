"""A real PostgreSQL with pgvector, from the package pgserver."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

HAS_POSTGRES = all(importlib.util.find_spec(name) for name in ("pgserver", "psycopg"))
needs_postgres = pytest.mark.skipif(
    not HAS_POSTGRES, reason="needs PostgreSQL with pgvector: pip install pgserver 'tunegate[knowledge-postgres]'"
)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of a database in `folder`, on a socket."""
    with pytest.MonkeyPatch.context() as patched:
        (folder / "run").mkdir(mode=0o700)
        patched.setenv("XDG_RUNTIME_DIR", str(folder / "run"))  # which pgserver reads when it is imported
        import pgserver

        with _started(lambda: pgserver.get_server(folder / "data")) as running:
            yield running.get_uri()


def _started(start: Callable[[], Any]) -> Any:
    """The server. pgserver gives it 10 seconds, which a busy machine may exceed; then it is found as it comes up."""
    for _ in range(5):
        with suppress(subprocess.TimeoutExpired):
            return start()
    return start()
