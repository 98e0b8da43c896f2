"""`tunegate submit`: a command for another platform becomes a training job in your cluster."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from tunegate import __version__
from tunegate.api import environment

if TYPE_CHECKING:
    from tunegate.training.compat.pai import PaiJob


@click.command(short_help="Turn a `pai` command into a training job of your cluster.")
@click.option("--pai", "line", required=True, metavar="COMMAND", help="The command, in quotes; - reads standard input.")
@click.option("--name", required=True, help="The job's name, and the first part of its versions' names.")
@click.option("-n", "--namespace", default="default", show_default=True, help="Where the job runs.")
@click.option("--image", default=f"tunegate/trainer:{__version__}", show_default=True, help="What its pods run.")
@click.option("--store-secret", default="tunegate-store", show_default=True, help="The Secret with the store's keys.")
@click.option("--claim", default="runs", show_default=True, help="The ReadWriteMany volume that several pods share.")
@click.option(
    "--store",
    "store_uri",
    envvar=environment.STORE,
    show_envvar=True,
    help="The model store, unless --output_dir is in a bucket of the line.",
)
@click.option(
    "--endpoint-url", envvar=environment.ENDPOINT_URL, show_envvar=True, help="The S3 endpoint, as pods reach it."
)
@click.option("--dry-run", is_flag=True, help="Print the job instead of applying it.")
def command(line: str, dry_run: bool, store_uri: str | None, **given: Any) -> None:
    """Turn `pai -name pytorch... -D...` into a PyTorchJob that trains the same, and apply it.

    Variables such as ${params} are taken from lines before it (params="...") or from the environment. Folders under
    /data/oss_bucket_N/ become URIs in the N-th of -Dbuckets; an archive in -Dscript is unpacked where the job works.
    """
    from tunegate.training.compat.pai import read_line
    from tunegate.training.compat.pytorchjob import JobSettings, training_job

    text = sys.stdin.read() if line == "-" else line
    pai_job = read_line(text, os.environ)
    settings = JobSettings(store=store_uri, **given)
    job = training_job(pai_job, settings)
    for note in (*pai_job.notes, *_check(pai_job, job)):
        click.echo(note, err=True)
    if dry_run:
        import yaml

        whole = type("Whole", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
        click.echo(yaml.dump(job, Dumper=whole, sort_keys=False, width=120), nl=False)
        return
    from tunegate.cli.cluster import apply_training_job

    apply_training_job(job)
    namespace = settings.namespace
    click.echo(f"pytorchjob/{settings.name} is in {namespace}; follow it: kubectl -n {namespace} get pods -w")


def _check(pai_job: PaiJob, job: dict[str, Any]) -> tuple[str, ...]:
    """What of the arguments has no effect.

    Raises UsageError or click's for what training would refuse in the pod, as far as that is known here.
    """
    from msgspec.structs import replace

    from tunegate.cli.train import command as train
    from tunegate.cli.train import config_of
    from tunegate.store.files import is_uri
    from tunegate.training.config import check_config

    container = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    arguments = [*container["args"][1:], f"--store={variables[environment.STORE]}"]
    with train.make_context("tunegate train", arguments) as context:
        config = config_of({name: value for name, value in context.params.items() if name != "as_json"})
        notes: tuple[str, ...] = context.meta["notes"]
    is_there = config.deepspeed and (pai_job.package or is_uri(config.deepspeed))  # and not here
    check_config(replace(config, deepspeed=None) if is_there else config)
    return notes
