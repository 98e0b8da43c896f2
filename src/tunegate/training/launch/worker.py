"""One training process of a run, as torchrun starts it: read the plan, train, and write down why it fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tunegate import logs
from tunegate.api.codec import from_json, to_json
from tunegate.api.errors import Preempted
from tunegate.files import replace_file
from tunegate.garbage import lasting_imports
from tunegate.training.launch.failure import Failure, explain
from tunegate.training.run.layout import STOP, failure_path, failures
from tunegate.training.run.plan import Plan
from tunegate.training.run.preemption import stoppable

with lasting_imports():
    from tunegate.training.loop.rendezvous import join_rendezvous
    from tunegate.training.loop.trainer import run


def main(path: Path) -> int:
    logs.configure()
    plan = from_json(path.read_bytes(), Plan, str(path))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    own = failure_path(path.parent, rank)
    if (path.parent / STOP).exists() and own.exists():  # torchrun restarts what has done as it was asked, too
        return from_json(own.read_bytes(), Failure, own.name).exit_code
    for failed, failure_of in failures(path.parent).items():
        if failed == rank or failed >= size:  # torchrun has restarted all ranks, and this may end well
            failure_of.unlink(missing_ok=True)
    with stoppable() as stop:
        stop.is_training = True
        try:
            kv_store = join_rendezvous()  # the store lives as long as this name
            run(plan, path.parent, stop, kv_store=kv_store)
        except Exception as error:
            failure = explain(error, path.parent)
            replace_file(own, to_json(failure))  # who started this process reads it as soon as it is there
            if isinstance(error, Preempted):
                return error.exit_code
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
