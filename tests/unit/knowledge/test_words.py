from __future__ import annotations

import pytest

from tunegate.knowledge.words import is_chinese, literal_ids, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("电水壶", ["电", "水", "壶", "电水", "水壶"]),
        ("The Kettle, please", ["kettle", "please"]),
        ("KT-100", ["kt100", "kt", "100"]),
        ("ＫＴ－１００", ["kt100", "kt", "100"]),
        ("state-of-the-art", ["state", "art"]),
        ("1.7升", ["1.7", "1", "7", "升"]),
        ("壶A3", ["壶", "a3"]),
        ("…", []),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("How much is KT-100?", {"kt100"}),
        ("kt100多少钱", {"kt100"}),
        ("call 10086", {"10086"}),
        ("a kettle under $30 with 1.7 litres", set()),
        ("350元以内", set()),
    ],
)
def test_ids_single_something_out(text: str, ids: set[str]) -> None:
    assert literal_ids(text) == ids


def test_is_chinese() -> None:
    assert is_chinese("KT-100的价格")
    assert not is_chinese("price of KT-100")
