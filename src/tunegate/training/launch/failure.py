"""Why a training process gave up: written down by the process, read by the one that started it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tunegate.api.codec import Resource, from_json
from tunegate.api.errors import Preempted, TrainingError, TunegateError, UsageError
from tunegate.training.run.layout import failures

_KINDS: dict[int, type[TunegateError]] = {kind.exit_code: kind for kind in (UsageError, Preempted)}
_LONGEST = 600  # characters
_SMALLEST_FREE_SPACE = 16 * 1024**2


class Failure(Resource, frozen=True, kw_only=True):
    """Why a process gave up; `explained` when the message is a sentence for the user."""

    message: str
    explained: bool
    exit_code: int = 1


def explain(error: Exception, output_dir: Path) -> Failure:
    """Explain an error to the user. Writers of weights say "disk full" in many ways, so look at the disk."""
    if isinstance(error, TunegateError):
        return Failure(message=str(error), explained=True, exit_code=error.exit_code)
    if shutil.disk_usage(output_dir).free < _SMALLEST_FREE_SPACE or "No space left" in str(error):
        message = f"The disk of {output_dir} is full; free some space and run the same command again to resume."
        return Failure(message=message, explained=True)
    return Failure(message=": ".join(filter(None, [type(error).__name__, _first_words(str(error))])), explained=False)


def _first_words(text: str) -> str:
    """The first line, and those that it announces with a colon."""
    first, *others = text.splitlines() or [""]
    announced = [line.lstrip("- ").strip() for line in others if line.strip()] if first.endswith(":") else []
    return f"{first} {'; '.join(announced)}"[:_LONGEST].rstrip()


def read_failure(output_dir: Path, log: Path | None) -> TunegateError:
    """What the ranks that gave up in `output_dir` say, as an error: the first that explains itself, or the first."""
    paths = sorted(failures(output_dir).values(), key=lambda path: path.stat().st_mtime)
    found = [from_json(path.read_bytes(), Failure, str(path)) for path in paths]
    again = f"run the same command again to resume from the newest checkpoint (log: {log})"
    for failure in found:
        if failure.explained:
            return _KINDS.get(failure.exit_code, TrainingError)(failure.message)
    if found:
        return TrainingError(f"Training failed: {found[0].message}; {again}.")
    return TrainingError(f"A training process was ended from outside; {again}.")
