"""Every method of fine-tuning on one data set: what each costs, and what it is worth.

Publishes a base model to a fresh embedded store, trains it by all weights, by its last layers, by LoRA, by P-tuning and
by P-tuning v2 on the same dialogues for as many epochs, evaluates each on the same questions, and prints what
`tunegate models compare` says of them. The tiny base is first taught to speak: what learns prompts only can't.

    python benchmarks/methods.py [--base smollm2 --epochs 1]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from tunegate.api.versions import Producer, Release
from tunegate.models import make_tiny
from tunegate.models.smollm2 import convert_smollm2
from tunegate.shop import DATA
from tunegate.store import EmbeddedStore, Store

# The fewer parameters are trained, the further each has to go.
RATES = {"full": 1e-3, "freeze": 1e-3, "lora": 2e-3, "p_tuning": 1e-2, "p_tuning_v2": 3e-2}
GENTLER = {"tiny": 1.0, "smollm2": 0.1}  # a base that knows much is moved less


@click.command(help=__doc__.split("\n")[0])
@click.option("--base", type=click.Choice(["tiny", "smollm2"]), default="tiny", show_default=True)
@click.option("--epochs", default=3, show_default=True)
@click.option("--dialogues", default=240, show_default=True, help="How many of the data set.")
@click.option("--questions", default=50, show_default=True, help="Asked of each suite.")
@click.option("--suite", "suites", multiple=True, default=["shop-en"], show_default=True)
@click.option("--markdown", is_flag=True)
def main(base: str, epochs: int, dialogues: int, questions: int, suites: tuple[str, ...], markdown: bool) -> None:
    with tempfile.TemporaryDirectory() as name, EmbeddedStore.start(Path(name, "store")) as running:
        scratch = Path(name)
        os.environ.update(running.environment)
        os.environ.update({"TUNEGATE_STORE": running.uri, "TUNEGATE_CACHE": str(scratch / "cache")})
        store = Store.open(running.uri, endpoint_url=running.endpoint_url)
        model = convert_smollm2(scratch / "base") if base == "smollm2" else make_tiny(scratch / "base", _texts())
        first = store.publish(
            model,
            f"{base}/base/checkpoint-0",
            release=Release(format="huggingface"),
            producer=Producer(kind="benchmark"),
        ).name
        if base == "tiny":
            first = _train(scratch, store, first, "taught", "full", RATES["full"], 2 * epochs, dialogues)
        versions = [
            _train(scratch, store, first, method.replace("_", "-"), method, rate * GENTLER[base], epochs, dialogues)
            for method, rate in RATES.items()
        ]
        for version in (first, *versions):
            asked = [word for suite in suites for word in ("--suite", suite)]
            _tunegate("evaluate", version, *asked, "--limit", str(questions), quiet=True)
        _tunegate("models", "compare", first, *versions, *(["--markdown"] if markdown else []))


def _train(
    scratch: Path, store: Store, base: str, run: str, method: str, rate: float, epochs: int, dialogues: int
) -> str:
    """The name of the run's last version."""
    settings = {
        "model_name_or_path": base,
        "dataset_dir": DATA,
        "dataset": "shop_en",
        "output_dir": scratch / run,
        "model": "bench",
        "run": run,
        "finetuning_type": method,
        "learning_rate": rate,
        "num_train_epochs": epochs,
        "max_samples": dialogues,
        "nproc_per_node": 1,
        "cutoff_len": 512,
        "save_strategy": "steps",
        "save_steps": 1_000_000,  # one, at the end
    }
    click.echo(f"{run}: {method}", err=True)
    _tunegate("train", *(f"--{name}={value}" for name, value in settings.items()), quiet=True)
    return max((one for one in store.list("bench") if one.run == run), key=lambda one: one.created).name


def _texts() -> list[str]:
    return [(DATA / name).read_text() for name in ("dialogues_en.jsonl", "pushy_en.jsonl")]


def _tunegate(*words: str, quiet: bool = False) -> None:
    done = subprocess.run([sys.executable, "-m", "tunegate", *words], capture_output=quiet, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"tunegate {words[0]} failed: {done.stderr}")


if __name__ == "__main__":
    main()
