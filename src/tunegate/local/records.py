"""Decision records of the local platform: its keys, when records are written, and the store they are read from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tunegate.api import environment
from tunegate.api.errors import DecisionRecordError, UsageError
from tunegate.api.policy import PromotionPolicy
from tunegate.api.promotion import Promotion, Recorded
from tunegate.api.records import Place
from tunegate.local.state import Home, write
from tunegate.records import writing
from tunegate.records.signing import PublicKey, Signer, new_key, public_pem, read_key, read_pem, read_public_keys
from tunegate.store import EmbeddedStore, Store


def signer(home: Home, file: Path | None) -> Signer:
    """The key that signs records: the one in `file`, or the home folder's own, made on the first use.

    Its public half is kept in the home folder, so that what it signed can be verified after it was replaced. Raises
    UsageError when the file can't be read or is no key.
    """
    path = file or home.signing_key
    if file is None and not path.exists():
        write(path, new_key())
    found = read_key(read_pem(path), str(path))
    public = home.public_keys / f"{found.public_key.keyid[:12]}.pem"
    if not public.exists():
        write(public, public_pem(found))
    return found


def public_keys(home: Home, files: tuple[Path, ...] = ()) -> list[PublicKey]:
    """The keys whose records are ours: those that the home folder knows, and those in `files`. Raises UsageError."""
    return read_public_keys((), (*sorted(home.public_keys.glob("*.pem")), *files))


def write_records(home: Home, store: Store, policy: PromotionPolicy, key: Signer) -> None:
    """Write what is still to be recorded of the promotions that are over.

    Raises StoreError, and DecisionRecordError once all others are written: one that is refused keeps none of them out.
    """
    refused: DecisionRecordError | None = None
    for asked in writing.unrecorded(home.promotions(), policy, Place(policy=policy.model)):
        try:
            record = writing.write(store, asked, key, public_keys(home))
        except DecisionRecordError as error:
            refused = refused or error
        else:
            home.save(with_record(asked.promotion, record))
    if refused:
        raise refused


def with_record(promotion: Promotion, record: Recorded) -> Promotion:
    """The promotion, which says where its record is."""
    return msgspec.structs.replace(promotion, status=msgspec.structs.replace(promotion.status, record=record))


@contextlib.contextmanager
def opened_store(home: Home) -> Iterator[Store]:
    """The store of the platform that runs on `home`; where none runs, the embedded one of the folder is started.

    Raises StoreError.
    """
    with _addressed(home) as (uri, endpoint_url, keys):
        yield Store.open(uri, endpoint_url=endpoint_url, **keys)


@contextlib.contextmanager
def store_environment(home: Home) -> Iterator[dict[str, str]]:
    """What another process needs to use that store while this lasts. Raises StoreError."""
    with _addressed(home) as (uri, endpoint_url, keys):
        told = {environment.STORE: uri, environment.ENDPOINT_URL: endpoint_url or ""}
        named = {"region_name": environment.REGION}
        told |= {named.get(name, name.upper()): value for name, value in keys.items()}
        yield {name: value for name, value in told.items() if value}


@contextlib.contextmanager
def _addressed(home: Home) -> Iterator[tuple[str, str | None, dict[str, str]]]:
    """Its URI, endpoint and keys; there are none for a store that is not embedded."""
    running = home.running()
    if running:
        keys = EmbeddedStore.keys_of(home.store) if running.store == EmbeddedStore.URI else {}
        yield running.store, running.endpoint_url or None, keys
        return
    if not home.store.exists():
        raise UsageError(
            f"{home.folder} has no store of its own; name the one it used with --store, or make one: tunegate local up."
        )
    with home.hold(), EmbeddedStore.start(home.store) as embedded:
        yield embedded.uri, embedded.endpoint_url, embedded.keys
