"""`tunegate policy`: what a person asks of a PromotionPolicy in a cluster."""

from __future__ import annotations

import click

from tunegate.api import environment


@click.group()
def command() -> None:
    """Have a policy's objects put back as the policy says."""


@command.command()
@click.argument("name")
@click.option(
    "-n",
    "--namespace",
    envvar=environment.NAMESPACE,
    required=True,
    help="The namespace of the policy, in the cluster of your kubeconfig.",
)
def restore(name: str, namespace: str) -> None:
    """Put the route and the servers of policy NAME back as it says, where another manager has changed them.

    It is the way out of TargetModified. Only the changed fields are written.
    """
    from tunegate.cli.cluster import request_restore

    request_restore(name, namespace)
    click.echo(f"{name} is being restored; see: kubectl get promotionpolicy {name} --namespace {namespace}")
