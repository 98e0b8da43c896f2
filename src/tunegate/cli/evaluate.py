"""`tunegate evaluate`: measure a version on suites and keep the results in the store."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunegate.api import environment
from tunegate.api.codec import to_json
from tunegate.api.digest import short
from tunegate.api.engine_names import is_template, name_in_engine
from tunegate.api.errors import EvaluationError, UsageError
from tunegate.cli.options import engine_options, json_option, open_store, print_table, store_options
from tunegate.files import default_cache, disk_errors_as
from tunegate.garbage import lasting_imports

if TYPE_CHECKING:
    from tunegate.api.evaluation import Evaluation
    from tunegate.api.versions import ModelVersion
    from tunegate.evaluation import AnySuite
    from tunegate.evaluation.models import Model
    from tunegate.evaluation.models.remote import RemoteModel
    from tunegate.evaluation.shards import Shard
    from tunegate.store import Store

_TERMINATION_MESSAGE = 4096  # bytes; more is cut off by a kubelet
_SHOWN = 5  # answers that could not be read
_READY_SECONDS = 1800.0  # of a server that is started to be asked; large weights take their time


@click.command()
@click.argument("version")
@click.option(
    "--suite",
    "suites",
    multiple=True,
    required=True,
    metavar="NAME|FOLDER",
    help="A suite that comes with tunegate, by name, or any by its folder; give it again for more.",
)
@click.option("--url", help="Ask the server at this URL, which serves VERSION, instead of loading the model here.")
@click.option("--model-name", help="What the server at --url calls the model; by default the first that it lists.")
@engine_options
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="How many questions the server at --url, or the engine at --engine-url, is asked at once.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Ask only the first N questions of each suite.")
@click.option("--force", is_flag=True, help="Measure again, also where the store holds the result.")
@click.option(
    "--shard",
    metavar="I/N",
    help="Measure shard I, from 0, of N alone; the one that finds the others done keeps the result of all.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a store may be away before this gives up, with exit status 75.",
)
@click.option(
    "--submission",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the letters chosen in a multiple-choice suite, as C-Eval's site takes them.",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Also write the results to a file.")
@click.option(
    "--summary",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the main numbers to a file of 4 kB at most, such as a pod's /dev/termination-log.",
)
@json_option
@store_options
def command(
    version: str,
    suites: tuple[str, ...],
    url: str | None,
    model_name: str | None,
    engine_url: str | None,
    engine_model: str | None,
    concurrency: int,
    limit: int | None,
    force: bool,
    shard: str | None,
    patience: float,
    submission: Path | None,
    output: Path | None,
    summary: Path | None,
    as_json: bool,
    store_uri: str,
    endpoint_url: str | None,
) -> None:
    """Measure VERSION (name, URI or digest) on suites.

    A result that the store holds for the same version and the same questions is shown, not measured again. A result
    of --limit is kept, but never in place of one over more questions. Business questions to a version with prompts,
    knowledge or tools are asked as users ask, of a server that is started for it. With --url or --engine-url, whoever
    started that server vouches for what it serves, unless it says which version that is; TUNEGATE_API_KEY is the key
    that the server at --url is sent.
    """
    from tunegate import logs
    from tunegate.evaluation import choice, load_suites
    from tunegate.evaluation.business import BusinessSuite
    from tunegate.evaluation.shards import Shard
    from tunegate.store.patience import patiently
    from tunegate.store.release import read_release

    logs.configure()
    _require_folders({"--output": output, "--submission": submission, "--summary": summary})
    part = Shard.parse(shard) if shard else None
    if part and (url or force):
        raise UsageError("--shard is for a model that is loaded here, and is not measured by --force; leave that out.")
    loaded = patiently(patience, partial(load_suites, suites, limit, endpoint_url=endpoint_url))
    if submission and not (len(loaded) == 1 and isinstance(loaded[0], choice.ChoiceSuite)):
        raise UsageError("--submission is for one suite of kind choice; evaluate the others by themselves.")
    _check_asked(url, model_name, engine_url, engine_model)
    store = patiently(patience, partial(open_store, store_uri, endpoint_url))
    found = patiently(patience, partial(store.resolve, version))
    remote = None
    if url:
        remote = partial(_remote, url, model_name, os.environ.get(environment.API_KEY), found.digest, concurrency)
    elif engine_url:
        from tunegate.serving.config import EngineConfig

        certificate = os.environ.get(environment.ENGINE_CERTIFICATE)
        engine = EngineConfig(
            url=engine_url, model=engine_model, certificate=Path(certificate) if certificate else None
        )
        name = engine_model or found.model  # as `tunegate serve` asks it
        name = name_in_engine(name, found) if is_template(name) else name
        given = {"option": "--engine-url", "key_in": environment.ENGINE_KEY, "certificate": engine.certificate}
        key = os.environ.get(environment.ENGINE_KEY)
        remote = partial(_remote, engine_url, name, key, found.digest, concurrency, **given)
    served, here = loaded[:0], loaded
    if not url and patiently(patience, partial(read_release, store, found)).has_parts:
        served = [suite for suite in loaded if isinstance(suite, BusinessSuite) and not suite.is_rendered]
        here = [suite for suite in loaded if suite not in served]
    measure = partial(_measure, store, found, force=force, is_limited=limit is not None, shard=part, patience=patience)
    results = measure(served, partial(_served, store, found, (engine_url, engine_model), concurrency)) if served else []
    results += measure(here, remote) if here else []
    submitted = choice.submission(results[0]) if submission and results else None
    _write((output, to_json(results)), (submission, to_json(submitted)), (summary, _summary(results)))
    if results:
        _print(results, as_json)
    else:
        click.echo(f"Shard {part} is in the store; the last one that is measured keeps the result of all.")


def _require_folders(files: Mapping[str, Path | None]) -> None:
    """Raises UsageError for a file, by its option, that could not be written when all is measured."""
    for option, path in files.items():
        if path and not path.parent.is_dir():
            raise UsageError(f"The folder {path.parent} does not exist; make it or choose another {option}.")


def _check_asked(url: str | None, model_name: str | None, engine_url: str | None, engine_model: str | None) -> None:
    """Raises UsageError where the options don't say one way to reach the weights."""
    if url and engine_url:
        raise UsageError("--url asks a server, and --engine-url an engine behind one of ours; give one of them.")
    if engine_model and not engine_url:
        raise UsageError("--engine-model says what the engine at --engine-url calls the model; give both.")
    if model_name and not url:
        raise UsageError("--model-name says what the server at --url calls the model; give both.")


def _write(*files: tuple[Path | None, bytes]) -> None:
    for path, body in files:
        if path:
            with disk_errors_as(EvaluationError, path, "the store has the results."):
                path.write_bytes(body)


@contextmanager
def _remote(
    url: str, model_name: str | None, key: str | None, digest: str, concurrency: int, **given: Any
) -> Iterator[RemoteModel]:
    from tunegate.evaluation.models.remote import RemoteModel

    with closing(RemoteModel(url, model_name, key, digest, concurrency, **given)) as model:
        yield model


@contextmanager
def _served(
    store: Store, version: ModelVersion, engine: tuple[str | None, str | None], concurrency: int
) -> Iterator[RemoteModel]:
    """The version behind a server of its own, with all that its release has. `engine`: the URL of one that has the
    weights, and what it calls them. Raises ProcessError as that ends."""
    from tunegate.processes import Child, answers, free_port

    port, name = free_port(), f"evaluated-{short(version.digest)}"
    argv = [sys.executable, "-m", "tunegate", "serve", version.uri, "--port", str(port), "--store", store.uri]
    argv += ["--endpoint-url", store.endpoint_url] if store.endpoint_url else []
    url, log = f"http://127.0.0.1:{port}", default_cache() / "logs" / f"{name}.log"
    # Nobody votes on these answers, and nobody else asks for any.
    private = {environment.FEEDBACK_KEY: secrets.token_hex(32), environment.KEYS: "", environment.MODEL_NAME: ""}
    private |= {environment.ENGINE_URL: engine[0] or "", environment.ENGINE_MODEL: engine[1] or ""}
    private |= {environment.ENGINE_CONTROL: ""}
    with Child.start(name, argv, log=log, env=private) as server:
        server.wait_until(lambda: answers(f"{url}/v2/health/ready"), seconds=_READY_SECONDS)
        with _remote(url, None, os.environ.get(environment.API_KEY), version.digest, concurrency) as model:
            yield model


def _measure(
    store: Store,
    version: ModelVersion,
    suites: Sequence[AnySuite],
    elsewhere: Callable[[], AbstractContextManager[RemoteModel]] | None,
    *,
    force: bool,
    is_limited: bool,
    shard: Shard | None,
    patience: float,
) -> list[Evaluation]:
    """`evaluate_version` with a bar on standard error, once there is something to wait for."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from tunegate.evaluation.versions import evaluate_version

    # Beside servers on the same CPUs, threads that wait by spinning slow each other down several times over. The OpenMP
    # runtime reads this when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Read when those are imported, too: nothing is fetched from a hub, and there is one bar, ours.
    os.environ.update({"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"})
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(SpinnerColumn(), *columns, console=Console(stderr=True))
    task = bar.add_task("", total=None)
    with redirect_stdout(sys.stderr), ExitStack() as stack:  # libraries print as they load

        def load() -> Model:
            if elsewhere:
                stack.enter_context(bar)
                return stack.enter_context(elsewhere())
            with lasting_imports():
                from tunegate.evaluation.models.local import load_version

            stack.enter_context(bar)
            return load_version(store, version, lambda doing: bar.update(task, description=doing))

        def progress(answered: int, total: int) -> None:
            bar.update(task, description="asking questions", completed=answered, total=total)

        return evaluate_version(
            store,
            version,
            suites,
            load,
            force=force,
            is_limited=is_limited,
            shard=shard,
            patience=patience,
            progress=progress,
        )


def _summary(results: Sequence[Evaluation]) -> bytes:
    """A line for each suite: its first metrics, as many as a pod's termination message has room for."""
    room = _TERMINATION_MESSAGE // max(1, len(results))
    lines = []
    for result in results:
        words = [f"{result.suite}:"]
        for metric in result.metrics:
            word = (
                f"{metric.name} {_number(metric.value)} ({_number(metric.low)} to {_number(metric.high)}, n={metric.n})"
            )
            if len(" ".join((*words, word)).encode()) >= room:
                break
            words.append(word)
        lines.append(" ".join(words))
    return "".join(f"{line}\n" for line in lines).encode()


def _print(results: Sequence[Evaluation], as_json: bool) -> None:
    if unscored := [result.suite for result in results if result.metrics[0].n == 0]:
        click.echo(
            f"{unscored[0]} has no labels, so nothing is scored; --submission FILE writes the letters.", err=True
        )
    for result in results:
        _print_unanswered(result)
    if as_json:
        click.echo(to_json(results), nl=False)
        return

    rows = [
        (result.suite, metric.name, _number(metric.value), f"{_number(metric.low)} to {_number(metric.high)}", metric.n)
        for result in results
        for metric in result.metrics
    ]
    title = f"{results[0].version} ({short(results[0].digest)})"
    print_table(title, ("suite", "metric", "value", "95 %", "n"), rows)


def _print_unanswered(result: Evaluation) -> None:
    """Which answers say nothing that can be scored, as far as a screen goes; the JSON has them whole."""
    unanswered = [record for record in result.records if record.scores.get("answered") == 0]
    if unanswered:
        click.echo(
            f"{result.suite}: no usable answer to {len(unanswered)} of {len(result.records)} questions:", err=True
        )
    for record in unanswered[:_SHOWN]:
        click.echo(f"  {record.id}: {' '.join(record.output.split())[-120:]!r}", err=True)
    if len(unanswered) > _SHOWN:
        click.echo("  ... --output FILE writes all.", err=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
