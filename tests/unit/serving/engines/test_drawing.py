"""Requests that draw differently in one batch: the rule on rows of scores, and the real engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tests.forking import Forking
from tunegate.api.versions import Release
from tunegate.serving.engines import remote
from tunegate.serving.engines import transformers as engines
from tunegate.serving.engines.drawing import Drawing
from tunegate.serving.engines.heartbeat import Progress
from tunegate.serving.engines.remote import Engine
from tunegate.serving.limits import fit

QUESTION = [{"role": "user", "content": "Price?"}]
SCORES = torch.tensor([1.0, 3.0, 3.0, 2.0, -1.0])


def left(**config: Any) -> list[int]:
    """The tokens of SCORES that may be drawn after 3 and 1."""
    found = Drawing(GenerationConfig(do_sample=True, **config)).left(SCORES.clone(), [3, 1])
    return [int(token) for token in torch.isfinite(found[0]).nonzero()]


def test_the_likeliest_is_one_token_even_of_two_that_are_equal() -> None:
    for config, token in (({}, 1), ({"repetition_penalty": 2.0}, 2)):
        drawing = Drawing(GenerationConfig(do_sample=False, **config))
        assert {int(drawing.draw(SCORES.clone(), [3, 1])) for _ in range(20)} == {token}


def test_a_row_keeps_what_its_request_may_draw_from() -> None:
    assert left() == [0, 1, 2, 3, 4]
    assert left(top_k=3) == [1, 2, 3]
    assert left(top_p=0.6) == [1, 2]
    assert left(min_p=0.3) == [1, 2, 3]
    assert left(temperature=0.5, min_p=0.3) == [1, 2]


def test_a_seed_draws_the_same_at_the_same_place_and_not_always_the_same() -> None:
    drawing = Drawing(GenerationConfig(do_sample=True, seed=7, temperature=2.0))
    drawn = [int(drawing.draw(SCORES.clone(), [0] * length)) for length in range(50)]

    assert drawn == [int(drawing.draw(SCORES.clone(), [9] * length)) for length in range(50)]
    assert len(set(drawn)) > 2


@pytest.fixture(scope="module")
def engine(base: Path, forking_process: Forking, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    async def until_warm() -> None:
        async with remote.session() as session:
            await running.until_warm(session)

    log = tmp_path_factory.mktemp("engine") / "log"
    with forking_process.instead(), engines.start(base, Release(format="huggingface"), log) as running:
        asyncio.run(until_warm())
        yield running


def test_one_batch_serves_requests_that_draw_differently(engine: Engine, base: Path) -> None:
    plain, wild, seeded = {"temperature": 0}, {"temperature": 1.8}, {"temperature": 1.8, "seed": 5}

    async def serve() -> list[str]:
        async with remote.session() as session:

            async def ask(fields: Mapping[str, Any]) -> str:
                async with session.post(f"{engine.url}/v1/chat/completions", json=asked(engine, **fields)) as reply:
                    assert reply.status == 200, await reply.text()
                    return text_of(await reply.text())

            together = await asyncio.gather(*map(ask, (plain, wild, seeded, plain, wild, seeded)))
            return [*together, await ask(seeded)]

    first, wild_one, seed_one, second, wild_two, seed_two, alone = asyncio.run(serve())

    tokenizer = AutoTokenizer.from_pretrained(base)
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        written = AutoModelForCausalLM.from_pretrained(base).generate(**prompt, max_new_tokens=12, do_sample=False)
    answer = tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert first.rstrip("\ufffd") == second.rstrip("\ufffd") == answer.rstrip("\ufffd")
    assert len({first, wild_one, wild_two, seed_one}) == 4
    assert seed_one == seed_two == alone


def test_prompts_that_are_read_in_parts_share_a_batch_with_others(engine: Engine) -> None:
    """Together they have more tokens than one batch takes, so that some have no token yet when others have."""
    long = [{"role": "user", "content": f"{number} " + "How much is the kettle? " * 10} for number in range(12)]
    long.append({"role": "user", "content": "How much is the kettle? " * 100})  # more than a batch takes, alone

    async def serve() -> tuple[list[str], list[str]]:
        async with remote.session() as session:

            async def ask(message: Mapping[str, str]) -> str:
                body = asked(engine, temperature=0, messages=[message])
                async with session.post(f"{engine.url}/v1/chat/completions", json=body) as reply:
                    assert reply.status == 200, await reply.text()
                    return text_of(await reply.text())

            return [await ask(message) for message in long], list(await asyncio.gather(*map(ask, long)))

    alone, together = asyncio.run(serve())
    assert together == alone


def test_the_engine_takes_no_more_steps_for_a_client_that_has_gone(engine: Engine) -> None:
    assert engine.limits is not None
    tokens = engine.limits.context - 200

    async def serve() -> float:
        async with remote.session() as session:
            before = await progress(engine, session)
            body = asked(engine, max_tokens=tokens)
            async with session.post(f"{engine.url}/v1/chat/completions", json=body) as reply:
                await reply.content.readany()
                assert (await progress(engine, session)).requests == 1
            while (await progress(engine, session)).requests:
                await asyncio.sleep(0.02)
            return (await progress(engine, session)).steps - before.steps

    assert 0 < asyncio.run(serve()) < tokens


def asked(engine: Engine, **fields: Any) -> dict[str, Any]:
    assert engine.limits is not None
    body = fit({"model": engine.model, "messages": QUESTION, "max_tokens": 12, **fields}, engine.limits, {})
    return {**body, "stream": True}


def text_of(stream: str) -> str:
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


async def progress(engine: Engine, session: aiohttp.ClientSession) -> Progress:
    assert engine.pulse is not None
    async with session.get(engine.url + engine.pulse.path) as reply:
        return engine.pulse.read(await reply.read())
