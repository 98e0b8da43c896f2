"""What must hold of the chunks of any text: nothing lost, size kept, sentences whole."""

from __future__ import annotations

import random
import re

import pytest

from tunegate.knowledge.chunks import chunks, size
from tunegate.knowledge.documents import Document, Section

SENTENCES = {
    "zh": [
        "商品签收后七天内可以退货。",
        "请保留发票！",
        "运费由谁承担呢？",
        "质保期为2年，自签收之日起计算；摔坏不保。",
    ],
    "en": [
        "You may return it within 7 days.",
        "Keep the receipt!",
        "Who pays?",
        "The lid of model 3.5 is steel, not tin.",
    ],
}
ENDS = "。！？.!?"


def made(text: str, **section: object) -> Document:
    return Document("help.md", "Help", (Section(text, **section),))  # type: ignore[arg-type]


def bare(text: str) -> str:
    return re.sub(r"\s", "", text)


def text_of(seed: int, languages: str) -> str:
    chance = random.Random(seed)  # noqa: S311
    known = [sentence for language in languages.split("+") for sentence in SENTENCES[language]]
    paragraphs = [[chance.choice(known) for _ in range(chance.randint(1, 12))] for _ in range(chance.randint(1, 9))]
    return "\n\n".join(("" if languages == "zh" else " ").join(paragraph) for paragraph in paragraphs)


@pytest.mark.parametrize("languages", ["zh", "en", "zh+en"])
@pytest.mark.parametrize("seed", range(25))
def test_sentences_stay_whole_and_nothing_is_lost(seed: int, languages: str) -> None:
    text, most = text_of(seed, languages), 30 + 7 * seed

    found = chunks(made(text), most)

    assert bare("".join(chunk.text for chunk in found)) == bare(text)
    assert all(size(chunk.text) <= most for chunk in found)
    assert all(chunk.text[-1] in ENDS and chunk.text[0] not in ENDS for chunk in found)


@pytest.mark.parametrize("seed", range(25))
def test_any_characters_are_kept_in_chunks_of_the_size(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    text = "".join(chance.choice("质保。，a1 -\n\t😀é\u200bｋ") for _ in range(chance.randint(1, 900)))

    found = chunks(made(text), 50)

    assert bare("".join(chunk.text for chunk in found)) == bare(text)
    assert all(0 < size(chunk.text) <= 50 for chunk in found)


@pytest.mark.parametrize("seed", range(10))
def test_the_head_of_a_table_is_in_each_chunk_and_every_row_in_one(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    rows = [f"| KT-{i} | {'长' * chance.randint(1, 30)} |" for i in range(60)]

    found = chunks(made("\n".join(rows), head="| 货号 | 说明 |\n|---|---|"), 60)

    parts = [chunk.text.split("\n") for chunk in found]
    assert all(part[:2] == ["| 货号 | 说明 |", "|---|---|"] for part in parts)
    assert [row for part in parts for row in part[2:]] == rows
    assert all(size(chunk.text) <= 60 for chunk in found)


def test_a_row_that_is_too_long_is_split_below_the_same_head() -> None:
    found = chunks(made("质保。" * 60, head="item: KT-1"), 50)

    assert all(chunk.text.startswith("item: KT-1\n质保。") and size(chunk.text) <= 50 for chunk in found)
    assert "".join(chunk.text.partition("\n")[2] for chunk in found) == "质保。" * 60


def test_a_head_that_leaves_no_room_stands_once() -> None:
    found = chunks(made("row", head="头" * 40), 50)

    assert bare("".join(chunk.text for chunk in found)) == "头" * 40 + "row"


def test_a_chunk_says_where_it_is_from() -> None:
    found = chunks(Document("help.md", "Help", (Section("Two years.", ("Help", "Warranty"), line=7),)))[0]

    assert found.whole == "Help > Warranty\nTwo years."
    assert (found.source, found.line) == ("help.md", 7)
