"""Each named template, from what is trained to the store and to what the embedded engine reads of a request."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.cli.serving.utils import BaseHandler, Modality

from tests.unit.training.builders import texts
from tests.unit.training.conftest import Shop
from tunegate.api.versions import Producer, Release
from tunegate.models import make_tiny, materialize
from tunegate.models.templates import TEMPLATES, needs_of, stops_of
from tunegate.training.data.formats import dialogues_of
from tunegate.training.data.layouts import layout_of
from tunegate.training.data.readers import Record
from tunegate.training.data.tokenize import IGNORED, Encoded, Limits, encode, load_tokenizer

WEATHER = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": {}}}
CALL = {"id": "000000001", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
PLAIN = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How much is the kettle?"},
    {"role": "assistant", "content": "It costs $10."},
    {"role": "user", "content": "你好 Is it new?"},
    {"role": "assistant", "content": "Yes, it is new."},
]
CALLED = [
    {"role": "user", "content": "Is it sunny in Paris?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "000000001", "content": '{"sky": "clear"}'},
    {"role": "assistant", "content": "Yes, it is."},
]
WITH_TOOLS = ("chatglm3", "glm4", "llama3", "mistral", "qwen", "qwen2.5", "qwen3", "qwen3_nothink", "yi")


@pytest.fixture(scope="module")
def any_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base with the tokens of every template."""
    folder = make_tiny(tmp_path_factory.mktemp("any") / "model", texts())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    needed = sorted({token for name in TEMPLATES[1:] for token in needs_of(name)})
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": needed})
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _turns(ids: list[int], labels: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """What is read before each answer that is trained, and the answer."""
    for place in range(1, len(ids)):
        if labels[place] != IGNORED and labels[place - 1] == IGNORED:
            answer = takewhile(lambda label: label != IGNORED, labels[place:])
            yield ids[:place], list(answer)


@pytest.mark.parametrize("name", TEMPLATES[1:])
def test_what_is_trained_of_a_dialogue_is_what_the_version_is_asked_and_answers(
    shop: Shop, any_base: Path, tmp_path: Path, name: str
) -> None:
    dialogues = [(PLAIN, [])] + [(CALLED, [WEATHER])] * (name in WITH_TOOLS)
    records = [Record("rows", 1, {"messages": messages, "tools": tools}) for messages, tools in dialogues]
    trained = load_tokenizer(any_base, name)
    trained.save_pretrained(tmp_path)  # as a run does, beside the weights
    for file in (*any_base.glob("*.safetensors"), any_base / "config.json"):
        (tmp_path / file.name).hardlink_to(file)
    step = TEMPLATES.index(name)
    published = shop.store.publish(
        tmp_path,
        f"tiny/templates/checkpoint-{step}",
        release=Release(format="huggingface"),
        producer=Producer(kind="test"),
    )

    served = AutoTokenizer.from_pretrained(materialize(shop.store, published))

    for (messages, tools), encoded in zip(
        dialogues, encode(trained, dialogues_of(records, layout_of("openai")), Limits(4096)), strict=True
    ):
        assert isinstance(encoded, Encoded)
        places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        turns = list(_turns(list(encoded.example.input_ids), list(encoded.example.labels)))
        assert [prompt for prompt, _ in turns] == [_asked(served, messages[:place], tools or None) for place in places]
        for place, (_, answer) in zip(places, turns, strict=True):
            assert answer[-1] in stops_of(served)
            said = messages[place].get("content") or '"Paris"'
            assert str(said) in served.decode(answer)


def _asked(tokenizer: Any, messages: list[Any], tools: Any) -> list[int]:
    """As the engine renders a request."""
    inputs = BaseHandler.get_processor_inputs_from_messages(messages, Modality.LLM)
    rendered = tokenizer.apply_chat_template(
        inputs, add_generation_prompt=True, tools=tools, return_dict=True, tokenize=True
    )
    return list(rendered["input_ids"])
