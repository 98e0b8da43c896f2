"""What a report is made of: manifests and evaluations of a store, evaluations in files, data sets to look through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from tunegate.api.codec import from_json
from tunegate.api.digest import short
from tunegate.api.errors import DataError, NotFoundError, UsageError
from tunegate.api.evaluation import Evaluation
from tunegate.api.versions import Dataset, Manifest
from tunegate.evaluation.comparison import compared
from tunegate.report.contents import LeakCheck, Leaks, Report, Version, lettered, make_report
from tunegate.report.leaks import find_leaks, question_of
from tunegate.store import Store
from tunegate.store.evaluations import of_version
from tunegate.store.files import is_uri
from tunegate.training.data.datasets import INFO, DataSet, find_datasets
from tunegate.training.data.formats import dialogue_of
from tunegate.training.data.readers import RecordError, read_records

_SCHEMA = "tunegate.io/evaluation/v1"


@dataclass(frozen=True)
class Known:
    """What is known of one version. lineage: its manifest and those of the versions that it was made from."""

    name: str
    digest: str
    evaluations: Mapping[str, Evaluation]
    lineage: tuple[Manifest, ...] = ()


def report_of(
    names: Sequence[str], store: Store | None, results: Sequence[Path], data: Sequence[str], endpoint_url: str | None
) -> Report:
    """The report on the named versions, the first being what the others are compared with.

    results: files and folders with evaluations, besides those of the store; without a store, `names` may be empty: all
    versions in them. data: data sets to look for the suites' questions in, by path or URI.
    Raises UsageError for a version or file that is not there, DataError for a data set that can't be read.
    """
    filed = [evaluation for path in results for evaluation in read_results(path)]
    known = [_known(name, store, filed) for name in names or dict.fromkeys(found.version for found in filed)]
    by_digest = {each.digest: each for each in known}  # a version that was named twice is one column
    if not any(each.evaluations for each in by_digest.values()):
        raise UsageError("None of these versions has a result; run `tunegate evaluate` first.")
    versions = [_version(letter, each) for letter, each in zip(lettered(len(by_digest)), by_digest.values())]  # noqa: B905
    evaluations = [each.evaluations for each in by_digest.values()]
    return make_report(versions, evaluations, _check_leaks(versions, list(by_digest.values()), data, endpoint_url))


def read_results(path: Path) -> list[Evaluation]:
    """The evaluations in a file that `tunegate evaluate --output` wrote, or in every JSON file of a folder.

    In a folder, other JSON is left out. Raises UsageError for what is not there, or a file with none.
    """
    if path.is_dir():
        return [found for file in sorted(path.rglob("*.json")) for found in _read(file)]
    if not path.is_file():
        raise UsageError(f"There is no {path}; name what `tunegate evaluate --output` wrote.")
    if not (found := _read(path)):
        raise UsageError(f"{path} holds no evaluation; name what `tunegate evaluate --output` wrote.")
    return found


def _read(path: Path) -> list[Evaluation]:
    try:
        plain = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    listed = plain if isinstance(plain, list) else [plain]
    texts = [msgspec.json.encode(each) for each in listed if isinstance(each, dict) and each.get("schema") == _SCHEMA]
    return [from_json(text, Evaluation, str(path)) for text in texts]


def _known(name: str, store: Store | None, filed: Sequence[Evaluation]) -> Known:
    """By name, or by the beginning of its digest where there is no store to ask."""
    manifest = _manifest(store, name) if store else None
    if manifest is None:
        mine = [found for found in filed if name in (found.version, found.digest, short(found.digest))]
        if not mine:
            where = "the store or the files" if store else "the files of --results; name a --store, too"
            raise UsageError(f"There is no version {name} in {where}.")
        return Known(mine[0].version, mine[0].digest, _latest(mine))
    assert store is not None
    mine = [found for found in filed if found.digest == manifest.digest]
    lineage = tuple(_lineage(store, manifest))
    return Known(manifest.name, manifest.digest, _latest([*of_version(store, manifest.digest), *mine]), lineage)


def _manifest(store: Store, name: str) -> Manifest | None:
    try:
        return store.manifest(name)
    except NotFoundError:
        return None


def _latest(evaluations: Sequence[Evaluation]) -> dict[str, Evaluation]:
    """Of each suite the one that was made last."""
    return {found.suite: found for found in sorted(evaluations, key=lambda found: (found.suite, found.started))}


def _lineage(store: Store, manifest: Manifest | None) -> Iterator[Manifest]:
    """The version, what it was merged, quantized or tuned from, and so on, as far as the store has them."""
    seen: set[str] = set()
    while manifest and manifest.digest not in seen:
        yield manifest
        seen.add(manifest.digest)
        parent = manifest.producer.derived or manifest.base
        manifest = _manifest(store, parent.digest) if parent else None


def _version(letter: str, known: Known) -> Version:
    if not known.lineage:
        return Version(letter=letter, name=known.name, digest=known.digest)
    facts = compared(known.lineage[0], ())
    return Version(
        letter=letter,
        name=known.name,
        digest=known.digest,
        method=facts.method,
        trainable_parameters=facts.trainable_parameters,
        parameters=facts.parameters,
        seconds=facts.seconds,
        peak_memory_bytes=facts.peak_memory_bytes,
        loss=facts.loss,
        bytes=facts.bytes,
    )


def _check_leaks(
    versions: Sequence[Version], known: Sequence[Known], data: Sequence[str], endpoint_url: str | None
) -> LeakCheck:
    """Look for every suite's questions in every data set that is there; say which are not."""
    here = [found for path in data for found in _datasets(path, endpoint_url)]
    used = {version.letter: _trained_with(each) for version, each in zip(versions, known, strict=True)}
    suites = {name: result for each in known for name, result in each.evaluations.items() if result.records}
    found = []
    for dataset in here:
        letters = tuple(letter for letter, names in used.items() if dataset.digest in [named.digest for named in names])
        for name, result in sorted(suites.items()):
            questions = {record.id: question_of(record.prompt) for record in result.records}
            counted = _Counted(dataset)
            hits = find_leaks(questions, counted)
            found.append(
                Leaks(
                    suite=name,
                    dataset=dataset.name,
                    digest=dataset.digest,
                    letters=letters,
                    records=counted.records,
                    items=len(questions),
                    hits=tuple(hits),
                )
            )
    return LeakCheck(found=tuple(found), notes=tuple(_unchecked(used, known, {dataset.digest for dataset in here})))


def _datasets(path: str, endpoint_url: str | None) -> Sequence[DataSet]:
    """A file or folder of records; or all that a dataset_info.json in a folder names."""
    info = Path(path) / INFO
    if not (is_uri(path) or Path(path).exists()):
        raise UsageError(f"There is no data set {path}; give --data a file, a folder, or an s3:// or oss:// URI.")
    if not info.is_file():
        # By its file's name: a report carries no path of this machine.
        return [
            replace(found, name=found.name.rstrip("/").rpartition("/")[2])
            for found in find_datasets("", [path if "/" in path else f"./{path}"], endpoint_url)
        ]
    try:
        names = list(msgspec.json.decode(info.read_bytes(), type=dict[str, object]))
    except msgspec.DecodeError as error:
        raise DataError(f"{info} is not a JSON object: {error}; correct it there.") from None
    return find_datasets(path, names, endpoint_url)


class _Counted:
    """The turns of a data set's dialogues, which are counted as they are read."""

    def __init__(self, dataset: DataSet) -> None:
        self._dataset, self.records = dataset, 0

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        for path in self._dataset.files:
            with path.open("rb") as stream:
                for line, record in read_records(path, stream):
                    try:
                        dialogue = dialogue_of(record, self._dataset.layout)
                    except RecordError:
                        continue  # it was not trained on either
                    self.records += 1
                    yield line, [message.content for message in dialogue.messages]


def _trained_with(known: Known) -> list[Dataset]:
    return [dataset for manifest in known.lineage for dataset in manifest.producer.datasets]


def _unchecked(used: Mapping[str, Sequence[Dataset]], known: Sequence[Known], here: set[str]) -> list[str]:
    """What could not be looked through, for each version."""
    notes = []
    for letter, each in zip(used, known, strict=True):
        for dataset in used[letter]:
            if dataset.digest not in here:
                which = f"{dataset.name} ({short(dataset.digest)})"
                notes.append(f"{letter} was trained with {which}, which was not looked through; give it with --data.")
        if not each.lineage:
            notes.append(f"What {letter} was trained with is not known: its manifest is not here.")
        elif not used[letter]:
            notes.append(f"The manifest of {letter} names no training data.")
        else:
            notes.append(f"What the first base model of {letter} was trained with is not known.")
    return notes
