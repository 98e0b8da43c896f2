from __future__ import annotations

from pathlib import Path

import pytest

from tunegate.api.errors import DataError
from tunegate.training.data.folders import part_of


def _folder(path: Path, *names: str, readme: str = "") -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("{}")
    if readme:
        (path / "README.md").write_text(f"---\n{readme}\n---\n# Rows\n")
    return path


def _part(path: Path, subset: str | None = None, split: str | None = None) -> tuple[list[str], str]:
    part = part_of(path, "--dataset names", subset=subset, split=split)
    return [file.relative_to(path).as_posix() for file in part.files], part.told


@pytest.mark.parametrize(
    ("names", "files", "told"),
    [
        pytest.param(["b.jsonl", "a.csv", ".gitattributes"], ["a.csv", "b.jsonl"], "", id="all of a folder"),
        pytest.param(["zh/a.jsonl", "en/a.jsonl", "LICENSE"], ["en/a.jsonl", "zh/a.jsonl"], "", id="folders in it"),
        pytest.param(
            [
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/test-00000-of-00001.parquet",
            ],
            ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
            "split train, not test",
            id="shards",
        ),
        pytest.param(
            ["test.jsonl", "train.jsonl", "dataset_infos.json"], ["train.jsonl"], "split train, not test", id="names"
        ),
        pytest.param(
            [
                "train/data-00000-of-00001.arrow",
                "train/state.json",
                "test/data-00000-of-00001.arrow",
                "dataset_dict.json",
            ],
            ["train/data-00000-of-00001.arrow"],
            "split train, not test",
            id="saved splits",
        ),
        pytest.param(
            ["data-00000-of-00001.arrow", "state.json", "dataset_info.json"],
            ["data-00000-of-00001.arrow"],
            "",
            id="saved",
        ),
        pytest.param(
            ["train_sft-00000-of-00001.parquet"], ["train_sft-00000-of-00001.parquet"], "split train_sft", id="one"
        ),
    ],
)
def test_names_say_which_files_are_the_data_set(tmp_path: Path, names: list[str], files: list[str], told: str) -> None:
    assert _part(_folder(tmp_path, *names)) == (files, told)


def test_the_readme_of_a_hub_says_which_files_a_configuration_and_a_split_have(tmp_path: Path) -> None:
    readme = """configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: [data/test-*]
- config_name: zh
  data_files: zh/*.jsonl
- config_name: old
  data_dir: old"""
    names = ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "zh/a.jsonl", "old/b.jsonl"]
    folder = _folder(tmp_path, *names, "rows.xlsx", readme=readme)

    assert _part(folder) == ([names[0]], "split train, not test")
    assert _part(folder, split="test") == ([names[1]], "split test, not train")
    assert _part(folder, subset="zh") == ([names[2]], "split train")
    assert _part(folder, subset="old") == ([names[3]], "split train")


CONFIGS = "configs: [{config_name: a, data_files: a.jsonl}, {config_name: b, data_files: b.jsonl}]"


@pytest.mark.parametrize(
    ("names", "readme", "said"),
    [
        pytest.param([], "", "which is no file", id="empty"),
        pytest.param(["rows.xlsx"], "", r"kinds that can be read: \.json, .* each also as \.gz or \.zst", id="kind"),
        pytest.param(
            ["train_sft-00000-of-00001.parquet", "train_gen-00000-of-00001.parquet"],
            "",
            'no split \'train\'; write one .* "split": "train_gen"; it has: train_gen, train_sft',
            id="no train",
        ),
        pytest.param(["more.jsonl", "train.jsonl"], "", "more.jsonl is in no split, and .*train.jsonl", id="mixed"),
        pytest.param(
            ["train-00000-of-00003.parquet", "train-00001-of-00003.parquet"],
            "",
            "train-00002-of-00003.parquet is missing",
            id="shard",
        ),
        pytest.param(["a.jsonl"], CONFIGS, 'as "subset": "a"; it has: a, b', id="configurations"),
        pytest.param(
            ["a.jsonl"], "configs: [{data_files: 'hf://x/a.jsonl'}]", "names hf://x/a.jsonl, and there", id="elsewhere"
        ),
        pytest.param(
            ["a.jsonl"], "configs: [{data_files: 'b.jsonl'}]", "names b.jsonl, and there is", id="not fetched"
        ),
        pytest.param(["a.jsonl"], "configs: [", "are no YAML", id="yaml"),
    ],
)
def test_a_folder_that_does_not_say_what_is_meant_is_refused(
    tmp_path: Path, names: list[str], readme: str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        _part(_folder(tmp_path, *names, readme=readme))


def test_a_part_is_asked_of_a_folder_that_has_parts(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "rows.jsonl")

    with pytest.raises(DataError, match="no configuration 'zh'; leave out subset"):
        part_of(folder, "x names", subset="zh")
    with pytest.raises(DataError, match="is a file and has no splits; leave out"):
        part_of(folder / "rows.jsonl", "x names", split="test")
    with pytest.raises(DataError, match="has no splits; leave out split"):
        part_of(folder, "x names", split="test")
