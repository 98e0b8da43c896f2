"""The base models that a laptop can start from, made once and published as versions."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from tunegate.api.errors import ModelError, TunegateError, UsageError
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.files import new_folder
from tunegate.garbage import lasting_imports
from tunegate.processes import Child
from tunegate.shop import DATA
from tunegate.store import Store

BASES = ("smollm2-135m", "tiny")


def publish_base(name: str, store: Store, cache: Path, logs: Path) -> ModelVersion:
    """The base model `name` as a version in the store; made in `cache` where it is not there yet.

    Raises ModelError when it can't be made, with the reason.
    """
    folder = cache / "bases" / name
    if not folder.exists():
        # In a process of its own: torch and a model are a lot to carry around for the rest of the story.
        argv = [sys.executable, "-m", "tunegate.quickstart.base_models", name, str(folder)]
        with Child.start(f"making {name}", argv, log=logs / "base-model.log") as child:
            while child.exit_code is None:
                time.sleep(0.1)
            if child.exit_code:
                raise ModelError(child.tail())
    producer = Producer(kind="tunegate quickstart", run="base", arguments={"source": name})
    return store.publish(folder, f"{name}/base/checkpoint-0", release=Release(format="huggingface"), producer=producer)


def make_base(name: str, folder: Path) -> None:
    """Write the base model `name` to `folder`, whole or not at all.

    Raises UsageError for an unknown name, ModelError when its package is not installed.
    """
    if name not in BASES:
        raise UsageError(f"There is no base model {name}; choose one of {', '.join(BASES)}.")
    with lasting_imports():  # torch, in the process that makes one and in no other
        from tunegate.models import convert_smollm2, make_tiny

    if name == "smollm2-135m":
        convert_smollm2(folder)
    else:
        lines = [line for path in sorted(DATA.glob("dialogues_*.jsonl")) for line in path.read_bytes().splitlines()]
        dialogues = [msgspec.json.decode(line)["messages"] for line in lines]
        with new_folder(folder) as partial:
            make_tiny(partial, (message["content"] for dialogue in dialogues for message in dialogue))


if __name__ == "__main__":
    try:
        make_base(sys.argv[1], Path(sys.argv[2]))
    except TunegateError as error:
        sys.exit(str(error))
