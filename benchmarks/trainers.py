"""The trainers that benchmarks/training.py compares ours with, each in a process of its own.

Reads the same token ids and labels that ours trains on, and prints a JSON object with the seconds that its steps took.
A program by itself, because TRL may need an environment of its own: it imports nothing of tunegate.

    python benchmarks/trainers.py transformers '{"model": ..., "examples": ..., "output_dir": ..., ...}'
"""

from __future__ import annotations

import json
import sys
import time
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
)


class Clock(TrainerCallback):  # type: ignore[misc]
    """From the moment before the first step to the one after the last."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self._begun


def main(name: str, wish: dict[str, Any]) -> None:
    torch.manual_seed(wish["seed"])
    examples = json.loads(Path(wish["examples"]).read_text())
    model = AutoModelForCausalLM.from_pretrained(wish["model"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(wish["model"])
    clock = Clock()
    trainer = _MAKERS[name](model, tokenizer, examples, wish)
    trainer.add_callback(clock)
    trainer.train()
    print(json.dumps({"seconds": clock.seconds, "steps": trainer.state.global_step}))


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


def _transformers(model: Any, tokenizer: Any, examples: list[Any], wish: dict[str, Any]) -> Trainer:
    collator = DataCollatorForSeq2Seq(tokenizer)  # pads each batch to its longest row
    arguments = TrainingArguments(**_common(wish, wish["rows"]))
    return Trainer(model=model, args=arguments, train_dataset=examples, data_collator=collator)


def _trl(model: Any, tokenizer: Any, examples: list[Any], wish: dict[str, Any]) -> Trainer:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    packing = {"packing": True, "max_length": wish["packed_length"]} if wish["packed_length"] else {}
    rows = wish["packed_rows"] if packing else wish["rows"]
    arguments = SFTConfig(**_common(wish, rows), **{"max_length": None, **packing})
    dataset = Dataset.from_list(examples)
    return SFTTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer)


_MAKERS = {"transformers": _transformers, "trl": _trl}

if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
