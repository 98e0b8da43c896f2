"""`tunegate feedback`: send a verdict on an answer, and list what was said of a version."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import click
import msgspec

from tunegate.api.codec import to_json
from tunegate.api.digest import short
from tunegate.api.errors import FeedbackError, ForgedIdError, UsageError
from tunegate.api.feedback import Feedback, FeedbackRecord
from tunegate.cli.options import json_option, open_store, print_table, store_options
from tunegate.processes import open_url


@click.group()
def command() -> None:
    """Send and list what users say of answers."""


@command.command()
@click.argument("response_id")
@click.argument("verdict", type=click.Choice(["up", "down"]))
@click.option("--rating", type=click.IntRange(1, 5), help="From 1, poor, to 5.")
@click.option("--tag", "tags", multiple=True, help="A word on what was good or bad; give it again for more.")
@click.option("--comment", help="What you think of the answer.")
@click.option("--correction", help="What the answer should have been.")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where the model is served.")
def send(url: str, **given: Any) -> None:
    """Say that the answer with RESPONSE_ID (its `id`) was good (up) or bad (down). Each answer is judged once."""
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
            is_repeat = json.load(reply)["status"] == "repeat"
    except urllib.error.HTTPError as error:
        raise _refusal(error.code, error.read()) from None
    except (OSError, ValueError, KeyError) as error:
        raise FeedbackError(f"{target} can't be reached ({error}); start the server or give its --url.") from None
    click.echo("This answer was judged before; nothing changed." if is_repeat else "Accepted.")


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
