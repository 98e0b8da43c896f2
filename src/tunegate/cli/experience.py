"""`tunegate experience`: what users disliked, and what follows from it for suites and corpus."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunegate.api.codec import to_json
from tunegate.api.errors import UsageError
from tunegate.cli.feedback import DAY
from tunegate.cli.options import open_store, store_options
from tunegate.cli.review import folder_argument
from tunegate.files import disk_errors_as, replace_file

if TYPE_CHECKING:
    from tunegate.experience.contents import Experience, Period
    from tunegate.store import Store

SAVED = ".tunegate/experience"
_WEEK = timedelta(days=7)

since_option = click.option("--since", type=DAY, help="The first day in UTC; by default a week before --until.")
last_week_option = click.option(
    "--last-week", is_flag=True, help="The last whole week, Monday to Sunday, in place of --since and --until."
)
until_option = click.option(
    "--until", type=DAY, help="The last day; by default yesterday, or today where the log begins today."
)
version_option = click.option("--version", help="Only what this version answered (name, URI or digest).")


@click.group()
def command() -> None:
    """Look at what users disliked, decide what follows from it, and put that into suite and corpus."""


@command.command()
@since_option
@until_option
@last_week_option
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
    last_week: bool,
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

    store = open_store(store_uri, endpoint_url)
    today_alone = not save and _begins_today(store)  # what is kept is of whole days
    experience = _look(_period(since, until, last_week, today_alone), version, store)
    page, body = render(experience).encode(), to_json(experience)
    for path, written in ((html, page), (json_file, body)):
        if path:
            with disk_errors_as(UsageError, path, "name another file."):
                replace_file(path, written)
            click.echo(f"{path}: written.")
    if save:
        name = f"{SAVED}/{experience.period.until}"
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
@last_week_option
@version_option
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="So many answers at most.")
@click.option("--reviewers", type=click.IntRange(1, 20), default=1, show_default=True, help="People for each answer.")
@store_options
def review(
    folder: str,
    since: datetime | None,
    until: datetime | None,
    last_week: bool,
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

    store = open_store(store_uri, endpoint_url)
    period = _period(since, until, last_week, _begins_today(store))
    made = to_review(_look(period, version, store, limit), reviewers)
    open_place(folder, endpoint_url).keep(made)
    click.echo(f"{folder}: {len(made.judged)} to decide on.")
    if not made.judged:
        click.echo("No disliked answer of this period has its texts in the log.")
        return
    click.echo(f"Next: tunegate review serve {folder}")


def _begins_today(store: Store) -> bool:
    """Whether the log has today alone, as after a quickstart."""
    from tunegate.feedback import interactions
    from tunegate.feedback.votes import FeedbackLog

    found = {*interactions.days(store), *FeedbackLog(store).days()}
    return bool(found) and min(found) == _today()


def _today() -> date:
    return datetime.now(UTC).date()


def _period(since: datetime | None, until: datetime | None, last_week: bool, today_alone: bool) -> Period:
    from tunegate.experience.contents import Period

    today = _today()
    if last_week:
        if since or until:
            raise UsageError("--last-week says which days; leave out --since and --until.")
        monday = today - timedelta(days=today.weekday())
        return Period(since=monday - _WEEK, until=monday - timedelta(days=1))
    last = until.date() if until else today - timedelta(days=0 if today_alone else 1)
    first = since.date() if since else last - _WEEK + timedelta(days=1)
    if first > last:
        raise UsageError(f"--since {first} is after --until {last}; name an earlier day.")
    return Period(since=first, until=last)


def _look(period: Period, version: str | None, store: Store, limit: int = 100) -> Experience:
    from tunegate.experience.gather import experience_of
    from tunegate.feedback.history import judged

    damaged = list[str]()
    digest = store.resolve(version).digest if version else None

    def read(begin: date, end: date) -> Any:
        return judged(store, begin, end, digest, damaged)

    experience = experience_of(read, period, limit)
    for told in dict.fromkeys(damaged):
        click.echo(told, err=True)
    return experience
