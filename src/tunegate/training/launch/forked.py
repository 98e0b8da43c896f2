"""One training process that was forked: it becomes what `worker` is as a program, and works as that does."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path

from tunegate.training.launch.worker import main


def become_a_program() -> None:
    """Take a session of its own, a name among processes, and the usual ends by signals instead of the parent's."""
    os.setsid()
    Path("/proc/self/comm").write_text(f"rank{os.environ['RANK']}")
    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(name, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    become_a_program()
    try:
        status = main(Path(sys.argv[1]))
    except Exception:  # torchrun would tell of one of them
        traceback.print_exc()
        status = 1
    sys.exit(status)
