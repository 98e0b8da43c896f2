"""What a candidate costs with an engine of its own, and with one that the versions of its base share.

    PATH=$PATH:/path/to/venv-with-vllm/bin python -m benchmarks.shared_base [--base FOLDER] [--adapters 4]
    python -m benchmarks.shared_base --engine transformers --base FOLDER --adapters 2

LoRA adapters with random weights on one base are served in two ways, one after the other:

  shared   `tunegate engine` has the base; `tunegate serve --engine-control` has each adapter loaded there
  alone    `tunegate serve --engine vllm`: adapter and base are fetched and merged, and a vLLM of its own starts

and with the embedded engine the base and its adapters each by a `tunegate serve`, which all run at the same time:

  merged   as it is by default
  beside   with --share-base

What is merged was merged before. A token's time is that of an answer less that of its first token, of one
conversation at a time, the fastest of three.

Seconds are from starting the server until it is ready, which is after a first token. Memory is what the new processes
hold (PSS, so that what several map is counted once), and for "shared" also what the engine grew by.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.request import Request

import click
import numpy as np
from safetensors.numpy import load_file, save_file

from tests.adapters import make_lively, make_lora
from tunegate.api import environment
from tunegate.api.pinned import Pinned
from tunegate.api.versions import BaseModel, ModelVersion, Producer, Release
from tunegate.models.materialize import materialize
from tunegate.models.mount import deliver
from tunegate.processes import Child, answers, free_port, open_url
from tunegate.store import EmbeddedStore, Store

MADE = Producer(kind="benchmark")
_SECONDS = 900.0


@click.command(help=__doc__.split("\n")[0])
@click.option("--base", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Default: a tiny model.")
@click.option("--adapters", default=4, show_default=True, type=click.IntRange(1))
@click.option("--engine", default="vllm", show_default=True, type=click.Choice(["vllm", "transformers"]))
def main(base: Path | None, adapters: int, engine: str) -> None:
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        embedded = stack.enter_context(EmbeddedStore.start(scratch / "store"))
        os.environ.update(embedded.environment)
        os.environ[environment.STORE] = embedded.uri
        os.environ[environment.CACHE] = str(scratch / "cache")
        os.environ[environment.FEEDBACK_KEY] = secrets.token_hex(32)
        store = Store.open(embedded.uri, endpoint_url=embedded.endpoint_url)
        folder = base or make_lively(scratch / "model")
        first = store.publish(folder, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=MADE)
        tuned = publish_adapters(store, first, folder, scratch, adapters)
        if engine == "transformers":
            for version, way in itertools.product(tuned, (False, True)):
                materialize(store, version, share_base=way)
            for words in ((), ("--share-base",)):
                for row in side_by_side([first, *tuned], scratch, *words):
                    click.echo(row)
            return
        for row in (*shared(store, first, tuned, scratch), alone(tuned[0], scratch)):
            click.echo(row)


def publish_adapters(store: Store, base: ModelVersion, folder: Path, scratch: Path, count: int) -> list[ModelVersion]:
    release = Release(format="lora-adapter", base=BaseModel(uri=base.uri, digest=base.digest))
    made, found = make_lora(folder, scratch / "adapter"), []
    for step in range(1, count + 1):
        other = shutil.copytree(made, scratch / f"adapter-{step}")
        weights = load_file(made / "adapter_model.safetensors")
        scaled = {name: np.asarray(value * step / count) for name, value in weights.items()}
        save_file(scaled, other / "adapter_model.safetensors")
        found.append(store.publish(other, f"shop/run/checkpoint-{step}", release=release, producer=MADE))
    return found


def alone(version: ModelVersion, scratch: Path) -> str:
    before = processes()
    with served(version, scratch, "--engine", "vllm") as seconds:
        return f"alone: ready after {seconds:.1f} s, {pss(processes() - before) / 1e6:.0f} MB of new processes"


def shared(store: Store, base: ModelVersion, tuned: list[ModelVersion], scratch: Path) -> Iterator[str]:
    port, control = free_port(), free_port()
    deliver(store, Pinned(base.name, base.digest), scratch / "base")
    words = ["--folder", str(scratch / "base"), "--port", str(port), "--control-port", str(control)]
    words += ["--max-adapters", str(len(tuned)), "--max-rank", "8"]
    before, clock = processes(), time.monotonic()
    with ExitStack() as stack:
        argv = [sys.executable, "-m", "tunegate", "engine", *words]
        engine = stack.enter_context(Child.start("the engine", argv, log=scratch / "engine.log"))
        engine.wait_until(lambda: answers(f"http://127.0.0.1:{control}/healthz"), seconds=_SECONDS)
        of_engine = processes() - before
        yield f"the engine: ready after {time.monotonic() - clock:.1f} s, {pss(of_engine) / 1e6:.0f} MB"
        urls = ("--engine-url", f"http://127.0.0.1:{port}", "--engine-control", f"http://127.0.0.1:{control}")
        for number, version in enumerate(tuned, 1):
            earlier, held = processes(), pss(of_engine)
            seconds = stack.enter_context(served(version, scratch, *urls))
            new, grown = pss(processes() - earlier) / 1e6, (pss(of_engine) - held) / 1e6
            yield f"adapter {number}: ready after {seconds:.1f} s, {new:.0f} MB for its server, engine {grown:+.0f} MB"


def side_by_side(versions: list[ModelVersion], scratch: Path, *words: str) -> Iterator[str]:
    name = "beside" if words else "merged"
    with ExitStack() as stack:
        running = []
        for version in versions:
            earlier, port = processes(), free_port()
            seconds = stack.enter_context(served(version, scratch, *words, port=port))
            running.append((version, seconds, port, processes() - earlier))
        told = [(version, seconds, token_time(port), pids) for version, seconds, port, pids in running]
        for version, seconds, token, pids in told:
            held = pss(pids) / 2**20
            yield f"{name}: {version.name} ready after {seconds:.1f} s, {held:.0f} MiB, {token * 1e3:.1f} ms a token"


def token_time(port: int) -> float:
    def ask(tokens: int) -> tuple[float, int]:
        said = [{"role": "user", "content": "Tell me a long story about a kettle."}]
        body = {"model": "shop", "messages": said, "max_tokens": tokens, "temperature": 0}
        clock = time.monotonic()
        request = Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with open_url(request, seconds=600) as answer:
            written = json.load(answer)["usage"]["completion_tokens"]
        return time.monotonic() - clock, written

    times = [(ask(64), ask(1)) for _ in range(3)]
    return min((long - short) / (written - 1) if written > 32 else math.nan for (long, written), (short, _) in times)


@contextmanager
def served(version: ModelVersion, scratch: Path, *words: str, port: int = 0) -> Iterator[float]:
    """`tunegate serve` with these words; gives how many seconds it took until it was ready."""
    port = port or free_port()
    argv = [sys.executable, "-m", "tunegate", "serve", version.name, "--port", str(port), *words]
    clock = time.monotonic()
    with Child.start("a server", argv, log=scratch / f"{port}.log") as child:
        child.wait_until(lambda: answers(f"http://127.0.0.1:{port}/v2/health/ready"), seconds=_SECONDS)
        yield time.monotonic() - clock


def processes() -> set[int]:
    """All that came of this process, and itself."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, more = {os.getpid()}, {os.getpid()}
    while more:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
    return found


def pss(pids: set[int]) -> float:
    """Bytes that these processes hold, what is shared by its share."""
    total = 0.0
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


if __name__ == "__main__":
    main()
