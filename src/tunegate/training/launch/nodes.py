"""Which part of a run this machine has: all of it, or one node of several, as a training operator says by environment.

Kubeflow's controllers start the same command in every pod and put torchrun's own variables (PET_*) beside it. What
torchrun reads itself is left to torchrun; what is needed here is only who of several does the work that is done once.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """`count` nodes train together; the one with `index` 0 plans, reports and publishes what is left over."""

    index: int = 0
    count: int = 1

    @property
    def is_alone(self) -> bool:
        return self.count == 1

    @property
    def is_first(self) -> bool:
        return self.index == 0


def read_node(environment: Mapping[str, str], hostname: str) -> Node:
    """This node. PET_NNODES is `N`, or `MIN:MAX` of an elastic job, which numbers no node: there the host of the
    rendezvous is the first."""
    count = int(environment.get("PET_NNODES", "1").rpartition(":")[2])
    if count == 1:
        return Node()
    number = environment.get("PET_NODE_RANK") or environment.get("RANK")  # a PyTorchJob's RANK counts nodes
    if number is not None:
        return Node(int(number), count)
    host = environment.get("PET_RDZV_ENDPOINT", "").partition(":")[0]
    return Node(int(host.partition(".")[0] != hostname.partition(".")[0]), count)
