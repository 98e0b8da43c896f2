"""What the embedded engine answers with a model in bfloat16, on a CPU that only emulates that, in three ways.

    python -m benchmarks.half_precision --base FOLDER [--seconds 40] [--rounds 2]

  emulated   as torch computes it
  float32    from a copy of the weights in float32, which takes twice the memory
  upcast     as it is: layers with many rows are computed in float32

Engines run one at a time, in turns. So many clients at once ask what the shop's shoppers ask; answers/s are those of
all of them, of the best round.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import click
import msgspec
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunegate.models.network import has_bfloat16
from tunegate.processes import Child, answers, free_port
from tunegate.quickstart.simulated_users import MAX_TOKENS
from tunegate.serving.engines.remote import ENVIRONMENT
from tunegate.shop.shoppers import load_questions

RUN = "from tunegate.serving.engines import program, upcast\n{}\nprogram.main(*{!r})"
CLIENTS = (1, 6, 12)


@click.command(help=__doc__.split("\n")[0])
@click.option("--base", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seconds", default=40.0, show_default=True, help="How long clients begin to ask.")
@click.option("--rounds", default=2, show_default=True, type=click.IntRange(1))
def main(base: Path, seconds: float, rounds: int) -> None:
    if has_bfloat16():
        raise click.ClickException("This CPU multiplies bfloat16; there is nothing to compare.")
    with tempfile.TemporaryDirectory() as folder:
        wide = Path(folder) / "float32"
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).save_pretrained(wide)
        AutoTokenizer.from_pretrained(base).save_pretrained(wide)
        arms = {"emulated": (base, "upcast.ROWS = 10**9"), "float32": (wide, ""), "upcast": (base, "")}
        best: dict[tuple[str, int], float] = {}
        for _, (arm, (model, change)) in itertools.product(range(rounds), arms.items()):
            with engine(model, change, Path(folder) / f"{arm}.log") as url:
                for clients in CLIENTS:
                    rate = asyncio.run(ask(url, str(model), clients, seconds))
                    best[arm, clients] = max(best.get((arm, clients), 0), rate)
                    click.echo(f"{arm}, {clients} at once: {rate:.2f} answers/s")
    for arm, clients in itertools.product(arms, CLIENTS):
        ratio = best[arm, clients] / best["emulated", clients]
        click.echo(f"{arm:9} {clients:2} at once: {best[arm, clients]:.2f} answers/s, {ratio:.2f} times emulated")


@contextmanager
def engine(model: Path, change: str, log: Path) -> Iterator[str]:
    port = free_port()
    argv = [sys.executable, "-c", RUN.format(change, (str(model), str(port)))]
    with Child.start("the engine", argv, log=log, env=ENVIRONMENT) as child:
        url = f"http://127.0.0.1:{port}"
        child.wait_until(lambda: answers(f"{url}/health"), seconds=300)
        yield url


async def ask(url: str, model: str, clients: int, seconds: float) -> float:
    """Answers/s of so many clients, each of which asks again as soon as it is answered."""
    questions = itertools.cycle(load_questions("en"))
    began, answered = time.monotonic(), 0
    async with aiohttp.ClientSession(raise_for_status=True) as session:

        async def client() -> None:
            nonlocal answered
            while time.monotonic() < began + seconds:
                messages = msgspec.to_builtins(next(questions).messages)
                body = {"model": model, "messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0}
                async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
                    await reply.json()
                answered += 1

        await asyncio.gather(*(client() for _ in range(clients)))
    return answered / (time.monotonic() - began)


if __name__ == "__main__":
    main()
