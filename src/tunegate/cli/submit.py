"""`tunegate submit`: a command for another platform becomes a training job in your cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from tunegate import __version__
from tunegate.api import environment
from tunegate.api.errors import StoreError, UsageError

if TYPE_CHECKING:
    from tunegate.training.compat.pai import PaiJob
    from tunegate.training.config import TrainConfig


@click.command(short_help="Turn a `pai` command into a training job of your cluster.")
@click.option("--pai", "line", required=True, metavar="COMMAND", help="The command, in quotes; - reads standard input.")
@click.option("--name", required=True, help="The job's name, and the first part of its versions' names.")
@click.option("-n", "--namespace", default="default", show_default=True, help="Where the job runs.")
@click.option("--image", default=f"tunegate/trainer:{__version__}", show_default=True, help="What its pods run.")
@click.option("--store-secret", default="tunegate-store", show_default=True, help="The Secret with the store's keys.")
@click.option(
    "--claim", help="A ReadWriteMany volume for several pods to share; without it each has a folder of its own."
)
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
@click.option(
    "--card", "card_name", help="A GPU of the pods, such as H100 or 24GiB: what can't fit on them is refused."
)
@click.option("--queue", help="The queue of Kueue, in the namespace, that decides when all pods start.")
@click.option("--dry-run", is_flag=True, help="Print the job instead of applying it.")
def command(line: str, card_name: str | None, dry_run: bool, store_uri: str | None, **given: Any) -> None:
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
    for note in (*pai_job.notes, *_check(pai_job, job, card_name)):
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


def _check(pai_job: PaiJob, job: dict[str, Any], card_name: str | None) -> tuple[str, ...]:
    """What of the arguments has no effect, and what is not known of their memory.

    Raises UsageError or click's for what training would refuse in the pod, TrainingError for what can't fit there, as
    far as that is known here.
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
    if is_there:
        return (*notes, f"Whether it fits is not known: {config.deepspeed} is read in the pods.")
    return (*notes, *_check_memory(pai_job, config, card_name))


def _check_memory(pai_job: PaiJob, config: TrainConfig, card_name: str | None) -> Iterable[str]:
    """What is not known of a run's memory. Raises TrainingError where what is known says that it can't fit."""
    if pai_job.gpus and card_name is None:
        return ("Whether it fits on its GPUs is not known; name one with --card.",)
    if card_name and not pai_job.gpus:
        raise UsageError("--card is for pods with GPUs, and the line asks for none; leave it out.")
    if not pai_job.gpus and pai_job.memory is None:
        return ()
    from tunegate.models.cards import read_card
    from tunegate.training.run.base_model import config_folder

    card = read_card(card_name) if card_name else None
    try:
        folder = config_folder(config)
    except StoreError as error:
        return (f"Whether it fits is not known: {error}",)
    if folder is None:
        return (f"Whether it fits is not known: the config.json of {config.model_name_or_path} can't be read here.",)
    from kubernetes.utils.quantity import parse_quantity

    from tunegate.models.network import read_config
    from tunegate.training.loop.estimate import check_cards, check_host, estimates

    shape = read_config(folder)
    if card:
        check_cards(estimates(config, shape, card, pai_job.workers * pai_job.processes)[1], card)
    elif limit := pai_job.memory:
        check_host(config, shape, pai_job.processes, pai_job.workers, int(parse_quantity(limit)))
    return ()
