from __future__ import annotations

from pathlib import Path

from tunegate.api.codec import to_json
from tunegate.store import Store
from tunegate.training.data.cache import DatasetAccount, Rejected, Rejects
from tunegate.training.data.examples import Account
from tunegate.training.data.readers import Reason
from tunegate.training.run.layout import ACCOUNT, LOG
from tunegate.training.run.progress import Progress, append, read_log
from tunegate.training.run.stored_log import bring_log, keep, kept

STEP = Progress(
    current_steps=1, total_steps=2, epoch=0.5, percentage=50.0, elapsed_time="0:00:01", remaining_time="0:00:01"
)


def account_of(name: str) -> Account:
    first = Rejected(file=f"{name}/rows.jsonl", line=3, reason=Reason.NO_TEXT, message=f"{name} says: my number is 1")
    dataset = DatasetAccount(
        name=name,
        digest="sha256:" + "0" * 64,
        examples=2,
        rejected={Reason.NO_TEXT: Rejects(count=1, first=first)},
        tokens=9,
        trained_tokens=4,
        cut_dialogues=0,
        cut_turns=0,
        cut_tokens=0,
    )
    return Account(
        datasets=(dataset,),
        shares={name: 1.0},
        train_examples=2,
        validation_examples=0,
        padding=0.0,
        padding_packed=0.0,
    )


def test_what_is_kept_names_no_place_and_no_words_of_a_row(store: Store, tmp_path: Path) -> None:
    (tmp_path / ACCOUNT).write_bytes(to_json(account_of("/home/somebody/shop")))

    keep(store, "shop", "run-1", tmp_path)

    body = store.get(f".tunegate/runs/shop/run-1/{ACCOUNT}") or b""
    assert b"somebody" not in body
    assert b"number" not in body
    steps, account = kept(store, "shop", "run-1")
    assert steps == []
    assert account is not None
    assert (account.datasets[0].name, account.datasets[0].rejected_records, account.shares) == ("shop", 1, {"shop": 1})
    assert store.list() == []


def test_a_run_that_goes_on_elsewhere_has_its_log_from_the_start(store: Store, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    append(first / LOG, STEP)
    keep(store, "shop", "run-1", first)

    bring_log(store, "shop", "run-1", second)
    assert read_log(second) == [STEP]

    append(second / LOG, STEP)
    bring_log(store, "shop", "run-1", second)
    assert len(read_log(second)) == 2
