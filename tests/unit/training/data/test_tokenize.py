from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tunegate.api.errors import ModelError
from tunegate.models import make_tiny
from tunegate.models.templates import load_template
from tunegate.training.data.dialogues import Dialogue, Message
from tunegate.training.data.readers import Reason, RecordError
from tunegate.training.data.tokenize import IGNORED, Encoded, Example, Limits, Turn, _cut_inside, encode, load_tokenizer

START, END = "<|im_start|>", "<|im_end|>"
HEAD = f"{START}system\nYou are a helpful assistant.{END}\n"
HELLO: tuple[Message, ...] = (
    Message("user", "你好"),
    Message("assistant", "您好，我是玄机。"),
)
ASK: tuple[Message, ...] = (
    Message("user", "推荐一款\n男士洗面奶"),
    Message("assistant", "推荐A款。"),
)
BOTH: tuple[Message, ...] = (
    Message("user", "你好"),
    Message("assistant", "您好。"),
    *ASK,
)
BOTH_TEXT = (
    HEAD + f"{START}user\n你好{END}\n{START}assistant\n您好。{END}\n{START}user\n推荐一款\n男士洗面奶{END}\n"
    f"{START}assistant\n推荐A款。{END}"
)
LONG = Limits(512)
# The pieces that Qwen2.5's tokenizer cuts these texts into.
PIECES = (
    *("\n", "system", "user", "assistant", "You", " are", " a", " helpful", " assistant", "."),
    *("你好", "您好", "，", "我是", "玄", "机", "。", "推荐", "一款", "男士", "洗", "面", "奶", "A", "款"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = [message.content for message in (*HELLO, *BOTH)] * 3
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", words)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return load_tokenizer(folder, "chatml")


@pytest.fixture(scope="module")
def qwen() -> Any:
    """A tokenizer that cuts the golden texts as Qwen2.5's does."""
    vocabulary = {piece: number for number, piece in enumerate(("<unk>", START, END, *PIECES))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    longest_first = sorted(PIECES, key=len, reverse=True)
    any_piece = Regex("|".join(piece.replace(".", r"\.") for piece in longest_first))
    words.pre_tokenizer = pre_tokenizers.Split(any_piece, "isolated")
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token=END, extra_special_tokens=[START]
    )
    made.chat_template = load_template("chatml")
    return made


def _encode(tokenizer: Any, messages: Sequence[Message], limits: Limits = LONG) -> Encoded:
    (encoded,) = encode(tokenizer, [Dialogue(tuple(messages))], limits)
    assert isinstance(encoded, Encoded), encoded
    return encoded


def _text(tokenizer: Any, example: Example) -> str:
    return str(tokenizer.decode(list(example.input_ids))).replace(f" {END}", END)


def _loss(tokenizer: Any, example: Example) -> str:
    """What is trained, with a dot for each token that is not."""
    said = ""
    for trained, group in groupby(zip(example.input_ids, example.labels, strict=True), lambda pair: pair[1] != IGNORED):
        tokens = list(group)
        assert not trained or all(token == label for token, label in tokens)
        said += "".join(tokenizer.convert_ids_to_tokens(int(token)) if trained else "·" for token, _ in tokens)
    return said


@pytest.mark.parametrize(
    ("messages", "text", "loss", "tokens"),
    [
        pytest.param(
            HELLO,
            HEAD + f"{START}user\n你好{END}\n{START}assistant\n您好，我是玄机。{END}",
            "····················您好，我是玄机。<|im_end|>",
            (27, 7),
            id="one turn",
        ),
        pytest.param(
            BOTH,
            BOTH_TEXT,
            "····················您好。<|im_end|>················推荐A款。<|im_end|>",
            (44, 8),
            id="two turns",
        ),
    ],
)
@pytest.mark.parametrize("limits", [LONG, Limits(512, source=4096, target=4096)], ids=["today", "2023"])
def test_every_answer_is_trained_with_its_closing_token_and_nothing_else(
    qwen: Any, messages: tuple[Message, ...], text: str, loss: str, tokens: tuple[int, int], limits: Limits
) -> None:
    example = _encode(qwen, messages, limits).example

    assert qwen.decode(list(example.input_ids)).replace(" ", "") == text.replace(" ", "")
    assert (len(example.input_ids), sum(label != IGNORED for label in example.labels)) == tokens
    assert _loss(qwen, example) == loss


def test_a_served_prompt_is_what_training_put_before_the_answer(tokenizer: Any) -> None:
    example = _encode(tokenizer, BOTH).example
    served = tokenizer.apply_chat_template(
        [message.for_template() for message in BOTH[:-1]], add_generation_prompt=True
    )["input_ids"]
    answer = tokenizer(ASK[1].content + END)["input_ids"]

    assert [*served, *answer] == list(example.input_ids)
    assert tokenizer.decode(list(example.input_ids)) == BOTH_TEXT
    assert list(example.labels[len(served) :]) == answer


def test_a_batch_is_encoded_as_each_dialogue_alone(tokenizer: Any) -> None:
    together = list(encode(tokenizer, [Dialogue(each) for each in (BOTH, HELLO, ASK)], LONG))

    for messages, encoded in zip([BOTH, HELLO, ASK], together, strict=True):
        assert isinstance(encoded, Encoded)
        assert list(encoded.example.input_ids) == list(_encode(tokenizer, messages).example.input_ids)


@pytest.mark.parametrize(
    ("limits", "messages", "text", "loss", "cut"),
    [
        pytest.param(
            Limits(512, source=8, target=3),
            ASK,
            f"{START}system\nYou are a helpful assistant推荐A款{END}",
            "········推荐A款<|im_end|>",
            (31 - 12, 0),
            id="a question and an answer are cut at their ends",
        ),
        pytest.param(
            Limits(512, source=20, target=4),
            BOTH,
            HEAD + f"{START}user\n你好{END}\n{START}assistant\n您好。{END}",
            "····················您好。<|im_end|>",
            (44 - 23, 1),
            id="the newest turns are left out",
        ),
    ],
)
def test_the_rule_of_2023(
    qwen: Any, limits: Limits, messages: tuple[Message, ...], text: str, loss: str, cut: tuple[int, int]
) -> None:
    encoded = _encode(qwen, messages, limits)

    assert qwen.decode(list(encoded.example.input_ids)).replace(" ", "") == text.replace(" ", "")
    assert _loss(qwen, encoded.example) == loss
    assert (encoded.cut_tokens, encoded.cut_turns) == cut


def test_turns_beyond_the_limit_are_left_out_from_the_end(qwen: Any) -> None:
    encoded = _encode(qwen, BOTH, Limits(23))

    assert _loss(qwen, encoded.example) == "····················您好。<|im_end|>"
    assert (encoded.cut_tokens, encoded.cut_turns) == (21, 1)


@pytest.mark.parametrize(
    ("question", "answer", "limit", "lengths"),
    [
        pytest.param(40, 4, 16, (12, 4), id="a short answer stays whole"),
        pytest.param(4, 40, 16, (4, 12), id="a short question stays whole"),
        pytest.param(30, 10, 16, (12, 4), id="both in proportion"),
    ],
)
def test_a_turn_longer_than_the_limit_is_cut_inside(question: int, answer: int, limit: int, lengths: Any) -> None:
    cut = _cut_inside(Turn([1] * question, [2] * answer), limit)

    assert (len(cut.source), len(cut.answer)) == lengths


def test_a_first_turn_that_is_too_long_is_cut_and_counted(qwen: Any) -> None:
    encoded = _encode(qwen, BOTH, Limits(22))

    assert _loss(qwen, encoded.example) == "·" * 19 + "您好。<|im_end|>"
    assert (encoded.cut_tokens, encoded.cut_turns) == (22, 1)


def test_a_later_turn_that_goes_beyond_the_limit_is_cut_inside_and_counted(qwen: Any) -> None:
    encoded = _encode(qwen, BOTH, Limits(33))

    assert len(encoded.example.input_ids) == 33
    assert _loss(qwen, encoded.example) == "·" * 20 + "您好。<|im_end|>" + "·" * 8 + "推荐A"
    assert (encoded.cut_tokens, encoded.cut_turns) == (11, 0)


@pytest.mark.parametrize("limits", [LONG, Limits(512, source=4096, target=4096)], ids=["today", "2023"])
def test_an_answer_that_is_not_to_be_trained_is_read_only(qwen: Any, limits: Limits) -> None:
    untrained: Message = Message("assistant", "您好。", trained=False)
    whole = _encode(qwen, BOTH, limits).example

    example = _encode(qwen, [BOTH[0], untrained, *ASK], limits).example

    assert list(example.input_ids) == list(whole.input_ids)
    assert _loss(qwen, example) == "·" * 39 + "推荐A款。<|im_end|>"


def test_a_dialogue_without_an_answer_to_train_is_refused(qwen: Any) -> None:
    (refused,) = encode(qwen, [Dialogue((ASK[0], Message("assistant", ASK[1].content, trained=False)))], LONG)

    assert isinstance(refused, RecordError)
    assert refused.reason is Reason.NOTHING_TRAINED


def test_the_last_turns_are_kept_below_the_system_text(qwen: Any) -> None:
    system: Message = Message("system", "。")
    whole = _encode(qwen, [system, *BOTH]).example
    alone = _encode(qwen, [system, *ASK]).example

    kept = _encode(qwen, [system, *BOTH], Limits(len(whole.input_ids) - 1, "keep_last_turns"))

    assert list(kept.example.input_ids) == list(alone.input_ids)
    assert list(kept.example.labels) == list(alone.labels)
    assert (kept.cut_tokens, kept.cut_turns) == (len(whole.input_ids) - len(alone.input_ids), 1)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        pytest.param(Limits(43, "drop"), "it is too long: it has 44 tokens, beyond --cutoff_len 43", id="drop"),
        pytest.param(
            Limits(30, "keep_last_turns"),
            "its last answer is too long: with its question it has 31 tokens, beyond --cutoff_len 30",
            id="keep_last_turns",
        ),
    ],
)
def test_a_dialogue_that_can_not_be_cut_to_the_limit_is_rejected_with_the_reason(
    qwen: Any, limits: Limits, reason: str
) -> None:
    (refused,) = encode(qwen, [Dialogue(BOTH)], limits)

    assert isinstance(refused, RecordError)
    assert refused.reason is Reason.TOO_LONG
    assert str(refused) == reason


@pytest.mark.parametrize("truncation", ["keep_head", "keep_last_turns", "drop"])
def test_a_dialogue_as_long_as_the_limit_is_whole(qwen: Any, truncation: str) -> None:
    encoded = _encode(qwen, BOTH, Limits(44, truncation))

    assert len(encoded.example.input_ids) == 44
    assert (encoded.cut_tokens, encoded.cut_turns) == (0, 0)


def test_a_limit_that_came_with_the_tokenizer_cuts_nothing(folder: Path, tmp_path: Path) -> None:
    limited = AutoTokenizer.from_pretrained(folder)
    limited.backend_tokenizer.enable_truncation(4)
    limited.save_pretrained(tmp_path)
    assert '"max_length": 4' in (tmp_path / "tokenizer.json").read_text()

    encoded = _encode(load_tokenizer(tmp_path, "chatml"), BOTH)

    assert _text(limited, encoded.example) == BOTH_TEXT


def test_a_tokenizer_without_the_templates_tokens_is_refused(qwen: Any, tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "Hi": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(tmp_path)

    with pytest.raises(ModelError, match=r"no <\|im_start\|>, which the template chatml needs"):
        load_tokenizer(tmp_path, "chatml")


def test_a_tokenizer_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")

    with pytest.raises(ModelError, match=r"tokenizer in .* can't be read: .*; save it there once more"):
        load_tokenizer(tmp_path, "chatml")
