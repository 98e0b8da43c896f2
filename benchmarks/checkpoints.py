"""What saving a checkpoint costs the processes of a ZeRO-3 run, and how fast one, two and four publish it together.

    python -m benchmarks.checkpoints
    python -m benchmarks.checkpoints publish

A Qwen2 with random weights is divided among processes, and saved in two ways, each by processes of its own:

  gathered   as transformers does: all weights in the first process, which writes them
  shards     as `tunegate train` does: each process puts together and writes one file after the other

Memory is the most that each process took of the machine's while it saved for the first time, above what it had before,
from the kernel (VmHWM). Both are loaded by transformers, and their logits compared.

"publish" has processes send a share each of the same files to one fresh embedded store, and the first publishes, as
nodes of a run do; counts take turns, and the median of the rounds is shown. With one there are no shares.
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tunegate.api.versions import Producer, Release
from tunegate.cli.options import print_table
from tunegate.store import EmbeddedStore, Store

WAYS = ("gathered", "shards")
MIB = 1 << 20


@click.group(invoke_without_command=True, help=__doc__.split("\n")[0])
@click.option("--processes", default=4, show_default=True)
@click.option("--layers", default=16, show_default=True, help="Of 7 million parameters each, in float32.")
@click.option("--shard-mib", default=64, show_default=True)
@click.pass_context
def main(context: click.Context, processes: int, layers: int, shard_mib: int) -> None:
    if context.invoked_subcommand is None:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            one = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
            for way in WAYS:
                rank = ["-m", __spec__.name, "rank", str(folder / way), str(layers), str(shard_mib * MIB)]
                subprocess.run([sys.executable, *torchrun, *rank], check=True, env={**os.environ, **one})
            _report_saving(folder, processes)


@main.command()
@click.option("--files", default=8, show_default=True)
@click.option("--mib", default=64, show_default=True, help="MiB in each file.")
@click.option("--rounds", default=3, show_default=True)
def publish(files: int, mib: int, rounds: int) -> None:
    """How fast 1, 2 and 4 processes publish one version together."""
    seconds: dict[int, list[float]] = {1: [], 2: [], 4: []}
    with tempfile.TemporaryDirectory() as scratch, EmbeddedStore.start(Path(scratch, "store")) as running:
        os.environ.update(running.environment)
        store = Store.open(running.uri, endpoint_url=running.endpoint_url)
        folder = Path(scratch, "checkpoint")
        folder.mkdir()
        for number in range(files):
            (folder / f"{number}.bin").write_bytes(os.urandom(mib * MIB))
        for turn in range(rounds):
            for count, taken in seconds.items():
                taken.append(_publish_together(store, folder, f"by-{count}-{turn}/run/checkpoint-1", count))
    medians = {count: statistics.median(taken) for count, taken in seconds.items()}
    rows = [
        (str(count), f"{taken:.2f}", f"{files * mib / taken:.0f}", f"{medians[1] / taken:.2f}")
        for count, taken in medians.items()
    ]
    print_table("Publishing together", ("Publishers", "Seconds", "MiB/s", "Times one"), rows)


def _publish_together(store: Store, folder: Path, name: str, count: int) -> float:
    """The seconds from when all are ready until there is a version."""
    release, producer = Release(format="huggingface"), Producer(kind="benchmark")
    command = [sys.executable, "-m", __spec__.name, "share", store.uri, str(store.endpoint_url), str(folder), name]
    with ExitStack() as stack:
        helpers = [
            stack.enter_context(
                subprocess.Popen([*command, str(index), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for index in range(1, count)
        ]
        for helper in helpers:
            assert helper.stdout
            assert helper.stdout.readline()
        began = time.monotonic()
        for helper in helpers:
            assert helper.stdin
            helper.stdin.close()
        if count > 1:
            store.send_share(folder, name, release=release, index=0, count=count)
        store.publish(folder, name, release=release, producer=producer)
        return time.monotonic() - began


@main.command()
@click.argument("uri")
@click.argument("endpoint_url")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("name")
@click.argument("index", type=int)
@click.argument("count", type=int)
def share(uri: str, endpoint_url: str, folder: Path, name: str, index: int, count: int) -> None:
    """Send a share when the standard input ends; one of the processes."""
    store = Store.open(uri, endpoint_url=endpoint_url)
    print("ready", flush=True)
    sys.stdin.read()
    store.send_share(folder, name, release=Release(format="huggingface"), index=index, count=count)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("layers", type=int)
@click.argument("largest", type=int)
def rank(folder: Path, layers: int, largest: int) -> None:
    """Save in the way that the folder is called by; one of the processes."""
    import deepspeed

    from tunegate.training.loop.shards import write_shards

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    settings = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
    with deepspeed.zero.Init(config_dict_or_path=settings, dtype=torch.float32):
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=8000,
            hidden_size=768,
            intermediate_size=2048,
            num_hidden_layers=layers,
            num_attention_heads=12,
            num_key_value_heads=12,
        )
        model = Qwen2ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters())
    allowed = {**settings, "zero_allow_untested_optimizer": True}
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=allowed)

    def gathered(into: Path) -> None:
        state = engine._zero3_consolidated_16bit_state_dict()
        if engine.global_rank == 0:
            model.save_pretrained(into, state_dict=state)

    def shards(into: Path) -> None:
        if engine.global_rank == 0:
            model.config.save_pretrained(into)
        write_shards(engine, into, largest)

    folder.mkdir(exist_ok=True)
    figures = _measure(gathered if folder.name == "gathered" else shards, folder)
    folder.with_name(f"{folder.name}-{engine.global_rank}.json").write_text(json.dumps(figures))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _measure(save: Callable[[Path], None], into: Path) -> tuple[int, float]:
    """The bytes that it took at most, and its seconds."""
    torch.distributed.barrier()
    ctypes.CDLL(None).malloc_trim(0)  # what setting up has freed is given back first
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    began = time.monotonic()
    save(into)
    torch.distributed.barrier()
    return _status("VmHWM") - before, time.monotonic() - began


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _report_saving(folder: Path, processes: int) -> None:
    rows = []
    for way in WAYS:
        figures = [json.loads((folder / f"{way}-{number}.json").read_text()) for number in range(processes)]
        memory = ", ".join(f"{taken / MIB:.0f}" for taken, _ in figures)
        files = list((folder / way).glob("*.safetensors"))
        size = sum(path.stat().st_size for path in files)
        rows.append((way, len(files), f"{size / MIB:.0f}", memory, f"{max(seconds for _, seconds in figures):.1f}"))
    print_table("Saving", ("How", "Files", "MiB", "MiB more in each process", "Seconds"), rows)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        logits = [AutoModelForCausalLM.from_pretrained(folder / way)(ids).logits for way in WAYS]
    click.echo(f"Largest difference of logits: {float((logits[0] - logits[1]).abs().max())}")


if __name__ == "__main__":
    main()
