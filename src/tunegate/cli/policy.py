"""`tunegate policy`: what a person asks of a PromotionPolicy in a cluster."""

from __future__ import annotations

import click

from tunegate.api import environment
from tunegate.api.labels import RESTORE, ROLLOUT

_namespace = click.option(
    "-n",
    "--namespace",
    envvar=environment.NAMESPACE,
    required=True,
    help="The namespace of the policy, in the cluster of your kubeconfig.",
)


@click.group()
def command() -> None:
    """Have a policy's objects made as the policy says."""


@command.command()
@click.argument("name")
@_namespace
def restore(name: str, namespace: str) -> None:
    """Put the route and the servers of policy NAME back as it says, where another manager has changed them.

    It is the way out of TargetModified. Only the changed fields are written.
    """
    from tunegate.cli.cluster import ask_policy

    ask_policy(RESTORE, name, namespace)
    click.echo(f"{name} is being restored; see: kubectl get promotionpolicy {name} --namespace {namespace}")


@command.command()
@click.argument("name")
@_namespace
def rollout(name: str, namespace: str) -> None:
    """Make the running servers of policy NAME as it says now: resources, placement, engine, runtime image.

    Their pods are replaced one by one; each goes when its successor answers, so there must be room for one more of
    each server. Without it, a changed policy is for versions to come.
    """
    from tunegate.cli.cluster import ask_policy

    ask_policy(ROLLOUT, name, namespace)
    click.echo(f"{name} is being rolled out; see: kubectl get events --namespace {namespace}")
