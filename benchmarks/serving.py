"""What our server costs: added latency and lost throughput against the engine called directly.

An engine stand-in streams at a fixed rate to 1, 16 and 64 clients, directly and through `tunegate serve`'s server in
turns. Latencies are from sending the request to the first text and to the end of the stream; the added ones are
differences of the same percentile, throughput is tokens received over the time a round took.

    python benchmarks/serving.py [--lockstep] [--rate 0 --tokens 400]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import click
import uvloop

from tunegate.api.versions import ModelVersion, Release
from tunegate.cli.options import print_table
from tunegate.processes import Child, answers, free_port

MODEL = "shop-assistant"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Which kettle is quiet?"}], "stream": True}
BODY = json.dumps(ASK, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Answer:
    """One stream: seconds to its first text and to its end, and its tokens."""

    first: float
    whole: float
    tokens: int


@dataclass(frozen=True)
class Round:
    answers: list[Answer]
    seconds: float


@click.command(help=__doc__.split("\n")[0])
@click.option("--rate", default=20.0, show_default=True, help="Tokens a second for each stream; 0 for all at once.")
@click.option("--tokens", default=40, show_default=True, help="Tokens in each answer.")
@click.option("--lockstep", is_flag=True, help="All streams get their tokens at the same moment.")
@click.option("--rounds", default=4, show_default=True, help="Rounds each way.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--server", "server", nargs=2, hidden=True)
def main(rate: float, tokens: int, lockstep: bool, rounds: int, as_json: bool, server: tuple[str, str] | None) -> None:
    if server:
        _serve(int(server[0]), server[1])
        return
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        engine, ours = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        words = ["--rate", str(rate), "--tokens", str(tokens), *(["--lockstep"] if lockstep else [])]
        with (
            _start(Path(scratch), "engine_stand_in.py", "--port", engine.rpartition(":")[2], *words) as child,
            _start(Path(scratch), "serving.py", "--server", ours.rpartition(":")[2], engine) as second,
        ):
            child.wait_until(lambda: answers(f"{engine}/health"), seconds=20)
            second.wait_until(lambda: answers(f"{ours}/v2/health/ready"), seconds=60)
            for clients in (1, 16, 64):
                asks = 4 if clients == 1 else 2
                spread = tokens / rate if rate else 0.0
                results[clients] = uvloop.run(_measure(engine, ours, clients, rounds, asks, spread))
    _report(results, as_json)


def _start(scratch: Path, program: str, *words: str) -> Child:
    argv = [sys.executable, str(Path(__file__).with_name(program)), *words]
    return Child.start(program, argv, log=scratch / f"{program}.log")


async def _measure(
    engine: str, ours: str, clients: int, rounds: int, asks: int, spread: float
) -> dict[str, list[Round]]:
    """Rounds directly and through our server, in turns, after one of a single answer that is not counted."""
    measured: dict[str, list[Round]] = {"direct": [], "ours": []}
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    async with aiohttp.ClientSession(connector=connector) as session:
        for turn in range(rounds + 1):
            for name, url in (("direct", engine), ("ours", ours)):
                if turn:
                    measured[name].append(await _round(session, url, clients, asks, spread))
                else:
                    await _ask(session, url)
    return measured


async def _round(session: aiohttp.ClientSession, url: str, clients: int, asks: int, spread: float) -> Round:
    """Every client asks one question after the other; they start evenly over the time that one answer takes."""

    async def client(number: int) -> list[Answer]:
        await asyncio.sleep(spread * number / clients)
        return [await _ask(session, url) for _ in range(asks)]

    start = time.perf_counter()
    answers = await asyncio.gather(*(client(number) for number in range(clients)))
    return Round([answer for each in answers for answer in each], time.perf_counter() - start)


async def _ask(session: aiohttp.ClientSession, url: str) -> Answer:
    start, first, tokens = time.perf_counter(), 0.0, 0
    headers = {"content-type": "application/json"}
    async with session.post(f"{url}/v1/chat/completions", data=BODY, headers=headers) as reply:
        async for data in reply.content.iter_any():
            tokens += data.count(b'"content":" word')
            if tokens and not first:
                first = time.perf_counter() - start
    return Answer(first, time.perf_counter() - start, tokens)


def _report(results: dict[int, dict[str, list[Round]]], as_json: bool) -> None:
    rows = [row for clients, measured in results.items() for row in _rows(clients, measured)]
    if as_json:
        keys = ("clients", "what", "direct", "ours", "difference_or_ratio")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2))
        return
    shown = [(clients, what, f"{a:.2f}", f"{b:.2f}", f"{c:.3f}") for clients, what, a, b, c in rows]
    print_table("our server against the engine", ("clients", "what", "direct", "ours", "added ms or ratio"), shown)


def _rows(clients: int, measured: dict[str, list[Round]]) -> list[tuple[int, str, float, float, float]]:
    rows = []
    for what, name in (("first text", "first"), ("whole answer", "whole")):
        milliseconds = {
            way: [getattr(answer, name) * 1000 for each in rounds for answer in each.answers]
            for way, rounds in measured.items()
        }
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            direct, ours = (_percentile(milliseconds[way], share) for way in ("direct", "ours"))
            rows.append((clients, f"{what}, {label} ms", direct, ours, ours - direct))
    direct, ours = (_throughput(measured[way]) for way in ("direct", "ours"))
    return [*rows, (clients, "tokens/s, ratio", direct, ours, ours / direct)]


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _throughput(rounds: Sequence[Round]) -> float:
    return statistics.median(sum(answer.tokens for answer in each.answers) / each.seconds for each in rounds)


class _NoStore:
    """Nobody sends feedback here."""

    def put_new(self, key: str, body: bytes) -> bool:
        return True

    def get(self, key: str) -> bytes | None:
        return None

    def keys(self, prefix: str) -> list[str]:
        return []


def _serve(port: int, engine: str) -> None:
    """The server under test: all of `tunegate serve` but the store."""
    from tunegate.serving.app import run
    from tunegate.serving.config import EngineConfig, ServeConfig
    from tunegate.serving.launch import start_engine
    from tunegate.serving.version import ServedVersion

    name = f"{MODEL}/run/checkpoint-0"
    version = ModelVersion(
        model=MODEL,
        name=name,
        uri=f"s3://models/{name}/",
        digest="sha256:" + "0" * 64,
        format="huggingface",
        created=datetime.now(UTC),
    )
    release = Release(format="huggingface", system_prompt="You are a shopping assistant.")
    config = ServeConfig(
        served=ServedVersion(version, release, folder=None),
        engine=EngineConfig(url=engine),
        model=MODEL,
        feedback_key=bytes(32),
        store=_NoStore(),
        port=port,
    )
    run(config, start_engine(config))


if __name__ == "__main__":
    main()
