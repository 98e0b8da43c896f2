"""Which files of a folder are a data set: all of them, or one split of one configuration, as hubs lay folders out.

A hub says it in the first lines of README.md, or by names like `data/train-00000-of-00003.parquet` and `test.jsonl`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunegate.api.errors import DataError
from tunegate.training.data.readers import KINDS, kind_of

# What lies beside data, on hubs and where the package datasets saves.
_BESIDE = ("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
_KEYWORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_HEAD = re.compile(rb"---\r?\n(.*?)\r?\n---", re.DOTALL)
Splits = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class Part:
    """The files of a data set, in the order of their names; `told`: what was chosen of several, else nothing."""

    files: tuple[Path, ...]
    told: str = ""


def part_of(path: Path, asks: str, *, subset: str | None = None, split: str | None = None) -> Part:
    """The file, or the folder's files of the configuration `subset` and the split, `train` where there is a choice.

    `asks`: the beginning of a sentence about `path`. Raises DataError for what is not there, or can't be chosen.
    """
    if path.is_dir():
        configured = _configured(path, asks, subset)
        if configured is None and subset:
            raise DataError(f"{asks} {path}, whose README.md has no configuration {subset!r}; leave out subset.")
        splits = _by_name(path) if configured is None else configured
        if split not in (None, "train") and not splits:
            raise DataError(f"{asks} {path}, which has no splits; leave out split.")
        found = _chosen(splits, path, asks, split) if splits else Part(tuple(_all_files(path)))
    elif subset or split not in (None, "train"):
        raise DataError(f"{asks} {path}, which is a file and has no splits; leave out subset and split.")
    else:
        found = Part((path,))
    _check(found.files, path, asks)
    return found


def _chosen(splits: Splits, path: Path, asks: str, split: str | None) -> Part:
    name = split or ("train" if "train" in splits or len(splits) > 1 else next(iter(splits)))
    if name not in splits:
        raise DataError(
            f"{asks} {path}, which has no split {name!r}; write one of its own in dataset_info.json, "
            f'as "split": "{next(iter(splits))}"; it has: {", ".join(splits)}.'
        )
    left_out = [other for other in splits if other != name]
    told = f"split {name}" + (f", not {', '.join(left_out)}" if left_out else "")
    return Part(tuple(splits[name]), told)


def _configured(path: Path, asks: str, subset: str | None) -> Splits | None:
    """The splits of a configuration in README.md; None where it names none."""
    configurations = _configurations(path / "README.md")
    if not configurations:
        return None
    names = [str(each.get("config_name", "default")) for each in configurations]
    by_default = [name for name, each in zip(names, configurations, strict=True) if each.get("default")]
    usual = by_default or [name for name in names if name == "default" or len(names) == 1]
    name = subset or (usual[0] if usual else "")
    if name not in names:
        raise DataError(
            f"{asks} {path}, where one of several configurations is to be named in dataset_info.json, "
            f'as "subset": "{names[0]}"; it has: {", ".join(names)}.'
        )
    configuration = configurations[names.index(name)]
    folder = path / str(configuration.get("data_dir", "."))
    if (wanted := configuration.get("data_files")) is None:
        return _by_name(folder) or {"train": _all_files(folder)}
    splits: dict[str, list[Path]] = {}
    for each in wanted if isinstance(wanted, list) else [wanted]:
        split, patterns = (each.get("split", "train"), each["path"]) if isinstance(each, dict) else ("train", each)
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            splits.setdefault(split, []).extend(_matching(folder, pattern))
    return splits


def _configurations(readme: Path) -> list[dict[str, Any]]:
    head = _HEAD.match(readme.read_bytes()) if readme.is_file() else None
    try:
        said = yaml.safe_load(head[1]) if head else None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise DataError(f"The first lines of {readme} are no YAML; repair them, or take that file away.") from None
    found = said.get("configs") if isinstance(said, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The files that a pattern of README.md means, which may lie on a hub."""
    is_here = "://" not in pattern and not pattern.startswith("/") and ".." not in pattern
    files = sorted(file for file in folder.glob(pattern) if file.is_file()) if is_here else []
    if not files:
        raise DataError(f"README.md in {folder} names {pattern}, and there is no such file; download it to there.")
    return files


def _by_name(path: Path) -> Splits:
    """The splits that names of files and folders say; empty where none says one."""
    files = _all_files(path)
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file.relative_to(path)), []).append(file)
    if "" in splits and len(splits) > 1:
        others = next(found[0] for split, found in splits.items() if split)
        raise DataError(
            f"{splits[''][0]} is in no split, and {others} is by its name; put them into folders of their own, "
            "or give them names of one kind."
        )
    return {} if "" in splits else splits


def _split_of(file: Path) -> str:
    stem = file.name.split(".")[0]
    shard = _SHARD.fullmatch(stem)
    if shard and shard["split"] != "data":
        return shard["split"]
    for name in (*file.parts[:-1], stem):
        for word in re.split(r"[-_ 0-9]+", name.lower()):
            if word in _KEYWORDS:
                return _KEYWORDS[word]
    return ""


def _all_files(path: Path) -> list[Path]:
    """What is hidden, beside data or prose about it is none."""
    found = sorted(file for file in path.rglob("*") if file.is_file())
    return [
        file
        for file in found
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.name not in _BESIDE
        and not file.name.upper().startswith(("README", "LICENSE"))
    ]


def _check(files: Sequence[Path], path: Path, asks: str) -> None:
    """Raise DataError for a file that is not there, can't be read, or is one of several of which some are missing."""
    if not files or not all(file.is_file() for file in files):
        raise DataError(f"{asks} {path}, which is no file; correct the name, or put the file there.")
    if wrong := [file for file in files if kind_of(file) is None]:
        raise DataError(f"{wrong[0]} is not one of the kinds that can be read: {KINDS}.")
    there = {file.name for file in files}
    for file in files if path.is_dir() else ():
        shard = _SHARD.match(file.name)
        if shard and (missing := _missing(shard, there)):
            raise DataError(f"{missing} is missing beside {file}; download it, too.")


def _missing(shard: re.Match[str], there: set[str]) -> str | None:
    """The next shard after this one, where it is not there."""
    number, count = int(shard["number"]), int(shard["count"])
    after = f"{shard['split']}-{(number + 1) % count:05}-of-{shard['count']}{shard.string[shard.end() :]}"
    return None if after in there else after
