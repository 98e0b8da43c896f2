"""The folder of a run: what lies where, by which launcher, ranks and publisher speak to each other, and whose it is.

A folder is a run's when it has the run's record. Nothing that a run did not write is overwritten, removed or resumed
from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tunegate.api.errors import UsageError
from tunegate.files import disk_errors_as, locked

RECORD = "run.json"
ACCOUNT = "account.json"  # what became of the rows
REJECTED = "rejected.jsonl"
LOG = "trainer_log.jsonl"
PICTURE = "training_loss.png"
VERSIONS = "versions.jsonl"  # what was published, one line each
UPLOADS = "uploads.jsonl"  # what still had to be, when the last step was done
FINISHED = ".finished"  # names the store that the first node has published the whole run to
# There as soon as the run is to stop: the process that started the ranks tells those of every node, and the publisher
# says why, where its numbers are the reason.
STOP = "stop"
NODE_LOCAL = ".node-local"  # there where a node's folder is its own, not that of the first rank: the ranks find out
CHECKPOINTS = "checkpoint-*"
RESUME = "resume"
MARKER = "complete.json"
UNFINISHED = "complete.json.partial"  # instead of MARKER, in a checkpoint that is being written
_FAILURES = "failure-*.json"
_SHOWN = 3  # names in a message

# What a run keeps in its folder, and what a model or another trainer's run would be mixed with. Standard output is
# often sent to a log there before the run begins, and a log is only added to.
_IN_THE_WAY = (
    *(LOG, PICTURE, VERSIONS, STOP, "plan*.json", _FAILURES, "checkpoint-[0-9]*"),
    *("config.json", "generation_config.json", "model*.safetensors*", "pytorch_model*", "adapter_*"),
    *("tokenizer*.json", "chat_template.jinja", "trainer_state.json", "training_args.bin"),
)


def plan_path(output_dir: Path, node: int) -> Path:
    """The plan that a node's ranks read: the base model lies elsewhere on each node."""
    return output_dir / f"plan{_suffix(node)}.json"


def log_path(output_dir: Path, node: int) -> Path:
    """What a node's ranks print."""
    return output_dir / f"train{_suffix(node)}.log"


def failure_path(output_dir: Path, rank: int) -> Path:
    """Why a rank gave up."""
    return output_dir / _FAILURES.replace("*", str(rank))


def failures(output_dir: Path) -> dict[int, Path]:
    """The ranks that gave up, each with its `failure_path`."""
    return {int(path.stem.partition("-")[2]): path for path in output_dir.glob(_FAILURES)}


def shared_path(output_dir: Path, token: str, rank: int) -> Path:
    """Made by every rank to see which of them have the same folder."""
    return output_dir / f".shared-{token}-{rank}"


def universal_path(output_dir: Path, token: str) -> Path:
    """A checkpoint that is converted for another number of processes; all of them with "*"."""
    return output_dir / f".universal-{token}"


def partial_path(checkpoint: Path) -> Path:
    """Where a checkpoint's folder is while it is made or removed."""
    return checkpoint.with_name(f".{checkpoint.name}.partial")


def cost_path(checkpoint: Path) -> Path:
    """What a checkpoint took; beside its folder, because it differs where everything that is published is equal."""
    return checkpoint.with_name(f".{checkpoint.name}.cost.json")


@contextmanager
def hold(output_dir: Path) -> Iterator[None]:
    """Hold `output_dir` for one run at a time. Raises UsageError when it can't be written or is in use."""
    busy = UsageError(f"Another run is using {output_dir}; wait for it, or give another --output_dir.")
    with ExitStack() as held:
        with disk_errors_as(UsageError, output_dir, "give another --output_dir."):
            held.enter_context(locked(output_dir / ".lock", busy=busy))
        yield


def check_output_dir(output_dir: Path) -> None:
    """Raise UsageError when something lies in `output_dir` that no run wrote there, and that a run would overwrite."""
    foreign = foreign_checkpoints(output_dir)
    if not (output_dir / RECORD).is_file():
        found = {path.name for pattern in _IN_THE_WAY for path in output_dir.glob(pattern)}
        foreign = sorted({*foreign, *found})
    _refuse(output_dir, foreign)


def check_checkpoints(output_dir: Path) -> None:
    """Raise UsageError as above, for checkpoints alone: all that is removed from the folder of another node."""
    _refuse(output_dir, foreign_checkpoints(output_dir))


def _refuse(output_dir: Path, foreign: list[str]) -> None:
    if foreign:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        raise UsageError(
            f"{output_dir} has {', '.join(foreign[:_SHOWN])}{more}, which no run of tunegate wrote there; nothing of "
            "it is overwritten, removed or resumed from: give a new --output_dir, or move it away."
        )


def foreign_checkpoints(output_dir: Path) -> list[str]:
    """The names of folders like a checkpoint's that no run made, nor is fetching from the store."""
    return sorted(
        folder.name
        for folder in output_dir.glob(CHECKPOINTS)
        if folder.is_dir() and folder.suffix != ".partial" and not is_ours(folder)
    )


def is_ours(checkpoint: Path) -> bool:
    return any((checkpoint / RESUME / name).is_file() for name in (MARKER, UNFINISHED))


def _suffix(node: int) -> str:
    return f"-{node}" if node else ""
