"""Quantities are compared as the numbers they stand for."""

from __future__ import annotations

import pytest

from tests.kserve import canonical
from tunegate.kube.quantities import is_same_quantity


@pytest.mark.parametrize(
    "written", [1, 0.1, "0.5", "1000m", "1024Mi", "1.5Gi", "1000", "3Gi", "1e3", "12E6", "100n", "2T", "1.5Ei", "0"]
)
def test_whatever_way_it_is_written(written: str | float) -> None:
    assert is_same_quantity(written, str(written))
    if "e" not in str(written).lower():
        assert is_same_quantity(written, canonical(str(written)))


@pytest.mark.parametrize(("left", "right"), [("1Gi", "1G"), ("1", "2"), ("a", "a"), ("", ""), (None, None), ([], {})])
def test_what_differs_or_is_none(left: object, right: object) -> None:
    assert not is_same_quantity(left, right)
