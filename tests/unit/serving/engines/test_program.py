from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.adapters import make_lora
from tests.unit.evaluation.builders import answers
from tunegate.api.versions import Release
from tunegate.evaluation.models.local import LocalModel
from tunegate.models.materialize import on_base
from tunegate.processes import free_port
from tunegate.serving.engines import remote, transformers
from tunegate.serving.engines.remote import Engine

ASK = [{"role": "user", "content": "How much is the kettle?"}]


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


async def asked_at_once(engine: Engine, times: int) -> list[str]:
    """What is answered to the same question by continuous batching."""
    body = {"model": engine.model, "messages": ASK, "max_tokens": 12, "temperature": 0}

    async with remote.session() as session:
        await engine.until_warm(session)

        async def ask() -> str:
            async with session.post(f"{engine.url}/v1/chat/completions", json=body) as reply:
                return str((await reply.json())["choices"][0]["message"]["content"])

        return await asyncio.gather(*(ask() for _ in range(times)))


def mapped(file: Path) -> list[str]:
    """The processes that hold a file mapped, by their numbers."""
    found = []
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            found += [maps.parent.name] * (str(file.resolve()) in maps.read_text())
        except OSError:
            continue
    return found


@pytest.mark.usefixtures("forked_programs")
def test_a_lora_beside_its_base_is_answered_with_as_merged_and_the_bases_file_is_mapped(
    base: Path, tmp_path: Path
) -> None:
    adapter = make_lora(base, tmp_path / "adapter", target_modules="all-linear")
    beside = on_base(adapter, tmp_path / "served", lambda: base, share_base=True)
    with transformers.start(beside, Release(format="lora-adapter"), tmp_path / "log") as engine:
        told = asyncio.run(asked_at_once(engine, 3))
        assert mapped(base / "model.safetensors")

    def said(folder: Path) -> str | None:
        return answers(LocalModel(folder, dtype=torch.float32), [ASK], 12)[0]

    merged = on_base(adapter, tmp_path / "served", lambda: base)
    assert {re.sub("\ufffd+$", "", each).strip() for each in told} == {said(merged)}
    assert said(merged) != said(base)
