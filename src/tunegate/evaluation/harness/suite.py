"""What a suite of lm-evaluation-harness's tasks is, as far as that is known without it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tunegate.api.digest import Digest
from tunegate.api.errors import EvaluationError, UsageError

if TYPE_CHECKING:
    from tunegate.evaluation.harness.tasks import Asked


@dataclass(frozen=True)
class HarnessSuite:
    """folder: where the suite's own task files are. data: where the tasks' data sets are.

    tasks: names of tasks, groups or tags. mode: as a text, or with the chat template.
    limit: how many questions are asked over all tasks.
    """

    name: str
    digest: str
    folder: Path
    data: Path
    tasks: tuple[str, ...]
    mode: Literal["base", "chat"] = "base"
    limit: int | None = None
    topic: str = ""

    def __len__(self) -> int:
        """How many questions are asked."""
        return sum(len(asked.docs) for asked in self.asked)

    @cached_property
    def asked(self) -> tuple[Asked, ...]:
        """The tasks with the questions of each; lm-evaluation-harness is imported and the data read."""
        from tunegate.evaluation.harness.tasks import load_tasks

        return load_tasks(self.tasks, self.folder, self.data, self.limit)


def read_suite(
    name: str, digest: str, folder: Path, data: Path, tasks: tuple[str, ...], **more: object
) -> HarnessSuite:
    """The suite, whose digest covers the version of lm-evaluation-harness, too: built-in tasks and prompts are its own.

    Raises UsageError for a suite without tasks, EvaluationError where lm-evaluation-harness is not installed.
    """
    if not tasks:
        raise UsageError(f"{folder} names no tasks; list those of lm-evaluation-harness in suite.yaml.")
    try:
        harness = version("lm-eval")
    except PackageNotFoundError:
        raise EvaluationError(
            f"{name} wants lm-evaluation-harness, which is not installed; install it with: pip install "
            "'tunegate[lm-eval]'"
        ) from None
    whole = str(Digest.of_bytes(f"{digest} lm-eval {harness}".encode()))
    return HarnessSuite(name, whole, folder, data, tasks, **more)  # type: ignore[arg-type]
