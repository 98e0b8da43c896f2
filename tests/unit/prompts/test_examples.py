from __future__ import annotations

import pytest

from tunegate.prompts.examples import choose, similarities
from tunegate.prompts.template import Examples, Pair

ASKED = ["What does the kettle cost?", "水壶多少钱？", "When does the yoga mat arrive?", "瑜伽垫什么时候到货？"]
PAIRS = tuple(Pair(user=text, assistant=str(i)) for i, text in enumerate(ASKED))


def users(examples: Examples, text: str) -> list[int]:
    return [int(pair.assistant) for pair in choose(examples, text, len)]


@pytest.mark.parametrize(
    ("text", "best"),
    [("How much is the KETTLE?", 0), ("这个水壶要多少钱", 1), ("the mat, when will it arrive", 2), ("什么时候能到", 3)],
)
def test_the_most_similar_pair_comes_last(text: str, best: int) -> None:
    assert users(Examples(pairs=PAIRS, by="query", most=2), text)[-1] == best


def test_similarity_is_1_for_the_same_and_0_for_nothing_shared() -> None:
    assert similarities(["水壶多少钱？", "abc", ""], "水壶多少钱?") == pytest.approx([1, 0, 0])


def test_without_a_variable_the_first_pairs_are_shown_in_order() -> None:
    assert users(Examples(pairs=PAIRS, most=3), "anything") == [0, 1, 2]


def test_a_pair_that_does_not_fit_makes_way_for_the_next() -> None:
    tokens = len(ASKED[1]) + 1 + len(ASKED[3]) + 1  # of one character each here, and one for each answer

    assert users(Examples(pairs=PAIRS, most=4, tokens=tokens), "") == [1, 3]


def test_equally_similar_pairs_stay_in_order() -> None:
    same = tuple(Pair(user="kettle", assistant=str(i)) for i in range(3))

    assert users(Examples(pairs=same, by="query", most=2), "kettle") == [1, 0]
