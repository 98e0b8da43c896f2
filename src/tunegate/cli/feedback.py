"""`tunegate feedback`: send verdicts, list and export what was answered and said, and delete what is old."""

from __future__ import annotations

import http.client
import json
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from tunegate.api.codec import to_json
from tunegate.api.digest import short
from tunegate.api.errors import FeedbackError, ForgedIdError, UsageError
from tunegate.api.feedback import Feedback, FeedbackRecord
from tunegate.cli.options import json_option, open_store, print_table, store_options
from tunegate.files import disk_errors_as
from tunegate.processes import open_url

DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def command() -> None:
    """Send, list, export and delete what users say of answers."""


@command.command()
@click.argument("response_id")
@click.argument("verdict", type=click.Choice(["up", "down"]))
@click.option("--rating", type=click.IntRange(1, 5), help="From 1, poor, to 5.")
@click.option("--tag", "tags", multiple=True, help="A word on what was good or bad; give it again for more.")
@click.option("--comment", help="What you think of the answer.")
@click.option("--correction", help="What the answer should have been.")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where the model is served.")
def send(url: str, **given: Any) -> None:
    """Say that the answer with RESPONSE_ID (its `id`) was good (up) or bad (down).

    Said again, it amends the first word: for ten minutes with another verdict, at any time with more to say.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url {url} is not a URL; write it as http://HOST:PORT.")
    try:
        feedback = msgspec.convert(given, Feedback)
    except msgspec.ValidationError as error:
        raise UsageError(f"This feedback can't be sent: {error}.") from None
    target = f"{url.rstrip('/').removesuffix('/v1')}/v1/feedback"
    body = msgspec.json.encode(feedback)
    request = urllib.request.Request(target, body, {"content-type": "application/json"})
    try:
        with open_url(request, seconds=30) as reply:
            status = json.load(reply)["status"]
    except urllib.error.HTTPError as error:
        raise _refusal(error.code, error.read()) from None
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise FeedbackError(f"{target} can't be reached ({error}); start the server or give its --url.") from None
    said = {
        "repeat": "This was said before; nothing changed.",
        "amended": "Accepted, in place of what was said before.",
    }
    click.echo(said.get(status, "Accepted."))


@command.command("list")
@click.argument("version")
@json_option
@store_options
def list_(version: str, as_json: bool, store_uri: str, endpoint_url: str | None) -> None:
    """List the feedback on VERSION (name, URI or digest), oldest first."""
    from tunegate.feedback import FeedbackLog

    store = open_store(store_uri, endpoint_url)
    found = store.resolve(version)
    records = FeedbackLog(store).list(found.digest)
    if as_json:
        click.echo(to_json(records), nl=False)
        return
    up = sum(record.feedback.verdict == "up" for record in records)
    title = f"{found.name} ({short(found.digest)}): {up} up, {len(records) - up} down"
    print_table(title, ("answered", "verdict", "rating", "tags", "comment"), [_row(record) for record in records])


@command.command()
@click.argument("key")
@store_options
def mend(key: str, store_uri: str, endpoint_url: str | None) -> None:
    """Write the segment of votes at KEY, of which a part is gone, again with the votes that are whole."""
    from tunegate.feedback import FeedbackLog

    kept = FeedbackLog(open_store(store_uri, endpoint_url)).mend(key)
    click.echo(f"{kept} votes are whole and stay.")


@command.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "parquet", "opentelemetry", "langfuse"]),
    default="jsonl",
    show_default=True,
    help="jsonl: all that is kept. opentelemetry: OTLP's JSON, by the conventions for GenAI. langfuse: scores.",
)
@click.option("--version", help="Only what this version answered (name, URI or digest).")
@click.option("--since", type=DAY, help="The first day of the answers, in UTC, such as 2026-03-04.")
@click.option("--until", type=DAY, help="The last day of the answers.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; without it, standard output. Needed for Parquet.",
)
@store_options
def export(
    form: str,
    version: str | None,
    since: datetime | None,
    until: datetime | None,
    output: Path | None,
    store_uri: str,
    endpoint_url: str | None,
) -> None:
    """Write answers with what was said of them, in a form that other tools read."""
    from tunegate.feedback.export import FORMATS, write_parquet
    from tunegate.feedback.history import judged

    if form == "parquet" and output is None:
        raise UsageError("A Parquet file can't be written to standard output; give it a name with --output.")
    store, damaged = open_store(store_uri, endpoint_url), list[str]()
    digest = store.resolve(version).digest if version else None
    found = judged(store, since and since.date(), until and until.date(), digest, damaged)
    with disk_errors_as(UsageError, output or Path("-"), "choose another --output."):
        if form == "parquet" and output:
            count = write_parquet(found, output)
        else:
            lines = (line for each in found for line in FORMATS[form](each))
            with output.open("wb") if output else nullcontext(sys.stdout.buffer) as file:
                count = sum(file.write(line + b"\n") > 0 for line in lines)
    click.echo(f"{count} written.", err=True)
    for told in damaged:
        click.echo(told, err=True)


@command.command()
@click.option("--answers-days", type=click.IntRange(0), help="Delete answers older than so many days.")
@click.option("--votes-days", type=click.IntRange(0), help="Delete votes on answers older than so many days.")
@click.option("--dry-run", is_flag=True, help="Only say how much it is.")
@store_options
def expire(
    answers_days: int | None, votes_days: int | None, dry_run: bool, store_uri: str, endpoint_url: str | None
) -> None:
    """Delete the days of the logs that are older than so many days. For a CronJob: it may run as often as you like."""
    from tunegate.feedback.retention import expired

    if answers_days is None and votes_days is None:
        raise UsageError("Nothing is deleted unless you say what: give --answers-days, --votes-days or both.")
    store = open_store(store_uri, endpoint_url)
    keys = [*expired(store, datetime.now(UTC).date(), answers=answers_days, votes_kept=votes_days)]
    if not dry_run:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(store.delete, keys))
    click.echo(f"{len(keys)} objects {'would be deleted' if dry_run else 'were deleted'}.")


def _row(record: FeedbackRecord) -> tuple[str, ...]:
    from rich.markup import escape

    feedback = record.feedback
    answered = record.answered.strftime("%Y-%m-%d %H:%M:%S")
    texts = (", ".join(feedback.tags), feedback.comment or "")
    return (answered, feedback.verdict, str(feedback.rating or ""), *(escape(text) for text in texts))


def _refusal(status: int, body: bytes) -> FeedbackError:
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"The server answered with status {status}; check --url."
    return ForgedIdError(message) if status == 403 else FeedbackError(message)
