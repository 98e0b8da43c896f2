"""The trainers that benchmarks/training.py compares, each in a process of its own, with one clock for all.

All but LLaMA-Factory, which makes its own of the same dialogues, read the same token ids and labels. Prints a JSON
object with the seconds that the steps took, on the wall and of the CPUs, and the tokens they read.
A program by itself, because peers may need environments of their own: only our own arm imports tunegate.

    python benchmarks/trainers.py transformers '{"model": ..., "examples": ..., "output_dir": ..., ...}'
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    trainer,
)


class Clock(TrainerCallback):  # type: ignore[misc]
    """From the moment before the first step to the one after the last: without start-up, saving and uploads."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self._begun[0]
        self.processor_seconds = time.process_time() - self._begun[1]

    def on_train_end(self, _: Any, state: Any, *__: Any, **about: Any) -> None:
        self.steps = state.global_step
        self.rows = about["train_dataloader"].dataset


def main(name: str, wish: dict[str, Any]) -> None:
    torch.manual_seed(wish["seed"])
    clock = Clock()
    trainer.DEFAULT_CALLBACKS.append(clock)  # every arm's trainer is one of transformers'
    tokens = _ARMS[name](wish, clock)
    took = {"seconds": clock.seconds, "processor_seconds": clock.processor_seconds}
    print("\n" + json.dumps({**took, "steps": clock.steps, "tokens": tokens}))


def _common(wish: dict[str, Any], rows: int) -> dict[str, Any]:
    """What is the same for all: the rest of each library's settings is its own."""
    return {
        "output_dir": wish["output_dir"],
        "per_device_train_batch_size": rows,
        "num_train_epochs": wish["epochs"],
        "learning_rate": wish["learning_rate"],
        "seed": wish["seed"],
        "bf16": wish["bf16"],
        "gradient_checkpointing": False,
        "optim": "adamw_torch_fused",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def _with_examples(make: Callable[..., Trainer]) -> Callable[[dict[str, Any], Clock], int]:
    def arm(wish: dict[str, Any], _: Clock) -> int:
        examples = json.loads(Path(wish["examples"]).read_text())
        model = AutoModelForCausalLM.from_pretrained(wish["model"], dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(wish["model"])
        make(model, tokenizer, examples, wish).train()
        return sum(len(example["input_ids"]) for example in examples)

    return arm


@_with_examples
def _transformers(model: Any, tokenizer: Any, examples: list[Any], wish: dict[str, Any]) -> Trainer:
    collator = DataCollatorForSeq2Seq(tokenizer)  # pads each batch to its longest row
    arguments = TrainingArguments(**_common(wish, wish["rows"]))
    return Trainer(model=model, args=arguments, train_dataset=examples, data_collator=collator)


@_with_examples
def _trl(model: Any, tokenizer: Any, examples: list[Any], wish: dict[str, Any]) -> Trainer:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    packing = {"packing": True, "max_length": wish["packed_length"]} if wish["packed_length"] else {}
    rows = wish["packed_rows"] if packing else wish["rows"]
    arguments = SFTConfig(**_common(wish, rows), **{"max_length": None, **packing})
    dataset = Dataset.from_list(examples)
    return SFTTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer)


def _llamafactory(wish: dict[str, Any], clock: Clock) -> int:
    from llamafactory.train.tuner import run_exp

    packing = {"packing": True, "neat_packing": True} if wish["packed_length"] else {}
    settings = {
        **_common(wish, wish["packed_rows"] if packing else wish["rows"]),
        **packing,
        "cutoff_len": wish["packed_length"] or 2048,
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": wish["model"],
        "finetuning_type": "full",
        "template": "chatml",
        "dataset_dir": wish["dataset_dir"],
        "dataset": wish["dataset"],
        "max_samples": wish["max_samples"],
        "disable_gradient_checkpointing": True,
        "report_to": "none",
    }
    del settings["gradient_checkpointing"]  # its own flag says the same
    run_exp(settings)
    return sum(sum(map(bool, row["attention_mask"])) for row in clock.rows)


def _tunegate(wish: dict[str, Any], _: Clock) -> int:
    """The one rank of `tunegate train` in this process."""
    from tunegate.training import TrainConfig
    from tunegate.training.data.examples import open_training_data
    from tunegate.training.launch.lifecycle import begin
    from tunegate.training.loop.trainer import run

    config = TrainConfig(**wish["config"])
    output = Path(config.output_dir)
    output.mkdir()
    plan = begin(config, output, 1, None).plan
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ.update({**alone, "GLOO_SOCKET_IFNAME": "lo", "TORCHDYNAMO_DISABLE": "1"})
    run(plan, output)
    return int(open_training_data(config, [Path(folder) for folder in plan.tokens]).train.lengths.sum())


_ARMS = {"transformers": _transformers, "trl": _trl, "llamafactory": _llamafactory, "tunegate": _tunegate}

if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
