"""How fast ours trains, against plain transformers, TRL and LLaMA-Factory, on this machine's CPUs; and alone on a GPU.

On CPUs all train the same model (a real vocabulary, 28 M parameters) on the same dialogues of the corpus that
tunegate ships, with the same optimizer, in the same arithmetic, one after the other in turns; the median of the rounds
counts. Tokens are those of the dialogues, without padding, over the seconds of the steps, without start-up, saving and
uploads: of the wall's clock, and of the CPUs, which with `--threads 1` say the same on a machine that does other work:

  transformers   Trainer, each batch padded to its longest row
  trl            SFTTrainer, the same, and packed
  llamafactory   its own command's trainer, the same with its chatml template, and packed (neat_packing)
  tunegate       the rank of `tunegate train`, batches of like lengths, and packed
  streaming      `tunegate train` with a store and without: what publishing a checkpoint costs the steps beside it; the
                 store runs on the same CPUs, which it doesn't elsewhere, so its own time is told too

    python benchmarks/training.py --trl /path/to/venv/bin/python --llamafactory /path/to/another/bin/python [--bf16]

A peer that is not installed is left out; each may have a venv of its own: pip install trl==1.16.0, and after the same
torch llamafactory==0.9.5, without a torchvision and a torchaudio of another build (only images and sounds need them; an
empty package called torchaudio is enough). Where CUDA is there, a shape of 1 to 7 billion parameters is trained in
bfloat16 instead; `--gpu-shape tiny` tries that path on CPUs.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec
import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config
from transformers.utils.logging import disable_progress_bar

from tunegate.cli.options import print_table
from tunegate.models.smollm2 import convert_smollm2
from tunegate.shop import DATA
from tunegate.store import EmbeddedStore
from tunegate.training import TrainConfig, train
from tunegate.training.data.prepare import prepare
from tunegate.training.run.checkpoints import complete_checkpoints
from tunegate.training.run.progress import Progress, read_log

ROWS = 8
DUE = 600  # seconds
Shape = dict[str, int]
SMALL: Shape = {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 10, "num_attention_heads": 5}
SHAPES: dict[str, Shape] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 20, "num_attention_heads": 16},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
# Rows at once, batches for each step: what fills one H200 without computing layers twice. 7b is trained by LoRA.
FILLS = {"tiny": (2, 1), "1b": (4, 4), "3b": (2, 8), "7b": (2, 8)}


@click.command(help=__doc__.split("\n")[0])
@click.option("--dialogues", default=96, show_default=True, help="How many of the corpus.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=os.cpu_count() or 1, show_default=True, help="Of each arm.")
@click.option("--bf16", is_flag=True, help="All in bfloat16 instead of float32.")
@click.option("--trl", default=sys.executable, help="The Python that has TRL.")
@click.option("--llamafactory", default=sys.executable, help="The Python that has LLaMA-Factory.")
@click.option("--uploads/--no-uploads", default=True, help="Whether to measure what publishing costs, too.")
@click.option("--gpu-shape", type=click.Choice(list(SHAPES)), help="Only this shape; 3b where CUDA is there.")
@click.option("--json", "as_json", is_flag=True)
def main(
    dialogues: int,
    rounds: int,
    threads: int,
    bf16: bool,
    trl: str,
    llamafactory: str,
    uploads: bool,
    gpu_shape: str | None,
    as_json: bool,
) -> None:
    gpu_shape = gpu_shape or ("3b" if torch.cuda.is_available() else None)
    if gpu_shape is None:
        click.echo("There is no GPU, so its part is left out.", err=True)
    click.echo(f"Load before: {' '.join(f'{load:.2f}' for load in os.getloadavg())}", err=True)
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["TUNEGATE_CACHE"] = str(scratch / "cache")
        tokenizer = convert_smollm2(scratch / "smollm2")
        if gpu_shape:
            _report_gpu(_gpu(scratch, tokenizer, gpu_shape), as_json)
            return
        bench = Bench(scratch, tokenizer, dialogues, threads=threads, bf16=bf16)
        arms = bench.arms(trl, llamafactory)
        speeds: dict[str, list[Speed]] = {arm: [] for arm in arms}
        for number in range(rounds):
            for arm, run in arms.items():
                speeds[arm].append(run())
                click.echo(f"round {number + 1}, {arm}: {speeds[arm][-1].wall:.0f} tokens/s", err=True)
        streaming = bench.streaming(rounds) if uploads else None
    _report(bench, speeds, streaming, as_json)


@dataclass(frozen=True)
class Speed:
    """Tokens read for each second of the steps: on the wall, and of a CPU."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Streaming:
    """Of each round: seconds from one checkpoint to the next, and the store's own CPU seconds for one.

    size: of a checkpoint, in bytes.
    """

    kept: list[float]
    published: list[float]
    store: list[float]
    size: int

    @property
    def cost(self) -> float:
        """Seconds of training that publishing one checkpoint takes."""
        return statistics.median(self.published) - statistics.median(self.kept)


class Bench:
    """The model and the data, and how each contender trains it."""

    def __init__(self, scratch: Path, tokenizer: Path, dialogues: int, *, threads: int, bf16: bool) -> None:
        self.scratch = scratch
        self.threads = threads
        self.bf16 = bf16
        self.model = make_model(scratch / "model", tokenizer, SMALL)
        self.base = self.config("unused", max_samples=dialogues)
        examples = prepare(self.base, self.model).train
        self.tokens = int(examples.lengths.sum())
        self.trained = sum(int((example.labels >= 0).sum()) for example in examples)
        # Packed, a step of one row takes as many tokens as one of ROWS dialogues: all do about as many steps.
        self.packed_length = -(-self.tokens * ROWS // len(examples) // 64) * 64
        rows = [{"input_ids": one.input_ids.tolist(), "labels": one.labels.tolist()} for one in examples]
        (scratch / "examples.json").write_text(json.dumps(rows))

    def config(self, output: str, **changes: Any) -> TrainConfig:
        settings: dict[str, Any] = {
            "model_name_or_path": str(self.model),
            "dataset_dir": str(DATA),
            "dataset": ("shop_en",),
            "output_dir": str(self.scratch / output),
            "model": "bench",
            "run": "run",
            "finetuning_type": "full",
            "per_device_train_batch_size": ROWS,
            "nproc_per_node": 1,
            "num_train_epochs": 1,
            "learning_rate": 1e-4,
            "bf16": "true" if self.bf16 else "false",
            "logging_steps": 1_000_000,  # one line, at the end
        }
        return TrainConfig(**{**settings, **changes})

    def arms(self, trl: str, llamafactory: str) -> dict[str, Callable[[], Speed]]:
        pythons = {"transformers": sys.executable, "trl": trl, "llamafactory": llamafactory, "tunegate": sys.executable}
        arms: dict[str, Callable[[], Speed]] = {}
        for name, python in pythons.items():
            found = subprocess.run([python, "-c", f"import importlib.util as u; exit(not u.find_spec('{name}'))"])
            if found.returncode:
                click.echo(f"{name} is not installed, so it is left out; see --{name}.", err=True)
                continue
            arms[name] = partial(self.run, python, name)
            if name != "transformers":
                arms[f"{name}, packed"] = partial(self.run, python, name, packed_length=self.packed_length)
        return arms

    def run(self, python: str, name: str, packed_length: int = 0) -> Speed:
        output = self.scratch / "output"
        packing = {"packing": True, "cutoff_len": packed_length, "per_device_train_batch_size": 1}
        config = self.config("output", max_samples=self.base.max_samples, **(packing if packed_length else {}))
        wish = {
            "model": str(self.model),
            "examples": str(self.scratch / "examples.json"),
            "output_dir": str(output),
            "dataset_dir": str(DATA),
            "dataset": "shop_en",
            "max_samples": self.base.max_samples,
            "rows": ROWS,
            "packed_rows": 1,
            "packed_length": packed_length,
            "epochs": 1,
            "learning_rate": 1e-4,
            "seed": 42,
            "bf16": self.bf16,
            "config": msgspec.to_builtins(config),
        }
        program = str(Path(__file__).with_name("trainers.py"))
        own = {"OMP_NUM_THREADS": str(self.threads), "HF_HUB_OFFLINE": "1", "HF_HOME": str(self.scratch / "hf")}
        done = subprocess.run(
            [python, program, name, json.dumps(wish)], env={**os.environ, **own}, capture_output=True, text=True
        )
        if done.returncode:
            raise click.ClickException(f"{name} failed: {done.stderr[-2000:]}")
        shutil.rmtree(output, ignore_errors=True)
        took = json.loads(done.stdout.splitlines()[-1])
        return Speed(took["tokens"] / took["seconds"], took["tokens"] / took["processor_seconds"])

    def streaming(self, rounds: int) -> Streaming:
        """The same run with a checkpoint after each of three epochs, published to a store on this machine and not."""
        seconds: dict[str, list[float]] = {"kept": [], "published": []}
        busy: list[float] = []
        with EmbeddedStore.start(self.scratch / "store") as store:
            os.environ.update(store.environment)
            servers = psutil.Process().children(recursive=True)
            where = {"store": store.uri, "endpoint_url": store.endpoint_url}
            for round_ in range(rounds):
                for arm, settings in (("kept", {}), ("published", {**where, "run": f"run-{round_}"})):
                    common = {"max_samples": self.base.max_samples, "num_train_epochs": 3, "save_total_limit": 3}
                    config = self.config("streaming", **common, **settings)
                    before = _processor_seconds(servers)
                    with _emptied(Path(config.output_dir)) as folder:
                        train(config)
                        first, *_, last = complete_checkpoints(folder)
                        took = (last.cost.seconds or 0.0) - (first.cost.seconds or 0.0)  # the folder goes with them
                    # The upload of a checkpoint goes on beside the epoch after it, so the first epoch is beside none.
                    seconds[arm].append(took / (last.marker.epoch - first.marker.epoch))
                    if arm == "published":
                        busy.append((_processor_seconds(servers) - before) / last.marker.epoch)
        return Streaming(seconds["kept"], seconds["published"], busy, sum(last.marker.files.values()))


def make_model(into: Path, tokenizer: Path, shape: Shape) -> Path:
    """A Qwen2 of `shape` with random weights and SmolLM2's vocabulary."""
    words = AutoTokenizer.from_pretrained(tokenizer)
    config = Qwen2Config(
        **shape,
        num_key_value_heads=shape["num_attention_heads"],
        vocab_size=len(words),
        tie_word_embeddings=True,
        eos_token_id=words.eos_token_id,
        dtype="bfloat16" if shape["hidden_size"] >= 2048 else "float32",
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=config.dtype)
    model.save_pretrained(into)
    words.save_pretrained(into)
    return into


def _gpu(scratch: Path, tokenizer: Path, name: str) -> dict[str, Any]:
    """Train a shape on one device, packed; its speed is the median of its logging steps, without the first."""
    rows, accumulated = FILLS[name]
    model = make_model(scratch / "model", tokenizer, SHAPES[name])
    settings: dict[str, Any] = {
        "finetuning_type": "lora" if name == "7b" else "full",
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulated,
        "cutoff_len": 512 if name == "tiny" else 4096,
        "packing": True,
        "bf16": "true",
        "gradient_checkpointing": "false",
        "max_steps": 6 if name == "tiny" else 20,
        "num_train_epochs": 1000,
        "logging_steps": 2,
        "save_strategy": "steps",
        "save_steps": 1000,
        "learning_rate": 1e-5,
        "nproc_per_node": 1,
    }
    output = scratch / "gpu"
    data: dict[str, Any] = {"dataset_dir": str(DATA), "dataset": ("shop_en", "shop_zh", "pushy_en", "pushy_zh")}
    where = {"model_name_or_path": str(model), "output_dir": str(output), "model": "bench", "run": "gpu"}
    train(TrainConfig(**settings, **data, **where))
    steps = [step for step in read_log(output) if step.tokens_per_second is not None][1:]
    cost = complete_checkpoints(output)[-1].cost
    shape = {**SHAPES[name], "parameters": cost.parameters}
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "settings": {**shape, **settings},
        "tokens_per_second": _median(steps, "tokens_per_second"),
        "mfu": _median(steps, "mfu"),
        "padding": _median(steps, "padding"),
        "peak_memory_gb": (cost.peak_memory_bytes or 0) / 1e9,
    }


def _median(steps: list[Progress], field: str) -> float | None:
    values = [value for step in steps if (value := getattr(step, field)) is not None]
    return statistics.median(values) if values else None


def _processor_seconds(processes: list[psutil.Process]) -> float:
    return sum(float(times.user + times.system) for times in (process.cpu_times() for process in processes))


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    yield folder
    shutil.rmtree(folder)


def _report(bench: Bench, speeds: dict[str, list[Speed]], streaming: Streaming | None, as_json: bool) -> None:
    ours = [arm for arm in speeds if arm.startswith("tunegate")]
    pairs = [(mine, other) for mine in ours for other in speeds if other not in ours or other < mine]
    ratios = {f"{mine} / {other}": _ratios(speeds[mine], speeds[other]) for mine, other in pairs}
    if as_json:
        all_ = {arm: [asdict(speed) for speed in rounds] for arm, rounds in speeds.items()}
        told = asdict(streaming) if streaming else None
        click.echo(json.dumps({"speeds": all_, "streaming": told, "ratios": ratios}, indent=2))
        return
    arithmetic = "bfloat16" if bench.bf16 else "float32"
    threads = f"{bench.threads} of {os.cpu_count()} cores"
    rows = [
        (arm, _rounds([each.wall for each in rounds], 0), _rounds([each.processor for each in rounds], 0))
        for arm, rounds in speeds.items()
    ]
    title = f"{bench.tokens} tokens, {bench.trained} of them trained, {arithmetic}, {threads}"
    print_table(title, ("Who", "Tokens/s", "Tokens for each CPU second"), rows)
    print_table(
        "ratios within each round, of CPU seconds",
        ("", "Median", "Rounds"),
        [(name, f"{statistics.median(all_):.2f}", _rounds(all_, 2)) for name, all_ in ratios.items()],
    )
    if streaming:
        _report_streaming(streaming)
    click.echo(f"Load after: {' '.join(f'{load:.2f}' for load in os.getloadavg())}", err=True)


def _ratios(mine: list[Speed], others: list[Speed]) -> list[float]:
    """Of each round, whose runs had the same neighbors."""
    return [one.processor / other.processor for one, other in zip(mine, others, strict=True)]


def _report_streaming(streaming: Streaming) -> None:
    print_table(
        f"a checkpoint of {streaming.size / 1e6:.0f} MB after each epoch",
        ("", "Seconds for each"),
        [
            ("kept: an epoch", _rounds(streaming.kept, 1)),
            ("published: an epoch", _rounds(streaming.published, 1)),
            ("the store's own CPU time", _rounds(streaming.store, 1)),
            ("what publishing costs training", f"{streaming.cost:.1f}"),
            (f"the same, where one is due every {DUE // 60} minutes", f"{streaming.cost / DUE:.1%}"),
        ],
    )


def _rounds(values: list[float], digits: int) -> str:
    return " ".join(f"{value:.{digits}f}" for value in values)


def _report_gpu(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    print_table("settings", ("", ""), [(name, str(value)) for name, value in result["settings"].items()])
    mfu = "unknown" if result["mfu"] is None else f"{result['mfu']:.1%}"
    print_table(
        result["device"],
        ("Tokens/s", "MFU", "Padding", "Memory, GB"),
        [
            (
                f"{result['tokens_per_second']:.0f}",
                mfu,
                f"{result['padding']:.1%}",
                f"{result['peak_memory_gb']:.1f}",
            )
        ],
    )


if __name__ == "__main__":
    main()
