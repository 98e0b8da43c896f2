from __future__ import annotations

import itertools

import pytest

from tunegate.serving.stops import StopScanner


def scan(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    scanner = StopScanner(stops)
    text = ""
    for piece in pieces:
        text += scanner.feed(piece)
        if scanner.stopped:
            return text, True
    return text + scanner.end(), False


@pytest.mark.parametrize(
    ("text", "stops", "left", "stopped"),
    [
        ("Action Input: 6\nObservation: 7", ["\nObservation:"], "Action Input: 6", True),
        ("Action Input: 6\nObserv", ["\nObservation:"], "Action Input: 6\nObserv", False),
        ("aaab", ["aab"], "a", True),
        ("ababac", ["abac"], "ab", True),
        ("one two", ["two", "one"], "", True),
        ("水壶。多少钱", ["。"], "水壶", True),
        ("nothing", [], "nothing", False),
        ("", ["x"], "", False),
    ],
)
def test_an_answer_ends_before_a_stop_string_however_it_is_cut(
    text: str, stops: list[str], left: str, stopped: bool
) -> None:
    for cuts in itertools.chain.from_iterable(itertools.combinations(range(len(text) + 1), n) for n in range(3)):
        ends = [0, *cuts, len(text)]
        pieces = [text[a:b] for a, b in itertools.pairwise(ends)]
        assert scan(stops, pieces) == (left, stopped), pieces
    assert scan(stops, list(text)) == (left, stopped)


def test_nothing_is_held_back_but_what_may_become_a_stop_string() -> None:
    scanner = StopScanner(["\nObservation:", "END"])

    assert [scanner.feed(piece) for piece in ("It is", " \n", "O", "K", "EN", "ERGY")] == [
        "It is", " ", "", "\nOK", "", "ENERGY",
    ]  # fmt: skip
