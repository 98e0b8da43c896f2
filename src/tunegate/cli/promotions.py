"""`tunegate promotions`: why a model is live, or isn't, and what a person says about it.

The same verbs for the local platform and for a cluster: with --namespace they speak to the cluster of your kubeconfig.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from tunegate.api import environment
from tunegate.api.codec import to_json
from tunegate.api.errors import NotFoundError, UsageError
from tunegate.api.promotion import TERMINAL, Abort, Approval
from tunegate.cli.options import home_option, json_option, print_table

if TYPE_CHECKING:
    from tunegate.api.promotion import Promotion
    from tunegate.local.state import Home

F = TypeVar("F", bound=Callable[..., Any])


class Records(Protocol):
    """Where promotions are kept. `options` name it in another command; `actor` is who we are there."""

    options: str

    def promotions(self) -> tuple[Promotion, ...]: ...
    def save_decision(self, name: str, decision: Approval | Abort) -> None: ...
    def actor(self) -> str: ...


def where_options(command: F) -> F:
    """Add `--home` and `--namespace`."""
    return home_option(
        click.option(
            "-n",
            "--namespace",
            envvar=environment.NAMESPACE,
            help="Speak to this namespace of the cluster in your kubeconfig, instead of to the local platform.",
        )(command)
    )


message_option = click.option("-m", "--message", default="", help="Why; it is kept with the promotion.")


@click.group()
def command() -> None:
    """List promotions, explain why they ended as they did, and approve, reject or abort them."""


@command.command("list")
@where_options
@json_option
def list_(home: Home, namespace: str | None, as_json: bool) -> None:
    """Every attempt, oldest first."""
    promotions = _records(home, namespace).promotions()
    if as_json:
        click.echo(to_json(promotions), nl=False)
        return
    rows = [
        (p.name, p.candidate.name, p.status.phase, p.status.decision.message if p.status.decision else "")
        for p in promotions
    ]
    print_table("Promotions", ("promotion", "candidate", "phase", "why"), rows)


@command.command()
@click.argument("name")
@where_options
@json_option
def explain(name: str, home: Home, namespace: str | None, as_json: bool) -> None:
    """What was decided about NAME, on which numbers, by whom and when."""
    found = _find(_records(home, namespace), name)
    if as_json:
        click.echo(to_json(found), nl=False)
        return
    status = found.status
    click.echo(f"{found.candidate.name}  {found.candidate.digest}")
    if status.stable:
        click.echo(f"against the stable {status.stable.name}  {status.stable.digest}")
    for gate in status.gates:
        sign = {True: "passed", False: "refused", None: "undecided"}[gate.passed]
        click.echo(f"  gate {sign}: {gate.message}")
    if status.waiting:
        click.echo(f"  waits: {status.waiting}")
    if status.comparison:
        click.echo(f"  feedback: {status.comparison.message}")
    for step in status.history:
        click.echo(f"  {step.time:%Y-%m-%d %H:%M:%S}  {step.phase:<16} {step.reason}: {step.message}")
    if status.decision:
        click.echo(f"{status.decision.outcome} by {status.decision.actor}: {status.decision.message}")
    else:
        click.echo(f"{status.phase}: not decided yet")


@command.command()
@click.argument("name")
@message_option
@where_options
def approve(name: str, message: str, home: Home, namespace: str | None) -> None:
    """Let NAME, which waits for approval, be shown to users."""
    _judge(_records(home, namespace), name, "Approved", message)


@command.command()
@click.argument("name")
@message_option
@where_options
def reject(name: str, message: str, home: Home, namespace: str | None) -> None:
    """End NAME, which waits for approval, before any user sees it."""
    _judge(_records(home, namespace), name, "Rejected", message)


@command.command()
@click.argument("name")
@message_option
@where_options
def abort(name: str, message: str, home: Home, namespace: str | None) -> None:
    """Stop NAME wherever it is; where users see the candidate, the traffic goes back to the stable."""
    records = _records(home, namespace)
    _require_open(records, _find(records, name))
    decision = Abort(actor=records.actor(), message=message)
    records.save_decision(name, decision)
    click.echo(f"{name} is being aborted, as {decision.actor} says.")


def _judge(records: Records, name: str, verdict: Any, message: str) -> None:
    found = _find(records, name)
    _require_open(records, found)
    if found.status.phase not in ("Pending", "Verifying", "Evaluating", "AwaitingApproval"):
        remedy = f"to stop it: tunegate promotions abort {name} {records.options}"
        raise UsageError(f"{name} is {found.status.phase}, past approval; {remedy}")
    decision = Approval(verdict=verdict, actor=records.actor(), message=message)
    records.save_decision(name, decision)
    click.echo(f"{name}: {verdict.lower()} by {decision.actor}.")


def _require_open(records: Records, found: Promotion) -> None:
    if found.status.phase in TERMINAL:
        remedy = f"see: tunegate promotions explain {found.name} {records.options}"
        raise UsageError(f"{found.name} is over ({found.status.phase}), so it can't be decided any more; {remedy}")


def _find(records: Records, name: str) -> Promotion:
    found = next((promotion for promotion in records.promotions() if promotion.name == name), None)
    if found is None:
        raise NotFoundError(f"There is no promotion {name}; `tunegate promotions list {records.options}` names them.")
    return found


def _records(home: Home, namespace: str | None) -> Records:
    if namespace is None:
        return _LocalRecords(home)
    from tunegate.cli.cluster import ClusterRecords

    return ClusterRecords(namespace)


class _LocalRecords:
    def __init__(self, home: Home) -> None:
        self._home = home
        self.options = home.option

    def promotions(self) -> tuple[Promotion, ...]:
        return self._home.promotions()

    def save_decision(self, name: str, decision: Approval | Abort) -> None:
        self._home.save_decision(name, decision)

    def actor(self) -> str:
        import getpass

        return getpass.getuser()
