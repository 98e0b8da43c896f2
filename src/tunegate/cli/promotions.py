"""`tunegate promotions`: why a model is live, or isn't."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tunegate.api.errors import NotFoundError
from tunegate.api.resource import to_json
from tunegate.cli.options import home_option, json_option, print_table

if TYPE_CHECKING:
    from tunegate.api.promotion import Promotion
    from tunegate.local.home import Home


@click.group()
def command() -> None:
    """List promotions and explain why they ended as they did."""


@command.command("list")
@home_option
@json_option
def list_(home: Home, as_json: bool) -> None:
    """Every attempt, oldest first."""
    promotions = home.promotions()
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
@home_option
@json_option
def explain(name: str, home: Home, as_json: bool) -> None:
    """What was decided about NAME, on which numbers, by whom and when."""
    found = [p for p in home.promotions() if p.name == name]
    if not found:
        raise NotFoundError(f"There is no promotion {name}; `tunegate promotions list` names them.")
    if as_json:
        click.echo(to_json(found[0]), nl=False)
        return
    _explain(found[0])


def _explain(promotion: Promotion) -> None:
    status = promotion.status
    click.echo(f"{promotion.candidate.name}  {promotion.candidate.digest}")
    if status.stable:
        click.echo(f"against the stable {status.stable.name}  {status.stable.digest}")
    for gate in status.gates:
        sign = {True: "passed", False: "refused", None: "undecided"}[gate.passed]
        click.echo(f"  gate {sign}: {gate.message}")
    if status.comparison:
        click.echo(f"  feedback: {status.comparison.message}")
    for step in status.history:
        click.echo(f"  {step.time:%Y-%m-%d %H:%M:%S}  {step.phase:<16} {step.reason}: {step.message}")
    if status.decision:
        click.echo(f"{status.decision.outcome} by {status.decision.actor}: {status.decision.message}")
    else:
        click.echo(f"{status.phase}: not decided yet")
