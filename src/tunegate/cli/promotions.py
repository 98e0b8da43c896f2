"""`tunegate promotions`: why a model is live, or isn't, and what a person says about it.

The same verbs for the local platform and for a cluster: with --namespace they speak to the cluster of your kubeconfig.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from tunegate.api import environment
from tunegate.api.codec import to_json
from tunegate.api.errors import NotFoundError, ServingError, UsageError
from tunegate.api.promotion import TERMINAL, Abort, Approval
from tunegate.cli.options import (
    home_option,
    json_option,
    open_store,
    optional_store_options,
    print_table,
    transfer_bar,
)
from tunegate.files import disk_errors_as, replace_file

if TYPE_CHECKING:
    from tunegate.api.policy import PromotionPolicy
    from tunegate.api.promotion import Promotion
    from tunegate.api.records import Place
    from tunegate.local.state import Home
    from tunegate.records.signing import PublicKey
    from tunegate.store import Store

F = TypeVar("F", bound=Callable[..., Any])


class Records(Protocol):
    """Where promotions are kept. `options` name it in another command; `actor` is who we are there.

    policy: the one that decided on a promotion, and where. keys: those whose records are trusted, with `files`.
    serving: what serves now, asked at `url` where one is given.
    """

    options: str

    def promotions(self) -> tuple[Promotion, ...]: ...
    def save_decision(self, name: str, decision: Approval | Abort) -> None: ...
    def actor(self) -> str: ...
    def store(self, uri: str | None, endpoint_url: str | None) -> AbstractContextManager[Store]: ...
    def policy(self, promotion: Promotion) -> tuple[PromotionPolicy, Place]: ...
    def keys(self, promotion: Promotion, files: tuple[Path, ...]) -> list[PublicKey]: ...
    def serving(self, promotion: Promotion, url: str | None) -> Mapping[str, str]: ...


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
    """List promotions, explain why they ended as they did, verify that, and approve, reject or abort them."""


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


def key_option(command: F) -> F:
    """Add `--public-key`, passed on as `public_keys`."""
    return click.option(
        "--public-key",
        "public_keys",
        multiple=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help="A PEM file with a key that signed records, besides those that are known; repeatable.",
    )(command)


@command.command()
@click.argument("name")
@where_options
@json_option
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write a page to FILE instead."
)
@key_option
@optional_store_options
def explain(
    name: str,
    home: Home,
    namespace: str | None,
    as_json: bool,
    html: Path | None,
    public_keys: tuple[Path, ...],
    store_uri: str | None,
    endpoint_url: str | None,
) -> None:
    """What was decided about NAME, on which numbers, by whom and when."""
    records = _records(home, namespace)
    found = _find(records, name)
    if html:
        from tunegate.records.checking import explained
        from tunegate.records.page import render

        with records.store(store_uri, endpoint_url) as store:
            page = render(*explained(store, found, records.policy(found), records.keys(found, public_keys)))
        with disk_errors_as(UsageError, html, "Name a file in a folder that can be written."):
            replace_file(html, page.encode())
        click.echo(f"{html} is written; open it in a browser.")
        return
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
@where_options
@json_option
@click.option("--url", help="Where what serves now is asked. Default: the running platform, or the policy's address.")
@key_option
@optional_store_options
def verify(
    name: str,
    home: Home,
    namespace: str | None,
    as_json: bool,
    url: str | None,
    public_keys: tuple[Path, ...],
    store_uri: str | None,
    endpoint_url: str | None,
) -> None:
    """Hold the record of NAME against everything that it speaks of, from what was trained to what serves now.

    Every byte of the weights is read. The exit status is 1 when a link does not hold.
    """
    from tunegate.records.checking import require_record
    from tunegate.records.checking import verify as verify_record

    records = _records(home, namespace)
    found = _find(records, name)
    require_record(found)
    keys = records.keys(found, public_keys)
    with records.store(store_uri, endpoint_url) as store, transfer_bar("reading the weights") as progress:
        done = verify_record(store, found, keys, partial(records.serving, found, url), progress)
    if as_json:
        click.echo(to_json(done), nl=False)
    else:
        signs = {True: "holds", False: "does not hold", None: "not looked at"}
        for link in done.links:
            click.echo(": ".join(filter(None, (f"{link.name} {signs[link.holds]}", link.message))))
    if not done.holds:
        raise SystemExit(1)


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

    @contextmanager
    def store(self, uri: str | None, endpoint_url: str | None) -> Iterator[Store]:
        from tunegate.local.records import opened_store

        if uri:
            yield open_store(uri, endpoint_url)
            return
        with opened_store(self._home) as store:
            yield store

    def policy(self, promotion: Promotion) -> tuple[PromotionPolicy, Place]:
        from tunegate.api.records import Place

        policy = self._home.policy()
        return policy, Place(policy=policy.model)

    def keys(self, promotion: Promotion, files: tuple[Path, ...]) -> list[PublicKey]:
        from tunegate.local.records import public_keys

        return public_keys(self._home, files)

    def serving(self, promotion: Promotion, url: str | None) -> Mapping[str, str]:
        from tunegate.records.checking import served_by

        running = self._home.running()
        if url is None and running is None:
            remedy = f"start it with: tunegate local up {self.options}"
            raise ServingError(
                f"No platform runs on {self._home.folder}, so nothing serves that could be asked; {remedy}"
            )
        return served_by(url or running.url, promotion.candidate.model)  # type: ignore[union-attr]
