from __future__ import annotations

import pytest

from tunegate.api.errors import UsageError
from tunegate.models.cards import Card, known_card, read_card


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A10", 125e12),
        ("NVIDIA A10G", None),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 836e12),
        ("NVIDIA B200", 2250e12),
        ("Tesla V100-SXM2-32GB", 125e12),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_what_a_gpu_can_do(name: str, peak: float | None) -> None:
    card = known_card(name)
    assert (card and card.flops) == peak


def test_one_card_comes_with_more_and_with_less_memory() -> None:
    assert read_card("a100").memory == 80 * 2**30
    assert read_card("A100-40GB").memory == read_card("NVIDIA A100-PCIE-40GB").memory == 40 * 2**30


def test_another_card_is_given_by_its_memory() -> None:
    assert read_card("24GiB") == Card("24GiB", 24 * 2**30)
    assert read_card(" 1.5 gib").memory == 3 * 2**29
    with pytest.raises(UsageError, match=r"'RTX 4090'; give its memory, such as 24GiB, or one of: B200, .*T4"):
        read_card("RTX 4090")
