"""The rendezvous of the ranks of one attempt: a key-value store that is theirs alone."""

from __future__ import annotations

import os
import time
from datetime import timedelta

from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from tunegate.training.run.parts import KeyValueStore

_SHARED = "TORCHELASTIC_USE_AGENT_STORE"
_PORT = "tunegate/port"
_ANSWER = timedelta(seconds=2)


def join_rendezvous() -> KeyValueStore:
    """The store of the ranks that a launcher started together, which the environment describes to torch.distributed.

    torchrun keeps one store for all its attempts (torch 2.13, pytorch#135712), where ranks that it restarts find
    the addresses of those before. The first rank therefore opens another one in its own process.
    """
    shared: KeyValueStore = next(rendezvous("env://"))[0]
    if os.environ.get(_SHARED) != "True":
        return shared
    host = os.environ["MASTER_ADDR"]
    if os.environ["RANK"] == "0":
        own = TCPStore(host, 0, is_master=True, wait_for_workers=False, multi_tenant=True)
        shared.set(_PORT, str(own.port))
    else:
        own = None
    while own is None:  # ask until a server answers: the port may be that of the attempt before
        try:
            port = int(shared.get(_PORT))
            own = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=_ANSWER)
        except DistError:
            time.sleep(0.1)
    os.environ.update({"MASTER_PORT": str(own.port), _SHARED: "False"})
    return own
