"""A review that is served on loopback, and a real Chromium to look at it with."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.chromium import browser  # noqa: F401 (a fixture)
from tunegate.api.codec import to_json
from tunegate.review.desk import Desk
from tunegate.review.items import Review
from tunegate.review.marks import MarkFile
from tunegate.review.server import listen

Serve = Callable[..., str]


@contextmanager
def served(review: Review, path: Path, port: int = 0, token: str | None = None) -> Iterator[str]:
    """The URL of the review while it is served; its marks are in `path`."""
    marks = MarkFile(path)
    server = listen(Desk(review, marks), "127.0.0.1", port, token)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        marks.close()


@contextmanager
def process(review: Review, folder: Path, port: int = 0) -> Iterator[str]:
    """The URL of the review while a process of its own serves it, which ends by SIGKILL."""
    (folder / "review.json").write_bytes(to_json(review))
    argv = [sys.executable, "-m", "tunegate", "review", "serve", str(folder), "--port", str(port)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield child.stdout.readline().strip()
        finally:
            child.kill()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve a review until the end of the test; marks are in `marks.jsonl` of the test's folder."""
    with ExitStack() as stack:
        yield lambda review, **more: stack.enter_context(served(review, tmp_path / "marks.jsonl", **more))
