from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import boto3
import pyarrow
import pyarrow.parquet as parquet
import pytest

from tests.unit.training.builders import dialogues, write_dialogues, write_info, write_lines
from tunegate.api.errors import DataError, NotFoundError, UsageError
from tunegate.store import Store
from tunegate.training.data.datasets import DataSet, find_datasets
from tunegate.training.data.layouts import Columns

ALPACA = {"instruction": "Hi", "output": "Hello."}
SHA1 = hashlib.sha1(b'{"instruction": "Hi", "output": "Hello."}\n', usedforsecurity=False).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, and an entry for it."""
    folder = write_info(tmp_path / "data", shop={"file_name": "rows.jsonl"})
    write_lines(folder / "rows.jsonl", [ALPACA])
    return folder


def _find(folder: Path, **entry: Any) -> DataSet:
    write_info(folder, shop=entry)
    return find_datasets(str(folder), ["shop"])[0]


def _upload(store: Store, files: dict[str, bytes]) -> str:
    """Put files where no version is; returns the URI of their folder."""
    _, _, bucket, *prefix = store.uri.split("/")
    client = boto3.client("s3", endpoint_url=store.endpoint_url)
    for name, body in files.items():
        client.put_object(Bucket=bucket, Key="/".join([*prefix, "data", name]), Body=body)
    return f"{store.uri}/data"


def test_an_entry_of_2023_is_found_with_what_it_names(folder: Path) -> None:
    found = _find(
        folder, file_name="rows.jsonl", file_sha1=SHA1, columns={"prompt": "q", "response": "a", "history": "h"}
    )

    assert found.files == (folder / "rows.jsonl",)
    assert found.digest == f"sha256:{hashlib.sha256((folder / 'rows.jsonl').read_bytes()).hexdigest()}"
    columns = found.layout.columns
    assert (columns.prompt, columns.query, columns.response, columns.history) == ("q", None, "a", "h")


def test_an_entry_of_today_is_found_with_what_it_names(folder: Path) -> None:
    found = _find(
        folder,
        file_name="rows.jsonl",
        formatting="sharegpt",
        num_samples=7,
        columns={"messages": "said", "system": "rules"},
        tags={"role_tag": "who", "content_tag": "what", "user_tag": "u", "assistant_tag": "a", "system_tag": "s"},
    )

    assert (found.layout.formatting, found.num_samples) == ("sharegpt", 7)
    assert (found.layout.columns.messages, found.layout.columns.system) == ("said", "rules")
    assert (found.layout.tags.role_tag, found.layout.tags.user_tag) == ("who", "u")


def test_a_folder_of_files_is_one_data_set_in_the_order_of_their_names(folder: Path) -> None:
    for name in ("b.jsonl", "a.csv"):
        (folder / "parts" / name).parent.mkdir(exist_ok=True)
        (folder / "parts" / name).write_text(name)
    (folder / "parts" / ".keep").touch()

    found = _find(folder, file_name="parts", formatting="alpaca")

    assert [path.name for path in found.files] == ["a.csv", "b.jsonl"]
    assert found.size == len("a.csvb.jsonl")
    assert found.digest == f"sha256:{hashlib.sha256(b'a.csvb.jsonl').hexdigest()}"


def test_a_path_needs_no_entry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    whole, relative = find_datasets("nowhere", [str(folder / "rows.jsonl"), "rows.jsonl"])

    assert whole.files == (folder / "rows.jsonl",)
    assert whole.digest == relative.digest
    assert whole.layout.formatting == "alpaca"


def test_a_folder_needs_no_entry(tmp_path: Path) -> None:
    folder = write_dialogues(tmp_path, dialogues(2))
    (folder / "dataset_info.json").unlink()

    (found,) = find_datasets("nowhere", [f"{folder}/"])

    assert found.layout.formatting == "openai"


def test_a_path_whose_first_row_tells_no_layout_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "rows.jsonl", [{"q": "Hi", "a": "Hello."}])

    with pytest.raises(DataError, match=r"have the keys q, a; describe it in dataset_info\.json"):
        find_datasets("nowhere", [str(tmp_path / "rows.jsonl")])


def test_an_entry_that_says_no_layout_has_the_one_its_records_show(folder: Path) -> None:
    write_lines(folder / "rows.jsonl", ["{", {"kind": "QA", "input": "Hi", "target": "Hello."}])

    found = _find(folder, file_name="rows.jsonl")

    assert (found.layout.columns.prompt, found.layout.columns.response) == ("input", "target")
    assert found.read_as == '{"formatting": "alpaca", "columns": {"prompt": "input", "response": "target"}}'


def test_a_folder_as_a_hub_has_it_is_read_by_its_splits(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    for name in ("train_sft", "test_sft"):
        (hub / "data").mkdir(parents=True, exist_ok=True)
        table = pyarrow.Table.from_pylist([{"messages": dialogue} for dialogue in dialogues(3)])
        parquet.write_table(table, hub / f"data/{name}-00000-of-00001.parquet")
    with pytest.raises(DataError, match='"split": "test_sft"; it has: test_sft, train_sft'):
        find_datasets("nowhere", [f"{hub}/"])

    found = _find(tmp_path, file_name="hub", split="train_sft")

    assert [path.name for path in found.files] == ["train_sft-00000-of-00001.parquet"]
    assert found.layout.formatting == "openai"
    assert found.read_as.endswith("split train_sft, not test_sft")


def test_a_folder_with_entries_is_no_data_set(folder: Path) -> None:
    with pytest.raises(UsageError, match="give it as --dataset_dir"):
        find_datasets("nowhere", [f"{folder}/"])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        pytest.param(["shoop"], "no data set 'shoop', did you mean 'shop'.; it has: shop", id="misspelled"),
        pytest.param(["zz"], "no data set 'zz'; it has: shop", id="unknown"),
        pytest.param(["shop", "shop"], "names shop twice", id="twice"),
        pytest.param(["gs://bucket/rows.jsonl"], "use s3://, oss:// or a path", id="another cloud"),
    ],
)
def test_a_name_that_is_not_there_is_refused(folder: Path, names: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_datasets(str(folder), names)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        pytest.param({"hf_hub_url": "x"}, "hf_hub_url would load it from a hub; download it", id="hub"),
        pytest.param({"ms_hub_url": "x", "file_name": "rows.jsonl"}, "ms_hub_url would load", id="another hub"),
        pytest.param({"script_url": "x"}, "script_url would load", id="script"),
        pytest.param({"file_name": "rows.jsonl", "ranking": True}, "ranking says that it has pairs", id="ranking"),
        pytest.param(
            {"file_name": "rows.jsonl", "columns": {"prompt": "q", "response": "a", "images": "i"}},
            "the column images can't be trained",
            id="images",
        ),
        pytest.param({"file_name": "rows.jsonl", "colums": {}}, "no key 'colums', did you mean 'columns'", id="key"),
        pytest.param(
            {"file_name": "rows.jsonl", "columns": {"promt": "q"}}, "columns: .*'promt', did you mean 'prompt'", id="c"
        ),
        pytest.param({"file_name": "rows.jsonl", "tags": {"role": "q"}}, "tags: .*'role', did you mean", id="tag"),
        pytest.param({"file_name": "rows.jsonl", "formatting": "vicuna"}, "no formatting 'vicuna'; give", id="format"),
        pytest.param(
            {"file_name": "rows.jsonl", "formatting": "ShareGPT"}, "'ShareGPT', did you mean 'sharegpt'", id="capitals"
        ),
        pytest.param(
            {"file_name": "rows.jsonl", "columns": {"prompt": "q"}}, "name prompt and response", id="response"
        ),
        pytest.param(
            {"file_name": "rows.jsonl", "formatting": "openai", "columns": {"system": "s"}}, "name messages", id="m"
        ),
        pytest.param({"file_name": "rows.jsonl", "num_samples": 0}, "num_samples is 0", id="no samples"),
        pytest.param({"file_name": "rows.jsonl", "columns": {"messages": "m"}}, "give it sharegpt or openai", id="f"),
        pytest.param({"file_name": "rows.jsonl", "tags": {"user_tag": "u"}}, "give formatting, too", id="tags"),
        pytest.param({}, "one of file_name and cloud_file_name", id="no file"),
        pytest.param("rows.jsonl", "not an object", id="a string"),
    ],
)
def test_an_entry_that_can_not_be_used_is_refused_by_name(folder: Path, entry: Any, said: str) -> None:
    write_info(folder, shop=entry)

    with pytest.raises(UsageError, match=f"data set 'shop'.*{said}"):
        find_datasets(str(folder), ["shop"])


def test_another_file_than_the_entry_vouches_for_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=f"has the SHA-1 {SHA1}, not {'0' * 40}"):
        _find(folder, file_name="rows.jsonl", file_sha1="0" * 40)


def test_a_missing_info_file_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--dataset_dir"):
        find_datasets(str(tmp_path), ["shop"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param("missing.jsonl", r"missing\.jsonl, which is no file", id="missing"),
        pytest.param("rows.xlsx", r"kinds that can be read: \.json, \.jsonl, \.csv, .*\.parquet", id="kind"),
    ],
)
def test_a_file_that_can_not_be_used_is_named(folder: Path, name: str, said: str) -> None:
    (folder / "rows.xlsx").touch()

    with pytest.raises(DataError, match=said):
        _find(folder, file_name=name)


def test_data_sets_in_a_bucket_are_fetched(store: Store, tmp_path: Path) -> None:
    rows = b'{"instruction": "Hi", "output": "Hello."}\n'
    info = b'{"shop": {"file_name": "rows.jsonl"}, "parts": {"file_name": "parts"}}'
    uri = _upload(store, {"dataset_info.json": info, "rows.jsonl": rows, "parts/1.jsonl": rows, "parts/2.jsonl": rows})
    write_info(tmp_path, cloud={"cloud_file_name": f"{uri}/rows.jsonl"}, file={"file_name": f"{uri}/rows.jsonl"})

    shop, parts = find_datasets(uri, ["shop", "parts"], store.endpoint_url)
    (direct,) = find_datasets("nowhere", [f"{uri}/rows.jsonl"], store.endpoint_url)
    cloud, file = find_datasets(str(tmp_path), ["cloud", "file"], store.endpoint_url)

    assert shop.files[0].read_bytes() == rows
    assert [path.name for path in parts.files] == ["1.jsonl", "2.jsonl"]
    assert {shop.digest, direct.digest, cloud.digest, file.digest} == {f"sha256:{hashlib.sha256(rows).hexdigest()}"}


def test_what_is_not_in_a_bucket_is_named(store: Store) -> None:
    uri = _upload(store, {"rows.jsonl": b"{}"})

    with pytest.raises(NotFoundError, match=r"nothing at s3://.*/row\.jsonl"):
        find_datasets("nowhere", [f"{uri}/row.jsonl"], store.endpoint_url)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({"columns": {"messages": "talk", "role": "who", "content": "said"}}, id="as in 2023"),
        pytest.param({"columns": {"messages": "talk", "role_tag": "who"}, "tags": {"content_tag": "said"}}, id="mixed"),
        pytest.param({"columns": {"messages": "talk"}, "tags": {"role_tag": "who", "content_tag": "said"}}, id="today"),
    ],
)
def test_how_messages_are_written_may_stand_among_the_columns(tmp_path: Path, entry: Any) -> None:
    (tmp_path / "talk.jsonl").write_text('{"talk": []}\n')
    write_info(tmp_path, talk={"file_name": "talk.jsonl", "formatting": "sharegpt", **entry})

    (found,) = find_datasets(str(tmp_path), ["talk"])

    assert found.layout.columns == Columns(messages="talk")
    assert (found.layout.tags.role_tag, found.layout.tags.content_tag) == ("who", "said")
