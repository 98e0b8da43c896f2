"""Citations are the same however an answer is cut into pieces."""

from __future__ import annotations

import pytest

from tunegate.knowledge.citations import Citing, feed, finish

ANSWERS = [
    ("It costs $26 [1].", "It costs $26 [1].", (1,), ()),
    ("It costs $26 [7].", "It costs $26.", (), (7,)),
    ("价格319元【2】，质保2年［1］。", "价格319元[2]，质保2年[1]。", (1, 2), ()),
    ("Both [1, 3] and [2，9].", "Both [1][3] and [2].", (1, 2, 3), (9,)),
    ("[0][1] first", "[1] first", (1,), (0,)),
    ("In [2026] we [note] that [", "In [2026] we [note] that [", (), ()),
    ("open [1", "open [1", (), ()),
    ("", "", (), ()),
]


@pytest.mark.parametrize("width", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(("answer", "shown", "cited", "dropped"), ANSWERS)
def test_citations(answer: str, shown: str, cited: tuple[int, ...], dropped: tuple[int, ...], width: int) -> None:
    state, pieces = Citing(sources=3), []
    for begin in range(0, len(answer), width):
        state, piece = feed(state, answer[begin : begin + width])
        pieces.append(piece)
    state, piece = finish(state)
    text = "".join([*pieces, piece])

    assert (text, state.cited, state.dropped) == (shown, cited, dropped)
    assert [text[citation.start : citation.end] for citation in state.citations] == [
        f"[{citation.number}]" for citation in state.citations
    ]


def test_only_what_may_be_a_citation_is_held_back() -> None:
    state, shown = feed(Citing(sources=1), "It costs [")

    assert (shown, state.held) == ("It costs", " [")
    assert feed(state, "x")[1] == " [x"
    assert len(feed(Citing(sources=1), "[" + "1," * 40)[1]) > 64
