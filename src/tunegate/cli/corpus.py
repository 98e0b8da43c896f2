"""`tunegate corpus`: seeds from what users asked, and a corpus that a teacher writes from them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from tunegate.api import environment
from tunegate.api.codec import from_yaml, to_json_lines
from tunegate.api.errors import UsageError
from tunegate.cli.feedback import DAY
from tunegate.cli.options import open_store, optional_store_options, step_bars
from tunegate.cli.review import endpoint_option, folder_argument

if TYPE_CHECKING:
    from tunegate.corpus.build import Builder, Corpus
    from tunegate.corpus.plan import Plan
    from tunegate.corpus.teacher import Teacher

_SHOWN = 3  # reasons for which requests have no reply


@click.group()
def command() -> None:
    """Collect seed questions, and let a teacher model make a corpus of them that says where each line is from."""


@command.command()
@click.argument("output")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A list of suggestions, a question a line. Give it again for more.",
)
@click.option("--since", type=DAY, help="The first day of the log, in UTC; without it and --until no log is read.")
@click.option("--until", type=DAY, help="The last day of the log.")
@click.option(
    "--similarity", type=click.FloatRange(0, 1, min_open=True), default=0.7, show_default=True, help="Of one question."
)
@optional_store_options
def seeds(
    output: str,
    files: tuple[Path, ...],
    since: datetime | None,
    until: datetime | None,
    similarity: float,
    store_uri: str | None,
    endpoint_url: str | None,
) -> None:
    """Write the questions of users that differ from each other to OUTPUT, a file or s3:// URI, one a line as JSON:
    from lists of suggestions, and from the log of answers. Names, numbers and addresses of people are taken out."""
    from tunegate.corpus.sources import choose_seeds, read_text
    from tunegate.store.folders import open_file

    if not files and not (since or until):
        raise UsageError("There is nothing to collect from; give --file, --since or both.")
    found = [(path.name, line) for path in files for line in read_text(path).splitlines() if line.strip()]
    if since or until:
        if not store_uri:
            raise UsageError(f"The log is in the store; name it with --store or {environment.STORE}.")
        found += _asked(store_uri, endpoint_url, since, until)
    with _counted("questions compared", len(found)) as compared:
        rows, counts = choose_seeds(found, similarity, compared)
    into, name = open_file(output, endpoint_url)
    into.put(name, to_json_lines(rows))
    told = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
    click.echo(f"{output}: {len(rows)} seeds of {len(found)} questions{f' ({told})' if told else ''}.")


@command.command()
@click.argument("plan_file", metavar="PLAN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@folder_argument
@click.option("--url", help="The teacher: a server with OpenAI's API; TUNEGATE_API_KEY is its key.")
@click.option("--model", help="What the server calls the teacher; by default the first model that it lists.")
@click.option("--concurrency", type=click.IntRange(min=1), default=4, show_default=True, help="Requests at once.")
@click.option(
    "--part", type=click.IntRange(min=0), help="Write this part of the plan's alone, from 0; the last merges them all."
)
@endpoint_option
def build(
    plan_file: Path,
    folder: str,
    url: str | None,
    model: str | None,
    concurrency: int,
    part: int | None,
    endpoint_url: str | None,
) -> None:
    """Make the corpus of PLAN in FOLDER. Replies are kept as they come: killed, the same command goes on; for equal
    replies the files are equal. A plan that asks for no questions needs no teacher, nor does one whose parts are all
    there."""
    from tunegate.corpus.build import Builder
    from tunegate.corpus.folder import write
    from tunegate.corpus.parts import Parts
    from tunegate.corpus.plan import Plan
    from tunegate.corpus.teacher import Teacher
    from tunegate.store.folders import open_folder

    plan, failed = from_yaml(plan_file.read_bytes(), Plan, str(plan_file)), Counter[str]()
    _check(plan, url, part)
    into = open_folder(folder, endpoint_url)
    with ExitStack() as stack:
        teacher = None
        if url and plan.count:
            key = os.environ.get(environment.API_KEY)
            teacher = stack.enter_context(closing(Teacher(url, model, key, None, concurrency)))
        builder = Builder.of(plan, plan_file.parent, teacher.model if teacher else "", endpoint_url)
        done = stack.enter_context(_counted("replies of the teacher"))
        ask = partial(_write, builder, teacher, folder, endpoint_url, done, failed) if teacher else None
        made = Parts(folder, into, builder).build(ask, part)
    if made:
        corpus, name = made
        write(into, plan, corpus, name)
        _tell(folder, corpus)
    else:
        click.echo(f"{folder}: part {part} of {plan.parts} is there; the last of the others makes the corpus.")
    for words, count in failed.most_common(_SHOWN):
        click.echo(f"{count} without a reply: {words}", err=True)
    if more := sum(failed.values()) - sum(count for _, count in failed.most_common(_SHOWN)):
        click.echo(f"{more} without a reply for other reasons.", err=True)
    if teacher and (tokens := teacher.tokens):
        click.echo(f"The teacher read {tokens.read:,} and wrote {tokens.written:,} tokens this time.")


@command.command()
@click.argument("corpus", metavar="CORPUS")
@folder_argument
@click.option("--reviewers", type=click.IntRange(1, 20), default=1, show_default=True, help="People for each answer.")
@endpoint_option
def review(corpus: str, folder: str, reviewers: int, endpoint_url: str | None) -> None:
    """Make a review in FOLDER of what waits for people in CORPUS, a folder or s3:// URI of `tunegate corpus build`.
    What they say yes to, `tunegate review take FOLDER --corpus FILE` adds to a file."""
    from tunegate.corpus.folder import read_queue
    from tunegate.corpus.queue import to_review
    from tunegate.review.places import open_place
    from tunegate.store.folders import open_folder

    name = Path(corpus).resolve().name.lower()
    made = to_review(name, read_queue(corpus, open_folder(corpus, endpoint_url)), reviewers)
    open_place(folder, endpoint_url).keep(made)
    click.echo(f"{folder}: {len(made.judged)} to decide on.")
    click.echo(f"Next: tunegate review serve {folder}")


@command.command()
@click.argument("corpus", metavar="CORPUS|s3://BUCKET/PREFIX")
@click.option(
    "--job",
    "job_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A PyTorchJob, in which ${CORPUS} stands for the data and ${RUN} for the name of the run.",
)
@click.option("--dry-run", is_flag=True, help="Print the job instead of applying it.")
@endpoint_option
def submit(corpus: str, job_file: Path, dry_run: bool, endpoint_url: str | None) -> None:
    """Start a training job of your cluster on CORPUS. The run is named after the data: the same corpus again starts
    nothing new, nor does an empty one."""
    from tunegate.corpus.folder import fill_in, keep_for_run
    from tunegate.corpus.sources import read_text
    from tunegate.store.folders import open_folder

    run, data = keep_for_run(corpus, open_folder(corpus, endpoint_url))
    if not run:
        click.echo(f"{corpus} holds no dialogues, so nothing is trained.")
        return
    job = fill_in(read_text(job_file), str(job_file), run, data)
    if dry_run:
        click.echo(yaml.safe_dump(job, sort_keys=False), nl=False)
        return
    from tunegate.cli.cluster import apply_training_job

    apply_training_job(job)
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    click.echo(f"pytorchjob/{name} is in {namespace}; follow it: kubectl -n {namespace} get pods -w")


def _check(plan: Plan, url: str | None, part: int | None) -> None:
    """Raises UsageError where the plan and what was said to do do not go together."""
    if part is not None and part >= plan.parts:
        raise UsageError(f"The plan has {plan.parts} parts, from 0, and no {part}; set parts in it, or name another.")
    if plan.count and url is None and (plan.parts == 1 or part is not None):
        raise UsageError("The plan asks for questions; name a teacher with --url, or set count to 0.")


def _write(
    builder: Builder,
    teacher: Teacher,
    folder: str,
    endpoint_url: str | None,
    done: Callable[[int], None],
    failed: Counter[str],
    part: int,
) -> Corpus:
    """What the teacher writes of a part, its replies so far beside those of other parts."""
    from tunegate.corpus.teacher import Replies, kept_replies

    with kept_replies(folder, endpoint_url, done, str(part) if builder.plan.parts > 1 else "") as sheets:
        return builder.write(Replies(teacher, sheets, failed).ask, part)


def _tell(folder: str, corpus: Corpus) -> None:
    click.echo(
        f"{folder}: {len(corpus.records)} dialogues, {len(corpus.queue)} for people, {len(corpus.rejected)} not taken."
    )
    for reason, count in corpus.reasons.most_common():
        click.echo(f"  {reason}: {count}")
    for note in corpus.notes:
        click.echo(note)


@contextmanager
def _counted(what: str, total: int = 0) -> Iterator[Callable[[int], None]]:
    """Shows how many there are of something, of so many where that is known."""
    with step_bars() as show:
        counted = [0]

        def done(count: int) -> None:
            counted[0] += count
            if show:
                show(what, counted[0], total)

        yield done


def _asked(
    store_uri: str, endpoint_url: str | None, since: datetime | None, until: datetime | None
) -> list[tuple[str, str]]:
    """What users asked in these days."""
    from tunegate.feedback.history import judged
    from tunegate.feedback.interactions import question_of

    damaged: list[str] = []
    store = open_store(store_uri, endpoint_url)
    found = [
        ("log", question_of(each.interaction.content.messages))
        for each in judged(store, since and since.date(), until and until.date(), None, damaged)
        if each.interaction and each.interaction.content
    ]
    for told in damaged:
        click.echo(told, err=True)
    return [(origin, question) for origin, question in found if question]
