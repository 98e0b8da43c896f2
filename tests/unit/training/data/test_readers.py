from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunegate.api.errors import DataError
from tunegate.training.data.readers import read_records

HI = {"instruction": "Hi", "output": "Hello."}


def _read(path: Path) -> list[tuple[int, Any]]:
    with path.open("rb") as stream:
        return list(read_records(path, stream))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("rows.json", '[{"instruction": "Hi", "output": "Hello."}]', id="json"),
        pytest.param("rows.json", '\ufeff \n[{"instruction": "Hi", "output": "Hello."}]', id="json of Windows"),
        pytest.param("rows.json", '{"instruction": "Hi", "output": "Hello."}\n', id="lines called json"),
        pytest.param("rows.csv", 'instruction,output\nHi,"Hello."\n', id="csv"),
        pytest.param("rows.csv", "\ufeffinstruction,output\r\nHi,Hello.\r\n", id="csv of Windows"),
        pytest.param("rows.jsonl", '\ufeff{"instruction": "Hi", "output": "Hello."}\r\n\n', id="jsonl of Windows"),
    ],
)
def test_each_kind_of_file_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")

    assert [record for _, record in _read(tmp_path / name)] == [HI]


def test_a_record_has_the_line_it_stands_in(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('\n{"a": 1}\n{"a": \n\n{"a": 2}\n')
    (tmp_path / "rows.csv").write_text('a,b\n1,2\n3\n"x\ny",4\n')

    lines = _read(tmp_path / "rows.jsonl")
    cells = _read(tmp_path / "rows.csv")

    assert [line for line, _ in lines] == [2, 3, 5]
    assert "not valid JSON" in str(lines[1][1])
    assert [line for line, _ in cells] == [2, 3, 5]
    assert "other cells than the first line" in str(cells[1][1])


def test_a_number_in_a_list_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"a": 1.5, "b": 2, "c": None}]))

    assert _read(tmp_path / "rows.json") == [(1, {"a": 1.5, "b": 2, "c": None})]


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(f"a\n{'x' * 200_000}\n")

    assert len(_read(tmp_path / "rows.csv")[0][1]["a"]) == 200_000


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        pytest.param("rows.json", b'[{"a": 1}, {', "can't be read as json", id="broken json"),
        pytest.param("rows.json", b'"text"', "neither a list nor one object a line", id="no list"),
        pytest.param("rows.csv", b"instruction\n\xff\n", "can't be read as csv", id="not utf-8"),
        pytest.param("rows.csv", b'a\n"x\n', "can't be read as csv", id="open quote"),
        pytest.param("rows.csv", b"a,b\n", "holds no records", id="csv without records"),
        pytest.param("rows.json", b"", "holds no records", id="empty json"),
        pytest.param("rows.json", b"[]", "holds no records", id="empty list"),
        pytest.param("rows.jsonl", b"\n\n", "holds no records", id="empty lines"),
    ],
)
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, name: str, body: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(body)

    with pytest.raises(DataError, match=rf"rows\..*{said}"):
        _read(tmp_path / name)
