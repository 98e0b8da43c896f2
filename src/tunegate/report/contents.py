"""What a report says, as values: versions side by side, what fell, and what can't be compared. Pure functions.

The first version is the one that the others are compared with. What is missing, incomplete or asked otherwise is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Literal

from msgspec.structs import replace

from tunegate.api.codec import Document, Resource
from tunegate.api.digest import short
from tunegate.api.errors import UsageError
from tunegate.api.evaluation import Evaluation, Metric
from tunegate.evaluation.paired import Paired, compare_items
from tunegate.report.leaks import Hit
from tunegate.statistics.paired import Difference
from tunegate.statistics.paired import paired as by_question

PEOPLE = "people"  # the settings of what people judged
Kind = Literal["headline", "area", "subject", "other"]


class Version(Resource, frozen=True, kw_only=True):
    """A column. What training left in the manifest is None where that says nothing, or no store was read."""

    letter: str
    name: str
    digest: str
    method: str = ""
    trainable_parameters: int | None = None
    parameters: int | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    loss: float | None = None
    bytes: int | None = None


class Measured(Resource, frozen=True, kw_only=True):
    """How one version was measured on a suite; seconds and tokens are of the last attempt, where it was resumed."""

    letter: str
    settings: str
    items: int
    unanswered: int
    seconds: float
    tokens_read: int | None = None
    tokens_written: int | None = None


class Row(Resource, frozen=True, kw_only=True):
    """One metric, of each version in their order; None where it was not measured."""

    name: str
    title: str
    kind: Kind
    values: tuple[Metric | None, ...]


class Change(Resource, frozen=True, kw_only=True):
    """What changed from the first version to `letter` in a suite, or in an area or subject of it (`part`).

    difference: above 0 is better. low, high: its 95 % interval question by question; None where that can't be told.
    p: of the changed answers (exact McNemar); of a subject times the number of subjects (Bonferroni), since of 52 two
    or three look changed by chance, and so of areas. None where no items can be compared.
    is_shown: p is below 0.05; without items, the intervals have nothing in common.
    """

    suite: str
    part: str = ""
    letter: str
    before: float
    after: float
    difference: float
    low: float | None = None
    high: float | None = None
    n: int
    gained: int | None = None
    lost: int | None = None
    p: float | None = None
    more: int | None = None
    is_shown: bool


class Flips(Resource, frozen=True, kw_only=True):
    """Question by question, from the first version to `letter`."""

    letter: str
    paired: Paired


class SuiteReport(Resource, frozen=True, kw_only=True):
    name: str
    topic: str
    rows: tuple[Row, ...]
    measured: tuple[Measured, ...]
    changes: tuple[Change, ...]
    flips: tuple[Flips, ...]
    notes: tuple[str, ...]


class Table(Resource, frozen=True, kw_only=True):
    """Suites of one topic for choosing a base: a line for each version, a column for each headline and area."""

    topic: str
    columns: tuple[str, ...]
    lines: tuple[tuple[Metric | None, ...], ...]


class Leaks(Resource, frozen=True, kw_only=True):
    """The questions of a suite that stand in a data set; letters: the versions that were trained with it."""

    suite: str
    dataset: str
    digest: str
    letters: tuple[str, ...]
    records: int
    items: int
    hits: tuple[Hit, ...]


class LeakCheck(Resource, frozen=True, kw_only=True):
    """notes: what could not be checked, and why."""

    found: tuple[Leaks, ...] = ()
    notes: tuple[str, ...] = ()


class Report(Document, frozen=True, kw_only=True):
    """regressions: of all suites and subjects, those that are no chance first, then the largest."""

    schema: Literal["tunegate.io/report/v1"] = "tunegate.io/report/v1"
    versions: tuple[Version, ...]
    regressions: tuple[Change, ...]
    suites: tuple[SuiteReport, ...]
    selection: tuple[Table, ...]
    leaks: LeakCheck
    notes: tuple[str, ...] = ()


def lettered(count: int) -> str:
    """The letters of versions in a report. Raises UsageError where there are too many."""
    if count > len(ascii_uppercase):
        raise UsageError(f"A report compares at most {len(ascii_uppercase)} versions; name fewer than {count}.")
    return ascii_uppercase[:count]


def make_report(
    versions: Sequence[Version],
    evaluations: Sequence[Mapping[str, Evaluation]],
    leaks: LeakCheck,
    notes: Sequence[str] = (),
) -> Report:
    """`evaluations`: of each version in their order, by suite."""
    names = sorted({name for measured in evaluations for name in measured})
    suites = tuple(_suite(name, versions, [measured.get(name) for measured in evaluations]) for name in names)
    fallen = [change for suite in suites for change in suite.changes if change.difference < 0]
    return Report(
        versions=tuple(versions),
        regressions=tuple(sorted(fallen, key=lambda change: (not change.is_shown, change.difference))),
        suites=suites,
        selection=tuple(_tables(suites)),
        leaks=leaks,
        notes=tuple(notes),
    )


def _suite(name: str, versions: Sequence[Version], results: Sequence[Evaluation | None]) -> SuiteReport:
    there = [(version, result) for version, result in zip(versions, results, strict=True) if result]
    flips: list[Flips] = []
    changes: list[Change] = []
    first = results[0]
    for version, result in zip(versions[1:], results[1:], strict=True):
        if first and result and comparable(first, result):
            paired = compare_items(first, result)
            if paired and paired.flips:
                flips.append(Flips(letter=version.letter, paired=paired))
            changes += _changes(version.letter, first, result, paired)
    return SuiteReport(
        name=name,
        topic=topic_of(there[0][1]),
        rows=tuple(_rows(results)),
        measured=tuple(_measured(version.letter, result) for version, result in there),
        changes=tuple(changes),
        flips=tuple(flips),
        notes=tuple(_notes(name, versions, results)),
    )


def comparable(first: Evaluation, other: Evaluation) -> bool:
    """Whether both were asked the same, and computed with numbers of one type, where that is known."""
    same = first.suite_digest == other.suite_digest and first.prompts_digest == other.prompts_digest
    types = {result.settings.split("-")[0] for result in (first, other)} - {"", "url", PEOPLE}
    return same and len(types) < 2


def topic_of(result: Evaluation) -> str:
    """The table of base selection that a suite stands in."""
    return result.topic or (PEOPLE if result.settings == PEOPLE else "other")


def kind_of(name: str, place: int) -> Kind:
    """What a metric is of, by its name and its place among the metrics of its evaluation."""
    if place == 0:
        return "headline"
    if "/" in name and not name.startswith(("agreement/", "contradicted/", "longer_wins/")):  # of reviewers
        return "subject"
    is_area = name.startswith("accuracy_") and name not in ("accuracy_macro", "accuracy_micro")
    return "area" if is_area else "other"


def _rows(results: Sequence[Evaluation | None]) -> list[Row]:
    kinds: dict[str, Kind] = {}
    for result in filter(None, results):
        for place, metric in enumerate(result.metrics):
            kinds.setdefault(metric.name, kind_of(metric.name, place))
    order = ("headline", "area", "subject", "other")
    rows = [
        Row(
            name=name,
            title=_title(name, kind),
            kind=kind,
            values=tuple(result.metric(name) if result else None for result in results),
        )
        for name, kind in kinds.items()
    ]
    return sorted(rows, key=lambda row: order.index(row.kind))


def _title(name: str, kind: Kind) -> str:
    shown = {"subject": name.partition("/")[2], "area": name.removeprefix("accuracy_")}.get(kind, name)
    return shown.replace("_", " ")


def _measured(letter: str, result: Evaluation) -> Measured:
    return Measured(
        letter=letter,
        settings=result.settings,
        items=len(result.records),
        unanswered=_unanswered(result),
        seconds=result.seconds,
        tokens_read=result.tokens_read,
        tokens_written=result.tokens_written,
    )


def _unanswered(result: Evaluation) -> int:
    """Answers that name no letter, or several, or whose numbers were not finite."""
    return sum(record.scores.get("answered") == 0 for record in result.records)


def _changes(letter: str, first: Evaluation, other: Evaluation, paired: Paired | None) -> list[Change]:
    """Of the suite, then of each of its areas and subjects."""
    if not (first.metrics and other.metrics):
        return []
    headline = first.metrics[0].name
    found = [_change(letter, first, other, headline, "", paired, 1)]
    for kind in ("area", "subject"):
        names = [metric.name for place, metric in enumerate(first.metrics) if kind_of(metric.name, place) == kind]
        for name in names:
            within = compare_items(*(_part(result, _subjects(first, name)) for result in (first, other)))
            part = name.partition("/")[2] or name.removeprefix("accuracy_")
            found.append(_change(letter, first, other, name, part, within, len(names)))
    return [change for change in found if change]


def _subjects(result: Evaluation, name: str) -> Sequence[str]:
    """What a metric is of: a subject that it names, or those of its area; none where that was not kept."""
    average = result.averages.get(name)
    return average.subjects if average else [name.partition("/")[2]]


def _part(result: Evaluation, subjects: Sequence[str]) -> Evaluation:
    """With the records of these subjects, whose ids begin with them."""
    there = tuple(record for record in result.records if record.id.partition("/")[0] in subjects)
    return replace(result, records=there)


def _change(
    letter: str, first: Evaluation, other: Evaluation, name: str, part: str, paired: Paired | None, parts: int
) -> Change | None:
    before, after = first.metric(name), other.metric(name)
    if not before or not after or before.value is None or after.value is None:
        return None
    sign = 1 if before.higher_is_better else -1
    difference = sign * (after.value - before.value)
    p = min(1.0, paired.p * parts) if paired else None
    pairs = by_question(first, other, name)
    low, high = sorted((sign * pairs.low, sign * pairs.high)) if isinstance(pairs, Difference) else (None, None)
    return Change(
        suite=first.suite,
        part=part,
        letter=letter,
        before=before.value,
        after=after.value,
        difference=difference,
        low=low,
        high=high,
        n=after.n,
        gained=paired.gained if paired else None,
        lost=paired.lost if paired else None,
        p=p,
        more=paired.more if paired else None,
        is_shown=_are_apart(before, after) if p is None else p < 0.05,
    )


def _are_apart(one: Metric, other: Metric) -> bool:
    """Whether their intervals have nothing in common."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.high < other.low or other.high < one.low


def _notes(name: str, versions: Sequence[Version], results: Sequence[Evaluation | None]) -> list[str]:
    """What is missing, and why versions are not compared."""
    there = [(version.letter, result) for version, result in zip(versions, results, strict=True) if result]
    (basis, first), notes = there[0], []
    missing = [version for version, result in zip(versions, results, strict=True) if not result]
    for version in missing:
        evaluate = f"run: tunegate evaluate {version.name} --suite {name}"
        remedy = "nobody judged its answers." if first.settings == PEOPLE else evaluate
        notes.append(f"{version.letter} has no result; {remedy}")
    for letter, result in there:
        if result.suite_digest != first.suite_digest:
            counts = f"{len(first.records)} and {len(result.records)}"
            asked = f"{counts} of {short(first.suite_digest)} and {short(result.suite_digest)}"
            notes.append(f"{basis} and {letter} were asked other questions ({asked}), so they are not compared.")
        elif result.prompts_digest != first.prompts_digest:
            notes.append(f"{basis} and {letter} were asked with other prompts, so they are not compared.")
        elif not comparable(first, result):
            types = f"{first.settings} and {result.settings}"
            notes.append(f"{basis} and {letter} were computed in other ways ({types}), so they are not compared.")
        if result.metrics and result.metrics[0].n == 0:
            notes.append(f"The questions that {letter} was asked have no labels, so nothing is scored.")
        if unanswered := _unanswered(result):
            lost = f"{letter} gave no usable answer to {unanswered} of {len(result.records)} questions"
            notes.append(f"{lost}; they count as wrong and are listed in the JSON of `tunegate evaluate`.")
    return notes


def _tables(suites: Sequence[SuiteReport]) -> list[Table]:
    """One for each topic, in alphabetical order, people's results last."""
    topics = sorted({suite.topic for suite in suites}, key=lambda topic: (topic in (PEOPLE, "other"), topic))
    tables = []
    for topic in topics:
        rows = [
            (suite.name, row)
            for suite in suites
            if suite.topic == topic
            for row in suite.rows
            if row.kind in ("headline", "area")
        ]
        columns = tuple(name if row.kind == "headline" else row.title for name, row in rows)
        lines = tuple(zip(*(row.values for _, row in rows), strict=True))
        tables.append(Table(topic=topic, columns=columns, lines=lines))
    return tables
