from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tunegate.api.errors import ModelError, UsageError
from tunegate.models.templates import (
    TEMPLATES,
    closing_of,
    load_template,
    needs_of,
    set_template,
    stops_of,
    template_of,
)

DEFAULT = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
USER: dict[str, str] = {"role": "user", "content": "Hi {{ 7 * 7 }}"}


@pytest.mark.parametrize(
    ("messages", "options", "text"),
    [
        pytest.param([USER], {}, DEFAULT + "<|im_start|>user\nHi {{ 7 * 7 }}<|im_end|>\n", id="default system"),
        pytest.param(
            [{"role": "system", "content": "Be brief."}, USER],
            {"add_generation_prompt": True},
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi {{ 7 * 7 }}<|im_end|>\n"
            "<|im_start|>assistant\n",
            id="own system",
        ),
        pytest.param(
            [{"role": "system", "content": ""}, USER],
            {},
            "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi {{ 7 * 7 }}<|im_end|>\n",
            id="empty system",
        ),
    ],
)
def test_chatml_renders(tiny: Path, messages: list[dict[str, str]], options: dict[str, Any], text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)

    assert tokenizer.apply_chat_template(messages, tokenize=False, **options) == text


def test_the_template_beside_the_weights_is_ours(tiny: Path) -> None:
    assert (tiny / "chat_template.jinja").read_text() == load_template("chatml")


def test_an_unknown_template_names_the_known_ones_and_those_near() -> None:
    with pytest.raises(UsageError, match=r"no template 'lama3'; the templates are: auto, .*yi\. Did you mean llama3"):
        load_template("lama3")


SYSTEM = {"role": "system", "content": "Be brief."}
DIALOGUE = [USER | {"content": "Hi"}, {"role": "assistant", "content": "Hello."}, USER | {"content": "And?"}]
TEXTS = {
    "baichuan2": "Be brief.<reserved_106>Hi<reserved_107>Hello.<reserved_106>And?<reserved_107>",
    "chatglm3": "[gMASK]sop<|system|>\nBe brief.<|user|>\nHi<|assistant|>\nHello.<|user|>\nAnd?<|assistant|>",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello."
    "<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n",
    "deepseek": "<s>Be brief.\n\nUser: Hi\n\nAssistant:Hello.</s>User: And?\n\nAssistant:",
    "deepseek3": "<s>Be brief.<｜User｜>Hi<｜Assistant｜>Hello.</s><｜User｜>And?<｜Assistant｜>",
    "default": "System: Be brief.</s>\nHuman: Hi</s>\nAssistant:Hello.</s>\nHuman: And?</s>\nAssistant:",
    "gemma": "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
    "<start_of_turn>user\nAnd?<end_of_turn>\n<start_of_turn>model\n",
    "glm4": "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\nHello.<|user|>\nAnd?<|assistant|>",
    "llama2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello.</s><s>[INST] And? [/INST]",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello."
    "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] Be brief.\n\nHi[/INST] Hello.</s>[INST] And?[/INST]",
}
TEXTS |= dict.fromkeys(("qwen", "qwen2.5", "qwen3_nothink", "yi"), TEXTS["chatml"])
TEXTS["qwen3"] = TEXTS["chatml"].replace("assistant\nHello", "assistant\n<think>\n\n</think>\n\nHello")


@pytest.fixture(scope="module")
def any_base() -> Any:
    """A tokenizer with the tokens of every base."""
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    made.add_special_tokens(
        {"extra_special_tokens": sorted({token for name in TEMPLATES[1:] for token in needs_of(name)})}
    )
    return made


@pytest.mark.parametrize("name", TEMPLATES[1:])
def test_a_named_template_renders_as_its_model_family_was_tuned(any_base: Any, name: str) -> None:
    set_template(any_base, name, Path("base"))

    text = any_base.apply_chat_template([SYSTEM, *DIALOGUE], tokenize=False, add_generation_prompt=True)

    assert text == TEXTS[name]


def test_families_of_one_form_differ_in_the_system_text_that_they_add(any_base: Any) -> None:
    heads = {}
    for name in ("chatml", "qwen", "qwen2.5", "qwen3", "qwen3_nothink", "yi"):
        set_template(any_base, name, Path("base"))
        heads[name] = any_base.apply_chat_template(DIALOGUE[:1], tokenize=False).partition("<|im_start|>user")[0]

    qwen = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    assert heads == {"chatml": DEFAULT, "qwen": qwen, "qwen2.5": qwen, "qwen3": "", "qwen3_nothink": "", "yi": ""}


@pytest.mark.parametrize(
    ("name", "closing", "stops"),
    [
        ("chatml", "<|im_end|>", ["<|im_end|>"]),
        ("llama3", "<|eot_id|>", ["<|eot_id|>"]),
        ("mistral", "</s>", ["</s>"]),
        ("glm4", "", ["</s>", "<|observation|>", "<|user|>"]),
        ("baichuan2", "", ["</s>", "<reserved_106>"]),
    ],
)
def test_what_ends_an_answer_is_found_by_rendering(any_base: Any, name: str, closing: str, stops: list[str]) -> None:
    set_template(any_base, name, Path("base"))

    assert closing_of(any_base) == closing
    assert stops_of(any_base) == set(any_base.convert_tokens_to_ids(stops))


def test_the_bases_own_template_stays_and_chatml_stands_in_for_none(any_base: Any) -> None:
    any_base.chat_template = "mine"
    set_template(any_base, "auto", Path("base"))
    assert any_base.chat_template == "mine"

    any_base.chat_template = None
    set_template(any_base, "auto", Path("base"))
    assert any_base.chat_template == load_template("chatml")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no chat') }}", r"can't render a question and its answer \(no chat\); give another"),
        ("{{ messages[0]['content'] }}", "leaves answers out, so that nothing can be trained; give another --template"),
    ],
)
def test_a_template_that_renders_no_answer_is_refused(any_base: Any, template: str, reason: str) -> None:
    any_base.chat_template = template

    with pytest.raises(ModelError, match=reason):
        closing_of(any_base)


def test_answers_that_nothing_can_close_are_refused() -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    made.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

    with pytest.raises(ModelError, match="has no end-of-sequence token; set eos_token in it"):
        closing_of(made)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("chat_template.jinja", "hi"),
        ("tokenizer_config.json", '{"chat_template": "hi"}'),
        ("tokenizer_config.json", '{"chat_template": [{"name": "default", "template": "hi"}]}'),
    ],
)
def test_a_models_template_is_found_where_it_was_kept_at_each_time(tmp_path: Path, name: str, text: str) -> None:
    assert template_of(tmp_path) == ""
    (tmp_path / name).write_text(text)

    assert template_of(tmp_path) == "hi"
