from __future__ import annotations

import gzip
from datetime import date

import pytest

from tunegate.feedback.segments import Segment, day_of, new_writer, read_lines, segment_key

LINES = [f'{{"n": {number}, "text": "夏{number}"}}'.encode() for number in range(500)]


def grown() -> bytes:
    segment = Segment()
    for at in range(0, len(LINES), 7):
        segment = segment.with_lines(LINES[at : at + 7])
    assert segment.rows == len(LINES)
    return segment.to_bytes()


def test_what_was_added_bit_by_bit_is_read_back_as_by_any_gzip() -> None:
    assert read_lines(grown()) == (LINES, True)
    assert gzip.decompress(grown()).split(b"\n") == [*LINES, b""]


def test_a_segment_that_is_grown_stays_as_it_was() -> None:
    first = Segment().with_lines(LINES[:2])
    others = [first.with_lines([line]).to_bytes() for line in LINES[2:4]]
    assert [read_lines(body)[0] for body in (first.to_bytes(), *others)] == [
        LINES[:2],
        [*LINES[:2], LINES[2]],
        [*LINES[:2], LINES[3]],
    ]


def test_an_empty_segment_is_whole_and_an_empty_file_is_none() -> None:
    assert read_lines(Segment().to_bytes()) == ([], True)
    assert read_lines(b"") == ([], False)
    assert read_lines(b"no gzip") == ([], False)


def test_of_a_segment_that_is_cut_anywhere_the_whole_lines_are_read() -> None:
    body = grown()
    for size in range(0, len(body), 11):
        lines, is_whole = read_lines(body[:size])
        assert lines == LINES[: len(lines)]
        assert not is_whole


@pytest.mark.parametrize("at", [0, 12, 700, -2])
def test_a_byte_that_differs_is_seen(at: int) -> None:
    body = bytearray(grown())
    body[at] ^= 0x55
    lines, is_whole = read_lines(bytes(body))
    assert not is_whole
    assert len(lines) <= len(LINES)


def test_keys_say_the_day() -> None:
    key = segment_key("votes", date(2026, 3, 4), new_writer(), 7)
    assert day_of(key) == date(2026, 3, 4)
    assert key.endswith("-000007.jsonl.gz")
    assert day_of("votes/2026-03-04/x.json") is None
