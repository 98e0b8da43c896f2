"""Questions that stand in training data: found where they are copied, not where they are merely alike."""

from __future__ import annotations

from tunegate.report.leaks import find_leaks, normalize, question_of

ZH = "这款电热水壶的容量是多少，适合三口之家吗？"
EN = "How long does delivery to an island take, and what does it cost?"


def found(question: str, *texts: str) -> list[tuple[str, int, float]]:
    rows = [(line, [text]) for line, text in enumerate(texts, start=1)]
    return [(hit.item, hit.line, hit.similarity) for hit in find_leaks({"q": question}, rows)]


def test_a_copy_is_found_whatever_its_spaces_width_and_punctuation() -> None:
    assert found(ZH, "别的问题，和它完全没有关系的一个问题", "这款 电热水壶的容量是多少?适合三口之家吗") == [
        ("q", 2, 1.0)
    ]
    assert found(EN, "how long does delivery to an island take - and what does it cost") == [("q", 1, 1.0)]


def test_a_copy_within_a_longer_text_is_found() -> None:
    assert found(EN, f"Answer politely. {EN} The shopper waits, so be brief and say no more than you know.") == [
        ("q", 1, 1.0)
    ]


def test_a_copy_with_a_few_changes_is_found_and_says_how_alike_it_is() -> None:
    ((_, line, similarity),) = found(EN, "How long does delivery to an island take and what will it cost?")
    assert line == 1
    assert 0.8 < similarity < 1


def test_the_same_beginning_is_no_copy() -> None:
    assert found(EN, "How long does delivery to an office in town take when it snows in the mountains?") == []


def test_a_text_that_is_part_of_the_question_is_no_copy() -> None:
    assert found(EN, "delivery to an island") == []


def test_a_question_that_says_little_is_part_of_many_texts() -> None:
    assert found("So what would I pay?", "What would I pay for the Kestrin blanket?") == []
    assert found("So what would I pay?", "So, what would I pay?") == [("q", 1, 1.0)]


def test_the_likest_record_is_shown_and_all_are_counted() -> None:
    hits = find_leaks({"q": EN}, [(1, [EN.replace("island", "isle")]), (2, ["hello", EN]), (3, [EN, EN])])

    assert [(hit.line, hit.similarity, hit.records) for hit in hits] == [(2, 1.0, 3)]


def test_short_questions_count_where_a_turn_is_exactly_that() -> None:
    assert found("能退货吗？", "能退货吗") == [("q", 1, 1.0)]
    assert found("能退货吗？", "请问一下七天之内能退货吗") == []


def test_how_a_suite_asks_is_no_leak() -> None:
    """What many of its questions have in common says nothing about one of them."""
    questions = {f"q{n}": f"以下是关于商品的单项选择题，请选出正确答案：{n:03}号" for n in range(100)}

    assert find_leaks(questions, [(1, ["以下是关于商品的单项选择题，请选出正确答案：别的题"])]) == []


def test_the_likest_question_comes_first() -> None:
    changed = ZH.replace("三口", "五口")
    hits = find_leaks({"a": ZH, "b": EN}, [(1, [changed]), (2, [EN])])

    assert [hit.item for hit in hits] == ["b", "a"]


def test_options_are_left_out_where_the_question_says_enough() -> None:
    assert question_of(f"{ZH}\nA. 一升\nB. 两升\nC. 三升\nD. 四升\n答案：") == ZH
    assert "D. 6" in question_of("9除以3？\nA. 3\nB. 4\nC. 5\nD. 6\n答案：")


def test_letters_and_digits_remain() -> None:
    assert normalize("Ｓerin，1.7 L!") == "serin17l"
