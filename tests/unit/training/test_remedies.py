"""What training refuses, it takes once the message's words were followed."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pyarrow
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.refusals import refused, without_story
from tests.unit.training.alone import train_alone, world_of_one
from tests.unit.training.article import line
from tests.unit.training.builders import dialogues, make_config, texts, write_dialogues, write_info, write_lines
from tests.unit.training.conftest import Run, Shop
from tunegate.api.versions import Release
from tunegate.cli import root
from tunegate.models import make_tiny
from tunegate.store import Store
from tunegate.store.client import connect, parse_uri
from tunegate.training.compat.pai import PaiJob, read_line
from tunegate.training.compat.pytorchjob import JobSettings, training_job
from tunegate.training.compat.unpack import unpack
from tunegate.training.compat.yaml_file import arguments_of_file
from tunegate.training.config import check_config, check_global_batch
from tunegate.training.data.cache import write_dataset
from tunegate.training.data.datasets import DataSet, find_datasets
from tunegate.training.data.layouts import layout_of
from tunegate.training.data.mixture import Mixture, mix
from tunegate.training.data.readers import Record
from tunegate.training.data.tokenize import Encoded, Example
from tunegate.training.launch.lifecycle import begin
from tunegate.training.loop.methods import _adapter_config, freeze
from tunegate.training.loop.metrics import Metrics
from tunegate.training.loop.trainer_arguments import training_arguments
from tunegate.training.run.base_model import base_folder
from tunegate.training.run.checkpoints import begin_checkpoint, fetch_checkpoint, seal
from tunegate.training.run.curves import read_run
from tunegate.training.run.layout import hold
from tunegate.training.run.plan import identity_of

ALPACA = {"instruction": "Hi", "output": "Hello."}
MESSAGES = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
Do = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """Refused with these words, and what is done instead as they say."""

    words: str
    wrong: Do
    right: Do


def settings(**changes: Any) -> Do:
    """Check the settings of a run; what is in `file` is its DeepSpeed configuration."""

    def check(folder: Path) -> None:
        if "file" in changes:
            (folder / "ds.json").write_text(changes["file"])
            changes["deepspeed"] = str(folder / "ds.json")
        given = {name: value for name, value in changes.items() if name not in ("file", "processes")}
        config = make_config("s3://models", folder, folder, **given)
        check_config(config)
        check_global_batch(config, changes.get("processes", 1))

    return check


def pairs(**changes: Any) -> Do:
    return settings(stage="dpo", finetuning_type="lora", **changes)


SETTINGS = [
    Case("use lower-case letters, digits, '.' and '-'", settings(run="Run 1"), settings(run="run-1")),
    Case("give --dataset the name of an entry", settings(dataset=()), settings(dataset=("shop",))),
    Case(" is not one of: ", settings(truncation="keep_tail"), settings(truncation="keep_last_turns")),
    Case("; it must be ", settings(learning_rate=0.0), settings(learning_rate=1e-5)),
    Case("give at least 1, or -1 to train for", settings(max_steps=0), settings(max_steps=-1)),
    Case("merge that with `tunegate merge`", pairs(resume_from="a/b/c"), pairs()),
    Case("keep one of them", settings(fp16=True, bf16="true"), settings(fp16=False, bf16="true")),
    Case(
        "which --packing has no place for; leave it out",
        settings(finetuning_type="p_tuning", packing=True),
        settings(finetuning_type="p_tuning"),
    ),
    Case(
        "in rows of their own, which --packing would mix; leave it out",
        settings(stage="dpo", packing=True),
        settings(stage="dpo"),
    ),
    Case("is about pairs of answers; give --stage dpo", settings(pref_beta=0.5), settings(stage="dpo", pref_beta=0.5)),
    Case(
        "use ZeRO-2, or leave out --deepspeed",
        settings(finetuning_type="p_tuning_v2", file='{"zero_optimization": {"stage": 3}}'),
        settings(finetuning_type="p_tuning_v2", file='{"zero_optimization": {"stage": 2}}'),
    ),
    Case(
        "which --gradient_checkpointing drops; leave it out",
        settings(finetuning_type="p_tuning_v2", gradient_checkpointing="true"),
        settings(finetuning_type="p_tuning_v2"),
    ),
    Case(
        'processes is …; write "auto" there'.partition("…")[2],
        settings(file='{"train_batch_size": 7}'),
        settings(file='{"train_batch_size": "auto"}'),
    ),
    Case(
        'write "auto" there, or the same',
        settings(file='{"gradient_clipping": 7}'),
        settings(file='{"gradient_clipping": "auto"}'),
    ),
    Case("give a share below 1, or a whole number", settings(val_size=1.5), settings(val_size=0.5)),
    Case(
        "give both (512 each in 2023)",
        settings(max_source_length=64),
        settings(max_source_length=64, max_target_length=64),
    ),
    Case(
        "are two rules for the same thing; give one",
        settings(max_source_length=64, max_target_length=64, truncation="drop"),
        settings(truncation="drop"),
    ),
    Case(
        "give --mix_strategy interleave_under or _over, too",
        settings(interleave_probs=(1.0,)),
        settings(interleave_probs=(1.0,), mix_strategy="interleave_under"),
    ),
    Case(
        "give a share for each",
        settings(interleave_probs=(0.5, 0.5), mix_strategy="interleave_under"),
        settings(interleave_probs=(0.5, 0.5), mix_strategy="interleave_under", dataset=("shop", "more")),
    ),
    Case(
        "leave out a data set that has no share",
        settings(interleave_probs=(1.0, 0.0), mix_strategy="interleave_under", dataset=("shop", "more")),
        settings(interleave_probs=(1.0,), mix_strategy="interleave_under"),
    ),
    Case("remove it from the file", settings(file='{"scheduler": {"type": "WarmupLR"}}'), settings(file="{}")),
    Case("correct --deepspeed", settings(deepspeed="/no/such/file.json"), settings(file="{}")),
    Case("correct it there", settings(file="{stage: 3}"), settings(file='{"zero_optimization": {"stage": 2}}')),
]


def pai(text: str, **given: str) -> Do:
    return lambda folder: read_line(text, given)


def job(**changes: Any) -> Do:
    found = PaiJob((), "run-1", None, None, 1, 1, 0, None, None, None)
    where: dict[str, Any] = dict.fromkeys(("name", "namespace", "image", "store_secret"), "shop")
    return lambda folder: training_job(found, JobSettings(**{**where, "store": None, "endpoint_url": None, **changes}))


LINES = [
    Case("Kubernetes gives whole ones", pai(line() + "-DgpuRequired=50"), pai(line() + "-DgpuRequired=100")),
    Case(
        " workers; make them the same",
        pai(line() + "-DworkerCount=2 -DentryFile='--nnodes=3'"),
        pai(line() + "-DworkerCount=3 -DentryFile='--nnodes=3'"),
    ),
    Case(
        " GPUs a worker; make them the same",
        pai(line() + "-DgpuRequired=100 -DentryFile='--nproc_per_node=2'"),
        pai(line() + "-DgpuRequired=200 -DentryFile='--nproc_per_node=2'"),
    ),
    Case("quote it as for a shell", pai("pai -name 'x"), pai(line())),
    Case("in the pai line; it must be at least", pai(line() + "-DworkerCount=0"), pai(line() + "-DworkerCount=1")),
    Case(
        "in the pai line; it must be a whole number",
        pai(line() + "-DworkerCount=two"),
        pai(line() + "-DworkerCount=2"),
    ),
    Case("say where the run keeps its checkpoints", pai(line("--seed 7")), pai(line("--seed 7 --output_dir run"))),
    Case(
        "give -Dscript=oss://BUCKET/JOB.tar.gz",
        pai(line("--deepspeed ds.json --output_dir x")),
        pai(line("--deepspeed ds.json --output_dir x") + "-Dscript=oss://b/job.tar.gz"),
    ),
    Case(
        "; name it there.",
        pai(line("--output_dir /data/oss_bucket_2/x")),
        pai(line("--output_dir /data/oss_bucket_2/x").replace("oss://a/,", "oss://a/,oss://c/,")),
    ),
    Case(
        " in the pai line; keep one", pai(line() + "-DworkerCount=2 -DworkerCount=3"), pai(line() + "-DworkerCount=2")
    ),
    Case(
        "; the folder of the first one is ",
        pai(line("--output_dir /data/oss_bucket0/x")),
        pai(line("--output_dir /data/oss_bucket_0/x")),
    ),
    Case("give the whole command, with pai -name in front", pai("-DworkerCount=2"), pai(line())),
    Case("tunegate submits pai -name pytorch", pai(line().replace("pytorch112z", "tensorflow")), pai(line())),
    Case(" not known and has no meaning here; leave it out", pai(line() + "-Dtables=a"), pai(line())),
    Case(
        "; a job has one endpoint: keep one of them",
        pai(line().replace("oss://a/,", "oss://a/?host=h2,") + "-DossHost=h1"),
        pai(line().replace("oss://a/,", "oss://a/?host=h1,") + "-DossHost=h1"),
    ),
    Case("There are several `pai` lines; give one", pai(f"{line()};{line()}"), pai(f"{line()};")),
    Case(
        "; PyTorch has workers alone: leave it out",
        pai(line() + """-Dcluster='{"ps": {"count": 1}}'"""),
        pai(line() + """-Dcluster='{"worker": {"count": 1}}'"""),
    ),
    Case("they are -name, -project and -DX=Y", pai(line() + "stray"), pai(line() + "-project stray")),
    Case("a bucket is written oss://BUCKET/", pai(line().replace("oss://a/", "a/")), pai(line())),
    Case(
        "-Dcluster is not JSON such as",
        pai(line() + "-Dcluster=8"),
        pai(line() + """-Dcluster='{"worker": {"gpu": 100}}'"""),
    ),
    Case(
        "set it in the environment, or in a line before pai", pai(line("${p}")), pai(line("${p}"), p="--output_dir x")
    ),
    Case(
        "set it in the environment, or in a line before pai",
        pai(line("${p}")),
        pai('p="--output_dir x"\n' + line("${p}")),
    ),
    Case("give --store, or an --output_dir under", job(), job(store="s3://models")),
]


def yaml_file(text: str) -> Do:
    return lambda folder: arguments_of_file(text, "sft.yaml")


def schedule(**changes: Any) -> Do:
    def read(folder: Path) -> None:
        with world_of_one():
            training_arguments(make_config(None, folder, folder, **changes), folder)

    return read


FILES = [
    Case("; correct it there.", yaml_file("a: ["), yaml_file("seed: 7")),
    Case("; write one a line, such as", yaml_file("seed"), yaml_file("seed: 7")),
    Case(" twice; keep one of them.", yaml_file("seed: 7\nseed: 8"), yaml_file("seed: 7")),
    Case(" layout; write the keys of LLaMA-Fac", yaml_file("peft_config: {}"), yaml_file("finetuning_type: lora")),
    Case(" has settings below ", yaml_file("train:\n  seed: 7"), yaml_file("seed: 7")),
    Case(
        "; give a whole number of steps, or their share",
        settings(save_strategy="steps", save_steps=1.5),
        settings(save_strategy="steps", save_steps=0.5),
    ),
    Case(
        " goes by the validation loss; give --val_size, too",
        settings(lr_scheduler_type="reduce_lr_on_plateau"),
        settings(lr_scheduler_type="reduce_lr_on_plateau", val_size=0.1),
    ),
    Case(
        "; write it so, in single quotes",
        settings(lr_scheduler_kwargs="min_lr=0"),
        settings(lr_scheduler_kwargs='{"min_lr": 1e-7}'),
    ),
    Case(
        "; ZeRO shares the work out alone: remove it from the file",
        settings(file='{"tensor_parallel": {"autotp_size": 2}}'),
        settings(file="{}"),
    ),
    Case(
        " is another; remove one of them",
        settings(file='{"optimizer": {"type": "Lion"}}', optim="sgd"),
        settings(file='{"optimizer": {"type": "Lion"}}'),
    ),
    Case(
        " can't be had with --lr_scheduler_kwargs ",
        schedule(lr_scheduler_type="cosine_with_min_lr"),
        schedule(lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs='{"min_lr": 1e-7}'),
    ),
    Case(
        " is no run's folder; give an --output_dir of `tunegate train`",
        read_run,
        lambda folder: ((folder / "run.json").touch(), read_run(folder)),
    ),
    Case(" needs a package; install it with `pip install ", schedule(optim="grokadamw"), schedule(optim="adafactor")),
]


def entry(name: str = "shop", *, ranked: bool = False, **fields: Any) -> Do:
    """Find a data set that dataset_info.json describes so."""

    def find(folder: Path) -> None:
        write_lines(folder / "rows.jsonl", [ALPACA])
        write_lines(folder / "chats.jsonl", [MESSAGES])
        write_info(folder, shop=fields.get("raw", {"file_name": "rows.jsonl", **fields}))
        find_datasets(str(folder), [name], ranked=ranked)

    return find


RANKED: dict[str, Any] = {"ranked": True, "ranking": True}
PAIR = json.dumps({"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"})


def by_path(name: str, content: str = "") -> Do:
    def find(folder: Path) -> None:
        (folder / "data").mkdir(exist_ok=True)
        write_info(folder / "data", shop={"file_name": "rows.jsonl"})
        write_lines(folder / "data/rows.jsonl", [ALPACA])
        if content:
            (folder / name.rpartition("/")[2]).write_text(content)
        find_datasets(str(folder / "data"), [name.replace("FOLDER", str(folder))])

    return find


def info(text: str | None) -> Do:
    def find(folder: Path) -> None:
        write_lines(folder / "rows.jsonl", [ALPACA])
        if text is not None:
            (folder / "dataset_info.json").write_text(text)
        find_datasets(str(folder), ["shop"])

    return find


def twice(*names: str) -> Do:
    def find(folder: Path) -> None:
        write_lines(folder / "rows.jsonl", [ALPACA])
        write_info(folder, shop={"file_name": "rows.jsonl"}, more={"file_name": "rows.jsonl"})
        find_datasets(str(folder), names)

    return find


def linked(to: str) -> Do:
    """A data set that is a link."""

    def find(folder: Path) -> None:
        (folder / "own.jsonl").unlink(missing_ok=True)
        write_lines(folder / "rows.jsonl", [ALPACA])
        (folder / "own.jsonl").symlink_to(to.replace("FOLDER", str(folder)))
        write_info(folder, shop={"file_name": "own.jsonl"})
        find_datasets(str(folder), ["shop"])

    return find


def hub(*names: str, readme: str = "", **fields: str) -> Do:
    """Find the data set in a folder that has these files."""

    def find(folder: Path) -> None:
        shutil.rmtree(folder / "hub", ignore_errors=True)
        for name in names:
            (folder / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
            write_lines(folder / "hub" / name, [ALPACA])
        if readme:
            (folder / "hub/README.md").write_text(f"---\n{readme}\n---\n")
        write_info(folder, shop={"file_name": "hub", **fields})
        find_datasets(str(folder), ["shop"])

    return find


def test_a_revision_is_left_out_where_the_base_is_a_folder(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "model", texts())
    config = make_config(None, tmp_path, tmp_path / "out", model_name_or_path=str(folder))
    with refused("--model_revision is for a model of a hub, which … is not; leave it out"):
        base_folder(msgspec.structs.replace(config, model_revision="v1"), None)
    assert base_folder(config, None) == (folder, None)


SHOP = '{"shop": {"file_name": "rows.jsonl"}}'
SHA1 = "7d8d28a9d7c3a2a0a1d8a1ba8a8ba0ae6b0c9b0c"
DATA_SETS = [
    Case("name it once, with a weight", twice("shop", "shop"), twice("shop", "more")),
    Case(" has no data set ", entry("shp"), entry("shop")),
    Case("restore the file, or correct file_sha1", entry(file_sha1=SHA1), entry()),
    Case("give --dataset_dir the folder that holds it", info(None), info(SHOP)),
    Case(
        "give --dataset_dir the folder that holds it, or --dataset the path", info(None), by_path("FOLDER/rows.jsonl")
    ),
    Case(" is not a JSON object: …; correct it".partition("…")[0], info("[]"), info(SHOP)),
    Case("give it as --dataset_dir, and --dataset the name", by_path("FOLDER/data"), by_path("shop")),
    Case(
        " can't be recognized by its first records, which have ",
        by_path("FOLDER/own.jsonl", '{"q": "Hi", "a": "Hello."}\n'),
        by_path("FOLDER/own.jsonl", json.dumps(ALPACA) + "\n"),
    ),
    Case("use s3://, oss:// or a path", by_path("hf://shop/rows.jsonl"), by_path("FOLDER/data/rows.jsonl")),
    Case(
        "has pairs of answers; give --stage dpo to learn",
        by_path("FOLDER/own.jsonl", PAIR + "\n"),
        by_path("FOLDER/own.jsonl", json.dumps(ALPACA) + "\n"),
    ),
    Case(
        "columns must name chosen and rejected, for it has ranking",
        entry(**RANKED, columns={"prompt": "instruction", "chosen": "output"}),
        entry(**RANKED, columns={"prompt": "instruction", "chosen": "output", "rejected": "input"}),
    ),
    Case(
        "columns must name prompt; what it leaves out is not read",
        entry(**RANKED, columns={"chosen": "output", "rejected": "input"}),
        entry(**RANKED, columns={"prompt": "instruction", "chosen": "output", "rejected": "input"}),
    ),
    Case("an entry has at least a file_name", entry(raw="rows.jsonl"), entry()),
    Case(
        "give it one of file_name and cloud_file_name",
        entry(raw={"num_samples": 1}),
        entry(raw={"num_samples": 1, "file_name": "rows.jsonl"}),
    ),
    Case("give at least 1, or leave it out", entry(num_samples=0), entry(num_samples=1)),
    Case(
        "columns must name prompt and response",
        entry(columns={"prompt": "instruction"}),
        entry(columns={"prompt": "instruction", "response": "output"}),
    ),
    Case(
        "columns must name messages",
        entry(formatting="sharegpt", columns={"system": "rules"}),
        entry(formatting="sharegpt", columns={"system": "rules", "messages": "messages"}),
    ),
    Case(
        "leave it out to train the text alone", entry(columns={"prompt": "i", "response": "o", "images": "p"}), entry()
    ),
    Case(
        "formatting is left out; give it sharegpt or openai",
        entry(file_name="chats.jsonl", columns={"messages": "messages"}),
        entry(file_name="chats.jsonl", columns={"messages": "messages"}, formatting="openai"),
    ),
    Case(
        "tags say how messages are written; give formatting, too",
        entry(file_name="chats.jsonl", tags={"role_tag": "role", "content_tag": "content"}),
        entry(file_name="chats.jsonl", tags={"role_tag": "role", "content_tag": "content"}, formatting="sharegpt"),
    ),
    Case("; correct it.", entry(num_samples="many"), entry(num_samples=1)),
    Case(": there is no formatting ", entry(formatting="Alpaca"), entry(formatting="alpaca")),
    Case(": there is no key ", entry(num_sample=1), entry(num_samples=1)),
    Case("correct the name, or put the file there", entry(file_name="no.jsonl"), entry(file_name="rows.jsonl")),
    Case(
        "correct the name, or put the file there",
        by_path("FOLDER/own.jsonl"),
        by_path("FOLDER/own.jsonl", json.dumps(ALPACA)),
    ),
    Case(
        " is not one of the kinds that can be read",
        by_path("FOLDER/own.md", "Hi"),
        by_path("FOLDER/own.jsonl", json.dumps(ALPACA)),
    ),
    Case("; repair that, or name another file", linked("/proc/self/mem"), linked("FOLDER/rows.jsonl")),
    Case("; repair that, or name another file", linked("/proc/self/mem"), entry()),
    Case(
        "; repair it, or take it out of the data set",
        by_path("FOLDER/own.csv", 'instruction,output\n"Hi\n'),
        by_path("FOLDER/own.csv", "instruction,output\nHi,Hello.\n"),
    ),
    Case(
        " for validation; give a smaller one",
        lambda folder: mix((30, 1), Mixture(val_size=30.0)),
        lambda folder: mix((30, 1), Mixture(val_size=1.0)),
    ),
    Case(", data set ", entry(ranking=True), entry()),
    Case("has no configuration …; leave out subset", hub("a.jsonl", subset="zh"), hub("a.jsonl")),
    Case(
        "is a file and has no splits; leave out subset and split",
        entry(file_name="rows.jsonl", split="test"),
        entry(file_name="rows.jsonl"),
    ),
    Case("which has no splits; leave out split", hub("a.jsonl", split="test"), hub("a.jsonl")),
    Case(
        "; write one of its own in dataset_info.json, as ",
        hub("train_a.jsonl", "test_a.jsonl", split="dev"),
        hub("train_a.jsonl", "test_a.jsonl", split="test"),
    ),
    Case(
        "one of several configurations is to be named in dataset_info.json",
        hub("a.jsonl", readme="configs: [{config_name: a, data_files: a.jsonl}, {config_name: b, data_files: b}]"),
        hub(
            "a.jsonl",
            readme="configs: [{config_name: a, data_files: a.jsonl}, {config_name: b, data_files: b}]",
            subset="a",
        ),
    ),
    Case("are no YAML; repair them", hub("a.jsonl", readme="configs: ["), hub("a.jsonl", readme="configs: []")),
    Case(
        "and there is no such file; download it to there",
        hub("a.jsonl", readme="configs: [{data_files: b.jsonl}]"),
        hub("a.jsonl", "b.jsonl", readme="configs: [{data_files: b.jsonl}]"),
    ),
    Case("; put them into folders of their own, ", hub("a.jsonl", "test.jsonl"), hub("train.jsonl", "test.jsonl")),
    Case(
        " is missing beside …; download it, too",
        hub("train-00000-of-00002.jsonl"),
        hub("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"),
    ),
    Case(
        " is a Git LFS pointer, not the file itself; fetch it there with",
        by_path("FOLDER/own.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        by_path("FOLDER/own.jsonl", json.dumps(ALPACA)),
    ),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", texts())


def run(lines: str | None = None, *, broken: Callable[[Path], object] = lambda model: None, **changes: Any) -> Do:
    """Begin a run over twelve dialogues, or over `lines`; `broken` is done to its base model before."""

    def start(folder: Path) -> None:
        model = shutil.copytree(folder / "tiny", folder / "model", dirs_exist_ok=True)
        broken(model)
        data = write_dialogues(folder / "data", dialogues(12))
        if lines is not None:
            (data / "shop.jsonl").write_text(lines)
        output = folder / changes.get("output", "run")
        output.mkdir(exist_ok=True)
        given = {name: value for name, value in changes.items() if name != "output"}
        config = make_config("", data, output, **{"store": None, "model_name_or_path": str(model), **given})
        begin(config, output, config.nproc_per_node, None)

    return start


def without(name: str) -> Callable[[Path], object]:
    return lambda model: (model / name).unlink()


def spoil(name: str, text: str) -> Callable[[Path], object]:
    return lambda model: (model / name).write_text(text)


def quantized(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))


def wordless(model: Path) -> None:
    """A tokenizer of two words."""
    (model / "tokenizer_config.json").unlink()
    words = Tokenizer(models.WordLevel({"<unk>": 0, "Hi": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(model)


def checkpoint_of_another(folder: Path) -> None:
    """A checkpoint of this run, and settings that are none of its own."""
    run()(folder)
    begin_checkpoint(folder / "run", 1)
    seal(folder / "run/checkpoint-1", step=1, total_steps=2, epoch=0.5, loss=1.0, run=identity_of(folder / "run"))
    run(learning_rate=2e-3)(folder)


def foreign(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run/model.safetensors").write_text("of another trainer")
    run()(folder)


def moved_away(folder: Path) -> None:
    (folder / "run").rename(folder / "away")
    run()(folder)


def copied(folder: Path) -> None:
    run()(folder)
    begin_checkpoint(folder / "run", 1)
    seal(folder / "run/checkpoint-1", step=1, total_steps=2, epoch=0.5, loss=1.0, run="another")
    run()(folder)


def resume_is_off(folder: Path) -> None:
    run()(folder)
    begin_checkpoint(folder / "run", 1)
    seal(folder / "run/checkpoint-1", step=1, total_steps=2, epoch=0.5, loss=1.0, run=identity_of(folder / "run"))
    run(resume=False)(folder)


def held(output: str) -> Do:
    def start(folder: Path) -> None:
        with hold(folder / "run"), hold(folder / output):
            pass

    return start


def serve_metrics(is_free: bool) -> Do:
    def serve(folder: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            server = Metrics().serve(0 if is_free else taken.getsockname()[1], "127.0.0.1")
            server.server_close()

    return serve


GOOD = json.dumps({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}) + "\n"
RUNS = [
    Case(
        "records were rejected, more than --max_rejected",
        run(GOOD * 9 + "{\n"),
        run(GOOD * 9 + "{\n", max_rejected=0.2),
    ),
    Case(" can be used; the first is ", run(GOOD, cutoff_len=2), run(GOOD, cutoff_len=512)),
    Case(" holds no records; fill it", run(""), run(GOOD)),
    Case("give a number of them from 1 to ", run(GOOD, val_size=1), run(GOOD * 2, val_size=1)),
    Case("give a number of them from 1 to ", run(GOOD * 3, val_size=9), run(GOOD * 3, val_size=0)),
    Case("; save it there once more", run(broken=spoil("tokenizer_config.json", "{")), run()),
    Case("; use another base, or give the --template", run(broken=wordless, template="chatml"), run()),
    Case("it has no config.json; save the model there first", run(broken=without("config.json")), run()),
    Case("save the model's tokenizer into the same folder", run(broken=without("tokenizer.json")), run()),
    Case("train the version it was made from", run(broken=quantized), run()),
    Case("; save the model there again", run(broken=spoil("config.json", "{")), run()),
    Case("correct --model_name_or_path, or give --store", run(model_name_or_path="/no/such/folder"), run()),
    Case("start it as it began, or give a new --run and --output_dir", checkpoint_of_another, run()),
    Case(
        "start it as it began, or give a new --run and --output_dir",
        checkpoint_of_another,
        run(output="new", learning_rate=2e-3),
    ),
    Case("which no run of tunegate wrote there", foreign, run(output="new")),
    Case("which no run of tunegate wrote there", foreign, moved_away),
    Case("is of another run of tunegate", copied, run(output="new")),
    Case("is of another run of tunegate", copied, moved_away),
    Case("leave out --resume False to resume", resume_is_off, run()),
    Case("leave out --resume False to resume", resume_is_off, run(output="new", resume=False)),
    Case("Another run is using ", held("run"), held("other")),
    Case("choose another --metrics_port", serve_metrics(is_free=False), serve_metrics(is_free=True)),
]


@pytest.mark.parametrize("case", RUNS, ids=lambda case: case.words)
def test_a_run_begins_once_the_message_was_followed(
    case: Case, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(tiny, tmp_path / "tiny")
    with refused(case.words):
        case.wrong(tmp_path)
    shutil.rmtree(tmp_path / "model", ignore_errors=True)
    case.right(tmp_path)


def test_an_adapter_is_trained_on_a_version_or_all_weights_are(
    store: Store, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(tiny, tmp_path / "tiny")
    at = {"store": store.uri, "endpoint_url": store.endpoint_url}
    with refused("give the version's name, or use --finetuning_type full"):
        run(finetuning_type="lora", **at)(tmp_path)
    run(output="full", **at)(tmp_path)
    words = ["models", "publish", str(tiny), "tiny/base/checkpoint-0", "--store", store.uri]
    assert CliRunner().invoke(root, words, catch_exceptions=False).exit_code == 0
    run(output="adapter", finetuning_type="lora", model_name_or_path="tiny/base/checkpoint-0", **at)(tmp_path)


def test_an_archive_is_packed_as_the_message_says(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "ds.json").write_text("{}")
    (tmp_path / "own.tar").write_text("no archive")
    subprocess.run(["tar", "-czf", tmp_path / "job.tar.gz", "-C", tmp_path, "ds.json"], check=True)
    place = parse_uri(store.uri)
    for name in ("own.tar", "job.tar.gz"):
        client = connect(place, store.endpoint_url)
        client.upload_file(str(tmp_path / name), place.bucket, f"{place.prefix}{name}")
    with refused("; pack it with tar -czf"):
        unpack(f"{store.uri}/own.tar", tmp_path / "work", store.endpoint_url)
    unpack(f"{store.uri}/job.tar.gz", tmp_path / "work", store.endpoint_url)


def test_a_run_that_the_store_knows_begins_anew_under_another_name(full: Run, shop: Shop, tmp_path: Path) -> None:
    def start(run: str, **changes: Any) -> None:
        config = shop.config(str(tmp_path / run), run=run, **changes)
        Path(config.output_dir).mkdir(exist_ok=True)
        begin(config, Path(config.output_dir), config.nproc_per_node, None)

    with refused("leave out --resume False to resume, or give a new"):
        start("full", resume=False)
    start("full")
    start("again", resume=False)


def test_a_version_that_can_not_be_resumed_leaves_its_runs_name_to_it(full: Run, shop: Shop, tmp_path: Path) -> None:
    """As with checkpoints that somebody published by hand."""
    config = shop.config(str(tmp_path / "half"), run="half")
    store = Store.open(str(config.store), endpoint_url=config.endpoint_url)
    version = full.versions[0]
    manifest = store.manifest(version.uri)
    folder = store.fetch(version.uri, tmp_path / "weights")
    (folder / "release.yaml").unlink()
    release = Release(format=version.format)
    store.publish(folder, f"{config.model}/half/checkpoint-1", release=release, producer=manifest.producer)
    half = store.resolve(f"{config.model}/half/checkpoint-1")
    with refused("was published without what it takes to resume; give a new --run"):
        fetch_checkpoint(store, half, tmp_path / "half")
    again = shop.config(str(tmp_path / "new"), run="half-2")
    (tmp_path / "new").mkdir()
    begin(again, tmp_path / "new", config.nproc_per_node, None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_loss_that_is_no_number_is_one_with_a_smaller_rate(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    data = write_dialogues(tmp_path / "data", dialogues(9))

    def train(name: str, rate: float) -> None:
        changes = {"model_name_or_path": str(tiny), "nproc_per_node": 1, "num_train_epochs": 1, "learning_rate": rate}
        train_alone(make_config(None, data, tmp_path / name, max_grad_norm=1e30, **changes))  # type: ignore[arg-type]

    with refused("start a new run with a smaller --learning_rate"):
        train("run", 1e30)
    train("new", 1e-3)


def method(name: str, **changes: Any) -> Do:
    """Load a tiny model to train it so."""

    def load(folder: Path) -> None:
        config = make_config(None, folder, folder, **{"finetuning_type": name, **changes})  # type: ignore[arg-type]
        model = AutoModelForCausalLM.from_pretrained(folder / "tiny")
        if name == "freeze":
            freeze(model, config.num_layer_trainable, config.name_module_trainable)
        else:
            _adapter_config(model, config)

    return load


METHODS = [
    Case(
        " layers; give at most that", method("freeze", num_layer_trainable=40), method("freeze", num_layer_trainable=2)
    ),
    Case(
        " is in no layer; a layer has: ",
        method("freeze", name_module_trainable="attn"),
        method("freeze", name_module_trainable="self_attn"),
    ),
    Case(
        " is no linear module; give all, or of: ",
        method("lora", lora_target=("c_attn",)),
        method("lora", lora_target=("all",)),
    ),
    Case(
        " is no linear module; give all, or of: ",
        method("lora", lora_target=("c_attn",)),
        method("lora", lora_target=("q_proj",)),
    ),
]


@pytest.mark.parametrize("case", METHODS, ids=lambda case: case.words)
def test_a_method_trains_what_the_model_has(case: Case, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "tiny")
    with refused(case.words):
        case.wrong(tmp_path)
    case.right(tmp_path)


@pytest.mark.parametrize("case", [*SETTINGS, *LINES, *FILES, *DATA_SETS], ids=lambda case: case.words)
def test_what_the_message_says_is_taken(case: Case, tmp_path: Path) -> None:
    with refused(case.words):
        case.wrong(tmp_path)
    case.right(tmp_path)


# Messages whose way out other tests take, or that only a node with a GPU, or several nodes, can be led out of.
ELSEWHERE = {
    "It does not fit: each card needs ": "../cli/test_plan.py::test_a_run_that_does_not_fit_is_refused_with_what_does",
    "It does not fit: a pod's ": "../cli/test_submit.py::"
    "test_what_can_not_fit_in_the_memory_of_a_pod_without_cards_is_refused",
    "A training process was ended from outside; run the same command again": "launch/test_torchrun.py::"
    "test_a_run_whose_launcher_was_killed_goes_on_to_the_same_end",
    "Training failed: ": "launch/test_torchrun.py::"
    "test_a_run_whose_rank_was_killed_says_what_to_do_and_leaves_no_process",
    "where the flags say": "run/test_parent.py::test_a_run_begins_where_the_version_it_names_stood",
    "give that base": "run/test_parent.py::test_a_run_begins_where_the_version_it_names_stood",
    "correct --resume_from, or give --store": "run/test_parent.py::test_a_folder_of_a_run_is_gone_on_from",
    "start from the base without --resume_from": "run/test_parent.py::test_a_folder_of_a_run_is_gone_on_from",
    "and give --resume_from that version": "run/test_parent.py::"
    "test_an_adapter_of_another_trainer_is_published_with_its_base_and_gone_on_from",
    "is on other modules; give its own": "loop/test_methods.py::test_an_adapter_goes_on_on_the_modules_that_it_is_on",
    "The same command has it go on, and nothing stops it again": "run/test_publisher.py::"
    "test_word_to_stop_is_followed_beside_the_next_checkpoint_unless_it_is_older_than_the_start",
    "see what it has: tunegate models list ": "run/test_curve.py::"
    "test_a_run_that_is_not_there_is_told_with_how_to_find_it",
    "the same command resumes from there": "launch/test_torchrun.py::"
    "test_a_run_that_stopped_where_it_was_asked_to_and_lost_its_folder_goes_on_from_the_store",
    "the same command resumes from the newest complete checkpoint": "launch/test_preemption.py::"
    "test_before_training_begins_the_wish_is_fulfilled_at_once",
    "run the same command again to publish what is missing": "launch/test_torchrun.py::"
    "test_what_was_complete_but_not_published_is_published",
    "give the same command again to make them": "data/test_prepare.py::"
    "test_what_was_damaged_or_left_half_is_made_again",
    "mount one ReadWriteMany volume there on each": "loop/test_resume.py::"
    "test_nodes_that_share_neither_folder_nor_store_are_told_so",
    "mount a ReadWriteMany volume that does": "loop/test_resume.py::"
    "test_a_file_that_another_rank_has_seen_is_waited_for",
    "can't send its part of ": "run/test_publisher.py::"
    "test_a_node_that_can_not_send_its_part_leaves_no_version_and_says_why",
    "which alone has it; look at that node's log": "run/test_publisher.py::"
    "test_a_part_that_nobody_sends_is_not_waited_for_when_training_is_done",
    "; it is tried again when that ends": "run/test_publisher.py::"
    "test_a_part_that_nobody_sends_is_not_waited_for_when_training_is_done",
    "leave it out, or compute with --bf16 auto": "loop/test_trainer_arguments.py::test_float16_is_for_gpus",
    "install it with `pip install tensorboard`": "loop/test_trainer.py::test_tensorboard_has_the_losses",
    "has a soft prompt, which training would leave out": "run/test_base_model.py::"
    "test_what_would_not_be_trained_as_it_answers_is_refused",
    "processes can't share it evenly": "run/test_plan.py::"
    "test_a_run_keeps_its_dialogues_to_a_step_when_fewer_processes_go_on",
    "leave it out, or give --fp16 true": "loop/test_trainer_arguments.py::test_bfloat16_is_used_as_requested",
    "has what this run did not write; give a new --output_dir": "run/test_checkpoints.py::"
    "test_a_checkpoint_is_not_written_over_what_is_there",
}


def test_every_message_has_its_story() -> None:
    assert without_story("training", Path(__file__)) == []
    for test in ELSEWHERE.values():
        path, _, name = test.partition("::")
        assert f"\ndef {name}(" in (Path(__file__).parent / path).read_text()


def test_a_file_is_read_once_it_is_converted_repaired_and_described_as_the_message_says(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    text = json.dumps({"instruction": "推荐", "output": "A款"}, ensure_ascii=False)
    rows.write_bytes(text.encode("gbk"))
    with refused("; save it as UTF-8, or convert it: iconv -f "):
        find_datasets(str(tmp_path), (str(rows),))
    with refused(" is not what its name says: it ") as caught:
        rows.write_bytes(gzip.compress(text.encode()))
        find_datasets(str(tmp_path), (str(rows),))
    assert "add .gz to its name" in str(caught.value)
    assert find_datasets(str(tmp_path), (str(rows.rename(f"{rows}.gz")),))[0].layout.formatting == "alpaca"
    rows.write_text('{"a"')
    with refused(" records of … can be read; the first is …; repair it"):
        find_datasets(str(tmp_path), (str(rows),))
    rows.write_text(text)
    assert find_datasets(str(tmp_path), (str(rows),))[0].layout.formatting == "alpaca"


@pytest.mark.parametrize(
    ("name", "package", "words"),
    [
        ("rows.parquet", "pyarrow", "Parquet files need pyarrow; install it with"),
        ("rows.jsonl.zst", "backports.zstd", " needs a package to be read: pip install "),
    ],
)
def test_a_file_is_read_once_the_package_is_there(tmp_path: Path, name: str, package: str, words: str) -> None:
    parquet.write_table(pyarrow.Table.from_pylist([ALPACA]), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl.zst").write_bytes(import_module("backports.zstd").compress(json.dumps(ALPACA).encode()))
    with pytest.MonkeyPatch.context() as without:
        for module in {package, package.partition(".")[0]}:
            without.setitem(sys.modules, module, None)
        with refused(words):
            find_datasets(str(tmp_path), (str(tmp_path / name),))

    assert find_datasets(str(tmp_path), (str(tmp_path / name),))[0].layout.formatting == "alpaca"


def test_a_column_is_read_once_it_has_the_name_that_the_message_says(tmp_path: Path) -> None:
    columns = {"prompt": "instruction", "query": "inputs", "response": "output"}

    def write(query: str) -> None:
        dataset = DataSet("shop", layout_of("alpaca"), (), "", named=tuple((columns | {"query": query}).values()))
        value = {"instruction": "Hi", "input": "there", "output": "Hello."}
        outcome = Encoded(Example([1, 2], [-100, 2]))
        write_dataset(tmp_path, dataset, [(Record("rows.jsonl", 1, value), outcome)], None)

    with refused(" names the column …, which no record has…; they have: "):
        write("inputs")
    write("input")
