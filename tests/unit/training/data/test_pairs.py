from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.training.builders import make_config, texts, write_info, write_lines
from tunegate.api.errors import DataError, UsageError
from tunegate.models import make_tiny
from tunegate.training.data.datasets import find_datasets
from tunegate.training.data.dialogues import Dialogue, Message
from tunegate.training.data.examples import Pairs, account_of, open_training_data
from tunegate.training.data.layouts import Columns, Layout
from tunegate.training.data.pairs import Pair, encode_pairs, pair_of
from tunegate.training.data.prepare import prepare
from tunegate.training.data.ranked import layout_of_ranked, recognize_ranked
from tunegate.training.data.readers import Reason, RecordError
from tunegate.training.data.tokenize import IGNORED, Encoded, Limits, load_tokenizer

ASK = {"role": "user", "content": "How much is the lamp?"}
GOOD = {"role": "assistant", "content": "It costs $11."}
BAD = {"role": "assistant", "content": "No idea."}
HUMAN = {"from": "human", "value": ASK["content"]}
GPT = {"from": "gpt", "value": GOOD["content"]}
NO_GPT = {"from": "gpt", "value": BAD["content"]}
ASKED = {"prompt": ASK["content"], "chosen": GOOD["content"], "rejected": BAD["content"]}

LAYOUTS: dict[str, Any] = {
    "LLaMA-Factory, alpaca": {
        "instruction": ASK["content"],
        "input": "",
        "chosen": GOOD["content"],
        "rejected": BAD["content"],
    },
    "LLaMA-Factory, sharegpt": {"conversations": [HUMAN], "chosen": GPT, "rejected": NO_GPT},
    "LLaMA-Factory, openai": {"messages": [ASK], "chosen": GOOD, "rejected": BAD},
    "TRL, texts": ASKED,
    "TRL, messages": {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]},
    "TRL, implicit prompt": {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    "a prompt that is said twice": {"prompt": ASK["content"], "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    "ms-swift, text": {"messages": [ASK, GOOD], "rejected_response": BAD["content"]},
    "ms-swift, messages": {"messages": [ASK, GOOD], "rejected_messages": [ASK, BAD]},
    "a question": {"question": ASK["content"], "chosen": GOOD["content"], "rejected": BAD["content"]},
    "transcripts": {
        "chosen": f"\n\nHuman: {ASK['content']}\n\nAssistant: {GOOD['content']}",
        "rejected": f"\n\nHuman: {ASK['content']}\n\nAssistant: {BAD['content']}",
    },
    "OpenAI": {"input": {"messages": [ASK], "tools": []}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
    "what a review took": {"id": "q", "source": "s", "prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]},
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(make_tiny(tmp_path_factory.mktemp("pairs") / "model", texts()), "chatml")


def recognized(record: Any) -> Layout:
    layout = recognize_ranked(record)
    assert layout is not None
    assert layout.is_ranked
    return layout


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_is_recognized_and_only_the_last_answers_are_trained(name: str) -> None:
    record = LAYOUTS[name]

    pair = pair_of(record, recognized(record))

    asked = Message("user", ASK["content"], trained=False)
    answers = (Message("assistant", answer["content"]) for answer in (GOOD, BAD))
    assert pair == Pair(*(Dialogue((asked, answer)) for answer in answers))


def test_what_was_said_before_and_the_system_text_are_in_both() -> None:
    before = [ASK, GOOD, {"role": "user", "content": "Is it new?"}]
    record = {"system": "Be kind.", "prompt": before, "chosen": "Yes.", "rejected": "No."}

    pair = pair_of(record, recognized(record))

    chosen = pair.chosen.messages
    assert chosen[:-1] == pair.rejected.messages[:-1]
    assert [message.role for message in chosen] == ["system", "user", "assistant", "user", "assistant"]
    assert [message.trained for message in chosen] == [False] * 4 + [True]


def test_an_entry_names_its_columns() -> None:
    columns = Columns(prompt="q", history="h", chosen="up", rejected="down")
    record = {"q": "Is it new?", "h": [["Hello", "Hello!"]], "up": "Yes.", "down": "No."}

    pair = pair_of(record, layout_of_ranked("alpaca", columns))

    assert [message.content for message in pair.rejected.messages] == ["Hello", "Hello!", "Is it new?", "No."]


@pytest.mark.parametrize(
    ("record", "reason", "said"),
    [
        pytest.param({**ASKED, "rejected": ASKED["chosen"]}, Reason.SAME_ANSWERS, "teaches nothing", id="same"),
        pytest.param({**ASKED, "prompt": None}, Reason.COLUMN_MISSING, "no prompt under 'prompt'", id="no prompt"),
        pytest.param({"prompt": "?", "chosen": "a"}, Reason.COLUMN_MISSING, "no 'rejected'", id="no answer"),
        pytest.param({**ASKED, "rejected": None}, Reason.NO_TEXT, "an assistant turn has no text", id="no text"),
        pytest.param({**ASKED, "chosen": 5}, Reason.NO_TEXT, "is a number", id="a number"),
        pytest.param(["a", "b"], Reason.NOT_AN_OBJECT, "not an object", id="a list"),
        pytest.param(RecordError(Reason.NOT_JSON, "not valid JSON"), Reason.NOT_JSON, "not valid", id="unread"),
        pytest.param(
            {"chosen": [ASK, GOOD], "rejected": [{**ASK, "content": "Hm?"}, BAD]},
            Reason.OTHER_PROMPTS,
            "to different prompts",
            id="other prompts",
        ),
    ],
)
def test_a_record_that_is_no_pair_says_why(record: Any, reason: Reason, said: str) -> None:
    with pytest.raises(RecordError, match=said) as caught:
        pair_of(record, recognized(ASKED))

    assert caught.value.reason is reason


def encoded(tokenizer: Any, limits: Limits, **record: Any) -> Encoded | RecordError:
    (found,) = encode_pairs(tokenizer, [pair_of(record, recognized(record))], limits)
    return found


def text_of(tokenizer: Any, ids: Any) -> str:
    text: str = tokenizer.decode([int(one) for one in ids])
    return text


def test_both_sides_are_the_prompt_and_an_answer_as_a_dialogue_is_rendered(tokenizer: Any) -> None:
    found = encoded(tokenizer, Limits(512), **ASKED)

    assert isinstance(found, Encoded)
    assert found.rejected is not None
    prompt = tokenizer.apply_chat_template([ASK], add_generation_prompt=True, tokenize=False)
    for side, answer in ((found.example, GOOD), (found.rejected, BAD)):
        trained = np.asarray(side.labels) != IGNORED
        assert text_of(tokenizer, np.asarray(side.input_ids)[~trained]) == prompt
        assert text_of(tokenizer, np.asarray(side.input_ids)[trained]) == f"{answer['content']}<|im_end|>"
    assert (found.cut_tokens, found.cut_turns) == (0, 0)


LONG = {"prompt": "Is the lamp new? " * 8, "chosen": "Yes, it is new. " * 8, "rejected": "No."}


@pytest.mark.parametrize(
    ("limits", "prompt", "answers"),
    [
        pytest.param(Limits(40), None, None, id="in proportion"),
        pytest.param(Limits(0, "keep_head", 20, 10), 20, (11, None), id="by the rule of 2023"),
    ],
)
def test_a_long_pair_keeps_one_prompt(
    tokenizer: Any, limits: Limits, prompt: int | None, answers: tuple[int, None] | None
) -> None:
    whole, found = encoded(tokenizer, Limits(1000), **LONG), encoded(tokenizer, limits, **LONG)

    assert isinstance(whole, Encoded)
    assert isinstance(found, Encoded)
    assert found.rejected is not None
    assert whole.rejected is not None
    sides = [np.asarray(side.labels) for side in (found.example, found.rejected)]
    prompts = [int(np.argmax(labels != IGNORED)) for labels in sides]
    assert prompts[0] == prompts[1]
    assert max(map(len, sides)) == limits.longest
    assert prompt in (None, prompts[0])
    assert answers is None or len(sides[0]) - prompts[0] == answers[0]
    before = len(whole.example.input_ids) + len(whole.rejected.input_ids)
    assert found.cut_tokens == before - sum(map(len, sides)) > 0


def test_a_long_pair_may_keep_its_last_turns_or_be_left_out(tokenizer: Any) -> None:
    old = [ASK, {**GOOD, "content": "It costs $11. " * 20}]
    record = {"prompt": [*old, {"role": "user", "content": "Is it new?"}], "chosen": "Yes.", "rejected": "No."}

    kept, dropped = (encoded(tokenizer, Limits(40, how), **record) for how in ("keep_last_turns", "drop"))
    alone = encoded(tokenizer, Limits(8, "keep_last_turns"), **record)

    assert isinstance(kept, Encoded)
    assert kept.cut_turns == 1
    assert "$11" not in text_of(tokenizer, kept.example.input_ids)
    for refused in (dropped, alone):
        assert isinstance(refused, RecordError)
        assert refused.reason is Reason.TOO_LONG


def test_answers_that_differ_behind_the_limit_teach_nothing(tokenizer: Any) -> None:
    same = "It costs $11. " * 30

    found = encoded(tokenizer, Limits(40), prompt="?", chosen=f"{same}Yes.", rejected=f"{same}No.")

    assert isinstance(found, RecordError)
    assert found.reason is Reason.SAME_ANSWERS


def test_pairs_are_cached_and_accounted_for(tokenizer: Any, tmp_path: Path) -> None:
    make_tiny(tmp_path / "model", texts())
    write_lines(tmp_path / "pairs.jsonl", [{**ASKED, "score": 1}, {**LONG, "rejected": LONG["chosen"]}, LONG, ASKED])
    changes = {"dataset": (str(tmp_path / "pairs.jsonl"),), "stage": "dpo", "max_rejected": 0.5, "seed": 1}
    config = make_config(None, tmp_path, tmp_path / "out", **changes)

    prepared = prepare(config, tmp_path / "model", rejects=tmp_path / "rejected.jsonl")
    again = Pairs(open_training_data(config, prepared.folders).train)

    (account,) = account_of(prepared, config).datasets
    assert (account.examples, account.pairs, account.unread) == (3, True, {"score": 1})
    assert {reason: rejects.count for reason, rejects in account.rejected.items()} == {Reason.SAME_ANSWERS: 1}
    wanted = [encoded(tokenizer, Limits(512), **record) for record in (ASKED, LONG, ASKED)]
    for index, one in enumerate(wanted):
        assert isinstance(one, Encoded)
        for side, expected in zip(again[index], (one.example, one.rejected), strict=True):
            assert expected is not None
            assert np.array_equal(side.input_ids, expected.input_ids)
            assert np.array_equal(side.labels, expected.labels)
        assert again.lengths[index] == max(len(side.input_ids) for side in again[index])
    assert account.tokens == sum(len(side.input_ids) for pair in again for side in pair)
    whole = account_of(prepared, config)
    assert whole.padding_packed is None
    assert 0 < whole.padding < 1


def test_an_entry_and_the_stage_belong_together(tmp_path: Path) -> None:
    entry = {"file_name": "pairs.jsonl", "ranking": True, "columns": {"prompt": "q", "chosen": "a", "rejected": "b"}}
    write_info(
        tmp_path,
        ranked=entry,
        plain={"file_name": "pairs.jsonl"},
        half={**entry, "columns": {"prompt": "q", "chosen": "a"}},
        nothing={**entry, "columns": {"chosen": "a", "rejected": "b"}},
        unranked={**entry, "ranking": False},
        usual={"file_name": "pairs.jsonl", "ranking": True, "formatting": "sharegpt"},
        kto={"file_name": "pairs.jsonl", "columns": {"prompt": "q", "response": "a", "kto_tag": "label"}},
    )
    write_lines(tmp_path / "pairs.jsonl", [{"q": "?", "a": "Yes.", "b": "No."}])

    (found,) = find_datasets(str(tmp_path), ["ranked"], ranked=True)
    (usual,) = find_datasets(str(tmp_path), ["usual"], ranked=True)

    assert found.layout.columns == Columns(prompt="q", chosen="a", rejected="b")
    assert (usual.layout.columns.messages, usual.layout.columns.chosen) == ("conversations", "chosen")
    for name, ranked, said in (
        ("ranked", False, "it has pairs of answers; give --stage dpo"),
        ("plain", True, 'write "ranking": true'),
        ("half", True, "must name chosen and rejected"),
        ("nothing", True, "must name prompt"),
        ("unranked", True, 'columns of pairs; write "ranking": true'),
        ("kto", True, "the column kto_tag can't be trained"),
    ):
        with pytest.raises(UsageError, match=said):
            find_datasets(str(tmp_path), [name], ranked=ranked)


@pytest.mark.parametrize(
    ("record", "ranked", "said"),
    [
        pytest.param(ASKED, False, "has pairs of answers; give --stage dpo", id="pairs for sft"),
        pytest.param(
            {"prompt": "?", "completion": "a", "label": True},
            True,
            "single answers with a verdict, as for KTO",
            id="KTO",
        ),
        pytest.param({"instruction": "?", "output": "a"}, True, "has no pairs of answers", id="dialogues for dpo"),
    ],
)
def test_a_file_of_another_stage_is_named(tmp_path: Path, record: Any, ranked: bool, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    write_lines(path, [record])

    with pytest.raises(DataError, match=said):
        find_datasets("", [str(path)], ranked=ranked)
