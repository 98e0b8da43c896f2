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


@pytest.mark.parametrize(
    ("module", "argv"),
    [
        pytest.param("openai", ["local", "ask", "?"], id="openai"),
        pytest.param("boto3", ["models", "list", "--store", "s3://b"], id="boto3"),
    ],
)
def test_a_missing_extra_is_one_sentence_with_the_remedy(tmp_path: Path, module: str, argv: list[str]) -> None:
    script = HIDE.format(module=module, argv=argv)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == f"tunegate: {module} is not installed; install it with: pip install 'tunegate[quickstart]'"
    )
