"""Soft prompts and small weights as users get them: real engines on real models, over HTTP."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.adapters import VIRTUAL, make_prompt, tuned
from tests.processes import processes_about
from tunegate.api.pinned import Pinned
from tunegate.api.versions import BaseModel, ModelVersion, Producer, Release
from tunegate.cli import main
from tunegate.models.merge import merge_adapter
from tunegate.models.mount import deliver
from tunegate.models.quantize import quantize
from tunegate.processes import Child, answers, free_port
from tunegate.serving.engines import remote
from tunegate.serving.engines import transformers as engines
from tunegate.store import Store

QUESTIONS = ["Price?", "水壶多少钱？", "How much is the kettle?"]
TOKENS = 12


@pytest.fixture
def version(store: Store, base: Path, prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUNEGATE_FEEDBACK_KEY", "5e" * 32)
    made = Producer(kind="test")
    beneath = store.publish(base, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=made)
    release = Release(format="prompt-adapter", base=BaseModel(uri=beneath.uri, digest=beneath.digest))
    return store.publish(prefix, "shop/prefix/checkpoint-3", release=release, producer=made)


def greedy(model: Any, folder: Path) -> list[str]:
    """What `model` answers to QUESTIONS, under the template in `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for question in QUESTIONS:
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        with torch.no_grad():
            written = model.generate(**asked, max_new_tokens=TOKENS, do_sample=False)
        answer = tokenizer.decode(written[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        found.append(_ended(answer))
    return found


def _ended(answer: str) -> str:
    """Without a character that the last token only begins: it is not streamed."""
    return answer.rstrip("\ufffd")


async def streamed(url: str, model: str) -> list[str]:
    """What the server streams as answers to QUESTIONS that are asked at the same time."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:

        async def ask(question: str) -> str:
            stream = await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}], max_tokens=TOKENS, stream=True
            )
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            assert len([part for part in parts if part]) > 1
            return _ended("".join(parts))

        return list(await asyncio.gather(*map(ask, QUESTIONS)))


@pytest.mark.usefixtures("forked_programs")
def test_a_prefix_is_served_as_peft_answers(version: ModelVersion, base: Path, prefix: Path, tmp_path: Path) -> None:
    port = free_port()
    argv = [sys.executable, "-m", "tunegate", "serve", version.name, "--port", str(port)]
    with Child.start("the server", argv, log=tmp_path / "log") as child:
        child.wait_until(lambda: answers(f"http://127.0.0.1:{port}/v2/health/ready"), seconds=120)
        found = asyncio.run(streamed(f"http://127.0.0.1:{port}", "shop"))
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        whole = client.chat.completions.create(
            model="shop", messages=[{"role": "user", "content": QUESTIONS[0]}], max_tokens=TOKENS
        )

    assert found == greedy(tuned(base, prefix), base)
    assert _ended(whole.choices[0].message.content or "") == found[0]
    assert found != greedy(AutoModelForCausalLM.from_pretrained(base), base)
    assert not processes_about(tmp_path)


@pytest.mark.usefixtures("forked_programs")
def test_a_p_tuned_model_in_int8_is_served_by_continuous_batching(base: Path, tmp_path: Path) -> None:
    whole = merge_adapter(base, make_prompt(base, tmp_path / "adapter"), tmp_path / "whole")
    quantize(whole, tmp_path / "int8", "int8")
    release = Release(format="huggingface")

    async def serve() -> list[str]:
        engine = engines.start(tmp_path / "int8", release, tmp_path / "engine.log")
        try:
            async with remote.session() as session:
                await engine.until_warm(session)
                return await streamed(engine.url, engine.model)
        finally:
            engine.stop()

    found = asyncio.run(serve())

    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "int8", dtype=torch.float32)
    assert found == greedy(expected, tmp_path / "int8")
    assert (
        engines.read_limits(tmp_path / "int8", release).context == engines.read_limits(base, release).context - VIRTUAL
    )


@pytest.mark.parametrize("words", [["--engine", "vllm"], ["--engine-url", "http://127.0.0.1:9"]])
@pytest.mark.parametrize("is_mounted", [False, True], ids=["store", "folder"])
def test_other_engines_refuse_a_prefix(
    version: ModelVersion,
    store: Store,
    words: Sequence[str],
    is_mounted: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    what = [version.name]
    if is_mounted:
        deliver(store, Pinned(version.name, version.digest), tmp_path / "models")
        what = ["--folder", str(tmp_path / "models")]
    with pytest.raises(SystemExit) as ended:
        main(["serve", *what, *words])

    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("tunegate: shop/prefix/checkpoint-3 is a prefix for every layer")
    assert "--engine transformers" in message
