"""What saving a checkpoint costs the processes of a ZeRO-3 run.

    python -m benchmarks.checkpoints

A Qwen2 with random weights is divided among processes, and saved in two ways, each by processes of its own:

  gathered   as transformers does: all weights in the first process, which writes them
  shards     as `tunegate train` does: each process puts together and writes one file after the other

Memory is the most that each process took of the machine's while it saved for the first time, above what it had before,
from the kernel (VmHWM). Both are loaded by transformers, and their logits compared.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tunegate.cli.options import print_table

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
