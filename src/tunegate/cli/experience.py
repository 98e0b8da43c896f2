"""`tunegate experience`: what users disliked, and what follows from it for suites and corpus."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from tunegate.api.codec import to_json
from tunegate.api.errors import UsageError
from tunegate.cli.feedback import DAY
from tunegate.cli.options import open_store, store_options
from tunegate.cli.review import endpoint_option, folder_argument
from tunegate.files import disk_errors_as, replace_file

if TYPE_CHECKING:
    from tunegate.experience.contents import Experience

SAVED = ".tunegate/experience"
_WEEK = timedelta(days=7)

since_option = click.option("--since", type=DAY, help="The first day in UTC; by default a week before --until.")
until_option = click.option("--until", type=DAY, help="The last day; by default yesterday.")
version_option = click.option("--version", help="Only what this version answered (name, URI or digest).")


@click.group()
def command() -> None:
    """Look at what users disliked, decide what follows from it, and put that into suite and corpus."""


@command.command()
@since_option
@until_option
@version_option
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="Where to write the page: one file, no network."
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it as JSON.")
@click.option("--save", is_flag=True, help=f"Keep both in the store, under {SAVED}/, by the last day.")
@store_options
def report(
    since: datetime | None,
    until: datetime | None,
    version: str | None,
    html: Path | None,
    json_file: Path | None,
    save: bool,
    store_uri: str,
    endpoint_url: str | None,
) -> None:
    """Say what users disliked: by topic, prompt, source, tool and version, beside the same time before, with the
    conversations that say most. Texts come from the log of answers, which redacts them."""
    from tunegate.experience.page import render, summary

    experience = _look(since, until, version, store_uri, endpoint_url)
    page, body = render(experience).encode(), to_json(experience)
    for path, written in ((html, page), (json_file, body)):
        if path:
            with disk_errors_as(UsageError, path, "name another file."):
                replace_file(path, written)
            click.echo(f"{path}: written.")
    if save:
        store, name = open_store(store_uri, endpoint_url), f"{SAVED}/{experience.period.until}"
        store.put(f"{name}.json", body)
        store.put(f"{name}.html", page)
        click.echo(f"{name}.html and .json: in the store.")
    for line in (*summary(experience), *experience.notes):
        click.echo(line)
    if not (html or json_file or save):
        click.echo("Give --html FILE for the page, --json FILE for all of it, --save to keep both in the store.")


@command.command()
@folder_argument
@since_option
@until_option
@version_option
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="So many answers at most.")
@click.option("--reviewers", type=click.IntRange(1, 20), default=1, show_default=True, help="People for each answer.")
@store_options
def review(
    folder: str,
    since: datetime | None,
    until: datetime | None,
    version: str | None,
    limit: int,
    reviewers: int,
    store_uri: str,
    endpoint_url: str | None,
) -> None:
    """Make a review in FOLDER of disliked answers, topics in turn: people decide on the review page which of them
    every version is to be asked from now on, and what is to be learned instead."""
    from tunegate.experience.proposals import to_review
    from tunegate.review.places import open_place

    made = to_review(_look(since, until, version, store_uri, endpoint_url, limit), reviewers)
    open_place(folder, endpoint_url).keep(made)
    click.echo(f"{folder}: {len(made.judged)} to decide on.")
    click.echo(f"Next: tunegate review serve {folder}")


@command.command()
@folder_argument
@click.option(
    "--suite",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of a business suite whose answers people judge: the questions are added to it.",
)
@click.option(
    "--corpus", type=click.Path(dir_okay=False, path_type=Path), help="JSON lines to train on: dialogues are added."
)
@click.option(
    "--pairs", type=click.Path(dir_okay=False, path_type=Path), help="JSON lines of preferences: chosen and rejected."
)
@endpoint_option
def take(folder: str, suite: Path | None, corpus: Path | None, pairs: Path | None, endpoint_url: str | None) -> None:
    """Put what reviewers in FOLDER said yes to into a suite, a corpus and pairs. What is there already stays as it is,
    so the same command again adds only what was decided since."""
    from tunegate.evaluation.business import QUESTIONS
    from tunegate.experience.proposals import take as take_marks
    from tunegate.review.marks import latest
    from tunegate.review.places import open_place

    if not (suite or corpus or pairs):
        raise UsageError("Nothing is taken unless you say where to: give --suite, --corpus, --pairs or several.")
    place = open_place(folder, endpoint_url)
    taken = take_marks(place.review(), latest(place.lines("marks")))
    if suite:
        _check_judged(suite)
        questions = [msgspec.to_builtins(question) for question in taken.questions]
        _add(suite / QUESTIONS, [{key: value for key, value in each.items() if value} for each in questions])
    if corpus:
        _add(corpus, taken.rows)
    if pairs:
        _add(pairs, taken.pairs)
    if taken.unanswered:
        click.echo(f"{len(taken.unanswered)} are to be learned and nobody wrote how: {', '.join(taken.unanswered)}.")
    if taken.undecided:
        click.echo(f"{taken.undecided} are not decided yet; go on with: tunegate review serve {folder}")


def _look(
    since: datetime | None,
    until: datetime | None,
    version: str | None,
    store_uri: str,
    endpoint_url: str | None,
    limit: int = 100,
) -> Experience:
    from tunegate.experience.contents import Period
    from tunegate.experience.looking import look_at
    from tunegate.feedback.history import judged

    last = until.date() if until else datetime.now(UTC).date() - timedelta(days=1)
    first = since.date() if since else last - _WEEK + timedelta(days=1)
    if first > last:
        raise UsageError(f"--since {first} is after --until {last}; name an earlier day.")
    store, damaged = open_store(store_uri, endpoint_url), list[str]()
    digest = store.resolve(version).digest if version else None

    def read(begin: date, end: date) -> Any:
        return judged(store, begin, end, digest, damaged)

    experience = look_at(read, Period(since=first, until=last), limit)
    for key in dict.fromkeys(damaged):
        click.echo(f"{key} in the store is cut; what is whole of it was counted.", err=True)
    return experience


def _check_judged(suite: Path) -> None:
    """Questions without rules belong where people judge the answers."""
    from tunegate.evaluation import load_suite
    from tunegate.evaluation.business import BusinessSuite

    loaded = load_suite(str(suite))
    if not isinstance(loaded, BusinessSuite) or not loaded.criteria:
        raise UsageError(
            f"{suite} has no criteria in suite.yaml, so nobody would judge answers to questions without rules; name a "
            "business suite with criteria."
        )


def _add(path: Path, found: Sequence[dict[str, Any]]) -> None:
    """Add the lines that the file lacks, by id; it is written again as a whole, or not at all."""
    from tunegate.experience.proposals import new_lines

    with disk_errors_as(UsageError, path, "name another file."):
        body = path.read_bytes() if path.exists() else b""
        try:
            kept = [msgspec.json.decode(line, type=dict[str, Any]) for line in body.splitlines() if line.strip()]
        except msgspec.DecodeError as error:
            raise UsageError(f"{path} is not a file of JSON lines ({error}); mend it, or name another file.") from None
        added = new_lines(kept, found)
        lines = b"".join(msgspec.json.encode(each) + b"\n" for each in added)
        replace_file(path, body + (b"\n" if body and not body.endswith(b"\n") else b"") + lines)
    click.echo(f"{path}: {len(added)} added, {len(found) - len(added)} were there.")
