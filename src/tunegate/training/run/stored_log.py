"""What a run tells of itself in the store, beside its versions: its log, and what became of its rows.

Speeds differ where all that is published is equal, so neither is part of a version.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tunegate.api.codec import from_json, to_json
from tunegate.store import Store
from tunegate.training.data.cache import DatasetAccount, Rejects
from tunegate.training.data.examples import Account
from tunegate.training.run.layout import ACCOUNT, LOG
from tunegate.training.run.progress import Progress

_FOLDER = ".tunegate/runs"


def keep(store: Store, model: str, run: str, output_dir: Path) -> None:
    """Put the log and the account of the run in `output_dir` into the store, over earlier ones. Raises StoreError."""
    log, account = output_dir / LOG, output_dir / ACCOUNT
    if log.is_file():
        store.put(_key(model, run, LOG), log.read_bytes())
    if account.is_file():
        read = from_json(account.read_bytes(), Account, str(account))
        told = msgspec.structs.replace(read, datasets=tuple(map(_without_places, read.datasets)))
        shares = {_last(name): share for name, share in read.shares.items()}
        store.put(_key(model, run, ACCOUNT), to_json(msgspec.structs.replace(told, shares=shares)))


def bring_log(store: Store, model: str, run: str, output_dir: Path) -> None:
    """The log of a run that goes on in another folder than the one in which it began."""
    if not (output_dir / LOG).is_file() and (body := store.get(_key(model, run, LOG))):
        (output_dir / LOG).write_bytes(body)


def kept(store: Store, model: str, run: str) -> tuple[list[Progress], Account | None]:
    """What `keep` put there; nothing for a run of an earlier tunegate."""
    log, account = (store.get(_key(model, run, name)) for name in (LOG, ACCOUNT))
    lines = (log or b"").splitlines()
    steps = [from_json(line, Progress, _key(model, run, LOG)) for line in lines]
    return steps, from_json(account, Account, _key(model, run, ACCOUNT)) if account else None


def _key(model: str, run: str, name: str) -> str:
    return f"{_FOLDER}/{model}/{run}/{name}"


def _without_places(account: DatasetAccount) -> DatasetAccount:
    """Without folders of the machine, and without what a rejected record held."""
    rejected = {
        reason: Rejects(
            count=rejects.count,
            first=msgspec.structs.replace(rejects.first, file=_last(rejects.first.file), message=""),
        )
        for reason, rejects in account.rejected.items()
    }
    return msgspec.structs.replace(account, name=_last(account.name), rejected=rejected)


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
