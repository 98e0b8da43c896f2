"""What a GPU holds and how fast it is, by the name it gives itself or people call it by.

Memory is what nvidia-smi shows as total; FLOP/s in bfloat16 and float16, dense, and bytes/s of its memory as NVIDIA's
data sheets give them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunegate.api.errors import UsageError

_MIB = 2**20
_GIVEN = re.compile(r"(\d+(?:\.\d+)?) ?GiB", re.IGNORECASE)


@dataclass(frozen=True)
class Card:
    """memory: bytes. flops: FLOP/s. bandwidth: bytes/s. The last two are None where only the memory is known."""

    name: str
    memory: int
    flops: float | None = None
    bandwidth: float | None = None


# The first row whose words all occur in a name; float16 alone where there is no bfloat16: V100 and T4.
_CARDS = (
    Card("B200", 183_359 * _MIB, 2250e12, 8.0e12),
    Card("H200 NVL", 143_771 * _MIB, 836e12, 4.8e12),
    Card("H200", 143_771 * _MIB, 989e12, 4.8e12),
    Card("H100 PCIe", 81_559 * _MIB, 756e12, 2.0e12),
    Card("H100 NVL", 95_830 * _MIB, 835e12, 3.9e12),
    Card("H100", 81_559 * _MIB, 989e12, 3.35e12),
    Card("A100 40GB", 40_960 * _MIB, 312e12, 1.555e12),
    Card("A100", 81_920 * _MIB, 312e12, 2.039e12),
    Card("L40S", 46_068 * _MIB, 362e12, 0.864e12),
    Card("L4", 23_034 * _MIB, 121e12, 0.3e12),
    Card("A10", 23_028 * _MIB, 125e12, 0.6e12),
    Card("V100 32GB", 32_768 * _MIB, 125e12, 0.9e12),
    Card("V100", 16_384 * _MIB, 125e12, 0.9e12),
    Card("T4", 15_360 * _MIB, 65e12, 0.32e12),
)


def known_card(name: str) -> Card | None:
    """The GPU that calls itself `name`, such as "NVIDIA A100-SXM4-80GB", or is called so; None for any other."""
    words = {word.upper() for word in re.split(r"[ -]", name)}
    return next((card for card in _CARDS if words.issuperset(card.name.upper().split())), None)


def read_card(text: str) -> Card:
    """A card by its name, or by its memory alone: "24GiB". Raises UsageError for one that is not known."""
    if given := _GIVEN.fullmatch(text.strip()):
        return Card(text.strip(), int(float(given[1]) * 2**30))
    if card := known_card(text):
        return card
    names = ", ".join(card.name for card in _CARDS)
    raise UsageError(f"There is no figure for the card {text!r}; give its memory, such as 24GiB, or one of: {names}.")
