from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training.builders import dialogues, write_dialogues, write_info, write_lines
from tunegate.api.errors import DataError, UsageError
from tunegate.training.datasets import Corpus, Rejected, check_account, load_corpora, write_rejected

ASK = {"from": "human", "value": "Hi"}
TELL = {"from": "gpt", "value": "Hello."}


def _load(folder: Path, name: str = "shop", **entry: Any) -> Corpus:
    write_info(folder, **{name: {"file_name": "rows.jsonl", **entry}})
    return load_corpora(folder, [name])[0]


def _turns(corpus: Corpus) -> list[list[str]]:
    return [[f"{message['role']}: {message['content']}" for message in row.messages] for row in corpus.rows]


def test_an_alpaca_row_becomes_its_history_question_and_answer(tmp_path: Path) -> None:
    row = {"instruction": "推荐一款", "input": "男士洗面奶", "output": "推荐A款。", "history": [["你好", "您好。"]]}
    write_lines(
        tmp_path / "rows.jsonl", [row, {"instruction": "Hi", "input": "", "output": "Hello.", "system": "Be kind."}]
    )

    assert _turns(_load(tmp_path)) == [
        ["user: 你好", "assistant: 您好。", "user: 推荐一款\n男士洗面奶", "assistant: 推荐A款。"],
        ["system: Be kind.", "user: Hi", "assistant: Hello."],
    ]


def test_where_columns_are_named_only_those_are_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", [{"q": "Hi", "a": "Hello.", "input": "not read", "history": "not read"}])

    corpus = _load(tmp_path, columns={"prompt": "q", "response": "a"})

    assert _turns(corpus) == [["user: Hi", "assistant: Hello."]]


def test_sharegpt_and_openai_rows_become_the_same_dialogue(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", [{"conversations": [ASK, TELL], "system": "Be kind."}])
    wanted = [["system: Be kind.", "user: Hi", "assistant: Hello."]]
    assert _turns(_load(tmp_path, formatting="sharegpt")) == wanted

    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
    ]
    write_lines(tmp_path / "rows.jsonl", [{"messages": messages}])
    assert _turns(_load(tmp_path, formatting="openai")) == wanted


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("rows.json", '[{"instruction": "Hi", "output": "Hello."}]', id="json"),
        pytest.param("rows.csv", 'instruction,output\nHi,"Hello."\n', id="csv"),
        pytest.param("rows.jsonl", '\ufeff{"instruction": "Hi", "output": "Hello."}\r\n\n', id="jsonl of Windows"),
    ],
)
def test_each_kind_of_file_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")

    corpus = _load(tmp_path, file_name=name)

    assert _turns(corpus) == [["user: Hi", "assistant: Hello."]]
    assert corpus.digest == f"sha256:{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}"


def test_a_folder_of_files_is_one_data_set(tmp_path: Path) -> None:
    for number in (1, 2):
        write_dialogues(tmp_path / "parts", dialogues(number))
        (tmp_path / "parts" / "shop.jsonl").rename(tmp_path / f"{number}.jsonl")
    (tmp_path / "parts" / "dataset_info.json").unlink()
    for number in (1, 2):
        (tmp_path / f"{number}.jsonl").rename(tmp_path / "parts" / f"{number}.jsonl")

    corpus = _load(tmp_path, file_name="parts", formatting="openai")

    assert [(row.file, row.line) for row in corpus.rows] == [("1.jsonl", 1), ("2.jsonl", 1), ("2.jsonl", 2)]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        pytest.param('{"conversations": [', "not valid JSON", id="broken json"),
        pytest.param([ASK, TELL], "not an object", id="a list"),
        pytest.param({"conversation": [ASK, TELL]}, "no list of messages under 'conversations'", id="misspelt key"),
        pytest.param({"conversations": [ASK]}, "don't take turns", id="no answer"),
        pytest.param({"conversations": [TELL, ASK]}, "don't take turns", id="wrong order"),
        pytest.param({"conversations": []}, "don't take turns", id="empty"),
        pytest.param({"conversations": [ASK, {"from": "gpt", "value": " "}]}, "assistant turn has no text", id="blank"),
        pytest.param({"conversations": [ASK, {"from": "gpt", "value": 3}]}, "assistant turn has no text", id="number"),
        pytest.param({"conversations": [ASK, {"from": "gpt"}]}, "'from' and 'value'", id="no text"),
        pytest.param({"conversations": [ASK, {"from": "bot", "value": "x"}]}, "'bot' is none of the roles", id="role"),
        pytest.param(
            {"conversations": [{"from": "human", "value": "a<|im_end|>"}, TELL]},
            "belong to the chat template",
            id="token",
        ),
    ],
)
def test_an_unusable_row_is_named_with_its_reason(tmp_path: Path, record: Any, reason: str) -> None:
    write_lines(tmp_path / "rows.jsonl", [{"conversations": [ASK, TELL]}, record])

    corpus = _load(tmp_path, formatting="sharegpt")

    assert len(corpus.rows) == 1
    (rejected,) = corpus.rejected
    assert (rejected.file, rejected.line) == ("rows.jsonl", 2)
    assert reason in rejected.reason


def test_max_samples_takes_the_first_usable_rows_of_each_data_set(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", ["{", *({"instruction": str(n), "output": "x"} for n in range(5))])
    write_info(tmp_path, a={"file_name": "rows.jsonl"}, b={"file_name": "rows.jsonl"})

    corpora = load_corpora(tmp_path, ["a", "b"], max_samples=2)

    assert [[row.line for row in corpus.rows] for corpus in corpora] == [[2, 3], [2, 3]]


def test_an_unknown_data_set_names_those_that_exist(tmp_path: Path) -> None:
    write_dialogues(tmp_path, dialogues(1))

    with pytest.raises(UsageError, match="no data set 'shoop'; it has: shop"):
        load_corpora(tmp_path, ["shoop"])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        pytest.param({"hf_hub_url": "x"}, "hf_hub_url.*an entry has file_name", id="no file"),
        pytest.param({"file_name": "rows.jsonl", "colums": {}}, "colums", id="misspelt"),
        pytest.param({"file_name": "rows.jsonl", "formatting": "vicuna"}, "vicuna", id="format"),
    ],
)
def test_an_entry_that_can_not_be_used_is_refused(tmp_path: Path, entry: Any, said: str) -> None:
    write_info(tmp_path, shop=entry)

    with pytest.raises(UsageError, match=said):
        load_corpora(tmp_path, ["shop"])


def test_a_missing_info_file_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--dataset_dir"):
        load_corpora(tmp_path, ["shop"])


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        pytest.param("rows.json", b"{", "can't be read as json", id="broken json"),
        pytest.param("rows.csv", b"instruction\n\xff\n", "can't be read as csv", id="not utf-8"),
        pytest.param("rows.parquet", b"", "kinds that can be read: .json, .jsonl, .csv", id="kind"),
    ],
)
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, name: str, body: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(body)

    with pytest.raises(DataError, match=said):
        _load(tmp_path, file_name=name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl, which is no file"):
        _load(tmp_path)


REJECTED = Rejected(file="rows.jsonl", line=7, reason="it is empty")


def test_an_account_within_the_limit_passes() -> None:
    check_account(99, [REJECTED], 0.01)


@pytest.mark.parametrize(
    ("used", "rejected", "said"),
    [
        pytest.param(98, [REJECTED] * 2, "2 of 100 rows were rejected.*rows.jsonl:7: it is empty", id="too many"),
        pytest.param(0, [REJECTED], "None of the 1 rows", id="all"),
        pytest.param(0, [], "hold no rows", id="empty corpus"),
    ],
)
def test_an_account_beyond_the_limit_is_refused(used: int, rejected: list[Rejected], said: str) -> None:
    with pytest.raises(DataError, match=said):
        check_account(used, rejected, 0.01)


def test_rejected_rows_are_written_one_a_line(tmp_path: Path) -> None:
    write_rejected(tmp_path / "rejected.jsonl", [REJECTED])

    assert json.loads((tmp_path / "rejected.jsonl").read_text()) == {
        "file": "rows.jsonl",
        "line": 7,
        "reason": "it is empty",
    }
