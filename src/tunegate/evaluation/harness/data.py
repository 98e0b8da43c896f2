"""The data sets of lm-evaluation-harness's tasks, from files on this machine: whatever a task asks a hub for is looked
for in one folder, and never fetched.
"""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets

from tunegate.api.errors import DataError

_KINDS = ("csv", "json", "parquet", "text")  # data sets that are files, for the package
_SPLITS = ("dev", "val", "validation", "test", "train")


@contextmanager
def local_datasets(folder: Path) -> Iterator[None]:
    """Inside, data sets come from `folder`, for every task, whatever kind of class it has.

    A task loads its data itself when it is made, by this one function of the package.
    """
    fetch = datasets.load_dataset
    datasets.disable_progress_bars()
    # What the package keeps of files is known by their paths, so it is kept for these tasks alone.
    with tempfile.TemporaryDirectory() as scratch:

        def load(path: str, name: str | None = None, data_files: Any = None, **options: Any) -> Any:
            options |= {"cache_dir": scratch, "keep_in_memory": True}
            if path in _KINDS:
                return fetch(path, name, data_files=_here(folder, data_files), **options)
            place = folder / path
            if not place.is_dir():
                remedy = f"put a copy of that data set into {place}, or name another folder as data: in suite.yaml"
                raise DataError(f"The task reads {path}, which is not here; {remedy}.")
            if not (place / "README.md").is_file() and name and (tables := _tables(place, name)):
                return datasets.DatasetDict({split: _read(file) for split, file in tables.items()})
            return fetch(str(place), name, data_files=data_files, **options)

        datasets.load_dataset = load
        try:
            yield
        finally:
            datasets.load_dataset = fetch


def _here(folder: Path, files: Any) -> Any:
    """Paths from `folder`. Raises DataError for what is not a file here."""
    if isinstance(files, Mapping):
        return {split: _here(folder, each) for split, each in files.items()}
    if isinstance(files, list | tuple):
        return [_here(folder, each) for each in files]
    if "://" in str(files) or not (folder / str(files)).is_file():
        raise DataError(f"The task reads {files}, which is no file in {folder}; put it there, or correct data_files.")
    return str(folder / str(files))


def _tables(place: Path, name: str) -> dict[str, Path]:
    """The files of one subject by split, as the authors of exams hand them round: `val/law_val.csv` (C-Eval),
    `dev/law.csv` (CMMLU), `law/dev-00000-of-00001.parquet`.
    """
    found: dict[str, Path] = {}
    for split in _SPLITS:
        likely = [place / split / f"{name}_{split}.csv", place / split / f"{name}.csv"]
        likely += [path for path in (place / name).glob("*.parquet") if re.fullmatch(rf"{split}-\d+-of-\d+", path.stem)]
        if there := [path for path in likely if path.is_file()]:
            found[split] = there[0]
    return found


def _read(path: Path) -> datasets.Dataset:
    """Every cell is text, as it stands: guessing types makes 0.5 of "0.50", and nothing of "None"."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return datasets.Dataset(pq.read_table(path))
    with path.open(encoding="utf-8-sig", newline="") as file:
        return datasets.Dataset.from_list(list(csv.DictReader(file)))
