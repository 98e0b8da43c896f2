"""Where the ranks of one attempt meet: a key-value store that is theirs alone. Knows nothing of a run."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

Store = Any  # torch.distributed.Store, which its hints don't show
_SHARED = "TORCHELASTIC_USE_AGENT_STORE"
_PORT = "tunegate/port"
_ANSWER = timedelta(seconds=2)


def meet() -> Store:
    """The store of the ranks that a launcher started together, of which torch.distributed hears by the environment.

    torchrun keeps one store for all its attempts (torch 2.13, pytorch#135712), where ranks that it starts anew find
    the addresses of those before. The first rank therefore opens another one in its own process.
    """
    if os.environ.get(_SHARED) != "True":
        return next(rendezvous("env://"))[0]
    shared = next(rendezvous("env://"))[0]
    own = _open(shared) if os.environ["RANK"] == "0" else _find(shared)
    os.environ.update({"MASTER_PORT": str(own.port), _SHARED: "False"})
    return own


def _open(shared: Store) -> TCPStore:
    own = TCPStore(os.environ["MASTER_ADDR"], 0, is_master=True, wait_for_workers=False, multi_tenant=True)
    shared.set(_PORT, str(own.port))
    return own


def _find(shared: Store) -> TCPStore:
    """Ask until somebody is there: the port may be that of the attempt before."""
    while True:
        port = int(shared.get(_PORT))
        try:
            return TCPStore(os.environ["MASTER_ADDR"], port, is_master=False, wait_for_workers=False, timeout=_ANSWER)
        except DistError:
            time.sleep(0.1)
