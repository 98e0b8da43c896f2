"""Tokens on disk: made once, by one process at a time, and the same as those of each row alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.unit.training.builders import dialogues, make_config, texts, write_dialogues, write_info, write_lines
from tunegate.api.errors import DataError, UsageError
from tunegate.models import make_tiny
from tunegate.training import TrainConfig
from tunegate.training.data.dialogues import Dialogue, Message
from tunegate.training.data.examples import TrainingData, account_of, open_training_data
from tunegate.training.data.prepare import Preparing, prepare
from tunegate.training.data.readers import Reason
from tunegate.training.data.tokenize import Encoded, Limits, encode, load_tokenizer

RECORDS = 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", texts())


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dialogues(tmp_path / "data", dialogues(RECORDS))


def _config(data: Path, **changes: Any) -> TrainConfig:
    return make_config("s3://unused", data, data, **changes)


def _ids(data: TrainingData) -> list[list[int]]:
    return [example.input_ids.tolist() for example in data.train]  # type: ignore[union-attr]


def test_the_examples_on_disk_are_those_of_each_dialogue_alone(data: Path, model: Path) -> None:
    tokenizer = load_tokenizer(model, "chatml")

    prepared = prepare(_config(data), model)

    assert len(prepared.train) == RECORDS
    for example, messages in zip(prepared.train, dialogues(RECORDS), strict=True):
        dialogue = Dialogue(msgspec.convert(messages, tuple[Message, ...]))
        (alone,) = encode(tokenizer, [dialogue], Limits(512))
        assert isinstance(alone, Encoded)
        assert np.array_equal(example.input_ids, alone.example.input_ids)
        assert np.array_equal(example.labels, alone.example.labels)
    assert prepared.train.lengths.tolist() == [len(example.input_ids) for example in prepared.train]


def test_the_account_says_what_became_of_every_record(data: Path, model: Path) -> None:
    lengths = prepare(_config(data), model).train.lengths
    limit = int(np.sort(lengths)[RECORDS // 2])
    with (data / "shop.jsonl").open("a") as file:
        file.write('{"messages": [\n{"instruction": "Hi", "output": "Hello."}\n')

    config = _config(data, cutoff_len=limit, max_rejected=0.99)
    prepared = prepare(config, model)
    account = account_of(prepared, config)

    (shop,) = account.datasets
    whole = {example.input_ids.tobytes() for example in prepared.train}  # type: ignore[union-attr]
    assert shop.examples == account.train_examples == len(prepared.train) == len(whole)
    assert shop.examples + shop.rejected_records == RECORDS + 2
    assert {reason: rejects.count for reason, rejects in shop.rejected.items()} == {
        Reason.NOT_JSON: 1,
        Reason.COLUMN_MISSING: 1,
    }
    assert str(shop.rejected[Reason.COLUMN_MISSING].first) == (
        f"shop.jsonl:{RECORDS + 2}: it has no list of messages under 'messages'; "
        "it looks like alpaca, in a data set of openai"
    )
    assert shop.tokens == prepared.train.lengths.sum() <= lengths.sum()
    assert shop.trained_tokens == sum(int((np.asarray(one.labels) >= 0).sum()) for one in prepared.train)
    assert 0 < shop.cut_turns <= shop.cut_dialogues
    assert shop.cut_tokens > shop.cut_turns
    assert 0 <= account.padding < 1
    assert 0 <= account.padding_packed < 1


def test_rejected_records_are_kept_by_file_and_line_also_when_there_are_too_many(
    data: Path, model: Path, tmp_path: Path
) -> None:
    write_info(data, shop={"file_name": "parts", "formatting": "openai"})
    (data / "parts").mkdir()
    (data / "shop.jsonl").rename(data / "parts" / "2.jsonl")
    write_lines(data / "parts" / "1.jsonl", ["{", {"messages": dialogues(1)[0]}, {"messages": []}])

    with pytest.raises(
        DataError, match=r"2 of 33 records were rejected.*--max_rejected 0\.01.*1\.jsonl:1: not valid JSON"
    ):
        prepare(_config(data), model, rejects=tmp_path / "rejected.jsonl")

    rejected = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [(record["file"], record["line"], record["reason"]) for record in rejected] == [
        ("1.jsonl", 1, "NotJson"),
        ("1.jsonl", 3, "NotInTurn"),
    ]


def test_a_data_set_without_a_usable_record_is_refused_by_name(data: Path, model: Path) -> None:
    with pytest.raises(
        DataError, match=rf"None of the {RECORDS} records of the data set 'shop'.*beyond --cutoff_len 16"
    ):
        prepare(_config(data, cutoff_len=16, truncation="drop"), model)


def test_a_named_column_that_no_record_has_is_refused_with_the_nearest_key(data: Path, model: Path) -> None:
    write_lines(data / "rows.jsonl", [{"instruction": "Hi", "input": "there", "output": "Hello."}] * 3)
    columns = {"prompt": "instruction", "query": "inputs", "response": "output"}
    write_info(data, shop={"file_name": "rows.jsonl", "columns": columns})

    with pytest.raises(DataError, match=r"names the column 'inputs', which no record has, did you mean 'input'\?"):
        prepare(_config(data), model)
    write_info(data, shop={"file_name": "rows.jsonl", "columns": columns | {"query": "input"}})
    prepare(_config(data), model)


def test_what_records_say_and_nobody_trains_is_counted_by_key(data: Path, model: Path) -> None:
    rows = [{"instruction": "Hi", "output": "Hello.", "inputs": "there", "id": number} for number in range(3)]
    write_lines(data / "rows.jsonl", rows)
    write_info(data, shop={"file_name": "rows.jsonl"})
    news: list[Preparing] = []

    (account,) = prepare(_config(data), model, news.append).datasets

    assert account.unread == {"inputs": 3, "id": 3} == news[-1].unread


def test_what_the_template_has_no_place_for_is_counted_or_refused(data: Path, model: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x", "reasoning_content": "Hm."}]
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": "{}"}}]}
    rows = [{"messages": messages, "tools": [{"name": "weather"}]}] * 3
    write_lines(data / "rows.jsonl", [*rows, {"messages": [messages[0], call]}])
    write_info(data, shop={"file_name": "rows.jsonl"})

    (account,) = prepare(_config(data, max_rejected=0.5), model).datasets

    assert account.unread == {"messages[].reasoning_content": 3, "tools": 3}
    assert {reason: rejects.count for reason, rejects in account.rejected.items()} == {Reason.TOOL_TURN: 1}


def test_tokens_are_made_once_and_again_when_they_are_asked_for_anew(data: Path, model: Path) -> None:
    def made(**changes: Any) -> list[Preparing]:
        news: list[Preparing] = []
        prepare(_config(data, **changes), model, news.append)
        return news

    assert [(news.dataset, news.records, news.share) for news in made()] == [("shop", RECORDS, 1.0)]
    assert made() == []
    assert made(val_size=5, seed=7, learning_rate=1.0) == []
    assert len(made(overwrite_cache=True)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"cutoff_len": 511},
        {"truncation": "drop"},
        {"max_source_length": 99, "max_target_length": 99},
        {"max_samples": 9},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_have_other_tokens(data: Path, model: Path, change: dict[str, Any]) -> None:
    (one,), (other,) = (prepare(_config(data, **changes), model).folders for changes in ({}, change))

    assert one != other


def test_other_data_and_other_tokenizers_have_other_tokens(data: Path, model: Path, tmp_path: Path) -> None:
    one = prepare(_config(data), model).folders
    other = make_tiny(tmp_path / "other", texts()[:9])

    assert prepare(_config(data), other).folders != one
    (data / "shop.jsonl").write_text((data / "shop.jsonl").read_text().replace("kettle", "teapot"))
    assert prepare(_config(data), model).folders != one


def test_what_was_damaged_or_left_half_is_made_again(data: Path, model: Path, own_cache: Path) -> None:
    prepared = prepare(_config(data), model)
    wanted, (folder,) = _ids(prepared), prepared.folders
    with (folder / "ids.bin").open("r+b") as file:
        file.truncate(8)
    (own_cache / f"{folder.name}.partial").mkdir()
    (own_cache / f"{folder.name}.partial" / "ids.bin").write_bytes(b"left")

    assert _ids(prepare(_config(data), model)) == wanted
    assert [path.name for path in own_cache.iterdir() if path.is_dir()] == [folder.name]


def test_a_rank_that_finds_its_tokens_damaged_says_what_to_do(data: Path, model: Path) -> None:
    config = _config(data)
    (folder,) = prepare(config, model).folders
    (folder / "trained.bin").write_bytes(b"")

    with pytest.raises(DataError, match="gone or damaged; give the same command again"):
        open_training_data(config, [folder])


def test_whoever_has_the_tokens_open_goes_on_while_they_are_made_anew(data: Path, model: Path) -> None:
    prepared = prepare(_config(data), model)
    wanted = _ids(prepared)

    prepare(_config(data, overwrite_cache=True), model)

    assert _ids(prepared) == wanted


def test_several_processes_may_ask_at_once(data: Path, model: Path, tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(
        "import sys, msgspec\nfrom pathlib import Path\nfrom tunegate.training import TrainConfig\n"
        "from tunegate.training.data.prepare import prepare\n"
        "config = msgspec.json.decode(sys.argv[1], type=TrainConfig)\nnews = []\n"
        "prepared = prepare(config, Path(sys.argv[2]), news.append)\n"
        "print(len(news), len(prepared.train), prepared.train.lengths.sum())\n"
    )
    config = msgspec.json.encode(_config(data)).decode()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    asking = [
        subprocess.Popen([sys.executable, script, config, model], stdout=subprocess.PIPE, env=environment)
        for _ in range(3)
    ]
    told = sorted(process.communicate(timeout=300)[0].split() for process in asking)

    assert [one[0] for one in told] == [b"0", b"0", b"1"]
    assert len({tuple(one[1:]) for one in told}) == 1


def test_max_samples_takes_the_first_usable_examples_of_each_data_set(data: Path, model: Path) -> None:
    rows = ["{", *({"instruction": f"The lamp {number}?", "output": "x"} for number in range(5)), "{"]
    write_lines(data / "rows.jsonl", rows)
    write_info(data, a={"file_name": "rows.jsonl"}, b={"file_name": "rows.jsonl"})

    prepared = prepare(_config(data, dataset=("a", "b"), max_samples=2, max_rejected=0.9), model)

    tokenizer = load_tokenizer(model, "chatml")
    said = [tokenizer.decode(row) for row in _ids(prepared)]
    assert [text[text.index("lamp") :][:6] for text in said] == ["lamp 0", "lamp 1", "lamp 0", "lamp 1"]
    assert [dataset.rejected_records for dataset in prepared.datasets] == [1, 1]


def test_a_mixture_is_drawn_over_the_data_sets_and_its_shares_are_told(data: Path, model: Path) -> None:
    for name, count in (("domain", 200), ("safety", 60)):
        write_lines(data / f"{name}.jsonl", [{"instruction": f"{name} {n}", "output": "x"} for n in range(count)])
    write_info(data, **{name: {"file_name": f"{name}.jsonl"} for name in ("domain", "safety")})
    config = _config(
        data,
        dataset=("domain", "safety"),
        mix_strategy="interleave_under",
        interleave_probs=(0.8, 0.2),
        val_size=20,
    )

    prepared = prepare(config, model)

    tokenizer = load_tokenizer(model, "chatml")
    safety = sum("safety" in tokenizer.decode(row) for row in _ids(prepared))
    assert prepared.shares["safety"] == pytest.approx(safety / len(prepared.train))
    assert prepared.shares["safety"] == pytest.approx(0.2, abs=0.06)
    assert len(prepared.validation) == 20
    assert not {bytes(one.input_ids) for one in prepared.validation} & {bytes(one.input_ids) for one in prepared.train}


def test_ranks_open_what_was_prepared_the_same_everywhere(data: Path, model: Path) -> None:
    config = _config(data, val_size=0.2)
    prepared = prepare(config, model)

    opened = open_training_data(config, prepared.folders)

    assert _ids(opened) == _ids(prepared)
    assert len(opened.validation) == 6
    assert [len(example.input_ids) for example in opened.train[2:5]] == opened.train.lengths[2:5].tolist()


def test_a_cache_that_can_not_be_written_is_named(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "file"))

    with pytest.raises(DataError, match="make room, or set TUNEGATE_CACHE"):
        prepare(_config(data), model)


def test_an_unknown_data_set_is_refused_before_anything_is_made(data: Path, model: Path, own_cache: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'shop'"):
        prepare(_config(data, dataset=("shopp",)), model)

    assert not own_cache.exists()


def test_a_full_disk_is_told_and_leaves_nothing_that_looks_whole(data: Path, model: Path, own_cache: Path) -> None:
    script = (
        "import resource, sys, signal\nfrom pathlib import Path\n"
        "from tunegate.training.data.prepare import prepare\nfrom tunegate.training import TrainConfig\n"
        "import msgspec\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "prepare(msgspec.json.decode(sys.argv[1], type=TrainConfig), Path(sys.argv[2]))\n"
    )
    config = msgspec.json.encode(_config(data)).decode()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    ended = subprocess.run([sys.executable, "-c", script, config, model], capture_output=True, env=environment)

    assert b"make room, or set TUNEGATE_CACHE" in ended.stderr
    assert len(prepare(_config(data), model).train) == RECORDS
