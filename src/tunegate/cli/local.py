"""`tunegate local`: the promotion loop on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunegate.api import environment
from tunegate.api.codec import to_json
from tunegate.api.errors import NotFoundError, TunegateError, UsageError
from tunegate.api.policy import ClusterPolicy, read_policy_file
from tunegate.cli.options import home_option, json_option, print_table

if TYPE_CHECKING:
    from tunegate.local.platform import Platform
    from tunegate.local.state import Home


@click.group()
def command() -> None:
    """The promotion loop on this machine, with processes in place of pods."""


@command.command()
@home_option
@click.option(
    "--policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A PromotionPolicy (YAML), as for a cluster.",
)
@click.option("--port", default=8080, show_default=True, help="Where applications ask, on 127.0.0.1.")
@click.option(
    "--store", "store_uri", envvar=environment.STORE, metavar="s3://BUCKET", help="Default: an embedded store."
)
@click.option("--endpoint-url", envvar=environment.ENDPOINT_URL, help="The S3 endpoint, where it is not AWS's.")
@click.option("--limit", type=click.IntRange(min=1), help="Ask only the first N questions of each suite.")
@click.option(
    "--signing-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A PEM file with the key that signs decision records. Default: one made in the home folder.",
)
def up(home: Home, policy: Path | None, port: int, limit: int | None, **where: Any) -> None:
    """Run until Ctrl-C, or `tunegate local down`. Started again after a crash, it resumes where it was."""
    from tunegate.local.platform import Platform, PlatformConfig
    from tunegate.local.state import write

    text = policy.read_bytes() if policy else None
    # a policy that can't be used is refused before anything starts
    asked = home.policy() if text is None else read_policy_file(text, str(policy))
    _check_engine(asked)
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    config = PlatformConfig(home=home, port=port, evaluation_limit=limit, **where)
    with Platform.open(config) as platform:
        _check_initial_version(platform, asked.initial_version)
        if text is not None:  # not before the folder is ours: it may be the policy of a platform that runs
            write(home.policy_file, text)
        click.echo(f"Listens on {platform.url}; records in {home.folder}. Ctrl-C stops it.")
        click.echo(f"To talk to the model in a browser, open {platform.url}/")
        platform.run(stop, lambda event: click.echo(f"{event.promotion}  {event.reason}: {event.message}".strip()))
    click.echo("Stopped; start it again to resume.")


def _check_initial_version(platform: Platform, uri: str) -> None:
    """Raises NotFoundError where the store has no such version."""
    try:
        platform.store.resolve(uri)
    except NotFoundError as error:
        if platform.config.store_uri:
            raise
        name = uri.removeprefix(f"{platform.store.uri}/").rstrip("/")
        publish = f"tunegate local exec {platform.config.home.option} -- tunegate models publish FOLDER {name}"
        raise NotFoundError(f"{error} To put one into the store of this folder: {publish}") from error


def _check_engine(policy: ClusterPolicy) -> None:
    """Raises UsageError for an engine of a policy that could not be asked from here."""
    url = policy.serving.url
    if url and url.key_secret and not os.environ.get(environment.ENGINE_KEY):
        raise UsageError(
            f"The engine at {url.address} asks for a key, which a cluster has in the Secret {url.key_secret.name}; "
            f"set {environment.ENGINE_KEY} to it here."
        )


@command.command()
@home_option
@json_option
def status(home: Home, as_json: bool) -> None:
    """Show where the platform answers and what it is doing."""
    from tunegate.processes import answers

    running = home.running()
    promotions = home.promotions()
    if as_json:
        click.echo(to_json({"running": running, "promotions": promotions, "runs": home.choices()}), nl=False)
        return
    click.echo(f"Running since {running.started:%H:%M:%S} on {running.url}" if running else "Not running.")
    for reason, problem in running.problems.items() if running else ():
        click.echo(f"{reason}: {problem}")
    if running and not answers(f"{running.url}/v2/health/ready"):
        click.echo(f"No version answers there now; see the files in {home.logs}.")
    rows = [(p.name, p.candidate.name, p.status.phase, f"{p.status.weight} %") for p in promotions]
    print_table("Promotions", ("promotion", "candidate", "phase", "weight"), rows)
    for choice in home.choices():
        click.echo(f"{choice.run}: {choice.message}")


@command.command()
@home_option
def down(home: Home) -> None:
    """Stop the platform and everything it started."""
    from tunegate.local.client import stop_platform

    if stop_platform(home):
        click.echo("Stopped.")
    else:
        raise TunegateError(f"No platform runs on {home.folder}; `tunegate local status {home.option}` shows it.")


@command.command()
@click.argument("question")
@home_option
@click.option("--system", default="", help="A system message, such as facts to answer from.")
def ask(question: str, home: Home, system: str) -> None:
    """Ask the promoted model, on the running platform or on one that is started just for this."""
    from tunegate.local.client import ask as ask_platform

    for text in ask_platform(home, question, system):
        click.echo(text, nl=False)
    click.echo()


@command.command("exec", context_settings={"ignore_unknown_options": True})
@home_option
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(home: Home, words: tuple[str, ...]) -> None:
    """Run a command whose store is the platform's, such as `tunegate experience report`; the embedded store is started
    for it where no platform runs."""
    from tunegate.local.records import store_environment

    with store_environment(home) as told:
        try:
            done = subprocess.run(words, env={**os.environ, **told}, check=False)
        except OSError as error:
            raise UsageError(f"{words[0]} can't be run ({error.strerror}); name a command, as in a shell.") from None
    sys.exit(done.returncode)
