"""Agreement beyond chance, against figures that others published."""

from __future__ import annotations

import pytest

from tunegate.evaluation.agreement import Level, alpha, kappa

# Krippendorff, Computing Krippendorff's alpha-reliability (2011), part C: four observers, twelve units, values missing.
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
UNITS = [[value for value in unit if value is not None] for unit in zip(*PUBLISHED, strict=True)]


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_krippendorffs(level: Level, value: float) -> None:
    assert alpha(UNITS, level) == pytest.approx(value, abs=5e-4)


def test_alpha_of_two_observers_without_gaps_is_krippendorffs() -> None:
    # The same paper, part A: two observers, ten units, two values.
    units = list(zip([0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0], strict=True))
    assert alpha(units, "nominal") == pytest.approx(0.095, abs=5e-4)


@pytest.mark.parametrize(
    "units",
    [pytest.param([], id="nothing"), pytest.param([[1], [2]], id="one-each"), pytest.param([[1, 1]], id="same")],
)
def test_alpha_is_not_known_where_nothing_can_be_compared(units: list[list[float]]) -> None:
    assert alpha(units, "ordinal") is None


@pytest.mark.parametrize(
    ("table", "value"),
    [
        # Fleiss, Statistical methods for rates and proportions, table 18.1: a hundred subjects, three diagnoses.
        pytest.param([[75, 1, 4], [5, 4, 1], [0, 0, 10]], 0.676, id="fleiss"),
        pytest.param([[20, 5], [10, 15]], 0.4, id="two-by-two"),
        pytest.param([[0, 5], [5, 0]], -1.0, id="opposed"),
    ],
)
def test_kappa_is_what_is_published(table: list[list[int]], value: float) -> None:
    pairs = [(row, column) for row, cells in enumerate(table) for column, n in enumerate(cells) for _ in range(n)]
    first, second = zip(*pairs, strict=True)
    assert kappa(first, second) == pytest.approx(value, abs=5e-4)


def test_kappa_is_not_known_where_chance_explains_all() -> None:
    assert kappa([], []) is None
    assert kappa(["tie"] * 3, ["tie"] * 3) is None
