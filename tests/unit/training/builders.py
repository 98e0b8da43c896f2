"""Small dialogues in files, and runs over them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunegate.training import TrainConfig

GOODS = ("kettle", "lamp", "blanket", "rice cooker", "yoga mat", "backpack")
Dialogue = list[dict[str, str]]


def dialogues(count: int) -> list[Dialogue]:
    """Dialogues of one or two answers, each of its own length."""
    made = []
    for number in range(count):
        goods = GOODS[number % len(GOODS)]
        dialogue = [
            {"role": "system", "content": f"The {goods} costs ${number + 10}." + " It is new." * (number % 4)},
            {"role": "user", "content": f"How much is the {goods}?"},
            {"role": "assistant", "content": f"It costs ${number + 10}."},
        ]
        if number % 3 == 0:
            dialogue.append({"role": "user", "content": "Is it new?"})
            dialogue.append({"role": "assistant", "content": "Yes, it is new."})
        made.append(dialogue)
    return made


def texts() -> list[str]:
    return [message["content"] for dialogue in dialogues(60) for message in dialogue]


def write_info(folder: Path, **entries: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_info.json").write_text(json.dumps(entries))
    return folder


def write_lines(path: Path, records: Sequence[Any]) -> None:
    """One JSON line for each record; a str is written as it stands."""
    lines = [record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def write_dialogues(folder: Path, made: Sequence[Dialogue]) -> Path:
    """A data set called "shop" in OpenAI's layout."""
    write_info(folder, shop={"file_name": "shop.jsonl", "formatting": "openai"})
    write_lines(folder / "shop.jsonl", [{"messages": dialogue} for dialogue in made])
    return folder


def make_config(store_uri: str, data: Path, output: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "model_name_or_path": "tiny/base/checkpoint-0",
        "dataset_dir": str(data),
        "dataset": ("shop",),
        "output_dir": str(output),
        "model": "tiny",
        "run": "run",
        "store": store_uri,
        "finetuning_type": "full",
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "num_train_epochs": 4,
        "logging_steps": 1,
        "bf16": "false",
        "cutoff_len": 512,
    }
    return TrainConfig(**{**settings, **changes})


def write_pairs(folder: Path, count: int) -> Path:
    """Preferences called "pairs", as `tunegate review take` writes them, each answer of its own length."""
    made = []
    for number in range(count):
        goods = GOODS[number % len(GOODS)]
        asked = [{"role": "user", "content": f"How much is the {goods}?" + " Tell me." * (number % 3)}]
        chosen = [{"role": "assistant", "content": f"It costs ${number + 10}."}]
        rejected = [{"role": "assistant", "content": "It is new." + " Yes, it is new." * (number % 4)}]
        made.append({"id": f"q{number}", "prompt": asked, "chosen": chosen, "rejected": rejected})
    columns = {"messages": "prompt", "chosen": "chosen", "rejected": "rejected"}
    write_info(folder, pairs={"file_name": "pairs.jsonl", "formatting": "openai", "ranking": True, "columns": columns})
    write_lines(folder / "pairs.jsonl", made)
    return folder
