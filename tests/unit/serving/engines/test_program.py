from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tunegate.processes import free_port


@pytest.mark.usefixtures("forked_programs")
def test_a_model_that_lacks_weights_is_not_served(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    words = [str(folder), str(free_port())]

    # a process of its own: were it served, it would not end
    program = [sys.executable, "-m", "tunegate.serving.engines.program", *words]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("lacks weights, such as model.norm.weight; publish the whole model.")
