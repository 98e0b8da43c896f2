from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest

from tunegate.api.errors import DataError
from tunegate.training.data.readers import RecordError, read_records

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

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
        pytest.param("rows.jsonl", '[\n{"instruction": "Hi", "output": "Hello."}\n]', id="a list called jsonl"),
        pytest.param("rows.jsonl", '{\n"instruction": "Hi",\n"output": "Hello."}', id="one object over lines"),
        pytest.param("rows.csv", 'instruction,output\nHi,"Hello."\n', id="csv"),
        pytest.param("rows.csv", "\ufeffinstruction,output\r\nHi,Hello.\r\n", id="csv of Windows"),
        pytest.param("rows.jsonl", '\ufeff{"instruction": "Hi", "output": "Hello."}\r\n\n', id="jsonl of Windows"),
        pytest.param("rows.csv", "instruction;output\nHi;Hello.\n", id="csv with semicolons"),
        pytest.param("rows.csv", "instruction\toutput\nHi\tHello.\n", id="csv with tabs"),
        pytest.param("rows.csv", "instruction, output\nHi,Hello.\n", id="csv with spaces in its first line"),
    ],
)
def test_each_kind_of_file_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")

    assert [record for _, record in _read(tmp_path / name)] == [HI]


def test_a_compressed_file_is_read_as_what_it_holds(tmp_path: Path) -> None:
    rows = b"".join(b'{"n": %d}\n' % number for number in range(300_000))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(rows, compresslevel=1))
    (tmp_path / "rows.jsonl.zst").write_bytes(zstd.compress(rows))
    (tmp_path / "rows.tsv.GZ").write_bytes(gzip.compress(b"instruction\toutput\nHi\tHello.\n"))

    for name in ("rows.jsonl.gz", "rows.jsonl.zst"):
        assert [record["n"] for _, record in _read(tmp_path / name)] == list(range(300_000))
    assert _read(tmp_path / "rows.tsv.GZ") == [(2, HI)]


ROWS = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "推荐", "weight": 0}], "n": 1},
    {"messages": [{"role": "user", "content": "Hi"}], "n": None},
]


def test_a_table_is_read_some_rows_at_a_time_without_the_keys_of_other_rows(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS * 1000)
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=700)
    with pyarrow.ipc.new_stream(tmp_path / "rows.arrow", table.schema) as stream:
        stream.write_table(table)
    with pyarrow.ipc.new_file(tmp_path / "file.arrow", table.schema) as file:
        file.write_table(table)

    for name in ("rows.parquet", "rows.arrow", "file.arrow"):
        assert _read(tmp_path / name) == list(enumerate(ROWS * 1000, start=1))


def test_a_record_has_the_line_it_stands_in(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('\n{"a": 1}\n{"a": \n\n{"a": 2}\n')
    (tmp_path / "rows.csv").write_text('a,b\n1,2\n3\n"x\ny",4\n')

    lines = _read(tmp_path / "rows.jsonl")
    cells = _read(tmp_path / "rows.csv")

    assert [line for line, _ in lines] == [2, 3, 5]
    assert "not valid JSON" in str(lines[1][1])
    assert [line for line, _ in cells] == [2, 3, 5]
    assert "other cells than the first line" in str(cells[1][1])


@pytest.mark.parametrize("bad", ['{"a": undefined}', '{"a": 1,}', '{"a": 1, "a": 2}', "{'a': 1}"])
def test_one_bad_value_costs_its_record_and_not_the_file(tmp_path: Path, bad: str) -> None:
    rows = ['{"a": "}, {"}', bad, '{"a": [{"b": 1}, {"b": 2}]}']
    (tmp_path / "rows.json").write_text("[" + ",\n".join(rows) + "]")
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))

    for name in ("rows.json", "rows.jsonl"):
        first, second, third = (record for _, record in _read(tmp_path / name))
        assert (first, third) == ({"a": "}, {"}, {"a": [{"b": 1}, {"b": 2}]})
        assert isinstance(second, RecordError)


def test_a_few_bytes_that_are_no_utf_8_cost_their_record(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes('{"a": "推"}\n'.encode() + b'{"a": "\xff"}\n{"a": NaN}\n')

    first, second, third = (record for _, record in _read(tmp_path / "rows.jsonl"))

    assert (first, third) == ({"a": "推"}, {"a": None})
    assert isinstance(second, RecordError)


def test_a_list_longer_than_what_is_read_at_once_is_read_whole(tmp_path: Path) -> None:
    rows = [{"a": "x" * 70_000, "n": number} for number in range(40)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))

    assert [record for _, record in _read(tmp_path / "rows.json")] == rows


def test_a_number_in_a_list_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"a": 1.5, "b": 2, "c": None}]))

    assert _read(tmp_path / "rows.json") == [(1, {"a": 1.5, "b": 2, "c": None})]


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(f"a\n{'x' * 200_000}\n")

    assert len(_read(tmp_path / "rows.csv")[0][1]["a"]) == 200_000


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        pytest.param("rows.json", b'[{"a": 1}, {', "cut off: nothing closes its list", id="broken json"),
        pytest.param("rows.json", b'{"v": 1,\n"data": [{"a": 1}]}', "records under the key 'data'", id="wrapped"),
        pytest.param("rows.json", b'{"data": [{"a": 1}]}\n', "records under the key 'data'", id="wrapped in one line"),
        pytest.param("rows.jsonl", '{"a": "推荐"}\n'.encode("gbk"), "in GBK, .*iconv -f GB18030 -t UTF-8", id="gbk"),
        pytest.param("rows.jsonl", '{"a": 1}\n'.encode("utf-16"), "in UTF-16, .*iconv -f UTF-16 -t", id="utf-16"),
        pytest.param("rows.csv", b"a\n1\n2\xe9\n", "not in UTF-8; .*iconv -f ENCODING", id="latin"),
        pytest.param("rows.jsonl", '{"a": "推薦一款洗面乳"}\n'.encode("big5"), "in BIG5, .*iconv -f BIG5", id="big5"),
        pytest.param(
            "rows.jsonl",
            '{"instruction": "推薦洗面乳", "input": "", "output": "推薦A款"}\n'.encode("big5"),
            "iconv -f BIG5",
            id="big5 among ASCII",
        ),
        pytest.param("rows.jsonl", '{"a": "おすすめはこれ"}\n'.encode("cp932"), "iconv -f CP932", id="shift-jis"),
        pytest.param("rows.jsonl", '{"a": 1}\n'.encode("utf-16-be"), "iconv -f UTF-16BE", id="utf-16 without a mark"),
        pytest.param("rows.jsonl", '{"a": 1}\n'.encode("utf-16-le"), "iconv -f UTF-16LE", id="the other utf-16"),
        pytest.param("rows.jsonl", '{"a": 1}\n'.encode("utf-32"), "in UTF-32, .*iconv -f UTF-32", id="utf-32"),
        pytest.param("rows.jsonl", gzip.compress(b'{"a": 1}\n'), "compressed by gzip; add .gz to its name", id="gzip"),
        pytest.param("rows.jsonl", zstd.compress(b'{"a": 1}\n'), "by zstd; add .zst to its name", id="zstd"),
        pytest.param("rows.csv", b"PK\x03\x04..", "workbook of Excel; .*save the sheet as CSV", id="excel"),
        pytest.param("rows.json", b"PAR1..", "is a Parquet file; call it .parquet", id="parquet called json"),
        pytest.param("rows.json", b"<!DOCTYPE html>", "page of HTML or XML and no data; download", id="html"),
        pytest.param("rows.json", b'"text"', "neither a list nor one object a line", id="no list"),
        pytest.param("rows.csv", b"instruction\n\xff\n", "not in UTF-8", id="not utf-8"),
        pytest.param(
            "rows.csv", b'a\n1\n"x\n', "the record in line 3 opens a quote that nothing closes", id="open quote"
        ),
        pytest.param("rows.csv", b"a,b\n", "holds no records", id="csv without records"),
        pytest.param("rows.json", b"", "holds no records", id="empty json"),
        pytest.param("rows.json", b"[]", "holds no records", id="empty list"),
        pytest.param("rows.jsonl", b"\n\n", "holds no records", id="empty lines"),
        pytest.param("rows.jsonl.gz", gzip.compress(b"{}\n" * 99)[:-9], "can't be read as jsonl: .*ended", id="cut gz"),
        pytest.param("rows.jsonl.gz", b'{"a": 1}\n', "not compressed; call it rows.jsonl$|rows.jsonl;", id="no gz"),
        pytest.param("rows.jsonl.zst", b'{"a": 1}\n', "can't be read as jsonl: ", id="no zst"),
        pytest.param("rows.jsonl.gz", gzip.compress("推荐\n".encode("gbk")), "in GBK", id="gbk in gz"),
        pytest.param("rows.parquet", b"PAR1 is cut off", "can't be read as parquet: ", id="cut parquet"),
        pytest.param("rows.arrow", b"ARROW1 is cut off", "can't be read as arrow: ", id="cut arrow"),
        pytest.param(
            "rows.parquet", b"version https://git-lfs.github.com/spec/v1\noid", "pointer.*git lfs pull", id="lfs"
        ),
    ],
)
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, name: str, body: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(body)

    with pytest.raises(DataError, match=rf"rows\..*{said}"):
        _read(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param('{"a": "\\ud83d"}\n', "half a character", id="half"),
        pytest.param('{"a": 1, "a": 2}', "the key 'a' twice", id="a key twice"),
        pytest.param('{"a": 1}{"a": 2}', "jq -c", id="two in a line"),
        pytest.param('{\n"a": 1\n}\n{\n"a": 2\n}\n', "jq -c", id="records over several lines"),
    ],
)
def test_the_only_record_of_a_file_is_looked_at_as_any_other(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")

    record = _read(tmp_path / "rows.jsonl")[0][1]

    assert isinstance(record, RecordError)
    assert re.search(said, str(record))


def test_one_pair_is_a_file_and_no_wrapper(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"chosen": [{"role": "user"}], "rejected": [{"role": "user"}]}\n')

    assert [sorted(record) for _, record in _read(tmp_path / "rows.jsonl")] == [["chosen", "rejected"]]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param(
            "rows.jsonl", '{"a": 1}\n{"a": "\\ud83d"}\n{"a": "\\ud83d\\ude00"}\n', r"half .*\\ud83d", id="half"
        ),
        pytest.param(
            "rows.json", '[{"a": 1}, {"a": "\\uDE00 x"}, {"a": "😀"}]', r"half .*\\ude00", id="half in a list"
        ),
        pytest.param("rows.jsonl", '{"a": 1}\n{"a": 2},\n{"a": 3}\n', "take the comma .* away", id="comma"),
        pytest.param("rows.jsonl", '{"a": 1}\n{\'a\': 2}\n{"a": 3}\n', "json.dumps", id="python"),
        pytest.param("rows.jsonl", '{"a": 1}\n{"a": 2}\r{"a": 2}\n{"a": 3}\n', "carriage return", id="old mac"),
    ],
)
def test_a_record_that_can_not_be_read_costs_itself_and_is_told_why(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")

    records = [record for _, record in _read(tmp_path / name)]

    assert [type(record) for record in records] == [dict, RecordError, dict]
    with pytest.raises(RecordError, match=said):
        raise records[1]
