"""`tunegate review`: people judge stored answers, and what they say becomes a result in the store."""

from __future__ import annotations

import os
import secrets
import signal
import time
from contextlib import closing, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click
import msgspec

from tunegate.api import environment
from tunegate.api.codec import to_json, to_json_lines
from tunegate.api.errors import EvaluationError, NotFoundError, UsageError
from tunegate.cli.options import json_option, open_store, optional_store_options, print_table, step_bars, store_options
from tunegate.files import disk_errors_as, replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunegate.api.evaluation import Evaluation
    from tunegate.review.items import Mode, Review
    from tunegate.review.judge import Judged
    from tunegate.review.results import Agreement
    from tunegate.review.verdicts import Account

LABEL_STUDIO = "label-studio"

_SHOWN = 20
_PATIENCE = 600.0  # seconds that a store may be away while people are waited for
_FILE = "FILE|s3://BUCKET/KEY"

folder_argument = click.argument("folder", metavar="FOLDER|s3://BUCKET/PREFIX")
endpoint_option = click.option(
    "--endpoint-url", envvar=environment.ENDPOINT_URL, help="The S3 endpoint of a review in a bucket."
)


@click.group()
def command() -> None:
    """Let people judge answers, blind, on one page; what they say is a result that a gate can name."""


@command.command()
@folder_argument
@click.argument("versions", nargs=-1, required=True, metavar="VERSION...")
@click.option("--suite", required=True, metavar="NAME|FOLDER", help="The business suite whose answers are judged.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="As it was given to `tunegate evaluate`.")
@click.option("--pairs", is_flag=True, help="Two answers beside each other, for all pairs of versions; by default one.")
@click.option(
    "--reviewers", type=click.IntRange(1, 20), default=2, show_default=True, help="How many people judge some items."
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    default=0.2,
    show_default=True,
    help="How many of the items that many people judge, to see how far they agree; the others get one.",
)
@store_options
def create(
    folder: str,
    versions: tuple[str, ...],
    suite: str,
    limit: int | None,
    pairs: bool,
    reviewers: int,
    share: float,
    store_uri: str,
    endpoint_url: str | None,
) -> None:
    """Make a review in FOLDER of what VERSIONs answered to a suite when `tunegate evaluate` asked them.

    Into a folder with an older review, marks of answers that did not change are kept.
    """
    from tunegate.evaluation import load_suite
    from tunegate.evaluation.business import BusinessSuite
    from tunegate.review.items import make_review
    from tunegate.review.marks import latest
    from tunegate.review.places import open_place
    from tunegate.review.telling import progress
    from tunegate.store.evaluations import find, save_progress

    loaded = load_suite(suite, limit, endpoint_url=endpoint_url)
    if not isinstance(loaded, BusinessSuite):
        raise UsageError(
            f"{loaded.name} is multiple choice, which nobody needs to judge; name a suite of kind business."
        )
    store = open_store(store_uri, endpoint_url)
    found = []
    for version in (store.resolve(name) for name in versions):
        evaluation = find(store, version.digest, loaded.name)
        if evaluation is None:
            raise NotFoundError(
                f"{version.name} has no answers to {loaded.name} yet; run: "
                f"tunegate evaluate {version.name} --suite {quote(suite)}"
            )
        found.append(evaluation)
    mode: Mode = "pairs" if pairs else "single"
    review = make_review(loaded, found, mode, reviewers=reviewers, share=share)
    place = open_place(folder, endpoint_url)
    place.keep(review)
    for each in progress(review, latest(place.lines("marks"))):
        save_progress(store, each)
    asked, same = len(review.judged), sum(item.is_same for item in review.items)
    click.echo(f"{folder}: {asked} to judge{f', {same} pairs are equal' if same else ''}.")
    click.echo(f"Next: tunegate review serve {folder}")


@command.command()
@folder_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens; elsewhere it wants a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="0: any that is free.")
@optional_store_options
def serve(folder: str, host: str, port: int, store_uri: str | None, endpoint_url: str | None) -> None:
    """Serve the page of the review in FOLDER until you press Ctrl-C; reviewers open the address that is printed.

    The token, where one is wanted, is TUNEGATE_REVIEW_TOKEN, or a new one each time, which is printed. How far
    reviewers are is told in the store, for promotions that wait for them.
    """
    from tunegate.review.desk import Desk
    from tunegate.review.places import open_place
    from tunegate.review.server import is_loopback, listen
    from tunegate.review.telling import telling

    place = open_place(folder, endpoint_url)
    review = place.review()
    given = os.environ.get(environment.REVIEW_TOKEN)
    token = given or (None if is_loopback(host) else secrets.token_urlsafe(16))
    marks = place.open("marks")
    try:
        desk = Desk(review, marks)
        server = listen(desk, host, port, token)
        shown = f"[{host}]" if ":" in host else host
        # A token that somebody keeps in a Secret is not for the log of a pod.
        ending = f"#token=${environment.REVIEW_TOKEN}" if given else f"#token={token}" if token else ""
        click.echo(f"http://{shown}:{server.server_address[1]}/{ending}")
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # which the first process of a container has not
        store = open_store(store_uri, endpoint_url) if store_uri else None
        try:
            with telling(store, desk.progress) if store else nullcontext(), suppress(KeyboardInterrupt):
                server.serve_forever()
        finally:
            server.server_close()
    finally:
        marks.close()


@command.command()
@folder_argument
@click.option("--save", is_flag=True, help="Keep the results in the store, in place of earlier ones.")
@json_option
@optional_store_options
def result(folder: str, save: bool, as_json: bool, store_uri: str | None, endpoint_url: str | None) -> None:
    """Say what reviewers said in FOLDER: a result for each version, with intervals, and how far they agree.

    There is none while judgements are missing.
    """
    from rich.markup import escape

    from tunegate.review.judge import judged
    from tunegate.review.marks import Judgement, latest
    from tunegate.review.places import open_place
    from tunegate.review.results import agreement, comments, results
    from tunegate.review.verdicts import accounts

    place = open_place(folder, endpoint_url)
    review = place.review()
    marks = latest(place.lines("marks"))
    found = results(review, marks, datetime.now(UTC))
    _keep(found, save, store_uri, endpoint_url)
    if as_json:
        click.echo(to_json(found), nl=False)
        return
    _print_results(found)
    if written := comments(review, marks):
        rows = [(each.question, each.reviewer, "\n".join(each.answers), escape(each.text)) for each in written]
        print_table("Comments", ("question", "by", "of A, and B" if review.mode == "pairs" else "of", "comment"), rows)
    _print_agreement(agreement(review, marks))
    replies = [line for line in place.lines("judge") if isinstance(line, Judgement)]
    for model in dict.fromkeys(reply.model for reply in replies):
        _print_accounts(accounts(review, judged(review, replies, model), marks))


@command.command()
@folder_argument
@click.option("--url", required=True, help="A server with OpenAI's API; TUNEGATE_API_KEY is the key that it is sent.")
@click.option("--model", help="What the server calls the judge; by default the first model that it lists.")
@click.option("--concurrency", type=click.IntRange(min=1), default=4, show_default=True, help="Questions at once.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=1024, show_default=True, help="Of a reply, thoughts included."
)
@click.option("--save", is_flag=True, help="Keep the results in the store, as a suite of their own.")
@json_option
@optional_store_options
def judge(
    folder: str,
    url: str,
    model: str | None,
    concurrency: int,
    max_tokens: int,
    save: bool,
    as_json: bool,
    store_uri: str | None,
    endpoint_url: str | None,
) -> None:
    """Ask a model what it says of the items in FOLDER, beside people and never in their place.

    Pairs are asked about in both orders; where the model contradicts itself, that is a tie. Replies are kept as they
    come, so the same command again goes on, and asks again where no verdict could be read.
    """
    from tunegate.review.judge import judged
    from tunegate.review.judging import Judge, ask
    from tunegate.review.marks import Judgement, latest
    from tunegate.review.places import open_place
    from tunegate.review.verdicts import accounts, judge_results

    place = open_place(folder, endpoint_url)
    review = place.review()
    asked = Judge(url, model, os.environ.get(environment.API_KEY), None, concurrency)
    file = place.open("judge")
    try:
        with closing(asked), step_bars() as show:
            refused = ask(asked, review, file, max_tokens, partial(show, asked.model) if show else lambda *_: None)
        said = judged(review, (line for line in file.lines if isinstance(line, Judgement)), asked.model)
    finally:
        file.close()
    people = latest(place.lines("marks"))
    _print_unread(review, said)
    if refused:
        raise EvaluationError(f"{len(refused)} questions have no reply. {refused[0]} Then run the same command again.")
    found = judge_results(review, said, people, datetime.now(UTC))
    _keep(found, save, store_uri, endpoint_url)
    if as_json:
        click.echo(to_json({"results": found, "accounts": accounts(review, said, people)}), nl=False)
    else:
        _print_results(found)
        _print_accounts(accounts(review, said, people))


@command.command()
@folder_argument
@endpoint_option
def export(folder: str, endpoint_url: str | None) -> None:
    """Write the review in FOLDER for Label Studio: tasks as JSON, with what was said so far, and a configuration.

    They are written into FOLDER; those of a review in a bucket into the current folder.
    """
    from tunegate.review.labelstudio import configuration, tasks
    from tunegate.review.marks import latest
    from tunegate.review.places import open_place

    place = open_place(folder, endpoint_url)
    review = place.review()
    written = tasks(review, latest(place.lines("marks")))
    path = place.files / LABEL_STUDIO
    with disk_errors_as(EvaluationError, place.files, "free space and export again."):
        replace_file(path.with_suffix(".json"), to_json(written))
        replace_file(path.with_suffix(".xml"), configuration(review).encode())
    click.echo(f"{path}.json: {len(written)} tasks; {path}.xml: their configuration.")


@command.command("import")
@folder_argument
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--person",
    "people",
    multiple=True,
    metavar="NUMBER|EMAIL=NAME",
    help="What somebody of Label Studio is called here; give it again for more.",
)
@endpoint_option
def import_(folder: str, file: Path, people: tuple[str, ...], endpoint_url: str | None) -> None:
    """Take what people said in Label Studio, from the JSON or JSON-MIN FILE that it exports, into the review in FOLDER.

    The same file may be read again: what is known is left out.
    """
    from tunegate.review.labelstudio import news, read_marks
    from tunegate.review.marks import Joined, latest
    from tunegate.review.places import open_place

    if wrong := next((person for person in people if not all(person.partition("="))), None):
        raise UsageError(f"--person {wrong} is not NUMBER=NAME or EMAIL=NAME.")
    names = {person.partition("=")[0]: person.partition("=")[2] for person in people}
    now = datetime.now(UTC)
    place = open_place(folder, endpoint_url)
    review = place.review()
    said = read_marks(review, file.read_bytes(), now, str(file), names)
    marks = place.open("marks")
    try:
        new = news(latest(marks.lines), said.marks)
        known = {line.reviewer for line in marks.lines if isinstance(line, Joined)}
        for name in sorted({mark.reviewer for mark in new} - known):
            marks.append(Joined(reviewer=name, code="", time=now))  # no code has this sum: nobody else gets the name
        for mark in new:
            marks.append(mark)
    finally:
        marks.close()
    click.echo(f"{file}: {len(new)} new marks, {len(said.marks) - len(new)} that were known.")
    if said.skipped:
        click.echo(f"{said.skipped} annotations were skipped there, and count for nothing.")
    if said.gone:
        click.echo(f"{said.gone} annotations are of items that this review no longer has; they were left out.")


@command.command()
@folder_argument
@click.option(
    "--every",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--at-most", type=click.FloatRange(min=0), metavar="SECONDS", help="Then go on with what is decided.")
@endpoint_option
def wait(folder: str, every: float, at_most: float | None, endpoint_url: str | None) -> None:
    """Wait until people are done with the review in FOLDER, and say how far they are."""
    from tunegate.review.marks import latest
    from tunegate.review.places import open_place
    from tunegate.review.queue import judged, progress
    from tunegate.store.patience import patiently

    place = open_place(folder, endpoint_url)
    review = patiently(_PATIENCE, place.review)
    told, began = None, time.monotonic()
    while True:
        lines = patiently(_PATIENCE, lambda: place.lines("marks"))
        so_far = progress(review, judged(review, latest(lines)))
        if so_far != told:
            told = so_far
            click.echo(f"{folder}: {so_far.done} of {so_far.total} decided on.")
        if so_far.done == so_far.total:
            return
        if at_most is not None and time.monotonic() - began >= at_most:
            click.echo(f"It was waited for {at_most:.0f} s; what is decided counts.")
            return
        time.sleep(every)


@command.command()
@folder_argument
@click.option(
    "--suite",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of a business suite whose answers people judge: the questions are added to it.",
)
@click.option("--corpus", metavar=_FILE, help="JSON lines to train on: dialogues are added.")
@click.option("--pairs", metavar=_FILE, help="JSON lines of preferences: chosen and rejected.")
@endpoint_option
def take(folder: str, suite: Path | None, corpus: str | None, pairs: str | None, endpoint_url: str | None) -> None:
    """Put what reviewers in FOLDER said yes to into a suite, a corpus and pairs. What is there already stays as it is,
    so the same command again adds only what was decided since."""
    from tunegate.evaluation.business import QUESTIONS
    from tunegate.review.decisions import take as take_marks
    from tunegate.review.marks import latest
    from tunegate.review.places import open_place

    if not (suite or corpus or pairs):
        raise UsageError("Nothing is taken unless you say where to: give --suite, --corpus, --pairs or several.")
    place = open_place(folder, endpoint_url)
    taken = take_marks(place.review(), latest(place.lines("marks")))
    if suite:
        _check_judged(suite)
        questions = [msgspec.to_builtins(question) for question in taken.questions]
        _add(str(suite / QUESTIONS), None, [{key: value for key, value in each.items() if value} for each in questions])
    if corpus:
        _add(corpus, endpoint_url, taken.rows)
    if pairs:
        _add(pairs, endpoint_url, taken.pairs)
    if taken.unanswered:
        click.echo(f"{len(taken.unanswered)} are to be learned and nobody wrote how: {', '.join(taken.unanswered)}.")
    if taken.disputed:
        told = ", ".join(taken.disputed)
        click.echo(f"{len(taken.disputed)} have better answers that differ, and were not taken: {told}.")
        click.echo(f"Agree on one, in: tunegate review serve {folder}")
    if taken.undecided:
        click.echo(f"{taken.undecided} are not decided yet; go on with: tunegate review serve {folder}")


def _keep(found: Sequence[Evaluation], save: bool, store_uri: str | None, endpoint_url: str | None) -> None:
    from tunegate.store.evaluations import save as keep

    if not save:
        return
    if not store_uri:
        raise UsageError(f"--save wants a store; name it with --store or {environment.STORE}.")
    store = open_store(store_uri, endpoint_url)
    for evaluation in found:
        keep(store, evaluation)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _print_results(found: Sequence[Evaluation]) -> None:
    rows = [
        (
            result.version,
            metric.name,
            _number(metric.value),
            f"{_number(metric.low)} to {_number(metric.high)}",
            metric.n,
        )
        for result in found
        for metric in result.metrics
        if "/" not in metric.name  # what is said of the reviewers, which is the same for all versions
    ]
    print_table(found[0].suite, ("version", "metric", "value", "95 %", "n"), rows)


def _print_agreement(agreements: Sequence[Agreement]) -> None:
    for agreed in agreements:
        if not agreed.n:
            click.echo(f"{agreed.criterion}: nobody judged the same answers, so agreement is not known.")
            continue
        pairs = "; ".join(f"{' and '.join(k.reviewers)} {_number(k.value)} (n={k.n})" for k in agreed.kappas)
        click.echo(
            f"{agreed.criterion}: Krippendorff's alpha {_number(agreed.alpha)} (n={agreed.n}); Cohen's kappa: {pairs}"
        )


def _print_accounts(found: Sequence[Account]) -> None:
    for each in found:
        if not each.items:
            click.echo(f"{each.criterion} by the model {each.model}: no verdict yet.")
            continue
        people = "; ".join(f"{k.reviewers[1]} {_number(k.value)} (n={k.n})" for k in each.kappas)
        agreed = (
            f"Cohen's kappa with people {_number(each.agreement)} (n={each.n}): {people}"
            if each.n
            else "people judged none of these items, so whether it agrees with them is not known"
        )
        lean, other = each.leans, each.people_lean
        longer = (
            f"the longer answer wins {_number(lean.value)} (n={lean.n}), by people {_number(other.value)} (n={other.n})"
        )
        turned = f"; contradicted itself in {each.contradicted} of {each.items}" if each.contradicted else ""
        click.echo(f"{each.criterion} by the model {each.model}: {agreed}{turned}; {longer}.")


def _print_unread(review: Review, said: Judged) -> None:
    """Which replies hold no verdict, as far as a screen goes; the file has them whole."""
    if said.unread:
        click.echo(f"{len(said.unread)} replies hold no verdict, or several:", err=True)
    for reply in said.unread[:_SHOWN]:
        text, turned = " ".join(reply.reply.split()), ", sides changed" if reply.left else ""
        click.echo(f"  {review.judged[reply.answers].question}, {reply.criterion}{turned}: {text[-120:]!r}", err=True)


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


def _add(name: str, endpoint_url: str | None, found: Sequence[dict[str, Any]]) -> None:
    """Add the lines that the file, here or in a bucket, lacks, by id; it is written again as a whole, or not at all."""
    from tunegate.review.decisions import new_lines
    from tunegate.store.folders import open_file

    folder, file = open_file(name, endpoint_url)
    body = folder.get(file) or b""
    try:
        kept = [msgspec.json.decode(line, type=dict[str, Any]) for line in body.splitlines() if line.strip()]
    except msgspec.DecodeError as error:
        raise UsageError(f"{name} is not a file of JSON lines ({error}); mend it, or name another file.") from None
    added = new_lines(kept, found)
    folder.put(file, body + (b"\n" if body and not body.endswith(b"\n") else b"") + to_json_lines(added))
    click.echo(f"{name}: {len(added)} added, {len(found) - len(added)} were there.")
