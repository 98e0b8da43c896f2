"""Runs as programs: start one, wait for what it leaves, find its ranks, and read what came of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.waiting import wait_for
from tunegate.training import TrainConfig
from tunegate.training.run.progress import read_log


def start(config: TrainConfig, *, stderr: int | None = None) -> subprocess.Popen[str]:
    """`tunegate train` as a program."""
    return subprocess.Popen(command_of(config), stderr=stderr, text=True)


def start_under_torchrun(config: TrainConfig, *options: str, stderr: int | None = None) -> subprocess.Popen[str]:
    """The same in two ranks of a launcher that isn't ours."""
    # torchrun would take --run for a short form of its own --run-path.
    command = [{"--run": "--run_name"}.get(word, word) for word in command_of(config)[2:]]
    return _torchrun(*options, "-m", *command, stderr=stderr)


def start_module_under_torchrun(module: str, *words: str) -> subprocess.Popen[str]:
    """A program of the tests' in two ranks."""
    return _torchrun("-m", module, *words, PYTHONPATH=str(Path(__file__).parents[3]))


def _torchrun(*words: str, stderr: int | None = None, **variables: str) -> subprocess.Popen[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen([sys.executable, *torchrun, *words], env=environment, stderr=stderr, text=True)


def command_of(config: TrainConfig) -> list[str]:
    names = ("model_name_or_path", "dataset_dir", "output_dir", "model", "run", "finetuning_type", "learning_rate")
    names += ("per_device_train_batch_size", "num_train_epochs", "logging_steps", "bf16", "cutoff_len")
    options = [word for name in names for word in (f"--{name}", str(getattr(config, name)))]
    assert config.store
    return [sys.executable, "-m", "tunegate", "train", *options, "--dataset", "shop", "--store", config.store]


def wait_beside(process: subprocess.Popen[str], done: Callable[[], bool]) -> None:
    """Return when `done` is true; fail when the process ends before."""

    def is_done() -> bool:
        if done():
            return True
        assert process.poll() is None, "it ended too early"
        return False

    wait_for(is_done, seconds=300)


def ranks_of(output: Path, rank: str) -> list[int]:
    """Those that we forked by their name, those that torchrun started by their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, words = (process / "comm").read_text(), (process / "cmdline").read_bytes()
            is_rank = name == f"rank{rank}\n" or f"\0RANK={rank}\0".encode() in (process / "environ").read_bytes()
        except OSError:
            continue
        if str(output).encode() in words and is_rank:
            found.append(int(process.name))
    return found


@contextmanager
def held(pids: Sequence[int]) -> Iterator[None]:
    """Keep processes from going on until SIGTERM waits for each."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        wait_for(partial(_waits, pid, signal.SIGTERM), what=f"SIGTERM for {pid}")
        os.kill(pid, signal.SIGCONT)


def _waits(pid: int, name: signal.Signals) -> bool:
    (pending,) = re.findall(r"ShdPnd:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(pending, 16) & 1 << (name - 1))


def losses_of(output: Path) -> list[tuple[int, float | None]]:
    return [(progress.current_steps, progress.loss) for progress in read_log(output)]


def weights_of(output: Path) -> bytes:
    (path,) = (output / "checkpoint-12").glob("*model.safetensors")
    return path.read_bytes()
