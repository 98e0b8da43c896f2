"""A model store that is killed, and comes up again where it was."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.waiting import wait_for
from tunegate.processes import Child
from tunegate.store import EmbeddedStore


def kill(store: EmbeddedStore) -> None:
    """Kill -9: nothing is put in order."""
    guard = store._child.pid
    (child,) = Path(f"/proc/{guard}/task/{guard}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    wait_for(lambda: store._child.exit_code is not None)


def start_again(store: EmbeddedStore) -> Child:
    """The same data at the same address; close it."""
    weed, options = Path(sys.executable).with_name("weed"), store._folder / "weed.options"
    words = [str(weed), "-logtostderr=true", "mini", f"-options={options}"]
    return Child.start("the store, again", words, log=store._folder / "again.log")
