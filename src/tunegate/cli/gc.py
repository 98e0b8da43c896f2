"""`tunegate models delete` and `tunegate models gc`: room in the store, and nothing lost that somebody names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tunegate.api.codec import to_json
from tunegate.api.errors import UsageError
from tunegate.api.policy import PromotionPolicy, read_policy_file
from tunegate.cli.options import home_option, json_option, open_store, print_table, store_options

if TYPE_CHECKING:
    from tunegate.api.promotion import Promotion
    from tunegate.local.state import Home
    from tunegate.store import Store

F = TypeVar("F", bound=Callable[..., Any])


def users_options(command: F) -> F:
    """Add `--policy`, `--cluster`, `--home` and `--yes`."""
    command = click.option(
        "--policy",
        "policies",
        multiple=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A PromotionPolicy whose initialVersion stays; may be given several times.",
    )(command)
    command = click.option(
        "--cluster", is_flag=True, help="What policies and promotions of the cluster in your kubeconfig name stays."
    )(command)
    command = click.option("--yes", is_flag=True, help="Do it; without this, only say what would be done.")(command)
    return home_option(command)


@click.command()
@click.argument("versions", nargs=-1, required=True, metavar="VERSION...")
@users_options
@store_options
def delete(
    versions: tuple[str, ...],
    policies: tuple[Path, ...],
    cluster: bool,
    yes: bool,
    home: Home,
    store_uri: str,
    endpoint_url: str | None,
) -> None:
    """Take each VERSION out of the store, unless a policy, a promotion or another version needs it."""
    from tunegate.store import gc

    store = open_store(store_uri, endpoint_url)
    needed = _needed(store, policies, cluster, home)
    every = store.manifests()
    chosen = [store.manifest(version) for version in versions]
    for manifest in chosen:
        gc.require_unneeded(manifest, [other for other in every if other not in chosen], needed)
    for manifest in chosen:
        if yes:
            gc.delete(store, manifest)
        click.echo(f"{'deleted' if yes else 'would delete'} {manifest.name}, {manifest.size:,} bytes")
    _say_how(yes)


@click.command("gc")
@click.argument("model", required=False)
@click.option("--keep", default=10, show_default=True, type=click.IntRange(min=1), help="Newest versions that stay.")
@click.option("--older-than", "days", default=30, show_default=True, type=click.IntRange(min=0), help="In days.")
@users_options
@store_options
@json_option
def collect(
    model: str | None,
    keep: int,
    days: int,
    policies: tuple[Path, ...],
    cluster: bool,
    yes: bool,
    home: Home,
    store_uri: str,
    endpoint_url: str | None,
    as_json: bool,
) -> None:
    """Delete old versions, of MODEL or of all, that neither a policy nor a promotion names.

    Of each model the newest ones stay, those that are not old enough, and the bases of versions that stay.
    """
    from tunegate.store import gc

    store = open_store(store_uri, endpoint_url)
    needed = _needed(store, policies, cluster, home)
    fates = gc.fates(store.manifests(), needed, keep=keep, age=timedelta(days=days), now=datetime.now(UTC))
    fates = tuple(fate for fate in fates if model in (None, fate.manifest.model))
    gone = [fate.manifest for fate in fates if not fate.reason]
    for manifest in gone if yes else ():
        gc.delete(store, manifest)
    if as_json:
        rows = [{"name": fate.manifest.name, "bytes": fate.manifest.size, "stays": fate.reason} for fate in fates]
        click.echo(to_json({"deleted": yes, "versions": rows}), nl=False)
        return
    shown = [(fate.manifest.name, f"{fate.manifest.size:,}", fate.reason or "goes") for fate in fates]
    print_table(f"{len(gone)} of {len(fates)} versions go", ("version", "bytes", "why it stays"), shown)
    click.echo(f"{'deleted' if yes else 'would free'} {sum(manifest.size for manifest in gone):,} bytes")
    _say_how(yes)


def _say_how(yes: bool) -> None:
    if not yes:
        click.echo("nothing was deleted; add --yes to do it")


def _needed(store: Store, policies: Iterable[Path], cluster: bool, home: Home) -> dict[str, str]:
    """Why a version stays, by digest. Raises UsageError when nobody is named who might need one."""
    named = [(policy, "the initial version of a policy") for policy in _initial(policies, home)]
    promotions: tuple[Promotion, ...] = home.promotions()
    if cluster:
        from tunegate.cli.cluster import named_versions

        initial, of_cluster = named_versions()
        named += [(uri, "the initial version of a policy") for uri in initial]
        promotions += of_cluster
    elif not policies and not home.policy_file.exists():
        raise UsageError("Say who uses this store: --cluster, --policy FILE or --home DIR; what they name stays.")
    needed = {}
    for uri, reason in named:
        if uri.startswith(f"{store.uri}/"):
            needed[store.manifest(uri).digest] = reason
    for promotion in promotions:
        for version in (promotion.candidate, promotion.status.stable):
            if version:
                needed[version.digest] = f"named by the promotion {promotion.name}"
    return needed


def _initial(policies: Iterable[Path], home: Home) -> list[str]:
    found: list[PromotionPolicy] = [read_policy_file(path.read_bytes(), str(path)) for path in policies]
    if home.policy_file.exists():
        found.append(home.policy())
    return [policy.initial_version for policy in found]
