"""Exams as they are handed round: a folder or a zip of CSV files, or Parquet files, with one table for each subject.

`dev/law_dev.csv` (C-Eval), `dev/law.csv` (CMMLU), both with or without a row of headings (MMLU has none), and
`law/dev-00000-of-00001.parquet` are all the examples of the subject `law`. A folder above those is looked through.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunegate.api.errors import DataError
from tunegate.evaluation.choice.exams import ExamName, Name, names
from tunegate.evaluation.choice.prompts import LETTERS, Item, Subject

MAPPING = "subject_mapping.json"
Split = Literal["val", "test"]
_SPLITS = {"dev": "dev", "val": "val", "validation": "val", "test": "test"}
_PARQUET = re.compile(r"(dev|val|validation|test)(?:-\d+-of-\d+)?")
_COLUMNS = ("question", *LETTERS)
Row = Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """One file. where: what a message calls it."""

    where: str
    name: str
    body: bytes


def read_subjects(
    place: Path, exam: ExamName, split: Split, shots: int, limit: int | None, *, explained: bool = False
) -> tuple[Subject, ...]:
    """Read every subject that the mapping names; `limit` keeps the first questions over all subjects.

    place: a folder or a zip. explained: the solved examples need explanations.
    Raises DataError naming the file, and the line where there is one, that can't be used.
    """
    tables, mapping = _tables(place)
    subjects = _read_names(mapping, exam) if mapping else names(exam)
    found = {handle for kind, handle in tables if kind == split}
    if unknown := sorted(found - set(subjects)):
        table = tables[split, unknown[0]][0].where
        raise DataError(f"{table} belongs to no subject of {MAPPING}; name it there or remove the file.")
    if missing := [handle for handle in subjects if handle not in found]:
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise DataError(
            f"{place} has no {split} file of {some}, such as {split}/{missing[0]}.csv; add what is missing, or name "
            f"what is there in a {MAPPING}."
        )
    left, read = limit, []
    for handle, name in subjects.items():
        items = _items(tables[split, handle], labelled=split != "test")[:left]
        examples = _items(tables.get(("dev", handle), ()), labelled=True)[:shots] if shots else ()
        if len(examples) < shots:
            where = f"{place} has {len(examples)} of the {shots} examples of {handle}"
            raise DataError(f"{where} (dev); lower shots in suite.yaml.")
        if explained and not all(example.explanation for example in examples):
            raise DataError(f"The examples of {handle} in {place} have no explanation; set shots: 0 or cot: false.")
        left = None if left is None else left - len(items)
        if items:
            read.append(Subject(handle, name.title, examples, items, name.areas))
    return tuple(read)


def digest_of(place: Path) -> str:
    """sha256 over the paths and bytes of all files in the folder, or the bytes of the zip."""
    digest = hashlib.sha256()
    for name, body in ((place.name, place.read_bytes()),) if place.is_file() else _files(place):
        digest.update(f"{name}\0{len(body)}\0".encode() + body)
    return digest.hexdigest()


def _tables(place: Path) -> tuple[dict[tuple[str, str], list[Table]], Table | None]:
    """The files of each subject by (split, handle), and the mapping where there is one."""
    tables: dict[tuple[str, str], list[Table]] = {}
    mapping = None
    for path, body in _files(place):
        folder, _, name = path.rpartition("/")
        stem, _, ending = name.rpartition(".")
        parent = folder.rpartition("/")[2]
        table = Table(f"{place}/{path}", name, body)
        if name == MAPPING:
            mapping = table
        elif ending == "csv" and parent in _SPLITS:
            tables.setdefault((_SPLITS[parent], stem.removesuffix(f"_{parent}")), []).append(table)
        elif ending == "parquet" and (match := _PARQUET.fullmatch(stem)) and parent not in ("", "all"):
            tables.setdefault((_SPLITS[match[1]], parent), []).append(table)
    return tables, mapping


def _files(place: Path) -> Iterator[tuple[str, bytes]]:
    """Paths within and bytes, in the order of their paths. Raises DataError for what can't be read."""
    if place.is_dir():
        try:
            for path in sorted(path for path in place.rglob("*") if path.is_file()):
                yield path.relative_to(place).as_posix(), path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} can't be read ({error.strerror}); check its permissions.") from None
        return
    try:
        with zipfile.ZipFile(place) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith("/") and not name.startswith("__MACOSX/"):
                    yield name, archive.read(name)
    except FileNotFoundError:
        raise DataError(f"{place} does not exist; correct `data` in suite.yaml.") from None
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:
        raise DataError(f"{place} is neither a folder nor a zip that can be read: {error}; pack it again.") from None


def _read_names(mapping: Table, exam: ExamName) -> Mapping[str, Name]:
    """From C-Eval's handle -> [English, Chinese, category]; areas that the exam's own table has are added."""
    own = names(exam)
    try:
        lines = json.loads(mapping.body)
        english = exam == "mmlu"
        found = {
            str(handle): Name(
                str(line[0 if english else 1]), own[handle].areas if handle in own else tuple(map(str, line[2:3]))
            )
            for handle, line in lines.items()
        }
    except (ValueError, AttributeError, IndexError, KeyError, TypeError):
        where = mapping.where
        raise DataError(f"{where} can't be read; it must map each subject to [English, Chinese, category].") from None
    if not found:
        raise DataError(f"{mapping.where} names no subject; a suite needs at least one.")
    return found


def _items(tables: Sequence[Table], *, labelled: bool) -> tuple[Item, ...]:
    items: list[Item] = []
    seen: set[str] = set()
    for table in tables:
        read = _parquet(table) if table.name.endswith(".parquet") else _csv(table)
        for line, row in read:
            where = f"{table.where}:{line}"
            if missing := [name for name in _COLUMNS if not row.get(name)]:
                raise DataError(f"{where} is a question without {', '.join(missing)}; complete it.")
            answer = row.get("answer", "").strip()
            if labelled and not answer:
                raise DataError(f"{where} has no answer, so it can't be scored; complete it.")
            if answer and answer not in LETTERS:
                raise DataError(f"{where} has the answer {answer!r}; it must be one of A, B, C and D.")
            question, a, b, c, d = (row[name] for name in _COLUMNS)
            explanation = row.get("explanation", "").strip()
            cluster = row.get("cluster", "").strip()
            item = Item(row.get("id") or str(len(items)), question, (a, b, c, d), answer, explanation, cluster)
            if item.id in seen:
                raise DataError(f"{table.where} repeats the id {item.id}; give each question its own.")
            seen.add(item.id)
            items.append(item)
        if not items:
            raise DataError(f"{table.where} holds no question; add one.")
    return tuple(items)


def _csv(table: Table) -> Iterator[tuple[int, Row]]:
    """Rows with the number of their line; headings in any case, the first of CMMLU's empty; MMLU's files have none.
    Blank lines are left out."""
    try:
        reader = csv.reader(io.StringIO(table.body.decode("utf-8-sig"), newline=""), strict=True)
        heads: list[str] | None = None
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if heads is None:
                heads = [cell.strip() for cell in cells]
                heads = [head if head in LETTERS else head.lower() for head in heads]
                if "question" in heads:
                    heads[0] = heads[0] or "id"
                    if twice := next((name for name in (*_COLUMNS, "answer") if heads.count(name) > 1), None):
                        raise DataError(f"{table.where} has two columns {twice}; keep one.")
                    if missing := [name for name in _COLUMNS if name not in heads]:
                        raise DataError(f"{table.where} has no column {', '.join(missing)}; add it.")
                    continue
                heads = [*_COLUMNS, "answer"]
            if len(cells) > len(heads):
                where = f"{table.where}:{reader.line_num}"
                raise DataError(f"{where} is a question with more columns than its header; quote cells with a comma.")
            yield reader.line_num, dict(zip(heads, cells, strict=False))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{table.where} is not a CSV file in UTF-8: {error}; save it as one.") from None


def _parquet(table: Table) -> Iterator[tuple[int, Row]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise DataError(
            f"{table.where} is a Parquet file; install what reads it: pip install 'tunegate[parquet]'."
        ) from None
    try:
        rows: list[dict[str, Any]] = parquet.read_table(io.BytesIO(table.body)).to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"{table.where} is not a Parquet file: {error}; save it as one.") from None
    for number, row in enumerate(rows):
        values = {key if key in LETTERS else key.lower(): value for key, value in row.items()}
        values |= zip(LETTERS, values.pop("choices", ()), strict=False)
        if isinstance(values.get("answer"), int):
            values["answer"] = LETTERS[values["answer"]] if 0 <= values["answer"] < len(LETTERS) else ""
        yield number, {key: str(value) for key, value in values.items() if value is not None}
