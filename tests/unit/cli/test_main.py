"""What the command line says when something it needs is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, *_):
        if name.split(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
from tunegate.cli import main
main({argv!r})
"""


ASK = ["knowledge", "ask", "postgresql://127.0.0.1:9/db#help", "?"]
BUILD = ["knowledge", "build", "help", "a.pdf", "--into", "index", "--embedder", "none"]


@pytest.mark.parametrize(
    ("module", "argv", "extra"),
    [
        pytest.param("openai", ["local", "ask", "?"], "quickstart", id="openai"),
        pytest.param("boto3", ["models", "list", "--store", "s3://b"], "quickstart", id="boto3"),
        pytest.param("bm25s", BUILD, "knowledge", id="bm25s"),
        pytest.param("pypdf", BUILD, "knowledge-office", id="pypdf"),
        pytest.param("psycopg", ASK, "knowledge-postgres", id="psycopg"),
    ],
)
def test_a_missing_extra_is_one_sentence_with_the_remedy(
    tmp_path: Path, module: str, argv: list[str], extra: str
) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    script = HIDE.format(module=module, argv=argv)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    remedy = f"pip install 'tunegate[{extra}]'"
    assert done.stderr.strip() == f"tunegate: {module} is not installed; install it with: {remedy}"
