"""Which data sets a run names, where their files are, and the layout of their records: dataset_info.json, paths, URIs.

Reads dataset_info.json as LLaMA-Factory lays it out, of 2023 and of today. What is in a bucket is fetched first.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import msgspec

from tunegate.api.digest import Digest
from tunegate.api.errors import DataError, UsageError
from tunegate.files import default_cache, digest_of_files
from tunegate.store.files import fetch_plain, is_uri
from tunegate.training.data.folders import part_of
from tunegate.training.data.layouts import (
    Columns,
    Formatting,
    Layout,
    Tags,
    advice,
    entry_of,
    layout_of,
    merged,
    recognize,
)
from tunegate.training.data.ranked import layout_of_ranked, recognize_ranked
from tunegate.training.data.readers import RecordError, check_encoding, kind_of, read_records

INFO = "dataset_info.json"
_SAVED = "state.json"  # beside what the package datasets saved, whose dataset_info.json is another
_LOOKED_AT = 100  # records, of which the readable ones say what the layout is
_FROM_A_HUB = "would load it from a hub; download it, and give file_name the folder instead"
# What LLaMA-Factory knows and this does not.
_UNSUPPORTED = {
    **dict.fromkeys(("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url"), _FROM_A_HUB),
}
_UNSUPPORTED_COLUMNS = ("images", "videos", "audios", "kto_tag")


class Entry(msgspec.Struct, frozen=True):
    """One data set in dataset_info.json; `file_name` is a file, or a folder of files, here or in a bucket.

    Of a folder `folder` is a part, `subset` a configuration of its README.md, `split` a split. Where it says neither
    `formatting` nor `columns`, the records show their layout.
    """

    file_name: str = ""
    cloud_file_name: str = ""
    file_sha1: str | None = None
    folder: str = ""
    subset: str | None = None
    split: str | None = None
    formatting: Formatting | None = None
    columns: Columns | None = None
    tags: Tags | None = None
    num_samples: int | None = None
    ranking: bool = False


@dataclass(frozen=True)
class DataSet:
    """Files whose records have one layout; `digest`: sha256 of their bytes, `num_samples`: examples to draw.

    named: the columns that an entry names, each of which some record must have; `read_as`: what nobody said, and was
    recognized: layout and split.
    """

    name: str
    layout: Layout
    files: tuple[Path, ...]
    digest: str
    num_samples: int | None = None
    named: tuple[str, ...] = ()
    read_as: str = ""

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.files)


def find_datasets(
    folder: str, names: Sequence[str], endpoint_url: str | None = None, *, ranked: bool = False
) -> tuple[DataSet, ...]:
    """Find what --dataset names: entries of `folder`/dataset_info.json, or files and folders by their path or URI.

    ranked: each record has two answers to one prompt, as --stage dpo needs.
    Raises UsageError for what is not there or not described right, DataError for a file that can't be used.
    """
    if twice := [name for index, name in enumerate(names) if name in names[:index]]:
        raise UsageError(f"--dataset names {twice[0]} twice; name it once, with a weight in --interleave_probs.")
    by_name = [name for name in names if "/" not in name and kind_of(Path(name)) is None]
    where = f"{folder.rstrip('/')}/{INFO}"
    info: dict[str, Any] = {}
    if by_name:
        try:
            text = (path := _local(folder, INFO, endpoint_url, where)).read_bytes()
            check_encoding(path, text)
            info = msgspec.json.decode(text.removeprefix(BOM_UTF8), type=dict[str, Any])
        except OSError as error:
            raise UsageError(
                f"{where} can't be read: {error.strerror}; give --dataset_dir the folder that holds it, "
                "or --dataset the path of a file."
            ) from None
        except msgspec.DecodeError as error:
            raise UsageError(f"{where} is not a JSON object: {error}; correct it there.") from None
    for name in by_name:
        if name not in info:
            there = f"it has: {', '.join(sorted(info))}" if info else "it has none"
            raise UsageError(f"{where} has no data set {name!r}{_nearest(name, info)}; {there}.")
    return tuple(
        _from_entry(folder, name, _checked(where, name, _entry(where, name, info[name]), ranked=ranked), endpoint_url)
        if name in info
        else _from_path(name, endpoint_url, ranked=ranked)
        for name in names
    )


def _from_entry(folder: str, name: str, entry: Entry, endpoint_url: str | None) -> DataSet:
    path = _local(folder, entry.cloud_file_name or entry.file_name, endpoint_url, f"The data set {name!r}")
    part = part_of(path / entry.folder, f"The data set {name!r} names", subset=entry.subset, split=entry.split)
    if entry.file_sha1 and (sha1 := _digest(part.files, "sha1")) != entry.file_sha1.lower():
        raise DataError(
            f"{path} has the SHA-1 {sha1}, not {entry.file_sha1} as {INFO} says for {name!r}; "
            "restore the file, or correct file_sha1."
        )
    digest = str(Digest(_digest(part.files)))  # first of all, as it reads every file
    columns, shown = entry.columns, ""
    layout = (layout_of_ranked if entry.ranking else layout_of)(entry.formatting or "alpaca", columns, entry.tags)
    if entry.formatting is None and columns is None:
        layout, shown = _recognized(name, part.files, ranked=entry.ranking)
    named = tuple(filter(None, msgspec.structs.astuple(columns))) if columns else ()
    read_as = "; ".join(filter(None, [shown, part.told]))
    return DataSet(name, layout, part.files, digest, entry.num_samples, named, read_as)


def _checked(where: str, name: str, entry: Entry, *, ranked: bool) -> Entry:
    """The entry. Raises UsageError for pairs where dialogues are trained, and the other way round."""
    if entry.ranking and not ranked:
        raise UsageError(f"{where}, data set {name!r}: ranking says that it has pairs of answers; give --stage dpo.")
    if ranked and not entry.ranking:
        raise UsageError(
            f"{where}, data set {name!r}: --stage dpo needs pairs of answers; where it has some, write "
            '"ranking": true, and the columns chosen and rejected.'
        )
    return entry


def _from_path(name: str, endpoint_url: str | None, *, ranked: bool) -> DataSet:
    path = _local("", name, endpoint_url, "--dataset")
    if (path / INFO).is_file() and not (path / _SAVED).is_file():
        raise UsageError(f"{name} holds a {INFO}; give it as --dataset_dir, and --dataset the name of an entry.")
    part = part_of(path, "--dataset names")
    digest = str(Digest(_digest(part.files)))
    layout, shown = _recognized(name, part.files, ranked=ranked)
    read_as = "; ".join(filter(None, [shown, part.told]))
    return DataSet(name, layout, part.files, digest, read_as=read_as)


def _recognized(name: str, files: Sequence[Path], *, ranked: bool) -> tuple[Layout, str]:
    """The layout that the first records show, and what an entry would say.

    Raises DataError, with what to write, where it is none or several.
    """
    with files[0].open("rb") as stream:
        records = [value for _, value in islice(read_records(files[0], stream), _LOOKED_AT)]
    readable = [record for record in records if not isinstance(record, RecordError)]
    if not readable:
        raise DataError(
            f"None of the first {len(records)} records of {files[0]} can be read; the first is {records[0]}; repair it."
        )
    record = merged(readable)
    layout = recognize_ranked(record) if ranked else recognize(record)
    if layout is None and ranked:
        is_kto = isinstance(record, dict) and {"label", "kto_tag"} & record.keys()
        what = "single answers with a verdict, as for KTO" if is_kto else "no pairs of answers"
        raise DataError(
            f"{name} has {what}, and --stage dpo needs two answers to a prompt: give its records the keys prompt, "
            f"chosen and rejected, or describe it in a {INFO} with ranking and columns."
        )
    if layout is None and recognize_ranked(record):
        raise DataError(f"{name} has pairs of answers; give --stage dpo to learn from them.")
    if layout is None:
        keys = f"the keys {', '.join(map(str, record))}" if isinstance(record, dict) else "no keys"
        raise DataError(
            f"The layout of {name} can't be recognized by its first records, which have {keys}; {advice(record)}."
        )
    return layout, entry_of(layout, record)


def _local(folder: str, name: str, endpoint_url: str | None, asks: str) -> Path:
    """The path of `name` in `folder`, either of which may be a URI; what is in a bucket is fetched."""
    if is_uri(name) or is_uri(folder):
        uri = name if is_uri(name) else f"{folder.rstrip('/')}/{name}"
        return fetch_plain(uri, default_cache(), endpoint_url=endpoint_url)
    if "://" in name:
        raise UsageError(f"{asks} asks for {name}, which can't be read from there; use s3://, oss:// or a path.")
    return Path(folder) / name


def _entry(info: str, name: str, raw: Any) -> Entry:
    where = f"{info}, data set {name!r}"
    if not isinstance(raw, dict):
        raise UsageError(f"{where}: it is not an object; an entry has at least a file_name.")
    for key, reason in _UNSUPPORTED.items():
        if raw.get(key):
            raise UsageError(f"{where}: {key} {reason}.")
    for key in _UNSUPPORTED_COLUMNS:
        if isinstance(raw.get("columns"), dict) and key in raw["columns"]:
            raise UsageError(f"{where}: the column {key} can't be trained; leave it out to train the text alone.")
    raw = _with_tags(raw)
    _refuse_unknown(where, raw, Entry.__struct_fields__)
    _refuse_unknown(f"{where}, columns", raw.get("columns"), Columns.__struct_fields__)
    _refuse_unknown(f"{where}, tags", raw.get("tags"), Tags.__struct_fields__)
    if raw.get("formatting") not in (None, *get_args(Formatting)):
        near = _nearest(str(raw["formatting"]).lower(), get_args(Formatting))
        known = ", ".join(get_args(Formatting))
        raise UsageError(f"{where}: there is no formatting {raw['formatting']!r}{near}; give one of: {known}.")
    try:
        entry = msgspec.convert(raw, Entry)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}; correct it.") from None
    if bool(entry.file_name) == bool(entry.cloud_file_name):
        raise UsageError(f"{where}: give it one of file_name and cloud_file_name.")
    if entry.tags and entry.formatting is None:
        raise UsageError(f"{where}: tags say how messages are written; give formatting, too: sharegpt or openai.")
    if entry.num_samples is not None and entry.num_samples < 1:
        raise UsageError(f"{where}: num_samples is {entry.num_samples}; give at least 1, or leave it out.")
    columns = entry.columns
    formatting = entry.formatting or "alpaca"
    if columns and columns.messages and entry.formatting is None:
        raise UsageError(f"{where}: columns name messages, and formatting is left out; give it sharegpt or openai.")
    if columns and entry.ranking:
        _check_ranked(where, formatting, columns)
        return entry
    if columns and (columns.chosen or columns.rejected):
        raise UsageError(f'{where}: chosen and rejected are columns of pairs; write "ranking": true, too.')
    if columns and formatting == "alpaca" and not (columns.prompt and (columns.response or columns.tool_calls)):
        raise UsageError(f"{where}: columns must name prompt and response; what it leaves out is not read.")
    if columns and formatting != "alpaca" and not columns.messages:
        raise UsageError(f"{where}: columns must name messages; what it leaves out is not read.")
    return entry


def _with_tags(raw: dict[str, Any]) -> dict[str, Any]:
    """The entry with its tags among its tags: LLaMA-Factory of 2023 had `role` and `content` among the columns."""
    columns = raw.get("columns")
    if not isinstance(columns, dict):
        return raw
    names = {"role": "role_tag", "content": "content_tag"} | {tag: tag for tag in Tags.__struct_fields__}
    moved = {names[key]: value for key, value in columns.items() if key in names}
    rest = {key: value for key, value in columns.items() if key not in names}
    return {**raw, "columns": rest, "tags": {**moved, **(raw.get("tags") or {})}} if moved else raw


def _check_ranked(where: str, formatting: Formatting, columns: Columns) -> None:
    if not (columns.chosen and columns.rejected):
        raise UsageError(f"{where}: columns must name chosen and rejected, for it has ranking.")
    if formatting == "alpaca" and not columns.prompt:
        raise UsageError(f"{where}: columns must name prompt; what it leaves out is not read.")


def _refuse_unknown(where: str, raw: Any, known: Iterable[str]) -> None:
    for key in raw if isinstance(raw, dict) else ():
        if key not in known:
            raise UsageError(f"{where}: there is no key {key!r}{_nearest(key, known)}; the keys: {', '.join(known)}.")


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f", did you mean {near[0]!r}?" if near else ""


def _digest(paths: Sequence[Path], algorithm: str = "sha256") -> str:
    """The digest of the files' bytes, one file after the other; what is unchanged is not read again."""
    try:
        return digest_of_files(paths, algorithm=algorithm, cache=default_cache() / "digests")
    except OSError as error:
        raise DataError(
            f"{error.filename} can't be read: {error.strerror}; repair that, or name another file."
        ) from None
